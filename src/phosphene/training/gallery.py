"""What a network makes of fixed photographs, from time to time while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from phosphene.images import Pixels, contact_sheet, to_pixels

COLUMNS, EVERY = 8, 300.0
"""Photographs on a sheet, and seconds from one sheet to the next."""


@dataclass
class Gallery:
    """A sheet of labelled `rows` of images, which is due at once and then every few minutes.

    The rows draw no random numbers and change no network, so a run's bits do not depend on them.
    """

    name: str
    rows: Callable[[], dict[str, Tensor]]
    _due: float = 0.0

    def due(self) -> bool:
        """Return whether it is time for a sheet; the next is due some minutes after that."""
        if (now := time.monotonic()) < self._due:
            return False
        self._due = now + EVERY
        return True

    @torch.no_grad()
    def sheet(self) -> Pixels:
        """Return the rows as one picture, each with its label at its first image."""
        rows = self.rows()
        n = max(map(len, rows.values()))
        labels = [label if i == 0 else "" for label in rows for i in range(n)]
        images = torch.cat(list(rows.values())).cpu().numpy()
        return contact_sheet([to_pixels(image) for image in images], labels, n)


def evenly(n: int) -> list[int]:
    """Return the numbers of those of `n` photographs that are shown, evenly spread."""
    return np.linspace(0, n - 1, min(COLUMNS, n)).round().astype(int).tolist()
