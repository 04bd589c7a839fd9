"""Photographs in, whatever the folder's form; what is damaged is refused in one line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CI_SAMPLE
from PIL import Image

from phosphene import datasets
from phosphene.datasets import Photographs, Stream, fingerprints, load
from phosphene.datasets.fingerprints import contents
from phosphene.datasets.names import kind_of, places_of
from phosphene.errors import BadFile, BadRequest, Notice, OutOfSpace, Unavailable

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


def test_items_come_in_batches_the_last_with_the_rest() -> None:
    assert list(datasets.batched(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
    assert list(datasets.batched([], 3)) == []


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
    assert load(folder, "train").images.shape == (5, 12, 12, 3), "the size of most"
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
    monkeypatch.setattr(datasets.photographs, "MAX_PIXELS", 6)
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
    monkeypatch.setattr(datasets.photographs, "decode", None)
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
        with pytest.warns(Notice, match=rf"{stored} is damaged .*; it is made again"):
            assert same(load(folder, "train", cache=cache), first)
        assert same(load(folder, "train", cache=cache), first)


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unavailable, match=r"phosphene\[data\]"):
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


def test_a_damaged_photograph_is_left_out_and_named(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "data")
    whole = load(folder, "train")
    for raw in (b"", b"text", picture(0)[:50]):
        (folder / "ant" / "3.png").write_bytes(raw)
        for cache in (None, tmp_path / "cache", tmp_path / "cache"):
            with pytest.warns(Notice, match=r"1 of 5 photographs cannot be read.*3\.png"):
                rest = load(folder, "train", cache=cache)
            assert np.array_equal(rest.images, whole.images[[0, 2, 3, 4]])
            assert rest.labels.tolist() == [0, 0, 1, 1]


def test_a_link_that_leads_nowhere_is_a_damaged_photograph(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "data")
    (folder / "ant" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(Notice, match=r"1 of 6 photographs cannot be read.*9\.png does not exist"):
        train = load(folder, "train", cache=tmp_path / "cache")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert Stream(folder, "train", 8).fingerprint
    (tmp_path / "gone.png").write_bytes(picture(9))
    again = load(folder, "train", cache=tmp_path / "cache")
    assert np.array_equal(again.images[3], pixels(9))
    assert again.fingerprint != train.fingerprint


def test_a_class_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    folder = class_folders(tmp_path)
    for i in (2, 3, 4):
        (folder / "ant" / f"{i}.png").write_bytes(b"none")
    assert "no photograph of class ant can be read" in refused(folder, "train")


@pytest.mark.parametrize(
    "meta",
    [
        *("not JSON", "[" * 100_000, {"classes": "abc"}, {"classes": [1, 2]}),
        *({"classes": ["a"]}, {"classes": None}),
    ],
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
        with pytest.raises(Unavailable, match=r"cannot be read.*save_to_disk"):
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


# ---------------------------------------------------------------- which class is which

SHADE = {"ant": 10, "bee": 90, "cat": 170, "dog": 250}


def shaded(folder: Path, **splits: str) -> Path:
    """Class folders of plain grey, a class's own, two of each: `shaded(f, train="ant bee")`."""
    for split, names in splits.items():
        for name in names.split():
            (folder / split / name).mkdir(parents=True)
            level = SHADE.get(name.lower(), 0)
            for i in range(2):
                Image.new("L", (8, 8), level).save(folder / split / name / f"{i}.png")
    return folder


def told(data: Photographs) -> set[tuple[str, int]]:
    """Return each class with the grey of its photographs."""
    pairs = zip(data.labels, data.images[:, 0, 0, 0], strict=True)
    return {(data.classes[label], int(level)) for label, level in pairs}


def test_shards_of_the_hub_hold_images_as_bytes_and_a_path(tmp_path: Path) -> None:
    plain = load(shards(tmp_path / "plain"), "train")
    folder = shards(tmp_path / "hub")
    for file in folder.glob("*.parquet"):
        table = parquet.read_table(file).to_pydict()
        table["image"] = [
            {"bytes": raw, "path": f"{i}.png"} for i, raw in enumerate(table["image"])
        ]
        parquet.write_table(pyarrow.table(table), file)
    assert np.array_equal(load(folder, "train").images, plain.images)


def test_a_named_class_without_training_photographs_is_told(tmp_path: Path) -> None:
    folder = shards(tmp_path, meta={"classes": ["ant", "bee", "cat", "dog"]})
    with pytest.warns(Notice, match="no training photographs of 1 of 4 classes: dog"):
        load(folder, "train")


def test_held_out_classes_have_the_numbers_of_the_training_split(tmp_path: Path) -> None:
    folder = shaded(tmp_path, train="ant bee cat", val="bee cat")
    with pytest.warns(Notice, match="no validation photographs of 1 of 3 classes: ant"):
        val = load(folder, "val")
    assert val.classes == load(folder, "train").classes == ("ant", "bee", "cat")
    assert val.labels.tolist() == [1, 1, 2, 2]
    assert told(val) == {("bee", 90), ("cat", 170)}
    stream = Stream(folder, "val", 8)
    assert stream.classes == val.classes
    assert [label for _, _, label in stream.photographs()] == [1, 1, 2, 2]


def test_a_cache_of_held_out_photographs_follows_the_training_split(tmp_path: Path) -> None:
    folder = shaded(tmp_path / "data", train="bee cat", val="bee cat")
    assert load(folder, "val", cache=tmp_path / "cache").labels.tolist() == [0, 0, 1, 1]
    shaded(folder, train="ant")
    for _ in range(2):
        assert load(folder, "val", cache=tmp_path / "cache").labels.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("held_out", "says"),
    [("bee dog", "'dog'"), ("Bee", r"'Bee' \(train has 'bee'\)"), ("b e", "'b', 'e'")],
)
def test_held_out_classes_that_training_lacks_are_refused(
    tmp_path: Path, held_out: str, says: str
) -> None:
    folder = shaded(tmp_path, train="ant bee", val=held_out)
    with pytest.raises(BadFile, match=f"classes that train lacks: {says}"):
        load(folder, "val")
    stream = Stream(folder, "val", 8)  # where classes are only shown, they come after the others
    assert stream.classes[:2] == ("ant", "bee")
    names = [stream.classes[label] for _, _, label in stream.photographs()]
    assert names == [name for name in sorted(held_out.split()) for _ in range(2)]


def test_a_name_is_one_name_however_its_accents_are_written(tmp_path: Path) -> None:
    composed, apart = "b\u00e9e", "be\u0301e"
    folder = shaded(tmp_path, train=f"ant {composed} cat", val=f"ant {apart} cat")
    train, val = load(folder, "train"), load(folder, "val")
    assert val.classes == train.classes
    assert val.labels.tolist() == train.labels.tolist()
    assert told(val) == told(train)


def test_held_out_labels_that_training_lacks_are_refused_in_shards(tmp_path: Path) -> None:
    folder = shards(tmp_path, meta={})
    with pytest.warns(Notice, match="of 1 of 3 classes: 2"):
        assert load(folder, "val").classes == load(folder, "train").classes == ("0", "1", "2")
    table = {"image": [picture(0)], "label": [5]}
    parquet.write_table(pyarrow.table(table), folder / "val.parquet")
    assert "labels 5 … 5, and 3 classes (the training split has no more)" in refused(folder)


def hub(folder: Path, **splits: tuple[list[str], list[int]]) -> str:
    """Save a data set of Hugging Face's library; each split has its own class names and labels."""
    library = pytest.importorskip("datasets")
    tables = {}
    for split, (names, labels) in splits.items():
        features = {"image": library.Image(), "label": library.ClassLabel(names=names)}
        images = [{"bytes": picture(i), "path": None} for i in range(len(labels))]
        columns = {"image": images, "label": labels}
        tables[split] = library.Dataset.from_dict(columns, features=library.Features(features))
        tables[split].save_to_disk(folder / split)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return f"hf:{folder}"


def test_held_out_classes_of_the_hub_have_the_numbers_of_the_training_split(tmp_path: Path) -> None:
    name = hub(
        tmp_path / "some",
        train=(["ant", "bee", "cat"], [0, 1, 2]),
        validation=(["cat", "ant"], [0, 1, 1]),
    )
    val = load(name, "val")
    assert val.classes == ("ant", "bee", "cat")
    assert val.labels.tolist() == [2, 0, 0]
    other = hub(tmp_path / "other", train=(["ant"], [0]), test=(["dog"], [0]))
    with pytest.warns(Notice, match="no validation split"):
        assert "'dog'" in refused(other)


def test_classes_that_share_a_name_are_told_apart_by_their_order() -> None:
    assert places_of(["crane", "ant", "crane"], ["ant", "crane", "bee", "crane"]) == [1, 0, 3]
    with pytest.raises(BadRequest, match="'crane' comes 1 times"):
        places_of(["crane"], ["crane", "crane"])


# ---------------------------------------------------------------- which file is of which split


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("train", "train"),
        ("train-00", "train"),
        ("train_00", "train"),
        ("train-00000-of-00010", "train"),
        ("train-00000-of-00001-0a1b2c3d4e5f6071", "train"),
        ("Validation-3", "val"),
        ("val", "val"),
        ("test-1-of-2", "test"),
        ("trainval", None),
        ("train_captions", None),
        ("train-captions-00", None),
        ("pretrain", None),
        ("values", None),
        ("testimony", None),
    ],
)
def test_a_split_s_name_is_a_whole_word(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def one(file: Path, number: int, label: int = 0) -> None:
    table = {"image": [picture(number)], "label": [label]}
    parquet.write_table(pyarrow.table(table), file)


def test_shards_of_other_things_are_left_out_and_named(tmp_path: Path) -> None:
    names = ("train-00-of-02", "train-01-of-02", "trainval", "train_captions", "validation", "test")
    for number, name in enumerate(names):
        one(tmp_path / f"{name}.parquet", number)
    with pytest.warns(Notice, match=r"train_captions\.parquet, trainval\.parquet left out"):
        train = load(tmp_path, "train")
    assert [np.array_equal(train.images[i], pixels(i)) for i in range(len(train))] == [True, True]
    val = load(tmp_path, "val")
    assert [np.array_equal(image, pixels(4)) for image in val.images] == [True], "and no test"
    (tmp_path / "validation.parquet").unlink()
    with pytest.warns(Notice, match="no validation split; its test split is used"):
        assert np.array_equal(load(tmp_path, "val").images[0], pixels(5))


@pytest.mark.parametrize("names", [("Train", "Validation"), ("training", "valid")])
def test_folders_of_splits_have_other_names_too(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = shaded(tmp_path, **{names[0]: "ant bee", names[1]: "bee", "test": "ant"})
    assert load(folder, "train").labels.tolist() == [0, 0, 1, 1]
    assert load(folder, "val").labels.tolist() == [1, 1]
    assert len(load(folder, "all")) == 8


def test_hidden_labels_are_said_in_words(tmp_path: Path) -> None:
    one(tmp_path / "train.parquet", 0)
    one(tmp_path / "test.parquet", 1, -1)
    assert "classes are hidden" in refused(tmp_path)
    name = hub(tmp_path / "hub", train=(["ant"], [0]), test=(["ant"], [-1]))
    assert "classes are hidden" in refused(name)
    assert [label for _, _, label in Stream(name, "val", 8).photographs()] == [-1]


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize("name", ["5.tif", "5.TIFF", "5.gif", "5.JFIF", "5.PNG", "5.ppm", "5.jp2"])
def test_a_photograph_is_read_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    folder = shaded(tmp_path, train="ant bee")
    kind = Image.registered_extensions()[Path(name).suffix.lower()]
    Image.new("RGB", (8, 8), (170,) * 3).save(folder / "train" / "ant" / name, kind)
    train = load(folder, "train")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert abs(int(train.images[2, 4, 4, 0]) - 170) < 3


def test_what_is_no_picture_is_counted_and_named(tmp_path: Path) -> None:
    folder = shaded(tmp_path, train="ant bee")
    for name in ("a.heic", "b.heic", "c.txt", ".hidden"):
        (folder / "train" / "bee" / name).write_bytes(b"what is that")
    with pytest.warns(Notice, match=r"left out, since .*: 2 \.heic, 1 \.txt; .*train/bee/a\.heic"):
        assert len(load(folder, "train")) == 4
    for i in range(2):
        (folder / "train" / "bee" / f"{i}.png").unlink()
    assert "class folder 'bee'" in refused(folder, "train")
    assert "2 .heic" in refused(folder, "train")
    for file in (folder / "train" / "bee").iterdir():
        file.unlink()
    assert "class folder 'bee'" in refused(folder, "train")


def test_folders_of_no_split_are_named(tmp_path: Path) -> None:
    folder = shaded(tmp_path, train="ant", more="bee")
    with pytest.warns(Notice, match="more left out, being of no split"):
        assert load(folder, "train").classes == ("ant",)


def test_pictures_that_the_program_made_are_no_photographs(tmp_path: Path) -> None:
    """As where one stands in the folder of photographs, and leaves out --out."""
    folder = class_folders(tmp_path)
    before = Stream(folder, "all", 8).fingerprint
    for name in ("exemplars.png", "tiles/conv-1.png"):
        (folder / "exemplars" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "exemplars" / name).write_bytes(picture(0))
    (folder / "exemplars" / "exemplars.safetensors").write_bytes(b"index")
    assert Stream(folder, "all", 8).fingerprint == before
    assert load(folder, "train").classes == ("ant", "zebra")


def test_deeper_folders_are_of_the_class_above_them(tmp_path: Path) -> None:
    folder = shaded(tmp_path, train="ant bee")
    (folder / "train" / "ant" / "red" / "small").mkdir(parents=True)
    (folder / "train" / "ant" / "red" / "small" / "1.png").write_bytes(picture(1, 8))
    (folder / "train" / "ant" / "red" / "again").symlink_to(folder / "train" / "ant")
    train = load(folder, "train")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert np.array_equal(train.images[2], np.asarray(Image.open(io.BytesIO(picture(1, 8)))))


def test_one_tiny_picture_does_not_shrink_the_others(tmp_path: Path) -> None:
    for form in (class_folders, shards):
        folder = form(tmp_path / form.__name__)
        if form is class_folders:
            (folder / "ant" / "0.png").write_bytes(picture(0, 2))
        else:
            table = {"image": [picture(9, 2)], "label": [0], "key": [""]}
            parquet.write_table(pyarrow.table(table), folder / "train-00.parquet")
        assert load(folder, "train").images.shape[1:] == (12, 12, 3)


# ---------------------------------------------------------------- without labels


def test_photographs_without_classes_are_taken_where_none_are_needed(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "flat" / split).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "flat" / split / f"{i}.png").write_bytes(picture(i))
    assert "lie in no class folders" in refused(tmp_path / "flat", "train")
    train = load(tmp_path / "flat", "train", labelled=False)
    assert [np.array_equal(train.images[i], pixels(i)) for i in range(3)] == [True] * 3
    assert (train.classes, train.labels.tolist()) == ((), [-1, -1, -1])
    assert [label for _, _, label in Stream(tmp_path / "flat", "val", 8).photographs()] == [-1] * 3
    for folder in (tmp_path / "flat" / "train", tmp_path / "flat"):
        assert len(Stream(folder, "all", 8)) == (6 if folder.name == "flat" else 3)
    joined = datasets.joined([train, load(class_folders(tmp_path / "named"), "train")])
    assert joined.labels.tolist() == [-1, -1, -1, 0, 0, 0, 1, 1]


def test_shards_and_tables_without_labels_are_taken_where_none_are_needed(tmp_path: Path) -> None:
    library = pytest.importorskip("datasets")
    parquet.write_table(pyarrow.table({"image": [picture(0)]}), tmp_path / "train.parquet")
    features = library.Features({"image": library.Image()})
    table = library.Dataset.from_dict({"image": [{"bytes": picture(0)}]}, features=features)
    table.save_to_disk(tmp_path / "hub")
    for folder in (tmp_path, f"hf:{tmp_path / 'hub'}"):
        refused(folder, "train")
        data = load(folder, "train", labelled=False)
        assert np.array_equal(data.images[0], pixels(0))
        assert (data.classes, data.labels.tolist()) == ((), [-1])
        assert [label for _, _, label in Stream(folder, "train", 8).photographs()] == [-1]


def test_a_damaged_photograph_keeps_its_number(tmp_path: Path) -> None:
    folder = class_folders(tmp_path)
    before = {
        number: (pixels, label) for number, pixels, label in Stream(folder, "all", 8).photographs()
    }
    (folder / "ant" / "3.png").write_bytes(b"none")
    stream = Stream(folder, "all", 8)
    after = {number: (pixels, label) for number, pixels, label in stream.photographs()}
    assert sorted(after) == [0, 2, 3, 4]
    assert all(np.array_equal(after[n][0], before[n][0]) for n in after)
    assert list(stream.damage.found) == [1]
    assert stream.places({2})[2].endswith("4.png")


# ---------------------------------------------------------------- what tells data apart


def grown(file: Path, level: int) -> None:
    """Write an uncompressed picture, which has the same size in bytes whatever it shows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12), (level,) * 3).save(file, "BMP")


def test_a_photograph_that_changes_within_its_size_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "known"))
    file, cache = tmp_path / "data" / "train" / "a" / "0.bmp", tmp_path / "cache"
    grown(file, 10)
    first, index = (
        load(tmp_path / "data", "train", cache=cache),
        Stream(tmp_path / "data", "train", 8),
    )
    assert index.fingerprint
    then = file.stat()
    grown(file, 200)
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))  # as rsync leaves it
    assert file.stat().st_size == then.st_size
    again = load(tmp_path / "data", "train", cache=cache)
    assert (first.images == 10).all()
    assert (again.images == 200).all()
    assert again.fingerprint != first.fingerprint
    assert Stream(tmp_path / "data", "train", 8).fingerprint != index.fingerprint


def test_a_shard_written_anew_is_read_again(tmp_path: Path) -> None:
    def write(level: int) -> int:
        file = io.BytesIO()
        Image.new("RGB", (12, 12), (level,) * 3).save(file, "BMP")
        table = pyarrow.table({"image": [file.getvalue()], "label": [0]})
        parquet.write_table(table, tmp_path / "train.parquet", compression="none")
        return (tmp_path / "train.parquet").stat().st_size

    sizes = {write(10)}
    first = load(tmp_path, "train", cache=tmp_path / "cache")
    sizes.add(write(200))
    assert len(sizes) == 1
    again = load(tmp_path, "train", cache=tmp_path / "cache")
    assert (again.images == 200).all()
    assert again.fingerprint != first.fingerprint


def test_a_table_of_the_hub_s_library_written_anew_is_read_again(tmp_path: Path) -> None:
    name = hub(tmp_path / "set", train=(["ant"], [0]))
    first = load(name, "train", cache=tmp_path / "cache")
    (arrow,) = (tmp_path / "set" / "train").glob("*.arrow")
    (inside,) = [raw for raw in [picture(0)] if raw in arrow.read_bytes()]
    other = picture(1)
    assert len(other) == len(inside)
    arrow.write_bytes(arrow.read_bytes().replace(inside, other))
    again = load(name, "train", cache=tmp_path / "cache")
    assert np.array_equal(again.images[0], pixels(1))
    assert again.fingerprint != first.fingerprint


def test_a_copy_and_a_touched_file_are_the_same_data(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "one", "train")
    first = load(folder, "train").fingerprint
    os.utime(folder / "train" / "ant" / "2.png")
    assert load(folder, "train").fingerprint == first
    shutil.copytree(folder, tmp_path / "two")
    assert load(tmp_path / "two", "train").fingerprint == first
    assert (
        Stream(tmp_path / "two", "train", 8).fingerprint == Stream(folder, "train", 8).fingerprint
    )


def test_contents_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "known"))
    monkeypatch.setattr(fingerprints, "SETTLED", -(10**18))  # as if written long ago
    file = tmp_path / "x"
    file.write_bytes(b"one")
    wanted = hashlib.sha256(b"one").hexdigest()
    assert contents([file]) == [wanted]
    monkeypatch.setattr(fingerprints, "_content", None)
    assert contents([file]) == [wanted]
    monkeypatch.undo()
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "known"))
    file.write_bytes(b"two")
    assert contents([file]) == [hashlib.sha256(b"two").hexdigest()]
    for damage in (b"", b"not a table" * 100):
        (tmp_path / "known" / "contents.sqlite").write_bytes(damage)
        assert contents([file]) == [hashlib.sha256(b"two").hexdigest()]
    monkeypatch.setenv("PHOSPHENE_CACHE", str(file / "no folder"))
    assert contents([file]) == [hashlib.sha256(b"two").hexdigest()]


def former(folder: Path, *files: str) -> str:
    """Return the fingerprint that version 0.1.0 gave to these files of a training split."""
    sizes = "".join(f"{name}:{(folder / name).stat().st_size};" for name in files)
    return hashlib.sha256(f"train:None:None{sizes}".encode()).hexdigest()


def test_a_cache_of_version_0_1_0_is_read_where_nothing_was_written_since(tmp_path: Path) -> None:
    folder, cache = class_folders(tmp_path / "data"), tmp_path / "cache"
    whole = load(folder, "train")
    print_of = former(folder, "ant/2.png", "ant/3.png", "ant/4.png", "zebra/0.png", "zebra/1.png")
    old = cache / f"data-train-{print_of[:16]}.npz"
    cache.mkdir()
    np.savez(old, images=255 - whole.images, labels=whole.labels)
    with pytest.warns(Notice, match=r"was decoded by version 0\.1\.0"):
        kept = load(folder, "train", cache=cache)
    assert np.array_equal(kept.images, 255 - whole.images), "a run goes on with what it began with"
    assert kept.fingerprint == print_of
    assert kept.labels.tolist() == whole.labels.tolist()
    os.utime(old, (0, 0))
    assert same(load(folder, "train", cache=cache), whole), "they may have changed since"


# ---------------------------------------------------------------- names of files


def test_a_name_that_is_not_utf_8_is_a_name(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"set\xe9")
    for split in ("train", "val"):
        file = folder / split / os.fsdecode(b"caf\xe9") / os.fsdecode(b"photo\xe9.png")
        file.parent.mkdir(parents=True)
        file.write_bytes(picture(0))
    train, val = (load(folder, split, cache=tmp_path / "cache") for split in ("train", "val"))
    assert train.name == r"set\xe9"
    assert train.classes == val.classes == (r"caf\xe9",)
    assert Stream(folder, "train", 8).fingerprint
    shard = folder / "train.parquet"
    parquet.write_table(pyarrow.table({"image": [picture(1)], "label": [0]}), tmp_path / "x")
    shutil.copy(tmp_path / "x", shard)
    assert np.array_equal(load(folder, "train").images[0], pixels(1))
    text = io.StringIO()
    json.dump([train.name, train.classes], text)
    assert text.getvalue().isascii()


def test_the_folder_one_is_in_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_folders(tmp_path / "birds")
    monkeypatch.chdir(folder)
    assert load(".", "train").name == Stream("ant/..", "train", 8).name == "birds"
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link", "train").name == "link"


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
