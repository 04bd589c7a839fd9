"""The command line, which alone reads arguments, prints, exits, and picks a seed."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from inspect import cleandoc
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from phosphene import __version__
from phosphene.cli import training, zoo
from phosphene.cli.climbing import layers, reconstruct, synthesize
from phosphene.cli.evolving import evolve, rig, stimuli
from phosphene.cli.importance import importance
from phosphene.cli.measuring import dissect, evaluate, exemplars, study
from phosphene.cli.options import (
    ClimbCommand,
    SearchCommand,
    StimulusCommand,
    StudyCommand,
    SubjectCommand,
)
from phosphene.cli.reporting import atlas, claims
from phosphene.cli.shell import Interrupted, err, refuse, tells_notices
from phosphene.errors import PhospheneError
from phosphene.files import home

COMMANDS: tuple[Callable[..., None], ...] = (
    synthesize,
    evolve,
    rig,
    stimuli,
    layers,
    reconstruct,
    exemplars,
    evaluate,
    importance,
    dissect,
    study,
    atlas,
    claims,
)
"""In the order of the help."""

app = typer.Typer(
    name="phosphene",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Show what the neurons of a vision network want to see.",
)
KINDS = {
    synthesize: ClimbCommand,
    evolve: SearchCommand,
    stimuli: StimulusCommand,
    **dict.fromkeys((exemplars, dissect), StudyCommand),
}
"""The commands that take options of parts."""
for command in COMMANDS:
    app.command(rich_help_panel="Main", cls=KINDS.get(command, SubjectCommand))(command)
app.add_typer(training.app, name="train")
app.add_typer(zoo.app, name="zoo")
for each in (
    *app.registered_commands,
    *training.app.registered_commands,
    *zoo.app.registered_commands,
):
    paragraphs = cleandoc(each.callback.__doc__ or "").split("\n\n") if each.callback else []
    each.help = "\n\n".join(
        " ".join(text.split()) for text in paragraphs
    )  # the page's width breaks lines, not ours

_UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""What the command-line library raises for arguments that it cannot use."""

_NO_MEMORY = ("can't allocate memory", "out of memory")
"""What torch says on a CPU, and on an accelerator."""


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, Ctrl-C one line and 130."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    signal.signal(signal.SIGINT, interrupt)
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = str(home())  # or libraries would make a folder that is called "~"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter
    try:
        with tells_notices():
            sys.exit(app(standalone_mode=False))
    except PhospheneError as error:
        refuse(str(error))
    except _UsageError as error:
        refuse(error.format_message())
    except Interrupted:
        err.print("phosphene: stopped; what is finished is kept")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)):
            raise
        asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
        lacking = f", {asked[1]} more were asked for" if asked else ""
        refuse(
            f"too little memory{lacking}; what was finished is kept; take a smaller --batch, "
            "or for training a smaller batch in the recipe"
        )
    except OSError as error:  # what no room foresaw: a full disk, a folder that may not be written
        try:
            sys.stdout.flush()
        except OSError:  # stdout itself: nothing more can go there
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        refuse(str(error))


def _version(show: bool) -> None:
    if show:
        typer.echo(f"phosphene {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Show what the neurons of a vision network want to see."""
