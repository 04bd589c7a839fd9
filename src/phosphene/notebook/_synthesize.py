"""From units of any network to their preferred inputs, with their records."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from reprlib import repr as shortened
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from phosphene.errors import BadRequest
from phosphene.files import path_of
from phosphene.notebook._shared import USUAL_SIZE, lent, progress
from phosphene.pictures import (
    Plan,
    Request,
    check_kept,
    climb_batches,
    planned,
    taken_options,
    weights_of,
)
from phosphene.priors import Prior, load_prior, prior_options
from phosphene.records import Folder
from phosphene.runtime import chosen
from phosphene.subjects import Subject
from phosphene.synthesis import (
    Climb,
    Member,
    PreferredInputs,
    check,
    checked_batch,
    checked_device,
    checked_precision,
    joined,
    settings,
)
from phosphene.units import Direction, Target, Unit

if TYPE_CHECKING:
    from phosphene.pictures.workers import Workers


def synthesize(
    subject: Subject | nn.Module | str | Path,
    units: str | Target | Sequence[str | Target],
    *,
    prior: str | Path | Prior = "objects-fc6",
    climb: str | Climb = "default",
    seeds: int | Sequence[int] = 0,
    start: str | Tensor = "random",
    size: int | tuple[int, int] = USUAL_SIZE,
    fit: str = "",
    inputs: Mapping[str, Any] = MappingProxyType({}),
    device: str = "auto",
    precision: str = "auto",
    batch: int = 32,
    every_frame: int = 0,
    arrays: bool = False,
    out: str | Path | None = None,
    workers: int | str = 0,
    quiet: bool | None = None,
    **changes: Any,
) -> PreferredInputs:
    """Return the preferred inputs of units of any network, each with its record.

    Args:
        subject: a name, a `Subject`, or a module that reads ImageNet's usual normalisation.
        units: texts such as "conv5:0-31", "class:lion" (see `phosphene.units`).
        prior: a generator's name, "pixels", "fourier", `python:module:factory` or a `Prior`.
        climb: the name of a climb, or a `Climb`.
        seeds: of the starts; each seed gives a picture of each unit.
        start: "random", "mean", or an image of the prior's size, (channels, height, width).
        size: what a module reads, in pixels: one number, or (height, width).
        fit: how images of other proportions come to the subject's shape (see `tensors.FITS`).
        inputs: what the network reads beside images: arrays, or files of numpy, by argument.
        device: "auto" takes an accelerator where there is one, as the command line does.
        precision: "auto" takes bfloat16 where the hardware has it, as the command line does.
        batch: pictures that are climbed at once.
        every_frame: steps from one frame of an animation to the next; 0 makes none.
        arrays: keep in the result, and in `out`, the normalised numbers that the network reads.
        out: a folder that keeps each finished picture with its record, from which the same call
            goes on. It holds no codes: those of pictures that were kept are NaN.
        workers: processes of this machine that climb into `out`, or a Dask scheduler's address.
        quiet: no progress; unless told, it is shown on a terminal and in a notebook.
        **changes: settings of the climb (see `Climb`), and options of its parts and of the prior.

    Examples:
        >>> phosphene.synthesize("caffenet-objects", ["class:lion", "conv5:7"], steps=100)
    """
    named = str(subject) if isinstance(subject, (str, Path)) else ""
    folder = None if out is None else Folder(path_of(out, "out"))
    checked_batch(batch)
    with (
        _lent_workers(workers, named, prior, start, out) as elsewhere,
        lent(subject, fit, inputs, size) as network,
    ):
        machine = (elsewhere.machine if elsewhere else _machine)(device, precision, 0)
        members = _members(network, units, seeds)
        own = {}
        if not isinstance(prior, Prior):
            own = taken_options(str(prior), prior_options(str(prior)), changes)
        loaded = load_prior(prior, network, own)
        how = settings(climb, loaded, **changes)
        request = Request(
            named or network.name,
            _name(prior),
            how,
            start if isinstance(start, str) else _image(start),
            own,
            **machine,
            reading=network.reading_version(),
            fit=network.fit,
            inputs=network.inputs,
        )
        with progress(len(members) * how.steps, "climbing", "steps", quiet) as report:
            options: dict[str, Any] = {"batch": batch, "arrays": arrays}
            options["every_frame"] = _checked_frames(every_frame)
            given = (folder, request, network, loaded, members)
            if folder is not None:
                hashes = weights_of(network, loaded, how)
                check_kept(folder, request, members, "give another folder to keep it", hashes)
            plan = planned(*given, **options)
            if elsewhere and folder:
                folder.create()
                report(len(plan.kept) * how.steps)
                for _ in elsewhere.climbed(plan, report):
                    pass
                plan, report = planned(*given, **options), _unheard
            return _collected(plan, network, loaded, start, report)


def _unheard(steps: int) -> None:
    """Report nothing: these steps were reported before."""


def _collected(
    plan: Plan,
    subject: Subject,
    prior: Prior,
    start: str | Tensor,
    report: Callable[[int], None],
) -> PreferredInputs:
    """Return the result with its records, in the order of the members."""
    order: list[int] = []
    results = []
    for places, result, kept in climb_batches(plan, subject, prior, start, report):
        order += places
        results.append(result)
        if kept:
            report(len(result) * plan.request.climb.steps)
    return joined(results).taken(sorted(range(len(order)), key=order.__getitem__))


def _lent_workers(
    workers: int | str,
    subject: str,
    prior: str | Path | Prior,
    start: str | Tensor,
    out: str | Path | None,
) -> AbstractContextManager[Workers | None]:
    """Lend the workers that were asked for, None where there are none."""
    if not workers:
        return nullcontext()
    if isinstance(workers, bool) or not isinstance(workers, (int, str)):
        raise BadRequest(
            f"workers is a number of processes or a scheduler's address; got {workers!r}"
        )
    if not subject or isinstance(prior, Prior) or not isinstance(start, str):
        raise BadRequest(
            "workers load subject and prior by their names and begin at random or mean codes; "
            "give names, or leave workers out"
        )
    if out is None:
        raise BadRequest("workers climb into a folder; give one as out")
    from phosphene.pictures.workers import started

    return started(str(workers))


def _members(
    subject: Subject, units: str | Target | Sequence[str | Target], seeds: int | Sequence[int]
) -> list[Member]:
    """Return one member for each unit and seed; `BadRequest` where they are of another form."""
    given = [units] if isinstance(units, (str, Target, Unit, Direction)) else units
    if not isinstance(given, (list, tuple)):
        raise BadRequest(f"units are texts such as 'conv5:7'; got {shortened(units)}")
    targets = [target for unit in given for target in _targets(subject, unit)]
    try:
        numbers = list(map(operator.index, seeds if isinstance(seeds, Iterable) else [seeds]))
    except TypeError:
        told = shortened(seeds)
        raise BadRequest(f"seeds are whole numbers such as 3 or [0, 1]; got {told}") from None
    if not numbers:
        raise BadRequest("no seeds given; for example 0 or [0, 1]")
    members = [Member(target, seed) for target in targets for seed in numbers]
    check(members)
    return members


def _targets(subject: Subject, unit: object) -> list[Target]:
    if isinstance(unit, Target):
        return [unit]
    if isinstance(unit, (Unit, Direction)):
        return [Target(((1.0, unit),), str(unit))]
    if isinstance(unit, str):
        return subject.targets(unit)
    layer = subject.output or "LAYER"
    example = f"{layer}:{unit}" if isinstance(unit, int) else f"{layer}:0"
    raise BadRequest(f"a unit is a text such as {example!r}; got {shortened(unit)}")


def _machine(device: str, precision: str, threads: int) -> dict[str, Any]:
    """Return where and how this process computes; `BadRequest` where the machine has no such."""
    device, precision = chosen(device, precision)
    device = checked_device(device)
    threads = threads or torch.get_num_threads()
    return {"device": device, "precision": checked_precision(precision), "threads": threads}


def _checked_frames(every_frame: object) -> int:
    if not isinstance(every_frame, int) or every_frame < 0:
        raise BadRequest(f"every_frame must be a whole number from 0 on; got {every_frame!r}")
    return every_frame


def _name(prior: str | Path | Prior) -> str:
    """Return what a record calls a prior, which may have no name that finds it again."""
    if not isinstance(prior, Prior):
        return str(prior)
    return prior.name or f"{prior} given in Python"


def _image(start: object) -> dict[str, str]:
    """Return what a record says of a start image that lies in no file."""
    if not isinstance(start, Tensor):
        given = shortened(start)
        raise BadRequest(f"a start is random, mean, or an image as a tensor; got {given}")
    values = start.detach().cpu().contiguous().numpy().tobytes()
    told = hashlib.sha256(f"{tuple(start.shape)} {start.dtype} ".encode() + values)
    return {"file": "an image given in Python", "sha256": told.hexdigest()}
