"""Statistics of measured values, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from phosphene.forms.figures import Figure as Figure

ERROR = 0.05
"""The chance that an interval misses."""
DRAWS = 10_000
"""Bootstrap samples."""
MAX_RESAMPLED = 4_000_000
"""Values that are resampled at once, so that memory stays small."""


def mean(values: Sequence[float], note: str = "", error: float = ERROR) -> Figure:
    """Return the mean of the finite values with the bootstrap's interval."""
    return bootstrap(values, note, error)


def median(values: Sequence[float], note: str = "", error: float = ERROR) -> Figure:
    """Return the median of the finite values with the bootstrap's interval."""
    return bootstrap(values, note, error, np.median)


def share(values: Sequence[float], note: str = "", error: float = ERROR) -> Figure:
    """Return the mean of shares, one for each unit, of which only the finite count.

    The interval is Wilson's where each share is 0 or 1, else the bootstrap's.
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if finite and set(finite) <= {0.0, 1.0}:
        found = sum(finite) / len(finite)
        return Figure(found, *wilson(found, len(finite), error), len(finite), note)
    return bootstrap(finite, note, error)


def bootstrap(
    values: Sequence[float],
    note: str = "",
    error: float = ERROR,
    statistic: Callable[..., Any] = np.mean,
) -> Figure:
    """Return a statistic of the finite values with the interval of the percentile bootstrap.

    The interval misses with the chance `error` (Efron 1979). See `tails` for small samples.
    """
    sample = _finite(values)
    if not len(sample):
        return Figure(math.nan, math.nan, math.nan, 0, note)
    rng = np.random.default_rng(0)
    found = []
    for draws in np.array_split(np.arange(DRAWS), max(1, len(sample) * DRAWS // MAX_RESAMPLED)):
        chosen = rng.integers(len(sample), size=(len(draws), len(sample)))
        found.append(statistic(sample[chosen], axis=1))
    low, high = np.quantile(np.concatenate(found), tails(error, len(sample)))
    return Figure(float(statistic(sample)), float(low), float(high), len(sample), note)


@cache
def tails(error: float, n: int) -> tuple[float, float]:
    """Return the quantiles of a bootstrap over n values that bound an interval.

    The interval misses with the chance `error`. The quantiles are further apart than `error` alone
    would have them: a bootstrap's spread is too small by √(1 − 1/n) and is itself an estimate, as
    Student's t takes into account for the normal distribution (Hesterberg 2015, What Teachers
    Should Know About the Bootstrap: the expanded percentile interval). Student's t is drawn a
    million times.
    """
    if n < 2:
        return 0.0, 1.0
    t = np.quantile(np.abs(np.random.default_rng(0).standard_t(n - 1, 2**20)), 1 - error)
    low = NormalDist().cdf(-float(t) * (n / (n - 1)) ** 0.5)
    return low, 1 - low


def wilson(share: float, n: int, error: float = ERROR) -> tuple[float, float]:
    """Return Wilson's interval for a share of n, which misses with the chance `error`."""
    z = NormalDist().inv_cdf(1 - error / 2)
    centre = share + z * z / (2 * n)
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def paired_difference(
    one: Sequence[float], other: Sequence[float], error: float = ERROR, note: str = ""
) -> Figure:
    """Return the mean difference of paired values: above 0 where `one` is the larger."""
    return bootstrap([a - b for a, b in zip(one, other, strict=True)], note, error)


def difference_of_means(
    one: Sequence[float], other: Sequence[float], error: float = ERROR, note: str = ""
) -> Figure:
    """Return the difference of the means of values that are not paired."""
    samples = [_finite(values) for values in (one, other)]
    fewer = min(map(len, samples))
    if not fewer:
        return Figure(math.nan, math.nan, math.nan, 0, note)
    rng = np.random.default_rng(0)
    means = []
    for sample in samples:
        chosen = rng.integers(len(sample), size=(DRAWS, len(sample)))
        means.append(sample[chosen].mean(1))
    low, high = np.quantile(means[0] - means[1], tails(error, fewer))
    value = samples[0].mean() - samples[1].mean()
    return Figure(float(value), float(low), float(high), fewer, note)


def _finite(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.array([value for value in values if math.isfinite(value)], np.float64)
