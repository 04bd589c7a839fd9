"""Records: what is written is read, what is damaged is refused, a folder knows what is whole."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phosphene.errors import BadFile, OutOfSpace
from phosphene.files import without_nan
from phosphene.forms import Record, asked
from phosphene.records import Contents, Folder, pixels_sha256

PIXELS = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
RECORD = Record(
    target="fc8:3",
    label="chain saw",
    request={
        "subject": "tiny",
        "climb": {"steps": 3, "decay": 0.99},
        "members": [[{"terms": []}, 0]],
        "member": 0,
    },
    weights={"subject": "abc", "prior": "def"},
    score=1.25,
    start_score=-0.1,
    curve=[0.1, 0.2],
    status="climbed",
    image="a.png",
    image_sha256=pixels_sha256(PIXELS),
    command="phosphene synthesize --record a.json",
    versions={"torch": "2.13.0"},
)

OPTIONAL = {
    *("kept_step", "last_score", "input", "input_sha256", "input_score", "array", "array_sha256"),
    "stimulus",
    "set",
}


def changed(tmp_path: Path, **changes: Any) -> Path:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({**dataclasses.asdict(RECORD), **changes}))
    return file


def refused(file: Path) -> str:
    with pytest.raises(BadFile) as caught:
        Record.read(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    RECORD.write(tmp_path / "a.json")
    assert Record.read(tmp_path / "a.json") == RECORD
    assert os.listdir(tmp_path) == ["a.json"]


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.lists(st.floats(allow_nan=False, width=32)),
)
def test_numbers_and_texts_survive_exactly(
    tmp_path_factory: Any, score: float, label: str, curve: list[float]
) -> None:
    file = tmp_path_factory.mktemp("r") / "a.json"
    record = dataclasses.replace(
        RECORD, score=score, label=label, curve=[c for c in curve if math.isfinite(c)]
    )
    try:
        record.write(file)
    except UnicodeEncodeError:
        return  # half of a surrogate pair is no text
    assert Record.read(file) == record


def test_a_number_that_is_none_is_null_on_disk_and_nan_in_memory(tmp_path: Path) -> None:
    dataclasses.replace(RECORD, score=math.nan, curve=[1.0, math.inf]).write(tmp_path / "a.json")
    json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    found = Record.read(tmp_path / "a.json")
    assert math.isnan(found.score)
    assert found.curve[0] == 1
    assert math.isnan(found.curve[1])
    assert without_nan({"a": (math.nan, "nan", 1)}) == {"a": [None, "nan", 1]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not JSON",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"{}",
        b"[" * 200_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"9" * 10_000,
        b'{"format": 1}',
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_no_record_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.json").write_bytes(raw)
    refused(tmp_path / "x.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 4},
        {"format": 0},
        {"format": "1"},
        {"format": None},
        {"target": 5},
        {"label": None},
        {"request": []},
        {"weights": "abc"},
        {"score": "high"},
        {"start_score": [1]},
        {"curve": "up"},
        {"status": 3},
        {"image": 5},
        {"image": "../../secret.png"},
        {"image": "/etc/passwd"},
        {"image": ""},
        {"image_sha256": None},
        {"versions": []},
        {"command": {}},
        {"input": "../a.input.png"},
        {"array": "/etc/a.npy"},
        {"input_score": "high"},
        {"surprise": 1},
        {"kept_step": 1.5},
        {"last_score": "low"},
    ],
    ids=str,
)
def test_a_field_of_another_form_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    refused(changed(tmp_path, **changes))


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    for name in dataclasses.asdict(RECORD).keys() - OPTIONAL:
        data = dataclasses.asdict(RECORD)
        del data[name]
        (tmp_path / "x.json").write_text(json.dumps(data))
        refused(tmp_path / "x.json")


def test_what_version_0_1_0_did_not_write_may_be_missing(tmp_path: Path) -> None:
    data = dataclasses.asdict(dataclasses.replace(RECORD, kept_step=2, last_score=0.5))
    (tmp_path / "x.json").write_text(json.dumps(data))
    assert Record.read(tmp_path / "x.json").last_score == 0.5
    del data["kept_step"], data["last_score"]
    (tmp_path / "x.json").write_text(json.dumps(data))
    assert Record.read(tmp_path / "x.json") == RECORD


def test_a_huge_file_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(1 << 40)  # of nothing: it takes no space
    assert "too large" in refused(tmp_path / "huge.json")
    refused(tmp_path)
    refused(tmp_path / "none.json")


# ---------------------------------------------------------------- folders


def test_settings_that_a_climb_did_not_name_are_what_they_were(tmp_path: Path) -> None:
    def upgraded(request: dict[str, Any]) -> dict[str, Any]:
        return {**request, "climb": {**request["climb"], "keep": "last"}}

    folder = Folder(tmp_path)
    folder.add("a", RECORD, Contents(PIXELS))
    as_then = upgraded(RECORD.request)
    otherwise = {**as_then, "climb": {**as_then["climb"], "keep": "best"}}
    assert folder.find("a", as_then, RECORD.weights, upgraded) == RECORD
    assert folder.find("a", otherwise, RECORD.weights, upgraded) is None


def find(folder: Folder, **changes: Any) -> Record | None:
    return folder.find("a", {**RECORD.request, **changes}, dict(RECORD.weights))


def test_a_folder_finds_what_is_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new" / "folder")
    folder.create()
    folder.create()
    folder.add("a", RECORD, Contents(PIXELS))
    assert find(folder) == RECORD
    assert np.array_equal(folder.picture(RECORD), PIXELS)
    as_python_keeps_it = {**RECORD.request, "members": [({"terms": ()}, 0)]}
    assert folder.find("a", as_python_keeps_it, dict(RECORD.weights)) == RECORD, (
        "tuples are JSON's lists"
    )


def test_a_folder_does_not_find_another_request_or_other_weights(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add("a", RECORD, Contents(PIXELS))
    assert find(folder, subject="other") is None
    assert find(folder, climb={"steps": 4, "decay": 0.99}) is None
    assert find(folder, members=[[{"terms": []}, 1]]) is None
    assert find(folder, batch=8, place=3, threads=2) == RECORD, "batch and threads only round"
    apart = {"steps": 3, "decay": 0.99, "share": 0.8}
    assert asked({**RECORD.request, "climb": apart})["members"] == RECORD.request["members"]
    assert folder.find("a", RECORD.request, {"subject": "abc", "prior": "xyz"}) is None
    assert folder.find("b", RECORD.request, RECORD.weights) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a.png").unlink(),
        lambda folder: (folder / "a.png").write_bytes(b""),
        lambda folder: (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:-60]),
        lambda folder: (folder / "a.json").unlink(),
        lambda folder: (folder / "a.json").write_text(""),
        lambda folder: (folder / "a.json").write_text((folder / "a.json").read_text()[:-5]),
        lambda folder: (folder / "a.json").write_text(
            (folder / "a.json").read_text().replace("1.25", '"high"')
        ),
        lambda folder: (
            Folder(folder).add("b", dataclasses.replace(RECORD, image="b.png"), Contents(PIXELS))
            or (folder / "b.png").replace(folder / "a.png").write_bytes(b"x")
        ),
    ],
    ids=[
        "no picture",
        "empty picture",
        "cut picture",
        "no record",
        "empty record",
        "cut record",
        "typed",
        "text",
    ],
)
def test_a_folder_does_not_find_what_is_damaged(tmp_path: Path, damage: Any) -> None:
    folder = Folder(tmp_path)
    folder.add("a", RECORD, Contents(PIXELS))
    damage(tmp_path)
    assert find(folder) is None


def test_a_folder_does_not_find_another_picture_under_the_name(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.add("a", RECORD, Contents(PIXELS))
    folder.add("a", RECORD, Contents(255 - PIXELS))
    assert find(folder) is None


def test_the_hash_tells_shapes_apart() -> None:
    flat = np.zeros((4, 2, 3), np.uint8)
    assert pixels_sha256(flat) != pixels_sha256(flat.reshape(2, 4, 3))


# ---------------------------------------------------------------- the disk


@pytest.mark.parametrize("where", ["write_bytes", "replace"])
def test_a_full_disk_keeps_the_record_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    RECORD.write(tmp_path / "a.json")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if where == "replace" else Path, where, full)
    with pytest.raises(OutOfSpace, match="No space left"):
        dataclasses.replace(RECORD, score=9.0).write(tmp_path / "a.json")
    assert Record.read(tmp_path / "a.json") == RECORD
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_record_never_lacks_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutOfSpace):
        Folder(tmp_path).add("a", RECORD, Contents(PIXELS))
    assert os.listdir(tmp_path) == []


def test_pictures_that_are_written_together_are_each_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    records = {name: dataclasses.replace(RECORD, image=f"{name}.png") for name in "abc"}
    contents = Contents(PIXELS, input=255 - PIXELS, frames=[PIXELS])
    folder.add("a", records["a"], contents)
    replace = os.replace
    placed: list[str] = []

    def killed(source: Path, target: Path) -> None:
        if len(placed) == 3:
            raise KeyboardInterrupt
        placed.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.put({name: Contents(PIXELS).files(each) for name, each in records.items()})
    assert placed == ["a.png", "a.json", "b.png"], "a record follows its picture"
    kept = {"a.png", "a.json", "a.webp", "a.input.png", "b.png"}
    assert set(os.listdir(tmp_path)) == kept, "no scratch is left"
    monkeypatch.undo()
    folder.put({name: Contents(PIXELS).files(each) for name, each in records.items()})
    assert sorted(os.listdir(tmp_path)) == [
        f"{n}.{kind}" for n in "abc" for kind in ("json", "png")
    ]


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutOfSpace, match="cannot make the folder"):
            Folder(path).create()


def test_the_atlas_says_which_code_is_kept_and_what_the_last_one_came_to() -> None:
    from phosphene.atlas.findings import _facts

    def facts(**changes: Any) -> dict[str, str]:
        return dict(_facts(dataclasses.replace(RECORD, **changes), {}))

    best = facts(kept_step=1, last_score=0.25, versions={"torch": "2.13.0", "cpu": "a CPU"})
    assert best["code kept"] == "the best, of step 1"
    assert best["score of the last code"] == "0.25"
    assert (best["torch version"], best["cpu"]) == ("2.13.0", "a CPU")
    assert facts(kept_step=2, last_score=1.25)["code kept"] == "the last"
    assert "code kept" not in facts()
