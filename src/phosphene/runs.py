"""A folder of pictures.

Climb into it, keep what is finished, and make a picture again from its record.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene import __version__, images, records
from phosphene.errors import BadFile, BadRequest
from phosphene.files import outlet, outlet_folder
from phosphene.networks.inspection import sha256_of_weights
from phosphene.parameterizations import Generated, Parameterization, load_generated
from phosphene.records import Folder, Record, completed, pixels_sha256, read
from phosphene.subjects import READINGS, Subject, load_subject
from phosphene.synthesis import (
    PRECISIONS,
    UNNAMED,
    Climb,
    Member,
    PreferredInputs,
    check,
    checked_batch,
    climb_batch,
    load_parameterization,
)
from phosphene.tensors import as_images
from phosphene.texts import clean, slug
from phosphene.units import Direction, Target, Unit

SHEET = "contact-sheet.png"
MAX_TILES = 400
"""Pictures on a contact sheet; it shows the first ones of a longer run."""


DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Request:
    """All that decides a run's pictures but their targets and seeds.

    Files are kept with their hashes. `start` is "random", "mean" or {"file", "sha256"} of a
    photograph, with the "colours" that it is read in where version 0.1.0 read it otherwise.
    `threads` counts because a machine's sums round differently with another number of them.
    `reading` is the version of what the subject's layers mean (see `subjects.READINGS`); records of
    version 0.1.0 lack it.
    """

    subject: str
    prior: str
    climb: Climb
    start: str | dict[str, str] = "random"
    prior_file: str = ""
    bounds: str = ""
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    reading: int = READINGS[0]

    def __post_init__(self) -> None:
        start = self.start if isinstance(self.start, dict) else {"file": self.start, "sha256": ""}
        texts = [
            self.subject,
            self.prior,
            self.prior_file,
            self.bounds,
            start.get("file"),
            start.get("sha256"),
            start.get("colours", ""),
        ]
        if not all(isinstance(text, str) for text in texts):
            raise BadRequest("subject, prior, start and files are texts")
        if self.device.partition(":")[0] not in DEVICES or self.precision not in PRECISIONS:
            raise BadRequest(
                f"device is one of {', '.join(DEVICES)}, precision one of {', '.join(PRECISIONS)}"
            )
        if not isinstance(self.threads, int) or not 1 <= self.threads <= 1024:
            raise BadRequest(f"threads must lie in 1 … 1024; got {self.threads!r}")
        if self.reading not in READINGS:
            raise BadRequest(
                f"reading is one of {READINGS}; got {self.reading!r}; update phosphene"
            )

    def loaded(self) -> tuple[Subject, Parameterization]:
        """The subject and the parameterization that the request names."""
        subject = load_subject(self.subject).as_read_by(self.reading)
        return subject, open_parameterization(self.prior, subject, self.prior_file, self.bounds)

    def for_member(self, members: Sequence[Member], i: int) -> dict[str, Any]:
        """What one picture's record keeps: with it, the whole batch that it climbed in."""
        kept = asdict(self)
        if self.reading == READINGS[0]:  # as in records of version 0.1.0, so that they are kept
            del kept["reading"]
        return {
            **kept,
            "members": [[member.target.as_json(), member.seed] for member in members],
            "member": i,
        }

    @classmethod
    def from_record(cls, record: Record, file: Path) -> tuple[Request, list[Member], int]:
        """Return the request, the batch, and the picture's place in it.

        `BadFile` when the record is not whole.
        """
        try:
            kept = dict(record.request)
            members = [
                Member(Target.from_json(target), int(seed)) for target, seed in kept.pop("members")
            ]
            member = int(kept.pop("member"))
            request = cls(**{**kept, "climb": Climb.from_record(kept["climb"])})
            check(members)
            if not 0 <= member < len(members):
                raise IndexError(f"member {member} of {len(members)}")
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
            OverflowError,
            BadRequest,
        ) as error:
            raise BadFile(f"{file}: its request is not whole: {error}") from None
        return request, members, member


def open_parameterization(
    prior: str, subject: Subject, prior_file: str = "", bounds: str = ""
) -> Parameterization:
    """A parameterization by name; the files are for `deepsim:LAYER`."""
    if prior.startswith("deepsim:"):
        return load_generated(prior, prior_file or None, bounds or None)
    return load_parameterization(prior, subject)


def start_request(start: str) -> str | dict[str, str]:
    """Return a start: "random", "mean", or a photograph's path with the hash of what it holds."""
    if start in ("random", "mean"):
        return start
    found = _photograph(start)
    colours = images.colours_of(start)
    return found | ({"colours": colours} if colours else {})


def _photograph(file: str) -> dict[str, str]:
    """Return a photograph's path with the hash of what it holds."""
    try:
        if Path(file).exists() and not Path(file).is_file():
            raise BadFile(f"--start takes random, mean or a photograph; {file!r} is no file")
        content = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise BadFile(
            f"--start takes random, mean or a photograph; {file!r}: {error.strerror}"
        ) from None
    return {"file": str(Path(file).resolve()), "sha256": content}


def climb_into(
    folder: Folder,
    request: Request,
    subject: Subject,
    parameterization: Parameterization,
    members: Sequence[Member],
    *,
    batch: int = 32,
    animate: bool = False,
    resume: bool = True,
    report: Callable[[int], None] = lambda steps: None,
    keeping: Callable[[int], None] = lambda pictures: None,
) -> Iterator[Record]:
    """Climb batch by batch and yield each record once its picture is safe on disk.

    With `resume`, a batch whose pictures the folder already holds, whole and from the same request,
    is not climbed again; `keeping` hears of how many pictures are kept, `report` of steps that are
    climbed. The contact sheet is written after every batch, which has as many as the subject takes.
    """
    finished: list[Record] = []
    for result, made in climb_batches(
        folder,
        request,
        subject,
        parameterization,
        members,
        _start(request.start, parameterization),
        batch=batch,
        every_frame=max(1, request.climb.steps // 60) if animate else 0,
        resume=resume,
        report=report,
    ):
        if result is None:
            keeping(len(made))
        finished += made
        _write_sheet(folder, finished)
        yield from made


def climb_batches(
    folder: Folder,
    request: Request,
    subject: Subject,
    parameterization: Parameterization,
    members: Sequence[Member],
    start: str | Tensor,
    *,
    batch: int,
    every_frame: int = 0,
    resume: bool = True,
    report: Callable[[int], None] = lambda steps: None,
) -> Iterator[tuple[PreferredInputs | None, list[Record]]]:
    """Climb batch by batch; yield each result and its records.

    The result is None where its pictures were kept.
    """
    check(members)
    batch = subject.at_most(checked_batch(batch))
    check_places(folder, members, *_read(request))
    for at in range(0, len(members), batch):
        _check_size(request, members[at : at + batch])
    folder.create()
    hashes = weights_of(subject, parameterization)
    for at in range(0, len(members), batch):
        chunk = members[at : at + batch]
        requests = [request.for_member(chunk, i) for i in range(len(chunk))]
        found = [
            folder.find(file_name(member), asked, hashes, UNNAMED)
            for member, asked in zip(chunk, requests, strict=True)
        ]
        kept = [record for record in found if record]
        moving = not every_frame or all(_moves(folder, record) for record in kept)
        if resume and len(kept) == len(chunk) and moving:
            yield None, kept
            continue
        result = _climb(request, subject, parameterization, chunk, start, every_frame, report)
        yield result, [_keep(folder, result, i, asked, hashes) for i, asked in enumerate(requests)]


def with_records(
    result: PreferredInputs, request: Request, hashes: dict[str, str]
) -> PreferredInputs:
    """Return a batch's result with a record of each picture."""
    places = range(len(result))
    asked = [request.for_member(result.members, i) for i in places]
    return replace(result, records=tuple(_made(result, i, asked[i], hashes)[0] for i in places))


def kept_inputs(
    folder: Folder, kept: Sequence[Record], members: Sequence[Member], code: Tensor
) -> PreferredInputs:
    """Return the result of an earlier run from its folder, which holds no codes: they are NaN.

    `code` is one of the codes' shape.
    """
    steps = [len(each.curve) if each.kept_step is None else each.kept_step for each in kept]
    last = [each.score if each.last_score is None else each.last_score for each in kept]
    return PreferredInputs(
        tuple(members),
        as_images([folder.picture(record) for record in kept]),
        torch.full((len(kept), *code.shape), torch.nan),
        torch.tensor([record.score for record in kept]),
        torch.tensor([record.start_score for record in kept]),
        torch.tensor([record.curve for record in kept]).view(len(kept), -1),
        tuple(record.status for record in kept),
        torch.tensor(steps),
        torch.tensor(last),
        records=tuple(kept),
    )


DECIDING = ("subject", "prior", "climb", "start", "prior_file", "bounds", "reading")
"""Of a request, what a user asks for; the machine is what it happens to be."""


def check_kept(
    folder: Folder,
    request: Request,
    members: Sequence[Member],
    remedy: str = "give another --out to keep it, or --anew to replace it",
) -> None:
    """Refuse a folder that holds one of these pictures as another request made it.

    That picture would be lost.
    """
    wanted = asdict(request)
    for member in members:
        file = folder.path / f"{file_name(member)}.json"
        try:
            kept = {"reading": READINGS[0], **completed(read(file).request, UNNAMED)}
        except BadFile:  # none, or no whole one
            continue
        if others := [part for part in DECIDING if kept.get(part) != wanted[part]]:
            raise BadRequest(
                f"{file} was made with another {_told_apart(kept, wanted, others[0])}; {remedy}"
            )


def check_places(folder: Folder, members: Sequence[Member], *inputs: str | Path) -> None:
    """Refuse before any work a folder, or a file in it, that cannot be written or is an input."""
    outlet_folder(folder.path)
    there = {file.name.lower() for file in folder.path.glob("*")}  # some disks know no case
    names = [f"{file_name(each)}{kind}" for each in members for kind in (".png", ".json", ".webp")]
    for name in (SHEET, *names):
        if name.lower() in there:
            outlet(folder.path / name, *inputs)


def _check_size(request: Request, chunk: Sequence[Member]) -> None:
    """Refuse a batch whose records would be too long to be read: each names all members."""
    length = len(json.dumps(request.for_member(chunk, 0), indent=1))
    most = records.MAX_BYTES * 7 // 8  # the curve needs the rest
    if length > most:
        raise BadRequest(
            f"a record names its whole batch, and of {len(chunk)} such targets it would have "
            f"{length / 1e6:.0f} MB; at most {most / 1e6:.0f} MB are taken: give a smaller batch"
        )


def _read(request: Request) -> tuple[str, ...]:
    """Return the files that a request may name."""
    start = request.start["file"] if isinstance(request.start, dict) else ""
    return (start, request.subject, request.prior, request.prior_file, request.bounds)


def _told_apart(kept: dict[str, Any], wanted: dict[str, Any], part: str) -> str:
    """Return the part of two requests that differs; of two climbs, also which settings do."""
    old, new = kept.get(part), wanted[part]
    if part != "climb" or not isinstance(old, dict):
        return part
    names = [name for name in new if old.get(name) != new[name]]
    told = [f"{name} {old.get(name)}, now {new[name]}" for name in names]
    return f"climb ({'; '.join(told)})" if told else part


def remake(
    file: Path,
    folder: Folder,
    *,
    trusted: str = "",
    device: str | None = None,
    anew: bool = False,
    report: Callable[[int], None] = lambda steps: None,
) -> tuple[Record, Record]:
    """Make a record's picture again and return the old record and the new one.

    The whole batch that it climbed in is climbed, since batches of other sizes may round
    differently. A subject that is code, `python:…`, runs only where it is the `trusted` one. In the
    record's own folder nothing is written. In another, a picture that another request made is
    replaced only when `anew` is true.
    """
    old = read(file)
    request, members, member = Request.from_record(old, file)
    named = f"phosphene synthesize {shlex.quote(request.subject)} --record {shlex.quote(str(file))}"
    check_trusted(request.subject, trusted, file, named)
    if device is not None:
        request = replace(request, device=device)
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here[request.device.partition(":")[0]]:
        raise BadRequest(
            f"{file} was made on {request.device}, which is not here; --device cpu comes close"
        )
    own = folder.path.resolve() == file.parent.resolve()
    if not own:
        check_places(folder, [members[member]], file, *_read(request))
    if not (own or anew):
        check_kept(folder, request, [members[member]])
    if request.threads != torch.get_num_threads():
        torch.set_num_threads(request.threads)
    subject, parameterization = request.loaded()
    _check_units(subject, members, file)
    check_weights(old, subject, parameterization, file)
    start = _start(request.start, parameterization)
    result = _climb(request, subject, parameterization, members, start, 0, report)
    if own:
        return old, _made(result, member, old.request, old.weights)[0]
    folder.create()
    return old, _keep(folder, result, member, old.request, old.weights)


def weights_of(subject: Subject, parameterization: Parameterization) -> dict[str, str]:
    """What the pictures depend on: the hash of each weights file, or a name where there is none."""
    hashes = {"subject": subject.identity}
    card = getattr(parameterization, "card", None)
    if card is not None:
        hashes["prior"] = str(card.get("sha256", card.get("name", "")))
        if not hashes["prior"] and isinstance(parameterization, Generated):
            hashes["prior"] = sha256_of_weights(parameterization.generator)
    return hashes


def check_weights(
    record: Record, subject: Subject, parameterization: Parameterization, file: Path
) -> None:
    """Refuse a record whose picture was made with other networks than those that are here.

    The error is `BadFile`. A record of version 0.1.0 is compared as that version did, by the hash
    of the weights alone.
    """
    here = weights_of(subject, parameterization)
    if record.weights.get("subject") == subject.former_identity:
        here["subject"] = subject.former_identity
    if wrong := [part for part in here if here[part] != record.weights.get(part)]:
        was, now = str(record.weights.get(wrong[0], "none"))[:16], here[wrong[0]][:16]
        raise BadFile(
            f"{file} was made with another {wrong[0]}: its hash was {was}, here it is {now}"
        )


def check_trusted(subject: str, trusted: str, file: Path, command: str) -> None:
    """Refuse a record's subject that is code, `python:…`, unless it is the `trusted` one.

    A record is a file from outside. Another subject than its own is refused where one is named.
    """
    own, named = (name.removesuffix("@random") for name in (subject, trusted))
    same = own == named or (
        os.path.exists(own) and os.path.exists(named) and os.path.samefile(own, named)
    )
    if trusted and not same and not subject.startswith("python:"):
        raise BadRequest(f"{file} is of {subject!r}, not of {trusted!r}; leave that out")
    if not same and subject.startswith("python:"):
        raise BadRequest(
            f"{file} would run {subject!r}, which is code; where you trust it, name it: {command}"
        )


def file_name(member: Member) -> str:
    """A safe, readable name for a picture: unit, label, seed; unique within a run."""
    text = str(member.target)
    name = slug(text)
    if not re.fullmatch(r"[A-Za-z0-9.]+:\d+", text):  # what `safe` leaves as it is
        vectors = [unit.vector for _, unit in member.target.terms if isinstance(unit, Direction)]
        name = f"{name[:40]}-{hashlib.sha256((text + str(vectors or '')).encode()).hexdigest()[:8]}"
    label, plain = (
        re.sub(r"[^a-z0-9]+", "-", each.lower()).strip("-")
        for each in (member.target.label[:40], name)
    )
    return "-".join(
        part for part in (name, label if label not in plain else "", f"s{member.seed}") if part
    )


DECISIVE = ("ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "DNNL_MAX_CPU_ISA")
"""Environment variables that choose other sums."""


def versions(device: str = "cpu") -> dict[str, str]:
    """Return what else decides the bits of a picture: the programs and the machine."""
    built = torch.__config__.show()
    libraries = {"onednn": r"MKL-DNN v([\w.]+)", "mkl": r"Math Kernel Library Version ([\w.]+)"}
    found = {name: re.search(pattern, built) for name, pattern in libraries.items()}
    told = {
        "phosphene": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: match[1] if match else "none" for name, match in found.items()},
        **{name: os.environ[name] for name in DECISIVE if name in os.environ},
    }
    if not torch.backends.mkldnn.enabled:  # type: ignore[attr-defined]
        told["onednn"] = "off"
    if device == "cuda" and torch.cuda.is_available():
        told["gpu"] = torch.cuda.get_device_name()
        told["cuda"] = str(torch.version.cuda)
        told["cudnn"] = str(torch.backends.cudnn.version())
    return told


def _cpu() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def told_apart(old: Record, new: Record, device: str) -> str:
    """Return in words what differs between the making of two pictures of one record.

    `device` is the one that the new picture was made on.
    """
    was, now = old.versions, new.versions
    was_on = str(old.request.get("device", "cpu"))
    differing = [f"device {was_on} there, {device} here"] if was_on != device else []
    both = [name for name in now if name in was]
    differing += [
        f"{name} {was[name]} there, {now[name]} here" for name in both if was[name] != now[name]
    ]
    differing += [f"{name} {was[name]} there, unset here" for name in was if name not in now]
    untold = [name for name in now if name not in was]
    if not differing:
        differing = [f"the same {', '.join(both)}"]
    if untold:
        differing.append(f"the record does not tell its {', '.join(untold)}")
    differing.append(f"score {old.score:.6g} there, {new.score:.6g} here")
    return "; ".join(differing)


def _climb(
    request: Request,
    subject: Subject,
    parameterization: Parameterization,
    members: Sequence[Member],
    start: str | Tensor,
    every_frame: int,
    report: Callable[[int], None],
) -> PreferredInputs:
    return climb_batch(
        subject,
        members,
        parameterization,
        request.climb,
        start=start,
        device=request.device,
        precision=request.precision,
        every_frame=every_frame,
        report=report,
    )


def _keep(
    folder: Folder, result: PreferredInputs, i: int, request: dict[str, Any], hashes: dict[str, str]
) -> Record:
    """Write one member's picture, its animation where there are frames, and its record."""
    record, pixels = _made(result, i, request, hashes)
    name = file_name(result.members[i])
    animation = folder.path / f"{name}.webp"
    animation.unlink(missing_ok=True)  # it may be of another climb
    if record.status != "dead" and result.frames is not None:
        frames = [images.to_pixels(frame.numpy()) for frame in result.frames[:, i]]
        images.write_animation(animation, [*frames, pixels])
    folder.add(name, record, pixels)
    return record


def _made(
    result: PreferredInputs, i: int, request: dict[str, Any], hashes: dict[str, str]
) -> tuple[Record, images.Pixels]:
    """One member's record and its picture."""
    member, status = result.members[i], result.statuses[i]
    name, pixels = file_name(member), result.picture(i)
    subject = request["subject"]
    code = [subject] if subject.startswith("python:") else []  # it runs only where it is named
    record = Record(
        target=str(member.target),
        label=member.target.label or str(member.target),
        request=request,
        weights=hashes,
        score=float(result.scores[i]),
        start_score=float(result.start_scores[i]),
        curve=[round(value, 5) for value in result.curves[i].tolist()],
        status=status,
        image=f"{name}.png",
        image_sha256=pixels_sha256(pixels),
        command=shlex.join(["phosphene", "synthesize", *code, "--record", f"{name}.json"]),
        versions=versions(request["device"]),
        kept_step=int(result.kept[i]),
        last_score=float(result.last_scores[i]),
    )
    return record, pixels


def _moves(folder: Folder, record: Record) -> bool:
    """Whether the picture's animation is there; a dead unit has none."""
    return record.status == "dead" or (folder.path / record.image).with_suffix(".webp").exists()


def _write_sheet(folder: Folder, finished: Sequence[Record]) -> None:
    shown = finished[:MAX_TILES]
    notes = [
        f"{record.score:.2f}" if record.status == "climbed" else record.status for record in shown
    ]
    labels = [f"{clean(record.label)}\n{note}" for record, note in zip(shown, notes, strict=True)]
    sheet = images.contact_sheet(
        [folder.picture(record) for record in shown],
        labels,
        columns=_columns(len(shown)),
        scale=2 if len(shown) <= 40 else 1,
    )
    images.write_png(folder.path / SHEET, sheet)


def _columns(tiles: int) -> int:
    """Tiles in a row of a contact sheet: near a square, with the fullest last row."""
    square = min(10, max(4, math.ceil(tiles**0.5)))
    return min(
        range(max(3, square - 1), min(10, square + 2) + 1),
        key=lambda n: (-tiles % n, abs(n - square)),
    )


def _start(request: str | dict[str, str], parameterization: Parameterization) -> str | Tensor:
    """The start as the climb takes it; a photograph must be the one that was asked for."""
    if isinstance(request, str):
        return request
    file = request["file"]
    if _photograph(file) != {key: request.get(key) for key in ("file", "sha256")}:
        raise BadFile(f"{file} is not the photograph that the record began with")
    pixels = images.read_image(file, parameterization.image_size, request.get("colours", ""))
    return as_images([pixels])[0]


def _check_units(subject: Subject, members: Sequence[Member], file: Path) -> None:
    """A record comes from outside: its layers and channels must exist."""
    shapes = subject.shapes()
    for member in members:
        for _, unit in member.target.terms:
            if isinstance(unit, Unit):
                subject.targets(str(unit))
                continue
            channels, *limits = shapes.get(unit.layer) or (0,)
            if channels != len(unit.vector):
                raise BadFile(f"{file}: its direction does not fit layer {unit.layer!r}")
            if isinstance(unit.position, tuple) and not (
                len(limits) == 2
                and all(0 <= at < limit for at, limit in zip(unit.position, limits, strict=True))
            ):
                raise BadFile(f"{file}: layer {unit.layer!r} has no position {unit.position}")
