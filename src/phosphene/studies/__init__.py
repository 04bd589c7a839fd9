"""Studies: what pictures, photographs and outlines say of a network's units, or of a generator.

A file of this folder holds one. Where it can be asked of any network's units, it is a `Study`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from phosphene.errors import BadRequest, UnknownName
from phosphene.factories import is_factory, load_factory, make
from phosphene.parts import built_in, checked_options, options_of, read_options
from phosphene.studies._study import Study
from phosphene.studies._sums import asked_of

__all__ = ["Study", "asked_of", "load_study", "study_names"]


def study_names() -> dict[str, type[Study]]:
    """Return the studies of this folder by their names."""
    found = {name: import_module(module) for name, module in built_in(__name__).items()}
    parts = {name: getattr(module, name.title(), None) for name, module in found.items()}
    return {
        name: part
        for name, part in parts.items()
        if isinstance(part, type) and issubclass(part, Study)
    }


def load_study(name: str, options: Mapping[str, Any]) -> Study:
    """Return a study by its name, or by `python:package.module:factory`, with its options.

    Options that are texts are read as the study declares them.
    """
    known = {} if is_factory(name) else study_names()
    if not is_factory(name) and name not in known:
        raise UnknownName(
            f"no study {name!r}; there are: {', '.join(known)}, python:MODULE:FACTORY"
        )
    part = load_factory(name) if is_factory(name) else known[name]
    given = read_options(options_of(part), options, f"study {name}")
    checked = checked_options(part, given, f"study {name}")
    study = make(name, **checked) if is_factory(name) else part(**checked)
    if not isinstance(study, Study):
        raise BadRequest(
            f"{name} returned {type(study).__name__}; it must return a phosphene Study"
        )
    return study
