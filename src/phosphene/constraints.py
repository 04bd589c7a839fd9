"""What keeps a code plausible: decay, the box, the Gaussian.

Each acts on each code by itself. A code is what the encoder's layer gave: (batch, *code_shape).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.code_statistics import CodeStatistics, needed
from phosphene.parts import check_options, option

Constrained = Callable[[Tensor], Tensor]
"""From codes (batch, …) to codes of the same shape."""


@dataclass(frozen=True)
class Constraint(ABC):
    """A pull of codes towards what the encoder really produces.

    `decay` is what a code keeps of its distance from the constraint's centre in each step.
    """

    decay: float = option(0.99, "What a code keeps in each step.", low=1e-6, high=1)

    def __post_init__(self) -> None:
        check_options(self)

    @abstractmethod
    def fit(self, statistics: CodeStatistics | None) -> Constrained:
        """Return the map of codes for a prior of these statistics."""


class Free(Constraint):
    """Shrink towards 0 alone, which for pixels is grey. A decay of 1 is no constraint at all."""

    def fit(self, statistics: CodeStatistics | None) -> Constrained:
        return lambda codes: codes if self.decay == 1 else self.decay * codes


@dataclass(frozen=True)
class Box(Constraint):
    """The paper's constraint: clip each code unit to 0 … μ + 3σ, then shrink towards 0.

    A unit whose natural codes lie below 0 may go as far down: to μ − 3σ, and no lower than the
    code's `lower`. Source: Nguyen et al. 2016, §2; a decay of 0.99 as coded.
    """

    sigmas: float = option(3.0, "Standard deviations from the mean.", low=0, high=1_000_000)

    def bounds(self, statistics: CodeStatistics) -> tuple[Tensor, Tensor]:
        """Return the least and the largest code."""
        upper = statistics.mean + self.sigmas * statistics.std
        lower = torch.maximum(statistics.lower, statistics.mean - self.sigmas * statistics.std)
        return lower.clamp(max=0), upper

    def fit(self, statistics: CodeStatistics | None) -> Constrained:
        lower, upper = self.bounds(needed(statistics))
        return lambda codes: self.decay * torch.minimum(torch.maximum(codes, lower), upper)


class Gaussian(Box):
    """Shrink towards the mean of natural codes, the same in all directions, and clip to the box."""

    def fit(self, statistics: CodeStatistics | None) -> Constrained:
        mean = needed(statistics).mean
        lower, upper = self.bounds(needed(statistics))
        pull = 1 - self.decay

        def constrained(codes: Tensor) -> Tensor:
            codes = mean + (1 - pull) * (codes - mean)
            return torch.minimum(torch.maximum(codes, lower), upper)

        return constrained


CONSTRAINTS: dict[str, type[Constraint]] = {"gaussian": Gaussian, "box": Box, "none": Free}
