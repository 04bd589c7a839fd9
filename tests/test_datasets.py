"""Photographs in, whatever the folder's form; what is damaged is refused in one line."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CI_SAMPLE
from PIL import Image

from phosphene import datasets
from phosphene.datasets import Photographs, load
from phosphene.errors import BadFile, BadRequest, OutOfSpace, Unreachable

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def picture(i: int, side: int = 12, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (side, side, 3), np.uint8)).save(
        file, kind
    )
    return file.getvalue()


def shards(folder: Path, columns: dict[str, Any] | None = None, meta: Any = None) -> Path:
    """Two train shards of three and one val shard of two pictures."""
    folder.mkdir(exist_ok=True)
    for name, numbers in (("train-0", range(3)), ("train-1", range(3, 6)), ("val", range(6, 8))):
        table = {
            "image": [picture(i) for i in numbers],
            "label": [i % 3 for i in numbers],
            "key": [str(i) for i in numbers],
        }
        table = columns if columns is not None and name == "val" else table
        parquet.write_table(pyarrow.table(table), folder / f"{name}.parquet")
    meta = {"classes": ["a", "b", "c"], "licence": "made here"} if meta is None else meta
    (folder / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    return folder


def class_folders(folder: Path, split: str = "") -> Path:
    for name, numbers in (("zebra", (0, 1)), ("ant", (2, 3, 4))):
        (folder / split / name).mkdir(parents=True)
        for i in numbers:
            (folder / split / name / f"{i}.png").write_bytes(picture(i))
    return folder


def refused(folder: Path | str, split: str = "val", **options: Any) -> str:
    with pytest.raises(BadFile) as caught:
        load(folder, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(i: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture(i))))


def same(one: Photographs, other: Photographs) -> bool:
    arrays = np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)
    return arrays and (one.classes, one.fingerprint, one.licence) == (
        other.classes,
        other.fingerprint,
        other.licence,
    )


# ---------------------------------------------------------------- what is whole


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    train, val = load(shards(tmp_path), "train"), load(tmp_path, "val")
    assert len(train) == 6
    assert all(np.array_equal(image, pixels(i)) for i, image in enumerate(train.images))
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(val.images[1], pixels(7))
    assert train.classes == ("a", "b", "c")
    assert train.licence == "made here"
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize("split", ["", "train"])
def test_class_folders_are_read_with_their_names(tmp_path: Path, split: str) -> None:
    train = load(class_folders(tmp_path / "birds", split), "train")
    assert train.classes == ("ant", "zebra")
    assert [(train.classes[label], i) for label, i in zip(train.labels, range(5), strict=True)] == [
        ("ant", 0),
        ("ant", 1),
        ("ant", 2),
        ("zebra", 3),
        ("zebra", 4),
    ]
    assert np.array_equal(train.images[0], pixels(2))
    assert "not stated" in train.licence


def test_pictures_become_squares_of_one_size(tmp_path: Path) -> None:
    folder = class_folders(tmp_path)
    Image.fromarray(np.full((10, 30, 3), 7, np.uint8)).save(folder / "ant" / "2.png")
    assert load(folder, "train").images.shape == (5, 10, 10, 3), "the size of the first"
    assert load(folder, "train", size=8).images.shape == (5, 8, 8, 3)


def test_nothing_is_held_out_of_one_set(tmp_path: Path) -> None:
    """What a network learnt from must not be what it is measured on."""
    plain = class_folders(tmp_path / "plain")
    assert len(load(plain, "train").images) == len(load(plain, "all").images) == 5
    assert "holds out no photographs" in refused(plain, "val")
    shard = next(shards(tmp_path / "shards").glob("train*.parquet"))
    load(shard, "train")
    assert "holds out no photographs" in refused(shard, "val")


def test_all_are_those_of_every_split_and_what_is_hidden_is_none(tmp_path: Path) -> None:
    for split in ("train", "val"):
        class_folders(tmp_path, split)
    (tmp_path / "train" / "ant" / "._2.png").write_bytes(b"what a file manager leaves")
    (tmp_path / "train" / ".thumbs").mkdir()
    (tmp_path / "train" / ".thumbs" / "1.png").write_bytes(picture(1))
    assert [len(load(tmp_path, split).images) for split in ("train", "val", "all")] == [5, 5, 10]
    assert load(tmp_path, "all").classes == ("ant", "zebra")


def test_photographs_of_a_camera_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "MOST_PIXELS", 6)
    folder = class_folders(tmp_path)
    assert load(folder, "train").images.shape[1:] == (6, 6, 3)
    assert load(folder, "train", size=9).images.shape[1:] == (9, 9, 3), "asked for, it is given"


def test_a_photograph_that_changes_its_class_is_read_again(tmp_path: Path) -> None:
    folder, cache = class_folders(tmp_path / "data"), tmp_path / "cache"
    first = load(folder, "train", cache=cache)
    (folder / "zebra" / "1.png").rename(folder / "ant" / "1.png")
    again = load(folder, "train", cache=cache)
    assert again.fingerprint != first.fingerprint
    assert (first.labels.tolist(), again.labels.tolist()) == ([0, 0, 0, 1, 1], [0, 0, 0, 0, 1])


def test_the_fingerprint_tells_data_and_the_way_they_were_read_apart(tmp_path: Path) -> None:
    folder = shards(tmp_path / "a")
    prints = [
        load(folder, split, size=size).fingerprint
        for split in ("train", "val")
        for size in (None, 8)
    ]
    assert len(set(prints)) == 4
    assert load(folder, "train").fingerprint == prints[0]
    (folder / "train-1.parquet").unlink()
    assert load(folder, "train").fingerprint != prints[0]


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("form", [shards, class_folders])
def test_the_cache_gives_the_same_photographs_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, size: int | None
) -> None:
    folder, cache = form(tmp_path / "data"), tmp_path / "cache"
    first = load(folder, "train", size=size, cache=cache)
    monkeypatch.setattr(datasets, "_decode", None)
    assert same(load(folder, "train", size=size, cache=cache), first)
    assert len(os.listdir(cache)) == 1


def test_a_damaged_cache_is_not_believed(tmp_path: Path) -> None:
    folder, cache = shards(tmp_path / "data"), tmp_path / "cache"
    first = load(folder, "train", cache=cache)
    (stored,) = cache.iterdir()
    raw = stored.read_bytes()
    for damaged in (
        raw[: len(raw) // 2],
        b"",
        b"not a cache",
        raw[:200] + b"\xff" * 40 + raw[240:],
    ):
        stored.write_bytes(damaged)
        assert same(load(folder, "train", cache=cache), first), "decoded again"
        assert stored.read_bytes() == raw, "and kept again"


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unreachable, match=r"phosphene\[data\]"):
        load(folder, "train")


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutOfSpace):
        load(shards(tmp_path / "data"), "train", cache=tmp_path / "file")


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_the_sample_of_real_photographs() -> None:
    train, val = load(CI_SAMPLE, "train"), load(CI_SAMPLE, "val", size=32)
    assert train.images.shape == (300, 64, 64, 3)
    assert val.images.shape == (100, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [30] * 10
    assert train.classes[0] == "tench, Tinca tinca"
    assert 60 < train.images.mean() < 180


# ---------------------------------------------------------------- what is not


def test_a_folder_that_is_none_or_empty_is_refused(tmp_path: Path) -> None:
    assert "not a folder" in refused(tmp_path / "none")
    assert "neither" in refused(tmp_path)
    shards(tmp_path)
    for name in ("train-0", "train-1"):
        (tmp_path / f"{name}.parquet").unlink()
    assert "train" in refused(tmp_path, "train")
    with pytest.raises(BadRequest, match="train, val, all"):
        load(tmp_path, "test")


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"not parquet", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_shard_that_is_none_is_refused(tmp_path: Path, raw: bytes) -> None:
    (shards(tmp_path) / "val.parquet").write_bytes(raw)
    assert "val.parquet" in refused(tmp_path)


def test_a_shard_damaged_anywhere_is_refused_or_read_but_never_another_error(
    tmp_path: Path,
) -> None:
    whole = (shards(tmp_path) / "val.parquet").read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 80)):
        (tmp_path / "val.parquet").write_bytes(
            whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        )
        try:
            load(tmp_path, "val")
        except BadFile:
            pass
        (tmp_path / "val.parquet").write_bytes(whole[:at])
        refused(tmp_path)


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [picture(0)]},
        {"picture": [picture(0)], "label": [0]},
        {"image": [picture(0)], "label": [None]},
        {"image": [None], "label": [0]},
        {"image": ["text"], "label": [0]},
        {"image": [{"bytes": 5}], "label": [0]},
        {"image": [5], "label": [0]},
        {"image": [picture(0)], "label": ["three"]},
        {"image": [picture(0)], "label": [-1]},
        {"image": [picture(0)], "label": [3]},
        {"image": [picture(0)], "label": [0.5]},
        {"image": [b""], "label": [0]},
        {"image": [b"not a picture"], "label": [0]},
        {"image": [picture(0)[:80]], "label": [0]},
        {"image": [picture(0, kind="jpeg")[:300]], "label": [0]},
        {"image": [], "label": []},
    ],
    ids=lambda columns: str(columns)[:60],
)
def test_columns_that_are_no_photographs_are_refused(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    refused(shards(tmp_path, columns))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    from test_images import bomb

    for raw in (bomb(100_000, 100_000), bomb(9_000, 9_000)):
        refused(shards(tmp_path, {"image": [raw], "label": [0]}))


def test_a_picture_in_a_class_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = class_folders(tmp_path)
    for raw in (b"", b"text", picture(0)[:50]):
        (folder / "ant" / "2.png").write_bytes(raw)
        refused(folder, "train")
    (folder / "ant" / "2.png").unlink()
    (folder / "ant" / "2.png").mkdir()
    refused(folder, "train")


@pytest.mark.parametrize(
    "meta", ["not JSON", "[" * 100_000, {"classes": "abc"}, {"classes": [1, 2]}, {"classes": ["a"]}, {"classes": None}],
    ids=lambda meta: str(meta)[:20],
)  # fmt: skip
def test_a_meta_file_that_makes_no_sense_is_refused(tmp_path: Path, meta: Any) -> None:
    assert "meta.json" in refused(shards(tmp_path, meta=meta), "train")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A data set with two splits as Hugging Face's library saves it."""
    library = pytest.importorskip("datasets")
    kinds = {
        "label": library.ClassLabel(names=["ant", "zebra"]),
        "picture": library.Image(),
        "key": library.Value("string"),
    }
    tables = {}
    for split, numbers in (("train", range(5)), ("validation", range(5, 8))):
        columns = {
            "label": [i % 2 for i in numbers],
            "picture": [{"bytes": picture(i), "path": None} for i in numbers],
            "key": [str(i) for i in numbers],
        }
        tables[split] = library.Dataset.from_dict(columns, features=library.Features(kinds))
    library.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_hugging_face_data_set_is_read_as_a_folder_is(saved: Path, tmp_path: Path) -> None:
    train, val = load(f"hf:{saved}", "train", cache=tmp_path / "cache"), load(f"hf:{saved}", "val")
    assert [np.array_equal(image, pixels(i)) for i, image in enumerate(train.images)] == [True] * 5
    assert train.labels.tolist() == [0, 1, 0, 1, 0]
    assert val.labels.tolist() == [1, 0, 1]
    assert train.classes == val.classes == ("ant", "zebra")
    assert train.name == "saved"
    assert train.fingerprint != val.fingerprint
    assert same(load(f"hf:{saved}", "train", cache=tmp_path / "cache"), train)
    assert len(load(f"hf:{saved}", "all")) == 8
    other = tmp_path / "other"
    other.mkdir()
    parquet.write_table(pyarrow.table({"key": ["1", "7"]}), other / "x.parquet")
    assert load(f"hf:{saved}", "train", without=other).labels.tolist() == [0, 0, 1, 0]


def test_what_is_no_hugging_face_data_set_of_photographs_is_refused(
    saved: Path, tmp_path: Path
) -> None:
    library = pytest.importorskip("datasets")
    library.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "texts")
    assert "a column of images" in refused(f"hf:{tmp_path / 'texts'}", "train")
    assert "no split 'val'" in refused(f"hf:{tmp_path / 'texts'}", "val")
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "empty", "no such name"):
        with pytest.raises(Unreachable, match=r"cannot be read.*save_to_disk"):
            load(f"hf:{name}", "train")


def test_photographs_whose_keys_are_elsewhere_are_left_out(tmp_path: Path) -> None:
    data, other = shards(tmp_path / "data"), tmp_path / "other"
    other.mkdir()
    parquet.write_table(pyarrow.table({"key": ["1", "5", "6", "99"]}), other / "val.parquet")
    whole, rest = load(data, "train"), load(data, "train", without=other)
    assert np.array_equal(rest.images, whole.images[[0, 2, 3, 4]])
    assert rest.labels.tolist() == [0, 2, 0, 1]
    assert rest.fingerprint != whole.fingerprint
    cache = tmp_path / "cache"
    for _ in range(2):
        assert len(load(data, "train", without=other, cache=cache)) == 4
        assert len(load(data, "train", cache=cache)) == 6
    (tmp_path / "none").mkdir()
    assert "no parquet shards" in refused(data, without=tmp_path / "none")
    parquet.write_table(pyarrow.table({"image": [b""]}), tmp_path / "none" / "x.parquet")
    assert "columns key" in refused(data, without=tmp_path / "none")


# ---------------------------------------------------------------- several as one


def test_joined_photographs_keep_their_classes_apart(tmp_path: Path) -> None:
    one, other = (
        load(shards(tmp_path / "one"), "train"),
        load(class_folders(tmp_path / "other"), "train"),
    )
    both = datasets.joined([one, other])
    assert (both.name, both.classes) == ("one + other", ("a", "b", "c", "ant", "zebra"))
    assert [both.classes[label] for label in both.labels] == [
        *(one.classes[label] for label in one.labels),
        *(other.classes[label] for label in other.labels),
    ]
    assert (both.images == np.concatenate([one.images, other.images])).all()
    assert both.licence == "made here; not stated"
    assert (
        len(
            {
                both.fingerprint,
                one.fingerprint,
                other.fingerprint,
                datasets.joined([other, one]).fingerprint,
            }
        )
        == 4
    )


def test_one_set_joined_is_itself_and_other_sizes_are_refused(tmp_path: Path) -> None:
    one = load(shards(tmp_path / "one"), "train")
    assert datasets.joined([one]) is one
    with pytest.raises(BadRequest, match="12"):
        datasets.joined([one, load(tmp_path / "one", "train", size=10)])
    both = datasets.load_joined([tmp_path / "one", class_folders(tmp_path / "other")], "train")
    assert both.images.shape[1:3] == one.images.shape[1:3], "all have the size of the first"
    assert both.classes[: len(one.classes)] == one.classes
