"""Pixels as a prior: no prior at all."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.priors._prior import Prior
from phosphene.subjects import Subject

MARGIN = 7
"""Pixels and Fourier images have a margin of one part in so many of what the subject sees."""

Side = int | tuple[int, int]
"""Pixels of a square's side, or (height, width)."""


class Pixels(Prior):
    """Make an image of its own pixels, through a sigmoid so that they stay in range.

    Codes are (batch, channels, *size). The subject is shown the central `view` pixels.
    """

    climb = "pixels"

    def __init__(self, size: Side, view: Side | None = None, channels: int = 3):
        self.size = _pair(size)
        self.view = _pair(view or size)
        self.channels = channels

    def __str__(self) -> str:
        shape = [_shown(self.size), _shown(self.view)]
        shape += [str(self.channels)] if self.channels != 3 else []
        return f"{type(self).__name__}({', '.join(shape)})"

    @classmethod
    def load(cls, rest: str, subject: Subject) -> Pixels:
        """Return the prior for a subject, in its channels and shape, with a margin for shifts."""
        height, width = subject.size
        if subject.squares:
            height = width = max(subject.size)
        size = (height + height // MARGIN, width + width // MARGIN)
        prior = cls(size, (height, width), subject.channels)
        prior.name = prior.climb
        return prior

    @property
    def identity(self) -> str:
        """Return "": the name says all."""
        return ""

    @property
    def view_size(self) -> tuple[int, int]:
        return self.view

    def images(self, codes: Tensor) -> Tensor:
        return codes.sigmoid()

    def start(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 0.1 * torch.randn(self.channels, *self.size, generator=generator)

    def mean(self) -> Tensor:
        return torch.zeros(self.channels, *self.size)

    def encode(self, image: Tensor) -> Tensor:
        return torch.logit(image, 1e-3)


def _pair(side: Side) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else side


def _shown(pair: tuple[int, int]) -> str:
    return str(pair[0] if pair[0] == pair[1] else pair)
