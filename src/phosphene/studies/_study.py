"""What a study is: a question put to units of a network, whose answer is a form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from phosphene.forms import StudyForm
from phosphene.runtime import Runtime
from phosphene.subjects import Subject
from phosphene.units import Unit


class Study(ABC):
    """Put a question to units of a network.

    A subclass is a frozen dataclass, whose fields are its options (see `parts.option`). Its answer
    is a `StudyTable`, or a form of its own where the atlas has a page for it.
    """

    @abstractmethod
    def run(
        self, subject: Subject, units: Sequence[Unit], images: Path, runtime: Runtime
    ) -> StudyForm:
        """Return what is found of some units on photographs.

        Pictures and what is kept for later lie in `runtime.folder`. The form itself is written
        there by the caller. Its `study` is the name under which the atlas finds its template.
        """


def counted(runtime: Runtime, total: int) -> Callable[[int], None]:
    """Return a function that is told of so many more photographs, and reports how many there are.

    `total` is how many there will be, 0 where nobody knows.
    """
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        runtime.progress(done, total, {})

    return report
