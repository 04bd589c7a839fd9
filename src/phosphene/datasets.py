"""Labelled photographs from folders and parquet shards. The only room that reads data sets.

Columns of a shard: `image` (encoded bytes), `label` (an integer), `key` (a string). A folder of such
shards has `train*.parquet`, `val*.parquet` and a `meta.json` with `classes`; a folder of class folders
(`train/<class>/*.jpg`, or `<class>/*.jpg`) is read the same way, and so is `hf:NAME`, a data set of Hugging Face's hub
or of a folder that its library saved.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from phosphene.errors import BadFile, BadRequest, Unreachable
from phosphene.files import whole
from phosphene.images import opened

SPLITS = {
    "train": ("train",),
    "val": ("val", "test"),
    "all": ("train", "val", "test", "all", "samples"),
}
MOST_CLASSES = 100_000
"""Where nothing names them."""
MOST_PIXELS = 256
"""A side of photographs in memory, where nothing else is said."""
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Photographs:
    """A split in memory: `images` uint8 (n, height, width, 3), `labels` int64 (n,), and where it is from."""

    name: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    fingerprint: str
    licence: str

    def __len__(self) -> int:
        return len(self.images)


class Stream:
    """A split that is read one photograph after the other, for what needs no more of them in memory."""

    def __init__(self, folder: str | Path, split: str, size: int, every: int = 1):
        """`size` is what each photograph is resized to, square, in pixels. One photograph in `every` is taken."""
        self._source, self.split, self.size, self._every = (
            _source(folder, split),
            split,
            size,
            every,
        )
        self.name, self.classes, self.licence = (
            self._source.name,
            self._source.classes,
            self._source.licence,
        )
        self.fingerprint = _fingerprint(self._source.parts, split, size, None, frozenset(), every)

    def __len__(self) -> int:
        return -(-sum(1 for _ in self._source.rows(False)) // self._every)

    def places(self, wanted: Collection[int]) -> dict[int, str]:
        """Where those that are wanted lie: a file, or a shard and a row, by number."""
        rows = itertools.islice(
            self._source.rows(False), 0, self._every * max(wanted, default=-1) + 1, self._every
        )
        return {number: where for number, (where, *_) in enumerate(rows) if number in wanted}

    def photographs(
        self, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, npt.NDArray[np.uint8], int]]:
        """Number from 0, pixels uint8 (size, size, 3) and label of all photographs, or of those that are wanted."""
        rows = itertools.islice(self._source.rows(False), 0, None, self._every)
        for number, (where, raw, label, _) in enumerate(rows):
            if wanted is None or number in wanted:
                yield number, _decode(raw, self.size, where), label


class Outlined:
    """Photographs whose objects are outlined, read one after the other.

    Shards with a column `objects` beside `image`: JSON, a list of {"c": number of the object's name, "p": [[x, y], …]},
    in pixels of the picture counted from 1. The names are `object_classes` of `meta.json`.
    """

    def __init__(self, folder: str | Path, split: str, size: int, every: int = 1):
        """`size` is what each photograph, and each mask, is resized to, square, in pixels. One photograph in `every`
        is taken."""
        source, meta = _source(folder, split), _meta(Path(folder))
        self._files, self.size, self.name, self.licence = (
            _files(Path(folder), split),
            size,
            source.name,
            source.licence,
        )
        self._every = every
        named = meta.get("object_classes", ())
        self.objects = tuple(map(str, named)) if isinstance(named, list) else ()
        self.fingerprint = _fingerprint(source.parts, split, size, None, frozenset(), every)
        if self._files[0].suffix != ".parquet" or not self.objects:
            raise BadFile(
                f"{folder} has no outlined objects; it takes shards with a column objects, and a meta.json "
                "that names object_classes"
            )

    def __len__(self) -> int:
        import pyarrow.parquet

        return -(
            -sum(pyarrow.parquet.read_metadata(file).num_rows for file in self._files)
            // self._every
        )

    def photographs(
        self,
    ) -> Iterator[tuple[npt.NDArray[np.uint8], dict[int, npt.NDArray[np.bool_]]]]:
        """Pixels uint8 (size, size, 3), and for each object in it the mask (size, size) of all its outlines."""
        for where, raw, outlines in itertools.islice(self._rows(), 0, None, self._every):
            if not isinstance(raw, bytes) or not isinstance(outlines, str):
                raise BadFile(f"{where}: image holds encoded bytes and objects a text")
            masks = _masks(
                outlines, len(self.objects), opened(io.BytesIO(raw), where).size, self.size, where
            )
            yield _decode(raw, self.size, where), masks

    def _rows(self) -> Iterator[tuple[str, Any, Any]]:
        for file in self._files:
            for row, (raw, outlines) in enumerate(
                zip(*_columns(file, "image", "objects"), strict=True)
            ):
                yield f"{file}, row {row}", raw, outlines


def _masks(
    outlines: str, known: int, picture: tuple[int, int], size: int, where: str
) -> dict[int, npt.NDArray[np.bool_]]:
    """The mask of each object in the central square of a picture (width, height)."""
    side = min(picture)
    left, top = (picture[0] - side) // 2, (picture[1] - side) // 2
    drawn: dict[int, Image.Image] = {}
    try:
        for outline in json.loads(outlines):
            number = int(outline["c"])
            corners = [
                ((x - 1 - left) * size / side, (y - 1 - top) * size / side) for x, y in outline["p"]
            ]
            if not 0 <= number < known or not np.isfinite(corners).all():
                raise ValueError(f"an outline of object {number}, {known} are named")
            if len(corners) > 2:
                mask = drawn.setdefault(number, Image.new("1", (size, size)))
                ImageDraw.Draw(mask).polygon(corners, fill=1)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadFile(f"{where}: objects is not a list of outlines: {error}") from None
    return {number: np.asarray(mask) for number, mask in drawn.items()}


def load(
    folder: str | Path,
    split: str = "train",
    *,
    size: int | None = None,
    limit: int | None = None,
    without: str | Path | None = None,
    cache: str | Path | None = None,
) -> Photographs:
    """Decode one split once, to square uint8 pictures that training can keep in memory.

    `size` resizes (pixels; default: the size of the first picture, at most `MOST_PIXELS`); `limit` takes the
    first so many; `without` leaves out the photographs whose keys are in another folder of shards, in any split. With
    `cache` (a folder) the decoded arrays are kept and read next time; a damaged cache is decoded anew.
    """
    barred = _keys(Path(without)) if without is not None else frozenset()
    source = _source(folder, split)
    fingerprint = _fingerprint(source.parts, split, size, limit, barred)
    stored = Path(cache) / f"{source.name}-{split}-{fingerprint[:16]}.npz" if cache else None
    kept = _cached(stored)
    if kept is not None:
        images, labels = kept
    else:
        pictures, targets = [], []
        for where, raw, label, key in source.rows(bool(barred)):
            if key in barred:
                continue
            if size is None:
                size = min(_decode(raw, None, where).shape[0], MOST_PIXELS)
            pictures.append(_decode(raw, size, where))
            targets.append(min(label, 2**62))  # what is larger fits no array; it is refused below
            if limit is not None and len(pictures) >= limit:
                break
        if not pictures:
            raise BadFile(f"{folder} holds no photographs of split {split!r}")
        images, labels = np.stack(pictures), np.array(targets, np.int64)
        if stored is not None:
            with whole(stored) as scratch, open(scratch, "wb") as file:
                np.savez(file, images=images, labels=labels)
    classes = source.classes or tuple(
        str(i) for i in range(min(int(labels.max()) + 1, MOST_CLASSES))
    )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise BadFile(
            f"{folder} has labels {labels.min()} … {labels.max()}, and {len(classes)} classes (meta.json names them)"
        )
    return Photographs(source.name, images, labels, classes, fingerprint, source.licence)


def load_joined(
    folders: Sequence[str | Path], split: str, cache: str | Path | None = None
) -> Photographs:
    """One split of one or several data sets, all at the size of the first."""
    first = load(folders[0], split, cache=cache)
    size = first.images.shape[1]
    return joined([first, *(load(each, split, size=size, cache=cache) for each in folders[1:])])


def joined(parts: Sequence[Photographs]) -> Photographs:
    """Several sets of photographs of one size as one; their classes are apart, in this order."""
    first, *more = parts
    if not more:
        return first
    if sizes := {part.images.shape[1:3] for part in parts} - {first.images.shape[1:3]}:
        raise BadRequest(
            f"photographs of {first.images.shape[1:3]} pixels cannot be joined with those of {sizes}"
        )
    before = np.cumsum([0, *(len(part.classes) for part in parts[:-1])])
    return Photographs(
        " + ".join(part.name for part in parts),
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels + number for part, number in zip(parts, before, strict=True)]),
        tuple(name for part in parts for name in part.classes),
        hashlib.sha256(" ".join(part.fingerprint for part in parts).encode()).hexdigest(),
        "; ".join(dict.fromkeys(part.licence for part in parts)),
    )


@dataclass(frozen=True)
class _Source:
    """One split where it lies. `rows` gives where a photograph is, its encoded bytes, its label and, asked, its key."""

    name: str
    parts: tuple[str, ...]
    """What tells it from other data."""
    classes: tuple[str, ...]
    licence: str
    rows: Callable[[bool], Iterator[tuple[str, bytes, int, str]]]


def check_apart(made: Path, folder: str | Path) -> None:
    """Refuse a folder for what is made that lies where photographs are read.

    Its pictures would be read as photographs of another class the next time. Beside `train` and
    `val` there is room.
    """
    data, place = Path(os.path.realpath(folder)), Path(os.path.realpath(made))
    if str(folder).startswith("hf:") or not data.is_dir() or not place.is_relative_to(data):
        return
    inner = place.relative_to(data).parts
    known = {name for names in SPLITS.values() for name in names}
    apart = any((data / name).is_dir() for name in known) or any(data.glob("*.parquet"))
    if not inner or not apart or inner[0] in known:
        raise BadRequest(
            f"{made} lies among the photographs of {folder}, where its pictures would be read as "
            "photographs; give another folder for what is made"
        )


def _source(folder: str | Path, split: str) -> _Source:
    return (
        _hugging_face(str(folder)[3:], split)
        if str(folder).startswith("hf:")
        else _folder(Path(folder), split)
    )


def _folder(folder: Path, split: str) -> _Source:
    files, meta = _files(folder, split), _meta(folder)
    shards = files[0].suffix == ".parquet"
    named = () if shards else tuple(sorted({file.parent.name for file in files}))
    return _Source(
        folder.name,
        tuple(
            f"{file.name if shards else '/'.join(file.parts[-2:])}:{file.stat().st_size};"
            for file in files
        ),
        tuple(meta.get("classes", named)),
        _licence(folder, meta),
        partial(_shards, files) if shards else partial(_class_folders, files, named),
    )


def _hugging_face(name: str, split: str) -> _Source:
    """A data set with a column of images and one of class labels, from the hub or from where `save_to_disk` put it."""
    if split not in SPLITS:
        raise BadRequest(f"no split {split!r}; there are: {', '.join(SPLITS)}")
    try:
        import datasets
    except ModuleNotFoundError:
        raise Unreachable(f"hf:{name} needs datasets; pip install 'phosphene[datasets]'") from None
    try:
        found = (
            datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
        )
    except Exception as error:  # the library has no common error of its own
        reason = " ".join(str(error).split())[:200]
        raise Unreachable(
            f"hf:{name} cannot be read: {reason}; give OWNER/NAME or a folder of save_to_disk"
        ) from None
    splits = dict(found) if isinstance(found, dict) else {"train": found}
    chosen = [each for each in splits if each.startswith(SPLITS[split])]
    if not chosen:
        raise BadFile(f"hf:{name} has no split {split!r}; it has: {', '.join(splits)}")
    tables = [splits[each] for each in (chosen if split == "all" else chosen[:1])]
    features = tables[0].features
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not images or not labels:
        raise BadFile(
            f"hf:{name} needs a column of images and one of class labels; it has: {dict(features)}"
        )
    image, label = images[0], labels[0]

    def rows(keyed: bool) -> Iterator[tuple[str, bytes, int, str]]:
        if keyed and "key" not in features:
            raise BadFile(
                f"hf:{name} has no column of keys, so none can be left out; it has: {', '.join(features)}"
            )
        for table in tables:
            for row, values in enumerate(table.cast_column(image, datasets.Image(decode=False))):
                where, encoded = f"hf:{name}, row {row}", values[image]
                if encoded is None or values[label] is None:
                    raise BadFile(f"{where} has no image or no label")
                raw = encoded["bytes"] or _bytes(Path(encoded["path"]))
                yield where, raw, int(values[label]), str(values.get("key", ""))

    licence = tables[0].info.license or "not stated"
    parts = tuple(f"{table._fingerprint};" for table in tables)
    return _Source(
        name.strip("/").rpartition("/")[2], parts, tuple(features[label].names), licence, rows
    )


def _files(folder: Path, split: str) -> list[Path]:
    if split not in SPLITS:
        raise BadRequest(f"no split {split!r}; there are: {', '.join(SPLITS)}")
    nothing = f"{folder} holds out no photographs: give a folder with train and val, as folders or as shards"
    if folder.is_file():
        if split == "val":
            raise BadFile(nothing)
        return [folder]
    if not folder.is_dir():
        raise BadFile(
            f"{folder} is not a folder; give a folder of parquet shards or of class folders"
        )
    shards = sorted(f for f in folder.glob("*.parquet") if f.name.startswith(SPLITS[split]))
    if shards:
        return shards
    there = [folder / name for name in SPLITS[split] if (folder / name).is_dir()][
        : None if split == "all" else 1
    ]
    pictures = (file for place in there or [folder] for file in place.glob("[!.]*/[!.]*"))
    found = sorted(file for file in pictures if file.suffix.lower() in PICTURES)
    if found and not there and split == "val":
        raise BadFile(nothing)
    if not found:
        raise BadFile(
            f"{folder} holds neither {SPLITS[split][0]}*.parquet nor <class>/*.jpg for split {split!r}"
        )
    return found


def _shards(files: list[Path], keyed: bool) -> Iterator[tuple[str, bytes, int, str]]:
    for file in files:
        keys = _columns(file, "key")[0] if keyed else itertools.repeat("")
        for row, (raw, label, key) in enumerate(
            zip(*_columns(file, "image", "label"), keys, strict=False)
        ):
            if not isinstance(raw, bytes) or not isinstance(label, int):
                raise BadFile(
                    f"{file}, row {row}: image holds encoded bytes and label a whole number"
                )
            yield f"{file}, row {row}", raw, label, str(key)


def _class_folders(
    files: list[Path], names: tuple[str, ...], keyed: bool
) -> Iterator[tuple[str, bytes, int, str]]:
    for file in files:
        yield str(file), _bytes(file), names.index(file.parent.name), file.stem


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadFile(f"{file} cannot be read: {error.strerror}") from None


def _keys(folder: Path) -> frozenset[str]:
    """The keys of all shards of a folder."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise BadFile(f"{folder} holds no parquet shards whose keys could be left out")
    return frozenset(str(key) for file in files for key in _columns(file, "key")[0])


def _columns(file: Path, *names: str) -> list[Iterator[Any]]:
    """The values of some columns of a shard, as Python's own."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise Unreachable(f"{file} needs pyarrow; pip install 'phosphene[data]'") from None
    try:
        table = pyarrow.parquet.read_table(file, columns=list(names))
        columns = [table[name] for name in names]
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]  # pyarrow adds whole schemas
        raise BadFile(
            f"{file} is not a readable shard with columns {', '.join(names)}: {reason}"
        ) from None
    return [_values(file, name, column) for name, column in zip(names, columns, strict=True)]


def _values(file: Path, name: str, column: Any) -> Iterator[Any]:
    try:
        for value in column:
            yield value.as_py()
    except UnicodeDecodeError as error:
        raise BadFile(f"{file}: column {name} holds what is no text: {error}") from None


def _cached(stored: Path | None) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None:
    """A cache's photographs and labels; None where there is none that is whole."""
    if stored is None or not stored.exists():
        return None
    try:
        with open(stored, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return kept["images"], kept["labels"]
    except Exception:  # of many kinds: it is decoded anew
        return None


def _decode(raw: bytes, size: int | None, where: str) -> npt.NDArray[np.uint8]:
    picture = opened(io.BytesIO(raw), where)
    side = min(picture.size)
    if picture.size != (side, side):
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    if size is not None and side != size:
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _meta(folder: Path) -> dict[str, Any]:
    file = (folder if folder.is_dir() else folder.parent) / "meta.json"
    if not file.exists():
        return {}
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{file} is not JSON: {error}") from None
    meta = meta if isinstance(meta, dict) else {}
    classes = meta.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise BadFile(f"{file}: classes is a list of names")
    return meta


def _licence(folder: Path, meta: dict[str, Any]) -> str:
    """What `meta.json` says, or the line of the data's README that begins with "Licence:"."""
    if stated := meta.get("licence", meta.get("license")):
        return str(stated)
    readme = folder / "README.md"
    if readme.is_file():
        for line in readme.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lstrip("-* ").lower().startswith(("licence:", "license:")):
                return line.partition(":")[2].strip()
    return "not stated"


def _fingerprint(
    parts: Sequence[str],
    split: str,
    size: int | None,
    limit: int | None,
    barred: frozenset[str],
    every: int = 1,
) -> str:
    """Names and sizes of the files and how they were read: enough to tell another data set."""
    digest = hashlib.sha256(f"{split}:{size}:{limit}{f':{every}' if every > 1 else ''}".encode())
    for key in sorted(barred):
        digest.update(f"without {key};".encode())
    for part in parts:
        digest.update(part.encode())
    return digest.hexdigest()
