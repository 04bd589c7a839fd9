"""What the commands share: consoles, options, the machine, warnings, refusals, figures."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from phosphene.errors import BadRequest, Notice
from phosphene.plain import Plain
from phosphene.texts import clean, escaped

if TYPE_CHECKING:
    from phosphene import tables
    from phosphene.subjects import Subject

out = Plain()
err = Plain(stderr=True)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel="Machine")]
Precision = Annotated[
    str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel="Machine")
]
Threads = Annotated[
    int,
    typer.Option(
        help="CPU threads; 0 leaves the choice to torch.",
        min=0,
        max=1024,
        rich_help_panel="Machine",
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(help="python:… : code of a record's prior, optimizer or objective that may run."),
]
Fit = Annotated[
    str,
    typer.Option(
        help="How images come to the subject's shape: crop, stretch or pad.",
        show_default="the subject's",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="NAME=FILE.npy: what the network reads beside images."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

MAX_WIDTH = 100_000
"""Columns of a table that goes into a pipe or a file."""


class Interrupted(BaseException):
    """Ctrl-C. The command-line library would turn KeyboardInterrupt into an exit of its own."""


def refuse(message: str) -> NoReturn:
    """Report a user's mistake in one line, and exit with code 2."""
    warn(message)
    sys.exit(2)


def warn(message: str) -> None:
    """Print one line on stderr."""
    line = " ".join(message.split())
    if line:  # empty where the help was shown instead
        err.print(styled("phosphene:", "bold red"), line, soft_wrap=True)


@contextmanager
def tells_notices() -> Iterator[None]:
    """Print each notice as a line, once.

    Of several processes that train together, the first prints it.
    """
    told = set()
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, Notice):
            others(message, category, *place, **more)
        elif str(message) not in told and os.environ.get("RANK", "0") == "0":
            told.add(str(message))
            warn(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield


def styled(text: str, style: str = "") -> Text:
    """Return a text as it is, in a style; whatever takes no plain `str` as it is takes this."""
    return Text(clean(text), style)


def choose_machine(device: str, precision: str, threads: int) -> dict[str, Any]:
    """Return where and how to compute.

    "auto" takes the accelerator, and bfloat16 where the hardware has it.
    """
    import torch

    from phosphene.runtime import chosen

    one_of(device, ("auto", "cpu", "cuda", "mps"))
    one_of(precision, ("auto", "float32", "bfloat16"))
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device, precision = chosen(device, precision)
    if not has[device]:
        raise BadRequest(f"--device {device}: there is none here; use auto or cpu")
    if threads:
        torch.set_num_threads(threads)
    return {"device": device, "precision": precision, "threads": torch.get_num_threads()}


def named_subject(name: str, fit: str, inputs: Sequence[str] | None) -> Subject:
    """Return a subject by its name, with its adapter and its further inputs, NAME=FILE.npy."""
    from phosphene.subjects import load_subject

    pairs = [text.partition("=") for text in inputs or ()]
    files: dict[str, str] = {}
    for argument, _, file in pairs:
        if not (argument.isidentifier() and file):
            raise BadRequest(f"--input takes NAME=FILE.npy; got {argument!r} and {file!r}")
        if argument in files:
            raise BadRequest(f"--input gives {argument} twice: {files[argument]} and {file}")
        files[argument] = file
    return load_subject(name, fit=fit, inputs=files)


def one_of(value: str | None, allowed: Sequence[str]) -> str | None:
    """Return the value, where it is allowed or not given."""
    if value is not None and value not in allowed:
        raise BadRequest(f"{value!r} is none of: {', '.join(allowed)}")
    return value


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given, rather than left at its default."""
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def refuse_options(context: typer.Context, names: Collection[str | None], what: str) -> None:
    """Refuse those of some options that were given: they say nothing of `what`.

    `names` are the parameters of the command's function. A default is not given.
    """
    given = [each for each in context.command.get_params(context) if each.name in names]
    given = [each for each in given if is_given(context, str(each.name))]
    if given:
        flags = [(each.opts[0], str(each.name).upper()) for each in given]
        words = [flag if flag.startswith("-") else name for flag, name in flags]
        does, it = ("does", "it") if len(given) == 1 else ("do", "them")
        raise BadRequest(f"{', '.join(words)} {does} not apply to {what}; leave {it} out")


def print_json(value: Any) -> None:
    """Print JSON on stdout, with null for NaN."""
    from phosphene.files import without_nan

    typer.echo(escaped(json.dumps(without_nan(value), indent=1, ensure_ascii=False)))


def print_table(table: Table) -> None:
    """Print a table on stdout with nothing cut.

    Into a pipe or a file it is as wide as its content. On a terminal a cell that is too long goes
    on in the next line.
    """
    for column in table.columns:
        column.overflow = "fold"
    if out.is_terminal:
        out.print(table)
        return
    width = Measurement.get(out, out.options.update(max_width=MAX_WIDTH), table).maximum
    Plain(file=out.file, width=max(width, out.width)).print(table)


def tell_table(table: tables.Table) -> None:
    """Print a table of results, and its notes, on stdout."""
    columns = [
        Column(name, no_wrap=place in table.unbroken) for place, name in enumerate(table.columns)
    ]
    shown = Table(*columns, title=table.title or None)
    for row in table.rows:
        shown.add_row(*row)
    print_table(shown)
    for line in table.notes:
        out.print(line, soft_wrap=True)


def tell_figures(title: str, figures: dict[str, dict[str, Any]]) -> None:
    """Print a table of figures, as JSON has them, with their intervals."""
    from phosphene.tables import figures_table

    tell_table(figures_table(title, figures))
