"""CMA-ES (Hansen & Ostermeier 2001), a strategy that adapts a covariance, by the library cmaes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from phosphene.errors import BadRequest
from phosphene.optimizers._evolution import Array, EvolutionStrategy, Search, Start
from phosphene.parts import option


@dataclass
class CmaEs(EvolutionStrategy):
    """CMA-ES on the code from 0 on: `diagonal` (Ros & Hansen 2008), `full`, or `noisy`.

    `noisy` adapts the learning rate to the noise (Nomura et al. 2023), with a full covariance.
    """

    covariance: str = option("diagonal", "What is adapted.", choices=("diagonal", "full", "noisy"))
    deviation: float = option(2.0, "First deviation, in units of the paper's code.", low=1e-6)

    def search(self, start: Start) -> Search:
        return _Library(self, start)


class _Library(Search):
    def __init__(self, options: CmaEs, start: Start):
        self.unit = start.unit
        self.population = options.population
        try:
            import cmaes
        except ImportError:
            raise BadRequest(
                "the optimizer cma-es needs the library cmaes: pip install 'phosphene[loops]'"
            ) from None
        common: dict[str, Any] = {
            "mean": np.zeros(len(start.code)),
            "sigma": options.deviation,
            "population_size": options.population,
            "seed": start.seed,
        }
        if options.covariance == "diagonal":
            self.search = cmaes.SepCMA(**common)
        else:
            self.search = cmaes.CMA(**common, lr_adapt=options.covariance == "noisy")
        self.drawn: list[Array] = []

    def ask(self) -> Array:
        self.drawn = [self.search.ask() for _ in range(self.population)]
        return np.stack(self.drawn) * self.unit

    def tell(self, scores: Array, codes: Tensor) -> None:
        pairs = zip(self.drawn, (-scores).tolist(), strict=True)
        self.search.tell([*pairs])

    def current(self) -> Array:
        found: Array = self.search.mean * self.unit
        return found
