"""Constraints of the picture, against the preferred inputs of linear units in closed form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from torch import Tensor, nn

import phosphene
from phosphene.errors import BadFile, BadRequest
from phosphene.priors import Generated, Prior, load_prior
from phosphene.priors.pixels import Pixels
from phosphene.stimulus import Stimulus, measure
from phosphene.subjects import Subject
from phosphene.synthesis import settings
from phosphene.tensors import LUMINANCE

SIZE = (10, 24)
MEAN, STD = 0.45, 0.2


class Linear(nn.Module):
    """One unit whose preferred input is known: its weights (channels, height, width)."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.conv = nn.Conv2d(len(weights), 1, weights.shape[1:], bias=False)
        self.conv.weight.data = weights[None]

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).flatten(1)


def weights(channels: int = 1) -> Tensor:
    """Return smooth random weights with a mean that is not 0, (channels, *SIZE)."""
    coarse = torch.randn(1, channels, 4, 6, generator=torch.Generator().manual_seed(5))
    return nn.functional.interpolate(coarse, SIZE, mode="bicubic")[0] + 0.3


def linear(weight: Tensor) -> Subject:
    network = Linear(weight).eval().requires_grad_(False)
    return phosphene.wrap(network, size=SIZE, mean=MEAN, std=STD)


def view(images: Tensor) -> Tensor:
    """Return what the subject is shown of a picture of pixels or Fourier, (channels, *SIZE)."""
    top = (images.shape[2] - SIZE[0]) // 2
    left = (images.shape[3] - SIZE[1]) // 2
    return images[0, :, top : top + SIZE[0], left : left + SIZE[1]]


PLAIN: dict[str, Any] = {
    "tv": 0.0,
    "blur": 0.0,
    "shift": 0,
    "tries": 1,
    "precision": "float32",
}


def preferred(weight: Tensor, prior: str = "pixels", **constraints: Any) -> tuple[Tensor, Any]:
    """Return the view of a linear unit's preferred input, and the whole result."""
    result = phosphene.synthesize(linear(weight), "conv:0", prior=prior, **PLAIN, **constraints)
    return view(result.images), result


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


ROUNDED = 0.5 / 255 + 1e-6


@pytest.mark.parametrize("prior", ["pixels", "fourier"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_under_a_norm_a_linear_unit_prefers_its_weights_scaled(channels: int, prior: str) -> None:
    weight = weights(channels)
    found, result = preferred(weight, prior, norm=8)
    read = (found - MEAN) / STD
    assert cosine(read, weight) > 0.995
    assert float(read.norm()) == pytest.approx(8, abs=0.05)
    assert float(result.scores[0]) == pytest.approx(8 * float(weight.norm()), rel=0.01)
    assert result.stimuli[0]["norm"] == pytest.approx(float(read.norm()), abs=1e-4)
    assert "missed" not in result.stimuli[0]


def test_the_least_preferred_input_under_a_norm_is_the_weights_turned_round() -> None:
    _, result = preferred(-weights(), norm=8)
    least = phosphene.synthesize(linear(weights()), "-1*conv:0", prior="pixels", **PLAIN, norm=8)
    assert torch.equal(least.images, result.images)
    assert cosine(view(least.images) - MEAN, -weights()) > 0.995
    activation = linear(weights())(view(least.images)[None])
    torch.testing.assert_close(least.scores, activation[0], atol=1e-4, rtol=1e-4)
    assert least.scores[0] < 0, "the activation, not its negative"


def test_under_a_mask_it_is_the_masked_weights(tmp_path: Path) -> None:
    inside = np.zeros(SIZE, np.uint8)
    inside[2:7, 4:15] = 255
    Image.fromarray(inside).save(tmp_path / "mask.png")
    found, _ = preferred(weights(), norm=4, mask=str(tmp_path / "mask.png"), background=0.4)
    shown = torch.from_numpy(inside) > 0
    assert (found[0][~shown] - 0.4).abs().max() <= ROUNDED
    masked = weights()[0] * shown
    # what the mask hides adds a constant to the norm, and the masked part turns from the grey
    assert cosine((found[0] - MEAN) * shown, masked) > 0.99


def test_under_contrast_and_luminance_it_is_the_weights_less_their_mean() -> None:
    found, result = preferred(weights(), contrast=0.1, luminance=0.4)
    centred = weights() - weights().mean()
    assert cosine(found - 0.4, centred) > 0.999
    wanted = 0.4 + 0.1 * centred / centred.std(correction=0)
    assert (found - wanted).abs().max() < 0.02
    assert result.stimuli[0]["contrast"] == pytest.approx(0.1, abs=ROUNDED)
    assert result.stimuli[0]["luminance"] == pytest.approx(0.4, abs=ROUNDED)


def test_contrast_is_of_luminance_not_of_colours() -> None:
    _, result = preferred(weights(3), contrast=0.1, luminance=0.5)
    shown = view(result.images)
    plane = sum(share * shown[i] for i, share in enumerate(LUMINANCE))
    assert float(plane.std(correction=0)) == pytest.approx(0.1, abs=ROUNDED)
    assert float(plane.mean()) == pytest.approx(0.5, abs=ROUNDED)


def test_under_a_range_it_is_the_sign_of_the_weights() -> None:
    found, _ = preferred(weights(), range="0.2,0.6", steps=400)
    wanted = torch.where(weights() > 0, 0.6, 0.2)
    clear = weights().abs() > 0.1
    assert (found - wanted)[clear].abs().max() < 0.01


def test_the_range_wins_over_the_norm_and_the_record_says_so() -> None:
    found, result = preferred(weights(), norm=30, range="0.4,0.5")
    assert 0.4 - ROUNDED <= float(found.min()) <= float(found.max()) <= 0.5 + ROUNDED
    assert result.stimuli[0]["missed"] == ["norm"]
    assert result.records[0].stimulus == result.stimuli[0]


def test_an_aperture_is_a_disc_in_the_middle_and_a_border_a_frame() -> None:
    found, _ = preferred(weights(), norm=5, aperture=0.8)
    rows = torch.arange(SIZE[0])[:, None] - (SIZE[0] - 1) / 2
    columns = torch.arange(SIZE[1]) - (SIZE[1] - 1) / 2
    outside = rows**2 + columns**2 > (0.4 * SIZE[0]) ** 2
    assert (found[0][outside] - MEAN).abs().max() <= ROUNDED
    assert cosine(found - MEAN, weights() * ~outside) > 0.99
    found, _ = preferred(weights(), norm=5, border=2)
    framed = nn.functional.pad(torch.ones(1, SIZE[0] - 4, SIZE[1] - 4), (2, 2, 2, 2))
    assert cosine(found - MEAN, weights() * framed) > 0.99
    assert (found[framed == 0] - MEAN).abs().max() <= ROUNDED


INSIDE = {
    "aperture": (
        (torch.arange(SIZE[0])[:, None] - (SIZE[0] - 1) / 2) ** 2
        + (torch.arange(SIZE[1]) - (SIZE[1] - 1) / 2) ** 2
        <= (0.4 * SIZE[0]) ** 2
    ),
    "border": nn.functional.pad(torch.ones(SIZE[0] - 4, SIZE[1] - 4), (2, 2, 2, 2)) > 0,
}
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "norm": {"norm": 5},
    "contrast": {"contrast": 0.1, "luminance": 0.5},
    "range": {"range": "0.2,0.6", "steps": 400},
    "aperture": {"norm": 4, "aperture": 0.8, "background": 0.4},
    "border": {"norm": 4, "border": 2, "background": 0.4},
}


@pytest.mark.parametrize("target", ["least", "difference"])
@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_least_inputs_and_differences_keep_each_constraint(kind: str, target: str) -> None:
    first, second = weights()[0], weights()[0].flip(1) * 0.7
    network = Linear(first[None])
    network.conv.weight.data = torch.stack([first, second])[:, None]
    subject = phosphene.wrap(network, size=SIZE, mean=MEAN, std=STD)
    text, weight = {
        "least": ("-1*conv:0", -first),
        "difference": ("conv:0 - conv:1", first - second),
    }[target]
    plain = {"tv": 0.0, "blur": 0.0, "shift": 0, "tries": 1}
    result = phosphene.synthesize(subject, text, prior="pixels", **plain, **CONSTRAINTS[kind])
    found = view(result.images)[0]
    answers = subject(found[None, None])[0]
    told = answers[0] if target == "least" else answers[0] - answers[1]
    torch.testing.assert_close(result.scores[0], told, atol=1e-4, rtol=1e-4)
    assert "missed" not in result.stimuli[0]
    if kind == "norm":
        assert cosine(found - MEAN, weight) > 0.995
        assert float(((found - MEAN) / STD).norm()) == pytest.approx(5, abs=0.05)
    elif kind == "contrast":
        centred = weight - weight.mean()
        wanted = 0.5 + 0.1 * centred / centred.std(correction=0)
        assert (found - wanted).abs().max() < 0.02
    elif kind == "range":
        clear = weight.abs() > 0.1
        assert (found - torch.where(weight > 0, 0.6, 0.2))[clear].abs().max() < 0.01
    else:
        assert (found[~INSIDE[kind]] - 0.4).abs().max() <= ROUNDED
        assert cosine((found - MEAN) * INSIDE[kind], weight * INSIDE[kind]) > 0.99


@pytest.mark.parametrize("edge", [0.0, 0.3])
def test_a_soft_edge_falls_as_half_a_cosine(edge: float) -> None:
    subject = linear(weights())
    stimulus = Stimulus(aperture=1.0, edge=edge, background="0.25")
    image = torch.full((1, 1, *SIZE), 0.75)
    shown = stimulus.fit(subject, Pixels(SIZE, channels=1))(image)[0, 0]
    rows = torch.arange(SIZE[0])[:, None] - (SIZE[0] - 1) / 2
    columns = torch.arange(SIZE[1]) - (SIZE[1] - 1) / 2
    inward = SIZE[0] / 2 - (rows**2 + columns**2).sqrt()
    share = (inward / max(edge * SIZE[0], 1e-9)).clamp(0, 1)
    torch.testing.assert_close(shown, 0.25 + 0.5 * (1 - torch.cos(torch.pi * share)) / 2)


def test_a_generator_obeys_as_well(generated: Generated, subject: Subject) -> None:
    constraints = {"contrast": 0.1, "luminance": 0.45, "aperture": 0.9, "steps": 20}
    result = phosphene.synthesize(subject, "fc:0", prior=generated, **constraints)
    assert result.stimuli[0]["contrast"] == pytest.approx(0.1, abs=ROUNDED)
    assert result.stimuli[0]["luminance"] == pytest.approx(0.45, abs=ROUNDED)
    assert "missed" not in result.stimuli[0]
    assert result.scores[0] > result.start_scores[0]
    torch.testing.assert_close(
        result.images[0, :, 0, 0], torch.tensor(subject.mean), atol=ROUNDED, rtol=0
    )


def test_a_square_prior_keeps_the_norm_in_what_a_grey_subject_reads(generated: Generated) -> None:
    result = phosphene.synthesize(linear(weights()), "conv:0", prior=generated, norm=6, steps=10)
    read = linear(weights()).prepare(result.images[..., 1:15, 1:15])
    assert float(read.norm()) == pytest.approx(6, abs=0.05)


def projected(stimulus: Stimulus, images: Tensor, prior: Prior) -> Tensor:
    return stimulus.fit(linear(weights()), prior)(images)


@pytest.mark.parametrize(
    "stimulus",
    [
        Stimulus(norm=4),
        Stimulus(norm=4, luminance=0.5),
        Stimulus(contrast=0.1, luminance=0.32, background="0.3", aperture=1.0, edge=0.2),
        Stimulus(range="0.3,0.7", border=1),
    ],
)
def test_a_projection_of_a_projection_changes_nothing_and_images_never_mix(
    stimulus: Stimulus,
) -> None:
    prior = Pixels(SIZE, channels=1)
    images = torch.rand(3, 1, *SIZE)
    once = projected(stimulus, images, prior)
    if not stimulus.edge:  # a soft mask is a blend, which is no projection
        torch.testing.assert_close(projected(stimulus, once, prior), once, atol=1e-4, rtol=0)
    alone = torch.cat([projected(stimulus, image[None], prior) for image in images])
    torch.testing.assert_close(alone, once)
    values = measure(once, linear(weights()), SIZE)
    for i, name in enumerate(("norm", "contrast", "luminance")):
        if wanted := getattr(stimulus, name):
            assert values[:, i].tolist() == pytest.approx([wanted] * 3, abs=1e-3)


def test_a_gradient_comes_through_a_projection() -> None:
    prior = Pixels(SIZE, channels=1)
    images = (0.4 + 0.2 * torch.rand(1, 1, *SIZE)).double().requires_grad_()
    stimulus = Stimulus(contrast=0.08, luminance=0.5)
    assert torch.autograd.gradcheck(lambda x: projected(stimulus, x, prior), images)


def test_without_constraints_images_stay_the_same_object() -> None:
    images = torch.rand(1, 1, *SIZE)
    assert projected(Stimulus(), images, Pixels(SIZE, channels=1)) is images


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"norm": -1}, "norm must be"),
        ({"norm": 2, "contrast": 0.1}, "both set the scale"),
        ({"range": "0.9,0.1"}, "range is two numbers"),
        ({"range": "all"}, "range is two numbers"),
        ({"background": "white"}, "background is grey or"),
        ({"background": 0.1, "range": (0.2, 0.8)}, "outside of range"),
        ({"border": 5}, "leaves nothing"),
        ({"contrasts": 0.1}, "near: contrast"),
    ],
)
def test_what_no_picture_can_have_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        preferred(weights(), steps=1, **given)


def test_a_mask_that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(BadFile, match=r"mask takes a picture's file; 'none\.png'"):
        preferred(weights(), mask="none.png")


CLIMB = ("--prior", "pixels", "--steps", 20, "--precision", "float32", "--device", "cpu")


def test_a_record_keeps_the_constraints_and_makes_the_same_bits(
    phosphene: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((20, 20), 200, np.uint8)).save("mask.png")
    options = ("--norm", 9, "--range", "0.1,0.9", "--mask", "mask.png", "--background", 0.5)
    command = ("synthesize", zoo / "subject.safetensors", "fc8:1", *CLIMB, *options)
    (made,) = phosphene(*command, "--out", "out", "--json").json()
    assert made["stimulus"]["norm"] == pytest.approx(9, abs=0.1)
    record = Path(made["image"]).with_suffix(".json")
    kept = json.loads(record.read_text())
    assert kept["stimulus"] == made["stimulus"]
    stimulus = kept["request"]["climb"]["stimulus"]
    assert {**stimulus, "mask_sha256": ""} == {
        "norm": 9.0,
        "range": "0.1,0.9",
        "mask": "mask.png",
        "background": "0.5",
        "mask_sha256": "",
    }
    again = phosphene("synthesize", "--record", record, "--out", "again")
    assert again.fine()
    assert again.err == "", "the same bits"
    assert "kept 1 picture" in phosphene(*command, "--out", "out").err
    other = phosphene(*command[:-8], "--norm", 8, "--out", "out").refused()
    assert "norm 9.0, now 8.0" in other
    Image.fromarray(np.full((20, 20), 100, np.uint8)).save("mask.png")
    refused = phosphene("synthesize", "--record", record, "--out", "third").refused()
    assert "mask.png is not the mask that the record was made with" in refused


def test_a_norm_that_the_range_does_not_hold_is_told(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    options = ("--norm", 900, "--out", tmp_path)
    run = phosphene("synthesize", zoo / "subject.safetensors", "fc8:1", *CLIMB, *options)
    assert "and not 900, which its range" in run.err


def test_a_record_without_constraints_is_as_before(subject: Subject) -> None:
    prior = load_prior("pixels", subject)
    result = phosphene.synthesize(subject, "fc:0", prior=prior, steps=1)
    assert "stimulus" not in result.records[0].request["climb"]
    assert result.stimuli[0].keys() == {"norm", "contrast", "luminance"}


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_constraints_are_of_what_the_adapter_shows(generated: Generated, fit: str) -> None:
    subject = replace(linear(weights()), fit=fit)
    how = {"contrast": 0.05, "luminance": 0.45, "steps": 5}
    result = phosphene.synthesize(subject, "conv:0", prior=generated, **how)
    shown = subject.fitted(result.images[..., 1:15, 1:15])
    assert float(shown.std(correction=0)) == pytest.approx(0.05, abs=ROUNDED)
    assert float(shown.mean()) == pytest.approx(0.45, abs=ROUNDED)


# ---------------------------------------------------------------- defaults of pixels and Fourier


@pytest.mark.parametrize(("prior", "share"), [("pixels", 0.85), ("fourier", 0.65)])
@pytest.mark.parametrize("size", [1.0, 0.01])
def test_fine_waves_on_64_pixels_are_found_by_default_on_any_scale(
    prior: str, share: float, size: float
) -> None:
    rows = torch.arange(64)[:, None] - 32.0
    columns = torch.arange(64) - 32.0
    wave = torch.cos((0.6 * rows + 0.8 * columns) * 2 * torch.pi / 6)
    weight = size * wave * torch.exp(-(rows**2 + columns**2) / 50)
    network = Linear(weight[None]).eval().requires_grad_(False)
    subject = phosphene.wrap(network, size=(64, 64), mean=0.5, std=0.25)
    result = phosphene.synthesize(subject, "conv:0", prior=prior, steps=128, tries=1)
    most = 2 * float(weight.abs().sum())  # each pixel as far as it goes, two deviations
    assert float(result.scores[0]) > share * most  # 0.32 and 0.37 with shifts of 4 pixels


def test_defaults_keep_their_share_of_the_size_and_what_is_named() -> None:
    def settled(side: int, **changes: Any) -> tuple[Any, ...]:
        climb = settings("default", prior_of(side), **changes)
        return climb.shift, climb.tv, climb.tv_unit, climb.blur

    def prior_of(side: int) -> Pixels:
        return Pixels(side + 8, side)

    assert settled(224) == settled(300) == (4, 0.5, "activation", 0.5)
    assert settled(112) == (2, 0.015, "score", 0.25)
    assert settled(36) == (0, 0.015, "score", 0.0)
    assert settled(36, shift=4, tv=0.5, blur=0.5) == (4, 0.5, "activation", 0.5)
