"""Small networks, generators and photographs, for tests of code that uses phosphene.

They answer in moments, have random weights, and are the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene import weights
from phosphene.code_statistics import CodeStatistics
from phosphene.datasets import Photographs
from phosphene.networks import build
from phosphene.priors import Generated
from phosphene.subjects import Subject

CODE = 12
IMAGE = 16
VIEW = 14
"""Numbers of a tiny code; pixels of a tiny image, and of what a subject is shown of it."""

SUBJECT_ARCHITECTURE = {"name": "caffenet", "classes": 10, "width": 16}
GENERATOR_ARCHITECTURE = {
    "name": "two-stage",
    "code": 16,
    "hidden": 16,
    "grid": 1,
    "seed_channels": 4,
    "widths": [8, 8],
    "blocks": [1, 1],
    "rank": 4,
    "latent": 4,
    "decoder": [8, 8, 8],
    "decoder_blocks": [1, 0, 1],
    "size": IMAGE,
    "view_size": VIEW,
}
CLASSES = (
    "tench, Tinca tinca",
    "English springer",
    "cassette player",
    "chain saw, chainsaw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "golden retriever",
)


class TinyNet(nn.Module):
    """Classify by two convolutions and a linear layer, from (batch, 3, 14, 14) to ten logits.

    `relu` overwrites its input, as torchvision's networks do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
        self.squash = nn.Tanh()
        self.fc = nn.Linear(8 * 6 * 6, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.squash(self.block(self.relu(self.conv(images)))).flatten(1))


class TinyGenerator(nn.Module):
    """Map a code (batch, code) through one hidden layer to an image in (0, 1)."""

    def __init__(self, code: int = CODE, size: int = IMAGE, view_size: int = VIEW) -> None:
        super().__init__()
        self.image_size = size
        self.view_size = view_size
        self.code_shape = (code,)
        self.hidden = nn.Linear(code, 24)
        self.out = nn.Linear(24, 3 * size * size)

    def forward(self, codes: Tensor) -> Tensor:
        flat = self.out(torch.tanh(self.hidden(codes)))
        return flat.view(-1, 3, self.image_size, self.image_size).sigmoid()


def statistics_of(codes: Tensor, axes: int = 4) -> CodeStatistics:
    """Return the statistics of codes (n, code), computed plainly and in their own precision."""
    values, vectors = torch.linalg.eigh(torch.cov(codes.T))
    values, vectors = values.flip(0), vectors.flip(1)
    rest = values[min(axes, len(values) - 1) :].mean()
    return CodeStatistics(
        codes.mean(0),
        codes.std(0),
        codes.amax(0),
        vectors[:, :axes].T.contiguous(),
        values[:axes],
        rest,
        codes.amin(0).clamp(max=0),
    )


def lively(network: nn.Module) -> nn.Module:
    """Return the network with random weights under which every layer answers to its input."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    return network.eval().requires_grad_(False)


def tiny_subject(network: nn.Module | None = None, size: tuple[int, int] = (VIEW, VIEW)) -> Subject:
    """Return a subject of ten classes: a `TinyNet`, or another network with a layer `fc`."""
    network = lively(TinyNet()) if network is None else network.eval()
    return Subject("tiny", network, size, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), CLASSES, "fc")


def tiny_generated() -> Generated:
    """Return a prior: a `TinyGenerator` with the statistics of random codes."""
    generator = lively(TinyGenerator())
    codes = torch.randn(400, CODE).relu() * torch.linspace(0.2, 1.2, CODE)
    return Generated(generator, statistics_of(codes))


def tiny_photographs(n: int = 40, size: int = IMAGE) -> Photographs:
    """Return coloured gradients in place of photographs, one colour for each of ten classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 10
    slope = np.linspace(0, 1, size)[None, :, None, None] * rng.random((n, 1, 1, 3))
    colours = rng.random((10, 3))[labels][:, None, None]
    noise = 0.05 * rng.random((n, size, size, 3))
    images = (255 * np.clip(0.5 * colours + 0.5 * slope + noise, 0, 1)).astype(np.uint8)
    return Photographs("synthetic", images, labels, CLASSES, f"synthetic-{n}-{size}", "made here")


def write_subject(path: Path, architecture: Mapping[str, Any] | None = None, **card: Any) -> Path:
    """Write a subject's weights file with random weights; return its path.

    Keywords replace entries of the card.
    """
    network = lively(build(SUBJECT_ARCHITECTURE))
    whole = {
        "name": "tiny-objects",
        "kind": "subject",
        "architecture": architecture or SUBJECT_ARCHITECTURE,
        "preprocessing": {"size": [VIEW, VIEW], "mean": [0.5] * 3, "std": [0.25] * 3},
        "classes": list(CLASSES),
        "output": "fc8",
    }
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    weights.write(path, tensors, {**whole, **card})
    return path


def write_generator(path: Path, encoder: str = "", **card: Any) -> Path:
    """Write a generator's weights file with random weights; return its path.

    `encoder` is the name or file of the subject that it inverts. Keywords replace entries of the
    card.
    """
    network = lively(build(GENERATOR_ARCHITECTURE))
    statistics = statistics_of(torch.randn(300, 16).relu() * torch.linspace(0.5, 3, 16))
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    names = CodeStatistics.__annotations__
    tensors |= {f"code.{name}": getattr(statistics, name) for name in names}
    whole = {
        "name": "tiny-fc6",
        "kind": "generator",
        "architecture": GENERATOR_ARCHITECTURE,
        "code_layer": "fc6",
    }
    weights.write(path, tensors, {**whole, "encoder": encoder, **card})
    return path


def hook_count(network: nn.Module) -> int:
    """Return how many hooks the network's modules carry; a climb leaves none."""
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in network.modules()
    )
