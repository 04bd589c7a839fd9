"""Sums, differences, directions and texts have exemplars and evaluation as units have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from phosphene.datasets import Stream
from phosphene.errors import BadRequest
from phosphene.studies import asked_of
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import as_images
from phosphene.units import Direction, Target

SUM = "fc8:3 - 0.5*fc8:7"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random pictures of three classes, twelve to look through and twelve held out."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for n in range(12):
            file = folder / split / f"class{n % 3}" / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            small.resize((24, 24)).save(file)
    return folder


@pytest.fixture
def subject(zoo: Path) -> Subject:
    return load_subject(zoo / "subject.safetensors")


def activations(subject: Subject, photos: Path, layer: str) -> Tensor:
    """Return a layer's values on the photographs that are looked through, in their order."""
    data = Stream(photos, "train", max(subject.size))
    pixels = np.stack([each for _, each, _ in data.photographs()])
    with subject.reading([layer]) as read, torch.no_grad():
        return read(subject.prepare(as_images(pixels)))[layer]


def test_a_difference_has_the_exemplars_that_it_ranks_first(
    phosphene: Run, subject: Subject, zoo: Path, photos: Path, tmp_path: Path
) -> None:
    name = zoo / "subject.safetensors"
    found = phosphene("exemplars", name, SUM, "--images", photos, "--out", tmp_path, "--json")
    (row,) = found.json()
    logits = activations(subject, photos, "fc8")
    wanted = logits[:, 3] - 0.5 * logits[:, 7]
    best = wanted.argsort(descending=True, stable=True)[:9]
    assert row["photographs"] == best.tolist()
    torch.testing.assert_close(torch.tensor(row["values"]), wanted[best], rtol=1e-4, atol=1e-5)
    assert row["label"] == SUM
    other = ("fc8:3", "fc8:3 + fc8:7", "--images", photos, "--out", tmp_path, "--json")
    assert len(phosphene("exemplars", name, *other).json()) == 2, "the same index takes more"


def test_a_sum_is_evaluated_beside_its_photographs(
    phosphene: Run, subject: Subject, zoo: Path, photos: Path, tmp_path: Path
) -> None:
    name = zoo / "subject.safetensors"
    climb = ("--prior", zoo / "generator.safetensors", "--steps", 20, "--out", tmp_path / "a")
    (made,) = phosphene("synthesize", name, SUM, *climb, "--json").json()
    told = phosphene("evaluate", tmp_path / "a", "--judge", name, "--images", photos, "--json")
    (layer,) = told.json()
    (row,) = layer["units"]
    logits = activations(subject, photos, "fc8")
    natural = float((logits[:, 3] - 0.5 * logits[:, 7]).max())
    assert row["label"] == SUM
    assert not row.keys() & {"selectivity", "exemplar_selectivity"}, "there is no other channel"
    assert not any("selectivity" in figure for figure in layer["figures"])
    assert row["natural_score"] == pytest.approx(natural, rel=1e-3)
    assert row["score"] == pytest.approx(made["score"], rel=1e-4)


def test_a_direction_with_a_name_has_exemplars(
    phosphene: Run, subject: Subject, zoo: Path, photos: Path, tmp_path: Path
) -> None:
    layer = "conv5"
    vectors = {each: torch.randn(subject.shape(layer)[0]) for each in ("round", "dotted")}
    save_file(vectors, tmp_path / "probes.safetensors")
    name = f"{zoo / 'subject.safetensors'}+probe:{layer}={tmp_path / 'probes.safetensors'}"
    found = phosphene(
        "exemplars", name, "probe:round", "--images", photos, "--out", tmp_path / "e", "--json"
    )
    (row,) = found.json()
    unit = vectors["round"] / vectors["round"].norm()
    maps = torch.einsum("nchw,c->nhw", activations(subject, photos, layer), unit)
    peaks = maps.flatten(1).amax(1)
    assert row["photographs"] == peaks.argsort(descending=True, stable=True)[:9].tolist()
    assert row["label"] == "round"
    assert (
        phosphene("exemplars", name, "probe:raund", "--images", photos)
        .refused()
        .endswith("near: round")
    )


def test_a_direction_of_a_target_is_a_channel_too(subject: Subject) -> None:
    vector = tuple(float(i - 3) for i in range(10))
    subject_with, units = asked_of(subject, ["fc8:2", "fc8:1 + fc8:2"])
    assert str(units[0]) == "fc8:2"
    assert units[1].layer.startswith("sum_")
    assert subject_with.identity == subject.identity
    assert subject_with.shape(units[1].layer) == (1,)
    images = torch.rand(2, 3, *subject.size)
    from phosphene.studies._sums import with_sums

    target = Target(((2.0, Direction("fc8", vector)),), "slope")
    extended, found = with_sums(subject, [target])
    with extended.reading(["fc8", found[target].layer]) as read:
        values = read(extended.prepare(images))
    unit = torch.tensor(vector) / torch.tensor(vector).norm()
    torch.testing.assert_close(values[found[target].layer][:, 0], 2 * values["fc8"] @ unit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fc8:1 + fc7:2", "is of fc7 and fc8; studies take sums of one layer"),
        ("conv5:1@0,0 + conv5:2", "wherever it peaks, at no position"),
        ("conv5:1@0,0", "of one channel each, wherever it peaks"),
    ],
)
def test_other_sums_are_refused_in_one_line(subject: Subject, text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        asked_of(subject, [text])
