"""Figures as numbers: axes and curves in shares of a hundred, which the pages draw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from phosphene.atlas.cards import Exemplars, Picture

MAX_NUMBER = 1e300
"""The largest number that is drawn; an axis needs room above it."""
MAX_POINTS = 300
"""Of a curve that is drawn; a longer one is thinned."""


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers with round ends and a few round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Return where a value lies on the axis, 0 … 100."""
        return round(min(max(100 * (value - self.low) / (self.high - self.low), 0), 100), 2)

    def stretch(self, first: float, last: float) -> tuple[float, float]:
        """Return where the stretch between two values begins on the axis, and how long it is."""
        low, high = sorted((self.share(first), self.share(last)))
        return low, round(high - low, 2)


@dataclass(frozen=True)
class Climb:
    """Score curves of several pictures of one target on common axes."""

    scores: Axis
    steps: Axis
    lines: tuple[tuple[Picture, str], ...]


@dataclass(frozen=True)
class Spread:
    """How a unit's activation is spread over photographs.

    Its exemplars and its pictures lie on the same axis.
    """

    axis: Axis
    quantiles: tuple[tuple[float, float], ...]
    exemplars: tuple[float, ...]
    pictures: tuple[float, ...]


def axis(values: Iterable[float], ticks: int = 4) -> Axis:
    """Return an axis that holds all the values that are numbers, and 0 … 1 where there are none."""
    found = [value for value in values if abs(value) <= MAX_NUMBER] or [0.0, 1.0]
    low, high = min(found), max(found)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, 1e-12):
        pad = size / 2 if size > 1e-12 else 1
        low, high = low - pad, high + pad
    rough = (high - low) / ticks
    decade = 10.0 ** math.floor(math.log10(rough))
    step = decade * next(each for each in (1, 2, 5, 10) if each * decade >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(i * step for i in range(first, last + 1)))


def climb(pictures: Sequence[Picture]) -> Climb | None:
    """Return the curves of pictures; None where no record has one."""
    drawn = [picture for picture in pictures if sum(map(math.isfinite, picture.curve)) > 1]
    if not drawn:
        return None
    scores = axis(value for picture in drawn for value in picture.curve)
    longest = max(len(picture.curve) for picture in drawn)
    steps = Axis(0, longest - 1, (0, longest))
    return Climb(
        scores, steps, tuple((picture, _points(picture.curve, steps, scores)) for picture in drawn)
    )


def _points(curve: Sequence[float], steps: Axis, scores: Axis) -> str:
    stride = -(-len(curve) // MAX_POINTS)
    kept = [(i, value) for i, value in enumerate(curve) if i % stride == 0 or i == len(curve) - 1]
    return " ".join(
        f"{steps.share(i):g},{100 - scores.share(v):g}" for i, v in kept if math.isfinite(v)
    )


def spread(exemplars: Exemplars, pictures: Sequence[Picture]) -> Spread | None:
    """Return a unit's activation on photographs, and on its pictures.

    None where no quantile is known.
    """
    if not exemplars.quantiles:
        return None
    best = tuple(exemplar.value for exemplar in exemplars.shown)
    scores = tuple(picture.score for picture in pictures if math.isfinite(picture.score))
    values = (*(value for _, value in exemplars.quantiles), *best, *scores)
    return Spread(axis(values, 5), exemplars.quantiles, best, scores)
