"""The climb: from a start code to the input that a unit prefers.

The main loop of phosphene lives here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.encoders import encode, encoding
from phosphene.errors import BadRequest
from phosphene.objectives import Kind, Objective
from phosphene.parameterizations import Fourier, Generated, Parameterization, Pixels, load_generated
from phosphene.priors import Free, Gaussian, Prior, paper_box
from phosphene.probe import Read, redirected
from phosphene.records import Folder, Record
from phosphene.subjects import MAX_TARGETS, Subject
from phosphene.tensors import blurred, center_crop, device_of, total_variation
from phosphene.units import Target

PAPER_SIGMA = 3.74
"""Mean standard deviation of the paper's code (CaffeNet fc6).

It is the unit of the paper's step sizes (method: §2).
"""


NOT_ABOVE = "no higher than its start"
"""The status of a picture whose unit answers to it no more than it did to the start."""

MAX_SEED = 2**53
"""As large a whole number as every reader of JSON keeps."""

PRECISIONS = ("float32", "bfloat16")

_CHOICES = {
    "rule": ("mean", "whitened", "adam"),
    "objective": ("activation", "probability"),
    "prior": ("box", "gaussian", "none"),
    "start": ("gaussian", "normal"),
    "keep": ("best", "last"),
    "lower": ("code", "zero"),
}
_RANGES: dict[str, tuple[type[float], int]] = {
    "steps": (int, 100_000),
    "rate": (float, 1_000_000),
    "last_rate": (float, 1_000_000),
    "sigmas": (float, 1_000_000),
    "decay": (float, 1),
    "cycle": (float, 1),
    "shift": (int, 10_000),
    "tv": (float, 1_000_000),
    "blur": (float, 1_000),
    "tries": (int, 100),
}
"""Of each number of a `Climb`: its type and the largest that makes sense; none is below 0."""


@dataclass(frozen=True)
class Climb:
    """How to climb. Step sizes fall linearly from `rate` to `last_rate` over `steps`.

    `rule` "mean": gradient over its mean magnitude, in the paper's code units (Nguyen et al. 2016);
    "whitened": in coordinates where natural codes are white, of root mean square `rate`; "adam":
    Adam on the codes. `prior` "box": 0 … μ + `sigmas`·σ, then × `decay`; "gaussian": × `decay`
    towards the mean, then that box; "none": × `decay` (of pixels and Fourier towards grey). `lower`
    "code": where natural codes lie below 0, so may the climb's; "zero": none does. `start`: a
    random start is drawn from the code's Gaussian, or from N(0, 1) in the paper's code units.
    `cycle`: the share of the way to E(G(code)) taken at each step (PPGN's ε₁, Nguyen et al. 2017).
    `shift`: the crop moves by up to so many pixels at each step. `tv`, `blur` (pixels): for
    parameterizations without a learned prior. `redirect`: a gradient of zero is taken again through
    the ReLUs that shut it out (Olah et al. 2017). `tries`: a climb that ends no higher than its
    random start, or with a unit that others of its layer exceed (`objectives.FAINT`), begins again
    from other starts, up to so many times in all; the highest is kept. `keep`: the picture is of
    the "best" code on the way, or of the "last".
    """

    steps: int = 200
    rate: float = 0.2
    last_rate: float = 0.0
    rule: Literal["mean", "whitened", "adam"] = "whitened"
    objective: Kind = "activation"
    prior: Literal["box", "gaussian", "none"] = "gaussian"
    sigmas: float = 3.0
    decay: float = 0.99
    cycle: float = 0.0
    shift: int = 0
    start: Literal["gaussian", "normal"] = "gaussian"
    tv: float = 0.0
    blur: float = 0.0
    redirect: bool = True
    tries: int = 4
    keep: Literal["best", "last"] = "best"
    lower: Literal["code", "zero"] = "code"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise BadRequest(
                    f"no {name} {getattr(self, name)!r}; there are: {', '.join(allowed)}"
                )
        for name, (kind, most) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, (int, kind)) or not 0 <= value <= most:
                raise BadRequest(f"{name} must be a number in 0 … {most:,}; got {value!r}")
        if not self.decay:
            raise BadRequest("decay must lie above 0; 1 is none")
        if not self.tries:
            raise BadRequest("tries must be 1 or more; got 0")
        if not isinstance(self.redirect, bool):
            raise BadRequest(f"redirect is True or False; got {self.redirect!r}")

    @classmethod
    def from_record(cls, kept: Mapping[str, Any]) -> Climb:
        """Return the climb of a record, where what version 0.1.0 did not name is as it was then."""
        return cls(**{**UNNAMED, **kept})

    def rate_at(self, step: int) -> float:
        """Return the step size of step 0 … steps − 1.

        `last_rate` lies one step beyond, as in the 2016 code (act_max.py).
        """
        share = step / max(1, self.steps)
        return self.rate + (self.last_rate - self.rate) * share


UNNAMED: dict[str, Any] = {"redirect": False, "tries": 1, "keep": "last", "lower": "zero"}
"""What a climb of version 0.1.0 did, whose records do not name these settings."""

CLIMBS: dict[str, Climb] = {
    "default": Climb(decay=0.98),
    "paper": Climb(
        steps=200,
        rate=8.0,
        last_rate=1e-10,
        rule="mean",
        prior="box",
        start="normal",
        redirect=False,
        tries=1,
        keep="last",
    ),
    "pixels": Climb(
        steps=256,
        rate=0.05,
        last_rate=0.05,
        rule="adam",
        prior="none",
        decay=1.0,
        shift=4,
        tv=0.5,
        blur=0.5,
    ),
    "fourier": Climb(
        steps=256, rate=0.05, last_rate=0.05, rule="adam", prior="none", decay=1.0, shift=4
    ),
}
"""Settings by name.

They are ours, the paper's as coded (method: §2), and the two for baselines without a learned prior.
"""


@dataclass(frozen=True)
class Member:
    """One climb of a batch: what for, and from which seed."""

    target: Target
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise BadRequest(f"seeds lie in 0 … {MAX_SEED:,}; got {self.seed}")


@dataclass(frozen=True, eq=False, repr=False)
class PreferredInputs:
    """What a climb returns, one entry for each member.

    `images` float32 RGB in [0, 1] (n, 3, size, size), as an 8-bit picture holds them; `codes` (n,
    …); `scores` and `start_scores`: each target's activation on the picture and on the start,
    measured in float32 on the 8-bit pixels; `curves` (n, steps) the objective at each step;
    `statuses`: "climbed", `NOT_ABOVE`, "dead" (no start had a gradient) or "stopped: …"; `frames`
    (frames, n, 3, size, size) where an animation was asked for. `kept` (n,): the step whose code
    the picture shows, `steps` where that is the last one; `last_scores` (n,): the activation on the
    last code's picture. `records` say how each picture came to be, where `synthesize` made them.

    A result can be indexed, cut and iterated over: each part is a result of its own.
    """

    members: tuple[Member, ...]
    images: Tensor
    codes: Tensor
    scores: Tensor
    start_scores: Tensor
    curves: Tensor
    statuses: tuple[str, ...]
    kept: Tensor
    last_scores: Tensor
    frames: Tensor | None = None
    records: tuple[Record, ...] = ()

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        shown = [
            f"{member.target} {score:.2f}" + (f" ({status})" if status != "climbed" else "")
            for member, score, status in zip(
                self.members[:4], self.scores.tolist(), self.statuses, strict=False
            )
        ]
        more = [f"and {len(self) - 4:,} more"] if len(self) > 4 else []
        return f"<PreferredInputs: {', '.join([*shown, *more])}>"

    def __getitem__(self, which: int | slice) -> PreferredInputs:
        """Return the one at a place, or a part, as a result of its own."""
        if not isinstance(which, slice):
            place = range(len(self))[which]  # `IndexError` where there is none
            which = slice(place, place + 1)
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        cut = {name: value[which] for name, value in parts.items() if value is not None}
        if self.frames is not None:
            cut["frames"] = self.frames[:, which]
        return PreferredInputs(**cut)

    def __iter__(self) -> Iterator[PreferredInputs]:
        return (self[i] for i in range(len(self)))

    def picture(self, i: int) -> pictures.Pixels:
        """Return one picture's 8-bit pixels, crossed out where its unit is dead."""
        pixels = pictures.to_pixels(self.images[i].numpy())
        return pictures.crossed_out(pixels) if self.statuses[i] == "dead" else pixels

    def save(self, folder: str | Path, anew: bool = False) -> Path:
        """Write pictures, their records and a contact sheet as `phosphene synthesize` does.

        A picture of another run that has the same name is replaced only when `anew` is true.
        """
        if not self:
            raise BadRequest("there is no picture in this part of the result")
        if len(self.records) != len(self):
            raise BadRequest("only what phosphene.synthesize returned has records to save")
        into = Folder(Path(folder))
        into.create()
        for record in self.records:
            if not (anew or into.may_hold(record)):
                raise BadRequest(
                    f"{into.path / record.image} is a picture of another run; "
                    "give another folder, or anew=True to replace it"
                )
        for i, record in enumerate(self.records):
            into.add(Path(record.image).stem, record, self.picture(i))
        pictures.write_png(into.path / "contact-sheet.png", self.sheet())
        return into.path

    def sheet(self, columns: int = 8) -> pictures.Pixels:
        """All pictures in a grid, labelled with target and score."""
        return pictures.contact_sheet(*tiles(self), columns=columns)

    def _repr_png_(self) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.sheet()).save(buffer, "png")
        return buffer.getvalue()


def load_parameterization(
    prior: str | Path | Parameterization, subject: Subject
) -> Parameterization:
    """Return a parameterization by name.

    The name is "pixels" or "fourier" (both have an eighth of margin), or a generator's.
    """
    if isinstance(prior, Parameterization):
        return prior
    if not isinstance(prior, (str, Path)):
        raise BadRequest(f"a prior is a generator's name or file, pixels or fourier; got {prior!r}")
    side = max(subject.size)
    if prior == "pixels":
        return Pixels(side + side // 7, side)
    if prior == "fourier":
        return Fourier(side + side // 7, side)
    return load_generated(prior)


def settings(climb: str | Climb, parameterization: Parameterization, **changes: Any) -> Climb:
    """Settings by name, with changes; "default" means the one that suits the parameterization."""
    if isinstance(climb, str):
        if climb == "default" and not isinstance(parameterization, Generated):
            climb = "pixels" if isinstance(parameterization, Pixels) else "fourier"
        if climb not in CLIMBS:
            raise BadRequest(f"no climb {climb!r}; there are: {', '.join(CLIMBS)}")
        climb = CLIMBS[climb]
    if not isinstance(climb, Climb):
        raise BadRequest(f"a climb is a name or a phosphene.Climb; got {climb!r}")
    known = [each.name for each in fields(Climb)]
    if unknown := [name for name in changes if name not in known]:
        near = get_close_matches(unknown[0], known, n=3) or known
        raise BadRequest(f"a climb has no setting {unknown[0]!r}; near: {', '.join(near)}")
    climb = replace(climb, **{name: value for name, value in changes.items() if value is not None})
    if not isinstance(parameterization, Generated) and (
        climb.rule != "adam" or climb.prior != "none"
    ):
        raise BadRequest(
            "that climb moves in a generator's code; for pixels and fourier use climb default"
        )
    if 3 * climb.blur > parameterization.seen - 2:
        raise BadRequest(
            f"blur {climb.blur:g} is too wide for the {parameterization.seen} pixels that are seen"
        )
    return climb


def climb_all(
    subject: Subject,
    members: Sequence[Member],
    parameterization: Parameterization,
    climb: Climb,
    *,
    start: str | Tensor = "random",
    device: str = "cpu",
    precision: str = "float32",
    batch: int = 32,
    every_frame: int = 0,
    report: Callable[[int], None] = lambda steps: None,
) -> Iterator[PreferredInputs]:
    """Climb any number of members and yield each batch's result once it is finished.

    A batch has `batch` members, or as many as the subject takes. `report` hears of steps done.
    """
    check(members)
    batch = subject.at_most(checked_batch(batch))
    for at in range(0, len(members), batch):
        yield climb_batch(
            subject,
            members[at : at + batch],
            parameterization,
            climb,
            start=start,
            device=device,
            precision=precision,
            every_frame=every_frame,
            report=report,
        )


MAX_AT_ONCE = 4096
"""Pictures of a batch; more are taken for a slip."""


def checked_batch(batch: int) -> int:
    """Return the size of a batch; `BadRequest` where it is none."""
    whole = isinstance(batch, int) and not isinstance(batch, bool)
    if not whole or not 1 <= batch <= MAX_AT_ONCE:
        raise BadRequest(f"batch must be a whole number in 1 … {MAX_AT_ONCE:,}; got {batch!r}")
    return batch


def checked_device(device: str | torch.device) -> str:
    """Return a device's name; `BadRequest` where this machine has none such."""
    here = ["cpu", *[f"cuda:{i}" for i in range(torch.cuda.device_count())]]
    here += ["cuda"] if len(here) > 1 else []
    here += ["mps"] if torch.backends.mps.is_available() else []
    if str(device) not in here:
        raise BadRequest(f"device {str(device)!r} is not here; there are: {', '.join(here)}")
    return str(device)


def check(members: Sequence[Member]) -> None:
    """Refuse an empty list of members, and one so long that it must be a slip."""
    if not members:
        raise BadRequest("no units given; for example class:lion or conv5:0-31")
    if len(members) > MAX_TARGETS:
        raise BadRequest(
            f"{len(members):,} pictures in one call; at most {MAX_TARGETS:,} are taken"
        )


def climb_batch(
    subject: Subject,
    members: Sequence[Member],
    parameterization: Parameterization,
    climb: Climb,
    *,
    start: str | Tensor = "random",
    device: str = "cpu",
    precision: str = "float32",
    every_frame: int = 0,
    report: Callable[[int], None] = lambda steps: None,
) -> PreferredInputs:
    """Climb one batch; each member climbs as it would alone.

    `steps` forward and backward passes; one of each to see who can start (again, up to seven times,
    for members that cannot); two forward passes that measure the start and the end, and a third for
    the best code. Members whose gradient vanishes, or that must try again, take passes of their
    own.
    """
    if precision not in PRECISIONS:
        raise BadRequest(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    device = checked_device(device)
    subject = replace(subject, network=subject.network.to(device))
    parameterization = parameterization.to(device)
    if climb.lower == "zero":
        parameterization = parameterization.above_zero()
    how = _How(subject, parameterization, climb, start, device, precision, every_frame)
    result, failed = _climbed(how, members, 0, report)
    for attempt in range(1, climb.tries if isinstance(start, str) and start == "random" else 1):
        if not failed:
            break
        again, still = _climbed(how, [members[i] for i in failed], attempt)
        result = _with_higher(result, failed, again)
        failed = [failed[j] for j in still]
    return result


@dataclass(frozen=True, eq=False)
class _How:
    """All that decides a batch's climb but its members. Everything is on the device."""

    subject: Subject
    parameterization: Parameterization
    climb: Climb
    start: str | Tensor
    device: str
    precision: str
    every_frame: int


def _climbed(
    how: _How,
    members: Sequence[Member],
    attempt: int,
    report: Callable[[int], None] = lambda steps: None,
) -> tuple[PreferredInputs, list[int]]:
    """Climb once, from the starts of this attempt, and say who failed.

    This is the main loop of phosphene.
    """
    climb, parameterization = how.climb, how.parameterization
    objective = Objective([member.target for member in members], climb.objective)
    prior, rule = _prior(climb, parameterization), RULES[climb.rule](parameterization)
    shifts = _shifts(members, climb, parameterization)
    state = _State(len(members), climb.steps)
    again = (
        encoding(parameterization, how.device, how.subject.name)
        if climb.cycle
        else nullcontext(lambda images: images)
    )
    with how.subject.reading(objective.layers) as read, again as encoded:
        look = _Look(how.subject, parameterization, climb, read, how.precision)
        codes, alive = _starts(members, objective, look, how.start, how.device, attempt)
        start_scores = _measured(codes, objective, look).scores
        for step in range(climb.steps):
            shown, score, gradient = _ascent(codes, objective, look, shifts[step], state.going)
            moved = codes + rule(gradient, climb.rate_at(step))
            if climb.cycle:
                moved = moved + climb.cycle * (encoded(shown) - codes)
            codes = state.after(step, score, gradient, codes, prior(moved))
            if how.every_frame and step % how.every_frame == 0:
                state.frames.append(shown.float().clamp(0, 1).cpu())
            report(len(members))
        end, last_scores, at = _kept(codes, objective, look, state)
    statuses = state.statuses(alive, end.scores, start_scores)
    result = PreferredInputs(
        tuple(members),
        end.images,
        end.codes.cpu(),
        end.scores,
        start_scores,
        state.curves,
        statuses,
        at,
        last_scores,
        torch.stack(state.frames) if state.frames else None,
    )
    return result, [
        i
        for i, status in enumerate(statuses)
        if status == NOT_ABOVE or (status == "climbed" and end.faint[i] and climb.steps)
    ]


def _with_higher(
    result: PreferredInputs, tried: Sequence[int], again: PreferredInputs
) -> PreferredInputs:
    """Return the result with those of the members that tried again and came higher."""
    higher = (again.scores > result.scores[list(tried)]).nonzero().flatten().tolist()
    if not higher:
        return result
    into, statuses = [tried[j] for j in higher], list(result.statuses)

    def merged(name: str, axis: int = 0) -> Tensor:
        new = getattr(again, name).index_select(axis, torch.tensor(higher))
        old: Tensor = getattr(result, name)
        return old.clone().index_copy_(axis, torch.tensor(into), new)

    for i, j in zip(into, higher, strict=True):
        statuses[i] = again.statuses[j]
    names = ("images", "codes", "scores", "start_scores", "curves", "kept", "last_scores")
    better: dict[str, Any] = {name: merged(name) for name in names}
    if result.frames is not None:
        better["frames"] = merged("frames", 1)
    return replace(result, statuses=tuple(statuses), **better)


def joined(results: Sequence[PreferredInputs]) -> PreferredInputs:
    """Several batches' results as one."""

    def together(name: str) -> Tensor:
        return torch.cat([getattr(result, name) for result in results])

    frames = [result.frames for result in results if result.frames is not None]
    return PreferredInputs(
        tuple(m for r in results for m in r.members),
        together("images"),
        together("codes"),
        together("scores"),
        together("start_scores"),
        together("curves"),
        tuple(s for r in results for s in r.statuses),
        together("kept"),
        together("last_scores"),
        torch.cat(frames, 1) if frames else None,
        tuple(record for result in results for record in result.records),
    )


def tiles(result: PreferredInputs) -> tuple[list[pictures.Pixels], list[str]]:
    """Return pictures and two-line labels for a contact sheet.

    A dead unit is a crossed-out tile, not a grey picture.
    """
    shown, labels = [], []
    for i, member in enumerate(result.members):
        shown.append(result.picture(i))
        note = result.statuses[i] if result.statuses[i] != "climbed" else f"{result.scores[i]:.2f}"
        labels.append(
            f"{member.target.label or member.target}\n{note}"
            + (f" · seed {member.seed}" if member.seed else "")
        )
    return shown, labels


@dataclass
class _State:
    """What is noted while a batch climbs: scores by step, and who stopped where."""

    n: int
    steps: int
    stopped: dict[int, int] = field(default_factory=dict)
    frames: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.curves = torch.full((self.n, self.steps), float("nan"))
        self.ever = torch.zeros(self.n, dtype=torch.bool)
        self.best: Tensor | None = None
        self.best_at = torch.full((self.n,), self.steps)
        self.best_codes: Tensor | None = None

    @property
    def going(self) -> list[int]:
        """Who has not stopped."""
        return [i for i in range(self.n) if i not in self.stopped]

    def after(
        self, step: int, score: Tensor, gradient: Tensor, codes: Tensor, moved: Tensor
    ) -> Tensor:
        """Return the next codes.

        A member with a number that is not finite stays where it was, for good.
        """
        flat = gradient.flatten(1)
        fine = score.isfinite() & flat.isfinite().all(1) & moved.flatten(1).isfinite().all(1)
        for i in (~fine).nonzero().flatten().tolist():
            self.stopped.setdefault(i, step)
        self.ever |= (flat != 0).any(1).cpu()
        self.curves[:, step] = score.cpu()
        self._note_best(step, score, codes)
        keep = torch.tensor([i not in self.stopped for i in range(self.n)], device=codes.device)
        return torch.where(_rows(keep, codes), moved, codes)

    def _note_best(self, step: int, score: Tensor, codes: Tensor) -> None:
        if self.best is None or self.best_codes is None:
            self.best, self.best_codes = torch.full_like(score, -torch.inf), codes
        better = score.isfinite() & (score > self.best)
        self.best = torch.where(better, score, self.best)
        self.best_codes = torch.where(_rows(better, codes), codes, self.best_codes)
        self.best_at[better.cpu()] = step

    def statuses(self, alive: list[bool], scores: Tensor, starts: Tensor) -> tuple[str, ...]:
        def status(i: int) -> str:
            if i in self.stopped:
                return f"stopped: not a finite number at step {self.stopped[i]}"
            if not bool(scores[i].isfinite()):
                return "stopped: the score is not a finite number"
            if not self.steps:
                return "climbed"
            if not (alive[i] or self.ever[i]):
                return "dead"
            return "climbed" if bool(scores[i] > starts[i]) else NOT_ABOVE

        return tuple(status(i) for i in range(self.n))


@dataclass(frozen=True, eq=False)
class _Look:
    """How the subject is shown an image during a climb."""

    subject: Subject
    parameterization: Parameterization
    climb: Climb
    read: Read
    kind: str

    def precision(self) -> AbstractContextManager[Any]:
        device = device_of(self.subject.network).type
        return torch.autocast(device, torch.bfloat16) if self.kind == "bfloat16" else nullcontext()

    def at(
        self, images: Tensor, shifts: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        return self.read(
            self.subject.prepare(
                blurred(center_crop(images, self.parameterization.seen, shifts), self.climb.blur)
            )
        )

    def smooth(self, scores: list[Tensor], images: Tensor) -> list[Tensor]:
        """Return the scores less what the images' total variation costs."""
        if not self.climb.tv:
            return scores
        rough = self.climb.tv * total_variation(images) * len(images[0, 0])
        return [score - each for score, each in zip(scores, rough, strict=True)]

    def plainly(self, images: Tensor) -> dict[str, Tensor]:
        """As `at`, without the climb's blur and shifts: how a picture is measured."""
        return self.read(self.subject.prepare(center_crop(images, self.parameterization.seen)))


def _ascent(
    codes: Tensor,
    objective: Objective,
    look: _Look,
    shifts: Sequence[tuple[int, int]] | None,
    going: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the images of codes, the scores that the climb follows, and their gradient.

    The gradient has the shape of `codes`.
    """
    codes = codes.detach().requires_grad_()
    with look.precision():
        shown = look.parameterization.images(codes)
        scores = objective(look.at(shown, shifts))
        followed = look.smooth(scores, shown)
    if not look.climb.redirect:
        gradient = _gradient(followed, codes, going)
    else:
        gradient = _gradient(scores, codes, going)
        gradient = _opened(gradient, codes, objective, look, shifts, going)
        if look.climb.tv:
            rough = [after - before for after, before in zip(followed, scores, strict=True)]
            gradient = gradient + _gradient(rough, codes, going)
    return shown.detach(), torch.stack(followed).detach(), gradient


def _opened(
    gradient: Tensor,
    codes: Tensor,
    objective: Objective,
    look: _Look,
    shifts: Sequence[tuple[int, int]] | None,
    going: Sequence[int],
) -> Tensor:
    """Return the gradient; of members that have none, the one that shut ReLUs kept back."""
    moves = _moves(gradient)
    shut = [i for i in going if not moves[i]]
    if not shut:
        return gradient
    some = codes[shut].detach().requires_grad_()
    with look.precision():
        shown = look.parameterization.images(some)
        with redirected():
            seen = look.at(shown, [shifts[i] for i in shut] if shifts else None)
            scores = objective.of(shut)(seen)
    gradient = gradient.clone()
    gradient[shut] = _gradient(scores, some, range(len(shut)))
    return gradient


@dataclass(frozen=True, eq=False)
class _Measured:
    """Codes, their 8-bit images and, in float32 on those, the targets' activations.

    `followed` is what a climb would follow there; `faint` says whose unit answers less than its
    layer's other channels do. All but the codes lie on the CPU.
    """

    codes: Tensor
    images: Tensor
    scores: Tensor
    followed: Tensor
    faint: Tensor


def _measured(codes: Tensor, objective: Objective, look: _Look) -> _Measured:
    with torch.no_grad():
        images = (look.parameterization.images(codes).clamp(0, 1) * 255).round() / 255
        activations = look.plainly(images)
        scores = objective.scores(activations)
        followed = torch.stack(look.smooth(objective(activations), images))
        faint = torch.tensor(objective.faint(activations))
    return _Measured(codes, images.float().cpu(), scores.cpu(), followed.cpu(), faint)


def _kept(
    codes: Tensor, objective: Objective, look: _Look, state: _State
) -> tuple[_Measured, Tensor, Tensor]:
    """Return what is kept of each climb, the scores of the last codes, and the steps kept.

    On the way a score is of a moving, blurred or unrounded image; so the best code and the last one
    are both measured on their 8-bit pictures, and the better is kept.
    """
    last, at = _measured(codes, objective, look), torch.full((len(codes),), state.steps)
    if look.climb.keep == "last" or state.best_codes is None:
        return last, last.scores, at
    best = _measured(state.best_codes, objective, look)
    better = best.followed > last.followed

    def chosen(name: str) -> Tensor:
        one, other = getattr(best, name), getattr(last, name)
        return torch.where(_rows(better.to(one.device), one), one, other)

    kept = _Measured(*(chosen(name) for name in _Measured.__annotations__))
    return kept, last.scores, torch.where(better, state.best_at, at)


def _starts(
    members: Sequence[Member],
    objective: Objective,
    look: _Look,
    start: str | Tensor,
    device: str,
    attempt: int,
) -> tuple[Tensor, list[bool]]:
    """Return start codes (n, …), and for each member whether it has a gradient there.

    A random start without a gradient is drawn again.
    """
    parameterization, n = look.parameterization, len(members)
    if isinstance(start, Tensor):
        side = parameterization.image_size
        if start.shape != (3, side, side):
            raise BadRequest(f"a start image must be (3, {side}, {side}); got {tuple(start.shape)}")
        code = encode(parameterization, start.to(device), look.subject.name)
        batch = torch.stack([code] * n)
    elif start == "mean":
        batch = torch.stack([parameterization.mean()] * n).to(device)
    elif start == "random":
        return _random_starts(members, objective, look, device, attempt)
    else:
        raise BadRequest(f"no start {start!r}; there are: random, mean, or an image")
    found = _promises(batch, objective, look)
    _check_gradient([m.target for m, p in zip(members, found, strict=True) if not p.climbs], look)
    return batch, [promise.climbs for promise in found]


STARTS = 8
"""Random starts from which each try takes the most promising one."""


def _random_starts(
    members: Sequence[Member], objective: Objective, look: _Look, device: str, attempt: int
) -> tuple[Tensor, list[bool]]:
    """Return a start for each member, and whether the member can climb from there.

    It is the first of the member's random starts that its unit answers. Where the unit answers none
    of them, it is the one at which the unit comes nearest to an answer.
    """
    first = attempt * STARTS

    def drawn(some: Sequence[int], number: int) -> Tensor:
        seeds = [members[i].seed + number * 1_000_003 for i in some]
        codes = [_drawn(look.parameterization, seed, look.climb) for seed in seeds]
        return torch.stack(codes).to(device)

    waiting = list(range(len(members)))
    batch = drawn(waiting, first)
    found = _promises(batch, objective, look)
    _check_gradient([m.target for m, p in zip(members, found, strict=True) if not p.climbs], look)
    for number in range(first + 1, first + STARTS):
        waiting = [i for i in waiting if not found[i].answers]
        if not waiting:
            break
        again = drawn(waiting, number)
        promises = _promises(again, objective.of(waiting), look)
        for i, code, promise in zip(waiting, again, promises, strict=True):
            if promise > found[i]:
                batch[i], found[i] = code, promise
    return batch, [promise.climbs for promise in found]


@dataclass(frozen=True, order=True)
class _Promise:
    """What a start holds out: does the unit answer it, can it climb from it, and how near is it?"""

    answers: bool
    climbs: bool
    value: float


def _promises(codes: Tensor, objective: Objective, look: _Look) -> list[_Promise]:
    """Return what each start holds out.

    A gradient that is not finite counts: the climb reports it.
    """
    codes, everyone = codes.detach().requires_grad_(), range(len(codes))
    activations = look.plainly(look.parameterization.images(codes))
    followed = objective(activations)
    try:
        gradient = _gradient(followed, codes, everyone)
    except RuntimeError:
        _check_gradient(objective.targets, look)
        raise
    moves = _moves(gradient)
    if not look.climb.redirect:  # version 0.1.0 asked for no more than a gradient
        return [_Promise(each, each, 0.0) for each in moves]
    climbs = _moves(_opened(gradient, codes, objective, look, None, everyone))
    values = torch.stack(followed).tolist()
    shut = objective.shut(activations)
    return [_Promise(moves[i] and not shut[i], climbs[i], values[i]) for i in everyone]


def _moves(gradient: Tensor) -> list[bool]:
    """Return, for each member, whether its gradient is not zero."""
    found: list[bool] = (gradient.flatten(1) != 0).any(1).tolist()
    return found


def _drawn(parameterization: Parameterization, seed: int, climb: Climb) -> Tensor:
    """A random start; the paper's N(0, 1) is in the units of its code."""
    if climb.start == "normal":
        return parameterization.start(seed, normal=True) * _paper_unit(parameterization)
    return parameterization.start(seed)


def _paper_unit(parameterization: Parameterization) -> float:
    """Return how large one unit of the paper's code is in this one.

    That is the ratio of the mean standard deviations.
    """
    if not isinstance(parameterization, Generated):
        return 1.0
    return float(parameterization.statistics.std.mean()) / PAPER_SIGMA


def _check_gradient(targets: Sequence[Target], look: _Look) -> None:
    """Refuse a target with `BadRequest` where no gradient comes through from its layer."""
    look.subject.check_gradient({layer for target in targets for layer in target.layers})


def _gradient(scores: Sequence[Tensor], codes: Tensor, going: Sequence[int]) -> Tensor:
    """Return each member's gradient, (batch, …).

    One that is not finite is taken again without the other members: a member's zero gradient still
    runs through every layer that the batch needs, and 0 · NaN is NaN. A score that no code reaches
    has a gradient of zero.
    """
    reached = [i for i in going if scores[i].requires_grad]
    if not reached:
        return torch.zeros_like(codes)

    def of(
        some: Sequence[Tensor],
    ) -> Tensor:  # which may need one for the network's own weights alone
        return torch.autograd.grad(
            some, codes, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]

    gradient = of([scores[i] for i in reached])
    wrong = (~gradient.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    for i in set(wrong).intersection(reached):
        gradient[i] = of([scores[i]])[i]
    return gradient


def _shifts(
    members: Sequence[Member], climb: Climb, parameterization: Parameterization
) -> Sequence[list[tuple[int, int]] | None]:
    """For each step, each member's own shift of the crop; a function of its seed alone."""
    room = min(climb.shift, (parameterization.image_size - parameterization.seen) // 2)
    if not room:
        return [None] * climb.steps
    drawn = [
        torch.randint(
            -room, room + 1, (climb.steps, 2), generator=torch.Generator().manual_seed(member.seed)
        ).tolist()
        for member in members
    ]
    return [[(row[step][0], row[step][1]) for row in drawn] for step in range(climb.steps)]


def _prior(climb: Climb, parameterization: Parameterization) -> Prior:
    if climb.prior == "none" or not isinstance(parameterization, Generated):
        return Free(climb.decay)
    box = paper_box(parameterization.statistics, climb.sigmas, climb.decay)
    return (
        box
        if climb.prior == "box"
        else Gaussian(parameterization.statistics, 1 - climb.decay, box.upper, box.lower)
    )


Rule = Callable[[Tensor, float], Tensor]
"""From a gradient (batch, …) and a step size to the step."""


def _mean_rule(parameterization: Parameterization) -> Rule:
    """The paper's: the gradient over its mean magnitude, in units of the paper's code."""
    unit = _paper_unit(parameterization)

    def step(gradient: Tensor, rate: float) -> Tensor:
        return rate * unit * gradient / _each(gradient.abs().flatten(1).mean(1), gradient)

    return step


def _whitened_rule(parameterization: Parameterization) -> Rule:
    """Return the rule of the steepest ascent where natural codes are white.

    It steps along Σ·gradient, with a root mean square of `rate` there.
    """
    statistics = parameterization.statistics if isinstance(parameterization, Generated) else None

    def step(gradient: Tensor, rate: float) -> Tensor:
        if statistics is None:
            raise BadRequest("the whitened rule needs a generator's code statistics")
        white = statistics.whitened(gradient, 1.0)
        white = white / _each(white.square().flatten(1).mean(1).sqrt(), gradient)
        return rate * statistics.whitened(white, 1.0)

    return step


def _adam_rule(parameterization: Parameterization) -> Rule:
    """Adam (Kingma & Ba 2015), upwards, with its usual constants."""
    first, second, count = torch.zeros(()), torch.zeros(()), 0

    def step(gradient: Tensor, rate: float) -> Tensor:
        nonlocal first, second, count
        count += 1
        first = 0.9 * first.to(gradient.device) + 0.1 * gradient
        second = 0.999 * second.to(gradient.device) + 0.001 * gradient.square()
        return rate * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)

    return step


RULES: dict[str, Callable[[Parameterization], Rule]] = {
    "mean": _mean_rule,
    "whitened": _whitened_rule,
    "adam": _adam_rule,
}


def _each(values: Tensor, like: Tensor) -> Tensor:
    """Return one value for each member, shaped to divide `like`; never zero."""
    return _rows(values.clamp(min=torch.finfo(torch.float32).tiny * 1e8), like)


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Return one value for each member, shaped to meet `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))
