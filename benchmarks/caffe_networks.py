"""GoogLeNet and SqueezeNet 1.1 as released for Caffe, with their ImageNet weights.

The subjects are python:caffe_networks:googlenet and python:caffe_networks:squeezenet. The weights
are raw files in a public repository. These commands bring them into the present folder:

    git clone https://github.com/chaosmail/caffejs
    git -C caffejs archive dedfd566d0268352c3becdc808ea3d24908a7a0c \
        examples/models/bvlc_googlenet | tar x --strip-components 2
    git -C caffejs archive 424d98682b50dd88d0b8cca401c66855709bd013 \
        models/squeezenet | tar x --strip-components 1
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import Unavailable
from phosphene.networks.imagenet_names import IMAGENET_NAMES

OPTIONS = {
    "mean": (123 / 255, 117 / 255, 104 / 255),
    "std": (1 / 255,) * 3,
    "classes": IMAGENET_NAMES,
}
"""Of both networks. They read BGR; the first filters are turned round, so that they read RGB."""
INCEPTIONS = {
    "inception_3a": (192, 64, 96, 128, 16, 32, 32),
    "inception_3b": (256, 128, 128, 192, 32, 96, 64),
    "inception_4a": (480, 192, 96, 208, 16, 48, 64),
    "inception_4b": (512, 160, 112, 224, 24, 64, 64),
    "inception_4c": (512, 128, 128, 256, 24, 64, 64),
    "inception_4d": (512, 112, 144, 288, 32, 64, 64),
    "inception_4e": (528, 256, 160, 320, 32, 128, 128),
    "inception_5a": (832, 256, 160, 320, 32, 128, 128),
    "inception_5b": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels: into the module; of 1×1, 3×3 reduced, 3×3, 5×5 reduced, 5×5, and the pool."""
FIRES = {
    "fire2": (64, 16, 64),
    "fire3": (128, 16, 64),
    "fire4": (128, 32, 128),
    "fire5": (256, 32, 128),
    "fire6": (256, 48, 192),
    "fire7": (384, 48, 192),
    "fire8": (384, 64, 256),
    "fire9": (512, 64, 256),
}
"""Channels: into the module, squeezed, and of each of the two expansions."""


def convolved(into: int, out: int, size: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Return a convolution with its ReLU."""
    return nn.Sequential(nn.Conv2d(into, out, size, stride, padding), nn.ReLU())


def halved() -> nn.MaxPool2d:
    """Return Caffe's pool, which rounds up."""
    return nn.MaxPool2d(3, 2, ceil_mode=True)


class Inception(nn.Module):
    """Join four branches beside each other."""

    def __init__(self, into: int, one: int, r3: int, three: int, r5: int, five: int, pool: int):
        super().__init__()
        self.one = convolved(into, one, 1)
        self.reduce3 = convolved(into, r3, 1)
        self.three = convolved(r3, three, 3, padding=1)
        self.reduce5 = convolved(into, r5, 1)
        self.five = convolved(r5, five, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.projected = convolved(into, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' channels, (batch, channels, height, width)."""
        three = self.three(self.reduce3(x))
        five = self.five(self.reduce5(x))
        return torch.cat([self.one(x), three, five, self.projected(self.pool(x))], 1)


class Fire(nn.Module):
    """Squeeze the channels, and expand them in two ways beside each other."""

    def __init__(self, into: int, squeezed: int, out: int):
        super().__init__()
        self.squeeze = convolved(into, squeezed, 1)
        self.one = convolved(squeezed, out, 1)
        self.three = convolved(squeezed, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return both expansions, (batch, channels, height, width)."""
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


def googlenet() -> tuple[nn.Module, dict[str, Any]]:
    """Return BVLC GoogLeNet, with the weights below the folder bvlc_googlenet."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=convolved(3, 64, 7, 2, 3),
        pool1=halved(),
        norm1=nn.LocalResponseNorm(5, 1e-4, 0.75),
        reduce2=convolved(64, 64, 1),
        conv2=convolved(64, 192, 3, padding=1),
        norm2=nn.LocalResponseNorm(5, 1e-4, 0.75),
        pool2=halved(),
    )
    for name, channels in INCEPTIONS.items():
        parts[name] = Inception(*channels)
        if name in ("inception_3b", "inception_4e"):
            parts[f"{name}_pool"] = halved()
    parts["pool5"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts["classifier"] = nn.Linear(1024, 1000)
    network = nn.Sequential(parts)
    names = {
        "conv1": "conv1/7x7_s2",
        "reduce2": "conv2/3x3_reduce",
        "conv2": "conv2/3x3",
        "classifier": "loss3/classifier",
    }
    branches = {
        "one": "1x1",
        "reduce3": "3x3_reduce",
        "three": "3x3",
        "reduce5": "5x5_reduce",
        "five": "5x5",
        "projected": "pool_proj",
    }
    for block in INCEPTIONS:
        names |= {f"{block}.{ours}": f"{block}/{theirs}" for ours, theirs in branches.items()}
    fill(network, "bvlc_googlenet", names)
    return network, {**OPTIONS, "size": [224, 224], "output": "classifier"}


def squeezenet() -> tuple[nn.Module, dict[str, Any]]:
    """Return SqueezeNet 1.1, with the weights below the folder squeezenet."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv1=convolved(3, 64, 3, 2), pool1=halved())
    for name, channels in FIRES.items():
        parts[name] = Fire(*channels)
        if name in ("fire3", "fire5"):
            parts[f"{name}_pool"] = halved()
    parts["conv10"] = convolved(512, 1000, 1)
    parts["pool10"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(parts)
    names = {"conv1": "conv1", "conv10": "conv10"}
    branches = {"squeeze": "squeeze1x1", "one": "expand1x1", "three": "expand3x3"}
    for block in FIRES:
        names |= {f"{block}.{ours}": f"{block}/{theirs}" for ours, theirs in branches.items()}
    fill(network, "squeezenet", names)
    return network, {**OPTIONS, "size": [227, 227], "output": "pool10"}


@torch.no_grad()
def fill(network: nn.Module, folder: str, names: dict[str, str]) -> None:
    """Fill the convolutions from raw float32 files, (out, height, width, in), and biases.

    The folder lies in CAFFE_NETWORKS, or in the present folder.
    """
    weights = Path(os.environ.get("CAFFE_NETWORKS", "."), folder, "weights")
    if not weights.is_dir():
        raise Unavailable(f"{weights} is missing; the head of {__file__} says how to get it")
    for ours, theirs in names.items():
        module = network.get_submodule(ours)
        layer = module if isinstance(module, nn.Linear) else module[0]  # type: ignore[index]
        out, into, *sides = layer.weight.shape
        raw = np.fromfile(weights / f"{theirs}_filter.bin", "<f4")
        filters = torch.from_numpy(raw).view(out, *sides, into).movedim(-1, 1)
        layer.weight.copy_(filters.flip(1) if into == 3 else filters)
        layer.bias.copy_(torch.from_numpy(np.fromfile(weights / f"{theirs}_bias.bin", "<f4")))
