"""Commands around a climb: preferred inputs and records, layers, what a prior can show."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from phosphene.cli import progress
from phosphene.cli.options import given_settings, settings_of
from phosphene.cli.shell import (
    AsJson,
    Device,
    Fit,
    Inputs,
    Precision,
    Threads,
    Trust,
    choose_machine,
    err,
    named_subject,
    out,
    print_json,
    print_table,
    refuse_options,
    tell_table,
)
from phosphene.errors import BadFile, BadRequest

if TYPE_CHECKING:
    from phosphene.forms import Record
    from phosphene.pictures import Request
    from phosphene.pictures.workers import Workers as Processes
    from phosphene.priors import Prior as AnyPrior
    from phosphene.subjects import Subject
    from phosphene.synthesis import Member
    from phosphene.units import Target


OF_A_RECORD = ("record", "subject", "trust", "out_folder", "resume", "device", "as_json")
"""The options that --record leaves open; the record says all others."""

LONG_RUN = 4
"""Batches of each worker from which on a run's time is measured and told beforehand."""

SCORES = ("score", "start_score", "last_score", "kept_step")
IN_JSON = ("target", "label", *SCORES, "status", "stimulus", "set")
"""What --json tells of each record, beside the place of its picture."""

AsSubject = Annotated[
    str,
    typer.Argument(
        help="caffenet-objects, a weights file, torchvision:NAME, timm:NAME, hf:OWNER/NAME, "
        "net.pt2, net.onnx, python:module:factory or efficientnet-lite0.",
        show_default=False,
    ),
]
Units = Annotated[
    list[str] | None,
    typer.Argument(
        help="class:lion, conv5:151, conv5:0-31, conv5:all, conv5:7@2,3, conv5:7@max, "
        "'fc8:3 + 0.5*fc8:7', 'fc8:3 - fc8:7'.",
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for pictures, records, the contact sheet.")
]
Seeds = Annotated[str, typer.Option(help="Seeds of the starts: 0, 0-3 or 1,5.")]
Start = Annotated[str, typer.Option(help="random, mean, or a photograph's file.")]
Least = Annotated[bool, typer.Option("--least", help="Climb down: the least preferred input.")]
Directions = Annotated[
    list[str] | None,
    typer.Option(help="LAYER=FILE or LAYER@POSITION=FILE: directions in a layer's channels."),
]
Prior = Annotated[
    str,
    typer.Option(
        help="A generator's name or file, deepsim:fc6, pixels, fourier or python:module:factory.",
        rich_help_panel="Climb",
    ),
]
NamedClimb = Annotated[str, typer.Option(help="default or paper.", rich_help_panel="Climb")]
Assigned = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="NAME=VALUE: an option of a part of your own.", rich_help_panel="Climb"
    ),
]
Animate = Annotated[
    bool, typer.Option("--animate", help="Also write the climb as an animated WebP.")
]
Arrays = Annotated[
    bool,
    typer.Option("--arrays", help="Also write NAME.npy: the numbers that the network reads."),
]
Diverse = Annotated[
    int,
    typer.Option(
        help="So many pictures of each unit that differ as much as possible, from as many seeds; "
        "each keeps --share of the best score, 0.85 unless given.",
        min=0,
        max=64,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume/--anew", help="Keep what the folder holds already, or replace it."),
]
RecordFile = Annotated[Path | None, typer.Option(help="Make this record's picture again.")]
Batch = Annotated[
    int, typer.Option(help="Pictures climbed at once.", min=1, max=4096, rich_help_panel="Machine")
]

Workers = Annotated[
    str,
    typer.Option(
        help="Processes that climb: how many of this machine, or the address of Dask's scheduler, "
        "tcp://host:8786.",
        rich_help_panel="Machine",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only say how long the run would take, and how much memory.",
        rich_help_panel="Machine",
    ),
]


def synthesize(
    context: typer.Context,
    subject: AsSubject = "",
    units: Units = None,
    out_folder: Out = Path("preferred"),
    seeds: Seeds = "0",
    start: Start = "random",
    least: Least = False,
    diverse: Diverse = 0,
    direction: Directions = None,
    animate: Animate = False,
    arrays: Arrays = False,
    resume: Resume = True,
    record: RecordFile = None,
    trust: Trust = None,
    fit: Fit = "",
    inputs: Inputs = None,
    prior: Prior = "objects-fc6",
    climb: NamedClimb = "default",
    assigned: Assigned = None,
    batch: Batch = 32,
    workers: Workers = "",
    dry_run: DryRun = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Climb to the input that each unit prefers, and write it with its record.

    Finished pictures are kept when the run is stopped, and are not climbed again by the same
    command.
    """
    if record is not None:
        others = [str(each.name) for each in context.command.get_params(context)]
        others = [name for name in others if name not in OF_A_RECORD]
        refuse_options(context, others, "--record, because the record says how it was made")
        _remake(record, subject, trust or [], out_folder, device, not resume, as_json)
        return
    refuse_options(context, ("trust",), "a command without --record")
    if not subject:
        raise BadRequest(
            "no subject given; for example: phosphene synthesize caffenet-objects class:lion"
        )
    with _workers(workers) as elsewhere:
        machine = (elsewhere.machine if elsewhere else choose_machine)(device, precision, threads)
        network = named_subject(subject, fit, inputs)
        members = _members(network, units or [], direction or [], least, _starts(seeds, diverse))
        loaded, options, changes = _prior(context, prior, network, assigned or [])
        if diverse:
            changes = {"share": 0.85, **changes}
        request = _request(subject, network, prior, loaded, climb, changes, start, options, machine)
        how: dict[str, Any] = {"batch": batch, "resume": resume}
        if dry_run:
            _foresee(request, network, loaded, members, out_folder, elsewhere, as_json, **how)
            return
        how |= {"animate": animate, "arrays": arrays, "climber": elsewhere}
        records = _climb(request, network, loaded, members, out_folder, **how)
    _tell(out_folder, records, as_json)


def _workers(where: str) -> AbstractContextManager[Processes | None]:
    """Lend the workers that were named, None where there are none."""
    if not where:
        return nullcontext()
    from phosphene.pictures.workers import started

    return started(where)


def _request(
    subject: str,
    network: Subject,
    prior: str,
    loaded: AnyPrior,
    climb: str,
    changes: dict[str, Any],
    start: str,
    options: dict[str, Any],
    machine: dict[str, Any],
) -> Request:
    """Return what is asked for."""
    from phosphene.pictures import Request, start_request
    from phosphene.synthesis import settings

    return Request(
        subject,
        prior,
        settings(climb, loaded, **changes),
        start_request(start),
        options,
        **machine,
        reading=network.reading_version(),
        fit=network.fit,
        inputs=network.inputs,
    )


def _foresee(
    request: Request,
    subject: Subject,
    prior: AnyPrior,
    members: list[Member],
    out_folder: Path,
    workers: Processes | None,
    as_json: bool,
    *,
    batch: int,
    resume: bool,
) -> None:
    """Print what a run would take, and write nothing."""
    from phosphene.pictures import estimated, planned
    from phosphene.pictures.request import read_start
    from phosphene.records import Folder

    plan = planned(Folder(out_folder), request, subject, prior, members, batch=batch, resume=resume)
    lacking = [members[i] for places in plan.batches for i in places]
    told: dict[str, Any] = {"pictures": len(lacking), "kept": len(plan.kept)}
    if lacking:
        size = len(plan.batches[0])
        if workers is None:
            start = read_start(request.start, subject, prior)
            found = estimated(request, subject, prior, lacking, start, size)
        else:
            found = workers.estimated(request, lacking, size)
        count = workers.count if workers else 1
        told |= {"steps": found.steps, "batch": found.batch, "processes": count}
        told |= {"seconds": found.seconds / min(count, len(plan.batches)), "bytes": found.bytes}
    if as_json:
        print_json(told)
        return
    kept = f"{len(plan.kept):,} pictures of {len(members):,} are kept"
    out.print(progress.expected(told) if lacking else kept, soft_wrap=True)
    if lacking and plan.kept:
        out.print(kept, soft_wrap=True)


def _members(
    subject: Subject, units: list[str], directions: list[str], least: bool, starts: list[int]
) -> list[Member]:
    """Return what is to be climbed, each once."""
    from phosphene.subjects import MAX_TARGETS
    from phosphene.synthesis import Member, check

    targets = [target for text in units for target in subject.targets(text)]
    targets += [target for text in directions for target in _directions(subject, text)]
    targets = [target.negative() for target in targets] if least else targets
    if len(targets) * len(starts) > MAX_TARGETS:
        raise BadRequest(
            f"{len(targets):,} units from {len(starts):,} seeds; "
            f"at most {MAX_TARGETS:,} pictures a call"
        )
    members = [Member(target, seed) for target in targets for seed in starts]
    members = list(dict.fromkeys(members))
    check(members)
    return members


def _prior(
    context: typer.Context, name: str, subject: Subject, assigned: list[str]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the prior, those of its options that were given, and the climb's settings."""
    from phosphene.pictures import taken_options
    from phosphene.priors import load_prior, prior_options

    known = prior_options(name)
    others = ("prior_file", "bounds")
    if not set(others) & known.keys():
        refuse_options(context, others, f"--prior {name}, but to deepsim:LAYER")
    given = given_settings(context, assigned)
    options = taken_options(name, known, given)
    return load_prior(name, subject, options), options, given


def _climb(
    request: Request,
    subject: Subject,
    prior: Any,
    members: list[Member],
    out_folder: Path,
    *,
    batch: int,
    resume: bool,
    climber: Processes | None,
    **files: bool,
) -> list[Record]:
    """Climb into the folder with a progress bar, and tell of pictures that were kept."""
    from phosphene.pictures import check_kept, climb_into, weights_of
    from phosphene.records import Folder

    if resume:
        hashes = weights_of(subject, prior, request.climb)
        check_kept(Folder(out_folder), request, members, hashes=hashes)
    steps = request.climb.steps
    if climber and len(members) > LONG_RUN * climber.count * batch:
        found = climber.estimated(request, members, batch)
        told = {**asdict(found), "processes": climber.count}
        told["seconds"] = found.seconds / climber.count
        err.print(f"phosphene: {progress.expected(told)}", soft_wrap=True)
    kept = 0

    def keeping(pictures: int) -> None:
        nonlocal kept
        kept += pictures
        advance(pictures * steps)

    with progress.bar(len(members) * steps, "climbing", "steps") as advance:
        finished = climb_into(
            Folder(out_folder),
            request,
            subject,
            prior,
            members,
            batch=batch,
            resume=resume,
            climber=climber,
            **files,
            report=progress.foreseeing(advance, len(members), steps, subject.at_most(batch)),
            keeping=keeping,
        )
    if kept:
        pictures = "1 picture" if kept == 1 else f"{kept:,} pictures"
        err.print(
            f"phosphene: kept {pictures} of an earlier run in {out_folder}; --anew climbs again",
            soft_wrap=True,
        )
    return finished


def _remake(
    file: Path,
    trusted: str,
    code: list[str],
    out_folder: Path,
    device: str,
    anew: bool,
    as_json: bool,
) -> None:
    from phosphene.pictures import differences, remake
    from phosphene.records import Folder

    where = None if device == "auto" else str(choose_machine(device, "float32", 0)["device"])
    with progress.bar(None, "climbing", "steps") as advance:
        old, new = remake(
            file,
            Folder(out_folder),
            trusted=trusted,
            code=code,
            device=where,
            anew=anew,
            report=advance,
        )
    if new.image_sha256 != old.image_sha256:
        told = differences(old, new, where or str(old.request["device"]))
        err.print(f"phosphene: not the same bits: {told}", soft_wrap=True)
    _tell(out_folder, [new], as_json)


def _tell(folder: Path, finished: Sequence[Any], as_json: bool) -> None:
    from phosphene.pictures.folder import MAX_TILES

    for record in finished:
        if record.status != "climbed":
            err.print(f"phosphene: {record.target}: {_explained(record)}", soft_wrap=True)
        for told in _missed(record):
            err.print(f"phosphene: {record.target}: {told}", soft_wrap=True)
    if as_json:
        own = [{name: getattr(record, name) for name in IN_JSON} for record in finished]
        images = [{"image": str(folder / record.image)} for record in finished]
        print_json([one | other for one, other in zip(own, images, strict=True)])
        return
    table = Table("unit", "prefers", "score", "at the start", "at the end", "picture")
    for r in finished[:MAX_TILES]:
        last = r.score if r.last_score is None else r.last_score
        scores = [f"{score:.2f}" for score in (r.score, r.start_score, last)]
        table.add_row(r.target, r.label, *scores, r.image)
    print_table(table)
    for target, diversity in {r.target: r.set["diversity"] for r in finished if r.set}.items():
        out.print(f"{target}: diversity {diversity:.2f}, from 0 (one picture) to 1 (no limit)")
    sheet = folder / "contact-sheet.png"
    if sheet.exists():
        more = f" (its first {MAX_TILES} pictures)" if len(finished) > MAX_TILES else ""
        out.print(f"contact sheet: {sheet}{more}", soft_wrap=True)


def _missed(record: Any) -> list[str]:
    """Return what a picture missed of its constraints, in words."""
    names = record.stimulus.get("missed", ())
    wanted = record.request["climb"].get("stimulus", {})
    return [
        f"its {name} is {record.stimulus[name]:g} and not {wanted[name]:g}, which its range "
        "and its mask do not hold"
        for name in names
    ]


def _explained(record: Any) -> str:
    """Return the status of a picture that no climb came to, with its cause or a remedy."""
    from phosphene.synthesis import NOT_ABOVE

    if record.status == "dead":
        return "dead; no start gave it a gradient"
    if record.status == NOT_ABOVE:
        told = f"{record.status} ({record.score:.2f}, {record.start_score:.2f} at the start)"
        return f"{told}; other --seeds, or another --prior, may excite it"
    return str(record.status)


def _directions(subject: Subject, text: str) -> list[Target]:
    """Read targets from LAYER[@POSITION]=FILE, one for each vector of the file."""
    from phosphene.dictionaries import read_dictionary
    from phosphene.units import Direction, Target

    place, _, file = text.partition("=")
    if not file:
        raise BadRequest(f"--direction takes LAYER[@POSITION]=FILE; got {text!r}")
    layer, at, position = place.partition("@")
    (first,) = subject.targets(f"{layer}:0{at}{position}")
    unit = first.terms[0][1]
    if unit.layer != layer or not isinstance(unit.position, (tuple, str)):
        raise BadRequest(
            f"--direction takes LAYER[@POSITION]=FILE; {layer!r} is no layer's name "
            "(phosphene layers SUBJECT)"
        )
    channels = subject.shape(layer)[0]
    found = read_dictionary(Path(file))
    if found.activation != "linear" or found.inputs != channels:
        raise BadFile(
            f"{file} holds {found.channels} of {found.inputs} numbers; "
            f"{layer} needs vectors of {channels} numbers"
        )
    stem = Path(file).stem
    numbered = [f"{stem}{i}" if found.channels > 1 else stem for i in range(found.channels)]
    return [
        Target(((1.0, Direction(layer, tuple(vector.tolist()), unit.position, name)),), name)
        for name, vector in zip(found.names or numbered, found.vectors, strict=True)
    ]


def _starts(seeds: str, diverse: int) -> list[int]:
    """Return the seeds of each unit's pictures: those given, or as many as a set has."""
    given = _seeds(seeds)
    if diverse and len(given) > 1:
        raise BadRequest("--diverse takes seeds from one first seed on, such as --seeds 3")
    return list(range(given[0], given[0] + diverse)) if diverse else given


def _seeds(text: str) -> list[int]:
    from phosphene.subjects import MAX_TARGETS
    from phosphene.synthesis import MAX_SEED
    from phosphene.units import channel_range

    limit = f"--seeds lie in 0 … {MAX_SEED:,}, at most {MAX_TARGETS:,} of them"
    seeds = channel_range(text.strip(), "seeds", limit, len(str(MAX_SEED)))
    if seeds is None:
        raise BadRequest(f"--seeds takes numbers such as 0, 0-3 or 1,5; got {text[:60]!r}")
    return seeds


def layers(
    subject: Annotated[str, typer.Argument(help="As for synthesize.")],
    as_json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="Also the layers inside of layers.")] = False,
    fit: Fit = "",
    inputs: Inputs = None,
) -> None:
    """Print a table of a subject's layers: shape, units, receptive field."""
    from phosphene.layer_table import LayerTable

    network = named_subject(subject, fit, inputs)
    with progress.status("receptive fields of its layers"):
        found = LayerTable.of(network, subject, every)
    if as_json:
        print_json(found.as_json())
    else:
        tell_table(found.table("--"))


def reconstruct(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    prior: Annotated[
        str, typer.Option(help="A generator's name or file, or python:module:factory.")
    ] = "objects-fc6",
    assigned: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE: an option of your own prior.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="The generator's encoder, where that is code: python:…")
    ] = "",
    out_file: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="Picture (.png, .webp, .jpg …): the photograph beside G(E(photograph)).",
        ),
    ] = Path("reconstruction.png"),
    as_json: AsJson = False,
) -> None:
    """Encode a photograph and generate it again: what the prior can show of it."""
    from phosphene import images
    from phosphene.factories import is_factory
    from phosphene.files import outlet
    from phosphene.pictures import prior_that_encodes, reconstruct_image

    images.kind_of(out_file)
    outlet(out_file, image, prior)
    if is_factory(prior):
        refuse_options(context, ("encoder",), f"--prior {prior}, which encodes by itself")
    else:
        refuse_options(context, ("assigned",), f"--prior {prior}")
    loaded = prior_that_encodes(prior, encoder, settings_of(assigned or []))
    found = reconstruct_image(images.opened(image), loaded, encoder, prior)
    images.write_picture(out_file, found.sheet())
    if as_json:
        print_json(
            {
                "image": str(image),
                "prior": prior,
                "out": str(out_file),
                "mean_absolute_error": found.error,
            }
        )
    else:
        out.print(
            f"{out_file}: mean absolute error {found.error:.3f} of the range 0 … 1",
            soft_wrap=True,
        )
