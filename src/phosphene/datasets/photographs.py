"""Splits of photographs in memory."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from phosphene.datasets.fingerprints import fingerprint, former, written_before
from phosphene.datasets.names import laid, listed
from phosphene.datasets.source import UNKNOWN, Pixels, Row, Source, open_source
from phosphene.datasets.sources.shards import columns
from phosphene.datasets.stream import MAX_CLASSES, Damage, decode, former_how
from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.kept import Content, kept

MAX_PIXELS = 256
"""A side of photographs in memory, where nothing else is said."""
SAMPLED = 200
"""Photographs, evenly spaced, whose sizes say how large a data set's photographs are."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Photographs:
    """A split in memory, and where it is from.

    `images` uint8 (n, height, width, 3), `labels` int64 (n,), places in `classes`, −1 where a
    photograph has none.
    """

    name: str
    images: Pixels
    labels: Labels
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
    labelled: bool = True,
) -> Photographs:
    """Decode one split once, to square uint8 pictures that training can keep in memory.

    `size` resizes (pixels; default: the median of the photographs' shorter sides, at most
    `MAX_PIXELS`); `limit` takes the first so many; `without` leaves out the photographs whose
    keys are in another folder of shards, in any split. With `cache` (a folder) the decoded arrays
    are kept and read next time. Where it is not `labelled`, it
    may have photographs without a class. What cannot be read is left out, and said.
    """
    barred = _keys(Path(without)) if without is not None else frozenset()
    source = open_source(folder, split, labelled)
    wanted = _Wanted(source, size, limit, barred, labelled)
    if cache:
        found, identity = _cached(Path(cache), wanted)
    else:
        found, identity = _decoded(wanted), wanted.fingerprint
    if not len(found.images) and not found.damage:
        raise BadFile(f"{folder} holds no photographs of split {split!r}")
    Damage(source.name, dict(enumerate(found.damage))).tell(len(found.images))
    classes = _classes(folder, source, found.labels, labelled)
    labels = np.where(found.labels < len(classes), found.labels, UNKNOWN)
    return Photographs(source.name, found.images, labels, classes, identity, source.licence)


def load_joined(
    folders: Sequence[str | Path],
    split: str,
    cache: str | Path | None = None,
    labelled: bool = True,
) -> Photographs:
    """Return one split of one or several data sets, all at the size of the first."""
    first = load(folders[0], split, cache=cache, labelled=labelled)
    size = first.images.shape[1]
    more = (load(each, split, size=size, cache=cache, labelled=labelled) for each in folders[1:])
    return joined([first, *more])


def joined(parts: Sequence[Photographs]) -> Photographs:
    """Return several sets of photographs of one size as one; their classes are apart, in order."""
    first, *more = parts
    if not more:
        return first
    if sizes := {part.images.shape[1:3] for part in parts} - {first.images.shape[1:3]}:
        raise BadRequest(
            f"photographs of {first.images.shape[1:3]} pixels cannot be joined "
            f"with those of {sizes}"
        )
    before = np.cumsum([0, *(len(part.classes) for part in parts[:-1])])
    labels = [
        np.where(part.labels < 0, UNKNOWN, part.labels + number)
        for part, number in zip(parts, before, strict=True)
    ]
    return Photographs(
        " + ".join(part.name for part in parts),
        np.concatenate([part.images for part in parts]),
        np.concatenate(labels),
        tuple(name for part in parts for name in part.classes),
        hashlib.sha256(" ".join(part.fingerprint for part in parts).encode()).hexdigest(),
        "; ".join(dict.fromkeys(part.licence for part in parts)),
    )


def renumbered(photographs: Photographs, classes: Sequence[str], whose: str) -> Photographs:
    """Return photographs whose labels are places in `classes`, which are those of `whose`.

    `BadFile` where some of them have no class, or one that is not there.
    """
    if not photographs.classes or (photographs.labels < 0).any():
        raise BadFile(f"{photographs.name} has photographs without a class; {whose} tells classes")
    used = np.unique(photographs.labels).tolist()
    numbers = np.array(laid(photographs.classes, classes, photographs.name, whose, used), np.int64)
    return replace(photographs, labels=numbers[photographs.labels], classes=tuple(classes))


# ---------------------------------------------------------------- what a load is made of


@dataclass(frozen=True)
class _Wanted:
    """Which photographs of a split are loaded, and how."""

    source: Source
    size: int | None
    limit: int | None
    barred: frozenset[str]
    labelled: bool

    def rows(self) -> Iterator[Row]:
        rows = self.source.rows(bool(self.barred))
        return itertools.islice((row for row in rows if row.key not in self.barred), self.limit)

    @cached_property
    def fingerprint(self) -> str:
        """Return what tells the photographs and their classes from others."""
        without = (f"without {key}" for key in sorted(self.barred))
        how = f"{self.source.split}:{self.size}:{self.limit}"
        more = (*self.source.classes, *without, *self.source.contents())
        return fingerprint(how, self.source.files, more)

    @property
    def former(self) -> str:
        """Return what version 0.1.0 took for the fingerprint."""
        without = (f"without {key};" for key in sorted(self.barred))
        how = former_how(self.source.split, self.size, self.limit)
        return former(how, (*without, *self.source.former_contents()))


@dataclass(frozen=True)
class _Decoded:
    """Photographs, their labels, and why others could not be read."""

    images: Pixels
    labels: Labels
    damage: tuple[str, ...] = ()


def _cached(folder: Path, wanted: _Wanted) -> tuple[_Decoded, str]:
    """Return photographs from the file that a folder keeps of them, and their fingerprint.

    Where there is no such file, they are decoded, and it is written.
    """
    name = f"{wanted.source.name}-{wanted.source.split}"
    former = _of_0_1_0(folder / f"{name}-{wanted.former[:16]}.npz", wanted)
    if former is not None:
        return former, wanted.former

    def make() -> Content:
        found = _decoded(wanted)
        images, labels = torch.from_numpy(found.images), torch.from_numpy(found.labels)
        return {"images": images, "labels": labels, "damage": found.damage}

    now = wanted.fingerprint
    found = kept(folder / f"{name}-{now[:16]}.safetensors", {"photographs": now}, make)
    damage = tuple(found["damage"])
    return _Decoded(found["images"].numpy(), found["labels"].numpy(), damage), now


def _of_0_1_0(file: Path, wanted: _Wanted) -> _Decoded | None:
    """Return what version 0.1.0 decoded, where its file is there and still good.

    A run that began with it goes on with the same pixels, so it ends as it would have.
    """
    paths = (path for _, path in wanted.source.files)
    if not file.exists() or not written_before(paths, file.stat().st_mtime):
        return None
    try:
        with open(file, "rb") as opened_file, np.load(opened_file, allow_pickle=False) as found:
            images = found["images"]
    except Exception:  # of many kinds: it is decoded again
        return None
    # its labels are left: it numbered each split by its own class names
    labels = np.array([row.label for row in wanted.rows()], np.int64)
    if len(labels) != len(images):
        return None
    warnings.warn(
        f"{file} was decoded by version 0.1.0, which followed no colour profile; what began "
        "with it goes on with it, and another folder decodes again",
        Notice,
        stacklevel=4,
    )
    return _Decoded(images, labels)


def _decoded(wanted: _Wanted) -> _Decoded:
    size = wanted.size or _usual_side(wanted)
    damage = Damage(wanted.source.name)
    images, labels = [], []
    lost: dict[int, str] = {}
    for number, row in enumerate(wanted.rows()):
        with damage.noted(number):
            images.append(decode(row, None if size is None else (size, size)))
            labels.append(min(row.label, 2**62))  # what is larger fits no array; it is refused
        if number in damage:
            lost.setdefault(row.label, damage.found[number])
    if empty := sorted(lost.keys() - {*labels}) if wanted.labelled else []:
        name = dict(enumerate(wanted.source.classes)).get(empty[0], str(empty[0]))
        raise BadFile(
            f"{wanted.source.name}: no photograph of class {name} can be read; {lost[empty[0]]}"
        )
    stacked = np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8)
    return _Decoded(stacked, np.array(labels, np.int64), tuple(damage.found.values()))


def _usual_side(wanted: _Wanted) -> int | None:
    """Return the median of the shorter sides of photographs, evenly spaced, in pixels.

    The size of one photograph says nothing of the others; None where no size can be told.
    """
    count = len(wanted.source)
    if wanted.limit is not None:
        count = min(wanted.limit, count)
    spacing = max(1, count // SAMPLED)
    rows = itertools.islice(wanted.rows(), 0, None, spacing)
    found = (row.short_side() for row in rows)
    sides = sorted(side for side in found if side)
    return min(sides[(len(sides) - 1) // 2], MAX_PIXELS) if sides else None


def _classes(folder: str | Path, source: Source, labels: Labels, labelled: bool) -> tuple[str, ...]:
    """Return what the labels are called; `BadFile` where they should be told and are not."""
    classes = source.classes or _numbers(source, labels)
    hidden = int((labels < 0).sum())
    if labelled and hidden:
        raise BadFile(
            f"{folder}: {hidden:,} of {len(labels):,} photographs of split {source.split!r} have "
            f"label {labels.min()}: their classes are hidden, so nothing can be learnt from them "
            "or measured on them; give a split with labels"
        )
    if labelled and labels.max() >= len(classes):
        named = "meta.json names them" if source.classes else "the training split has no more"
        raise BadFile(
            f"{folder} has labels {labels.min()} … {labels.max()}, and {len(classes)} classes "
            f"({named})"
        )
    there = {*labels.tolist()}
    missing = [name for number, name in enumerate(classes) if number not in there]
    kinds = {"train": "training", "val": "validation"}
    if labelled and source.split in kinds and missing:
        warnings.warn(
            f"{source.name}: there are no {kinds[source.split]} photographs of {len(missing):,} of "
            f"{len(classes):,} classes: {listed(missing)}",
            Notice,
            stacklevel=3,
        )
    return classes


def _numbers(source: Source, labels: Labels) -> tuple[str, ...]:
    """Return the names of classes that nothing names: the numbers that the training split has."""
    largest = source.largest_label() if source.split == "val" else int(labels.max())
    return tuple(str(number) for number in range(min(largest + 1, MAX_CLASSES)))


def _keys(folder: Path) -> frozenset[str]:
    """Return the keys of all shards of a folder."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise BadFile(f"{folder} holds no parquet shards whose keys could be left out")
    return frozenset(str(key) for file in files for key in columns(file, "key")[0])
