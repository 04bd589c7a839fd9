"""The pictures of a folder, read back with what made them."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from phosphene import records
from phosphene.errors import BadFile, BadRequest
from phosphene.forms import Record, form_of
from phosphene.forms.form import read_entry
from phosphene.images import Pixels
from phosphene.pictures import Made, Request, check_code, check_trusted, check_weights
from phosphene.studies._sums import is_sum, problem_of, with_sums
from phosphene.subjects import Subject
from phosphene.synthesis import NOT_ABOVE
from phosphene.units import Target, Unit, is_token

MADE_BY = ("subject", "prior", "prior_options", "reading", "fit", "inputs")
"""What all pictures of a folder have in common."""


@dataclass(frozen=True)
class Picture:
    """One finished picture of one unit."""

    unit: Unit
    seed: int
    score: float
    pixels: Pixels


@dataclass(frozen=True)
class Run:
    """The pictures of a folder, by layer and channel, and what made them.

    They are of lone units, and of `sums`, each of which is a layer of its own.
    """

    subject: Subject
    request: Request
    layers: dict[str, dict[int, list[Picture]]]
    sums: tuple[Target, ...] = ()

    @classmethod
    def of(
        cls,
        folder: Path,
        trusted: str = "",
        code: Collection[str] = (),
        given: Subject | None = None,
    ) -> Run:
        """Read a folder, whose subject is the one that the records name, or the `given` one.

        `BadFile` where there are no records, `BadRequest` where none is of a lone unit that was
        climbed up. A subject that is code, `python:…`, is loaded only where it is the `trusted`
        one, and such a prior only where its name is in `code`.
        """
        made = read_records(folder)
        sums: dict[Target, list[Picture]] = {}
        layers: dict[str, dict[int, list[Picture]]] = defaultdict(lambda: defaultdict(list))
        first: Request | None = None
        for file, record in made:
            how = Made.of(record, file)
            request = how.request
            first = first or request
            if any(getattr(request, part) != getattr(first, part) for part in MADE_BY):
                raise BadRequest(
                    f"{folder} holds pictures of several subjects or priors; "
                    "evaluate one of them at a time"
                )
            member = how.member
            unit = member.target.lone
            # a climb that failed counts too
            shown = record.status in ("climbed", NOT_ABOVE)
            taken = is_sum(member.target) and not problem_of(member.target)
            if not shown or not (taken or (unit and not is_token(unit.position))):
                continue
            pixels = shown_pixels(records.Folder(folder), record)
            if unit is None:
                # the layer of a sum is as typed, and a record tells a falling one upright
                score = -record.score if member.target.least else record.score
                picture = Picture(Unit("", 0), member.seed, score, pixels)
                sums.setdefault(member.target, []).append(picture)
            else:
                picture = Picture(unit, member.seed, record.score, pixels)
                layers[unit.layer][unit.channel].append(picture)
        if not layers and not sums:
            raise BadRequest(
                f"{folder} holds no picture of a lone unit, so there is nothing to compare it with"
            )
        named = f"--subject {shlex.quote(request.subject)}"
        command = f"phosphene evaluate {shlex.quote(str(folder))} {named}"
        if given is None:
            check_trusted(request.subject, trusted, made[0][0], command)
        check_code([request.prior], code, *made[0])
        subject, prior = request.loaded(given)
        for file, record in made:
            check_weights(record, subject, prior, file)
        for layer, channels in layers.items():  # a record comes from outside: its units must exist
            subject.targets(f"{layer}:{max(channels)}")
        subject, units = with_sums(subject, sums)
        for target, pictures in sums.items():
            own = units[target]
            layers[own.layer][own.channel] = [replace(each, unit=own) for each in pictures]
        found = {layer: dict(channels) for layer, channels in layers.items()}
        return cls(subject, request, found, tuple(sums))


def shown_pixels(folder: records.Folder, record: Record) -> Pixels:
    """Return a picture, or what the subject reads of it where that is not square.

    Such a picture has the subject's own shape and a margin, which the subject must not be shown.
    """
    pixels = folder.picture(record)
    wide = pixels.shape[0] != pixels.shape[1]
    return folder.own_input(record) if wide and record.input else pixels


def read_records(folder: Path) -> list[tuple[Path, Record]]:
    """Return the records of a folder, in which other commands may have left their files.

    A record's own file stands for itself.
    """
    files = [folder] if folder.is_file() else sorted(folder.glob("[!.]*.json"))
    entries = [read_entry(file) for file in files]
    found = [(entry.file, Record.of(entry)) for entry in entries if form_of(entry) is Record]
    if not found:
        raise BadFile(f"{folder} holds no records; make some with phosphene synthesize")
    return found
