"""Pixels as a prior: no prior at all."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.priors._prior import Prior
from phosphene.subjects import Subject

MARGIN = 7
"""Pixels and Fourier images have a margin of one part in so many of what the subject sees."""


class Pixels(Prior):
    """The image itself, through a sigmoid so that it stays in range.

    Codes are (batch, 3, size, size). The subject is shown the central `view` pixels.
    """

    climb = "pixels"

    def __init__(self, size: int, view: int | None = None):
        self.size = (size, size)
        self.view = view or size

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.size[0]}, {self.view})"

    @classmethod
    def load(cls, rest: str, subject: Subject) -> Pixels:
        """Return the prior for a subject, with a margin for shifts."""
        side = max(subject.size)
        prior = cls(side + side // MARGIN, side)
        prior.name = prior.climb
        return prior

    @property
    def view_size(self) -> tuple[int, int]:
        return self.view, self.view

    def images(self, codes: Tensor) -> Tensor:
        return codes.sigmoid()

    def start(self, seed: int) -> Tensor:
        return 0.1 * torch.randn(3, *self.size, generator=torch.Generator().manual_seed(seed))

    def mean(self) -> Tensor:
        return torch.zeros(3, *self.size)

    def encode(self, image: Tensor) -> Tensor:
        return torch.logit(image, 1e-3)
