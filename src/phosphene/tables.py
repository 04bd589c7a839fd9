"""Tables of results, which the command line prints and a notebook shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from phosphene.files import without_nan
from phosphene.forms import Dissection, StudyTable
from phosphene.forms.exemplars import UnitExemplars
from phosphene.forms.figures import measures_of
from phosphene.texts import clean

PARTS = ("value", "low", "high")
"""What a figure in JSON has of numbers; null where it could not be measured."""


@dataclass(frozen=True, repr=False)
class Table:
    """Hold rows of texts under headings, with a title above them and notes below.

    `unbroken` are the numbers of columns whose texts stay on one line.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    title: str = ""
    notes: tuple[str, ...] = ()
    unbroken: tuple[int, ...] = ()

    def __repr__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join(f"{clean(text):{width}}" for text, width in zip(line, widths, strict=True))
            for line in lines
        ]
        title = [clean(self.title)] if self.title else []
        return "\n".join(line.rstrip() for line in [*title, *shown, *map(clean, self.notes)])

    def _repr_html_(self) -> str:
        title = f"<caption>{_html(self.title)}</caption>" if self.title else ""
        head = "".join(f"<th>{_html(each)}</th>" for each in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{_html(text)}</td>' for text in row)}</tr>\n" for row in self.rows
        )
        notes = "".join(f"<p>{_html(each)}</p>\n" for each in self.notes)
        return (
            f"<table>{title}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>\n"
            + notes
        )


def _html(text: str) -> str:
    return escape(clean(text))


def figures_table(title: str, figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of figures, as JSON has them, with their intervals."""
    rows = []
    for name, figure in without_nan(figures).items():
        value, low, high = (_three_digits(figure.get(part)) for part in PARTS)
        rows.append((name, value, f"{low} … {high}", f"{figure['n']:,}", figure["note"]))
    return Table(("figure", "", "95 % interval", "n", ""), rows, title, unbroken=(0, 2))


def _three_digits(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}"


def rows_table(rows: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Return a table of a study's rows, with a column for each measure."""
    keys = list(dict.fromkeys(key for row in rows for key in measures_of(row)))
    cells = [(row["unit"], *(_cell(row.get(key, "")) for key in keys)) for row in rows]
    return Table(("unit", *keys), cells, title)


def study_table(found: StudyTable) -> Table:
    """Return a study's numbers, a row for each unit."""
    return rows_table(found.units)


def _cell(told: Any) -> str:
    value = getattr(told, "value", told)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def exemplars_table(rows: Sequence[UnitExemplars], signed: Collection[str]) -> Table:
    """Return a row for each unit; in `signed` layers, which go below 0, no unit is silent."""
    columns = ("unit", "channel of", "largest", "99 %", "median", "silent", "photographs")
    cells = [
        (
            row.unit,
            row.label,
            f"{row.values[0]:.2f}",
            f"{row.quantiles['0.99']:.2f}",
            f"{row.quantiles['0.5']:.2f}",
            "–" if row.unit.rpartition(":")[0] in signed else f"{row.silent or 0:.1%}",
            ", ".join(map(str, row.photographs)),
        )
        for row in rows
    ]
    return Table(columns, cells)


def detectors_table(found: Dissection) -> Table:
    """Return a row for each channel that detects an object, the best one first."""
    detectors = [row for row in found.units if row.iou > found.detector_above]
    objects = {row.object for row in detectors}
    rows = [
        (
            row.unit,
            row.object,
            f"{row.iou:.3f}",
            ", ".join(f"{name} {iou:.3f}" for name, iou in row.others),
        )
        for row in sorted(detectors, key=lambda row: -row.iou)
    ]
    title = f"{len(detectors)} detectors of {len(objects)} objects"
    return Table(("unit", "object", "IoU", "others"), rows, title)
