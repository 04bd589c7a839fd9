"""ResNet-18's shape for small photographs (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ResNet(nn.Module):
    """Classify by basic blocks in four layers after a stride of four (He et al., for 224 pixels).

    `conv1`, `pool1`, `layer1` … `layer4` (values after the ReLU), `pool` (the pooled features, a
    code), `fc` (logits). Input (batch, 3, height, width), normalised; output (batch, classes).
    """

    def __init__(self, classes: int = 100, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = [width, *widths[:-1]]
        for i, (before, after, number) in enumerate(zip(inputs, widths, blocks, strict=True)):
            first = BasicBlock(before, after, stride=2 if i else 1)
            layer = nn.Sequential(first, *(BasicBlock(after, after) for _ in range(number - 1)))
            self.add_module(f"layer{i + 1}", layer)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.children():
            images = layer(images)
        return images


class BasicBlock(nn.Module):
    """Return ReLU(shortcut + two 3×3 convolutions with batch norm)."""

    def __init__(self, before: int, after: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        nn.init.zeros_(self.norm2.weight)  # a block begins as its shortcut (Goyal et al. 2017)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return self.relu(self.shortcut(x) + self.norm2(self.conv2(y)))
