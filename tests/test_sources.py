"""Photographs of one's own: a `Source` from outside the package is read as any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from phosphene.claims.code import reached
from phosphene.datasets import Stream, check_apart, load
from phosphene.errors import BadFile, BadRequest, UnknownName

SHADES = """
import numpy as np
from phosphene.datasets import Row, Source

class Shades(Source):
    name = "shades of grey"
    classes = ("dark", "light")
    licence = "CC0-1.0"

    def __init__(self, split):
        self.values = (0, 60, 200, 255) if split == "train" else (30, 220)

    def __len__(self):
        return len(self.values)

    def rows(self, keyed=False):
        for value in self.values:
            pixels = np.full((20, 30, 3), value, np.uint8)
            yield Row(f"shade {value}", int(value > 127), str(value), pixels)

def lighter(split):
    made = Shades(split)
    made.values = [each + 1 for each in made.values[:-1]]
    return made

def fails(split):
    raise ValueError(split)

def other(split):
    return [1, 2]

class Late(Shades):
    def rows(self, keyed=False):
        yield from super().rows()
        raise ValueError("late")

class Grey(Shades):
    def rows(self, keyed=False):
        for row in super().rows():
            yield Row(row.where, row.label, row.key, row.image[:, :, 0])

class Pairs(Shades):
    def rows(self, keyed=False):
        for row in super().rows():
            yield Row(row.where, row.label, row.key, row.image[:, :, :2])

class Holes(Shades):
    def rows(self, keyed=False):
        for row in super().rows():
            yield Row(row.where, row.label, row.key, None if row.key == "60" else row.image)
"""


@pytest.fixture
def shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "shades.py").write_text(dedent(SHADES))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("shades", None)
    yield "python:shades:Shades"
    sys.modules.pop("shades", None)


def test_a_source_of_ones_own_is_loaded(shades: str) -> None:
    found = load(shades, "train")
    assert (found.name, found.classes, found.licence) == (
        "shades-of-grey",
        ("dark", "light"),
        "CC0-1.0",
    )
    assert found.images.shape == (4, 20, 20, 3)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.images[:, 0, 0, 0].tolist() == [0, 60, 200, 255]
    assert len(load(shades, "val")) == 2


def test_grey_pixels_are_equal_colours(shades: str) -> None:
    grey, colours = load("python:shades:Grey", "train"), load(shades, "train")
    assert (grey.images == colours.images).all()
    assert grey.fingerprint != colours.fingerprint


def test_its_cache_gives_the_same_photographs(shades: str, tmp_path: Path) -> None:
    first = load(shades, "train", cache=tmp_path / "cache")
    again = load(shades, "train", cache=tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.images, first.images)
    assert [file.name[:21] for file in (tmp_path / "cache").iterdir()] == ["shades-of-grey-train-"]


def test_its_content_tells_it_from_others(shades: str) -> None:
    prints = {Stream(shades, "train", 8).fingerprint, Stream(shades, "val", 8).fingerprint}
    assert len(prints) == 2
    assert Stream("python:shades:lighter", "train", 8).fingerprint not in prints
    assert Stream(shades, "train", 8).fingerprint in prints


def test_its_photographs_are_streamed(shades: str, tmp_path: Path) -> None:
    stream = Stream(shades, "train", 8, every=2)
    assert len(stream) == 2
    assert [(n, label) for n, _, label in stream.photographs()] == [(0, 0), (1, 1)]
    assert stream.places({1}) == {1: "shade 200"}
    check_apart(tmp_path / "made", shades)


def test_a_missing_photograph_is_left_out(shades: str) -> None:
    stream = Stream("python:shades:Holes", "train", 8)
    assert [n for n, _, _ in stream.photographs()] == [0, 2, 3]
    assert stream.damage.found == {1: "shade 60 has no image"}


@pytest.mark.parametrize(
    ("factory", "error", "says"),
    [
        ("none", UnknownName, "has no 'none'; near: "),
        ("fails", BadRequest, r"fails\(\) raised ValueError: train"),
        ("other", BadRequest, "returned a list; it must return a phosphene.datasets.Source"),
        ("Late", BadRequest, r"its rows raised ValueError: late \(shades.py"),
        ("Pairs", BadRequest, r"shade 0: an image is bytes, a Path, or uint8"),
    ],
)
def test_a_wrong_source_is_one_line(
    shades: str, factory: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        load(f"python:shades:{factory}", "train")


def test_a_source_without_photographs_is_refused(shades: str, monkeypatch: Any) -> None:
    load(shades, "train")
    monkeypatch.setattr(sys.modules["shades"].Shades, "values", (), raising=False)
    monkeypatch.setattr(sys.modules["shades"].Shades, "__init__", lambda self, split: None)
    with pytest.raises(BadFile, match="holds no photographs"):
        load(shades, "train")


def test_a_listed_source_is_named_by_its_module(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"holds no train\.parquet"):
        load(f"shards:{tmp_path}", "train")


def test_what_lists_sources_depends_on_them() -> None:
    assert {"datasets.sources.hf", "datasets.sources.python"} <= reached(["datasets.source"])
