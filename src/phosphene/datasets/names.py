"""Names of splits and of classes: which file is of which split, and which class is which."""

from __future__ import annotations

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from unicodedata import normalize

from phosphene.errors import BadFile, BadRequest, Notice

SPLITS = {
    "train": ("train",),
    "val": ("val", "test"),
    "all": ("train", "val", "test", "all"),
}
"""What a split is made of. Of `val` the first kind that is there is taken, of `all` every one."""
WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "all": ("all", "samples"),
}
"""What data sets call the kinds of `SPLITS`."""
NUMBERED = re.compile(
    r"(?P<word>[a-z]+)([-_. ]?\d+)?([-_. ]of[-_. ]\d+)?(-[0-9a-f]{16})?", re.IGNORECASE
)
"""A kind's word, alone or as one of several shards: train, train-00, train_00, train-00-of-02."""
MAX_NAMED = 5
"""Names that a message lists."""


def check_split(split: str) -> None:
    """Raise `BadRequest` where there is no such split."""
    if split not in SPLITS:
        raise BadRequest(f"no split {split!r}; there are: {', '.join(SPLITS)}")


def kind_of(name: str) -> str | None:
    """Return what a file, folder or table of this name is: train, val, test or all.

    None for other names.
    """
    found = NUMBERED.fullmatch(name)
    word = found["word"].lower() if found else ""
    return next((kind for kind, words in WORDS.items() if word in words), None)


def chosen(names: Iterable[str], split: str) -> list[str]:
    """Return those of the names that make up a split, as they come."""
    kinds = {name: kind_of(name) for name in names}
    if split == "all":
        return [name for name, kind in kinds.items() if kind]
    for wanted in SPLITS[split]:
        if found := [name for name, kind in kinds.items() if kind == wanted]:
            return found
    return []


def warn_of_test(name: str) -> None:
    """Say that photographs for testing stand for those for validation."""
    warnings.warn(f"{name} has no validation split; its test split is used", Notice, stacklevel=2)


def plain(name: str) -> str:
    """Return a file's name as text: in NFC, with bytes that are no UTF-8 written out as \\xe9."""
    return normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def name_of(folder: Path) -> str:
    """Return what a data set is called: the name of its folder, also where that is given as "."."""
    return plain(os.path.basename(os.path.abspath(folder))) or "root"


def listed(names: Sequence[object]) -> str:
    """Return the first of some names, and how many more there are."""
    some = ", ".join(map(str, names[:MAX_NAMED]))
    return some if len(names) <= MAX_NAMED else f"{some} and {len(names) - MAX_NAMED:,} more"


def same_names(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two lists name the same classes, at least one, in whatever order."""
    return bool(one) and sorted(map(_normal, one)) == sorted(map(_normal, other))


def places_of(own: Sequence[str], onto: Sequence[str]) -> list[int | None]:
    """Return where each class of one list is in another, by its name in NFC; None where it is not.

    A name that several classes share is matched in its order, where both lists have it equally
    often; otherwise nothing tells them apart, which is `BadRequest`.
    """
    here, there = _numbers(own), _numbers(onto)
    found: list[int | None] = [None] * len(own)
    for name, numbers in here.items():
        goals = there.get(name, [])
        if goals and len(goals) != len(numbers):
            raise BadRequest(
                f"the class {name!r} comes {len(numbers)} times in one list of classes and "
                f"{len(goals)} times in the other, so nothing tells which is which"
            )
        for number, goal in zip(numbers, goals, strict=False):
            found[number] = goal
    return found


def laid(
    own: Sequence[str],
    onto: Sequence[str],
    whose: str,
    theirs: str,
    used: Iterable[int] | None = None,
) -> list[int]:
    """Return the number in `onto` of each class in `own`.

    `BadFile` names those that `onto` lacks, of the classes that are `used` (all, by default); the
    others get −1.
    """
    found = places_of(own, onto)
    folded = {_normal(name).casefold(): name for name in onto}
    wrong = []
    for name in [own[i] for i in (range(len(own)) if used is None else used) if found[i] is None]:
        near = folded.get(_normal(name).casefold())
        wrong.append(f"{name!r} ({theirs} has {near!r})" if near else repr(name))
    if wrong:
        raise BadFile(
            f"{whose} has classes that {theirs} lacks: {listed(wrong)}; classes go by their names, "
            "so name them alike, or take them out"
        )
    return [-1 if number is None else number for number in found]


def _numbers(names: Sequence[str]) -> dict[str, list[int]]:
    """Return at which places each name stands."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        found[_normal(name)].append(number)
    return found


def _normal(name: str) -> str:
    return normalize("NFC", name)
