"""Receptive fields against the arithmetic of convolutions, and against a unit's gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import UnknownName
from phosphene.networks import build
from phosphene.probe import layer_shapes, probe
from phosphene.receptive_fields import Box, Fields, central_boxes
from phosphene.receptive_fields import receptive_fields as all_fields
from phosphene.testing import hook_count, lively

Line = tuple[int, int, int]
"""Kernel, stride, padding along one axis."""


def receptive_fields(*arguments: Any, **options: Any) -> dict[str, Box]:
    """Those of the central units."""
    return {layer: fields.centre for layer, fields in all_fields(*arguments, **options).items()}


def closed_form(lines: list[Line], size: int, unit: int | None = None) -> tuple[int, int]:
    """First pixel and one beyond the last of a unit, by the arithmetic of stacked kernels."""
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
    assert hook_count(network) == 0


class Readout(nn.Module):
    """Neurons that read a map at places of their own, (x, y) in −1 … 1."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.rates = nn.Conv2d(3, 4, 5, padding=2), nn.Identity()
        self.register_buffer("places", torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, -1.0]]))

    def forward(self, images: Tensor) -> Tensor:
        places = self.places[None, :, None].expand(len(images), -1, -1, -1)
        read = nn.functional.grid_sample(self.map(images), places, align_corners=True)
        return self.rates(read[..., 0].sum(1))


def test_each_neuron_of_a_readout_has_its_own_field() -> None:
    fields = all_fields(Readout(), (21, 31), ["rates"])["rates"]
    # the map is sampled between a pixel and the next one, even where that has no weight
    assert [fields.box(0, 0, channel) for channel in range(3)] == [
        Box(0, 0, 4, 4),
        Box(8, 13, 14, 19),
        Box(0, 28, 4, 31),
    ]
    assert fields.centre == fields.box(0, 0) == Box(0, 0, 14, 31)


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


# ---------------------------------------------------------------- against every line by itself


def line_by_line(network: nn.Module, size: tuple[int, int], layers: list[str]) -> dict[str, Fields]:
    """Return the same by the plain definition.

    Each row and each column has a NaN, one after the other.
    """
    found: dict[str, list[list[Tensor]]] = {layer: [[], []] for layer in layers}
    channels: dict[str, list[list[Tensor]]] = {layer: [[], []] for layer in layers}
    with probe(network, layers) as read, torch.no_grad():
        for axis in (0, 1):
            for line in range(size[axis]):
                image = torch.full((1, 3, *size), 0.5)
                image.select(2 + axis, line).fill_(float("nan"))
                for layer, values in read(image).items():
                    hit = values.isnan()
                    if hit.ndim == 2:
                        channels[layer][axis].append(hit[0])
                    steps = hit[0].any(0)[..., None] if hit.ndim == 3 else hit.any().view(1, 1)
                    hit = hit[0].any(0) if hit.ndim == 4 else steps
                    middle = hit.shape[1 - axis] // 2
                    found[layer][axis].append(hit.select(1 - axis, middle))
    fields = {
        layer: Fields(*map(spans_of, lines), of_channels(*channels[layer]))
        for layer, lines in found.items()
    }
    return {
        layer: each
        for layer, each in fields.items()
        if any(each.rows[len(each.rows) // 2]) and any(each.columns[len(each.columns) // 2])
    }


def of_channels(rows: list[Tensor], columns: list[Tensor]) -> tuple[Any, ...]:
    """Return what reaches each channel that has no map; nothing where it is the same for all."""
    found = tuple(zip(*map(spans_of, (rows, columns)), strict=True)) if rows else ()
    return found if len(set(found)) > 1 else ()


def spans_of(lines: list[Tensor]) -> tuple[tuple[int, int], ...]:
    """Return the first line and one beyond the last that reach each unit.

    `lines` holds a bool (units,) for each line.
    """
    places = [[i for i, hit in enumerate(lines) if hit[unit]] for unit in range(len(lines[0]))]
    return tuple((each[0], each[-1] + 1) if each else (0, 0) for each in places)


class Attends(nn.Module):
    """Patches that look at each other within windows, then everywhere.

    There is also a token for the class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.window = nn.MultiheadAttention(8, 2, batch_first=True)
        self.joined = nn.Conv2d(8, 8, 1)
        self.everywhere = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images)
        n, _, rows, columns = x.shape
        windows = x.view(n, 8, rows // 2, 2, columns // 2, 2).permute(0, 2, 4, 3, 5, 1)
        windows = windows.reshape(-1, 4, 8)
        seen = self.window(windows, windows, windows)[0]
        seen = seen.view(n, rows // 2, columns // 2, 2, 2, 8).permute(0, 5, 1, 3, 2, 4)
        x = self.joined(seen.reshape(n, 8, rows, columns))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.new_zeros(n, 1, 8), tokens], 1)
        return self.head(self.everywhere(tokens, tokens, tokens)[0][:, 0])


class Branches(nn.Module):
    """A small and a large box that are added, and one that is cut from the image's upper left."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(3, 4, 3, padding=1)
        self.far = nn.Conv2d(3, 4, (3, 5), padding=(4, 8), dilation=(4, 4))
        self.both, self.corner = nn.Identity(), nn.Conv2d(3, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.corner(images[..., :9, :7])
        return self.both(self.near(images) + self.far(images))


class Cut(nn.Module):
    """Values through which no gradient comes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.after = nn.Conv2d(3, 4, 5, 2), nn.Conv2d(4, 4, 3)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.conv(images).relu_())


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU6(inplace=True),
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.Hardswish(inplace=True),
        nn.Conv2d(6, 4, 1),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(36, 5),
    )


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, dilation=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(4, 4, 3, 2),
        nn.AvgPool2d(2, 2, ceil_mode=True, padding=1),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(4, 2, 4, 2, 1),
    )


def shut() -> nn.Module:
    """Return a network whose gradient vanishes, since every ReLU is shut.

    Such a gradient tells nothing of what a unit can see.
    """
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU())
    nn.init.constant_(network.get_parameter("0.bias"), -1e6)
    return network


def constant() -> nn.Module:
    """Return two convolutions whose outer weights are 0.

    No gradient comes from all that they can see.
    """
    network = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 5, 2))
    for value in network.parameters():
        if value.ndim == 4:
            value.data[..., 0] = 0
            value.data[..., 4, :] = 0
    return network


def caffenet() -> nn.Module:
    return build({"name": "caffenet", "classes": 10, "width": 16})


NETWORKS = (depthwise, pooled, shut, constant, caffenet, Attends, Branches, Cut, Readout)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("make", NETWORKS)
def test_the_search_finds_what_every_line_by_itself_tells(make: Any, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = make().eval()
    layers = list(layer_shapes(network, torch.zeros(2, 3, *size)))
    assert len(layers) >= 2
    wanted = line_by_line(network, size, layers)
    assert all_fields(network, size, layers) == wanted
    assert central_boxes(network, size, layers) == {k: v.centre for k, v in wanted.items()}
    assert central_boxes(make().eval(), size, layers[::-1], 1) == central_boxes(
        network, size, layers
    ), "whatever the order, the batch and the weights"
    assert hook_count(network) == 0


def test_global_attention_is_told_by_few_passes() -> None:
    network = Attends().eval()
    passes = []
    network.head.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    assert central_boxes(network, (32, 32), ["everywhere", "head"]) == dict.fromkeys(
        ("everywhere", "head"), Box(0, 0, 32, 32)
    )
    assert sum(passes) <= 6


def test_what_was_found_is_kept_as_long_as_the_modules_are_the_same() -> None:
    network = pooled().eval()
    first = central_boxes(network, (32, 32), ["0", "6"])
    passes: list[int] = []
    network.get_submodule("0").register_forward_hook(lambda *_: passes.append(1))
    assert central_boxes(network, (32, 32), ["6", "0"]) == first
    assert not passes
    network.get_submodule("0").dilation = (1, 1)  # type: ignore[assignment]
    assert central_boxes(network, (32, 32), ["0"]) != {"0": first["0"]}
    assert passes


class Twice(nn.Module):
    """`shared` runs on windows that are folded into the batch, then on the whole.

    `folded` runs on such windows only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.folded = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        n, c, rows, columns = images.shape
        halves = images.view(n, c, 2, rows // 2, columns).transpose(1, 2).flatten(0, 1)
        self.shared(self.folded(halves)[:, :3])
        return self.last(self.shared(images))


def test_a_module_that_keeps_the_batch_only_the_second_time_is_read_then() -> None:
    network = Twice().eval()
    images = torch.randn(2, 3, 16, 16)
    with probe(network, ["shared", "last"]) as read:
        found = read(images)
    torch.testing.assert_close(found["shared"], network.shared(images))
    torch.testing.assert_close(found["last"], network(images))
    assert list(layer_shapes(network, images)) == ["shared", "last"]
    wanted = {"shared": Box(7, 7, 10, 10), "last": Box(6, 6, 11, 11)}
    assert central_boxes(network, (16, 16), ["shared", "last"]) == wanted


def test_a_layer_that_cannot_be_read_loses_only_its_own_box() -> None:
    found = central_boxes(Twice().eval(), (16, 16), ["folded", "shared", "last"])
    assert found.keys() == {"shared", "last"}
    assert all_fields(Twice().eval(), (16, 16), ["folded"]) == {}
    with pytest.raises(UnknownName, match="has no layer 'lost'"):
        central_boxes(Twice().eval(), (16, 16), ["lost"])
