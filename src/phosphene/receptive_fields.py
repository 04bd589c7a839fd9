"""Which input pixels can affect a unit, found by watching where a NaN spreads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phosphene.probe import probe


@dataclass(frozen=True)
class Box:
    """Rows `top` … `bottom` − 1 and columns `left` … `right` − 1 of the subject's input."""

    top: int
    left: int
    bottom: int
    right: int

    def __str__(self) -> str:
        return f"{self.bottom - self.top} × {self.right - self.left}"


def receptive_fields(
    network: nn.Module, size: tuple[int, int], layers: Sequence[str], batch: int = 32
) -> dict[str, Box]:
    """The receptive field of each layer's central unit in a network that reads `size` (height, width) pixels.

    A NaN put into one column (or row) of the input reaches a unit if and only if some path leads there,
    through convolutions, ReLUs and poolings alike; so the box is exact, whatever the weights. Layers
    whose output a NaN cannot reach are absent.
    """
    height, width = size
    device = next(network.parameters(), torch.zeros(())).device
    reached: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with probe(network, layers) as read, torch.no_grad():
        for at in range(0, height + width, batch):
            lines = range(at, min(at + batch, height + width))
            images = torch.full((len(lines), 3, height, width), 0.5, device=device)
            for image, line in zip(images, lines, strict=True):
                if line < height:
                    image[:, line] = float("nan")
                else:
                    image[:, :, line - height] = float("nan")
            for layer, values in read(images).items():
                reached[layer].append(_central(values).isnan().flatten(1).any(1))
    boxes = {}
    for layer, parts in reached.items():
        hit = torch.cat(parts)
        rows, columns = hit[:height].nonzero().flatten(), hit[height:].nonzero().flatten()
        if len(rows) and len(columns):
            boxes[layer] = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return boxes


def _central(values: Tensor) -> Tensor:
    """(batch, channels, …) at the centre of the map."""
    return values[:, :, values.shape[2] // 2, values.shape[3] // 2] if values.ndim == 4 else values
