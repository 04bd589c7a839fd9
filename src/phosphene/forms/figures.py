"""A measured number with its interval, and the rows of figures that a study gives each unit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from phosphene.forms.form import Entry, short
from phosphene.units import Unit


@dataclass(frozen=True)
class Figure:
    """A statistic over `n` units (or photographs) with its interval.

    The interval is of 95 % unless something else is said. `note` says what it was measured with.
    """

    value: float
    low: float
    high: float
    n: int
    note: str = ""


Told = Figure | float | str
"""What a file says of one measure: a statistic, a number, or something else in words."""


def told_in(entry: Entry) -> Told:
    """Return a measure as a file has it; in words whatever a later version may write."""
    if not isinstance(entry.value, dict) or "value" not in entry.value:
        plain = isinstance(entry.value, int | float) and not isinstance(entry.value, bool)
        return entry.number() if plain else short(in_words(entry.value))
    value, low, high, n, note = map(entry.get, ("value", "low", "high", "n", "note"))
    told = told_in(value) if value else math.nan
    if not isinstance(told, float):
        return short(str(told))
    bounds = (low.number(), high.number()) if low and high else (math.nan, math.nan)
    return Figure(told, *bounds, n.whole() if n else 0, note.shown() if note else "")


def in_words(value: Any) -> str:
    """Return a value of JSON as a reader may understand it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def figures_in(entry: Entry) -> dict[str, Any]:
    """Return an object's measures by their names, but for those that could not be measured."""
    found = {name: told_in(each) for name, each in entry.items()}
    return {
        name: told
        for name, told in found.items()
        if not (isinstance(told, Figure) and math.isnan(told.value))
    }


ABOUT = ("unit", "label", "pictures")
"""The keys of a row that are no measures."""


def rows_in(entry: Entry) -> list[dict[str, Any]]:
    """Return a list of rows: of each unit, its name, its label and its measures."""
    return [_row(each) for each in entry.elements()]


def _row(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": entry["unit"].shown()}
    label, pictures = entry.get("label"), entry.get("pictures")
    if label:
        found["label"] = label.shown()
    if pictures:
        found["pictures"] = [each.text() for each in pictures.elements()]
    rest = {key: value for key, value in entry.members().items() if key not in ABOUT}
    return found | figures_in(Entry(entry.file, rest, entry.place))


def measures_of(row: Mapping[str, Any]) -> dict[str, Told]:
    """Return what a row says beside what it is of."""
    return {key: value for key, value in row.items() if key not in ABOUT}


Figures = Annotated[dict[str, Any], figures_in]
"""Measures by their names: `Figure` where they have an interval."""
Rows = Annotated[list[dict[str, Any]], rows_in]
"""A row for each unit: `unit`, `label`, perhaps `pictures` beside the file, and measures."""


def unit_of(name: str) -> Unit | None:
    """Return the channel that a text names, wherever it is read; None where it names none."""
    match = re.fullmatch(r"([^\s:@*\"]+):([0-9]{1,9})(@\S+)?", name)
    return Unit(match[1], int(match[2])) if match else None


def unit_in(entry: Entry) -> str:
    """Return the name of one channel."""
    name = entry.shown()
    return name if unit_of(name) else entry.wrong("is not of the form LAYER:CHANNEL")


UnitName = Annotated[str, unit_in]
"""LAYER:CHANNEL."""
