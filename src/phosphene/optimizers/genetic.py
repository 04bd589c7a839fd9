"""The genetic algorithm of XDream (Ponce et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from phosphene.optimizers._evolution import Array, EvolutionStrategy, Search, Start
from phosphene.parts import option


@dataclass
class Genetic(EvolutionStrategy):
    """Recombine two parents, drawn by their scores, and change some genes of the child.

    The best are kept as they are. The settings are those of Wang & Ponce (2022).
    """

    mutation_rate: float = option(0.25, "Share of the genes that change.", low=0, high=1)
    mutation_size: float = option(
        0.75, "Deviation of a change, in units of the paper's code.", low=0
    )
    temperature: float = option(2.0, "Of the choice of parents, in deviations.", low=1e-3)
    skew: float = option(0.75, "Share of the genes from the better parent.", low=0.5, high=1)
    conserved: int = option(10, "Codes that are kept as they are.", low=0, high=4096)

    def search(self, start: Start) -> Search:
        return _Population(self, start)


class _Population(Search):
    def __init__(self, options: Genetic, start: Start):
        self.options = options
        self.rng = start.rng
        self.size = options.mutation_size * start.unit
        self.codes = start.drawn(options.population)
        self.best = self.codes[0]

    def ask(self) -> Array:
        return self.codes

    def tell(self, scores: Array, codes: Tensor) -> None:
        order = np.argsort(-scores, kind="stable")
        self.best = self.codes[order[0]]
        fitness = (scores - scores.max()) / (scores.std() + 1e-12)
        chances = np.exp(fitness / self.options.temperature)
        chances /= chances.sum()
        n = len(scores)
        kept = min(self.options.conserved, n - 1)
        children = [self._child(scores, chances) for _ in range(n - kept)]
        self.codes = np.concatenate([self.codes[order[:kept]], children])

    def _child(self, scores: Array, chances: Array) -> Array:
        """Return a child of two different parents."""
        first = self.rng.choice(len(scores), p=chances)
        others = chances * (np.arange(len(scores)) != first)
        second = self.rng.choice(len(scores), p=others / others.sum())
        better, worse = (first, second) if scores[first] >= scores[second] else (second, first)
        genes = self.codes.shape[1]
        own = self.rng.random(genes) < self.options.skew
        changed = self.rng.random(genes) < self.options.mutation_rate
        child = np.where(own, self.codes[better], self.codes[worse])
        result: Array = child + changed * self.rng.normal(0, self.size, genes)
        return result

    def current(self) -> Array:
        return self.best
