"""The activation of a unit, a sum of units or a direction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene.axes import at_token, before
from phosphene.errors import UnknownName
from phosphene.objectives._objective import Activations, Objective
from phosphene.units import Direction, Position, Target, Unit, is_token

FAINT = 0.15
"""The share of a layer's channels above which a preferred input is none.

In `conv2`, `conv5` and `fc6` of `caffenet-scenes` at most 0.10 exceed a unit on its own picture,
and 0.24 to 0.37 where the climb has failed.
"""


class Activation(Objective):
    """Score by the weighted sum of a target's activations.

    What the climb follows is never flat where a layer's closing ReLU is shut: there it is the value
    before the ReLU.
    """

    @property
    def layers(self) -> list[str]:
        """Return the layers of every target, and each from before its closing ReLU."""
        layers = super().layers
        return layers + [before(layer) for layer in layers]

    def of(self, members: Sequence[int]) -> Activation:
        return type(self)([self.targets[i] for i in members])

    def scores(self, activations: Activations) -> Tensor:
        return torch.stack([_sum(target, activations, i) for i, target in enumerate(self.targets)])

    def __call__(self, activations: Activations) -> list[Tensor]:
        return [self._followed(target, activations, i) for i, target in enumerate(self.targets)]

    def shut(self, activations: Activations) -> list[bool]:
        pairs = zip(self.scores(activations), self(activations), strict=True)
        return [bool(score != followed) for score, followed in pairs]

    def faint(self, activations: Activations) -> list[bool]:
        """Return, for each member, whether too many other channels exceed its unit.

        These are more than `FAINT` of its layer's channels, and three or more. A sum, a direction
        and a unit that is to fall are never faint.
        """
        return [_is_faint(target, activations, i) for i, target in enumerate(self.targets)]

    def _followed(self, target: Target, activations: Activations, i: int) -> Tensor:
        return _sum(target, activations, i, open_relu=True)


def _is_faint(target: Target, activations: Activations, i: int) -> bool:
    (weight, unit), *others = target.terms
    if others or weight < 0 or isinstance(unit, Direction):
        return False
    layer = pooled(values_of(unit, activations, unit.layer)[i].float(), unit.position)
    above = int((layer > layer[unit.channel]).sum())
    return above > max(2, FAINT * len(layer))


def _sum(target: Target, activations: Activations, i: int, open_relu: bool = False) -> Tensor:
    total = torch.zeros((), device=next(iter(activations.values())).device)
    for weight, unit in target.terms:
        value = _read(unit, values_of(unit, activations, unit.layer)[i])
        key = before(unit.layer)
        if open_relu and key in activations:
            value = torch.where(value > 0, value, _read(unit, values_of(unit, activations, key)[i]))
        total = total + weight * value
    return total


def values_of(unit: Unit | Direction, activations: Activations, key: str) -> Tensor:
    """Return what `probe` gives under a key.

    Where a unit names a token ahead of the patches, it is what `probe` gives there. `UnknownName`
    where the layer has no such token.
    """
    if not is_token(unit.position):
        return activations[key]
    token = at_token(key, unit.position)
    if token not in activations:
        raise UnknownName(f"{unit}: the layer has no token @{unit.position} ahead of its patches")
    return activations[token]


def _read(unit: Unit | Direction, layer: Tensor) -> Tensor:
    """Return the value of a unit or along a direction in one member's layer, (channels, …)."""
    if isinstance(unit, Direction):
        vector = torch.tensor(unit.vector, device=layer.device)
        return pooled(layer.float(), unit.position) @ (vector / vector.norm())
    return pooled(layer[unit.channel : unit.channel + 1].float(), unit.position)[0]


def pooled(layer: Tensor, position: Position) -> Tensor:
    """Return one value for each channel, (channels,).

    `layer` is of one member: (channels, rows, columns), (channels, tokens) or (channels,).
    """
    if layer.ndim == 1:
        return layer
    if position == "max":
        return layer.flatten(1).amax(1)
    if position == "mean":
        return layer.flatten(1).mean(1)
    if position == "centre":
        position = (
            (layer.shape[1] // 2, layer.shape[2] // 2)
            if layer.ndim == 3
            else (layer.shape[1] // 2, 0)
        )
    row, column = int(position[0]), int(position[1])
    return layer[:, row, column] if layer.ndim == 3 else layer[:, row]
