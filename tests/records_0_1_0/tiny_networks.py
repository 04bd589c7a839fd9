"""Tiny networks of one's own, named `python:tiny_networks:NAME` by the records beside this file.

Their weights are drawn with NumPy, whose numbers are the same on every machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from phosphene.networks.deepsim import DeePSiM

CLASSES = ["ant", "bee", "cat", "dog, hound", "eel"]


def drawn(network: nn.Module, seed: int) -> nn.Module:
    """Fill every parameter with normal numbers of the size that keeps activations alive."""
    generator = np.random.default_rng(seed)
    for name, value in sorted(network.named_parameters()):
        numbers = torch.from_numpy(generator.standard_normal(tuple(value.shape), np.float32))
        with torch.no_grad():
            if value.ndim > 1:
                value.copy_(numbers * (2 / value[0].numel()) ** 0.5)
            else:  # a bias, or the factor of a normalisation
                value.copy_(0.2 * numbers + name.endswith("weight"))
    return network.eval()


def write_deepsim(folder: Path) -> None:
    """Write norm1.safetensors, random weights in the layout of DeePSiM's `norm1` generator, and
    norm1.npy, upper bounds of its code. They are too large to keep.
    """
    network = drawn(DeePSiM("norm1"), 40)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / "norm1.safetensors")
    bounds = np.random.default_rng(41).random(network.code_shape, np.float32)
    np.save(folder / "norm1.npy", 20 * bounds + 1)


class Plain(nn.Module):
    """Two convolutions, the second inside a block that ends in a ReLU, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
        self.fc = nn.Linear(8 * 9 * 9, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.block(self.relu(self.conv(images))).flatten(1))


class Residual(nn.Module):
    """A residual block that ends in a functional ReLU, then a pooled classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        first = F.relu(self.stem(images))
        return self.fc(F.relu(first + self.body(first)).mean((2, 3)))


class Block(nn.Module):
    """A block whose closing ReLU is functional, so that it is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 5, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.conv(images) - 2.0)


class Shut(nn.Module):
    """A network whose units are often shut by a ReLU, so that starts without a gradient occur."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.fc = nn.Linear(12, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.block(images).mean((2, 3)))


class Tokens(nn.Module):
    """Patches as tokens (batch, tokens, channels), after a class token.

    A vision transformer has them in this order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.first = nn.Parameter(torch.zeros(1, 1, 8))
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(images), -1, -1), patches], 1)
        return self.head(torch.tanh(self.mix(tokens)).mean(1))


def plain() -> tuple[nn.Module, dict[str, object]]:
    """Return `Plain` for 20 × 20 pixels."""
    return drawn(Plain(), 1), {"size": 20, "classes": CLASSES}


def residual() -> tuple[nn.Module, dict[str, object]]:
    """Return `Residual` for 16 × 24 pixels, with a scaling of its own."""
    scaling = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    return drawn(Residual(), 2), {"size": [16, 24], "classes": CLASSES, **scaling}


def shut() -> tuple[nn.Module, dict[str, object]]:
    """Return `Shut` for 20 × 20 pixels."""
    return drawn(Shut(), 3), {"size": 20}


def tokens() -> tuple[nn.Module, dict[str, object]]:
    """Return `Tokens` for 16 × 16 pixels."""
    return drawn(Tokens(), 4), {"size": 16, "classes": CLASSES}
