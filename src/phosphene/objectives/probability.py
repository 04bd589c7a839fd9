"""The probability of a unit among the channels of its layer."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.objectives._objective import Activations
from phosphene.objectives.activation import Activation, pooled, values_of
from phosphene.units import Target, Unit


class Probability(Activation):
    """Score by the log-probability of units among their layer's channels, a softmax over them.

    It also pushes the rivals down, and of several units it leaves none out. Directions keep the
    activation. The activation is what is reported.
    """

    def shut(self, activations: Activations) -> list[bool]:
        return [False] * len(self.targets)

    def _followed(self, target: Target, activations: Activations, i: int) -> Tensor:
        units = [(weight, unit) for weight, unit in target.terms if isinstance(unit, Unit)]
        if len(units) < len(target.terms):
            return super()._followed(target, activations, i)
        return torch.stack(
            [weight * _log_probability(unit, activations, i) for weight, unit in units]
        ).sum()


def _log_probability(unit: Unit, activations: Activations, i: int) -> Tensor:
    layer = pooled(values_of(unit, activations, unit.layer)[i].float(), unit.position)
    return layer.log_softmax(0)[unit.channel]
