"""A claim: what is expected, stated before the experiment, and a verdict from the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from phosphene.claims.experiment import Experiment
from phosphene.statistics import ERROR, Figure

Verdict = Literal["holds", "fails", "open"]
MIN_VALUES = 8
"""Units or photographs, below which no verdict is given: eight agree by chance once in 256."""


@dataclass(frozen=True)
class Expectation:
    """A number that should lie above `least`; its name is a key of the claim's findings."""

    number: str
    says: str
    least: float = 0.0

    def verdict(self, found: Figure) -> Verdict:
        """Return the verdict of a measured figure.

        It holds where the whole interval lies above `least`, and fails where it lies below.
        Anything else is open. So is a figure of fewer than `MIN_VALUES` values, since equal values
        of few have an interval of no width.
        """
        if found.n < MIN_VALUES:
            return "open"
        if found.low > self.least:
            return "holds"
        return "fails" if found.high < self.least else "open"

    def needed(self, found: Figure) -> int | None:
        """Return about how many values would decide an open figure, if its value stays.

        An interval of n values is shorter by the root of n. So its end, which lies `reach` from the
        value, passes the limit where n grows by (reach / distance of the value from the limit)².
        None where the figure is decided, and where the value lies at the limit.
        """
        off = found.value - self.least
        if self.verdict(found) != "open" or not off or not math.isfinite(off):
            return None
        reach = found.value - found.low if off > 0 else found.high - found.value
        return max(MIN_VALUES, found.n + 1, math.ceil(found.n * (reach / off) ** 2))


@dataclass
class Findings:
    """What an experiment found.

    `numbers` holds one figure for each expectation, at the claim's own level, and others worth
    reading at 95 %. `rows` is a table for people, `units` all that was measured of each unit or
    photograph, `pictures` captions and files in the claim's folder, `settings` what was chosen on
    the way.
    """

    numbers: dict[str, Figure]
    rows: list[dict[str, Any]] = field(default_factory=list)
    units: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[tuple[str, Path]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims. `measure` measures it with what an `Experiment` has."""

    name: str
    title: str
    says: str
    expected: tuple[Expectation, ...]
    measure: Callable[[Experiment], Findings]
    needs: tuple[str, ...] = ()
    """Names in the zoo, without which it cannot be measured."""
    data: tuple[str, ...] = ("objects",)
    """The experiment's photographs that it looks at."""

    @property
    def level(self) -> float:
        """Return the chance of error of each expectation's interval (Bonferroni)."""
        return ERROR / max(1, len(self.expected))

    def verdicts(self, numbers: Mapping[str, Figure]) -> list[Verdict]:
        """Return a verdict for each expectation."""
        return [each.verdict(numbers[each.number]) for each in self.expected]

    def verdict(self, numbers: Mapping[str, Figure]) -> Verdict:
        """Return that it holds where every expectation does, and fails where one fails."""
        found = set(self.verdicts(numbers))
        return "holds" if found == {"holds"} else "fails" if "fails" in found else "open"


def named(unit: Mapping[str, Any], arm: str, place: int = 0) -> float:
    """Return the share of judges that name a unit's picture of an arm first.

    With `place` 1 it is the share that has it among the first five. `unit` has `named`: for each
    arm a list, one for each judge, of these two answers.
    """
    return sum(answers[place] for answers in unit["named"][arm]) / len(unit["named"][arm])
