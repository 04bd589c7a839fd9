"""A finished result is read where it is whole, and made where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from phosphene import kept
from phosphene.errors import BadFile, BadRequest, Notice

IDENTITY = {"views": "1f", "sizes": [3, 4]}
TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor([1, 2])}
FORMS = [(".json", {"n": 3, "mean": 0.1}), (".pt", TENSORS), (".safetensors", {**TENSORS, "n": 3})]


@pytest.mark.parametrize(("suffix", "content"), FORMS)
def test_a_result_is_made_once(tmp_path: Path, suffix: str, content: kept.Content) -> None:
    made: list[int] = []

    def make() -> kept.Content:
        made.append(1)
        return content

    for _ in range(2):
        found = kept.kept(tmp_path / f"result{suffix}", IDENTITY, make)
        assert sorted(found) == sorted(content)
        assert all(str(found[name]) == str(value) for name, value in content.items())
    assert made == [1]


@pytest.mark.parametrize(("suffix", "content"), FORMS)
def test_the_same_result_has_the_same_bytes(
    tmp_path: Path, suffix: str, content: kept.Content
) -> None:
    files = [tmp_path / str(n) / f"result{suffix}" for n in range(20)]
    for file in files:
        file.parent.mkdir()
        kept.write(file, IDENTITY, content)
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize(("suffix", "content"), FORMS)
def test_a_damaged_result_is_made_again(tmp_path: Path, suffix: str, content: kept.Content) -> None:
    file = tmp_path / f"result{suffix}"
    kept.write(file, IDENTITY, content)
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with pytest.raises(BadFile, match=r"damaged.*delete it"):
        kept.read(file)
    with pytest.warns(Notice, match="made again"):
        kept.kept(file, IDENTITY, lambda: content)
    assert file.read_bytes() == whole


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "result.safetensors"
    kept.write(file, IDENTITY, {**TENSORS, "n": 3})
    whole = file.read_bytes()
    for changed in (whole[:-1] + b"\1", whole.replace(rb"\"n\": 3", rb"\"n\": 4")):
        assert changed != whole
        file.write_bytes(changed)
        with pytest.raises(BadFile, match="its digest is another"):
            kept.read(file)


def test_a_result_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    kept.write(file, IDENTITY, {"n": 3})
    with pytest.raises(BadRequest, match="made with another sizes"):
        kept.kept(file, {**IDENTITY, "sizes": [4]}, dict)


def test_a_result_of_a_later_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"format": kept.FORMAT + 1, "identity": IDENTITY}))
    with pytest.raises(BadFile, match=f"format {kept.FORMAT + 1}"):
        kept.read(file)
