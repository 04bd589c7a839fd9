"""Values of a result in words, as its report and the terminal show them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from phosphene.atlas.measures import number

SIGNS = {"holds": "✓", "fails": "✕", "open": "○"}
"""Beside a verdict's word."""
PARTS = ("value", "low", "high")
FIGURE = {*PARTS, "n", "note"}
DIGITS = range(6)
"""Decimals that a figure may have; outside of them it is written as any number is."""


def is_figure(value: Any) -> bool:
    """Return whether a value is a figure of JSON: numbers, or None where it was not measured."""
    if not isinstance(value, Mapping) or value.keys() != FIGURE:
        return False
    return all(value[part] is None or isinstance(value[part], (int, float)) for part in PARTS)


def figure(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return a figure's value and interval, with two digits of the interval's length."""
    value, low, high = (found[part] for part in PARTS)
    if value is None:
        return "–", ""
    if low is None or high is None:
        return number(value), ""
    digits = 1 - math.floor(math.log10(high - low)) if high > low else -1
    digits = 0 if digits < 0 and high > low else digits
    if digits in DIGITS and max(abs(value), abs(low), abs(high)) < 1e6:
        rounded = (
            round(each, digits) + 0.0 for each in (value, low, high)
        )  # + 0.0 makes of −0 a 0
        texts = [f"{each:,.{digits}f}".replace("-", "−") for each in rounded]
    else:
        texts = [number(each) for each in (value, low, high)]
    return texts[0], f"{texts[1]} … {texts[2]}"


def formatted(value: Any) -> str:
    """Any value of JSON in one line; a figure is "x (low … high)"."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1e4 else f"{value:.4g}"
    if is_figure(value):
        middle, ends = figure(value)
        return f"{middle} ({ends})" if ends else middle
    if isinstance(value, Mapping):
        between, of = ("; ", ": ") if _nested(value.values()) else (", ", " ")
        return between.join(f"{key}{of}{formatted(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ("; " if _nested(value) else ", ").join(map(formatted, value))
    return str(value)


def undecided(judged: Mapping[str, Any]) -> str:
    """Return how many values would decide an open expectation of JSON, or "".

    It has two digits, as it rests on the value that was found.
    """
    needed = judged.get("needed")
    if not needed:
        return ""
    step = 10 ** max(0, len(str(needed)) - 2)
    return f"about {math.ceil(needed / step) * step:,} would decide"


def percent(error: float) -> str:
    """Return the level of an interval that misses with this chance."""
    return f"{100 * (1 - error):.4g} %"


def duration(seconds: float) -> str:
    """Return a time as people write it."""
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    return (
        f"{hours:g} h"
        if minutes >= 100
        else f"{minutes} min"
        if minutes >= 2
        else f"{seconds:.0f} s"
    )


def _nested(values: Any) -> bool:
    return any(isinstance(each, (Mapping, list)) for each in values)
