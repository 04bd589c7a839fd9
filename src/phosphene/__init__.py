"""Phosphene shows what the neurons of a vision network want to see, and proves it."""

from __future__ import annotations

import typing

__version__ = "0.2.0"
__all__ = [
    "CLIMBS",
    "Climb",
    "PhospheneError",
    "PreferredInputs",
    "Subject",
    "load_subject",
    "synthesize",
    "wrap",
]

if typing.TYPE_CHECKING:
    from phosphene.errors import PhospheneError
    from phosphene.notebook import synthesize
    from phosphene.subjects import Subject, load_subject, wrap
    from phosphene.synthesis import CLIMBS, Climb, PreferredInputs

_ROOMS = {
    "CLIMBS": "synthesis",
    "Climb": "synthesis",
    "PhospheneError": "errors",
    "PreferredInputs": "synthesis",
    "Subject": "subjects",
    "load_subject": "subjects",
    "synthesize": "notebook",
    "wrap": "subjects",
}


def __getattr__(name: str) -> typing.Any:
    """Import a public name when it is first used.

    So the command line starts before torch does.
    """
    if name not in _ROOMS:
        raise AttributeError(
            f"module 'phosphene' has no attribute {name!r}; it has: {', '.join(__all__)}"
        )
    from importlib import import_module

    return getattr(import_module(f"phosphene.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
