"""A generator's second stage: pictures at twice the pixels each way, with finer detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.networks.generator import Residual, smoothed


class Enlarger(nn.Module):
    """Double RGB images (batch, 3, 4n, 4m) in [0, 1] to (batch, 3, 8n, 8m) in [0, 1].

    A bicubic enlargement, plus what a network adds to it, which begins near nothing. The network
    sees no code, so one serves every prior. It works at a quarter, at half and at the whole of the
    small picture's resolution (`widths` channels, `blocks` residual ones each), where convolutions
    are cheap and see far. Maps are doubled linearly, and the picture by a pixel shuffle, which is
    filtered, against the hatching and the checkerboards that they would leave else. `ValueError`
    where widths or blocks are not three, or out of range.
    """

    def __init__(self, widths: Sequence[int] = (96, 64, 24), blocks: Sequence[int] = (2, 1, 1)):
        super().__init__()
        three = len(widths) == len(blocks) == 3
        if not three or min(widths) < 1 or not all(0 <= number <= 64 for number in blocks):
            raise ValueError(
                f"three widths from 1 on, three of 0 … 64 blocks; got {widths}, {blocks}"
            )
        low, middle, high = widths
        self.middle = nn.Conv2d(12, middle, 3, padding=1)
        self.down = nn.Conv2d(middle, low, 4, stride=2, padding=1)
        self.low = nn.Sequential(*(Residual(low) for _ in range(blocks[0])))
        self.up = nn.Conv2d(low, middle, 1)
        self.refine = nn.Sequential(*(Residual(middle) for _ in range(blocks[1])))
        self.high = nn.Conv2d(3, high, 3, padding=1)
        self.over = nn.Conv2d(middle, high, 3, padding=1)
        self.finish = nn.Sequential(*(Residual(high) for _ in range(blocks[2])))
        self.last = nn.Conv2d(high, 12, 3, padding=1)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(cast("Tensor", self.last.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Enlarge images; `ValueError` where a side is no multiple of four."""
        height, width = images.shape[-2:]
        if height % 4 or width % 4:
            raise ValueError(
                f"enlarged are sides that are multiples of four; got {height} and {width}"
            )
        return (enlarged(images) + self.added(images)).clamp(0, 1)

    def added(self, images: Tensor) -> Tensor:
        """Draw what is added to the bicubic enlargement, (batch, 3, 8n, 8m), in float32."""
        x = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        middle = self.middle(F.pixel_unshuffle(x, 2))
        low = self.low(self.down(F.leaky_relu(middle, 0.2)))
        middle = self.refine(middle + self.up(_doubled(low)))
        middle = F.leaky_relu(middle, 0.2)
        high = self.finish(self.high(x) + self.over(_doubled(middle)))
        return smoothed(F.pixel_shuffle(self.last(F.leaky_relu(high, 0.2)), 2))


class EnlargedGenerator(nn.Module):
    """Map codes (batch, *code) to RGB in [0, 1], (batch, 3, size, size): drawn small, then doubled.

    It has what a climb asks of a generator: `image_size` and `view_size` in pixels, twice the first
    stage's, and `code_shape`.
    """

    def __init__(self, generator: nn.Module, enlarger: Enlarger):
        super().__init__()
        self.generator = generator
        self.enlarger = enlarger
        self.image_size = 2 * int(cast("int", generator.image_size))
        self.view_size = 2 * int(cast("int", generator.view_size))
        self.code_shape = cast("tuple[int, ...]", generator.code_shape)

    def forward(self, codes: Tensor) -> Tensor:
        return self.enlarger(self.generator(codes))


def _doubled(x: Tensor) -> Tensor:
    """Double maps (batch, c, n, m) linearly: no convolution after it can tell where it is."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def enlarged(images: Tensor) -> Tensor:
    """Double images (batch, 3, height, width) bicubically, in float32; not held to [0, 1]."""
    return F.interpolate(images.float(), scale_factor=2, mode="bicubic", align_corners=False)
