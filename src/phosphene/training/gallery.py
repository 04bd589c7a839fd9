"""What a generator makes of fixed photographs, from time to time while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from phosphene.datasets import Photographs
from phosphene.images import Pixels, contact_sheet, to_pixels
from phosphene.tensors import as_images, resized

COLUMNS, EVERY = 8, 300.0
"""Photographs on a sheet, and seconds from one sheet to the next."""
ROWS = ("photograph", "made again", "half of this, half of the next")


class Gallery:
    """Some held-out photographs, evenly spread; a sheet of them is due at once and then every few minutes.

    It draws no random numbers and changes no network, so a run's bits do not depend on it.
    """

    def __init__(self, photographs: Photographs, size: int, device: str):
        """`size` is the generator's, in pixels."""
        chosen = (
            np.linspace(0, len(photographs) - 1, min(COLUMNS, len(photographs)))
            .round()
            .astype(np.int64)
        )
        x = as_images(photographs.images[chosen]).to(device)
        self.images = resized(x, (size, size))
        self._due = 0.0

    def due(self) -> bool:
        """Whether it is time for a sheet; the next one is due some minutes after this was true."""
        if (now := time.monotonic()) < self._due:
            return False
        self._due = now + EVERY
        return True

    @torch.no_grad()
    def sheet(
        self, encode: Callable[[Tensor], Tensor], generate: Callable[[Tensor], Tensor]
    ) -> Pixels:
        """The photographs, what is made of their codes, and of the means of each two neighbours' codes."""
        codes = encode(self.images)
        rows = [self.images, generate(codes), generate((codes + codes.roll(-1, 0)) / 2)]
        labels = [label if i == 0 else "" for label in ROWS for i in range(len(self.images))]
        return contact_sheet(
            [to_pixels(image) for image in torch.cat(rows).cpu().numpy()], labels, len(self.images)
        )
