"""Objectives: scores of activations, always to be made larger. One file holds one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from phosphene.factories import load_part
from phosphene.objectives._objective import Activations, FunctionObjective, Objective
from phosphene.units import Target

__all__ = ["Activations", "FunctionObjective", "Objective", "load_objective"]

MakeObjective = Callable[[Sequence[Target]], Objective]


def load_objective(name: Any) -> Any:
    """Return an objective's class or function, by its name or as it is (see `load_part`)."""
    return load_part(__name__, "objective", name) if isinstance(name, str) else name


def make_objective(part: Any, targets: Sequence[Target], **options: Any) -> Objective:
    """Return the objective of a batch; what is no class is a function of activations."""
    make = part if isinstance(part, type) else partial(FunctionObjective, function=part)
    objective: Objective = make(targets, **options)
    return objective
