"""The steepest ascent where natural codes are white, with momentum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.code_statistics import needed
from phosphene.optimizers._optimizer import GradientAscent, above_nothing
from phosphene.parts import option
from phosphene.priors import Prior


@dataclass
class Whitened(GradientAscent):
    """Step along Σ·direction, with a root mean square of `rate` where natural codes are white.

    The direction is the mean of the gradients on the way, each of length 1, with weights that fall
    by `momentum` a step. Without momentum it is the gradient. Source of momentum: Polyak 1964.
    """

    needs_statistics = True
    momentum: float = option(0.0, "What a step keeps of the one before.", low=0, high=0.999)

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        super().begin(codes, prior, steps, seeds)
        self.statistics = needed(prior.statistics)
        self.direction = torch.zeros_like(codes)

    def step(self, gradient: Tensor, rate: float) -> Tensor:
        direction = self._unit(self.statistics.whitened(gradient, 1.0), gradient)
        if self.momentum:
            self.direction = self.momentum * self.direction + (1 - self.momentum) * direction
            direction = self._unit(self.direction, gradient)
        return rate * self.statistics.whitened(direction, 1.0)

    def _unit(self, white: Tensor, like: Tensor) -> Tensor:
        """Return white codes (n, *code) of root mean square 1, those of 0 as they are."""
        size = white.square().flatten(1).mean(1).sqrt()
        return white / above_nothing(size, like)
