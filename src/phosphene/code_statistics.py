"""What a generator's code is over natural images: its mean, its spread, its directions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from phosphene.errors import BadFile, BadRequest


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

    @classmethod
    def standard(cls, *shape: int) -> CodeStatistics:
        """Return those of independent numbers from N(0, 1), as many GANs read them."""
        std = torch.ones(shape)
        quantile = 3.0902 * std  # 99.9 % of N(0, 1)
        none = torch.zeros(0)
        axes = torch.zeros(0, math.prod(shape))
        return cls(torch.zeros(shape), std, quantile, axes, none, torch.ones(()), -quantile)

    def above_zero(self) -> CodeStatistics:
        """Return the same with no code below 0."""
        return replace(self, lower=torch.zeros_like(self.mean))

    def to(self, device: str | torch.device) -> CodeStatistics:
        """Return the same statistics on another device."""
        return CodeStatistics(
            *(getattr(self, name).to(device) for name in self.__dataclass_fields__)
        )

    def whitened(self, vectors: Tensor, power: float = -1.0) -> Tensor:
        """Multiply (batch, *code) by the covariance to `power` / 2.

        A power of −1 whitens, 1 colours, 2 applies the covariance.
        """
        flat = vectors.flatten(1)
        along = flat @ self.axes.T
        rest = flat - along @ self.axes
        along = along * self.variances.clamp(min=1e-8) ** (power / 2)
        return (along @ self.axes + rest * self.rest.clamp(min=1e-8) ** (power / 2)).view(
            vectors.shape
        )

    def drawn(self, seed: int) -> Tensor:
        """Return a code, (*code), drawn from the Gaussian, and cut at `lower` as a ReLU cuts it."""
        noise = torch.randn(self.mean.shape, generator=torch.Generator().manual_seed(seed))
        spread = self.whitened(noise.to(self.mean)[None], 1.0)[0]
        return torch.maximum(self.mean + spread, self.lower)


def needed(statistics: CodeStatistics | None) -> CodeStatistics:
    """Return statistics that are there; `BadRequest` where a prior has none."""
    if statistics is None:
        raise BadRequest(
            "that climb needs the statistics of a prior's codes: for pixels and fourier use climb "
            "default, or optimizer cma-es in a closed loop; give a prior of your own statistics, "
            "or take optimizer adam and constraint none"
        )
    return statistics


def read_statistics(
    tensors: Mapping[str, Tensor], code_shape: tuple[int, ...], source: str
) -> CodeStatistics:
    """Return the statistics of the `code.` part of a weights file.

    `BadFile` where their shapes are not those of the code, or their numbers cannot be.
    """
    axes = tensors["variances"].numel() if "variances" in tensors else 0
    shapes = {
        "axes": (axes, math.prod(code_shape)),
        "variances": (axes,),
        "rest": (),
        **dict.fromkeys(("mean", "std", "upper"), code_shape),
    }
    if "lower" in tensors:  # version 0.1.0 wrote none
        shapes["lower"] = code_shape
    for name, shape in shapes.items():
        _check_tensor(tensors.get(name), name, shape, source)
    return CodeStatistics.of({name: tensors[name] for name in shapes})


def _check_tensor(value: Tensor | None, name: str, shape: tuple[int, ...], source: str) -> None:
    if value is None:
        raise BadFile(f"{source}: code.{name} is missing; expected numbers of shape {list(shape)}")
    if value.shape != shape or not value.is_floating_point() or not value.isfinite().all():
        got = f"{value.dtype} {list(value.shape)}"
        raise BadFile(
            f"{source}: code.{name} is {got}, expected finite numbers of shape {list(shape)}"
        )
    if name in ("std", "variances", "rest") and bool((value < 0).any()):
        raise BadFile(f"{source}: code.{name} has numbers below 0")
    if name == "lower" and bool((value > 0).any()):
        raise BadFile(f"{source}: code.lower has numbers above 0")
