"""The responses of a generation: which are there, which are lacking, and what they mean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from phosphene.errors import BadRequest
from phosphene.loops.generation import Response

Means = Mapping[str, float]
"""The mean response of each channel."""


class Trials:
    """Collect responses by picture, trial and channel, of the channels that are wanted."""

    def __init__(self, channels: Iterable[str]):
        self.channels = [*channels]
        self._values: dict[tuple[str, int], dict[str, float]] = {}

    def add(self, response: Response) -> None:
        """Count a response; NaN is a trial that failed."""
        key = (response.picture, response.trial)
        self._values.setdefault(key, {})[response.channel] = response.value

    def value(self, picture: str, trial: int, channel: str) -> float | None:
        """Return a response that was counted; None where there is none."""
        return self._values.get((picture, trial), {}).get(channel)

    def told(self, picture: str, trial: int) -> set[str]:
        """Return the channels of which a trial has a response, also one that failed."""
        return {*self._values.get((picture, trial), {})}

    def has(self, picture: str, trial: int) -> bool:
        """Return whether a trial has a response of every channel, also one that failed."""
        return all(name in self._values.get((picture, trial), {}) for name in self.channels)

    def _of(self, channel: str) -> list[float]:
        """Return all responses of a channel."""
        return [values[channel] for values in self._values.values() if channel in values]

    @property
    def silent(self) -> list[str]:
        """Return the channels without any response that did not fail."""
        return [name for name in self.channels if all(map(math.isnan, self._of(name)))]

    @property
    def dead(self) -> list[str]:
        """Return the channels that were told, and whose every trial failed."""
        return [name for name in self.silent if self._of(name)]

    def lacking(self, pictures: Sequence[str], repeats: int) -> list[str]:
        """Return the pictures that need more presentations, once for each.

        A dead channel is not waited for, as long as another one lives.
        """
        dead = self.dead if len(self.dead) < len(self.channels) else []
        alive = [name for name in self.channels if name not in dead]
        whole = Counter(
            picture
            for (picture, _), values in self._values.items()
            if all(not math.isnan(values.get(name, math.nan)) for name in alive)
        )
        return [name for name in pictures for _ in range(max(0, repeats - whole[name]))]

    def can_score(self, pictures: Sequence[str]) -> bool:
        """Return whether a picture has responses of all channels that gave any."""
        alive = [name for name in self.channels if name not in self.silent]
        means = self.means(pictures).values()
        return bool(alive) and any(all(name in each for name in alive) for each in means)

    def failed(self, pictures: Sequence[str]) -> int:
        """Return how many trials of pictures were told, and failed in a channel that is wanted."""
        return sum(
            picture in pictures and any(math.isnan(values.get(n, 0.0)) for n in self.channels)
            for (picture, _), values in self._values.items()
        )

    def means(self, pictures: Sequence[str]) -> dict[str, Means]:
        """Return the mean responses of pictures, of the trials that did not fail."""
        found: dict[str, dict[str, list[float]]] = {name: {} for name in pictures}
        for (picture, _), values in sorted(self._values.items()):
            for channel, value in values.items():
                if picture in found and not math.isnan(value):
                    found[picture].setdefault(channel, []).append(value)
        return {
            picture: {name: math.fsum(each) / len(each) for name, each in channels.items()}
            for picture, channels in found.items()
        }

    def scores(
        self,
        pictures: Sequence[str],
        readout: Callable[[Means], float],
        drift: str,
        references: Means,
        first: Means,
    ) -> list[float]:
        """Return the score of each picture, corrected by what the references answer now.

        A picture without any response has the mean score of the others. `BadRequest` where no
        picture has one.
        """
        means = self.means(pictures)
        corrected = {
            picture: {
                channel: without_drift(value, drift, references.get(channel), first.get(channel))
                for channel, value in channels.items()
            }
            for picture, channels in means.items()
        }
        alive = [name for name in self.channels if name not in self.silent]
        there = {
            name: readout(values)
            for name, values in corrected.items()
            if alive and all(channel in values for channel in alive)
        }
        if not there:
            raise BadRequest(
                f"no picture has a response of all channels: {', '.join(self.channels)}"
            )
        middle = math.fsum(there.values()) / len(there)
        return [there.get(name, middle) for name in pictures]


def drift_of(means: Sequence[Means]) -> dict[str, float]:
    """Return the mean response of each channel to the reference pictures."""
    channels = {name for each in means for name in each}
    return {
        name: math.fsum(each[name] for each in means if name in each)
        / sum(name in each for each in means)
        for name in sorted(channels)
    }


def without_drift(value: float, drift: str, now: float | None, first: float | None) -> float:
    """Return a response as it would have been in the first generation.

    With "gain" it is scaled by what the references answered then over what they answer now, and
    with "offset" shifted by the difference. A gain from or to 0 and less is no gain: nothing is
    changed.
    """
    if drift == "none" or now is None or first is None:
        return value
    if drift == "offset":
        return value - now + first
    return value * first / now if now > 0 and first > 0 else value


SHORTEST = 4
"""Values; of fewer, not even a series that always rises passes the test."""
RISING = 1.645
"""A standard normal number is larger in 5 % of cases."""


def rises(values: Sequence[float]) -> bool:
    """Return whether a series rises, by the one-sided test of Mann and Kendall at 5 %.

    The statistic is the number of pairs that rise less the number of those that fall. Its variance
    without a trend is n(n − 1)(2n + 5) / 18. Source: Kendall 1975.
    """
    n = len(values)
    pairs = [(values[i], values[j]) for i in range(n) for j in range(i + 1, n)]
    statistic = sum((later > former) - (later < former) for former, later in pairs)
    return (statistic - 1) / math.sqrt(max(1, n * (n - 1) * (2 * n + 5) / 18)) > RISING
