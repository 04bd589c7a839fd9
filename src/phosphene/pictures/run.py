"""A run: what a folder holds of it is kept, and the rest is climbed into it, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from phosphene.errors import BadRequest
from phosphene.forms import Record
from phosphene.pictures.folder import (
    check_places,
    climb,
    file_name,
    keep,
    kept_inputs,
    sheet_of,
    weights_of,
)
from phosphene.pictures.request import Request, read_start, upgraded
from phosphene.priors import Prior
from phosphene.records import Folder
from phosphene.subjects import Subject
from phosphene.synthesis import Member, PreferredInputs, check, checked_batch, set_size

AT_ONCE = 32
"""Kept pictures of one result."""


@dataclass(frozen=True)
class Plan:
    """Hold what a run asks for, what its folder has of it, and the batches that are left.

    `kept` holds records by their member's place in `members`, and a batch is a list of places.
    `hashes` are those of `weights_of`. `every_frame` and `arrays` are as for `climb`.
    """

    folder: Folder | None
    request: Request
    members: Sequence[Member]
    hashes: dict[str, str]
    every_frame: int
    arrays: bool
    kept: dict[int, Record]
    batches: list[list[int]]

    def chunk(self, places: Sequence[int]) -> list[Member]:
        """Return the members at some places."""
        return [self.members[i] for i in places]


class Climber(Protocol):
    """Climb a plan's batches, here or elsewhere, and keep their pictures in the folder."""

    def climbed(
        self, plan: Plan, report: Callable[[int], None]
    ) -> Iterator[tuple[list[int], list[Record]]]:
        """Yield the places of each batch and its records, once its pictures are safe on disk."""


@dataclass(frozen=True, eq=False)
class Here:
    """Climb in this process."""

    subject: Subject
    prior: Prior

    def climbed(
        self, plan: Plan, report: Callable[[int], None]
    ) -> Iterator[tuple[list[int], list[Record]]]:
        start = read_start(plan.request.start, self.subject, self.prior) if plan.batches else ""
        for places in plan.batches:
            result = climb_chunk(plan, plan.chunk(places), self.subject, self.prior, start, report)
            yield places, list(result.records)


def planned(
    folder: Folder | None,
    request: Request,
    subject: Subject,
    prior: Prior,
    members: Sequence[Member],
    *,
    batch: int = 32,
    every_frame: int = 0,
    arrays: bool = False,
    resume: bool = True,
) -> Plan:
    """Return what is to be climbed, and what is kept; refuse a folder that cannot be written.

    With `resume`, a picture that the folder holds is kept if the same request made it, in whatever
    batch: batches of other sizes are the same picture within rounding, so the batch is no part of
    what is asked for. All others are climbed in batches of `batch` members, in their order. A set
    of pictures that are moved apart is one batch, and is kept if it is whole.
    """
    check(members)
    size = subject.at_most(set_size(members, request.climb, checked_batch(batch)))
    plan = Plan(
        folder,
        request,
        members,
        weights_of(subject, prior, request.climb),
        every_frame,
        arrays,
        {},
        [],
    )
    everyone = _split(range(len(members)), size)
    if folder is None:
        return replace(plan, batches=everyone)
    check_places(folder, members, *request.files)
    if request.climb.share:
        for places in everyone:
            _check_size(request, plan.chunk(places))
    if not resume:
        return replace(plan, batches=everyone)
    kept = _found(plan, everyone)
    lacking = [i for i in range(len(members)) if i not in kept]
    return replace(plan, kept=kept, batches=_split(lacking, size))


def _split(places: Sequence[int], size: int) -> list[list[int]]:
    return [list(places[at : at + size]) for at in range(0, len(places), size)]


def _found(plan: Plan, batches: Sequence[Sequence[int]]) -> dict[int, Record]:
    """Return the records that the folder holds with all that is asked for; of sets, whole ones."""
    found: dict[int, Record] = {}
    for places in batches:
        chunk = plan.chunk(places)
        records = [_record(plan, chunk, i) for i in range(len(chunk))]
        own = {i: record for i, record in zip(places, records, strict=True) if record}
        if len(own) == len(chunk) or not plan.request.climb.share:
            found |= own
    return found


def _record(plan: Plan, chunk: Sequence[Member], i: int) -> Record | None:
    """Return one member's record, if the folder holds it with its animation and array."""
    if plan.folder is None:
        return None
    asked = plan.request.for_member(chunk, i)
    record = plan.folder.find(file_name(chunk[i]), asked, plan.hashes, upgraded)
    if record is None or (plan.every_frame and not _moves(plan.folder, record)):
        return None
    numbers = record.array or record.status == "dead" or not plan.arrays
    return record if numbers else None


def climb_into(
    folder: Folder,
    request: Request,
    subject: Subject,
    prior: Prior,
    members: Sequence[Member],
    *,
    batch: int = 32,
    animate: bool = False,
    arrays: bool = False,
    resume: bool = True,
    report: Callable[[int], None] = lambda steps: None,
    keeping: Callable[[int], None] = lambda pictures: None,
    climber: Climber | None = None,
) -> list[Record]:
    """Climb what the folder lacks; return all records, in the order of the members.

    With `resume`, pictures that the folder holds are kept (see `planned`). `keeping` hears of how
    many they are, `report` of steps that are climbed. Without a `climber` this process climbs. The
    contact sheet is written at the end, whatever ends the run, and at times before.
    """
    plan = planned(
        folder,
        request,
        subject,
        prior,
        members,
        batch=batch,
        every_frame=max(1, request.climb.steps // 60) if animate else 0,
        arrays=arrays,
        resume=resume,
    )
    if plan.kept:
        keeping(len(plan.kept))
    found = dict(plan.kept)
    folder.create()
    with sheet_of(folder) as shown:
        shown(found)
        for places, records in (climber or Here(subject, prior)).climbed(plan, report):
            new = dict(zip(places, records, strict=True))
            found |= new
            shown(new)
    return [found[i] for i in range(len(members))]


def climb_batches(
    plan: Plan,
    subject: Subject,
    prior: Prior,
    start: str | Tensor,
    report: Callable[[int], None] = lambda steps: None,
) -> Iterator[tuple[list[int], PreferredInputs, bool]]:
    """Yield batches as results with records, and whether the folder held them; kept ones first.

    Each comes with the places of its members. Without a folder nothing is written.
    """
    if plan.folder is not None:
        plan.folder.create()
        for places in _split(list(plan.kept), AT_ONCE):
            records = [plan.kept[i] for i in places]
            chunk = plan.chunk(places)
            result = kept_inputs(plan.folder, records, chunk, subject, prior, plan.arrays)
            yield places, result, True
    for places in plan.batches:
        yield places, climb_chunk(plan, plan.chunk(places), subject, prior, start, report), False


def climb_chunk(
    plan: Plan,
    chunk: Sequence[Member],
    subject: Subject,
    prior: Prior,
    start: str | Tensor,
    report: Callable[[int], None] = lambda steps: None,
) -> PreferredInputs:
    """Climb one batch, and keep it where the plan has a folder; return the result with records."""
    request = plan.request
    result = climb(request, subject, prior, chunk, start, plan.every_frame, plan.arrays, report)
    own = [request.for_member(chunk, i) for i in range(len(chunk))]
    records = keep(plan.folder, result, own, plan.hashes)
    return replace(result, records=tuple(records))


def _check_size(request: Request, chunk: Sequence[Member]) -> None:
    """Refuse a set whose records would be too long to be read: each names all members."""
    length = len(json.dumps(request.for_member(chunk, 0), indent=1))
    most = Record.max_bytes * 7 // 8  # the curve needs the rest
    if length > most:
        raise BadRequest(
            f"a record names its whole set, and of {len(chunk)} such targets it would have "
            f"{length / 1e6:.0f} MB; at most {most / 1e6:.0f} MB are taken: give a smaller set"
        )


def _moves(folder: Folder, record: Record) -> bool:
    """Return whether the picture's animation is there; a dead unit has none."""
    return record.status == "dead" or (folder.path / record.image).with_suffix(".webp").exists()
