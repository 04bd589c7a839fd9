"""What an objective is: activations to one score for each image, always to be made larger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from phosphene.errors import BadRequest, type_name
from phosphene.factories import users_code
from phosphene.units import Target

Activations = Mapping[str, Tensor]
"""A layer's values by its name, (batch, channels) or (batch, channels, rows, columns)."""


class Objective(ABC):
    """Score a batch of images, of which member i is climbed for target i.

    Members never mix. A subclass may declare options, as parameters of its `__init__` that follow
    the targets.
    """

    def __init__(self, targets: Sequence[Target]):
        self.targets = tuple(targets)

    @property
    def layers(self) -> list[str]:
        """Return the layers that have to be read: those of all targets."""
        return sorted({layer for target in self.targets for layer in target.layers})

    @abstractmethod
    def scores(self, activations: Activations) -> Tensor:
        """Return what is reported of each picture, (batch,) float32."""

    def __call__(self, activations: Activations) -> list[Tensor]:
        """Return what the climb follows, one number for each member.

        The numbers stay apart, because 0 · NaN is NaN: on its way back a stacked score would reach
        every member's layers.
        """
        return list(self.scores(activations))

    @abstractmethod
    def of(self, members: Sequence[int]) -> Objective:
        """Return the same objective for some members of the batch, which may be repeated."""

    def shut(self, activations: Activations) -> list[bool]:
        """Return, for each member, whether a closing ReLU holds its score at 0."""
        return [False] * len(self.targets)

    def faint(self, activations: Activations) -> list[bool]:
        """Return, for each member, whether its climb has failed although its score rose."""
        return [False] * len(self.targets)


class FunctionObjective(Objective):
    """Score by a function of one member's activations and its target.

    The function gets a dict from a layer's name to (channels,) or (channels, rows, columns), and
    the `phosphene.units.Target`. It returns a tensor of one number. It is given the layers of the
    target, and those in its attribute `layers`, where it has one.
    """

    def __init__(self, targets: Sequence[Target], function: Callable[..., Tensor], **options: Any):
        super().__init__(targets)
        self.function = function
        self.options = options

    @property
    def layers(self) -> list[str]:
        more = getattr(self.function, "layers", ())
        if isinstance(more, str) or not all(isinstance(each, str) for each in more):
            raise BadRequest(f"an objective's layers are a list of names; got {more!r}")
        return sorted({*super().layers, *more})

    def of(self, members: Sequence[int]) -> FunctionObjective:
        targets = [self.targets[i] for i in members]
        return FunctionObjective(targets, self.function, **self.options)

    def scores(self, activations: Activations) -> Tensor:
        return torch.stack(self(activations))

    def __call__(self, activations: Activations) -> list[Tensor]:
        return [self._score(i, activations) for i in range(len(self.targets))]

    def _score(self, i: int, activations: Activations) -> Tensor:
        own = {layer: values[i].float() for layer, values in activations.items()}
        name = getattr(self.function, "__name__", "it")
        with users_code(f"objective {name}"):
            score = self.function(own, self.targets[i], **self.options)
        if not isinstance(score, Tensor) or score.numel() != 1:
            kind = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise BadRequest(f"an objective returns a tensor of one number; {name} returned {kind}")
        return score.reshape(())


class CheckedObjective(Objective):
    """Call another objective, from outside; its mistakes become one line."""

    def __init__(self, objective: Objective, name: str):
        super().__init__(objective.targets)
        self.objective = objective
        self.name = f"objective {name}"

    @property
    def layers(self) -> list[str]:
        return self.objective.layers

    def of(self, members: Sequence[int]) -> CheckedObjective:
        with users_code(f"{self.name}: of"):
            return CheckedObjective(self.objective.of(members), self.name.partition(" ")[2])

    def scores(self, activations: Activations) -> Tensor:
        with users_code(f"{self.name}: scores"):
            found = self.objective.scores(activations)
        if not isinstance(found, Tensor) or found.shape != (len(self.targets),):
            kind = tuple(found.shape) if isinstance(found, Tensor) else type_name(found)
            raise BadRequest(
                f"{self.name}: scores returns ({len(self.targets)},), one a member; got {kind}"
            )
        return found.float()

    def __call__(self, activations: Activations) -> list[Tensor]:
        self.scores(activations)
        with users_code(f"{self.name}: what is followed"):
            return self.objective(activations)

    def shut(self, activations: Activations) -> list[bool]:
        with users_code(f"{self.name}: shut"):
            return self.objective.shut(activations)

    def faint(self, activations: Activations) -> list[bool]:
        with users_code(f"{self.name}: faint"):
            return self.objective.faint(activations)
