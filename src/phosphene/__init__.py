"""Phosphene shows what the neurons of a vision network want to see, and proves it."""

from __future__ import annotations

import typing

__version__ = "0.2.0"
__all__ = [
    "CLIMBS",
    "Climb",
    "Loop",
    "PhospheneError",
    "PreferredInputs",
    "Subject",
    "atlas",
    "dissect",
    "evaluate",
    "exemplars",
    "layers",
    "load_record",
    "load_subject",
    "reconstruct",
    "synthesize",
    "wrap",
]

if typing.TYPE_CHECKING:
    from phosphene.atlas import atlas
    from phosphene.errors import PhospheneError
    from phosphene.loops import Loop
    from phosphene.notebook import (
        dissect,
        evaluate,
        exemplars,
        layers,
        load_record,
        reconstruct,
        synthesize,
    )
    from phosphene.subjects import Subject, load_subject, wrap
    from phosphene.synthesis import CLIMBS, Climb, PreferredInputs

_ROOMS = {
    "CLIMBS": "synthesis",
    "Climb": "synthesis",
    "Loop": "loops",
    "PhospheneError": "errors",
    "PreferredInputs": "synthesis",
    "Subject": "subjects",
    "atlas": "atlas",
    "dissect": "notebook",
    "evaluate": "notebook",
    "exemplars": "notebook",
    "layers": "notebook",
    "load_record": "notebook",
    "load_subject": "subjects",
    "reconstruct": "notebook",
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

    room = import_module(f"phosphene.{_ROOMS[name]}")
    return room if name == _ROOMS[name] else getattr(room, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
