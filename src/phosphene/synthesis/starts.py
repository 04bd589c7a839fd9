"""Where climbs begin: a photograph, the mean, or a random code that the unit answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import BadRequest, PhospheneError
from phosphene.objectives import Objective
from phosphene.optimizers.mean import paper_unit
from phosphene.priors import Prior, encode
from phosphene.synthesis.climb import Climb
from phosphene.synthesis.results import Member
from phosphene.synthesis.view import View, gradient_of, groups, is_moving, opened
from phosphene.units import Target

STARTS = 8
"""Random starts from which each try takes the most promising one."""
STRIDE = 1_000_003
"""What is added to a seed for the next of its random starts."""


@dataclass(frozen=True, order=True)
class Promise:
    """What a start holds out: does the unit answer it, can it climb from it, and how near is it?"""

    answers: bool
    climbs: bool
    value: float


def start_codes(
    members: Sequence[Member],
    objective: Objective,
    view: View,
    start: str | Tensor,
    attempt: int,
    uses_gradient: bool = True,
) -> tuple[Tensor, list[bool]]:
    """Return start codes (n, *code), and for each member whether it can climb from there.

    `start` is "random", "mean" or an image (channels, height, width). A random start without a
    gradient is drawn again; without use of a gradient, the first one is taken.
    """
    if isinstance(start, str) and start == "random":
        batch = random_codes(view, members, attempt * STARTS)
    else:
        batch = torch.stack([_fixed(start, view)] * len(members))
    if not uses_gradient:
        return batch, [True] * len(members)
    found = promises(batch, objective, view)
    check_gradient(
        [each.target for each, p in zip(members, found, strict=True) if not p.climbs], view
    )
    if isinstance(start, str) and start == "random":
        _drawn_again(batch, found, members, objective, view, attempt * STARTS)
    return batch, [promise.climbs for promise in found]


def random_codes(view: View, members: Sequence[Member], number: int) -> Tensor:
    """Return each member's random start of this number, (n, *code)."""
    seeds = [member.seed + number * STRIDE for member in members]
    codes = [_random(view.prior, seed, view.climb) for seed in seeds]
    return torch.stack(codes).to(view.device)


def _fixed(start: str | Tensor, view: View) -> Tensor:
    """Return the code of the mean, or of an image."""
    if isinstance(start, str):
        if start != "mean":
            raise BadRequest(f"no start {start!r}; there are: random, mean, or an image")
        return view.prior.mean().to(view.device)
    size = (view.prior.channels, *view.prior.size)
    if start.shape != size:
        raise BadRequest(f"a start image must be {size}; got {tuple(start.shape)}")
    return encode(view.prior, start.to(view.device), view.subject.name)


def _drawn_again(
    batch: Tensor,
    found: list[Promise],
    members: Sequence[Member],
    objective: Objective,
    view: View,
    first: int,
) -> None:
    """Replace, in `batch` and `found`, starts that their units do not answer by better ones.

    Where the unit answers none of its random starts, it is the one at which the unit comes nearest
    to an answer.
    """
    waiting = list(range(len(members)))
    for number in range(first + 1, first + STARTS):
        waiting = [i for i in waiting if not found[i].answers]
        if not waiting:
            return
        for some in groups(waiting, view.together):
            again = random_codes(view, [members[i] for i in some], number)
            those = promises(again, objective.of(some), view)
            for i, code, promise in zip(some, again, those, strict=True):
                if promise > found[i]:
                    batch[i] = code
                    found[i] = promise


def promises(codes: Tensor, objective: Objective, view: View) -> list[Promise]:
    """Return what each start holds out.

    A gradient that is not finite counts: the climb reports it.
    """
    codes = codes.detach().requires_grad_()
    everyone = range(len(codes))
    try:
        activations = view.still(view.drawn(codes))
        followed = objective(activations)
        gradient = gradient_of(followed, codes, everyone)
    except PhospheneError:
        raise
    except Exception:  # of every kind: other people's networks
        check_gradient(objective.targets, view)
        raise
    moves = is_moving(gradient)
    if not view.climb.redirect:  # version 0.1.0 asked for no more than a gradient
        return [Promise(each, each, 0.0) for each in moves]
    climbs = is_moving(opened(gradient, codes, objective, view, None, everyone))
    values = torch.stack(followed).tolist()
    shut = objective.shut(activations)
    return [Promise(moves[i] and not shut[i], climbs[i], values[i]) for i in everyone]


def check_gradient(targets: Sequence[Target], view: View) -> None:
    """Refuse a target with `BadRequest` where no gradient comes through from its layer."""
    view.subject.check_gradient({layer for target in targets for layer in target.layers})


def _random(prior: Prior, seed: int, climb: Climb) -> Tensor:
    """Return a random start; the paper's N(0, 1) is in the units of its code."""
    if climb.distribution == "normal" and prior.statistics is not None:
        like = prior.statistics.mean
        noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(like) * paper_unit(prior)
    return prior.start(seed)
