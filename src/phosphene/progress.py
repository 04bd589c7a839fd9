"""What is done, how fast, and how long yet: on a terminal, in a notebook, in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

from phosphene.plain import Plain
from phosphene.texts import clean

EVERY = 30.0
"""Seconds between two lines where there is neither a terminal nor a notebook."""
NOTEBOOK_EVERY = 0.5
"""Seconds between two changes of a bar in a notebook."""


def span(seconds: float) -> str:
    """Return a length of time in words, with two figures of it."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = round(minutes / 60) if minutes > 600 else minutes // 60
    return f"{hours:,} h" if minutes > 600 else f"{hours} h {minutes % 60} min"


def _come_to(done: int, total: int | None, rate: float, unit: str) -> str:
    """Return how far something has come, how fast, and how long yet."""
    told = f"{done:,}{f' of {total:,}' if total else ''} {unit}, {rate:,.1f} a second"
    if total and rate > 0:
        told += f", {span((total - done) / rate)} left"
    return told


@contextmanager
def _in_notebook(total: int | None, text: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Lend the function that advances a bar in a notebook's output, which goes at the end.

    Widgets would need a package that a notebook may lack.
    """
    from IPython.display import display

    def told(done: int) -> dict[str, str]:
        rate = done / max(time.monotonic() - begun, 1e-9)
        line = clean(f"{text}: {_come_to(done, total, rate, unit)}")
        share = f' value="{done}" max="{total}"' if total else ""
        return {"text/plain": line, "text/html": f"<progress{share}></progress> {escape(line)}"}

    begun = before = time.monotonic()
    done = 0
    output = display(told(0), raw=True, display_id=True)

    def advance(count: int) -> None:
        nonlocal done, before
        done += count
        if time.monotonic() - before > NOTEBOOK_EVERY:
            before = time.monotonic()
            output.update(told(done), raw=True)

    try:
        yield advance
    finally:
        output.update({"text/plain": ""}, raw=True)


@contextmanager
def shown(
    console: Plain, total: int | None, text: str, unit: str
) -> Iterator[Callable[[int], None]]:
    """Lend the function that advances a progress bar with rate and time left.

    Off a terminal, and outside of a notebook, a line every half minute tells the same.
    """
    if console.is_jupyter:
        with _in_notebook(total, text, unit) as advance:
            yield advance
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    live = console.is_terminal
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not live) as progress:
        task, told = progress.add_task(text, total=total, rate=""), time.monotonic()
        before = 0

        def advance(count: int) -> None:
            nonlocal told, before
            speed = progress.tasks[task].speed
            progress.update(task, advance=count, rate=f"{speed:,.0f} {unit}/s" if speed else "")
            now = time.monotonic()
            if not live and now - told > EVERY:
                done = int(progress.tasks[task].completed)
                rate = (done - before) / (now - told)
                console.print(f"{text}: {_come_to(done, total, rate, unit)}", soft_wrap=True)
                told, before = now, done

        yield advance
