"""Networks as people have them: each works through both doors, or is refused in one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from conftest import Run
from networks import SIZE, layers
from PIL import Image
from torch import Tensor, nn

import phosphene
from phosphene.errors import BadRequest
from phosphene.receptive_fields import central_boxes

TAKEN = {
    **dict.fromkeys(["plain", "in_train_mode", "half", "bfloat16", "double"], "fc"),
    **dict.fromkeys(["compiled", "compiled_in_place", "parallel", "parallel_of_compiled"], "fc"),
    **dict.fromkeys(["averaged", "graph", "scripted_in_part", "weight_norm", "hooked"], "fc"),
    **dict.fromkeys(["learned_mean", "computed_mean", "made_in_inference"], "fc"),
    **dict.fromkeys(["as_tuple", "as_list", "as_dict", "as_dict_of_tuples"], "body"),
    **dict.fromkeys(["as_dataclass", "as_named_tuple", "as_object", "as_nothing"], "body"),
    **dict.fromkeys(["autocast", "detector", "contiguous", "sparse"], "body"),
}
"""Networks that are the plain one in another form, and the layer of its logits."""

REFUSED = {
    "scripted": "is scripted, so its layers",
    "traced": "is scripted, so its layers",
    "exported_module": "save the program by torch.export.save",
    "on_meta": "conv.weight has no numbers yet",
    "of_two_types": "torch.float16 and torch.float32; network.float()",
    "weights_alone": "nn.Module",
    "function": "nn.Module",
    "several": "nn.Module",
    "whole_numbers": "its forward must take fractions",
    "film_without_frames": "frames=16",
    "siamese_alone": "--input NAME=FILE.npy",
    "with_a_state": "keeps a state",
}

JUDGES = {
    "quantized": "5",
    "quantized_when_it_runs": "fc",
    "without_gradient": "body",
    "in_inference": "body",
    "rounded": "body",
    "in_numpy": "body",
    "backward_hooks": "fc",
}
"""Networks that answer and have no gradient, and a layer of theirs."""


@pytest.fixture(params=["wrap", "python:"])
def door(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Lend what makes a subject of a network, through one of both doors."""

    def opened(kind: str) -> phosphene.Subject:
        if request.param == "wrap":
            network, options = getattr(networks, kind)()
            return phosphene.wrap(network, **options)
        return phosphene.load_subject(f"python:networks:{kind}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells that its quantization moves elsewhere
        yield opened


@pytest.mark.parametrize("kind", TAKEN)
def test_the_same_network_in_another_shape_has_the_same_answer(door: Any, kind: str) -> None:
    layer = TAKEN[kind]
    subject = door(kind)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with subject.reading([layer]) as read, torch.no_grad():
        some = [read(subject.prepare(each)) for each in images.split(subject.at_most(2))]
        answer = torch.cat([each[layer].float() for each in some])
        prepared = phosphene.wrap(layers(), size=SIZE).prepare(images)
    torch.testing.assert_close(answer, layers().eval()(prepared), atol=2e-2, rtol=2e-2)
    result = phosphene.synthesize(subject, f"{layer}:1", prior="pixels", steps=3)
    assert result.scores[0] > result.start_scores[0]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(door: Any, kind: str) -> None:
    with pytest.raises(BadRequest) as caught:
        door(kind)
    assert REFUSED[kind] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", JUDGES)
def test_a_network_without_a_gradient_judges_and_is_not_climbed(door: Any, kind: str) -> None:
    layer = JUDGES[kind]
    subject = door(kind)
    with subject.reading([layer]) as read, torch.no_grad():
        answer = read(subject.prepare(torch.rand(2, 3, SIZE, SIZE)))[layer]
    assert answer.shape == (2, 4)
    assert answer.dtype == torch.float32
    assert len(subject.identity) == 64
    with pytest.raises(BadRequest, match=r"no gradient comes through|only without gradients"):
        phosphene.synthesize(subject, f"{layer}:1", prior="pixels", steps=3)


def test_weights_with_zeros_are_taken_as_they_are() -> None:
    subject = phosphene.wrap(networks.pruned()[0], size=SIZE)
    assert float((subject.network.conv.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    result = phosphene.synthesize(subject, "fc:1", prior="pixels", steps=3)
    assert result.scores[0] > result.start_scores[0]


@pytest.mark.parametrize("kind", ["plain", "learned_mean", "computed_mean", "made_in_inference"])
def test_weights_and_buffers_are_given_back_as_they_were(kind: str) -> None:
    network = getattr(networks, kind)()[0]
    network.conv.weight.requires_grad_(False)
    subject = phosphene.wrap(network, size=SIZE)
    tensors = [*network.named_parameters(), *network.named_buffers()]
    needed = [each.requires_grad for _, each in tensors]
    assert any(needed)
    with subject.reading(["fc"]) as read:
        values = read(subject.prepare(torch.rand(2, 3, SIZE, SIZE)))["fc"]
        assert not values.requires_grad
        assert not any(each.requires_grad for each in network.state_dict(keep_vars=True).values())
    after = [*network.named_parameters(), *network.named_buffers()]
    assert all(one is other for (_, one), (_, other) in zip(tensors, after, strict=True))
    assert [each.requires_grad for _, each in after] == needed


@pytest.mark.parametrize("kind", ["plain", "batch_statistics"])
def test_a_picture_does_not_depend_on_those_beside_it(kind: str) -> None:
    subject = phosphene.load_subject(f"python:networks:{kind}")
    alone = phosphene.synthesize(subject, "fc:1", seeds=1, prior="pixels", steps=5)
    beside = phosphene.synthesize(subject, "fc:1", seeds=[0, 1], prior="pixels", steps=5)
    torch.testing.assert_close(alone.scores[0], beside.scores[1])
    torch.testing.assert_close(alone.images[0], beside.images[1])


def test_one_number_for_each_image_is_a_channel() -> None:
    subject = phosphene.load_subject("python:networks:one_number")
    images = torch.rand(3, 3, SIZE, SIZE)
    with subject.reading(["rate"]) as read, torch.no_grad():
        found = read(subject.prepare(images))["rate"]
        single = read(subject.prepare(images[:1]))["rate"]
        prepared = subject.prepare(images)
    torch.testing.assert_close(found, layers().eval()(prepared).sum(1, keepdim=True))
    torch.testing.assert_close(single, found[:1])


def test_a_network_without_a_convolution_that_takes_grey_alone_reads_grey() -> None:
    assert phosphene.load_subject("python:networks:digits").channels == 1
    assert phosphene.load_subject("python:networks:bank").channels == 3


def test_lazy_weights_are_drawn_alike_each_time() -> None:
    one, other = (phosphene.load_subject("python:networks:lazy") for _ in range(2))
    assert torch.equal(one.network.fc.weight, other.network.fc.weight)
    assert one.identity == other.identity


def test_a_single_pixel_takes_the_default_climb() -> None:
    subject = phosphene.load_subject("python:networks:spectra")
    for prior in ("pixels", "fourier"):
        found = phosphene.synthesize(subject, "3:1", prior=prior, steps=20)
        assert found.images.shape == (1, 5, 1, 1)
        assert found.scores[0] > found.start_scores[0]


@pytest.mark.parametrize("kind", ["half", "plain"])
def test_autocast_is_left_out_where_a_network_does_not_take_it(kind: str) -> None:
    subject = phosphene.load_subject(f"python:networks:{kind}")
    assert subject.takes_autocast == (kind == "plain")
    found = phosphene.synthesize(subject, "fc:1", prior="pixels", steps=3, precision="bfloat16")
    assert found.scores[0] > found.start_scores[0]


def test_receptive_fields_end_where_a_nan_is_refused(door: Any) -> None:
    subject = door("quantized_when_it_runs")
    boxes = central_boxes(subject.network, subject.size, ["conv", "fc"])
    assert list(boxes) == ["conv"]
    assert boxes["conv"].bottom - boxes["conv"].top == 3


def test_complex_numbers_are_refused() -> None:
    subject = phosphene.load_subject("python:networks:spectrum")
    with pytest.raises(BadRequest, match="spectrum gives complex numbers"):
        phosphene.synthesize(subject, "spectrum:1", prior="pixels", steps=3)


def test_single_pixels_have_sets_and_regions_as_well(phosphene: Run, tmp_path: Path) -> None:
    name = "python:networks:spectra"
    climb = ("--prior", "pixels", "--steps", 20, "--out", tmp_path / "set")
    made = phosphene("synthesize", name, "3:1", *climb, "--diverse", 2, "--json").json()
    assert len(made) == 2
    found = ("--subject", name, "--out", tmp_path / "found", "--fill", "grey", "--json")
    for way in ("gradients", "occlusion"):
        (row, _) = phosphene("importance", tmp_path / "set", "--by", way, *found).json()["units"]
        assert row["area"] == 1


def test_two_channels_are_made_of_rgb_in_every_precision_and_at_the_start(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    name = "python:networks:two_channels"
    Image.new("RGB", (20, 20), (0, 102, 204)).save(tmp_path / "photo.png")
    begun = ("--start", tmp_path / "photo.png", "--shift", 0, "--blur", 0, "--rate", 1e-6)
    climb = ("--prior", "pixels", "--steps", 1, "--out", tmp_path / "p")
    phosphene("synthesize", name, "fc:1", *climb, *begun).fine()
    drawn = np.asarray(Image.open(tmp_path / "p" / "fc-1-s0.input.png").convert("L"))
    assert abs(int(drawn[:, :SIZE].mean()) - 102) <= 2, "the first channel is green"
    assert abs(int(drawn[:, SIZE:].mean()) - 204) <= 2, "the second one is blue"
    generator = ("--prior", zoo / "generator.safetensors", "--steps", 2)
    phosphene(
        "synthesize", name, "fc:1", *generator, "--precision", "bfloat16", "--out", tmp_path / "g"
    ).fine()


class Exits(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise SystemExit(3)


class Positive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = layers()

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images) > 0


def test_a_network_that_exits_is_refused_in_one_line() -> None:
    with pytest.raises(BadRequest, match="SystemExit"):
        phosphene.wrap(Exits(), size=SIZE)


def test_answers_that_are_no_numbers_leave_the_layers_to_be_read() -> None:
    subject = phosphene.wrap(Positive(), size=SIZE)
    found = phosphene.synthesize(subject, "body:1", prior="pixels", steps=3)
    assert found.scores[0] > found.start_scores[0]


def test_a_size_may_be_of_numpy() -> None:
    assert phosphene.wrap(layers(), size=np.array([16, 20])[0]).size == (16, 16)
    assert phosphene.wrap(layers(), size=(np.int64(16), np.int64(20))).size == (16, 20)
    with pytest.raises(BadRequest, match="height, width"):
        phosphene.wrap(layers(), size="16")
