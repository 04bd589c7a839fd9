"""Receptive fields against the arithmetic of convolutions, and against where a unit's gradient lives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import hooks, lively
from torch import Tensor, nn

from phosphene.networks import build
from phosphene.receptive_fields import Box
from phosphene.receptive_fields import receptive_fields as all_fields

Line = tuple[int, int, int]
"""Kernel, stride, padding along one axis."""


def receptive_fields(*arguments: Any, **options: Any) -> dict[str, Box]:
    """Those of the central units."""
    return {layer: fields.centre for layer, fields in all_fields(*arguments, **options).items()}


def closed_form(lines: list[Line], size: int, unit: int | None = None) -> tuple[int, int]:
    """First pixel and one beyond the last that a unit, else the central one, sees, by stacked kernels' arithmetic."""
    sizes = [size]
    for kernel, stride, padding in lines:
        sizes.append((sizes[-1] + 2 * padding - kernel) // stride + 1)
    first = last = sizes[-1] // 2 if unit is None else unit
    for kernel, stride, padding in reversed(lines):
        first, last = first * stride - padding, last * stride - padding + kernel - 1
    return max(0, first), min(size, last + 1)


STACKS = {
    "one": [((3, 1, 1), (3, 1, 1))],
    "strides": [((7, 2, 3), (7, 2, 3)), ((3, 2, 1), (3, 2, 1)), ((5, 1, 2), (5, 1, 2))],
    "not square": [((3, 2, 0), (5, 1, 2)), ((1, 1, 0), (3, 3, 1)), ((4, 1, 0), (2, 2, 0))],
    "valid": [((5, 1, 0), (5, 1, 0)), ((2, 2, 0), (2, 2, 0)), ((3, 1, 0), (3, 1, 0))],
}


@pytest.mark.parametrize("size", [(33, 33), (24, 41), (40, 21)])
@pytest.mark.parametrize("name", STACKS)
def test_boxes_are_the_closed_form_of_stacked_convolutions_and_poolings(
    name: str, size: tuple[int, int]
) -> None:
    layers: list[nn.Module] = []
    channels = 3
    for i, (row, column) in enumerate(STACKS[name]):
        kernel, stride, padding = zip(row, column, strict=True)
        if i == 1 and max(p / k for p, k in zip(padding, kernel, strict=True)) <= 0.5:
            layers.append(nn.MaxPool2d(kernel, stride, padding))
        else:
            layers += [nn.Conv2d(channels, 4, kernel, stride, padding), nn.ReLU()]
            channels = 4
    boxes = receptive_fields(nn.Sequential(*layers), size, [str(len(layers) - 1)])
    rows, columns = (
        closed_form([pair[axis] for pair in STACKS[name]], size[axis]) for axis in (0, 1)
    )
    assert boxes == {str(len(layers) - 1): Box(rows[0], columns[0], rows[1], columns[1])}


def test_boxes_of_all_positions_are_the_closed_form_too() -> None:
    rows, columns = [(7, 2, 3), (3, 1, 1)], [(5, 2, 2), (3, 2, 1)]
    kernels = [
        tuple(zip(row, column, strict=True)) for row, column in zip(rows, columns, strict=True)
    ]
    network = nn.Sequential(nn.Conv2d(3, 4, *kernels[0]), nn.ReLU(), nn.Conv2d(4, 4, *kernels[1]))
    (fields,) = all_fields(network, (20, 33), ["2"]).values()
    for row in range(10):
        for column in range(9):
            (top, bottom), (left, right) = (
                closed_form(rows, 20, row),
                closed_form(columns, 33, column),
            )
            assert fields.box(row, column) == Box(top, left, bottom, right)
    assert (len(fields.rows), len(fields.columns)) == (10, 9)


def test_dilation_and_average_pooling() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3, dilation=4), nn.AvgPool2d(2))
    (box,) = receptive_fields(network, (30, 30), ["1"]).values()
    centre = (30 - 8) // 2 // 2
    assert (box.top, box.bottom) == (2 * centre, 2 * centre + 1 + 8 + 1)


def test_weights_do_not_matter_so_boxes_are_exact_through_relus_and_max_pools() -> None:
    """A network whose ReLUs are shut and whose weights are zero sees what its twin sees."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3), nn.ReLU()
    )
    boxes = receptive_fields(network, (25, 25), ["0", "1", "2", "4"])
    for value in network.parameters():
        value.data.zero_()
    network[0].bias.data.fill_(-1e6)
    assert receptive_fields(network, (25, 25), ["0", "1", "2", "4"]) == boxes


def test_no_pixel_outside_of_the_box_has_a_gradient_and_its_edges_do() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.Tanh(), nn.AvgPool2d(3, 1), nn.Conv2d(8, 4, (1, 3))
    ).double()
    images = torch.rand(1, 3, 25, 31, dtype=torch.float64, requires_grad=True)
    maps = network(images)
    (gradient,) = torch.autograd.grad(
        maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2].sum(), images
    )
    (box,) = receptive_fields(network.float(), (25, 31), ["3"]).values()
    seen = (gradient[0] != 0).any(0)
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    found = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    assert found == box


def test_a_linear_layer_sees_everything_its_input_saw() -> None:
    network = lively(build({"name": "caffenet", "classes": 10, "width": 16}))
    boxes = receptive_fields(network, (30, 26), ["conv1", "conv2", "fc6", "fc8"])
    assert boxes["fc6"] == boxes["fc8"] == Box(0, 0, 30, 26)
    assert str(boxes["conv1"]) == "7 × 7"
    assert hooks(network) == 0


def test_a_layer_that_no_pixel_reaches_is_absent() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.constant, self.other = nn.Linear(2, 2), nn.Conv2d(3, 3, 1)

        def forward(self, images: Tensor) -> Tensor:
            self.constant(torch.ones(len(images), 2))
            return self.other(images)

    assert receptive_fields(Constant(), (8, 8), ["constant", "other"]) == {"other": Box(4, 4, 5, 5)}


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_changes_no_box(batch: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    assert receptive_fields(network, (20, 26), ["2"], batch) == receptive_fields(
        network, (20, 26), ["2"]
    )
