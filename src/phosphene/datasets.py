"""Labelled photographs from folders and parquet shards. The only room that reads data sets.

Columns of a shard: `image` (encoded bytes), `label` (an integer), `key` (a string). A folder of such
shards has `train*.parquet`, `val*.parquet` and a `meta.json` with `classes`; a folder of class folders
(`train/<class>/*.jpg`, or `<class>/*.jpg`) is read the same way.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from phosphene.errors import BadFile, BadRequest, Unreachable
from phosphene.files import whole
from phosphene.images import opened

SPLITS = {"train": ("train",), "val": ("val", "test"), "all": ("train", "val", "test", "all", "samples")}
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

    `size` resizes (pixels; default: the size of the first picture); `limit` takes the first so many;
    `without` leaves out the photographs whose keys are in another folder of shards, in any split. With
    `cache` (a folder) the decoded arrays are kept and read next time; a damaged cache is decoded anew.
    """
    folder = Path(folder)
    files = _files(folder, split)
    barred = _keys(Path(without)) if without is not None else frozenset()
    fingerprint = _fingerprint(files, split, size, limit, barred)
    meta = _meta(folder)
    stored = Path(cache) / f"{folder.name}-{split}-{fingerprint[:16]}.npz" if cache else None
    kept = _cached(stored)
    if kept is not None:
        images, labels, names = kept
    else:
        pictures, targets, names = [], [], ()
        for where, raw, label, names in _rows(files, barred):
            picture = _decode(raw, size, where)
            size = size or picture.shape[0]
            pictures.append(picture)
            targets.append(label)
            if limit is not None and len(pictures) >= limit:
                break
        if not pictures:
            raise BadFile(f"{folder} holds no photographs of split {split!r}")
        images, labels = np.stack(pictures), np.array(targets, np.int64)
        if stored is not None:
            with whole(stored) as scratch, open(scratch, "wb") as file:
                np.savez(file, images=images, labels=labels, names=np.array(names))
    classes = tuple(meta.get("classes", names)) or tuple(str(i) for i in range(int(labels.max()) + 1))
    if labels.min() < 0 or labels.max() >= len(classes):
        raise BadFile(
            f"{folder} has labels {labels.min()} … {labels.max()}, and {len(classes)} classes in its meta.json"
        )
    return Photographs(folder.name, images, labels, classes, fingerprint, _licence(folder, meta))


def _files(folder: Path, split: str) -> list[Path]:
    if split not in SPLITS:
        raise BadRequest(f"no split {split!r}; there are: {', '.join(SPLITS)}")
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise BadFile(f"{folder} is not a folder; give a folder of parquet shards or of class folders")
    shards = sorted(f for f in folder.glob("*.parquet") if f.name.startswith(SPLITS[split]))
    if shards:
        return shards
    for name in SPLITS[split]:
        if (folder / name).is_dir():
            folder = folder / name
            break
    found = sorted(f for f in folder.glob("*/*") if f.suffix.lower() in PICTURES)
    if not found:
        raise BadFile(f"{folder} holds neither {SPLITS[split][0]}*.parquet nor <class>/*.jpg for split {split!r}")
    return found


def _rows(files: list[Path], barred: frozenset[str]) -> Iterator[tuple[str, bytes, int, tuple[str, ...]]]:
    """Where a photograph lies, its encoded bytes, its label, and the names of the classes where folders tell them."""
    if files[0].suffix == ".parquet":
        for file in files:
            keys = _columns(file, "key")[0] if barred else itertools.repeat("")
            for row, (raw, label, key) in enumerate(zip(*_columns(file, "image", "label"), keys, strict=False)):
                if key in barred:
                    continue
                if not isinstance(raw, bytes) or not isinstance(label, int):
                    raise BadFile(f"{file}, row {row}: image holds encoded bytes and label a whole number")
                yield f"{file}, row {row}", raw, label, ()
    else:
        names = tuple(sorted({file.parent.name for file in files}))
        for file in files:
            try:
                yield str(file), file.read_bytes(), names.index(file.parent.name), names
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
        return [(value.as_py() for value in table[name]) for name in names]
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]  # pyarrow adds whole schemas
        raise BadFile(f"{file} is not a readable shard with columns {', '.join(names)}: {reason}") from None


def _cached(stored: Path | None) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], tuple[str, ...]] | None:
    """A cache's photographs, labels and class names; None where there is none that is whole."""
    if stored is None or not stored.exists():
        return None
    try:
        with open(stored, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return kept["images"], kept["labels"], tuple(kept["names"].tolist())
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
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


def _fingerprint(files: list[Path], split: str, size: int | None, limit: int | None, barred: frozenset[str]) -> str:
    """Names and sizes of the files and how they were read: enough to tell another data set."""
    digest = hashlib.sha256(f"{split}:{size}:{limit}".encode())
    for key in sorted(barred):
        digest.update(f"without {key};".encode())
    for file in files:
        digest.update(f"{file.name}:{file.stat().st_size};".encode())
    return digest.hexdigest()
