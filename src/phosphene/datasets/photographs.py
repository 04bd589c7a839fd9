"""Splits of photographs: in memory, or read one after the other."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from phosphene.datasets.fingerprints import fingerprint, former, written_before
from phosphene.datasets.names import laid, listed
from phosphene.datasets.source import UNKNOWN, Pixels, Row, Source, open_source
from phosphene.datasets.sources.shards import columns
from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.kept import Content, kept

MAX_CLASSES = 100_000
"""Where nothing names them."""
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


@dataclass
class Damage:
    """Which photographs of a data set could not be read, by number, and why."""

    name: str
    found: dict[int, str] = field(default_factory=dict)

    def __contains__(self, number: int) -> bool:
        return number in self.found

    @contextmanager
    def noted(self, number: int) -> Iterator[None]:
        """Note that a photograph cannot be read, where it cannot."""
        try:
            yield
        except BadFile as error:
            self.found[number] = str(error)

    def before(self, number: int) -> dict[int, str]:
        """Return those with a smaller number: an earlier pass may have found others."""
        return {each: why for each, why in self.found.items() if each < number}

    def tell(self, seen: int) -> None:
        """Say which of `seen` and these were left out; `BadFile` where none was seen."""
        if not self.found:
            return
        first, *_ = reasons = [self.found[number] for number in sorted(self.found)]
        if not seen:
            raise BadFile(f"{self.name}: none of {len(reasons):,} photographs can be read; {first}")
        warnings.warn(
            f"{self.name}: {len(reasons):,} of {seen + len(reasons):,} photographs cannot be read "
            f"and are left out: {listed(reasons)}",
            Notice,
            stacklevel=2,
        )


class Stream:
    """A split that is read one photograph after the other, whether it has labels or not.

    A photograph that cannot be read keeps its number; `damage` names it.
    """

    def __init__(self, folder: str | Path, split: str, size: int, every: int = 1):
        """Open a split; each photograph is resized to `size` pixels, square.

        One photograph in `every` is taken.
        """
        self._source = open_source(folder, split, labelled=False)
        self.split, self.size, self._every = split, size, every
        self.name, self.licence = self._source.name, self._source.licence
        self.classes = self._source.classes
        self.damage = Damage(self.name)

    @cached_property
    def fingerprint(self) -> str:
        """Return what tells these photographs, and how they are read, from others."""
        how = f"{self.split}:{self.size}:{self._every}"
        return fingerprint(how, self._source.files, self._source.contents())

    def is_former(self, given: str) -> bool:
        """Return whether this is the fingerprint that version 0.1.0 gave to these photographs."""
        how = _former_how(self.split, self.size, None, self._every)
        return given == former(how, self._source.former_contents())

    def written_before(self, when: float) -> bool:
        """Return whether all files were last written before a time, in seconds of the epoch."""
        return written_before((file for _, file in self._source.files), when)

    def __len__(self) -> int:
        return -(-len(self._source) // self._every)

    def places(self, wanted: Collection[int]) -> dict[int, str]:
        """Return where those that are wanted lie: a file, or a shard and a row, by number."""
        last = max(wanted, default=-1)
        rows = itertools.islice(self._rows(), 0, last + 1)
        return {number: row.where for number, row in enumerate(rows) if number in wanted}

    def photographs(
        self, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, Pixels, int]]:
        """Yield number from 0, pixels uint8 (size, size, 3) and label, of all or of those wanted.

        The label is −1 where a photograph has none.
        """
        for number, row in enumerate(self._rows()):
            if wanted is None or number in wanted:
                with self.damage.noted(number):
                    pixels = decode(row, self.size)
                if number not in self.damage:
                    known = 0 <= row.label < (len(self.classes) or MAX_CLASSES)
                    yield number, pixels, row.label if known else UNKNOWN

    def _rows(self) -> Iterator[Row]:
        return itertools.islice(self._source.rows(), 0, None, self._every)


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


def decode(row: Row, size: int | None) -> Pixels:
    """Return a photograph's central square, resized; `BadFile` where it cannot be read."""
    picture = row.picture()
    side = min(picture.size)
    if picture.size != (side, side):
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    if size is not None and side != size:
        picture = picture.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture)


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
        how = _former_how(self.source.split, self.size, self.limit)
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
    except Exception:  # of many kinds: it is decoded anew
        return None
    # its labels are left: it numbered each split by its own class names
    labels = np.array([row.label for row in wanted.rows()], np.int64)
    if len(labels) != len(images):
        return None
    warnings.warn(
        f"{file} was decoded by version 0.1.0, which followed no colour profile; what began "
        "with it goes on with it, and another folder decodes anew",
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
            images.append(decode(row, size))
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


def _former_how(split: str, size: int | None, limit: int | None, every: int = 1) -> str:
    return f"{split}:{size}:{limit}{f':{every}' if every > 1 else ''}"
