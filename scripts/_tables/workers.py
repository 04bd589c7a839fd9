"""Make the tables of workers, and of how exact an estimate is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables.markdown import table

FILE = "benchmarks/workers.json"


def rates(found: Mapping[str, Any]) -> str:
    """Return how many pictures workers climb in a second."""
    alone = found["rates"]["1"]
    lines = [["workers", "pictures a second", "times one worker"]]
    for count, rate in found["rates"].items():
        lines.append([count, f"{rate:.2f}", f"{rate / alone:.2f}"])
    return table(lines)


def estimate(found: Mapping[str, Any]) -> str:
    """Return what was foreseen of one run, and what the run took."""
    units = {"seconds": ("time, s", 1.0, ".1f"), "bytes": ("memory, MB", 1e6, ".0f")}
    lines = [["what", "foreseen", "taken", "taken ÷ foreseen"]]
    for name, (said, unit, form) in units.items():
        values = [found["estimate"][name][each] for each in ("foreseen", "taken")]
        shown = [f"{value / unit:{form}}" for value in values]
        lines.append([said, *shown, f"{values[1] / values[0]:.2f}"])
    return table(lines)


TABLES = {"rates": rates, "estimate": estimate}
