"""Parts of the program that can be exchanged, and the options that each declares.

A part is a class or a function: a prior, an objective, an optimizer, a constraint, a study. Its
options are the fields of its dataclass, or a function's parameters with a default. The command
line, the record and the documentation are derived from that declaration.
"""

from __future__ import annotations

import inspect
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from phosphene.errors import BadRequest

KINDS = (bool, int, float, str)
"""Types of the values that an option can have."""


@dataclass(frozen=True)
class Option:
    """A value that a part can be given.

    A number lies in `low` … `high`; a text is one of `choices`, where there are any.
    """

    name: str
    default: Any
    help: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def kind(self) -> type:
        """Return the type of the option's values."""
        return type(self.default)

    def checked(self, value: Any) -> Any:
        """Return the value; `BadRequest` where the option cannot have it."""
        if self.choices and value not in self.choices:
            choices = ", ".join(self.choices)
            raise BadRequest(f"no {self.name} {value!r}; there are: {choices}")
        if self.kind is bool and not isinstance(value, bool):
            raise BadRequest(f"{self.name} is True or False; got {value!r}")
        if self.kind is str and not isinstance(value, str):
            raise BadRequest(f"{self.name} is a text; got {value!r}")
        if self.kind in (int, float):
            self._check_number(value)
        return value

    def _check_number(self, value: Any) -> None:
        right = isinstance(value, (int, self.kind)) and not isinstance(value, bool)
        if not right or not self.low <= value <= self.high:
            noun = "a whole number" if self.kind is int else "a number"
            limits = f" in {self.low:,} … {self.high:,}" if self.high < math.inf else ""
            raise BadRequest(f"{self.name} must be {noun}{limits}; got {value!r}")

    def read(self, text: str) -> Any:
        """Return the value that a text on the command line means."""
        if self.kind is bool:
            return self.checked({"true": True, "false": False}.get(text.lower(), text))
        try:
            return self.checked(self.kind(text))
        except ValueError:
            raise BadRequest(f"{self.name} cannot be {text!r}; such as {self.default}") from None


def option(
    default: Any,
    help: str = "",
    *,
    low: float = -math.inf,
    high: float = math.inf,
    choices: Sequence[str] = (),
) -> Any:
    """Return the dataclass field of an option (see `Option`)."""
    limits = {"help": help, "low": low, "high": high, "choices": tuple(choices)}
    return field(default=default, metadata=limits)


def options_of(part: Any) -> dict[str, Option]:
    """Return the options that a part declares, by name.

    `part` is a dataclass, whose fields with a plain default are options, or a function or another
    class, whose parameters with a plain default are.
    """
    if is_dataclass(part):
        found = [Option(each.name, each.default, **each.metadata) for each in fields(part)]
    else:
        parameters = inspect.signature(part).parameters.values()
        found = [Option(each.name, each.default) for each in parameters]
    plain = [each for each in found if each.default is not MISSING and each.kind in KINDS]
    return {each.name: each for each in plain}


def check_options(part: Any) -> None:
    """Refuse with `BadRequest` an instance whose options have values that they cannot have."""
    for name, each in options_of(part).items():
        each.checked(getattr(part, name))


def checked_options(part: Any, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return all options of a part, with their defaults where `values` lack them.

    `source` is what an error calls the part. `BadRequest` where it has no such option, or not with
    this value.
    """
    known = options_of(part)
    check_names(source, values, known)
    return {name: each.checked(values.get(name, each.default)) for name, each in known.items()}


def check_names(source: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse with `BadRequest` the first name that is none of an option's."""
    known = list(known)
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3) or known
            some = f"; near: {', '.join(near)}" if near else ""
            raise BadRequest(f"{source} has no setting {name!r}{some}")


def read_options(
    known: Mapping[str, Option], values: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """Return values by name, texts read as the options are declared.

    `source` is what an error calls the part. `BadRequest` where it has no such option.
    """
    check_names(source, values, known)
    return {
        name: known[name].read(value) if isinstance(value, str) else value
        for name, value in values.items()
    }


def built_in(package: str) -> dict[str, str]:
    """Return the modules of a package, such as `phosphene.priors`, by the names of their parts.

    A module is found by listing the folder. Its part's name is the module's, with hyphens. A module
    whose name begins with an underscore holds no part.
    """
    folder = import_module(package).__path__
    names = [each.name for each in pkgutil.iter_modules(folder) if not each.name.startswith("_")]
    return {name.replace("_", "-"): f"{package}.{name}" for name in names}


def name_of(part: str | Callable[..., Any]) -> str:
    """Return what a record calls a part: its own name, or where Python finds its class or function.

    Of a part that no module offers, nobody can find it again.
    """
    if isinstance(part, str):
        return part
    module, name = getattr(part, "__module__", ""), getattr(part, "__qualname__", "")
    if module not in ("", "__main__") and name.isidentifier():
        return f"python:{module}:{name}"
    return f"{name or type(part).__name__} given in Python"
