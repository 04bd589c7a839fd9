"""A source from outside the package: `python:package.module:factory`, a factory of a `Source`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from phosphene import factories
from phosphene.datasets.source import UNKNOWN, Row, Source
from phosphene.errors import BadRequest, type_name
from phosphene.texts import slug


def open_split(place: str, split: str, labelled: bool) -> Source:
    """Return the source that a factory makes of the name of a split."""
    name = f"{factories.PREFIX}{place}"
    made = factories.make(name, split)
    if not isinstance(made, Source):
        raise BadRequest(
            f"{name} returned {type_name(made)}; it must return a phosphene.datasets.Source"
        )
    return _Checked(name, made, split)


class _Checked(Source):
    """Check a user's source: its code may fail, and its photographs may be of another form."""

    def __init__(self, where: str, source: Source, split: str):
        self._where = where
        self._source = source
        self.split = split
        self.name = slug(source.name) or slug(where.rpartition(":")[2])
        self.classes = tuple(map(str, source.classes))
        self.licence = str(source.licence)
        self.files = tuple(source.files)

    def __len__(self) -> int:
        with factories.users_code(f"{self._where}: its length"):
            return len(self._source)

    def rows(self, keyed: bool = False) -> Iterator[Row]:
        with factories.users_code(f"{self._where}: its rows"):
            for row in self._source.rows(keyed):
                self._check(row)
                yield row

    @staticmethod
    def _check(row: Row) -> None:
        image = row.image
        fits = image is None or isinstance(image, (bytes, Path))
        if isinstance(image, np.ndarray):
            grey = image.ndim == 2
            fits = image.dtype == np.uint8 and (grey or image.shape[2:] == (3,))
        if not fits or not isinstance(row.label, (int, np.integer)) or row.label < UNKNOWN:
            raise BadRequest(
                f"{row.where}: an image is bytes, a Path, or uint8 (height, width) or (height, "
                f"width, 3), and a label a whole number from {UNKNOWN}"
            )
