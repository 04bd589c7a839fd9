"""What keeps a code plausible: decay, the box, the Gaussian. Pure maps from codes to codes.

All of them act on each code by itself. A code is what the encoder's layer gave: (batch, *code_shape).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CodeStatistics:
    """A generator's code over natural images: `mean`, `std`, each of the code's shape.

    `upper` is the 99.9 % quantile, `lower` the 0.1 % quantile and at most 0, which is what a ReLU
    leaves; orthonormal principal `axes` (k, code) with their `variances` (k,), and `rest`, the mean
    variance off them.
    """

    mean: Tensor
    std: Tensor
    upper: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor
    lower: Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> CodeStatistics:
        """Return those of the `code.` part of a generator's weights file.

        Files of version 0.1.0 have no `lower`. Where every unit's mean is 0 or more, as behind a
        ReLU, it is 0; else `upper` is reflected about the mean.
        """
        mean, upper = tensors["mean"], tensors["upper"]
        lower = torch.zeros_like(mean)
        if bool((mean < 0).any()):
            lower = (2 * mean - upper).clamp(max=0)
        return cls(**{"lower": lower, **tensors})

    def to(self, device: str | torch.device) -> CodeStatistics:
        """The same statistics on another device."""
        return CodeStatistics(
            *(getattr(self, name).to(device) for name in self.__dataclass_fields__)
        )

    def whitened(self, vectors: Tensor, power: float = -1.0) -> Tensor:
        """Multiply (batch, *code) by the covariance to `power` / 2: −1 whitens, 1 colours, 2 applies the covariance."""
        flat = vectors.flatten(1)
        along = flat @ self.axes.T
        rest = flat - along @ self.axes
        along = along * self.variances.clamp(min=1e-8) ** (power / 2)
        return (along @ self.axes + rest * self.rest.clamp(min=1e-8) ** (power / 2)).view(
            vectors.shape
        )


class Prior(ABC):
    """A map that pulls codes towards what the encoder really produces."""

    @abstractmethod
    def __call__(self, codes: Tensor) -> Tensor:
        """Codes (batch, …) to codes of the same shape."""


@dataclass(frozen=True)
class Free(Prior):
    """None but decay towards 0, which for pixels is grey; with a decay of 1 none at all."""

    decay: float = 1.0

    def __call__(self, codes: Tensor) -> Tensor:
        return codes if self.decay == 1 else self.decay * codes


@dataclass(frozen=True, eq=False)
class BoxDecay(Prior):
    """The paper's: clip each code unit to [lower, upper], then shrink (Nguyen et al. 2016, §2; 0.99 as coded)."""

    lower: Tensor
    upper: Tensor
    decay: float = 0.99

    def __call__(self, codes: Tensor) -> Tensor:
        return self.decay * torch.minimum(torch.maximum(codes, self.lower), self.upper)


@dataclass(frozen=True, eq=False)
class Gaussian(Prior):
    """Shrink towards the mean of natural codes, and stay in the code's range: `pull` is the share of the way in each
    step, the same in all directions; no unit falls below `lower` or rises above `upper`."""

    statistics: CodeStatistics
    pull: float = 0.01
    upper: Tensor | None = None
    lower: Tensor = field(default_factory=lambda: torch.zeros(()))

    def __call__(self, codes: Tensor) -> Tensor:
        mean = self.statistics.mean
        codes = mean + (1 - self.pull) * (codes - mean)
        codes = torch.maximum(codes, self.lower)
        return codes if self.upper is None else torch.minimum(codes, self.upper)


def paper_box(statistics: CodeStatistics, sigmas: float = 3.0, decay: float = 0.99) -> BoxDecay:
    """Return the box between 0 and each unit's mean plus three standard deviations, with decay.

    A unit whose natural codes lie below 0 may go as far down: to its mean minus three standard
    deviations, and no lower than `statistics.lower`.
    """
    upper = statistics.mean + sigmas * statistics.std
    lower = torch.maximum(statistics.lower, statistics.mean - sigmas * statistics.std)
    return BoxDecay(lower.clamp(max=0), upper, decay)
