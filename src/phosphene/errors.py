"""What can go wrong, said once. The command line turns each into one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PhospheneError(Exception):
    """Base of every error that is somebody's mistake and not a bug.

    The message says what, what it got, and what would work.
    """


class UnknownName(PhospheneError):
    """A subject, layer, unit, class, prior or recipe that does not exist."""


class BadFile(PhospheneError):
    """A file from outside that is damaged, hostile, or not what it says."""


class BadRequest(PhospheneError):
    """Values that cannot go together or lie outside their range."""


class Unavailable(PhospheneError):
    """Something that must come from elsewhere (an extra, a hub) and did not."""


class OutOfSpace(PhospheneError):
    """The disk took no more; what was finished before is kept."""


class Notice(UserWarning):
    """What a user should know and what is nobody's mistake.

    The command line prints it as a line.
    """


def near(wanted: object, known: Iterable[str]) -> str:
    """Return the names nearest to the one wanted, or the first ones, or "none"."""
    names = list(known)
    return ", ".join(get_close_matches(str(wanted), names, n=3, cutoff=0.4) or names[:3]) or "none"


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(getattr(error, "reason", None) or error).split()) or "no message"


def type_name(value: object) -> str:
    """Return the type of a value with its article, or `None`."""
    name = type(value).__name__
    return f"{value!r}" if value is None else f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
