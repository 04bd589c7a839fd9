"""Adam (Kingma & Ba 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.optimizers._optimizer import GradientAscent
from phosphene.priors import Prior


class Adam(GradientAscent):
    """Step upwards by Adam, with its usual constants: 0.9, 0.999 and 1e-8."""

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        super().begin(codes, prior, steps, seeds)
        self.first = torch.zeros_like(codes)
        self.second = torch.zeros_like(codes)

    def step(self, gradient: Tensor, rate: float) -> Tensor:
        count = self.done + 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        mean = self.first / (1 - 0.9**count)
        spread = (self.second / (1 - 0.999**count)).sqrt()
        return rate * mean / (spread + 1e-8)
