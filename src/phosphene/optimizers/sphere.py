"""SphereCMA (Wang & Ponce 2022): a search on a sphere of codes, with steps that shrink."""

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
class Sphere(EvolutionStrategy):
    """Draw codes around a base on a sphere, and move the base beyond the mean of the better half.

    The angle of a draw falls exponentially, from `first_angle` to `last_angle` degrees over the
    root of the number of dimensions. The sphere's radius is 300 in the paper's code of 4,096 units.
    """

    learning_rate: float = option(
        1.5, "Way towards the better codes' mean; 1 ends there.", low=0, high=10
    )
    first_angle: float = option(50.0, "Angle of the first draws, in degrees.", low=0, high=180)
    last_angle: float = option(7.33, "Angle of the last draws, in degrees.", low=1e-3, high=180)

    def search(self, start: Start) -> Search:
        return _OnSphere(self, start)


class _OnSphere(Search):
    def __init__(self, options: Sphere, start: Start):
        self.options = options
        self.rng = start.rng
        self.steps = max(1, start.generations - 1)
        self.done = 0
        self.dimensions = len(start.code)
        self.radius = 300 * start.unit * math.sqrt(self.dimensions / 4096)
        self.weights = recombination_weights(options.population // 2)
        self.codes = np.empty((0, self.dimensions))
        self.base: Array | None = None

    def ask(self) -> Array:
        drawn = self.rng.standard_normal((self.options.population, self.dimensions))
        if self.base is None:
            self.codes = drawn * (self.radius / np.linalg.norm(drawn, axis=1, keepdims=True))
            return self.codes
        unit = self.base / self.radius
        tangent = drawn - np.outer(drawn @ unit, unit)
        lengths = np.linalg.norm(tangent, axis=1, keepdims=True)
        angles = self._angle() * lengths
        self.codes = np.cos(angles) * self.base + np.sin(angles) * self.radius * tangent / lengths
        return self.codes

    def _angle(self) -> float:
        """Return the angle of a draw whose tangent has length 1, in radians."""
        share = (self.options.last_angle / self.options.first_angle) ** (self.done / self.steps)
        return math.radians(self.options.first_angle * share) / math.sqrt(self.dimensions)

    def tell(self, scores: Array, codes: Tensor) -> None:
        order = np.argsort(-scores, kind="stable")[: len(self.weights)]
        middle = self.weights @ self.codes[order]
        middle *= self.radius / np.linalg.norm(middle)
        self.base = middle if self.base is None else self._between(self.base, middle)
        self.done += 1

    def _between(self, base: Array, middle: Array) -> Array:
        """Return the point on the arc from `base` through `middle`."""
        angle = math.acos(min(1.0, max(-1.0, float(base @ middle) / self.radius**2)))
        if angle < 1e-9:
            return middle
        rate = self.options.learning_rate
        moved = math.sin((1 - rate) * angle) * base + math.sin(rate * angle) * middle
        found: Array = moved * (self.radius / np.linalg.norm(moved))
        return found

    def current(self) -> Array:
        return self.codes[0] if self.base is None else self.base
