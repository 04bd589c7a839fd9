"""Splits of photographs that are read one after the other."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from phosphene.datasets.fingerprints import fingerprint, former, written_before
from phosphene.datasets.names import listed
from phosphene.datasets.source import UNKNOWN, Pixels, Row, open_source
from phosphene.errors import BadFile, Notice
from phosphene.images import cut_to

T = TypeVar("T")

MAX_CLASSES = 100_000
"""Where nothing names them."""


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

    def tell(self, read: int) -> None:
        """Warn which of `read` and these were left out; `BadFile` where none was read."""
        if not self.found:
            return
        first, *_ = reasons = [self.found[number] for number in sorted(self.found)]
        if not read:
            raise BadFile(f"{self.name}: none of {len(reasons):,} photographs can be read; {first}")
        warnings.warn(
            f"{self.name}: {len(reasons):,} of {read + len(reasons):,} photographs cannot be read "
            f"and are left out: {listed(reasons)}",
            Notice,
            stacklevel=2,
        )


class Stream:
    """Read a split one photograph after the other, whether it has labels or not.

    A photograph that cannot be read keeps its number; `damage` names it.
    """

    def __init__(self, folder: str | Path, split: str, size: int | tuple[int, int], every: int = 1):
        """Open a split; each photograph is cut to the proportions of `size`, and resized to it.

        `size` is (height, width) in pixels; a number is both. One photograph in `every` is taken.
        """
        self._source = open_source(folder, split, labelled=False)
        self.split = split
        self.size = (size, size) if isinstance(size, int) else size
        self._every = every
        self.name = self._source.name
        self.licence = self._source.licence
        self.classes = self._source.classes
        self.damage = Damage(self.name)

    @cached_property
    def fingerprint(self) -> str:
        """Return what tells these photographs, and how they are read, from others."""
        return self._fingerprint(self.size)

    def is_former(self, given: str) -> bool:
        """Return whether this is the fingerprint that version 0.1.0 gave to these photographs."""
        height, width = self.size
        return height == width and given == self._former(height)

    def is_of_squares(self, given: str) -> bool:
        """Return whether this is a fingerprint of the squares that these photographs were once."""
        side = max(self.size)
        if min(self.size) == side:
            return False
        return given in (self._fingerprint((side, side)), self._former(side))

    def _fingerprint(self, size: tuple[int, int]) -> str:
        how = how_read(self.split, size, self._every)
        return fingerprint(how, self._source.files, self._source.contents())

    def _former(self, side: int) -> str:
        how = former_how(self.split, side, None, self._every)
        return former(how, self._source.former_contents())

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
        """Yield number from 0, pixels uint8 (*size, 3) and label, of all or of those wanted.

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


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, and then the rest."""
    left = iter(items)
    while batch := list(itertools.islice(left, size)):
        yield batch


def decode(row: Row, size: tuple[int, int] | None) -> Pixels:
    """Return a photograph's middle at a size (height, width), or its central square as it is.

    `BadFile` where it cannot be read.
    """
    picture = row.picture()
    side = min(picture.size)
    return np.asarray(cut_to(picture, size or (side, side)))


def how_read(split: str, size: tuple[int, int], every: int) -> str:
    """Return what a fingerprint says of how photographs are read; a square has one number."""
    height, width = size
    return f"{split}:{height if height == width else f'{height}x{width}'}:{every}"


def former_how(split: str, size: int | None, limit: int | None, every: int = 1) -> str:
    """Return what version 0.1.0 said of how photographs are read."""
    return f"{split}:{size}:{limit}{f':{every}' if every > 1 else ''}"
