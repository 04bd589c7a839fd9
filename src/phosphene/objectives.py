"""Scores of activations: one number for each image, always to be made larger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from phosphene.errors import UnknownName
from phosphene.probe import at_token, before
from phosphene.units import Direction, Position, Target, Unit, is_token

Kind = Literal["activation", "probability"]

FAINT = 0.15
"""The share of a layer's channels above which a preferred input is none.

In `conv2`, `conv5` and `fc6` of `caffenet-scenes` at most 0.10 exceed a unit on its own picture,
and 0.24 to 0.37 where the climb has failed.
"""


class Objective:
    """The score of member i of a batch is target i's weighted sum of activations.

    Members never mix. `kind="probability"` scores units by their log-probabilities among their
    layer's channels (a softmax over them), which also pushes the rivals down, and of several units
    leaves none out; directions keep the activation.
    """

    def __init__(self, targets: Sequence[Target], kind: Kind = "activation"):
        self.targets = tuple(targets)
        self.kind = kind

    def of(self, members: Sequence[int]) -> Objective:
        """Return the same objective for some members of the batch."""
        return Objective([self.targets[i] for i in members], self.kind)

    @property
    def layers(self) -> list[str]:
        """Return what `probe` must read.

        That is every layer of every target, and each from before its closing ReLU.
        """
        layers = sorted({layer for target in self.targets for layer in target.layers})
        return layers + [before(layer) for layer in layers]

    def scores(self, activations: Mapping[str, Tensor]) -> Tensor:
        """Return the activations themselves, (batch,) float32: a picture is reported with them."""
        return torch.stack([_sum(target, activations, i) for i, target in enumerate(self.targets)])

    def __call__(self, activations: Mapping[str, Tensor]) -> list[Tensor]:
        """Return what the climb follows, one number for each member.

        They are as `scores`, but never flat where a ReLU is shut. They stay apart, because 0 · NaN
        is NaN: on its way back a stacked score would reach every member's layers.
        """
        return [self._slope(target, activations, i) for i, target in enumerate(self.targets)]

    def shut(self, activations: Mapping[str, Tensor]) -> list[bool]:
        """Return, for each member, whether a closing ReLU holds its score at 0.

        The climb then follows the value before the ReLU.
        """
        if self.kind == "probability":
            return [False] * len(self.targets)
        pairs = zip(self.scores(activations), self(activations), strict=True)
        return [bool(score != followed) for score, followed in pairs]

    def faint(self, activations: Mapping[str, Tensor]) -> list[bool]:
        """Return, for each member, whether too many other channels exceed its unit.

        These are more than `FAINT` of its layer's channels, and three or more. A sum, a direction
        and a unit that is to fall are never faint.
        """
        return [_is_faint(target, activations, i) for i, target in enumerate(self.targets)]

    def _slope(self, target: Target, activations: Mapping[str, Tensor], i: int) -> Tensor:
        units = [(weight, unit) for weight, unit in target.terms if isinstance(unit, Unit)]
        if self.kind == "activation" or len(units) < len(target.terms):
            return _sum(target, activations, i, open_relu=True)
        layers = [
            _pool(_values(unit, activations, unit.layer)[i].float(), unit.position)
            for _, unit in units
        ]
        pairs = zip(units, layers, strict=True)
        return torch.stack(
            [weight * layer.log_softmax(0)[unit.channel] for (weight, unit), layer in pairs]
        ).sum()


def _is_faint(target: Target, activations: Mapping[str, Tensor], i: int) -> bool:
    (weight, unit), *others = target.terms
    if others or weight < 0 or isinstance(unit, Direction):
        return False
    layer = _pool(_values(unit, activations, unit.layer)[i].float(), unit.position)
    above = int((layer > layer[unit.channel]).sum())
    return above > max(2, FAINT * len(layer))


def _sum(
    target: Target, activations: Mapping[str, Tensor], i: int, open_relu: bool = False
) -> Tensor:
    total = torch.zeros((), device=next(iter(activations.values())).device)
    for weight, unit in target.terms:
        value = _read(unit, _values(unit, activations, unit.layer)[i])
        if open_relu and (key := before(unit.layer)) in activations:
            value = torch.where(value > 0, value, _read(unit, _values(unit, activations, key)[i]))
        total = total + weight * value
    return total


def _values(unit: Unit | Direction, activations: Mapping[str, Tensor], key: str) -> Tensor:
    """Return what `probe` gives under a key.

    Where a unit names a token ahead of the patches, it is what `probe` gives there. `UnknownName`
    where the layer has no such token.
    """
    if not is_token(unit.position):
        return activations[key]
    if (token := at_token(key, unit.position)) not in activations:
        raise UnknownName(f"{unit}: the layer has no token @{unit.position} ahead of its patches")
    return activations[token]


def _read(unit: Unit | Direction, layer: Tensor) -> Tensor:
    """Return the value of a unit or along a direction in one member's layer, (channels, …)."""
    if isinstance(unit, Direction):
        vector = torch.tensor(unit.vector, device=layer.device)
        return _pool(layer.float(), unit.position) @ (vector / vector.norm())
    return _pool(layer[unit.channel : unit.channel + 1].float(), unit.position)[0]


def _pool(layer: Tensor, position: Position) -> Tensor:
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
