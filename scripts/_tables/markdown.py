"""Return figures and rows as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.statistics import Figure


def table(lines: Sequence[Sequence[str]]) -> str:
    """Return rows as a table of Markdown; the first row has the heads."""
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def with_interval(figure: Figure | Mapping[str, Any], form: str = ".2f") -> str:
    """Return a figure with its interval."""
    value, low, high = parts(figure)
    return f"{value:{form}} ({low:{form}} … {high:{form}})"


def in_percent(figure: Figure | Mapping[str, Any]) -> str:
    """Return a share with its interval."""
    return with_interval(figure, ".0%")


def parts(figure: Figure | Mapping[str, Any]) -> tuple[float, float, float]:
    """Return a figure's value and the ends of its interval."""
    if isinstance(figure, Figure):
        return figure.value, figure.low, figure.high
    return figure["value"], figure["low"], figure["high"]
