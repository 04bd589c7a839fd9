"""Parts from outside the package: `python:package.module:factory`.

This is the only room that runs a user's code. The module may lie in the current directory. Whatever
its code raises becomes one line.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any

from phosphene.errors import BadRequest, PhospheneError, UnknownName, near, one_line, type_name
from phosphene.parts import built_in

NETWORKS = (
    "torchvision",
    "timm",
    "hf",
    "python",
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
)
"""What names of networks from outside begin with; `networks.sources` has their loaders."""
ALIASES = {"caffenet-random": "caffenet-objects@random"}
"""Other names of subjects."""

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


def make(name: str, /, *arguments: Any, **options: Any) -> Any:
    """Return what the factory of this name returns for these arguments and options."""
    factory = load_factory(name)
    with _current_directory(), users_code(f"{name}: {name.rpartition(':')[2]}()"):
        return factory(*arguments, **options)


def checked_part(part: object) -> Callable[..., Any]:
    """Return a class or function that makes a part; `BadRequest` where it is something else."""
    made = not isinstance(part, type) and not hasattr(part, "__qualname__")
    if made or not callable(part):
        raise BadRequest(
            f"a part is its class or a function; got an object of {type(part).__name__}, so give "
            "the class itself"
        )
    return part


def is_from_outside(part: object) -> bool:
    """Return whether a class, or an object's class, is none of this package's."""
    kind = part if isinstance(part, type) else type(part)
    return not kind.__module__.startswith("phosphene.")


def code_of(part: object) -> str:
    """Return a hash of the code of a class or function from outside, "" of a built-in part.

    It covers the source, and the values that a function has from where it was defined.
    """
    module = str(getattr(part, "__module__", ""))
    if module.startswith("phosphene."):
        return ""
    try:
        source = inspect.getsource(part)  # type: ignore[arg-type]
    except (OSError, TypeError):  # typed into a console
        code = getattr(part, "__code__", None)
        source = repr(code and (code.co_code, code.co_names, code.co_varnames))
    cells = [repr(each.cell_contents) for each in getattr(part, "__closure__", None) or ()]
    content = f"{source} {getattr(part, '__defaults__', None)} {cells}"
    return hashlib.sha256(content.encode()).hexdigest()


def files_of(names: Iterable[object]) -> dict[str, str]:
    """Return the files in which the modules of loaded parts lie, by the names of the parts."""
    named = [name for name in map(str, names) if is_factory(name)]
    modules = {name: sys.modules.get(name.split(":")[1]) for name in named}
    files = {name: getattr(module, "__file__", None) for name, module in modules.items()}
    return {name: file for name, file in files.items() if file}


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
            f"{doing} raised {type(error).__name__}: {one_line(error)}{_where(error)}{_cure(error)}"
        ) from error


def _cure(error: BaseException) -> str:
    """Return what helps where torchvision was built for another torch, "" for any other error."""
    if "operator torchvision::" not in str(error):
        return ""
    return (
        "; this torchvision is not the one of this torch: pip install --force-reinstall torch "
        "torchvision, both from the same index"
    )


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
    """Return the file and line of a user's code: the last that is in no library.

    "" where the message has them (a SyntaxError) or the fault lies in the call.
    """
    frames = [frame for frame in extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _is_library(file: str) -> bool:
    """Return whether a file is this package's, another package's, or Python's own."""
    places = Path(file).parents
    python = Path(sysconfig.get_path("stdlib")) in places
    own = python or Path(__file__).parent in places or file.startswith("<")
    return own or any(place.name in ("site-packages", "dist-packages") for place in places)


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
