"""Objectives: scores of activations, always to be made larger. One file holds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from phosphene.errors import BadRequest
from phosphene.factories import checked_part, is_from_outside, load_part, users_code
from phosphene.objectives._objective import (
    Activations,
    CheckedObjective,
    FunctionObjective,
    Objective,
)
from phosphene.units import Target

__all__ = ["Activations", "FunctionObjective", "Objective", "load_objective"]

MakeObjective = Callable[[Sequence[Target]], Objective]


def load_objective(name: Any) -> Any:
    """Return an objective's class or function, by its name or as it is (see `load_part`)."""
    return load_part(__name__, "objective", name) if isinstance(name, str) else checked_part(name)


def make_objective(part: Any, targets: Sequence[Target], **options: Any) -> Objective:
    """Return the objective of a batch; what is no class is a function of activations."""
    if not isinstance(part, type):
        return FunctionObjective(targets, part, **options)
    if not is_from_outside(part):
        return part(targets, **options)
    with users_code(f"objective {part.__name__}"):
        made = part(targets, **options)
    if not isinstance(made, Objective):
        raise BadRequest(f"{part.__name__} is no Objective, and no function of activations")
    return CheckedObjective(made, part.__name__)
