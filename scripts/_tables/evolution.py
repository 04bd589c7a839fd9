"""Make the tables of searches without gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from _tables.markdown import table
from phosphene.statistics import mean, paired_difference

FILE = "docs/evolution.json"
SIGMAS = (0.0, 0.2, 0.5)
OURS = "surrogate"


def by_search(cells: Callable[..., list[str]], which: str) -> Callable[[Mapping[str, Any]], str]:
    """Return what makes a table with a row for each search: shares, or how much less they are."""

    def make(found: Mapping[str, Any]) -> str:
        """Return the table of one kind of pictures."""
        lines = [["search", *(f"σ = {sigma:g}" for sigma in SIGMAS)]]
        for search in dict.fromkeys(row["search"] for row in found["runs"]):
            if cells is shares or search != OURS:
                lines.append([f"`{search}`", *cells(found, search, which)])
        return table(lines)

    return make


def shares(found: Mapping[str, Any], search: str, which: str) -> list[str]:
    """Return the mean share over units for each noise, with half its interval."""
    cells = []
    for sigma in SIGMAS:
        units = by_unit(found, search, which).get(sigma, {})
        figure = mean([*units.values()]) if len(units) > 1 else None
        told = f"{figure.value:.2f} ± {figure.high - figure.value:.2f}" if figure else "–"
        cells.append(told)
    return cells


def gains(found: Mapping[str, Any], search: str, which: str) -> list[str]:
    """Return by how much our share is higher for each noise, paired by units, with its interval."""
    cells = []
    for sigma in SIGMAS:
        ours = by_unit(found, OURS, which).get(sigma, {})
        units = by_unit(found, search, which).get(sigma, {})
        common = sorted(units.keys() & ours.keys())
        if len(common) < 2:
            cells.append("–")
            continue
        less = paired_difference([ours[u] for u in common], [units[u] for u in common])
        cells.append(f"{less.value:+.2f} ({less.low:+.2f} to {less.high:+.2f})")
    return cells


def by_unit(found: Mapping[str, Any], search: str, which: str) -> dict[float, dict[str, float]]:
    """Return each unit's mean share of its ceiling over seeds, by noise."""
    shares: dict[float, dict[str, list[float]]] = {}
    for row in found["runs"]:
        if row["search"] == search:
            share = row[which] / found["ceilings"][row["unit"]]
            shares.setdefault(row["sigma"], {}).setdefault(row["unit"], []).append(share)
    return {
        sigma: {unit: float(np.mean(values)) for unit, values in units.items()}
        for sigma, units in shares.items()
    }


TABLES = {
    "shown": by_search(shares, "best"),
    "shown-less": by_search(gains, "best"),
    "handed": by_search(shares, "preferred"),
    "handed-less": by_search(gains, "preferred"),
}
