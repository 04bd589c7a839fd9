"""What was found of a claim, as `phosphene claims` writes it and its report shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from phosphene.forms.figures import Figure
from phosphene.forms.form import Form

Table = list[dict[str, Any]]
"""Rows, each with its own columns."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Hold a number that should lie above `least`, what was found, and what follows from that.

    About `needed` values would decide an open one, if what was found stays. Older files do not have
    this number.
    """

    number: str
    says: str
    least: float = 0.0
    found: Figure
    verdict: str
    needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimResult(Form):
    """The content of OUT/NAME.json, and an element of OUT/claims.json.

    `numbers` has a figure for each expectation at `level`, the chance of error, and others at 95 %.
    `rows` is for people, `units` has all that was measured of each unit or photograph. `pictures`
    are captions with the names of files in OUT/pictures. `identity` is what the numbers depend on.
    `note` says where other code measured it. Version 0.1.0 wrote format 1, whose identity has other
    hashes of data and code.
    """

    format: int = 2
    reads: ClassVar[tuple[int, ...]] = (1, 2)
    claim: str
    title: str
    says: str
    note: str = ""
    verdict: str
    level: float
    expected: tuple[Judged, ...]
    numbers: dict[str, Figure]
    rows: Table
    units: Table
    pictures: tuple[tuple[str, str], ...]
    settings: dict[str, Any]
    identity: dict[str, Any] = field(default_factory=dict)
    seconds: float
    versions: dict[str, str]
