"""Options of the command line that the parts of a climb, and the studies, declare.

They are read when a command is parsed, not when the program starts: the parts import torch.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from phosphene.errors import BadRequest
from phosphene.factories import ALIASES, NETWORKS
from phosphene.weights import check_name

if TYPE_CHECKING:
    from phosphene.parts import Option

SETTINGS = "phosphene.settings"
"""Where a command's context keeps what was given of the parts' options."""


class SubjectCommand(TyperCommand):
    """Refuse the name of no subject before it imports torch."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Look at the subject's name where it is the first word, then parse all of them."""
        reads_subject = bool(self.params) and self.params[0].name == "subject"
        if reads_subject and args and not args[0].startswith("-"):
            check_name(args[0], (*NETWORKS, *ALIASES))
        return super().parse_args(ctx, args)


class DeclaredCommand(SubjectCommand):
    """Take the options that parts declare beside a command's own."""

    panel: str | None = None
    """Where the help shows them."""
    whose: str = ""
    """Whose the defaults are, where they are not those of the declaration."""
    _parameters: list[Any] | None = None

    @abstractmethod
    def declared(self) -> dict[str, Option]:
        """Return the options, by name."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's own parameters, with those that the parts declare before Machine."""
        if self._parameters is None:
            options = self.declared().values()
            self._parameters = _parameters([_annotated(each, self) for each in options])
        own = super().get_params(ctx)
        panels = [getattr(each, "rich_help_panel", None) for each in own]
        at = panels.index("Machine") if "Machine" in panels else len(own)
        return [*own[:at], *self._parameters, *own[at:]]


class ClimbCommand(DeclaredCommand):
    """Take the options of a climb and of its built-in parts beside a command's own."""

    panel = "Climb"
    whose = "the climb's"

    def declared(self) -> dict[str, Option]:
        from phosphene.parts import options_of
        from phosphene.synthesis import Climb

        return options_of(Climb) | _of_parts(gradient=True)


class SearchCommand(ClimbCommand):
    """Take the options of searches without a gradient."""

    help_texts: ClassVar = {
        "steps": "Generations.",
        "optimizer": "The search: evolution, surrogate, genetic, sphere, cholesky, cma-es or "
        "python:MODULE:FACTORY.",
        "constraint": "What keeps codes plausible: gaussian, box or none.",
    }

    def declared(self) -> dict[str, Option]:
        from phosphene.parts import options_of
        from phosphene.synthesis import Climb

        climb = options_of(Climb)
        told = {name: replace(climb[name], help=text) for name, text in self.help_texts.items()}
        return told | _of_parts(gradient=False)


class StimulusCommand(DeclaredCommand):
    """Take the constraints of a picture."""

    panel = "Picture"

    def declared(self) -> dict[str, Option]:
        from phosphene.parts import options_of
        from phosphene.stimulus import Stimulus

        return options_of(Stimulus)


class StudyCommand(DeclaredCommand):
    """Take the options of one study beside a command's own."""

    studies: ClassVar = {"exemplars": "exemplars", "dissect": "dissection"}

    def declared(self) -> dict[str, Option]:
        from phosphene.parts import options_of
        from phosphene.studies import study_names

        return options_of(study_names()[self.studies[str(self.name)]])


def _of_parts(gradient: bool) -> dict[str, Option]:
    """Return the options of a climb's built-in parts; without a `gradient`, those of searches."""
    from phosphene.constraints import CONSTRAINTS
    from phosphene.optimizers import load_optimizer
    from phosphene.parts import built_in, options_of
    from phosphene.priors import prior_options
    from phosphene.stimulus import Stimulus

    found = options_of(Stimulus)
    for optimizer in map(load_optimizer, built_in("phosphene.optimizers")):
        if gradient or not optimizer.uses_gradient:
            found |= options_of(optimizer)
    for constraint in CONSTRAINTS.values():
        found |= options_of(constraint)
    for name in built_in("phosphene.priors"):
        found |= prior_options(name)
    return found


def given_settings(context: typer.Context, assigned: Sequence[str] = ()) -> dict[str, Any]:
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


def _annotated(option: Option, command: DeclaredCommand) -> inspect.Parameter:
    """Return an option as a parameter of a function, which is None unless given, or has a default.

    Where the declaration has limits and a default, the command-line library shows them.
    """
    flag = f"--{option.name.replace('_', '-')}"
    both = f"{flag}/--no-{option.name.replace('_', '-')}" if option.kind is bool else flag
    shown: dict[str, Any] = {"help": option.help, "rich_help_panel": command.panel}
    if command.whose:
        shown["show_default"] = command.whose
    elif option.high < math.inf:
        shown |= {"min": option.low, "max": option.high}
    told = typer.Option(both, **shown)
    kind: Any = Annotated[option.kind | None, told]  # type: ignore[name-defined]
    default = None if command.whose else option.default
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(option.name, keyword, default=default, annotation=kind)


def _parameters(options: Sequence[inspect.Parameter]) -> list[Any]:
    """Return the command-line library's parameters, which note what is given in the context."""

    def command() -> None:
        """Do nothing: only the signature counts."""

    command.__annotations__ = {each.name: each.annotation for each in options}
    command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(command)
    known = command.__annotations__
    found = [each for each in typer.main.get_command(app).params if each.name in known]
    for each in found:
        each.expose_value = False
        each.callback = _note
    return found


def _note(context: Any, parameter: Any, value: Any) -> None:
    if value is not None:
        context.meta.setdefault(SETTINGS, {})[parameter.name] = value
