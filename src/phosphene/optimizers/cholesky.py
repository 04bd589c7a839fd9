"""CMA-ES by a Cholesky factor (Suttorp, Hansen & Igel 2009), as closed loops use it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from phosphene.optimizers._evolution import (
    Array,
    EvolutionStrategy,
    Search,
    Start,
    recombination_weights,
)
from phosphene.parts import option


@dataclass
class Cholesky(EvolutionStrategy):
    """Adapt a factor of the covariance by its evolution path, from codes around 0 on.

    The settings are those of Wang & Ponce (2022): cc = 4 / (n + 4), cs = √μ / (√μ + √n),
    c1 = 2 / (n + √2)².
    """

    deviation: float = option(3.0, "First deviation, in units of the paper's code.", low=1e-6)
    update_every: int = option(10, "Generations between changes of the factor.", low=1, high=10_000)

    def search(self, start: Start) -> Search:
        return _Factored(self, start)


class _Factored(Search):
    def __init__(self, options: Cholesky, start: Start):
        self.options = options
        self.rng = start.rng
        self.unit = start.unit
        n = len(start.code)
        self.weights = recombination_weights(options.population // 2)
        self.effective = 1 / float(np.square(self.weights).sum())
        self.path_rate = 4 / (n + 4)
        root = math.sqrt(self.effective)
        self.step_rate = root / (root + math.sqrt(n))
        self.factor_rate = 2 / (n + math.sqrt(2)) ** 2
        excess = max(0.0, math.sqrt((self.effective - 1) / (n + 1)) - 1)
        self.damping = 1 + self.step_rate + 2 * excess
        self.expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
        self.mean = np.zeros(n)
        self.deviation = options.deviation
        self.step_path = np.zeros(n)
        self.path = np.zeros(n)
        self.factor = np.eye(n)
        self.inverse = np.eye(n)
        self.noise = np.empty((0, n))
        self.done = 0

    def ask(self) -> Array:
        self.noise = self.rng.standard_normal((self.options.population, len(self.mean)))
        drawn: Array = self.mean + self.deviation * self.noise @ self.factor
        return drawn * self.unit

    def tell(self, scores: Array, codes: Tensor) -> None:
        order = np.argsort(-scores, kind="stable")[: len(self.weights)]
        step = self.weights @ self.noise[order]
        self.mean = self.mean + self.deviation * step @ self.factor
        self.step_path = self._moved(self.step_path, self.step_rate, step)
        self.path = self._moved(self.path, self.path_rate, step @ self.factor)
        self.done += 1
        if self.done % self.options.update_every == 0:
            self._update_factor()
        length = float(np.linalg.norm(self.step_path)) / self.expected
        self.deviation *= math.exp(self.step_rate / self.damping * (length - 1))

    def _moved(self, path: Array, rate: float, step: Array) -> Array:
        """Return an evolution path after a step."""
        found: Array = (1 - rate) * path + math.sqrt(rate * (2 - rate) * self.effective) * step
        return found

    def _update_factor(self) -> None:
        """Add the path's direction to the covariance, and keep the factor's inverse true."""
        white = self.path @ self.inverse
        size = float(white @ white)
        if not size:
            return
        kept = 1 - self.factor_rate
        grown = math.sqrt(1 + size * self.factor_rate / kept)
        self.factor = math.sqrt(kept) * (
            self.factor + np.outer(white, self.path) * ((grown - 1) / size)
        )
        shrunk = (1 - 1 / grown) / size
        inverse = self.inverse - shrunk * np.outer(self.inverse @ white, white)
        self.inverse = inverse / math.sqrt(kept)

    def current(self) -> Array:
        found: Array = self.mean * self.unit
        return found
