"""Make the tables that compare the climb with other tools."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from _tables.markdown import table

FILE = "benchmarks/peers.json"


def rows(found: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return the figures of each tool in each precision, with the names of both."""
    tools = found["tools"].items()
    return [(tool, name, own) for tool, both in tools for name, own in both.items()]


def times(found: Mapping[str, Any]) -> str:
    """Return how long each tool takes."""
    heads = [
        "tool",
        "precision",
        "s a picture",
        "to 95 % of its end, s",
        "to the best photograph, s",
    ]
    lines = [heads]
    for tool, precision, own in rows(found):
        near = f"{own['seconds_to_95']:.1f}"
        seconds = f"{own['seconds']:.1f}"
        if own["steps_run"] < own["steps"]:
            seconds = f"{seconds}, from {own['steps_run']} of {own['steps']:,} steps"
            near = "–"
        lines.append([tool, precision, seconds, near, to_best(own["seconds_to_best"])])
    units = ", ".join(f"`fc8:{unit}`" for unit in found["units"])
    return (
        f"{table(lines)}\n\nThe units are {units}; there are {found['photographs']:,} photographs."
    )


def to_best(seconds: Sequence[float | None]) -> str:
    """Return the median time of the units that exceed the best photograph, and how many do."""
    there = [each for each in seconds if each is not None]
    if not there:
        return f"none of {len(seconds)} units"
    units = "" if len(there) == len(seconds) else f", {len(there)} of {len(seconds)} units"
    return f"{statistics.median(there):.1f}{units}"


def pictures(found: Mapping[str, Any]) -> str:
    """Return what each tool's pictures are worth, and how well it uses the machine."""
    judge = f"named by `{found['judge']}`"
    lines = [["tool", "precision", "activation", judge, "share of the peak"]]
    for tool, precision, own in rows(found):
        whole = own["steps_run"] == own["steps"]
        named = f"{own['named']:.0%}" if whole else "–"
        activation = f"{own['activation']:.1f}" if whole else "–"
        lines.append([tool, precision, activation, named, f"{own['share_of_peak']:.0%}"])
    return table(lines)


TABLES = {"times": times, "pictures": pictures}
