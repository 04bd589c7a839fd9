"""Parts from outside the package: `python:package.module:factory`.

This is the only room that runs a user's code. The module may lie in the current directory. Whatever
its code raises becomes one line.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any

from phosphene.errors import BadRequest, PhospheneError, UnknownName, near, one_line, type_name
from phosphene.parts import built_in

PREFIX = "python:"


def is_factory(name: str) -> bool:
    """Return whether a name means a factory, whatever is then wrong with the rest of it."""
    return name.startswith(PREFIX)


def load_factory(name: str) -> Callable[..., Any]:
    """Return the function or class that `python:package.module:factory` names.

    `BadRequest` where the name has another form, its module fails or it is not callable;
    `UnknownName` where there is no such module or attribute.
    """
    module, _, attribute = name.removeprefix(PREFIX).partition(":")
    parts = [*module.split("."), attribute]
    if not is_factory(name) or not all(part.isidentifier() for part in parts):
        raise BadRequest(f"{name} is not of the form python:package.module:factory")
    namespace = _module(name, module)
    if not hasattr(namespace, attribute):
        known = [
            key
            for key, value in vars(namespace).items()
            if callable(value) and not key.startswith("_")
        ]
        raise UnknownName(
            f"{name}: module {module} has no {attribute!r}; near: {near(attribute, known)}"
        )
    factory = getattr(namespace, attribute)
    if not callable(factory):
        raise BadRequest(f"{name} is {type_name(factory)}, not a function")
    return factory  # type: ignore[no-any-return]


def make(name: str, *arguments: Any, **options: Any) -> Any:
    """Return what the factory of this name returns for these arguments and options."""
    factory = load_factory(name)
    with _current_directory(), users_code(f"{name}: {name.rpartition(':')[2]}()"):
        return factory(*arguments, **options)


@contextmanager
def users_code(doing: str) -> Iterator[None]:
    """Turn whatever a user's code raises into a `BadRequest` of one line.

    It has the error's type, its message and its place; the cause stays attached. An error of this
    package is one line already, so it passes.
    """
    try:
        yield
    except PhospheneError:
        raise
    except (Exception, SystemExit) as error:
        raise BadRequest(
            f"{doing} raised {type(error).__name__}: {one_line(error)}{_where(error)}"
        ) from error


def _module(name: str, module: str) -> Any:
    importlib.invalidate_caches()  # the file may be seconds old
    try:
        with _current_directory(), users_code(f"{name}: importing {module}"):
            return importlib.import_module(module)
    except BadRequest as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise UnknownName(
                f"{name}: no module {missing!r} in {Path.cwd()} or among what is installed"
            ) from None
        raise


@contextmanager
def _current_directory() -> Iterator[None]:
    """Make the current directory importable for a while."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:  # a user's code may have cleaned up itself
            sys.path.remove(here)


def _where(error: BaseException) -> str:
    """Return the file and line of a user's code.

    "" where the message has them (a SyntaxError) or the fault lies in the call.
    """
    frame = extract_tb(error.__traceback__)[-1]
    inside = Path(__file__).parent in Path(frame.filename).parents
    if isinstance(error, SyntaxError) or inside:
        return ""
    return f" ({Path(frame.filename).name}, line {frame.lineno})"


def load_part(package: str, kind: str, name: str) -> Callable[..., Any]:
    """Return a part by its name: one of a package's own, or `python:package.module:factory`.

    A module of the package holds one part, which has the module's name: `phosphene.priors.pixels`
    holds `Pixels`. `kind` is what an error calls the part; `BadRequest` where there is none such.
    """
    known = built_in(package)
    if name in known:
        part = getattr(importlib.import_module(known[name]), name.title().replace("-", ""))
        return part  # type: ignore[no-any-return]
    if is_factory(name):
        return load_factory(name)
    raise BadRequest(f"no {kind} {name!r}; there are: {', '.join(known)}, {PREFIX}MODULE:FACTORY")
