"""The steepest ascent where natural codes are white."""

from __future__ import annotations

from torch import Tensor

from phosphene.code_statistics import needed
from phosphene.optimizers._optimizer import GradientAscent, above_nothing
from phosphene.priors import Prior


class Whitened(GradientAscent):
    """Step along Σ·gradient, with a root mean square of `rate` where natural codes are white."""

    needs_statistics = True

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        super().begin(codes, prior, steps, seeds)
        self.statistics = needed(prior.statistics)

    def step(self, gradient: Tensor, rate: float) -> Tensor:
        white = self.statistics.whitened(gradient, 1.0)
        size = white.square().flatten(1).mean(1).sqrt()
        return rate * self.statistics.whitened(white / above_nothing(size, gradient), 1.0)
