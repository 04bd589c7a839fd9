"""A folder of pictures is measured by command.

Every figure is there and the same each time, and nothing is run on trust.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CI_SAMPLE, Run
from PIL import Image

from phosphene.errors import BadRequest
from phosphene.images import read_image
from phosphene.studies import _comparison
from phosphene.studies.compare import evaluate
from phosphene.subjects import load_subject
from phosphene.testing import write_subject

SIDE = 16


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Class folders, 40 pictures to look through and 24 held out, coloured by class."""
    for split, n in (("train", 40), ("val", 24)):
        for i in range(n):
            random = np.random.default_rng(i + 1000 * n)
            pixels = random.integers(0, 100, (SIDE, SIDE, 3)) + np.array(
                [15 * (i % 10), 75, 150 - 15 * (i % 10)]
            )
            file = tmp_path / "photographs" / split / f"class{i % 10}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / "photographs"


@pytest.fixture
def run(phosphene: Run, zoo: Path, tmp_path: Path) -> Path:
    """Two seeds of three output units and two channels, and the same of the subject untrained."""
    climb = (
        "--prior",
        zoo / "generator.safetensors",
        "--steps",
        3,
        "--precision",
        "float32",
        "--device",
        "cpu",
    )
    units = ("fc8:0-2", "conv5:1,3", "fc8:0 + fc8:1", "--seeds", "0-1")
    for subject, folder in (
        ("subject.safetensors", "run"),
        ("subject.safetensors@random", "control"),
    ):
        phosphene(
            "synthesize", f"{zoo / subject}", *units, *climb, "--out", tmp_path / folder
        ).fine()
    return tmp_path / "run"


def test_every_figure_of_every_layer(
    phosphene: Run, run: Path, zoo: Path, photographs: Path
) -> None:
    words = (
        "evaluate",
        run,
        "--judge",
        zoo / "subject.safetensors",
        "--images",
        photographs,
        "--device",
        "cpu",
    )
    words += ("--control", run.parent / "control")
    found = {each["layer"]: each for each in phosphene(*words, "--json").json()}
    counts = {layer.partition("_")[0]: len(each["units"]) for layer, each in found.items()}
    assert counts == {"fc8": 3, "conv5": 2, "sum": 1}
    every = {
        *("activation_ratio", "activation_ratio_above_1", "selectivity", "exemplar_selectivity"),
        *(
            "selectivity_first",
            "exemplar_selectivity_first",
            "two_afc_synthetic",
            "two_afc_natural",
            "two_afc_none",
        ),
        *("diversity", "exemplar_diversity", "prior_share", "prior_share_random_codes"),
        *(
            "distance_exemplars",
            "distance_control",
            "distance_random_codes",
            "kid",
            "kid_photographs",
        ),
    }
    assert found["conv5"]["figures"].keys() == every
    assert found["fc8"]["figures"].keys() - every == {"recognised_top1", "recognised_top5"}
    for each in found.values():
        measured = each["figures"].items() if len(each["units"]) > 1 else ()  # one has no interval
        for name, figure in measured:
            assert figure["low"] <= figure["value"] <= figure["high"], name
            if name.startswith(("two_afc", "prior_share")) or name.endswith("_first"):
                assert 0 <= figure["value"] <= 1
        for row in each["units"]:
            natural = row["natural_score"]
            assert row["activation_ratio"] == (
                pytest.approx(row["score"] / natural) if natural > 0 else None
            )
        start = f"evaluation-tiny-objects-{each['layer'].replace('_', '-')}"
        (file,) = (run / "evidence").glob(f"{start}*.json")
        assert json.loads(file.read_text()) == each
    assert {each["layer"]: each for each in phosphene(*words, "--json").json()} == found, (
        "the same each time"
    )
    assert "activation_ratio" in phosphene(*words).fine()


def test_photographs_are_named_whatever_the_order_of_their_classes(
    phosphene: Run, run: Path, zoo: Path, photographs: Path
) -> None:
    """Folders are in the order of letters, and a network's classes are not."""
    subject = load_subject(str(zoo / "subject.safetensors"))
    right = {}
    for i, name in enumerate(subject.classes):
        for split in ("train", "val"):
            (photographs / split / f"class{i}").rename(photographs / split / name)
        for file in (photographs / "val" / name).iterdir():
            pixels = torch.from_numpy(read_image(file, max(subject.size)).copy())
            with torch.no_grad():
                right[file] = int(subject(pixels.permute(2, 0, 1)[None] / 255).argmax(1)) == i
    damaged = photographs / "val" / subject.classes[9] / "9.png"
    damaged.write_bytes(b"none")
    judge = ("--judge", zoo / "subject.safetensors", "--images", photographs, "--device", "cpu")
    found = phosphene("evaluate", run, *judge, "--json").json()
    figure = {each["layer"]: each["figures"] for each in found}["fc8"]["natural_top1"]
    del right[damaged]
    assert (figure["n"], figure["value"]) == (23, pytest.approx(sum(right.values()) / 23))


def test_the_best_photograph_is_the_index_s(
    phosphene: Run, run: Path, zoo: Path, photographs: Path
) -> None:
    words = ("--images", photographs, "--device", "cpu", "--json")
    found = phosphene("evaluate", run, "--judge", zoo / "subject.safetensors", *words).json()
    subject = zoo / "subject.safetensors"
    rows = phosphene(
        "exemplars", subject, "fc8:0-2", *words, "--out", run.parent / "exemplars"
    ).json()
    named = {row["unit"]: row for each in found for row in each["units"]}
    assert all(named[row["unit"]]["natural_score"] == row["values"][0] for row in rows)


def test_folders_that_are_measured_together_say_what_each_says_alone(
    phosphene: Run, run: Path, zoo: Path, photographs: Path
) -> None:
    subject, other = f"{zoo / 'subject.safetensors'}", run.parent / "pixels"
    phosphene(
        "synthesize",
        subject,
        "fc8:1,3",
        "conv1:0",
        "--prior",
        "pixels",
        "--steps",
        3,
        "--out",
        other,
    ).fine()
    about: dict[str, Any] = {"judge": subject, "images": str(photographs)}
    about |= {"index": run.parent / "index", "control": run.parent / "control"}
    alone = [evaluate([folder], **about)[0] for folder in (run, other)]
    together = evaluate([run, other], **about)
    assert [repr(each) for each in together] == [repr(each) for each in alone], (
        "NaN is like NaN here"
    )
    assert [[each.layer.partition("_")[0] for each in own] for own in together] == [
        ["conv5", "fc8", "sum"],
        ["conv1", "fc8"],
    ]
    with pytest.raises(BadRequest, match="one subject at a time"):
        evaluate([run, run.parent / "control"], subject)


def test_what_cannot_be_measured_is_told(
    phosphene: Run, run: Path, zoo: Path, photographs: Path
) -> None:
    judge = ("--judge", zoo / "subject.safetensors", "--device", "cpu")
    for file in run.glob("fc8-0-tench-s*.json"):
        record = json.loads(file.read_text())
        file.write_text(
            json.dumps({**record, "request": {**record["request"], "subject": "python:os:abort"}})
        )
    assert "several subjects" in phosphene("evaluate", run, *judge).refused()
    for file in run.glob("*.json"):
        record = json.loads(file.read_text())
        file.write_text(
            json.dumps({**record, "request": {**record["request"], "subject": "python:os:abort"}})
        )
    assert "which is code; where you trust it" in phosphene("evaluate", run, *judge).refused()
    control = run.parent / "control"
    for file in control.glob("fc8-*.json"):
        file.unlink()
    assert "no picture of a lone output unit" in phosphene("evaluate", control, *judge).refused()
    for file in sorted((photographs / "val").glob("*/*.png"))[5:]:
        file.unlink()
    assert (
        "at least 8 are needed"
        in phosphene("evaluate", control, *judge, "--images", photographs).refused()
    )
    for file in control.glob("conv5-*.json"):
        file.unlink()
    assert "holds no" in phosphene("evaluate", control, *judge).refused()


def test_pictures_of_other_weights_are_not_measured(phosphene: Run, run: Path, zoo: Path) -> None:
    for file in run.glob("conv5-*.json"):
        record = json.loads(file.read_text())
        file.write_text(
            json.dumps({**record, "weights": {**record["weights"], "subject": "0" * 64}})
        )
    judge = ("--judge", zoo / "subject.safetensors", "--device", "cpu")
    assert (
        "made with another subject: its hash was 0000"
        in phosphene("evaluate", run, *judge).refused()
    )


def test_what_other_commands_leave_beside_the_pictures_is_no_record(
    phosphene: Run, run: Path, zoo: Path
) -> None:
    judge = ("--judge", zoo / "subject.safetensors", "--device", "cpu")
    before = phosphene("evaluate", run, *judge, "--json").json()
    for name in ("exemplars.json", "dissection.json"):
        (run / name).write_text('{"format": 1, "units": []}')
    assert phosphene("evaluate", run, *judge, "--json").json() == before


def test_a_judge_of_other_classes_compares_and_does_not_name(
    phosphene: Run, run: Path, photographs: Path, tmp_path: Path
) -> None:
    judge = write_subject(tmp_path / "judge.safetensors", classes=[f"pet {i}" for i in range(10)])
    words = ("evaluate", run, "--judge", judge, "--device", "cpu")
    found = {
        each["layer"]: each for each in phosphene(*words, "--images", photographs, "--json").json()
    }
    assert "two_afc_synthetic" in found["fc8"]["figures"]
    assert not [key for key in found["fc8"]["figures"] if key.startswith("recognised")]
    assert "give a --judge that knows them" in phosphene(*words).refused()


def test_a_score_that_is_weighted_is_no_activation(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    climb = (
        "--prior",
        zoo / "generator.safetensors",
        "--steps",
        3,
        "--precision",
        "float32",
        "--device",
        "cpu",
    )
    phosphene(
        "synthesize", zoo / "subject.safetensors", "0.5*fc8:0", "fc8:1", *climb, "--out", tmp_path
    ).fine()
    (found,) = evaluate([tmp_path], str(zoo / "subject.safetensors"))[0]
    assert [row["unit"] for row in found.units] == ["fc8:1"]


def test_what_stands_for_photographs_in_general_is_cut_as_the_rest_is(
    phosphene: Run, zoo: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In noise, what a hidden unit sees of one photograph is as what it sees of another.

    It is not as the whole.
    """
    subject, climb = (
        zoo / "subject.safetensors",
        ("--steps", 2, "--precision", "float32", "--device", "cpu"),
    )
    phosphene(
        "synthesize", subject, "conv1:0-3", "--prior", "pixels", *climb, "--out", tmp_path / "conv1"
    ).fine()

    def other_photographs() -> float:
        ((found,),) = evaluate([tmp_path / "conv1"], str(subject), str(photographs))
        return found.figures["kid_photographs"].value

    cut = other_photographs()
    monkeypatch.setattr(_comparison, "_somewhere", lambda pictures, field, size: list(pictures))
    assert abs(cut) < other_photographs() / 3


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_on_real_photographs_exemplars_tell_what_excites_a_unit(
    phosphene: Run, tmp_path: Path
) -> None:
    """For the bundled network, an observer with natural references beats one with none."""
    out = tmp_path / "run"
    climb = (
        "--prior",
        "pixels",
        "--steps",
        5,
        "--precision",
        "float32",
        "--device",
        "cpu",
        "--out",
        out,
    )
    phosphene("synthesize", "caffenet-objects", "fc8:0-24", *climb, "--batch", 25).fine()
    words = ("--judge", "caffenet-objects", "--images", CI_SAMPLE, "--device", "cpu", "--json")
    (found,) = phosphene("evaluate", out, *words).json()
    figures = found["figures"]
    assert figures["two_afc_natural"]["low"] > figures["two_afc_none"]["high"]
    assert figures["exemplar_selectivity"]["value"] < 20


def test_what_does_not_apply_to_these_pictures_is_told(
    phosphene: Run, run: Path, zoo: Path, photographs: Path, tmp_path: Path
) -> None:
    """A control of other units is refused; photographs of other classes are not counted."""
    subject = zoo / "subject.safetensors"
    climb = ("--prior", "pixels", "--steps", 1, "--precision", "float32", "--device", "cpu")
    phosphene("synthesize", subject, "conv4:0", *climb, "--out", tmp_path / "other").fine()
    words = ("evaluate", run, "--judge", subject, "--images", photographs)
    line = phosphene(*words, "--control", tmp_path / "other").refused()
    assert "no picture of a unit that is evaluated" in line
    said = phosphene(*words, "--photographs", 20, "--json")
    assert said.json()
    assert "--photographs did not apply" in said.err
    assert "did not apply" not in phosphene(*words, "--json").err
