"""The paper's step: the gradient over its mean magnitude."""

from __future__ import annotations

from torch import Tensor

from phosphene.optimizers._optimizer import GradientAscent, above_nothing
from phosphene.priors import Prior

PAPER_SIGMA = 3.74
"""Mean standard deviation of the paper's code (CaffeNet fc6).

It is the unit of the paper's step sizes (method: §2).
"""


class Mean(GradientAscent):
    """Step along the gradient over its mean magnitude, in units of the paper's code.

    Source: Nguyen et al. 2016, act_max.py.
    """

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        super().begin(codes, prior, steps, seeds)
        self.unit = paper_unit(prior)

    def step(self, gradient: Tensor, rate: float) -> Tensor:
        size = gradient.abs().flatten(1).mean(1)
        return rate * self.unit * gradient / above_nothing(size, gradient)


def paper_unit(prior: Prior) -> float:
    """Return how large one unit of the paper's code is in a prior's.

    That is the ratio of the mean standard deviations, 1 for a prior that knows none.
    """
    if prior.statistics is None:
        return 1.0
    return float(prior.statistics.std.mean()) / PAPER_SIGMA
