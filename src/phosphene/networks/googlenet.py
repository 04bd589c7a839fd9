"""GoogLeNet for small photographs (Szegedy et al. 2015), with batch norm, one classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INCEPTIONS = {
    "inception3a": (64, (96, 128), (16, 32), 32),
    "inception3b": (128, (128, 192), (32, 96), 64),
    "inception4a": (192, (96, 208), (16, 48), 64),
    "inception4b": (160, (112, 224), (24, 64), 64),
    "inception4c": (128, (128, 256), (24, 64), 64),
    "inception4d": (112, (144, 288), (32, 64), 64),
    "inception4e": (256, (160, 320), (32, 128), 128),
    "inception5a": (256, (160, 320), (32, 128), 128),
    "inception5b": (384, (192, 384), (48, 128), 128),
}
"""Channels of the four branches, as in Szegedy et al.'s table 1.

They are 1×1, (reduce, 3×3), (reduce, 5×5) and after the pool.
"""


class GoogLeNet(nn.Module):
    """Classify by two convolutions, nine inception blocks, features (`pool`) and logits (`fc`).

    `width` is the share of the paper's channels. All named values are after the ReLU. Input (batch,
    3, height, width), normalised; output (batch, classes).
    """

    def __init__(self, classes: int = 100, dropout: float = 0.2, width: float = 1.0):
        super().__init__()
        share = lambda channels: max(1, round(width * channels))  # noqa: E731
        self.conv1 = _block(3, share(64), 7, stride=2)
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = nn.Sequential(
            _block(share(64), share(64), 1), _block(share(64), share(192), 3)
        )
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1)
        channels = share(192)
        for name, (one, three, five, pooled) in INCEPTIONS.items():
            if name in ("inception4a", "inception5a"):
                self.add_module(f"pool{int(name[9]) - 1}", nn.MaxPool2d(3, stride=2, padding=1))
            threes = (share(three[0]), share(three[1]))
            fives = (share(five[0]), share(five[1]))
            block = Inception(channels, share(one), threes, fives, share(pooled))
            self.add_module(name, block)
            channels = block.channels
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.children():
            images = layer(images)
        return images


class Inception(nn.Module):
    """Join four branches side by side along the channels."""

    def __init__(
        self, before: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int
    ):
        super().__init__()
        self.channels = one + three[1] + five[1] + pooled
        self.one = _block(before, one, 1)
        self.three = nn.Sequential(_block(before, three[0], 1), _block(three[0], three[1], 3))
        self.five = nn.Sequential(_block(before, five[0], 1), _block(five[0], five[1], 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _block(before, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


def _block(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution, batch norm and a ReLU."""
    conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())
