"""Labelled photographs from folders and parquet shards. The only room that reads data sets.

Columns of a shard: `image` (encoded bytes), `label` (an integer), `key` (a string). A folder of such
shards has `train*.parquet`, `val*.parquet` and a `meta.json` with `classes`; a folder of class folders
(`train/<class>/*.jpg`, or `<class>/*.jpg`) is read the same way.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from phosphene.errors import BadFile, BadRequest
from phosphene.files import whole

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
    cache: str | Path | None = None,
) -> Photographs:
    """Decode one split once, to square uint8 pictures that training can keep in memory.

    `size` resizes (pixels; default: the size of the first picture); `limit` takes an even share of
    every shard's start. With `cache` (a folder) the decoded arrays are kept and read next time.
    """
    folder = Path(folder)
    files = _files(folder, split)
    fingerprint = _fingerprint(files, split, size, limit)
    meta = _meta(folder)
    stored = Path(cache) / f"{folder.name}-{split}-{fingerprint[:16]}.npz" if cache else None
    if stored is not None and stored.exists():
        with np.load(stored, allow_pickle=False) as kept:
            images, labels, names = kept["images"], kept["labels"], tuple(kept["names"].tolist())
    else:
        pictures, targets, names = [], [], ()
        for raw, label, names in _rows(files, folder):
            picture = _decode(raw, size)
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


def _rows(files: list[Path], folder: Path) -> Iterator[tuple[bytes, int, tuple[str, ...]]]:
    if files[0].suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        for file in files:
            try:
                table = pyarrow.parquet.read_table(file, columns=["image", "label"])
            except (pyarrow.ArrowException, OSError, KeyError) as error:
                raise BadFile(f"{file} is not a readable shard with columns image, label: {error}") from None
            for raw, label in zip(table["image"], table["label"], strict=True):
                yield raw.as_py(), int(label.as_py()), ()
    else:
        names = tuple(sorted({file.parent.name for file in files}))
        for file in files:
            yield file.read_bytes(), names.index(file.parent.name), names


def _decode(raw: bytes, size: int | None) -> npt.NDArray[np.uint8]:
    try:
        picture = Image.open(io.BytesIO(raw)).convert("RGB")
    except (OSError, ValueError) as error:
        raise BadFile(f"a photograph of the data set cannot be decoded: {error}") from None
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
    except (OSError, ValueError) as error:
        raise BadFile(f"{file} is not JSON: {error}") from None
    return meta if isinstance(meta, dict) else {}


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


def _fingerprint(files: list[Path], split: str, size: int | None, limit: int | None) -> str:
    """Names and sizes of the files and how they were read: enough to tell another data set."""
    digest = hashlib.sha256(f"{split}:{size}:{limit}".encode())
    for file in files:
        digest.update(f"{file.name}:{file.stat().st_size};".encode())
    return digest.hexdigest()
