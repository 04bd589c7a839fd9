"""Optimizers: searches for codes that score higher. One file holds one."""

from __future__ import annotations

from typing import Any

from phosphene.factories import checked_part, load_part
from phosphene.optimizers._checked import CheckedOptimizer
from phosphene.optimizers._optimizer import Gradient, GradientAscent, Optimizer

__all__ = ["CheckedOptimizer", "Gradient", "GradientAscent", "Optimizer", "load_optimizer"]


def load_optimizer(name: Any) -> Any:
    """Return an optimizer's class or factory, by its name or as it is (see `load_part`)."""
    return load_part(__name__, "optimizer", name) if isinstance(name, str) else checked_part(name)
