"""What stderr shows while a command works: what is done, how fast, how long yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phosphene.cli.shell import err, styled
from phosphene.texts import clean


@contextmanager
def status(text: str) -> Iterator[None]:
    """On a terminal, a spinner beside what is being done."""
    with err.status(styled(text)):
        yield


@contextmanager
def bar(total: int | None, text: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr with rate and time left; off a terminal, a line every half minute. Lends the function
    that advances it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task, told = progress.add_task(text, total=total, rate=""), time.monotonic()

        def advance(count: int) -> None:
            nonlocal told
            speed = progress.tasks[task].speed
            progress.update(task, advance=count, rate=f"{speed:,.0f} steps/s" if speed else "")
            if not err.is_terminal and time.monotonic() - told > 30:
                told, done = time.monotonic(), progress.tasks[task].completed
                err.print(
                    f"{text}: {done:,.0f}{f' of {total:,}' if total else ''}",
                    soft_wrap=True,
                )

        yield advance


@contextmanager
def claims_bar(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A progress bar over claims with what is done just now; off a terminal, a line every half minute at most.

    Lends the function that says what is done, and the one that advances.
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
        task, before = progress.add_task("", total=total), time.monotonic()

        def told(text: str) -> None:
            nonlocal before
            progress.update(task, description=clean(text))
            if not err.is_terminal and time.monotonic() - before > 30:
                before = time.monotonic()
                err.print(text, soft_wrap=True)

        yield told, lambda: progress.advance(task)


@contextmanager
def training_bar(told_here: bool = True) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A progress bar with a run's figures, rate and time left; off a terminal, a line every half minute."""
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
        task, total_before, told = (
            progress.add_task("training", total=None, figures="", rate=""),
            0,
            0.0,
        )

        def report(step: int, steps: int, figures: dict[str, float]) -> None:
            nonlocal total_before, told
            if steps != total_before:
                progress.reset(task, total=steps, completed=step)
                total_before = steps
            speed, text = (
                progress.tasks[task].speed,
                " ".join(f"{name} {value:.3f}" for name, value in figures.items()),
            )
            progress.update(
                task, completed=step, figures=text, rate=f"{speed:.1f} steps/s" if speed else ""
            )
            if told_here and not err.is_terminal and time.monotonic() - told > 30:
                told = time.monotonic()
                err.print(f"step {step:,} of {steps:,}: {text}", soft_wrap=True)

        yield report
