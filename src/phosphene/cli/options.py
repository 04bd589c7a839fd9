"""Options of the command line that the parts of a climb declare.

They are read when a command is parsed, not when the program starts: the parts import torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from phosphene.errors import BadRequest

SETTINGS = "phosphene.settings"
"""Where a command's context keeps what was given of the parts' options."""


class ClimbCommand(TyperCommand):
    """A command that also takes the options of a climb and of its built-in parts."""

    _declared: list[Any] | None = None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's own parameters, and then those that the parts declare."""
        if self._declared is None:
            self._declared = _parameters()
        own = super().get_params(ctx)
        machine = next(
            (i for i, each in enumerate(own) if getattr(each, "rich_help_panel", "") == "Machine"),
            len(own),
        )
        return [*own[:machine], *self._declared, *own[machine:]]


def given_settings(context: typer.Context, assigned: Sequence[str]) -> dict[str, Any]:
    """Return the options of the parts that were given, as texts where `--set NAME=VALUE` did."""
    given = context.meta.get(SETTINGS, {})
    more = settings_of(assigned)
    if both := sorted(given.keys() & more.keys()):
        raise BadRequest(f"{both[0]} is given twice: as an option and by --set")
    return {**given, **more}


def settings_of(assigned: Sequence[str]) -> dict[str, str]:
    """Return what texts NAME=VALUE assign, by name; `BadRequest` where two assign the same."""
    given: dict[str, str] = {}
    for text in assigned:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals:
            raise BadRequest(f"--set takes NAME=VALUE; got {text!r}")
        if name in given:
            raise BadRequest(f"--set gives {name} twice: {given[name]!r} and {value!r}")
        given[name] = value
    return given


def _parameters() -> list[Any]:
    """Return the command-line library's parameters for the options of the built-in parts."""
    from phosphene.constraints import CONSTRAINTS
    from phosphene.optimizers import load_optimizer
    from phosphene.parts import Option, built_in, options_of
    from phosphene.priors import prior_options
    from phosphene.stimulus import Stimulus
    from phosphene.synthesis import Climb

    declared: dict[str, Option] = options_of(Climb) | options_of(Stimulus)
    for name in built_in("phosphene.optimizers"):
        declared |= options_of(load_optimizer(name))
    for constraint in CONSTRAINTS.values():
        declared |= options_of(constraint)
    for name in built_in("phosphene.priors"):
        declared |= prior_options(name)

    def command() -> None:
        """Do nothing: only the signature counts."""

    annotations = {each.name: _annotated(each) for each in declared.values()}
    command.__annotations__ = annotations
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=each)
            for name, each in annotations.items()
        ]
    )
    app = typer.Typer(add_completion=False)
    app.command()(command)
    found = [each for each in typer.main.get_command(app).params if each.name in declared]
    for each in found:
        each.expose_value = False
        each.callback = _note
    return found


def _annotated(option: Any) -> Any:
    """Return the annotation of a parameter, which is None unless given."""
    name = f"--{option.name.replace('_', '-')}"
    both = f"{name}/--no-{option.name.replace('_', '-')}" if option.kind is bool else name
    shown = typer.Option(
        both, help=option.help, rich_help_panel="Climb", show_default="the climb's"
    )
    return Annotated[option.kind | None, shown]


def _note(context: Any, parameter: Any, value: Any) -> None:
    if value is not None:
        context.meta.setdefault(SETTINGS, {})[parameter.name] = value
