"""The climb: from a start code to the input that a unit prefers.

The main loop of phosphene lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from phosphene.errors import BadRequest
from phosphene.objectives import Objective, make_objective
from phosphene.optimizers import Optimizer
from phosphene.priors import Encode, Prior
from phosphene.subjects import MAX_TARGETS, Subject
from phosphene.synthesis.climb import Climb
from phosphene.synthesis.diverse import set_size, with_sets
from phosphene.synthesis.progress import Progress
from phosphene.synthesis.results import NOT_ABOVE, Member, PreferredInputs, upright, with_higher
from phosphene.synthesis.starts import start_codes
from phosphene.synthesis.view import (
    TOGETHER,
    Ascent,
    Measured,
    Shifts,
    View,
    cast_once,
    groups,
    measured,
    scored,
)

PRECISIONS = ("float32", "bfloat16")
"""The types of numbers that networks may compute in."""

MAX_AT_ONCE = 4096
"""Pictures of a batch; more are taken for a slip."""

Report = Callable[[int], None]
"""Called with the number of steps that are done, of all members together."""


def silent(steps: int) -> None:
    """Show nothing."""


def climb_all(
    subject: Subject,
    members: Sequence[Member],
    prior: Prior,
    climb: Climb,
    *,
    batch: int = 32,
    **how: Any,
) -> Iterator[PreferredInputs]:
    """Climb any number of members and yield each batch's result once it is finished.

    A batch has `batch` members, or as many as the subject takes. `how` is as for `climb_batch`.
    """
    check(members)
    batch = subject.at_most(set_size(members, climb, checked_batch(batch)))
    for at in range(0, len(members), batch):
        yield climb_batch(subject, members[at : at + batch], prior, climb, **how)


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


def checked_precision(precision: str) -> str:
    """Return the name of a precision; `BadRequest` where it is none."""
    if precision not in PRECISIONS:
        raise BadRequest(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
    return precision


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
    prior: Prior,
    climb: Climb,
    *,
    start: str | Tensor = "random",
    device: str = "cpu",
    precision: str = "float32",
    every_frame: int = 0,
    report: Report = silent,
    bound: bool = False,
) -> PreferredInputs:
    """Climb one batch; each member climbs as it would alone, unless `climb.share` makes sets.

    `start` is "random", "mean" or an image (channels, height, width). `report` hears of steps done.

    A member's bits depend on the size of the batch, but not on its place nor on the other members:
    passes that only some members take have `TOGETHER` members, the last of them copies. With
    `bound` these passes have as many members as need them. Version 0.1.0 climbed so.

    The climb takes `steps` forward and backward passes; one of each to see who can start (again, up
    to seven times, for members that cannot); two forward passes that measure the start and the end,
    and a third for the best code. Members whose gradient vanishes, or that must try again, take
    passes of their own.
    """
    device = checked_device(device)
    subject = replace(subject, network=subject.network.to(device))
    prior = prior.to(device)
    if climb.lower == "zero":
        prior = prior.above_zero()
    precision = checked_precision(precision)
    together = 0 if bound or climb.share else min(len(members), TOGETHER)
    setup = _Setup(
        subject, prior, climb.completed(), start, device, precision, every_frame, together
    )
    result, failed = _climb_once(setup, members, 0, report)
    for attempt in range(1, climb.tries if isinstance(start, str) and start == "random" else 1):
        if not failed:
            break
        still = []
        for some in groups(failed, together):
            again, lost = _climb_once(setup, [members[i] for i in some], attempt, silent)
            own = list(dict.fromkeys(some))  # copies stand last
            result = with_higher(result, own, again[: len(own)])
            still += [own[j] for j in lost if j < len(own)]
        failed = still
    if climb.share:
        result = with_sets(result, subject, prior, setup.climb, device, precision)
    return upright(result)


@dataclass(frozen=True, eq=False)
class _Setup:
    """All that decides a batch's climb but its members. Everything is on the device."""

    subject: Subject
    prior: Prior
    climb: Climb
    start: str | Tensor
    device: str
    precision: str
    every_frame: int
    together: int

    def encoding(self) -> AbstractContextManager[Encode]:
        """Lend the function from pictures to their own codes, which only `cycle` needs."""
        if self.climb.cycle:
            return self.prior.encoding(self.device, self.subject.name)
        return nullcontext(lambda images: images)


def _climb_once(
    setup: _Setup, members: Sequence[Member], attempt: int, report: Report
) -> tuple[PreferredInputs, list[int]]:
    """Climb once, from the starts of this attempt; return the result and who failed.

    This is the main loop of phosphene. Codes are (members, candidates, *code).
    """
    climb = setup.climb
    prior = setup.prior
    n = len(members)
    part, options = climb.make("objective")
    objective = make_objective(part, [member.target for member in members], **options)
    optimizer = climb.make_optimizer()
    constrained = climb.make_constraint().fit(prior.statistics)
    shifts = _shifts(members, climb, prior)
    progress = Progress(n, climb.steps)
    project = climb.stimulus.fit(setup.subject, prior)
    with (
        setup.subject.reading(objective.layers) as read,
        setup.encoding() as encoded,
        ExitStack() as casts,
    ):
        view = View(
            setup.subject,
            prior,
            climb,
            read,
            setup.device,
            setup.precision,
            project,
            setup.together,
        )
        casts.enter_context(cast_once(view, n))
        codes, alive = start_codes(
            members, objective, view, setup.start, attempt, optimizer.uses_gradient
        )
        start_scores = measured(view, codes, objective).scores
        optimizer.begin(codes, prior, climb.steps, [member.seed for member in members])
        codes = optimizer.ask()
        for step in range(climb.steps):
            shown, scores, gradient = _try(
                optimizer, codes, objective, view, shifts[step], progress.going
            )
            asked = optimizer.ask()
            if climb.cycle:
                asked = asked + climb.cycle * (encoded(shown).view_as(codes) - codes)
            asked = constrained(asked.flatten(0, 1)).view_as(codes)
            codes = progress.after(step, scores, gradient, codes, asked)
            if setup.every_frame and step % setup.every_frame == 0:
                images = progress.best_of(shown.unflatten(0, scores.shape), scores)
                progress.frames.append(images.float().clamp(0, 1).cpu())
            report(n)
        last = codes[:, 0] if codes.shape[1] == 1 else constrained(optimizer.current())
        end, last_scores, at = _kept(last, objective, view, progress)
    statuses = progress.statuses(alive, end.scores, start_scores)
    result = PreferredInputs(
        tuple(members),
        end.images,
        end.codes.cpu(),
        end.scores,
        start_scores,
        progress.curves,
        statuses,
        at,
        last_scores,
        torch.stack(progress.frames) if progress.frames else None,
        tuple(climb.stimulus.told(each, setup.subject) for each in end.stimuli),
    )
    return result, _failed(statuses, end.faint if climb.steps else None)


def _try(
    optimizer: Optimizer,
    codes: Tensor,
    objective: Objective,
    view: View,
    shifts: Shifts,
    going: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Show codes (n, candidates, *code) to the subject and tell the optimizer what they score.

    Return the images (n × candidates, …), the scores (n, candidates), and the gradient, of the
    codes' shape, where the optimizer used it.
    """
    n, candidates = codes.shape[:2]
    flat = codes.flatten(0, 1)
    if candidates > 1:
        members = [i for i in range(n) for _ in range(candidates)]
        objective = objective.of(members)
        shifts = [shifts[i] for i in members] if shifts else None
        going = [place for place, i in enumerate(members) if i in set(going)]
    if not optimizer.uses_gradient:
        images, followed = scored(view, flat, objective, shifts)
        scores = followed.view(n, candidates)
        optimizer.tell(codes, scores.nan_to_num(-torch.inf, torch.inf, -torch.inf), _no_gradient)
        return images, scores, None
    ascent = Ascent(view, flat, objective, shifts, going)
    scores = ascent.scores.view(n, candidates)
    optimizer.tell(codes, scores, lambda: ascent.gradient.view_as(codes))
    return ascent.images, scores, ascent.gradient.view_as(codes)


def _no_gradient() -> Tensor:
    raise BadRequest("this optimizer says that it uses no gradient, so there is none")


def _failed(statuses: Sequence[str], faint: Tensor | None) -> list[int]:
    """Return who ended no higher than its start, or with a unit that others exceed."""
    failed = [i for i, status in enumerate(statuses) if status == NOT_ABOVE]
    if faint is not None:
        failed += [i for i, status in enumerate(statuses) if status == "climbed" and faint[i]]
    return sorted(failed)


def _kept(
    codes: Tensor, objective: Objective, view: View, progress: Progress
) -> tuple[Measured, Tensor, Tensor]:
    """Return what is kept of each climb, the scores of the last codes, and the steps kept.

    On the way a score is of a moving, blurred or unrounded image; so the best code and the last one
    are both measured on their 8-bit pictures, and the better is kept.
    """
    last = measured(view, codes, objective)
    at = torch.full((len(codes),), progress.steps)
    if view.climb.keep == "last" or progress.best_codes is None:
        return last, last.scores, at
    best = measured(view, progress.best_codes, objective)
    better = best.followed > last.followed
    return best.chosen(last, better), last.scores, torch.where(better, progress.best_at, at)


def _shifts(members: Sequence[Member], climb: Climb, prior: Prior) -> Sequence[Shifts]:
    """Return each step's shifts of the crop, a function of each member's seed alone."""
    margins = [size - view for size, view in zip(prior.size, prior.view_size, strict=True)]
    room = min(climb.shift, min(margins) // 2)
    if not room:
        return [None] * climb.steps
    drawn = [
        torch.randint(
            -room, room + 1, (climb.steps, 2), generator=torch.Generator().manual_seed(member.seed)
        ).tolist()
        for member in members
    ]
    return [[(row[step][0], row[step][1]) for row in drawn] for step in range(climb.steps)]
