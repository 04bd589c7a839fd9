"""A folder of pictures: what climbs and is kept in it, under which names."""

from __future__ import annotations

import hashlib
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
from phosphene.pictures.request import Request, told_apart, upgraded
from phosphene.pictures.versions import versions
from phosphene.priors import Prior
from phosphene.records import ARRAY, INPUT, SUFFIXES, Contents, Folder, pixels_sha256
from phosphene.subjects import Subject
from phosphene.synthesis import (
    Climb,
    Member,
    PreferredInputs,
    climb_batch,
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
    *,
    device: str = "",
    bound: bool = False,
) -> PreferredInputs:
    """Climb a request's batch; return the result with the subject's inputs and their scores.

    `device` is the one of several of the request's kind, and `bound` is as for `climb_batch`.
    """
    result = climb_batch(
        subject,
        members,
        prior,
        request.climb,
        start=start,
        device=device or request.device,
        precision=request.precision,
        every_frame=every_frame,
        report=report,
        bound=bound,
    )
    result = with_inputs(result, subject, prior, arrays)
    return with_input_scores(result, subject, request.climb)


def keep(
    folder: Folder | None,
    result: PreferredInputs,
    requests: Sequence[dict[str, Any]],
    hashes: dict[str, str],
) -> list[Record]:
    """Return the members' records; write them, pictures and animations into the folder."""
    records = []
    files = {}
    for i, request in enumerate(requests):
        record, contents = made(result, i, request, hashes)
        records.append(record)
        if folder is not None:
            files[file_name(result.members[i])] = contents.files(record)
    if folder is not None:
        folder.put(files)
    return records


def made(
    result: PreferredInputs, i: int, request: dict[str, Any], hashes: dict[str, str]
) -> tuple[Record, Contents]:
    """Return one member's record and what is written with it."""
    member = result.members[i]
    name = file_name(member)
    contents = result.contents(i)
    if result.frames is not None and result.statuses[i] != "dead":
        frames = [images.to_pixels(frame.numpy()) for frame in result.frames[:, i]]
        contents = replace(contents, frames=frames)
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


@contextmanager
def sheet_of(folder: Folder) -> Iterator[Callable[[Mapping[int, Record]], None]]:
    """Lend the function that shows finished pictures, by their places, on the contact sheet.

    A sheet takes as long as a hundred pictures, so it is written every `SHEET_SECONDS`, and once
    more at the end where it lacks some.
    """
    finished: dict[int, Record] = {}
    written = 0
    last = time.monotonic()

    def write() -> None:
        nonlocal written, last
        if len(finished) > written:
            _write_sheet(folder, [finished[i] for i in sorted(finished)])
        written = len(finished)
        last = time.monotonic()

    def show(records: Mapping[int, Record]) -> None:
        finished.update({i: record for i, record in records.items() if i < MAX_TILES})
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
