"""What a network reads beside an image, how an image comes to its shape, and held frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from torch import Tensor, nn

import phosphene
from phosphene.errors import BadFile, BadRequest
from phosphene.studies.exemplars import field_box
from phosphene.tensors import fitted, recoloured
from phosphene.testing import tiny_generated

HEIGHT, WIDTH = 8, 16


class Gated(nn.Module):
    """A linear unit of the image times the first number of `state`, and one of `pupil` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (HEIGHT, WIDTH), bias=False)
        self.rates = nn.Identity()
        weights = torch.linspace(-1, 1, HEIGHT * WIDTH).view(1, HEIGHT, WIDTH)
        self.conv.weight.data = torch.stack([weights, weights.flip(-1)]).requires_grad_(False)

    def forward(self, images: Tensor, state: Tensor, *, pupil: Tensor) -> Tensor:
        assert state.shape == (len(images), 3)
        assert pupil.dtype == torch.int64
        image, other = self.conv(images).flatten(1).unbind(1)
        return self.rates(torch.stack([image * state[:, 0], other + pupil[:, 0]], 1))


STATE = np.array([2.0, 0.0, 1.0], np.float32)
PUPIL = np.array([[5]])


def gated(**changes: Any) -> phosphene.Subject:
    inputs = {"state": STATE, "pupil": PUPIL, **changes}
    return phosphene.wrap(Gated(), size=(HEIGHT, WIDTH), channels=1, inputs=inputs)


def rates(subject: phosphene.Subject, images: Tensor) -> Tensor:
    with subject.reading(["rates"]) as read, torch.no_grad():
        return read(subject.prepare(images))["rates"]


def test_fixed_values_reach_every_image_of_a_batch() -> None:
    images = torch.rand(3, 1, HEIGHT, WIDTH)
    plain = Gated().conv(images).flatten(1)
    found = rates(gated(), images)
    torch.testing.assert_close(found, torch.stack([2 * plain[:, 0], plain[:, 1] + 5], 1))
    assert gated().shapes() == {"conv": (2, 1, 1), "rates": (2,)}, "layers keep their names"


def test_the_preferred_input_follows_the_sign_of_what_is_read_beside_it() -> None:
    weights = Gated().conv.weight[0]
    for sign in (1.0, -1.0):
        subject = gated(state=sign * STATE)
        how = {"prior": "pixels", "steps": 60, "shift": 0, "tv": 0, "blur": 0}
        found = phosphene.synthesize(subject, "rates:0", **how).inputs[0]
        agreeing = ((found - 0.5).sign() * weights.sign() * sign).mean()
        assert agreeing > 0.9


def test_other_values_make_another_subject() -> None:
    assert gated().identity == gated(state=STATE[None]).identity, "with a batch's axis or not"
    others = [gated(state=-STATE), gated(pupil=PUPIL + 1)]
    assert len({each.identity for each in (gated(), *others)}) == 3
    told = gated().inputs["state"]
    assert told["shape"] == [1, 3]
    assert len(told["sha256"]) == 64


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "--input NAME=FILE.npy, or by inputs"),
        ({"state": "words"}, "is not a .npy array"),
        ({"state": object()}, "is no array of numbers"),
        ({"state": np.zeros((0, 3))}, "holds no numbers"),
        ({"state": np.array([1.0, np.nan])}, "has NaN in 1 of its 2 numbers"),
        ({"state": STATE, "pupil": PUPIL, "pupils": PUPIL}, "unexpected keyword argument 'pupils'"),
    ],
)
def test_a_wrong_input_is_one_line(inputs: dict[str, Any], words: str) -> None:
    with pytest.raises((BadRequest, BadFile), match=words) as caught:
        phosphene.wrap(Gated(), size=(HEIGHT, WIDTH), channels=1, inputs=inputs)
    assert "\n" not in str(caught.value)


def test_only_a_network_of_ones_own_takes_further_inputs() -> None:
    with pytest.raises(BadRequest, match="caffenet-objects reads images alone"):
        phosphene.load_subject("caffenet-objects", inputs={"state": STATE})


FACTORY = """
import torch
from torch import nn


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, (8, 16))

    def forward(self, images, state):
        return self.conv(images).flatten(1) * state


def net():
    return Gated(), {"size": (8, 16), "mean": 0.5, "std": 0.25}
"""


def test_a_record_names_its_inputs_and_needs_the_same_file(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_gated.py").write_text(FACTORY)
    np.save("state.npy", np.array([[-3.0, 1.0]], np.float32))
    name, given = "python:own_gated:net", ("--input", "state=state.npy")
    assert "--input NAME=FILE.npy" in phosphene("layers", name).err
    told = phosphene("layers", name, *given, "--json").json()["adapter"]
    assert told["inputs"]["state"]["shape"] == [1, 2]
    assert "beside it state, 1 × 2" in phosphene("layers", name, *given).out
    climb = ("synthesize", name, "conv:0", "--prior", "pixels", "--steps", 3, *given)
    made = phosphene(*climb, "--precision", "float32", "--out", "out", "--json").json()
    record = Path(made[0]["image"]).with_suffix(".json")
    kept = json.loads(record.read_text())["request"]["inputs"]["state"]
    assert kept == {**told["inputs"]["state"], "file": str(tmp_path / "state.npy")}
    again = phosphene("synthesize", name, "--record", record, "--out", "again")
    assert again.fine()
    assert again.err == "", "the same bits"
    np.save("state.npy", np.array([[3.0, 1.0]], np.float32))
    said = phosphene("synthesize", name, "--record", record, "--out", "third").err
    assert "input 'state' of python:own_gated:net is not what the record says" in said
    assert "made with another input;" in phosphene(*climb, "--out", "out").err
    assert "--input takes NAME=FILE.npy" in phosphene("layers", name, "--input", "state").err
    assert "--input gives state twice" in phosphene("layers", name, *given, *given).err


class Film(nn.Module):
    """Reads frames: a convolution over time, and the mean over all that comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 3, (3, 5, 5), padding=(1, 0, 0), bias=False)
        self.rates = nn.Linear(3, 4)

    def forward(self, clip: Tensor) -> Tensor:
        return self.rates(self.conv(clip).mean((2, 3, 4)))


def test_a_picture_is_held_for_as_many_frames_as_are_said() -> None:
    film = Film().requires_grad_(False)
    subject = phosphene.wrap(film, size=(HEIGHT, WIDTH), frames=5)
    assert (subject.channels, subject.frames) == (2, 5)
    assert subject.shapes() == {"conv": (3, 4, 12), "rates": (4,)}, "the middle frame is a map"
    images = torch.rand(3, 2, HEIGHT, WIDTH)
    torch.testing.assert_close(rates(subject, images), film(torch.stack([images] * 5, 2)))
    with subject.reading(["conv"]) as read:
        values = read(subject.prepare(images))["conv"]
    still = nn.functional.conv2d(images, film.conv.weight.sum(2))
    torch.testing.assert_close(values, still, msg="inside, a held picture is filtered as one image")
    result = phosphene.synthesize(subject, "conv:1", prior="pixels", steps=5)
    assert result.inputs.shape == (1, 2, HEIGHT, WIDTH)
    assert result.scores[0] > result.start_scores[0]


def test_frames_that_are_not_said_are_asked_for() -> None:
    with pytest.raises(BadRequest, match="frames=16 holds one image"):
        phosphene.wrap(Film(), size=(HEIGHT, WIDTH))
    with pytest.raises(BadRequest, match="frames is a number"):
        phosphene.wrap(Film(), size=(HEIGHT, WIDTH), frames=-1)


def test_an_image_comes_to_another_shape_by_each_fit() -> None:
    square = torch.arange(16 * 16.0).view(1, 1, 16, 16) / 256
    assert torch.equal(fitted(square, (8, 16), "crop", (0.3,)), square[:, :, 4:12])
    padded = fitted(square, (16, 32), "pad", (0.3,))
    torch.testing.assert_close(padded[..., 8:24], square)
    assert (padded[..., :8] == padded[0, 0, 0, 0]).all()
    assert float(padded[0, 0, 0, 31]) == pytest.approx(0.3)
    half = fitted(torch.rand(1, 1, 16, 16).expand(1, 3, 16, 16), (8, 16), "stretch", (0, 0, 0))
    assert half.shape == (1, 3, 8, 16)


def test_a_box_in_a_photograph_follows_the_fit() -> None:
    def box(fit: str) -> tuple[float, ...]:
        subject = phosphene.Subject("wide", nn.Identity(), (12, 24), (0.5,), (0.25,), fit=fit)
        return field_box(None, (0, 0), subject)

    assert box("crop") == box("stretch") == box("pad") == (0, 0, 1, 1)


def test_other_channels_are_made_of_red_green_and_blue() -> None:
    rows = [[0, 1, 0], [0.25, 0.25, 0.5]]
    rgb = torch.rand(2, 3, 4, 5)
    found = recoloured(rgb, 2, rows)
    torch.testing.assert_close(found[:, 0], rgb[:, 1])
    torch.testing.assert_close(found[:, 1], (rgb[:, 0] + rgb[:, 1]) / 4 + rgb[:, 2] / 2)
    network = nn.Sequential(nn.Conv2d(2, 3, 5)).requires_grad_(False)
    subject = phosphene.wrap(network, size=(HEIGHT, WIDTH), from_rgb=rows)
    result = phosphene.synthesize(subject, "0:1", prior=tiny_generated(), steps=5)
    assert result.inputs.shape == (1, 2, HEIGHT, WIDTH)
    assert subject.identity != phosphene.wrap(network, size=(HEIGHT, WIDTH)).identity
    for wrong in ([[1, 0, 0]], [[1, 1, 0], [0, 0, 1]], "green", [[1], [0, 1]]):
        with pytest.raises(BadRequest, match="from_rgb has three shares"):
            phosphene.wrap(network, size=(HEIGHT, WIDTH), from_rgb=wrong)


def test_the_fit_is_kept_by_the_record_and_told(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 5)).requires_grad_(False)
    made = {}
    for fit in ("crop", "stretch", "pad"):
        subject = phosphene.wrap(network, size=(HEIGHT, WIDTH), fit=fit)
        result = phosphene.synthesize(subject, "0:0", prior=tiny_generated(), steps=2)
        (record,) = result.records
        assert record.request["fit"] == fit
        made[fit] = (subject.identity, result.inputs[0])
        pixels = phosphene.synthesize(subject, "0:0", prior="pixels", steps=1)
        assert pixels.images.shape[-2:] == (HEIGHT + 1, WIDTH + 2), "pixels need no fit"
    assert len({identity for identity, _ in made.values()}) == 3
    assert not torch.equal(made["crop"][1], made["stretch"][1])
    with pytest.raises(BadRequest, match="fit is one of crop, stretch, pad; got 'squash'"):
        phosphene.wrap(network, size=(HEIGHT, WIDTH), fit="squash")
