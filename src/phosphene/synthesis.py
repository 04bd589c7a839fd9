"""The climb: from a start code to the input that a unit prefers. The main loop of phosphene lives here."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from phosphene import images as pictures
from phosphene.encoders import encode, encoding
from phosphene.errors import BadRequest
from phosphene.objectives import Kind, Objective
from phosphene.parameterizations import Fourier, Generated, Parameterization, Pixels, load_generated
from phosphene.priors import Free, Gaussian, Prior, paper_box
from phosphene.probe import Read, borrowed, lost_gradient
from phosphene.subjects import MOST_TARGETS, Subject, load_subject, wrap
from phosphene.tensors import blurred, center_crop, device_of, total_variation
from phosphene.units import Target

PAPER_SIGMA = 3.74
"""Mean standard deviation of the paper's code (CaffeNet fc6), the unit of its step sizes (method: §2)."""


MOST_SEED = 2**53
"""As large a whole number as every reader of JSON keeps."""

PRECISIONS = ("float32", "bfloat16")

_CHOICES = {
    "rule": ("mean", "whitened", "adam"),
    "objective": ("activation", "probability"),
    "prior": ("box", "gaussian", "none"),
    "start": ("gaussian", "normal"),
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
}
"""Of each number of a `Climb`: its type and the largest that makes sense; none is below 0."""


@dataclass(frozen=True)
class Climb:
    """How to climb. Step sizes fall linearly from `rate` to `last_rate` over `steps`.

    `rule` "mean": gradient over its mean magnitude, in the paper's code units (Nguyen et al. 2016); "whitened":
    in coordinates where natural codes are white, of root mean square `rate`; "adam": Adam on the codes.
    `prior` "box": 0 … μ + `sigmas`·σ, then × `decay`; "gaussian": × `decay` towards the mean, then that box;
    "none": × `decay` (of pixels and Fourier towards grey). `start`: a random start is drawn from the code's Gaussian,
    or from N(0, 1) in the paper's code units.
    `cycle`: the share of the way to E(G(code)) taken at each step (PPGN's ε₁, Nguyen et al. 2017). `shift`: the
    crop moves by up to so many pixels at each step. `tv`, `blur` (pixels): for parameterizations without a
    learned prior.
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

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise BadRequest(
                    f"no {name} {getattr(self, name)!r}; there are: {', '.join(allowed)}"
                )
        for name, (kind, most) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, (int, kind)) or not 0 <= value <= most:
                raise BadRequest(
                    f"--{name.replace('_', '-')} must be a number in 0 … {most:,}; got {value!r}"
                )
        if not self.decay:
            raise BadRequest("--decay must lie above 0; 1 is none")

    def rate_at(self, step: int) -> float:
        """The step size of step 0 … steps − 1; `last_rate` lies one step beyond, as in the 2016 code (act_max.py)."""
        share = step / max(1, self.steps)
        return self.rate + (self.last_rate - self.rate) * share


CLIMBS: dict[str, Climb] = {
    "default": Climb(decay=0.98),
    "paper": Climb(steps=200, rate=8.0, last_rate=1e-10, rule="mean", prior="box", start="normal"),
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
"""Settings by name: ours, the paper's as coded (method: §2), and the two for baselines without a learned prior."""


@dataclass(frozen=True)
class Member:
    """One climb of a batch: what for, and from which seed."""

    target: Target
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MOST_SEED:
            raise BadRequest(f"seeds lie in 0 … {MOST_SEED:,}; got {self.seed}")


@dataclass(frozen=True, eq=False)
class PreferredInputs:
    """What a climb returns, one entry for each member.

    `images` float32 RGB in [0, 1] (n, 3, size, size), as an 8-bit picture holds them; `codes` (n, …); `scores`
    and `start_scores`: each target's activation on the picture and on the start, measured in float32 on the
    8-bit pixels; `curves` (n, steps) the objective at each step; `statuses`: "climbed", "dead" (no start had
    a gradient) or "stopped: …"; `frames` (frames, n, 3, size, size) where an animation was asked for.
    """

    members: tuple[Member, ...]
    images: Tensor
    codes: Tensor
    scores: Tensor
    start_scores: Tensor
    curves: Tensor
    statuses: tuple[str, ...]
    frames: Tensor | None = None

    def __len__(self) -> int:
        return len(self.members)

    def sheet(self, columns: int = 8) -> pictures.Pixels:
        """All pictures in a grid, labelled with target and score."""
        return pictures.contact_sheet(*tiles(self), columns=columns)

    def _repr_png_(self) -> bytes:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.sheet()).save(buffer, "png")
        return buffer.getvalue()


def synthesize(
    subject: Subject | nn.Module | str,
    units: str | Sequence[str | Target],
    *,
    prior: str | Parameterization = "objects-fc6",
    climb: str | Climb = "default",
    seeds: Sequence[int] = (0,),
    start: str | Tensor = "random",
    size: tuple[int, int] = (224, 224),
    device: str = "cpu",
    precision: str = "float32",
    batch: int = 32,
    every_frame: int = 0,
) -> PreferredInputs:
    """The preferred inputs of units of any network.

    `subject`: a bundled or external name, a `Subject`, or any `nn.Module` that reads `size` pixels with
    ImageNet's usual normalisation (`phosphene.wrap` sets another). `units`: texts such as "conv5:0-31",
    "class:lion" (see `phosphene.units`). `prior`: a generator's name, "pixels" or "fourier". `start`:
    "random", "mean", or an image (3, height, width) in [0, 1] of the parameterization's size.

        >>> phosphene.synthesize("caffenet-objects", ["class:lion", "conv5:7"])
    """
    if isinstance(subject, str):
        subject = load_subject(subject)
    network = subject.network if isinstance(subject, Subject) else subject
    with (
        borrowed(network) if isinstance(network, nn.Module) else nullcontext()
    ):  # what is none is refused by wrap
        if not isinstance(subject, Subject):
            subject = wrap(subject, size=size)
        wanted: list[Target] = []
        for unit in [units] if isinstance(units, str) else units:
            wanted += subject.targets(unit) if isinstance(unit, str) else [unit]
        parameterization = load_parameterization(prior, subject)
        members = [Member(target, seed) for target in wanted for seed in seeds]
        results = list(
            climb_all(
                subject,
                members,
                parameterization,
                settings(climb, parameterization),
                start=start,
                device=device,
                precision=precision,
                batch=batch,
                every_frame=every_frame,
            )
        )
    return joined(results)


def load_parameterization(prior: str | Parameterization, subject: Subject) -> Parameterization:
    """A parameterization by name: "pixels", "fourier" (both with an eighth of margin), or a generator's."""
    if isinstance(prior, Parameterization):
        return prior
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
    climb = replace(climb, **{name: value for name, value in changes.items() if value is not None})
    if not isinstance(parameterization, Generated) and (
        climb.rule != "adam" or climb.prior != "none"
    ):
        raise BadRequest(
            "that climb moves in a generator's code; for pixels and fourier use --climb default"
        )
    if 3 * climb.blur > parameterization.seen - 2:
        raise BadRequest(
            f"--blur {climb.blur:g} is too wide for the {parameterization.seen} pixels that are seen"
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
    """Climb any number of members, `batch` at a time, or as many as the subject takes; what is yielded is finished.
    `report` hears of steps done."""
    check(members)
    batch = subject.at_most(batch)
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


def check(members: Sequence[Member]) -> None:
    """Refuse an empty list of members, and one so long that it must be a slip."""
    if not members:
        raise BadRequest("no units given; for example class:lion or conv5:0-31")
    if len(members) > MOST_TARGETS:
        raise BadRequest(
            f"{len(members):,} pictures in one call; at most {MOST_TARGETS:,} are taken"
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

    `steps` forward and backward passes; one of each to see who can start (again, up to seven times, where a member
    cannot); two forward passes that measure the start and the end.
    """
    if precision not in PRECISIONS:
        raise BadRequest(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    subject = replace(subject, network=subject.network.to(device))
    parameterization = parameterization.to(device)
    objective = Objective([member.target for member in members], climb.objective)
    prior, rule = _prior(climb, parameterization), RULES[climb.rule](parameterization)
    shifts = _shifts(members, climb, parameterization)
    state = _State(len(members), climb.steps)
    again = (
        encoding(parameterization, device, subject.name)
        if climb.cycle
        else nullcontext(lambda images: images)
    )
    with subject.reading(objective.layers) as read, again as encoded:
        look = _Look(subject, parameterization, climb, read, precision)
        codes, alive = _starts(members, objective, look, start, device)
        start_scores = _measure(codes, objective, look)[1]
        for step in range(climb.steps):
            codes = codes.detach().requires_grad_()
            with look.precision():
                shown = parameterization.images(codes)
                followed = objective(look.at(shown, shifts[step] if shifts else None))
                if climb.tv:
                    rough = climb.tv * total_variation(shown) * len(shown[0, 0])
                    followed = [score - each for score, each in zip(followed, rough, strict=True)]
            gradient = _gradient(followed, codes, state.going)
            codes, shown, score = codes.detach(), shown.detach(), torch.stack(followed).detach()
            moved = codes + rule(gradient, climb.rate_at(step))
            if climb.cycle:
                moved = moved + climb.cycle * (encoded(shown) - codes)
            moved = prior(moved)
            codes = state.after(step, score, gradient, codes, moved)
            if every_frame and step % every_frame == 0:
                state.frames.append(shown.float().clamp(0, 1).cpu())
            report(len(members))
        images, scores = _measure(codes, objective, look)
    return PreferredInputs(
        tuple(members),
        images,
        codes.cpu(),
        scores,
        start_scores,
        state.curves,
        state.statuses(alive, scores),
        torch.stack(state.frames) if state.frames else None,
    )


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
        torch.cat(frames, 1) if frames else None,
    )


def tiles(result: PreferredInputs) -> tuple[list[pictures.Pixels], list[str]]:
    """Pictures and two-line labels for a contact sheet; a dead unit is a crossed-out tile, not a grey picture."""
    shown, labels = [], []
    for i, member in enumerate(result.members):
        dead = result.statuses[i] == "dead"
        pixels = pictures.to_pixels(result.images[i].numpy())
        shown.append(pictures.crossed_out(pixels) if dead else pixels)
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

    @property
    def going(self) -> list[int]:
        """Who has not stopped."""
        return [i for i in range(self.n) if i not in self.stopped]

    def after(
        self, step: int, score: Tensor, gradient: Tensor, codes: Tensor, moved: Tensor
    ) -> Tensor:
        """The next codes: a member with a number that is not finite stays where it was, for good."""
        flat = gradient.flatten(1)
        fine = score.isfinite() & flat.isfinite().all(1) & moved.flatten(1).isfinite().all(1)
        for i in (~fine).nonzero().flatten().tolist():
            self.stopped.setdefault(i, step)
        self.ever |= (flat != 0).any(1).cpu()
        self.curves[:, step] = score.cpu()
        keep = torch.tensor([i not in self.stopped for i in range(self.n)], device=codes.device)
        return torch.where(keep.view(-1, *[1] * (codes.ndim - 1)), moved, codes)

    def statuses(self, alive: list[bool], scores: Tensor) -> tuple[str, ...]:
        def status(i: int) -> str:
            if i in self.stopped:
                return f"stopped: not a finite number at step {self.stopped[i]}"
            if not bool(scores[i].isfinite()):
                return "stopped: the score is not a finite number"
            return "dead" if self.steps and not (alive[i] or self.ever[i]) else "climbed"

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

    def plainly(self, images: Tensor) -> dict[str, Tensor]:
        """As `at`, without the climb's blur and shifts: how a picture is measured."""
        return self.read(self.subject.prepare(center_crop(images, self.parameterization.seen)))


def _measure(codes: Tensor, objective: Objective, look: _Look) -> tuple[Tensor, Tensor]:
    """The 8-bit images of codes, on the CPU, and their targets' activations in float32."""
    with torch.no_grad():
        images = (look.parameterization.images(codes).clamp(0, 1) * 255).round() / 255
        scores = objective.scores(look.plainly(images))
    return images.float().cpu(), scores.cpu()


def _starts(
    members: Sequence[Member],
    objective: Objective,
    look: _Look,
    start: str | Tensor,
    device: str,
    tries: int = 8,
) -> tuple[Tensor, list[bool]]:
    """Start codes (n, …), and who has a gradient there; a random start without one is drawn again."""
    parameterization = look.parameterization

    def drawn(attempt: int) -> Tensor:
        codes = [
            _drawn(parameterization, member.seed + attempt * 1_000_003, look.climb)
            for member in members
        ]
        return torch.stack(codes).to(device)

    if isinstance(start, Tensor):
        side = parameterization.image_size
        if start.shape != (3, side, side):
            raise BadRequest(f"a start image must be (3, {side}, {side}); got {tuple(start.shape)}")
        batch = torch.stack(
            [encode(parameterization, start.to(device), look.subject.name)] * len(members)
        )
    elif start == "mean":
        batch = torch.stack([parameterization.mean()] * len(members)).to(device)
    elif start == "random":
        batch = drawn(0)
    else:
        raise BadRequest(f"no start {start!r}; there are: random, mean, or an image")
    alive = _has_gradient(batch, objective, look)
    _check_gradient([m.target for m, lives in zip(members, alive, strict=True) if not lives], look)
    for attempt in range(1, tries if start == "random" and not all(alive) else 1):
        again = drawn(attempt)
        better = _has_gradient(again, objective, look)
        for i, (was, now) in enumerate(zip(alive, better, strict=True)):
            if now and not was:
                batch[i], alive[i] = again[i], True
        if all(alive):
            break
    return batch, alive


def _drawn(parameterization: Parameterization, seed: int, climb: Climb) -> Tensor:
    """A random start; the paper's N(0, 1) is in the units of its code."""
    if climb.start == "normal":
        return parameterization.start(seed, normal=True) * _paper_unit(parameterization)
    return parameterization.start(seed)


def _paper_unit(parameterization: Parameterization) -> float:
    """How large one unit of the paper's code is in this one: the ratio of mean standard deviations."""
    if not isinstance(parameterization, Generated):
        return 1.0
    return float(parameterization.statistics.std.mean()) / PAPER_SIGMA


def _has_gradient(codes: Tensor, objective: Objective, look: _Look) -> list[bool]:
    """Who can climb from here. A gradient that is not finite counts: the climb reports it."""
    codes = codes.detach().requires_grad_()
    scores = objective(look.plainly(look.parameterization.images(codes)))
    try:
        flat = _gradient(scores, codes, range(len(codes))).flatten(1)
    except RuntimeError:
        _check_gradient(objective.targets, look)
        raise
    return ((flat != 0).any(1) | ~flat.isfinite().all(1)).tolist()


def _check_gradient(targets: Sequence[Target], look: _Look) -> None:
    """`BadRequest` where no gradient comes through the network from a target's layer."""
    subject, size = look.subject, look.subject.size
    device = device_of(subject.network)
    drawn = torch.rand(subject.at_most(2), 3, *size, generator=torch.Generator().manual_seed(0))
    for layer in sorted({layer for target in targets for layer in target.layers}):
        with torch.enable_grad():
            shown = subject.prepare(drawn.to(device))
            where = lost_gradient(subject.network, shown, layer)
        if where:
            raise BadRequest(
                f"no gradient comes through {subject.name} from {layer} to the image: it is lost "
                f"{where}; no_grad, detach, rounding, quantization and checkpointing with "
                "use_reentrant=True cut it"
            )


def _gradient(scores: Sequence[Tensor], codes: Tensor, going: Sequence[int]) -> Tensor:
    """Each member's gradient, (batch, …); one that is not finite is taken again without the other members.

    A member's zero gradient still runs through every layer that the batch needs, and 0 · NaN is NaN. A score that
    no code reaches has a gradient of zero.
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
) -> list[list[tuple[int, int]]]:
    """For each step, each member's own shift of the crop; a function of its seed alone."""
    room = min(climb.shift, (parameterization.image_size - parameterization.seen) // 2)
    if not room:
        return []
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
        else Gaussian(parameterization.statistics, 1 - climb.decay, box.upper)
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
    """The steepest ascent where natural codes are white: along Σ·gradient, of root mean square `rate` there."""
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
    """One value for each member, shaped to divide `like`; never zero."""
    return values.clamp(min=torch.finfo(torch.float32).tiny * 1e8).view(-1, *[1] * (like.ndim - 1))
