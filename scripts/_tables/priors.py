"""Make the tables of priors that are compared on networks of a thousand classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from _tables.markdown import table
from _tables.thousand import NAMES

FILE = "docs/priors.json"


def climbed(found: Mapping[str, Any]) -> str:
    """Return a row for each network and prior, at the rate that excites the units most."""
    lines = [["network", "prior", "rate", "named first", "among five", "activation"]]
    for subject in dict.fromkeys(run["subject"] for run in found["runs"]):
        own = [run for run in found["runs"] if run["subject"] == subject]
        priors = dict.fromkeys(run["prior"] for run in own)
        rows = {prior: best([run for run in own if run["prior"] == prior]) for prior in priors}
        base = rows[found["baseline"]]["scores"]
        for prior, run in rows.items():
            ratio = median(score / base[unit] for unit, score in run["scores"].items())
            rate = f"{run['options']['rate']:g}"
            shares = [shown(run["first"]), shown(run["five"])]
            lines.append([NAMES[subject], f"`{prior}`", rate, *shares, f"{ratio:.2f}"])
    return table(lines)


def best(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the run of the highest median score."""
    return max(runs, key=lambda run: median(run["scores"].values()))


def shown(told: Mapping[str, Any]) -> str:
    """Return a share with its interval."""
    return f"{told['value']:.0%} ({told['low']:.0%} to {told['high']:.0%})"


TABLES = {"climbed": climbed}
