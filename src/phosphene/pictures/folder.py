"""A folder of pictures: climb into it, and keep what is finished."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import images
from phosphene.errors import BadFile, BadRequest
from phosphene.factories import code_of, files_of, is_factory
from phosphene.files import outlet, outlet_folder
from phosphene.forms import Record
from phosphene.pictures.request import Request, read_start, told_apart, upgraded
from phosphene.pictures.versions import versions
from phosphene.priors import Prior
from phosphene.records import ARRAY, INPUT, SUFFIXES, Contents, Folder, pixels_sha256
from phosphene.subjects import Subject
from phosphene.synthesis import (
    Climb,
    Member,
    PreferredInputs,
    check,
    checked_batch,
    climb_batch,
    set_size,
    with_input_scores,
    with_inputs,
)
from phosphene.texts import clean, slug
from phosphene.units import Direction

SHEET = "contact-sheet.png"
MAX_TILES = 400
"""Pictures on a contact sheet; it shows the first ones of a longer run."""
SHEET_SECONDS = 60
"""How long a run goes on, at least, before its contact sheet is written again."""


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
) -> Iterator[Record]:
    """Climb batch by batch and yield each record once its picture is safe on disk.

    With `resume`, a batch whose pictures the folder already holds, whole and from the same request,
    is not climbed again; `keeping` hears of how many pictures are kept, `report` of steps that are
    climbed. The contact sheet is written at the end, whatever ends the run, and at times before.
    """
    with _sheet(folder) as shown:
        for result, kept in climb_batches(
            folder,
            request,
            subject,
            prior,
            members,
            read_start(request.start, subject, prior),
            batch=batch,
            every_frame=max(1, request.climb.steps // 60) if animate else 0,
            arrays=arrays,
            resume=resume,
            report=report,
        ):
            if kept:
                keeping(len(result))
            shown(result.records)
            yield from result.records


def climb_batches(
    folder: Folder | None,
    request: Request,
    subject: Subject,
    prior: Prior,
    members: Sequence[Member],
    start: str | Tensor,
    *,
    batch: int,
    every_frame: int = 0,
    arrays: bool = False,
    resume: bool = True,
    report: Callable[[int], None] = lambda steps: None,
) -> Iterator[tuple[PreferredInputs, bool]]:
    """Climb batch by batch; yield each result with its records, and whether an earlier run made it.

    Without a folder nothing is written, and nothing is kept of an earlier run.
    """
    check(members)
    batch = subject.at_most(set_size(members, request.climb, checked_batch(batch)))
    chunks = [members[at : at + batch] for at in range(0, len(members), batch)]
    if folder is not None:
        check_places(folder, members, *request.files)
        for chunk in chunks:
            _check_size(request, chunk)
        folder.create()
    hashes = weights_of(subject, prior, request.climb)
    for chunk in chunks:
        requests = [request.for_member(chunk, i) for i in range(len(chunk))]
        kept = _found(folder, chunk, requests, hashes) if folder and resume else []
        if folder is not None and kept and _complete(folder, kept, every_frame, arrays):
            yield kept_inputs(folder, kept, chunk, subject, prior, arrays), True
            continue
        result = climb(request, subject, prior, chunk, start, every_frame, arrays, report)
        records = tuple(keep(folder, result, i, asked, hashes) for i, asked in enumerate(requests))
        yield replace(result, records=records), False


def _found(
    folder: Folder,
    chunk: Sequence[Member],
    requests: Sequence[dict[str, Any]],
    hashes: dict[str, str],
) -> list[Record]:
    """Return the records of a batch that the folder holds whole, none where one is missing."""
    found = [
        folder.find(file_name(member), asked, hashes, upgraded)
        for member, asked in zip(chunk, requests, strict=True)
    ]
    kept = [record for record in found if record]
    return kept if len(kept) == len(chunk) else []


def _complete(folder: Folder, kept: Sequence[Record], every_frame: int, arrays: bool) -> bool:
    """Return whether pictures have the animations and the arrays that are asked for."""
    moving = not every_frame or all(_moves(folder, record) for record in kept)
    numbers = not arrays or all(record.array or record.status == "dead" for record in kept)
    return moving and numbers


def kept_inputs(
    folder: Folder,
    kept: Sequence[Record],
    members: Sequence[Member],
    subject: Subject,
    prior: Prior,
    arrays: bool = False,
) -> PreferredInputs:
    """Return the result of an earlier run from its folder, which holds no codes: they are NaN."""
    pictures = [images.from_pixels(folder.picture(record), prior.channels) for record in kept]
    steps = [len(each.curve) if each.kept_step is None else each.kept_step for each in kept]
    last = [each.score if each.last_score is None else each.last_score for each in kept]
    inputs = [math.nan if each.input_score is None else each.input_score for each in kept]
    result = PreferredInputs(
        tuple(members),
        torch.from_numpy(np.stack(pictures)),
        torch.full((len(kept), *prior.mean().shape), torch.nan),
        torch.tensor([record.score for record in kept]),
        torch.tensor([record.start_score for record in kept]),
        torch.tensor([record.curve for record in kept]).view(len(kept), -1),
        tuple(record.status for record in kept),
        torch.tensor(steps),
        torch.tensor(last),
        stimuli=tuple(record.stimulus for record in kept),
        sets=tuple(record.set for record in kept),
        records=tuple(kept),
    )
    result = with_inputs(result, subject, prior, arrays)
    return replace(result, input_scores=torch.tensor(inputs))


def check_kept(
    folder: Folder,
    request: Request,
    members: Sequence[Member],
    remedy: str = "give another --out to keep it, or --anew to replace it",
    hashes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuse a folder that holds one of these pictures as another request made it.

    That picture would be lost. `hashes` are those of `weights_of`: a part from outside may have the
    same name and other code.
    """
    wanted = request.as_json()
    own = {kind: hashes[kind] for kind in ("prior", "optimizer", "objective") if kind in hashes}
    for member in members:
        file = folder.path / f"{file_name(member)}.json"
        try:
            record = Record.read(file)
            kept = upgraded(record.request)
        except BadFile:  # none, or no whole one
            continue
        others = [kind for kind in own if record.weights.get(kind, own[kind]) != own[kind]]
        if other := told_apart(kept, wanted) or (f"code of the {others[0]}" if others else ""):
            raise BadRequest(f"{file} was made with another {other}; {remedy}")


def check_places(folder: Folder, members: Sequence[Member], *inputs: str | Path) -> None:
    """Refuse before any work a folder, or a file in it, that cannot be written or is an input."""
    outlet_folder(folder.path)
    there = {file.name.lower() for file in folder.path.glob("*")}  # some disks know no case
    names = [f"{file_name(each)}{kind}" for each in members for kind in SUFFIXES]
    for name in (SHEET, *names):
        if name.lower() in there:
            outlet(folder.path / name, *inputs)


def _check_size(request: Request, chunk: Sequence[Member]) -> None:
    """Refuse a batch whose records would be too long to be read: each names all members."""
    length = len(json.dumps(request.for_member(chunk, 0), indent=1))
    most = Record.max_bytes * 7 // 8  # the curve needs the rest
    if length > most:
        raise BadRequest(
            f"a record names its whole batch, and of {len(chunk)} such targets it would have "
            f"{length / 1e6:.0f} MB; at most {most / 1e6:.0f} MB are taken: give a smaller batch"
        )


def weights_of(subject: Subject, prior: Prior, climb: Climb | None = None) -> dict[str, str]:
    """Return what the pictures depend on: the identities of the subject and of the prior.

    The code of the climb's parts counts as well, where they are from outside.
    """
    hashes = {"subject": subject.identity, "prior": prior.identity}
    if climb is not None:
        parts = climb.parts
        hashes |= {kind: code_of(parts[kind]) for kind in ("optimizer", "objective")}
    return {part: each for part, each in hashes.items() if each or part == "subject"}


def file_name(member: Member) -> str:
    """Return a safe, readable name for a picture, unique within a run: unit, label, seed."""
    text = str(member.target)
    name = slug(text)
    if not re.fullmatch(r"[A-Za-z0-9.]+:\d+", text):  # what `slug` leaves as it is
        vectors = [unit.vector for _, unit in member.target.terms if isinstance(unit, Direction)]
        name = f"{name[:40]}-{hashlib.sha256((text + str(vectors or '')).encode()).hexdigest()[:8]}"
    label = _plain(member.target.label[:40])
    parts = [name, label, f"s{member.seed}"]
    if label in _plain(name):
        parts.remove(label)
    return "-".join(parts)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def climb(
    request: Request,
    subject: Subject,
    prior: Prior,
    members: Sequence[Member],
    start: str | Tensor,
    every_frame: int,
    arrays: bool,
    report: Callable[[int], None],
) -> PreferredInputs:
    """Climb a request's batch; return the result with the subject's inputs and their scores."""
    result = climb_batch(
        subject,
        members,
        prior,
        request.climb,
        start=start,
        device=request.device,
        precision=request.precision,
        every_frame=every_frame,
        report=report,
    )
    result = with_inputs(result, subject, prior, arrays)
    return with_input_scores(result, subject, request.climb)


def keep(
    folder: Folder | None,
    result: PreferredInputs,
    i: int,
    request: dict[str, Any],
    hashes: dict[str, str],
) -> Record:
    """Return one member's record; write it, its picture, and its animation, into the folder."""
    record, contents = made(result, i, request, hashes)
    if folder is None:
        return record
    name = file_name(result.members[i])
    animation = folder.path / f"{name}.webp"
    animation.unlink(missing_ok=True)  # it may be of another climb
    if record.status != "dead" and result.frames is not None:
        frames = [images.to_pixels(frame.numpy()) for frame in result.frames[:, i]]
        images.write_animation(animation, [*frames, contents.pixels])
    folder.add(name, record, contents)
    return record


def made(
    result: PreferredInputs, i: int, request: dict[str, Any], hashes: dict[str, str]
) -> tuple[Record, Contents]:
    """Return one member's record and what is written with it."""
    member = result.members[i]
    name = file_name(member)
    contents = result.contents(i)
    subject, climb = request["subject"], request["climb"]
    parts = (request["prior"], climb["optimizer"], climb["objective"])
    code = [subject] if is_factory(subject) else []  # it has to be named
    for part in filter(is_factory, parts):
        code += ["--trust", part]
    record = Record(
        target=str(member.target),
        label=member.target.label or str(member.target),
        request=request,
        weights=hashes,
        score=float(result.scores[i]),
        start_score=float(result.start_scores[i]),
        curve=[round(value, 5) for value in result.curves[i].tolist()],
        status=result.statuses[i],
        image=f"{name}.png",
        image_sha256=pixels_sha256(contents.pixels),
        command=shlex.join(["phosphene", "synthesize", *code, "--record", f"{name}.json"]),
        versions=versions(request["device"]) | files_of((subject, *parts)),
        kept_step=int(result.kept[i]),
        last_score=float(result.last_scores[i]),
        stimulus=result.stimuli[i],
        set=result.sets[i] if result.sets else {},
        **_of_input(result, i, name, contents),
    )
    return record, contents


def _of_input(result: PreferredInputs, i: int, name: str, contents: Contents) -> dict[str, Any]:
    """Return what a record says of the subject's input; nothing of a dead unit's."""
    said: dict[str, Any] = {}
    if result.input_scores is not None and result.statuses[i] != "dead":
        own = contents.input
        said["input"] = f"{name}.png" if own is None else f"{name}{INPUT}"
        said["input_sha256"] = pixels_sha256(contents.pixels if own is None else own)
        said["input_score"] = float(result.input_scores[i])
    if contents.array is not None:
        said["array"] = f"{name}{ARRAY}"
        said["array_sha256"] = pixels_sha256(contents.array)
    return said


def _moves(folder: Folder, record: Record) -> bool:
    """Return whether the picture's animation is there; a dead unit has none."""
    return record.status == "dead" or (folder.path / record.image).with_suffix(".webp").exists()


@contextmanager
def _sheet(folder: Folder) -> Iterator[Callable[[Sequence[Record]], None]]:
    """Lend the function that shows finished pictures on the contact sheet.

    A sheet takes as long as a hundred pictures, so it is written every `SHEET_SECONDS`, and once
    more at the end where it lacks some.
    """
    finished: list[Record] = []
    written = 0
    last = time.monotonic()

    def write() -> None:
        nonlocal written, last
        if len(finished) > written:
            _write_sheet(folder, finished)
        written = len(finished)
        last = time.monotonic()

    def show(records: Sequence[Record]) -> None:
        finished.extend(records[: MAX_TILES - len(finished)])
        if time.monotonic() >= last + SHEET_SECONDS:
            write()

    try:
        yield show
    finally:
        write()


def _write_sheet(folder: Folder, shown: Sequence[Record]) -> None:
    notes = [
        f"{record.score:.2f}" if record.status == "climbed" else record.status for record in shown
    ]
    labels = [f"{clean(record.label)}\n{note}" for record, note in zip(shown, notes, strict=True)]
    sheet = images.contact_sheet(
        [folder.shown(record) for record in shown],
        labels,
        columns=_columns(len(shown)),
        scale=2 if len(shown) <= 40 else 1,
    )
    images.write_png(folder.path / SHEET, sheet)


def _columns(tiles: int) -> int:
    """Return how many tiles a row of a contact sheet has.

    The sheet is near a square, and its last row is as full as possible.
    """
    square = min(10, max(4, math.ceil(tiles**0.5)))
    return min(
        range(max(3, square - 1), min(10, square + 2) + 1),
        key=lambda n: (-tiles % n, abs(n - square)),
    )
