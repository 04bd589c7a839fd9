"""The shape of a JSON file: one dataclass for who writes it and for who reads it.

A file may come from somebody else. Each value is checked as it is read, and what is wrong with it
is one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from sys import float_info
from types import UnionType
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as type_hints

from phosphene.errors import BadFile
from phosphene.files import json_bytes, read_json, write_json
from phosphene.texts import clean

F = TypeVar("F", bound="Form")

MAX_FLOAT = float_info.max

MAX_BYTES = 256 << 20
"""Bytes; a longer file is not read."""
MAX_CHARACTERS = 100_000
"""Characters of a text; a longer one is refused."""
MAX_SHOWN = 200
"""Characters of a text that are shown."""


def short(text: str) -> str:
    """Return as much of a text as is shown, without what is not."""
    return clean(text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…")


@dataclass(frozen=True)
class Entry:
    """A value of a JSON file, with its place there."""

    file: Path
    value: Any
    place: str = ""

    def get(self, key: str) -> Entry | None:
        """Return what an object has under a key; None where it is absent or null."""
        value = self.members().get(key)
        return None if value is None else Entry(self.file, value, f"{self.place}.{key}".lstrip("."))

    def __getitem__(self, key: str) -> Entry:
        found = self.get(key)
        return found or self.wrong(f"has no {key!r}")

    def members(self) -> dict[str, Any]:
        """Return an object's values by their keys."""
        return self.value if isinstance(self.value, dict) else self.wrong("is not an object")

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Yield an object's entries that are not null."""
        for key in self.members():
            if (found := self.get(key)) is not None:
                yield short(key), found

    def elements(self) -> list[Entry]:
        """Return the entries of a list."""
        if not isinstance(self.value, list):
            self.wrong("is not a list")
        return [Entry(self.file, value, f"{self.place}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        """Return a text as it is."""
        if not isinstance(self.value, str):
            self.wrong("is not a text")
        if len(self.value) > MAX_CHARACTERS:
            self.wrong(f"has {len(self.value):,} characters; at most {MAX_CHARACTERS:,} are read")
        return self.value

    def shown(self) -> str:
        """Return a text as a page shows it."""
        return short(self.text())

    def number(self, low: float = -MAX_FLOAT, high: float = MAX_FLOAT) -> float:
        """Return a number within bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.wrong("is not a number")
        if not low <= self.value <= high:  # NaN lies nowhere
            self.wrong(f"is not within {low:g} … {high:g}")
        return float(self.value)

    def measured(self) -> float:
        """Return a number, or NaN where the file says that it could not be measured."""
        if self.value is None or (isinstance(self.value, float) and math.isnan(self.value)):
            return math.nan
        return self.number()

    def whole(self, high: float = 1e15) -> int:
        """Return a whole number from 0 on."""
        number = self.number(0, high)
        return int(number) if number == math.floor(number) else self.wrong("is not a whole number")

    def share(self) -> float:
        """Return a number from 0 to 1."""
        return self.number(0, 1)

    def numbers(self) -> tuple[float, ...]:
        """Return a list of numbers."""
        return tuple(each.number() for each in self.elements())

    def wrong(self, what: str) -> NoReturn:
        """Raise `BadFile` with the entry's place."""
        raise BadFile(f"{self.file}: {clean(self.place) or 'it'} {what}")


Shown = Annotated[str, Entry.shown]
"""A text that is only shown; it is read without what acts, and no longer than is shown."""
Share = Annotated[float, Entry.share]
"""A number from 0 to 1."""


@dataclass(frozen=True)
class Form:
    """A kind of JSON file.

    A subclass is a dataclass whose fields are the file's keys. What older versions lack has a
    default. An annotation says how a value is read: a type, or `Annotated` with a function of the
    `Entry`. `__post_init__` may raise `ValueError` with what is wrong about a whole object.
    """

    format: int = 1
    """The version of the form, which goes up when files are no longer what older readers expect."""
    reads: ClassVar[tuple[int, ...]] = (1,)
    """The versions that are read."""
    max_bytes: ClassVar[int] = MAX_BYTES
    """Bytes; a longer file is not read."""

    def as_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return asdict(self)

    def as_bytes(self) -> bytes:
        """Return the file itself."""
        return json_bytes(self.as_json())

    def write(self, file: Path) -> None:
        """Write the file whole or not at all."""
        write_json(file, self.as_json())

    @classmethod
    def read(cls: type[F], file: Path) -> F:
        """Read a file; `BadFile` says what is wrong with it."""
        return cls.of(read_entry(file, cls.max_bytes))

    @classmethod
    def of(cls: type[F], entry: Entry) -> F:
        """Return the form that a file's content has."""
        if (number := entry["format"].value) not in cls.reads:
            raise BadFile(
                f"{entry.file} has format {clean(str(number)[:20])}, this version reads "
                f"{' and '.join(map(str, cls.reads))}; update phosphene"
            )
        form: F = read_as(cls, entry)
        return form


@dataclass(frozen=True, kw_only=True)
class StudyForm(Form):
    """The form of a study, which a file declares by the study's name."""

    study: str
    subject: Shown
    subject_sha256: Shown = ""

    @property
    def file_name(self) -> str:
        """Return what the file is called in a folder of the study's own."""
        return f"{self.study}.json"


def read_entry(file: Path, most: int = MAX_BYTES) -> Entry:
    """Return the content of a JSON file of at most so many bytes."""
    try:
        if (size := file.stat().st_size) > most:
            raise BadFile(f"{file} is too large ({size:,} bytes)")
        return Entry(file, read_json(file))
    except OSError as error:
        raise BadFile(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{file} is not JSON: {error}") from None


def read_as(kind: Any, entry: Entry) -> Any:
    """Return an entry's value as an annotation describes it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return inner[1](entry)
    if origin in (Union, UnionType):  # X | None; what is null is absent
        return read_as(inner[0], entry)
    if origin is dict:
        every = inner[1] is Any
        return entry.members() if every else {key: read_as(inner[1], v) for key, v in entry.items()}
    if origin is tuple and inner[-1] is not Ellipsis:
        elements = entry.elements()
        if len(elements) != len(inner):
            entry.wrong(f"is not a list of {len(inner)}")
        return tuple(read_as(k, each) for k, each in zip(inner, elements, strict=True))
    if origin in (tuple, list):
        return origin([read_as(inner[0], each) for each in entry.elements()])
    return _object(kind, entry) if is_dataclass(kind) else _SIMPLE[kind](entry)


_SIMPLE: dict[Any, Callable[[Entry], Any]] = {
    str: Entry.text,
    int: Entry.whole,
    float: Entry.measured,
}


def _object(kind: Any, entry: Entry) -> Any:
    found: dict[str, Any] = {}
    for name, (inner, needed) in _fields(kind).items():
        value = entry.get(name)
        if value is not None:
            found[name] = read_as(inner, value)
        elif needed and inner is float and name in entry.members():
            found[name] = math.nan
        elif needed:
            entry.wrong(f"has no {name!r}")
    try:
        return kind(**found)
    except ValueError as error:
        entry.wrong(str(error))


@lru_cache
def _fields(kind: type) -> dict[str, tuple[Any, bool]]:
    """Return what each field of a dataclass holds, and whether a file must have it."""
    hints = type_hints(kind, include_extras=True)
    return {
        each.name: (
            hints[each.name],
            each.default is MISSING and each.default_factory is MISSING,
        )
        for each in fields(kind)
    }
