"""Reading activations: right values, no deeper than needed, and every hook given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.axes import before
from phosphene.errors import BadRequest, UnknownName
from phosphene.probe import find_layer, layer_shapes, probe
from phosphene.testing import TinyNet, hook_count, lively

IMAGES = torch.rand(2, 3, 14, 14, generator=torch.Generator().manual_seed(0))


def test_activations_are_the_layers_outputs() -> None:
    network = lively(TinyNet())
    with probe(network, ["conv", "block", "fc"]) as read:
        found = read(IMAGES)
    conv = nn.functional.conv2d(IMAGES, network.conv.weight, network.conv.bias, padding=1)
    torch.testing.assert_close(found["conv"], conv)
    torch.testing.assert_close(found["fc"], network(IMAGES))


def test_an_in_place_relu_does_not_overwrite_what_was_read() -> None:
    network = lively(TinyNet())
    for layers in (["conv"], ["conv", "fc"], ["conv", "relu", "fc"]):
        with probe(network, layers) as read:
            assert (read(IMAGES)["conv"] < 0).any(), f"conv is read before its ReLU, with {layers}"


def test_before_reads_ahead_of_a_closing_relu() -> None:
    network = lively(TinyNet())
    with probe(
        network, ["block", before("block"), "relu", before("relu"), "fc", before("fc")]
    ) as read:
        found = read(IMAGES)
    for layer in ("block", "relu"):
        torch.testing.assert_close(found[before(layer)].relu(), found[layer])
        assert (found[before(layer)] < 0).any()
    assert before("fc") not in found, "a layer that no ReLU closes has nothing before it"


def test_the_pass_stops_at_the_deepest_layer() -> None:
    class Trap(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("nothing deeper was needed")

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Trap())
    with probe(network, ["1", "0"]) as read:
        assert read(IMAGES).keys() == {"0", "1"}


def test_tokens_are_given_with_their_channels_first() -> None:
    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(2).transpose(1, 2)  # (batch, tokens, channels)

    network = nn.Sequential(nn.Conv2d(3, 4, 7, stride=7), Tokens(), nn.Linear(4, 5))
    assert layer_shapes(network, IMAGES)["2"] == (5, 4)
    with probe(network, ["2"]) as read:
        torch.testing.assert_close(read(IMAGES)["2"], network(IMAGES).transpose(1, 2))


def test_maps_with_their_channels_last_are_given_with_their_channels_first() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1)  # (batch, rows, columns, channels)

    network = nn.Sequential(nn.Conv2d(3, 5, 3), Last(), nn.LayerNorm(5))
    for images in (IMAGES, IMAGES[..., :-2]):
        first = network[0](images)
        last = network(images)
        square = first.shape[2] == first.shape[3]  # else nobody knows which side is which
        told = last.permute(0, 3, 1, 2) if square else last
        assert layer_shapes(network, images)["0"] == first.shape[1:]
        assert layer_shapes(network, images)["2"] == told.shape[1:]
        with probe(network, ["0", "2"]) as read:
            torch.testing.assert_close(read(images), {"0": first, "2": told})


def test_gradients_flow_through_what_was_read() -> None:
    network, images = lively(TinyNet()), IMAGES.clone().requires_grad_()
    with probe(network, ["conv", "fc"]) as read:
        read(images)["conv"].sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any()


def test_every_pass_is_read_anew() -> None:
    network = lively(TinyNet())
    with probe(network, ["fc"]) as read:
        first, second = read(IMAGES)["fc"], read(1 - IMAGES)["fc"]
    torch.testing.assert_close(first, network(IMAGES))
    torch.testing.assert_close(second, network(1 - IMAGES))


def test_a_layer_that_runs_twice_gives_its_first_run() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)).sum()

    network = Twice()
    with probe(network, ["layer"]) as read:
        torch.testing.assert_close(read(IMAGES)["layer"], network.layer(IMAGES))


@pytest.mark.parametrize(
    ("wrap", "fine"),
    [
        (lambda x: (x, x + 1), True),
        (lambda x: [[x], x + 1], True),
        (lambda x: {"out": x}, True),
        (lambda x: None, False),
        (lambda x: (), False),
        (lambda x: 3.5, False),
    ],
)
def test_a_layer_that_returns_several_tensors_gives_its_first(
    wrap: Callable[[Tensor], Any], fine: bool
) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return wrap(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Odd()

        def forward(self, x: Tensor) -> Tensor:
            self.odd(x)
            return x.sum()

    network = Outer()
    with probe(network, ["odd"]) as read:
        if fine:
            torch.testing.assert_close(read(IMAGES)["odd"], IMAGES)
        else:
            with pytest.raises(UnknownName, match="not a tensor"):
                read(IMAGES)
    assert hook_count(network) == 0
    assert ("odd" in layer_shapes(network, IMAGES)) == fine
    assert hook_count(network) == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_hooks_are_given_back_whatever_happens(error: type[BaseException]) -> None:
    network = lively(TinyNet())

    def fail(x: Tensor) -> Tensor:
        raise error

    layers = ["conv", before("block"), "fc"]
    with pytest.raises(error), probe(network, layers) as read:  # noqa: PT012
        read(IMAGES)
        network.squash.forward = fail  # type: ignore[method-assign]
        read(IMAGES)
    assert hook_count(network) == 0
    with pytest.raises(error):
        layer_shapes(network, IMAGES)
    assert hook_count(network) == 0
    with pytest.raises(UnknownName), probe(network, ["conv", before("block"), "nowhere"]):
        pass
    assert hook_count(network) == 0


def test_a_layer_that_never_runs_says_so() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with probe(Idle(), ["idle"]) as read, pytest.raises(UnknownName, match="never runs layer idle"):
        read(IMAGES)


@pytest.mark.parametrize(
    ("layer", "near"), [("cnov", "conv"), ("block.1.", "block.1"), ("", "conv"), ("zzz", "conv")]
)
def test_a_wrong_layer_is_answered_with_near_ones(layer: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        find_layer(TinyNet(), layer, "tiny")
    message, _, names = str(caught.value).partition("; near: ")
    assert message == f"tiny has no layer {layer!r}"
    assert near in names.split(", ")


class Windows(nn.Module):
    """Cuts images into four windows each, as some transformers do, and looks at each window."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 5, 3)
        self.head = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        windows = nn.functional.pixel_unshuffle(images, 2).reshape(
            -1, 3, images.shape[2] // 2, images.shape[3] // 2
        )
        return self.head(self.look(windows).mean((2, 3)).reshape(len(images), 4, 5).mean(1))


def test_a_layer_of_windows_has_no_units_of_an_image() -> None:
    network, images = Windows(), torch.rand(2, 3, 12, 12)
    assert layer_shapes(network, images) == {"head": (2,)}
    with (
        probe(network, ["look"]) as read,
        pytest.raises(BadRequest, match="layer look gives 8 rows for 2 images"),
    ):
        read(images)


def test_shapes_are_those_of_one_image_in_order() -> None:
    shapes = layer_shapes(lively(TinyNet()), IMAGES)
    assert list(shapes) == ["conv", "relu", "block.0", "block.1", "block", "squash", "fc"]
    assert shapes["conv"] == (6, 14, 14)
    assert shapes["block"] == (8, 6, 6)
    assert shapes["fc"] == (10,)
