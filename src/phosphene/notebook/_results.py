"""What a study's call returns: rows that are found by their units, a table, and files."""

from __future__ import annotations

import operator
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, SupportsIndex, TypeVar

from phosphene.errors import UnknownName, near
from phosphene.files import outlet_folder, path_of
from phosphene.tables import Table

Row = TypeVar("Row")


def told(row: Any, key: str) -> str:
    """Return what a row, a dataclass or an object of JSON, says under a key."""
    found = row.get(key, "") if isinstance(row, Mapping) else getattr(row, key, "")
    return str(found)


def find_row(rows: Sequence[Row], which: SupportsIndex | str, kind: str) -> Row:
    """Return the row at a place, of a unit, or of a unit's label.

    `UnknownName` where there is none of that name, `IndexError` where there is no such place.
    """
    if isinstance(which, SupportsIndex):
        return rows[operator.index(which)]
    name = str(which).removeprefix("class:")
    for key in ("unit", "label"):
        for row in rows:
            if told(row, key) == name:
                return row
    names = [told(row, "unit") for row in rows]
    raise UnknownName(f"no unit {which!r} in this {kind}; near: {near(which, names)}")


def listed(names: Sequence[str], most: int = 4) -> str:
    """Return the first names, and how many more there are."""
    more = [f"and {len(names) - most:,} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


class StudyResult(ABC, Generic[Row]):
    """Hold what a study found of units.

    `result["conv5:7"]` is the row of a unit, and `result[0]` the first one. A loop over the result
    yields all rows. `rows` are what the study's JSON says. `folder` holds its `files`.
    """

    rows: Sequence[Row]
    folder: Path
    files: tuple[str, ...]

    @property
    @abstractmethod
    def table(self) -> Table:
        """Return the table that the command line prints."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, which: SupportsIndex | str) -> Row:
        """Return a unit's row; `UnknownName` where the result has no such unit."""
        return find_row(self.rows, which, "result")

    def __repr__(self) -> str:
        names = listed([told(row, "unit") for row in self.rows])
        return f"<{type(self).__name__} of {len(self):,} units: {names}>"

    def __str__(self) -> str:
        return repr(self.table)

    def save(self, folder: str | Path) -> Path:
        """Copy the study's files into a folder, as the command line leaves them."""
        into = outlet_folder(path_of(folder, "folder"))
        for name in self.files:
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            if (into / name).resolve() != (self.folder / name).resolve():
                shutil.copyfile(self.folder / name, into / name)
        return into
