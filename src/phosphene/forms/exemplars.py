"""The photographs that excite units most, as `phosphene exemplars` writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from phosphene.forms.figures import UnitName, unit_in
from phosphene.forms.form import Entry, Share, Shown, StudyForm

Box = tuple[float, float, float, float]
"""Top, left, bottom, right, in shares of a photograph's sides."""


def box_in(entry: Entry) -> Box:
    """Return a box that has an inside."""
    edges = [min(max(edge, 0.0), 1.0) for edge in entry.numbers()]
    if len(edges) != 4 or edges[0] >= edges[2] or edges[1] >= edges[3]:
        entry.wrong("is not a box: top, left, bottom, right")
    return edges[0], edges[1], edges[2], edges[3]


def near_in(entry: Entry) -> tuple[str, float]:
    """Return a unit with the correlation of its activations."""
    if len(entry.elements()) != 2:
        entry.wrong("is not a unit with a correlation")
    unit, correlation = entry.elements()
    return unit_in(unit), correlation.number(-1.01, 1.01)


def quantiles_in(entry: Entry) -> dict[str, float]:
    """Return activations by the share of photographs that they exceed."""
    found = {}
    for share, value in entry.items():
        try:
            float(share)
        except ValueError:
            value.wrong("is not the quantile of a share")
        found[share] = value.number()
    return found


@dataclass(frozen=True, kw_only=True)
class UnitExemplars:
    """One unit's photographs, best first, and how its activation spreads over all of them.

    `values` are the activations, `photographs` the numbers, `positions` row and column of the
    peaks, `boxes` what the unit sees, `classes` numbers of the form's `classes` (their count where
    a photograph has none), `files` where the photographs lie. `silent` is the share of photographs
    that do not excite the unit; `nearest` are units that prefer the same. `whole` names the strip.
    """

    unit: UnitName
    label: Shown = ""
    values: tuple[float, ...]
    photographs: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...] = ()
    boxes: tuple[Annotated[Box, box_in], ...]
    quantiles: Annotated[dict[str, float], quantiles_in] = field(default_factory=dict)
    silent: Share | None = None
    seen: int = 0
    nearest: tuple[Annotated[tuple[str, float], near_in], ...] = ()
    classes: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    whole: str

    def __post_init__(self) -> None:
        columns = [self.values, self.photographs, self.boxes, self.classes or self.values]
        if not self.values or len({len(column) for column in columns}) > 1:
            raise ValueError(
                "does not have a value, a photograph, a box and a class for each exemplar"
            )

    @property
    def flat(self) -> bool:
        """Return whether all peaks lie in the one place of a unit without a map.

        Such a unit sees the whole photograph.
        """
        there = bool(self.positions) and not any(any(place) for place in self.positions)
        return there and not self.cut

    @property
    def cut(self) -> bool:
        """Return whether the unit sees only a part of some photograph."""
        return any(tuple(box) != (0, 0, 1, 1) for box in self.boxes)


@dataclass(frozen=True, kw_only=True)
class Exemplars(StudyForm):
    """The content of `exemplars.json`.

    A line of a strip has `columns` tiles, each `tile` pixels wide and `tile_height` high, or as
    high as wide where that is 0. The strips of version 0.1.0 have one line, and do not say so.
    `left_out` are the photographs that could not be read.
    """

    study: str = "exemplars"
    data: Shown
    split: Shown = ""
    licence: Shown = ""
    seen: int
    k: int = 0
    tile: Annotated[int, lambda entry: entry.whole(2048)]
    tile_height: Annotated[int, lambda entry: entry.whole(2048)] = 0
    columns: int = 0
    classes: tuple[Shown, ...]
    left_out: tuple[str, ...] = ()
    units: tuple[UnitExemplars, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what the file holds; it tells the tiles' height where they are not square."""
        told = super().as_json()
        if not self.tile_height:
            del told["tile_height"]
        return told
