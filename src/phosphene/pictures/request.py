"""All that decides a run's pictures: the request that a record keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene import images
from phosphene.errors import BadFile, BadRequest
from phosphene.forms import Record
from phosphene.parts import KINDS, Option
from phosphene.priors import Prior, load_prior
from phosphene.subjects import READINGS, Subject, load_subject
from phosphene.synthesis import (
    PRECISIONS,
    Climb,
    Member,
    check,
    checked_batch,
    setting_names,
)
from phosphene.tensors import FITS, as_images, recoloured
from phosphene.units import Target

DEVICES = ("cpu", "cuda", "mps")
MAX_THREADS = 1024


@dataclass(frozen=True)
class Request:
    """All that decides a run's pictures but their targets and seeds.

    Files are kept with their hashes. `start` is "random", "mean" or {"file", "sha256"} of a
    photograph, with the "colours" that it is read in where version 0.1.0 read it otherwise.
    `prior_options` are the options of the prior that were given. `threads` counts because a
    machine's sums round differently with another number of them. `reading` is the version of what
    the subject's layers mean (see `subjects.READINGS`); records of version 0.1.0 lack it. `fit` is
    how images come to the subject's shape, and `inputs` what it reads beside them: the shape, the
    sha256 and the file of each (see `Subject.inputs`).
    """

    subject: str
    prior: str
    climb: Climb
    start: str | Mapping[str, str] = "random"
    prior_options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    reading: int = READINGS[0]
    fit: str = FITS[0]
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start = self.start if isinstance(self.start, Mapping) else {"file": self.start}
        texts = [self.subject, self.prior, start.get("file"), *start.values()]
        if not all(isinstance(text, str) for text in texts):
            raise BadRequest("subject, prior, start and files are texts")
        options = self.prior_options.items()
        if not all(isinstance(name, str) and isinstance(each, KINDS) for name, each in options):
            raise BadRequest(f"a prior's options are numbers and texts; got {self.prior_options}")
        if self.device.partition(":")[0] not in DEVICES or self.precision not in PRECISIONS:
            raise BadRequest(
                f"device is one of {', '.join(DEVICES)}, precision one of {', '.join(PRECISIONS)}"
            )
        if not isinstance(self.threads, int) or not 1 <= self.threads <= MAX_THREADS:
            raise BadRequest(f"threads must lie in 1 … {MAX_THREADS}; got {self.threads!r}")
        if self.reading not in READINGS:
            raise BadRequest(
                f"reading is one of {READINGS}; got {self.reading!r}; update phosphene"
            )
        if self.fit not in FITS or not all(isinstance(each, Mapping) for each in self._inputs()):
            raise BadRequest(f"fit is one of {', '.join(FITS)}, inputs are objects by their names")

    def _inputs(self) -> list[Any]:
        return [*self.inputs.values()] if isinstance(self.inputs, Mapping) else [None]

    def loaded(self, own: Subject | None = None) -> tuple[Subject, Prior]:
        """Return the subject and the prior that the request names, or with the subject `own`."""
        if own is not None:
            return own, load_prior(self.prior, own, self.prior_options)
        files = {name: each["file"] for name, each in self.inputs.items() if "file" in each}
        subject = load_subject(self.subject, fit=self.fit, inputs=files).as_read_by(self.reading)
        _check_inputs(self, subject)
        return subject, load_prior(self.prior, subject, self.prior_options)

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that the request may name."""
        start = self.start["file"] if isinstance(self.start, Mapping) else ""
        options = (each for each in self.prior_options.values() if isinstance(each, str))
        inputs = (str(each.get("file", "")) for each in self.inputs.values())
        return (start, self.subject, self.prior, self.climb.stimulus.mask, *options, *inputs)

    def as_json(self) -> dict[str, Any]:
        """Return the request as a record keeps it."""
        kept = {each.name: getattr(self, each.name) for each in fields(self)}
        own = {"prior_options": dict(self.prior_options), "inputs": dict(self.inputs)}
        return {**kept, "climb": self.climb.as_json(), **own}

    def for_member(self, members: Sequence[Member], i: int) -> dict[str, Any]:
        """Return what one picture's record keeps: its member, and where in which batch it climbed.

        The size of the batch decides the picture's last digits, but the other members do not. Where
        pictures are moved apart, the record keeps the whole set.
        """
        kept = members if self.climb.share else [members[i]]
        own: dict[str, Any] = {
            "members": [[member.target.as_json(), member.seed] for member in kept],
            "member": i,
        }
        if not self.climb.share:
            own |= {"member": 0, "batch": len(members), "place": i}
        return {**self.as_json(), **own}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Request:
        """Return the request of a record of any version. No code of a user runs."""
        given = {**kept, "climb": Climb.from_record(kept["climb"])}
        if "prior_options" not in given:
            former = {name: given.pop(name, "") for name in FORMER_OPTIONS}
            given["prior_options"] = {name: value for name, value in former.items() if value}
        return cls(**given)


@dataclass(frozen=True)
class Made:
    """Tell how a record's picture was made: request, members of its batch, place there.

    `bound` says that its bits depend on the other members (see `climb_batch`).
    """

    request: Request
    members: list[Member]
    place: int
    bound: bool

    @property
    def member(self) -> Member:
        """Return the picture's own member."""
        return self.members[self.place]

    @classmethod
    def of(cls, record: Record, file: Path) -> Made:
        """Return how a record's picture was made; `BadFile` when the record is not whole.

        Where the record keeps the size of the batch alone, copies of the picture's member fill it.
        """
        try:
            kept = dict(record.request)
            members = [
                Member(Target.from_json(target), int(seed)) for target, seed in kept.pop("members")
            ]
            place = int(kept.pop("member"))
            check(members)
            if not 0 <= place < len(members):
                raise IndexError(f"member {place} of {len(members)}")
            bound = "batch" not in kept
            if not bound:
                members = [members[place]] * checked_batch(kept.pop("batch"))
                place = int(kept.pop("place"))
                if not 0 <= place < len(members):
                    raise IndexError(f"place {place} of {len(members)}")
            return cls(Request.from_json(kept), members, place, bound)
        except NOT_WHOLE as error:
            raise BadFile(f"{file}: its request is not whole: {error}") from None


def _check_inputs(request: Request, subject: Subject) -> None:
    """Refuse a subject whose further inputs are not those of the request, with `BadFile`."""
    here = subject.inputs
    for name in [*request.inputs, *here]:
        was, now = request.inputs.get(name), here.get(name)
        keys = ("shape", "sha256")
        if was is None or now is None or any(was.get(key) != now[key] for key in keys):
            raise BadFile(
                f"input {name!r} of {request.subject} is not what the record says: "
                f"{_told(was)} there, {_told(now)} here"
            )


def _told(made: Mapping[str, Any] | None) -> str:
    if made is None:
        return "none"
    return f"{made.get('file', 'an array')} of shape {made.get('shape')}, {made.get('sha256')}"


FORMER_OPTIONS = ("prior_file", "bounds")
"""Options of a prior that were parts of the request in version 0.1.0."""

NOT_WHOLE = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    OverflowError,
    BadRequest,
)
"""What reading a request raises where a record does not have the form of one."""

OF_A_PICTURE = ("members", "member", "batch", "place")
"""What a record keeps of one picture beside the run's request."""

DECIDING = ("subject", "prior", "climb", "start", "prior_options", "reading", "fit", "inputs")
"""What a user asks for of a request; the machine is what it happens to be."""


def upgraded(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a picture's request as this version would write it; `BadFile` where it is none."""
    try:
        own = {name: value for name, value in request.items() if name not in OF_A_PICTURE}
        batch = {name: request[name] for name in OF_A_PICTURE if name in request}
        found = {**Request.from_json(own).as_json(), **batch}
        if not 0 <= found["member"] < len(found["members"]):
            raise IndexError(f"member {found['member']} of {len(found['members'])}")
        return found
    except NOT_WHOLE as error:
        raise BadFile(f"a request is not whole: {error}") from None


def told_apart(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Return the first part of two requests that differs, "" where none does.

    Of two climbs, and of a prior's options, it also tells which settings do.
    """
    part = next((each for each in DECIDING if kept.get(each) != wanted.get(each)), "")
    if part not in ("climb", "prior_options"):
        return part.removesuffix("s")
    old = _flat(kept[part])
    new = _flat(wanted[part])
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    told = [f"{name} {old.get(name)}, now {new.get(name)}" for name in names]
    noun = part.replace("_", " ").removesuffix("s")
    return f"{noun} ({'; '.join(told)})"


def _flat(part: Mapping[str, Any]) -> dict[str, Any]:
    groups = ("options", "stimulus")
    flat = {name: part[name] for name in part if name not in groups}
    return flat | part.get("stimulus", {}) | part.get("options", {})


def taken_options(prior: str, known: Mapping[str, Option], given: dict[str, Any]) -> dict[str, Any]:
    """Take a prior's options out of what was given; return those that are not the default.

    `BadRequest` where the prior declares a setting of the climb, or a name is nearly an option's.
    """
    settings = setting_names()
    if both := sorted(settings & known.keys()):
        raise BadRequest(
            f"prior {prior} has an option {both[0]!r}, which is a setting of the climb; "
            "give it another name"
        )
    for name in given.keys() - settings - known.keys():
        if near := get_close_matches(name, known, n=3):
            raise BadRequest(f"prior {prior} has no option {name!r}; near: {', '.join(near)}")
    taken = {name: given.pop(name) for name in known if name in given}
    read = {
        name: known[name].read(str(value)) if isinstance(value, str | Path) else value
        for name, value in taken.items()
    }
    return {name: value for name, value in read.items() if value != known[name].default}


def start_request(start: str) -> str | dict[str, str]:
    """Return a start: "random", "mean", or a photograph's path with the hash of what it holds."""
    if start in ("random", "mean"):
        return start
    found = _photograph(start)
    colours = images.colours_of(start)
    return found | ({"colours": colours} if colours else {})


def read_start(request: str | Mapping[str, str], subject: Subject, prior: Prior) -> str | Tensor:
    """Return the start as the climb takes it; a photograph must be the one that was asked for.

    It has the prior's channels, which the subject makes of RGB in its own way.
    """
    if isinstance(request, str):
        return request
    file = request["file"]
    if _photograph(file) != {key: request.get(key) for key in ("file", "sha256")}:
        raise BadFile(f"{file} is not the photograph that the record began with")
    pixels = images.read_image(file, prior.size, request.get("colours", ""))
    own = subject.from_rgb if prior.channels == subject.channels else ()
    return recoloured(as_images([pixels]), prior.channels, own)[0]


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
