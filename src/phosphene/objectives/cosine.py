"""The cosine similarity of a layer's activations with a direction: a population vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene.errors import BadRequest
from phosphene.objectives._objective import Activations, Objective
from phosphene.objectives.activation import pooled, values_of
from phosphene.units import Direction, Target


class Cosine(Objective):
    """Score by the cosine similarity of a target's direction with the activations at its position.

    The target is a sum of directions or units of one layer and one position. Unlike the product
    with a unit vector, it does not grow with the length of the activations: the whole population
    takes the pattern.
    """

    def __init__(self, targets: Sequence[Target]):
        super().__init__(targets)
        for target in targets:
            if len({(unit.layer, unit.position) for _, unit in target.terms}) > 1:
                raise BadRequest(f"{target}: a cosine is of one layer at one position")

    def of(self, members: Sequence[int]) -> Cosine:
        return Cosine([self.targets[i] for i in members])

    def scores(self, activations: Activations) -> Tensor:
        return torch.stack(
            [_cosine(target, activations, i) for i, target in enumerate(self.targets)]
        )


def _cosine(target: Target, activations: Activations, i: int) -> Tensor:
    unit = target.terms[0][1]
    layer = pooled(values_of(unit, activations, unit.layer)[i].float(), unit.position)
    vector = torch.zeros_like(layer)
    for weight, each in target.terms:
        if isinstance(each, Direction):
            own = torch.tensor(each.vector, device=layer.device)
            vector = vector + weight * own / own.norm()
        else:
            vector[each.channel] += weight
    return torch.cosine_similarity(layer, vector, dim=0)
