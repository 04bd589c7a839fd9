"""JSON from outside, checked piece by piece as it is read; what is wrong with it is one line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from phosphene.errors import BadFile
from phosphene.files import read_json
from phosphene.texts import clean

MAX_BYTES = 256 << 20
"""Bytes; a longer file is not read."""
MAX_CHARACTERS = 100_000
"""Characters of a text; a longer one is refused."""
SHOWN = 200
"""Characters of a text that are shown."""


def short(text: str) -> str:
    """As much of a text as is shown, without what is not."""
    return clean(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")


@dataclass(frozen=True)
class Entry:
    """A value of a JSON file, with its place there."""

    file: Path
    value: Any
    place: str = ""

    def get(self, key: str) -> Entry | None:
        """What an object has under a key; None where it is absent or null."""
        value = self.members().get(key)
        return None if value is None else Entry(self.file, value, f"{self.place}.{key}".lstrip("."))

    def __getitem__(self, key: str) -> Entry:
        found = self.get(key)
        return found or self.wrong(f"has no {key!r}")

    def members(self) -> dict[str, Any]:
        return self.value if isinstance(self.value, dict) else self.wrong("is not an object")

    def items(self) -> Iterator[tuple[str, Entry]]:
        """An object's entries that are not null."""
        for key in self.members():
            if (found := self.get(key)) is not None:
                yield short(key), found

    def elements(self) -> list[Entry]:
        if not isinstance(self.value, list):
            self.wrong("is not a list")
        return [Entry(self.file, value, f"{self.place}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.wrong("is not a text")
        if len(self.value) > MAX_CHARACTERS:
            self.wrong(f"has {len(self.value):,} characters; at most {MAX_CHARACTERS:,} are read")
        return short(self.value)

    def number(self, low: float = -1e300, high: float = 1e300) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.wrong("is not a number")
        if not low <= self.value <= high:  # NaN lies nowhere
            self.wrong(f"is not within {low:g} … {high:g}")
        return float(self.value)

    def whole(self, high: float = 1e15) -> int:
        number = self.number(0, high)
        return int(number) if number == math.floor(number) else self.wrong("is not a whole number")

    def numbers(self) -> tuple[float, ...]:
        return tuple(each.number() for each in self.elements())

    def wrong(self, what: str) -> NoReturn:
        raise BadFile(f"{self.file}: {clean(self.place) or 'it'} {what}")


def read_form(file: Path) -> Entry:
    """The object in a JSON file of format 1."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise BadFile(f"{file} is too large ({file.stat().st_size:,} bytes)")
        found = Entry(file, read_json(file))
    except OSError as error:
        raise BadFile(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{file} is not JSON: {error}") from None
    if (number := found["format"].value) != 1:
        raise BadFile(
            f"{file} has format {clean(str(number)[:20])}, this version reads 1; update phosphene"
        )
    return found
