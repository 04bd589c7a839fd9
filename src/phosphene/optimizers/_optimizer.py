"""What an optimizer is: it is asked for codes, and told their scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from phosphene.parts import option
from phosphene.priors import Prior
from phosphene.tensors import per_row

Gradient = Callable[[], Tensor]
"""The gradient of the scores by the codes that were asked for, of the codes' shape."""


class Optimizer(ABC):
    """Search for codes that score higher, of all members of a batch at once.

    Members never mix. Subclasses are dataclasses whose fields with a default are options (see
    `phosphene.parts`). The climb calls `begin` once, then `ask` and `tell` in turns.
    """

    uses_gradient: ClassVar[bool] = True
    """Whether `tell` calls `gradient`. Without it no graph is kept, and nothing runs backwards."""

    needs_statistics: ClassVar[bool] = False
    """Whether a prior must have the statistics of its codes."""

    @abstractmethod
    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        """Begin at `codes` (members, *code), for so many steps, each member from its own seed."""

    @abstractmethod
    def ask(self) -> Tensor:
        """Return the codes to try next, (members, candidates, *code).

        The number of candidates is the same in every step.
        """

    @abstractmethod
    def tell(self, codes: Tensor, scores: Tensor, gradient: Gradient) -> None:
        """Learn the scores (members, candidates) of what was asked for.

        `codes` are those that were shown: a constraint may have moved them. A score that is no
        finite number is −∞.
        """

    def current(self) -> Tensor:
        """Return the codes at which the search stands, (members, *code)."""
        return self.ask()[:, 0]


@dataclass
class GradientAscent(Optimizer):
    """A step along each member's gradient, whose size falls linearly.

    `last_rate` lies one step beyond the last one, as in the 2016 code (act_max.py).
    """

    rate: float = option(0.2, "First step size.", low=0, high=1_000_000)
    last_rate: float = option(0.0, "Step size after the last step.", low=0, high=1_000_000)

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        self.codes = codes
        self.steps = steps
        self.done = 0

    def ask(self) -> Tensor:
        return self.codes[:, None]

    def tell(self, codes: Tensor, scores: Tensor, gradient: Gradient) -> None:
        self.codes = codes[:, 0] + self.step(gradient()[:, 0], self.rate_at(self.done))
        self.done += 1

    def rate_at(self, step: int) -> float:
        """Return the step size of step 0 … steps − 1."""
        share = step / max(1, self.steps)
        return self.rate + (self.last_rate - self.rate) * share

    @abstractmethod
    def step(self, gradient: Tensor, rate: float) -> Tensor:
        """Return the step, (members, *code), along a gradient of the same shape."""


def above_nothing(values: Tensor, like: Tensor) -> Tensor:
    """Return one value for each member, shaped to divide `like`; never zero."""
    return per_row(values.clamp(min=torch.finfo(torch.float32).tiny * 1e8), like)
