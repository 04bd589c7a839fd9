"""Texts of others, made safe.

These are what a terminal or a page shows of them, and the names of their files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\ud800-\udfff\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
"""Control characters, halves of characters, other ends of a line, changes of direction."""


def clean(text: str) -> str:
    """Return the text with a mark in place of each character that is not shown, but acts."""
    return _UNSEEN.sub("\ufffd", text)


def escaped(text: str) -> str:
    r"""Return JSON in which each character that acts is written as \uXXXX.

    Its values are the same.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}" if found[0] != "\n" else "\n", text)


def slug(text: str) -> str:
    """Return a text as part of a file's name: all but letters, digits and dots become dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")


def file_names(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Return a safe, readable file name for each name, all different on any file system.

    Some file systems take `Conv` and `conv` for one name, so the names differ in more than case.
    """
    used, found = {*taken}, []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:60] or "unnamed"
        tries = (plain if n == 1 else f"{plain}-{n}" for n in range(1, len(names) + len(used) + 2))
        found.append(next(each for each in tries if each.lower() not in used))
        used.add(found[-1].lower())
    return found
