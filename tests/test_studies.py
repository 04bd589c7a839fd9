"""Studies: one is found by its name, one from outside needs a file and a template, and no more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlas_runs import SHA, colours, encoded, lone, write_picture
from conftest import Run
from PIL import Image

from phosphene.atlas import build
from phosphene.errors import BadFile, BadRequest, UnknownName
from phosphene.forms import Record, StudyTable, form_of
from phosphene.forms.form import read_entry
from phosphene.studies import load_study, study_names
from phosphene.studies.exemplars import Exemplars

MINE = """
from dataclasses import dataclass

import numpy as np
import torch

from phosphene.datasets import Stream
from phosphene.forms import StudyTable
from phosphene.images import write_webp
from phosphene.parts import option
from phosphene.studies import Study
from phosphene.studies.exemplars import find_peaks
from phosphene.tensors import as_images


@dataclass(frozen=True)
class Loudness(Study):
    above: float = option(0.0, "Activation that counts.", low=-9, high=9)

    def run(self, subject, units, images, runtime):
        data = Stream(images, "all", max(subject.size))
        pixels = np.stack([each for _, each, _ in data.photographs()])
        layers = list({unit.layer: None for unit in units})
        with subject.reading(layers) as read, torch.no_grad():
            found = read(subject.prepare(as_images(pixels)))
        rows = []
        for unit in units:
            values = find_peaks(found[unit.layer])[0][:, unit.channel]
            name = f"{unit.layer}-{unit.channel}.webp"
            write_webp(runtime.folder / name, pixels[int(values.argmax())])
            share = float((values > self.above).float().mean())
            key = f"{unit.layer}:{unit.channel}"
            rows.append({"unit": key, "pictures": [name], "loud_share": share, "mood": "calm"})
        return StudyTable(study="loudness", title="How loud", subject=subject.name,
                          subject_sha256=subject.identity, data=data.name, units=rows)
"""
TEMPLATE = "<p class='mine'>{{ card.unit }} is <b>{{ answer.figures[1].value }}</b></p>"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study, its template and photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "loudness.html").write_text(TEMPLATE)
    for n in range(4):
        file = tmp_path / "photos" / f"{n}.png"
        file.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 256, (14, 14, 3), np.uint8)
        Image.fromarray(pixels).save(file)
    return tmp_path


def test_a_study_from_outside_is_a_file_and_a_template(
    phosphene: Run, zoo: Path, here: Path
) -> None:
    words = ("study", "python:mine:Loudness", zoo / "subject.safetensors", "fc8:0-1", "conv5:3")
    options = ("--images", "photos", "--out", "loud", "--device", "cpu")
    said = phosphene(*words, *options, "--set", "above=-9").fine()
    assert "loud_share" in said
    table = StudyTable.read(here / "loud" / "loudness.json")
    assert [row["unit"] for row in table.units] == ["fc8:0", "fc8:1", "conv5:3"]
    assert table.units[0]["loud_share"] == 1
    phosphene("atlas", "loud", "--out", "plain").fine()
    (page,) = here.glob("plain/*/fc8/1.html")
    text = page.read_text()
    assert "How loud" in text
    assert "loud share" in text
    assert 'src="1-loudness-0-0.webp"' in text
    assert (page.parent / "1-loudness-0-0.webp").is_file()
    assert "loud_share" in (page.parent / "units.js").read_text(), "units are sorted by it"
    phosphene("atlas", "loud", "--out", "own", "--templates", "pages").fine()
    (page,) = here.glob("own/*/fc8/1.html")
    assert "<p class='mine'>fc8:1 is <b>calm</b></p>" in page.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "above=10"), "above must be a number in -9 … 9; got 10.0"),
        (("--set", "below=1"), "has no setting 'below'; near: above"),
        (("--set", "above"), "--set takes NAME=VALUE; got 'above'"),
        (("--set", "above=1", "--set", "above=2"), "--set gives above twice: '1' and '2'"),
    ],
)
def test_an_option_that_a_study_does_not_have_is_told(
    phosphene: Run, zoo: Path, here: Path, options: tuple[str, ...], said: str
) -> None:
    words = ("study", "python:mine:Loudness", zoo / "subject.safetensors", "fc8:0")
    assert said in phosphene(*words, "--images", "photos", *options).refused()


def test_what_a_study_of_ones_own_does_wrong_is_one_line(
    phosphene: Run, zoo: Path, here: Path
) -> None:
    (here / "mine.py").write_text(MINE.replace("rows = []", "rows = [] + 1"))
    words = ("study", "python:mine:Loudness", zoo / "subject.safetensors", "fc8:0")
    line = phosphene(*words, "--images", "photos").refused()
    assert "python:mine:Loudness: run() raised TypeError" in line
    assert "mine.py, line" in line


def test_a_template_that_fails_is_one_line(phosphene: Run, here: Path) -> None:
    write_table(here / "run")
    for text in ("{{ nothing }}", "{% if %}", "{{ 1 // 0 }}"):
        (here / "pages" / "loudness.html").write_text(text)
        assert "a template of pages" in phosphene("atlas", "run", "--templates", "pages").refused()
    assert "is not a folder" in phosphene("atlas", "run", "--templates", "none").refused()


def write_table(run: Path, **changes: Any) -> Path:
    """A study's file as it may come from anybody."""
    run.mkdir(exist_ok=True)
    whole = {"format": 1, "study": "loudness", "subject": "tiny-objects", "subject_sha256": SHA}
    whole |= {"units": [{"unit": "fc:0", "loudness": 0.5}]} | changes
    (run / "any-name.json").write_text(json.dumps(whole))
    return run


def test_the_file_is_found_by_what_it_declares(tmp_path: Path) -> None:
    write_picture(tmp_path / "run", "a", lone("fc:0"))
    hostile = "<b>{{ 7 * 7 }}</b>"
    write_table(
        tmp_path / "run", title=hostile, says=hostile, units=[{"unit": "fc:0", "a": hostile}]
    )
    build([tmp_path / "run"], tmp_path / "site")
    (page,) = tmp_path.glob("site/*/fc/0.html")
    assert "<b>{{" not in page.read_text()
    assert page.read_text().count("&lt;b&gt;{{ 7 * 7 }}&lt;/b&gt;") == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study": "../../x"}, "its name is of a-z, 0-9 and dashes"),
        ({"study": 5}, "study is not a text"),
        ({"format": 7}, "has format 7, this version reads 1"),
        ({"units": [{"a": 1}]}, "units[0] has no 'unit'"),
        ({"units": [{"unit": "fc:0", "pictures": ["../x.png"]}]}, "is not there"),
        ({"units": [{"unit": "fc:0", "pictures": "x"}]}, "units[0].pictures is not a list"),
    ],
)
def test_a_study_s_file_that_is_not_of_its_form_is_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write_table(tmp_path / "run", **changes)
    with pytest.raises(BadFile) as caught:
        build([tmp_path / "run"], tmp_path / "site")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_of_a_study_must_be_one(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.png").write_bytes(encoded(colours(0))[:40])
    write_table(tmp_path / "run", units=[{"unit": "fc:0", "pictures": ["x.png"]}])
    with pytest.raises(BadFile, match=r"x\.png cannot be read as an image"):
        build([tmp_path / "run"], tmp_path / "site")


def test_the_studies_of_the_package_are_found_by_listing() -> None:
    assert set(study_names()) == {"dissection", "exemplars"}
    assert load_study("exemplars", {"k": "3"}) == Exemplars(k=3)
    with pytest.raises(UnknownName, match="there are: dissection, exemplars, python:"):
        load_study("exemplar", {})
    with pytest.raises(BadRequest, match="k must be a whole number in 1 … 1,000"):
        load_study("exemplars", {"k": 0})


def test_a_study_by_its_name_says_what_its_own_command_says(
    phosphene: Run, zoo: Path, here: Path
) -> None:
    words = (zoo / "subject.safetensors", "fc8:0", "--images", "photos", "--device", "cpu")
    found = phosphene("study", "exemplars", *words, "--set", "split=all", "--json").json()
    rows = phosphene("exemplars", *words, "--split", "all", "--json").json()
    assert found["units"] == rows


def test_a_study_s_file_is_no_record(tmp_path: Path) -> None:
    file = write_table(tmp_path / "run") / "any-name.json"
    assert form_of(read_entry(file)) is StudyTable
    assert form_of(read_entry(write_picture(tmp_path / "run", "a", lone("fc:0")))) is Record
