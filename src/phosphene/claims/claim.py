"""What a claim is: what is expected, said before the experiment, and a verdict that follows from the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from phosphene.claims.lab import Lab
from phosphene.evaluation import Figure

Verdict = Literal["holds", "fails", "open"]
ERROR = 0.05
"""The chance that any interval of a claim misses its number; each of m expectations gets the m-th part (Bonferroni)."""
FEWEST = 8
"""Units or photographs, below which no verdict is given."""
DRAWS = 10_000
"""Bootstrap samples."""
MOST = 4000
"""Values of a sample that are resampled at once, so that memory stays small."""


@dataclass(frozen=True)
class Expectation:
    """A number that should lie above `least`; its name is a key of the claim's findings."""

    number: str
    says: str
    least: float = 0.0

    def verdict(self, found: Figure) -> Verdict:
        """Holds where the whole interval lies above `least`, fails where it lies below, else nothing is decided; and
        nothing is where fewer than `FEWEST` were measured, since equal values of few have an interval of no width."""
        if found.n < FEWEST:
            return "open"
        if found.low > self.least:
            return "holds"
        return "fails" if found.high < self.least else "open"


@dataclass
class Findings:
    """What an experiment found.

    `numbers` holds one figure for each expectation, at the claim's own level, and others worth reading at 95 %.
    `rows` is a table for people, `units` all that was measured of each unit or photograph, `pictures` captions and
    files in the claim's folder, `settings` what was chosen on the way.
    """

    numbers: dict[str, Figure]
    rows: list[dict[str, Any]] = field(default_factory=list)
    units: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[tuple[str, Path]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims. `experiment` measures it with what a `Lab` has."""

    name: str
    title: str
    says: str
    expected: tuple[Expectation, ...]
    experiment: Callable[[Lab], Findings]
    needs: tuple[str, ...] = ()
    """Names in the zoo, without which it cannot be measured."""
    data: tuple[str, ...] = ("objects",)
    """The lab's photographs that it looks at."""

    @property
    def level(self) -> float:
        """The chance of error that each expectation's interval is given."""
        return ERROR / max(1, len(self.expected))

    def verdicts(self, numbers: Mapping[str, Figure]) -> list[Verdict]:
        """One for each expectation."""
        return [each.verdict(numbers[each.number]) for each in self.expected]

    def verdict(self, numbers: Mapping[str, Figure]) -> Verdict:
        """Holds where every expectation does, fails where one fails."""
        found = set(self.verdicts(numbers))
        return "holds" if found == {"holds"} else "fails" if "fails" in found else "open"


def interval(values: Sequence[float], error: float = ERROR, note: str = "", statistic: Any = np.mean) -> Figure:
    """A statistic of values, one a unit, with its bootstrap interval. What is no number does not count."""
    sample = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not len(sample):
        return Figure(math.nan, math.nan, math.nan, 0, note)
    rng, found = np.random.default_rng(0), []
    for draws in np.array_split(np.arange(DRAWS), max(1, len(sample) * DRAWS // (MOST * 1000))):
        found.append(statistic(sample[rng.integers(len(sample), size=(len(draws), len(sample)))], axis=1))
    low, high = np.quantile(np.concatenate(found), [error / 2, 1 - error / 2])
    return Figure(float(statistic(sample)), float(low), float(high), len(sample), note)


def gain(one: Sequence[float], other: Sequence[float], error: float = ERROR, note: str = "") -> Figure:
    """The mean of the differences of paired values, with its interval: above 0 where `one` is the larger."""
    return interval([a - b for a, b in zip(one, other, strict=True)], error, note)


def contrast(one: Sequence[float], other: Sequence[float], error: float = ERROR, note: str = "") -> Figure:
    """The difference of two means of values that are not paired, with its interval."""
    a, b = (np.array([value for value in values if math.isfinite(value)], np.float64) for values in (one, other))
    if not len(a) or not len(b):
        return Figure(math.nan, math.nan, math.nan, 0, note)
    rng = np.random.default_rng(0)
    drawn = [sample[rng.integers(len(sample), size=(DRAWS, len(sample)))].mean(1) for sample in (a, b)]
    low, high = np.quantile(drawn[0] - drawn[1], [error / 2, 1 - error / 2])
    return Figure(float(a.mean() - b.mean()), float(low), float(high), min(len(a), len(b)), note)
