"""What stderr shows while a command works: what is done, how fast, how long yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from phosphene.cli.shell import err, styled
from phosphene.progress import shown, span
from phosphene.runtime import peak_memory
from phosphene.texts import clean


@contextmanager
def status(text: str) -> Iterator[None]:
    """Show a spinner beside what is being done, on a terminal."""
    with err.status(styled(text)):
        yield


FIRST_LOOK = 10.0
"""Seconds after which a run's time is estimated."""
LONG = 600.0
"""Seconds from which on a run's time is told."""


def foreseeing(
    advance: Callable[[int], None], pictures: int, steps: int, batch: int
) -> Callable[[int], None]:
    """Return `advance` for a climb, which also tells once how long a long run takes.

    It tells as well what halves the time. The time is that of the first batch's first steps.
    """
    began = time.monotonic()
    done = 0
    told = False

    def report(count: int) -> None:
        nonlocal done, told
        advance(count)
        done += count
        passed = time.monotonic() - began
        if told or passed < FIRST_LOOK:
            return
        told = True
        seconds = pictures * steps * passed / done
        if seconds >= LONG:
            err.print(f"phosphene: {foreseen(pictures, seconds, steps, batch)}", soft_wrap=True)

    return report


def foreseen(pictures: int, seconds: float, steps: int, batch: int) -> str:
    """Return a line on a run that takes so long in all, and on what makes it shorter."""
    memory = peak_memory()
    told = f"{pictures:,} pictures of {steps} steps take about {span(seconds)}"
    if memory:
        told += f" and {memory / 1e9:.1f} GB, {batch} at once"
    remedies = [f"--steps {steps // 2} halves the time"] if steps > 1 else []
    if batch > 1:
        remedies.append(f"--batch {batch // 2} takes less memory")
    remedies.append(
        "fewer units take less of the time; what is finished is kept when this is stopped"
    )
    return f"{told}; {', '.join(remedies)}"


def expected(told: Mapping[str, Any]) -> str:
    """Return a line on what a run of some pictures would take."""
    processes = told["processes"]
    each = f" in each of {processes:,} processes" if processes > 1 else ""
    return (
        f"{told['pictures']:,} pictures of {told['steps']:,} steps, {told['batch']:,} at once: "
        f"about {span(told['seconds'])} and {told['bytes'] / 1e9:.1f} GB{each}"
    )


@contextmanager
def bar(total: int | None, text: str, unit: str = "photographs") -> Iterator[Callable[[int], None]]:
    """Lend the function that advances a progress bar on stderr (see `phosphene.progress`)."""
    with shown(err, total, text, unit) as advance:
        yield advance


def stepwise(advance: Callable[[int], None]) -> Callable[[int, int, dict[str, float]], None]:
    """Return the progress of a runtime, which tells how many there are, for a bar's `advance`."""
    before = 0

    def report(step: int, steps: int, figures: dict[str, float]) -> None:
        nonlocal before
        advance(step - before)
        before = step

    return report


@contextmanager
def claims_bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """Show a progress bar over claims with what is done just now.

    Off a terminal, it prints a line every half minute at most. It lends the function that says what
    is done, and the one that advances.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=total)
        before = time.monotonic()

        def told(text: str) -> None:
            nonlocal before
            progress.update(task, description=clean(text))
            if not err.is_terminal and time.monotonic() - before > 30:
                before = time.monotonic()
                err.print(text, soft_wrap=True)

        yield told, lambda: progress.advance(task)


@contextmanager
def training_bar(told_here: bool = True) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """Show a progress bar with a run's figures, rate and time left.

    Off a terminal, it prints a line every half minute.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=False, disable=not told_here) as progress:
        task = progress.add_task("training", total=None, figures="", rate="")
        total_before = 0
        told = 0.0

        def report(step: int, steps: int, figures: dict[str, float]) -> None:
            nonlocal total_before, told
            if steps != total_before:
                progress.reset(task, total=steps, completed=step)
                total_before = steps
            speed = progress.tasks[task].speed
            rate = f"{speed:.1f} steps/s" if speed else ""
            text = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
            progress.update(task, completed=step, figures=text, rate=rate)
            if told_here and not err.is_terminal and time.monotonic() - told > 30:
                told = time.monotonic()
                err.print(f"step {step:,} of {steps:,}: {text}", soft_wrap=True)

        yield report
