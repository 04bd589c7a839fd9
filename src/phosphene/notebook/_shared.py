"""What the calls share: the subject that is lent, the machine, progress, a folder of one's own."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from torch import nn

from phosphene.errors import BadRequest
from phosphene.files import path_of
from phosphene.plain import Plain
from phosphene.probe import borrowed
from phosphene.progress import shown
from phosphene.runtime import chosen
from phosphene.subjects import Subject, load_subject, wrap
from phosphene.synthesis import checked_device
from phosphene.tensors import FITS
from phosphene.units import Target, Unit

USUAL_SIZE = (224, 224)
"""Height and width that a module reads where nothing else is said."""


@contextmanager
def lent(
    subject: Subject | nn.Module | str | Path,
    fit: str,
    inputs: Mapping[str, Any],
    size: int | tuple[int, int] = USUAL_SIZE,
) -> Iterator[Subject]:
    """Lend the subject that is named or given, and give its network back as it was."""
    if isinstance(subject, (str, Path)):
        subject = load_subject(subject, fit=fit, inputs=inputs)
    elif isinstance(subject, Subject) and (fit or inputs):
        raise BadRequest("a Subject has its own fit and inputs: give them to phosphene.wrap")
    network = subject.network if isinstance(subject, Subject) else subject
    with borrowed(network) if isinstance(network, nn.Module) else nullcontext():
        if not isinstance(subject, Subject):  # what is no module is refused by `wrap`
            subject = wrap(subject, size=size, fit=fit or FITS[0], inputs=inputs)
        yield subject


def names_of(given: object, what: str) -> tuple[str, ...]:
    """Return one name or several; `BadRequest` where something else is given as `what`."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise BadRequest(f"{what} is a name or several; got {shortened(given)}")
    return tuple(names)


def device_for(device: str) -> str:
    """Return the device that "auto" or a name means; `BadRequest` where it is not here."""
    return checked_device(chosen(device, "float32")[0])


def texts_of(units: str | Unit | Target | Sequence[str | Unit | Target]) -> list[str]:
    """Return units as texts; `BadRequest` where they are of another form."""
    one = isinstance(units, (str, Unit, Target))
    given = [units] if one else units
    known = (str, Unit, Target)
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, known) for each in given):
        raise BadRequest(f"units are texts such as 'conv5:7'; got {shortened(units)}")
    if not given:
        raise BadRequest("no units given; for example 'conv5:7' or ['conv5:0-31', 'class:lion']")
    return [str(each) for each in given]


@contextmanager
def progress(
    total: int | None, text: str, unit: str, quiet: bool | None
) -> Iterator[Callable[[int], None]]:
    """Lend the function that shows how far a call has come."""
    console = Plain(stderr=True)
    if quiet or (quiet is None and not (console.is_terminal or console.is_jupyter)):
        yield lambda count: None
        return
    with shown(console, total, text, unit) as advance:
        yield advance


def since(advance: Callable[[int], None]) -> Callable[[int], None]:
    """Return what is told how many are done, for `advance`, which is told how many more."""
    before = 0

    def report(done: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return report


class Place:
    """Hold a folder for what a call makes: the given one, or one that goes with this value."""

    def __init__(self, out: str | Path | None) -> None:
        made = tempfile.mkdtemp(prefix="phosphene-") if out is None else out
        self.folder = path_of(made, "out")
        if out is None:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
