"""Which input pixels can affect a unit, found by watching where a NaN spreads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phosphene.networks.outside import number_type
from phosphene.probe import probe
from phosphene.tensors import device_of


@dataclass(frozen=True)
class Box:
    """Rows `top` … `bottom` − 1 and columns `left` … `right` − 1 of the subject's input."""

    top: int
    left: int
    bottom: int
    right: int

    def __str__(self) -> str:
        return f"{self.bottom - self.top} × {self.right - self.left}"


@dataclass(frozen=True)
class Fields:
    """The receptive fields of all units of a layer's map: (first, beyond the last) input row that reaches each of its
    rows, and input column that reaches each of its columns. A layer without a map has one row and one column.
    """

    rows: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, int], ...]

    def box(self, row: int, column: int) -> Box:
        """The box of the unit at this position."""
        (top, bottom), (left, right) = self.rows[row], self.columns[column]
        return Box(top, left, bottom, right)

    @property
    def centre(self) -> Box:
        return self.box(len(self.rows) // 2, len(self.columns) // 2)


def receptive_fields(
    network: nn.Module, size: tuple[int, int], layers: Sequence[str], batch: int = 32
) -> dict[str, Fields]:
    """The receptive fields of each layer's units in a network that reads `size` (height, width) pixels.

    A NaN put into one column (or row) of the input reaches a unit if and only if some path leads there,
    through convolutions, ReLUs and poolings alike; so the box is exact, whatever the weights. Layers
    whose centre a NaN cannot reach are absent.
    """
    height, width = size
    device = device_of(network)
    kind = number_type(network)
    reached: dict[str, tuple[list[Tensor], list[Tensor]]] = {layer: ([], []) for layer in layers}
    exact = torch.backends.cudnn.flags(
        enabled=False
    )  # its fast algorithms mix neighbours: a NaN would spread further
    with exact, probe(network, layers) as read, torch.no_grad():
        for at in range(0, height + width, batch):
            lines = range(at, min(at + batch, height + width))
            images = torch.full((len(lines), 3, height, width), 0.5, device=device, dtype=kind)
            for image, line in zip(images, lines, strict=True):
                if line < height:
                    image[:, line] = float("nan")
                else:
                    image[:, :, line - height] = float("nan")
            for layer, values in read(images).items():
                hit = values.isnan()
                hit = hit.any(1) if hit.ndim == 4 else hit.flatten(1).any(1)[:, None, None]
                reached[layer][0].append(hit[:, :, hit.shape[2] // 2])
                reached[layer][1].append(hit[:, hit.shape[1] // 2])
    found = {}
    for layer, (by_row, by_column) in reached.items():
        rows, columns = _spans(torch.cat(by_row)[:height]), _spans(torch.cat(by_column)[height:])
        if any(rows[len(rows) // 2]) and any(columns[len(columns) // 2]):
            found[layer] = Fields(rows, columns)
    return found


def _spans(hit: Tensor) -> tuple[tuple[int, int], ...]:
    """(lines, units) → the first line and the one beyond the last that reach each unit; (0, 0) where none does."""
    first, last = hit.int().argmax(0), len(hit) - hit.flip(0).int().argmax(0)
    return tuple(zip(first.tolist(), (last * hit.any(0)).tolist(), strict=True))
