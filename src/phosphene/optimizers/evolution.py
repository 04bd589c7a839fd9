"""An evolution strategy where natural codes are white: their main directions first, then the rest.

A unit's gradient lies mostly along the few directions in which natural codes vary most. So the
first generations vary those, which few pictures suffice for. Later ones vary the others ever more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from phosphene.code_statistics import needed
from phosphene.optimizers._evolution import (
    Array,
    EvolutionStrategy,
    Search,
    Start,
    recombination_weights,
)
from phosphene.parts import option


@dataclass
class Evolution(EvolutionStrategy):
    """Draw codes in opposite pairs around a base, and move it beyond the better half's mean.

    Codes are drawn where natural codes are white: with a deviation of `first_deviation` to
    `last_deviation` along their principal axes, and of `first_rest` to `last_rest` times as much
    off them. All fall or rise exponentially over the generations. The base stays within the length
    of natural codes times `reach`.
    """

    needs_statistics = True
    advance: float = option(3.0, "Way to the mean of the better half.", low=0, high=100)
    first_deviation: float = option(0.9, "Of the first draws, where codes are white.", low=1e-6)
    last_deviation: float = option(0.25, "Of the last draws.", low=1e-6)
    first_rest: float = option(0.1, "Of it, off the principal axes, at first.", low=0)
    last_rest: float = option(1.0, "Of it, off the principal axes, at last.", low=0)
    reach: float = option(1.06, "How far the base may go, in lengths of natural codes.", low=0)

    def search(self, start: Start) -> Search:
        return _White(self, start)


class _White(Search):
    def __init__(self, options: Evolution, start: Start):
        self.options = options
        self.rng = start.rng
        self.statistics = needed(start.prior.statistics)
        self.steps = max(1, start.generations - 1)
        self.done = 0
        n = len(start.code)
        self.axes = self.statistics.axes.cpu().double().numpy().reshape(-1, n)
        self.base = np.zeros(n)
        self.drawn = np.empty((0, n))
        self.weights = recombination_weights(options.population // 2)

    def _between(self, first: float, last: float) -> float:
        """Return a setting of this generation, on the exponential from the first to the last."""
        share = self.done / self.steps
        return first ** (1 - share) * last**share

    def ask(self) -> Array:
        options = self.options
        deviation = self._between(options.first_deviation, options.last_deviation)
        rest = self._between(options.first_rest, options.last_rest)
        half = -(-options.population // 2)
        noise = self.rng.standard_normal((half, len(self.base)))
        along = noise @ self.axes.T @ self.axes
        noise = deviation * (along + rest * (noise - along))
        self.drawn = np.concatenate([noise, -noise])[: options.population]
        return self._codes(self.base + self.drawn)

    def tell(self, scores: Array) -> None:
        order = np.argsort(-scores, kind="stable")[: len(self.weights)]
        base = self.base + self.options.advance * (self.weights @ self.drawn[order])
        along = base @ self.axes.T @ self.axes
        axes = len(self.axes)
        self.base = self._within(along, axes) + self._within(base - along, len(base) - axes)
        self.done += 1

    def _within(self, part: Array, dimensions: int) -> Array:
        """Return a part of the base, no longer than natural codes are in so many dimensions."""
        limit = self.options.reach * math.sqrt(max(1, dimensions))
        length = float(np.linalg.norm(part))
        return part * min(1.0, limit / length) if length else part

    def _codes(self, white: Array) -> Array:
        """Return codes where natural codes are white as codes of the prior."""
        mean = self.statistics.mean
        flat = torch.from_numpy(white).to(mean).view(len(white), *mean.shape)
        coloured = self.statistics.whitened(flat, 1.0) + mean
        found: Array = coloured.flatten(1).cpu().double().numpy()
        return found

    def current(self) -> Array:
        return self._codes(self.base[None])[0]
