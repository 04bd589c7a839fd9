"""Make a record's picture again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from phosphene.errors import BadFile, BadRequest
from phosphene.factories import is_factory
from phosphene.forms import Record
from phosphene.pictures.folder import check_kept, check_places, climb, keep, made, weights_of
from phosphene.pictures.request import Made, read_start, upgraded
from phosphene.priors import Prior
from phosphene.records import Folder
from phosphene.subjects import Subject
from phosphene.synthesis import TOGETHER, Climb, Member, PreferredInputs
from phosphene.units import Unit


def remake(
    file: Path,
    folder: Folder,
    *,
    trusted: str = "",
    code: Collection[str] = (),
    device: str | None = None,
    anew: bool = False,
    report: Callable[[int], None] = lambda steps: None,
) -> tuple[Record, Record]:
    """Make a record's picture again and return the old record and the new one.

    In the record's own folder nothing is written. In another, a picture that another request made
    is replaced only when `anew` is true. `climb_again` says what runs.
    """
    own = folder.path.resolve() == file.parent.resolve()
    old, result = climb_again(
        file,
        None if own else folder,
        trusted=trusted,
        code=code,
        device=device,
        anew=anew,
        report=report,
    )
    (new,) = result.records
    if not own:
        folder.create()
        (new,) = keep(folder, result, [new.request], old.weights)
    return old, new


def climb_again(
    file: Path,
    folder: Folder | None = None,
    *,
    trusted: str = "",
    code: Collection[str] = (),
    device: str | None = None,
    anew: bool = False,
    report: Callable[[int], None] = lambda steps: None,
) -> tuple[Record, PreferredInputs]:
    """Return a record, and its picture as it is climbed again, with the new record.

    A batch of the same size is climbed, since batches of other sizes may round differently: with
    copies of the member, or with all members where the record names them. Often a small batch gives
    the same bits, so it is tried first.

    A subject that is code, `python:…`, runs only where it is the `trusted` one. A prior, an
    optimizer or an objective that is code runs only where its name is in `code`. Before the climb,
    `folder` is refused where it cannot take the picture, or has another of that name and not
    `anew`.
    """
    old = Record.read(file)
    was = Made.of(old, file)
    asked = was.request
    member = was.member
    named = f"phosphene synthesize {shlex.quote(asked.subject)} --record {shlex.quote(str(file))}"
    check_trusted(asked.subject, trusted, file, named)
    check_code((asked.prior, asked.climb.optimizer, asked.climb.objective), code, file, old)
    request = asked if device is None else replace(asked, device=device)
    _check_device(request.device, file)
    if folder is not None:
        check_places(folder, [member], file, *request.files)
        if not anew:
            check_kept(folder, request, [member])
    if request.threads != torch.get_num_threads():
        torch.set_num_threads(request.threads)
    subject, prior = request.loaded()
    _check_units(subject, was.members, file)
    check_weights(old, subject, prior, file, request.climb)
    start = read_start(request.start, subject, prior)
    kept = upgraded(old.request)
    for members, place in _batches(was):
        batch = climb(
            request, subject, prior, members, start, 0, bool(old.array), report, bound=was.bound
        )
        result = batch[place]
        record, _ = made(result, 0, kept, old.weights)
        if record.image_sha256 == old.image_sha256 and record.curve == old.curve:
            break
    return old, replace(result, records=(record,))


def _batches(was: Made) -> list[tuple[list[Member], int]]:
    """Return the batches that may have a record's bits, each with the picture's place in it."""
    whole = [(was.members, was.place)]
    if was.bound or len(was.members) <= 2 * TOGETHER:
        return whole
    return [(was.members[:TOGETHER], 0), *whole]


def check_code(names: Sequence[object], code: Collection[str], file: Path, record: Record) -> None:
    """Refuse with `BadRequest` a record's names that are code, `python:…`, unless in `code`."""
    for name in map(str, names):
        if is_factory(name) and name not in code:
            place = f" (then in {record.versions[name]})" if name in record.versions else ""
            raise BadRequest(
                f"{file} would run {name!r}, which is code{place}; where you trust it, name it: "
                f"--trust {name}"
            )


def _check_device(device: str, file: Path) -> None:
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here[device.partition(":")[0]]:
        raise BadRequest(
            f"{file} was made on {device}, which is not here; --device cpu comes close"
        )


def check_weights(
    record: Record, subject: Subject, prior: Prior, file: Path, climb: Climb | None = None
) -> None:
    """Refuse a record whose picture was made with other networks than those that are here.

    The error is `BadFile`. A record of version 0.1.0 is compared as that version did, by the hash
    of the weights alone.
    """
    here = weights_of(subject, prior, climb)
    if record.weights.get("subject") == subject.former_identity:
        here["subject"] = subject.former_identity
    for part, now in here.items():
        was = str(record.weights.get(part, "none"))
        if record.weights.get(part) != now:
            raise BadFile(
                f"{file} was made with another {part}: "
                f"its hash was {was[:16]}, here it is {now[:16]}"
            )


def check_trusted(subject: str, trusted: str, file: Path, command: str) -> None:
    """Refuse a record's subject that is code, `python:…`, unless it is the `trusted` one.

    A record is a file from outside. Another subject than its own is refused where one is named.
    """
    own = subject.removesuffix("@random")
    named = trusted.removesuffix("@random")
    same = own == named or (
        os.path.exists(own) and os.path.exists(named) and os.path.samefile(own, named)
    )
    if trusted and not same and not is_factory(subject):
        raise BadRequest(f"{file} is of {subject!r}, not of {trusted!r}; leave that out")
    if not same and is_factory(subject):
        raise BadRequest(
            f"{file} would run {subject!r}, which is code; where you trust it, name it: {command}"
        )


def _check_units(subject: Subject, members: Sequence[Member], file: Path) -> None:
    """Check that the layers and channels of a record exist, since it comes from outside."""
    for member in members:
        for _, unit in member.target.terms:
            if isinstance(unit, Unit):
                subject.targets(str(unit))
                continue
            channels, *limits = subject.shape(unit.layer) or (0,)
            if channels != len(unit.vector):
                raise BadFile(f"{file}: its direction does not fit layer {unit.layer!r}")
            if isinstance(unit.position, tuple) and not (
                len(limits) == 2
                and all(0 <= at < limit for at, limit in zip(unit.position, limits, strict=True))
            ):
                raise BadFile(f"{file}: layer {unit.layer!r} has no position {unit.position}")
