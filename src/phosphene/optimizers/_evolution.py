"""Searches that need only scores: each generation's codes are drawn, ranked and learned from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from phosphene.optimizers._optimizer import Gradient, Optimizer
from phosphene.optimizers.mean import paper_unit
from phosphene.parts import option
from phosphene.priors import Prior

Array = npt.NDArray[np.float64]


class Search(ABC):
    """Search for one member: ask for codes (population, d), tell their scores (population,)."""

    @abstractmethod
    def ask(self) -> Array:
        """Return the codes of the next generation."""

    @abstractmethod
    def tell(self, scores: Array, codes: Tensor) -> None:
        """Learn the scores of the codes that `ask` returned last; higher is better.

        `codes` (population, *code) are those that were shown, which a constraint may have moved.
        """

    @abstractmethod
    def current(self) -> Array:
        """Return the code (d,) that the search would hand over."""


@dataclass(frozen=True)
class Start:
    """What a search begins with: its random numbers, its code (d,), and the prior's `unit`.

    `unit` is the size of one unit of the paper's code, in which the field's settings are given.
    """

    rng: np.random.Generator
    seed: int
    code: Array
    prior: Prior
    generations: int

    @property
    def unit(self) -> float:
        return paper_unit(self.prior)

    def drawn(self, n: int) -> Array:
        """Return codes (n, d) of the prior's random starts."""
        seeds = self.rng.integers(2**31, size=n)
        return np.stack([_flat(self.prior.start(int(seed))) for seed in seeds])


@dataclass
class EvolutionStrategy(Optimizer):
    """A search without a gradient. A subclass says with `search` how one member is searched for."""

    uses_gradient: ClassVar[bool] = False
    population: int = option(40, "Codes of a generation.", low=2, high=4096)

    @abstractmethod
    def search(self, start: Start) -> Search:
        """Return the search of one member."""

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        self.codes = codes
        self.searches = [
            self.search(Start(np.random.default_rng(seed), seed, _flat(code), prior, steps))
            for code, seed in zip(codes, seeds, strict=True)
        ]

    def ask(self) -> Tensor:
        asked = np.stack([each.ask() for each in self.searches])
        return self._as_codes(asked).view(*asked.shape[:2], *self.codes.shape[1:])

    def tell(self, codes: Tensor, scores: Tensor, gradient: Gradient) -> None:
        members = zip(self.searches, scores.double().cpu().numpy(), codes, strict=True)
        for search, told, shown in members:
            finite = told[np.isfinite(told)]
            search.tell(np.nan_to_num(told, neginf=finite.min(initial=0.0)), shown)

    def current(self) -> Tensor:
        return self._as_codes(np.stack([each.current() for each in self.searches])).view_as(
            self.codes
        )

    def _as_codes(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.codes)


def _flat(code: Tensor) -> Array:
    return code.detach().cpu().double().flatten().numpy()


def recombination_weights(parents: int) -> Array:
    """Return the weights of the best so many, which fall with the logarithm of the rank.

    Source: Hansen 2016, equation 49.
    """
    weights = np.log(parents + 0.5) - np.log(np.arange(1, parents + 1))
    found: Array = weights / weights.sum()
    return found
