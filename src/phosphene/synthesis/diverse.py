"""A set of pictures of one target that differ as much as possible, and each score nearly the best.

Sources: Cadena et al. 2018 (diverse feature visualizations), Ding et al. 2023 (diverse exciting
inputs), who also climb away from the nearest other picture and hold the activation by a hinge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.metrics import diversity_index
from phosphene.objectives import Objective, make_objective
from phosphene.optimizers import Optimizer
from phosphene.priors import Prior
from phosphene.stimulus import departures
from phosphene.subjects import Subject
from phosphene.synthesis.climb import Climb
from phosphene.synthesis.results import Member, PreferredInputs
from phosphene.synthesis.view import Measured, View, gradient_of, measured
from phosphene.tensors import blurred, center_crop, per_row

PIXELS = "pixels"

PENALTY = 50.0
"""What a score costs that lies below its share, in distances for each part of the best score."""

MARGIN = 0.02
"""How far above its share a score is held, as a part of the best: 8 bits take some away."""

LOOKED_AT = 0.02
"""How large a gradient is where a unit looks, as a part of the largest."""

JITTER = 0.1
"""How far copies of one code are moved apart at first, as a part of a random start."""


def with_sets(
    result: PreferredInputs,
    subject: Subject,
    prior: Prior,
    climb: Climb,
    device: str,
    precision: str,
) -> PreferredInputs:
    """Return a result whose members of one target are moved apart, as far as scores allow.

    Each keeps `climb.share` of the set's best score. `subject` and `prior` are on the device.
    """
    for places in _sets(result.members):
        part, options = climb.make("objective")
        objective = make_objective(part, [result.members[i].target for i in places], **options)
        own = [] if climb.differ == PIXELS else [subject.layer_path(climb.differ)]
        with subject.reading([*objective.layers, *own]) as read:
            project = climb.stimulus.fit(subject, prior)
            view = View(subject, prior, climb, read, device, precision, project)
            starts = _starts(result, places, view)
            weights = _reach(starts, objective, view)
            codes = _moved_apart(starts, result, places, objective, view, weights)
            found = measured(view, codes, objective)
            first = measured(view, starts, objective)
        bar = _bar(float(result.scores[places].max()), climb.share)
        result = _with(
            result, places, found.chosen(first, found.scores >= bar), climb, view, weights
        )
    return result


def set_size(members: Sequence[Member], climb: Climb, batch: int) -> int:
    """Return how many members a batch has: one set where pictures are moved apart."""
    if not climb.share:
        return batch
    return sum(member.target == members[0].target for member in members)


def _sets(members: Sequence[Member]) -> Iterator[list[int]]:
    """Yield the places of each target's members, where it has two or more."""
    places: dict[Any, list[int]] = {}
    for i, member in enumerate(members):
        places.setdefault(member.target, []).append(i)
    yield from (each for each in places.values() if len(each) > 1)


def _bar(best: float, share: float) -> float:
    return best - (1 - share) * abs(best)


def _starts(result: PreferredInputs, places: list[int], view: View) -> Tensor:
    """Return the codes from which a set is moved apart; low ones become copies of the best."""
    scores = result.scores[places]
    codes = result.codes[places].to(view.device)
    best = int(scores.argmax())
    low = scores < _bar(float(scores.max()), view.climb.share + MARGIN)
    low[best] = False
    return torch.where(per_row(low.to(codes.device), codes), codes[best], codes)


def _moved_apart(
    starts: Tensor,
    result: PreferredInputs,
    places: list[int],
    objective: Objective,
    view: View,
    weights: Tensor,
) -> Tensor:
    """Return the codes, of all steps with high enough scores, that lie farthest apart."""
    climb = view.climb
    seeds = [result.members[i].seed for i in places]
    away = torch.stack([view.prior.start(seed) for seed in seeds]) - view.prior.mean()
    constrained = climb.make_constraint().fit(view.prior.statistics)
    optimizer = climb.make_optimizer()
    codes = starts + JITTER * away.to(starts)
    optimizer.begin(codes, view.prior, climb.steps, seeds)
    best = float(result.scores[places].max())
    bar = _bar(best, climb.share + MARGIN)
    kept = starts
    farthest = -1.0
    for _ in range(climb.steps):
        codes = constrained(optimizer.ask()[:, 0]).detach().requires_grad_()
        with view.autocast():
            apart, scores = _looked_at(codes, objective, view, weights)
        short = (bar - scores).clamp(min=0) / max(abs(best), 1e-6)
        if not bool(short.any()) and float(apart.detach().mean()) > farthest:
            farthest = float(apart.detach().mean())
            kept = codes.detach()
        gradient = gradient_of([apart.sum() - PENALTY * short.sum()], codes, [0])[:, None]
        _tell(optimizer, codes.detach()[:, None], scores.detach()[:, None], gradient)
    return kept


def _reach(codes: Tensor, objective: Objective, view: View) -> Tensor:
    """Return 1 for each number that the network reads and the units look at, and 0 for others.

    Pictures that differ elsewhere only do not differ for the unit. The numbers are of all codes
    together, (1, n), from the gradient at their pictures.
    """
    with torch.no_grad():
        shown = center_crop(view.drawn(codes), view.prior.view_size)
    seen = view.subject.fitted(shown).detach().requires_grad_()
    scores = objective.scores(view.read(view.subject.prepare(seen)))
    (gradient,) = torch.autograd.grad(scores.sum(), seen)
    size = blurred(gradient.abs().sum((0, 1))[None, None], 1.0)[0, 0]
    inside = size > LOOKED_AT * size.max()
    return inside.expand(seen.shape[1:]).flatten()[None].to(seen)


def _tell(optimizer: Optimizer, codes: Tensor, scores: Tensor, gradient: Tensor) -> None:
    optimizer.tell(codes, scores, lambda: gradient)


def _looked_at(
    codes: Tensor, objective: Objective, view: View, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how far each picture's direction lies from its nearest other's, and the scores."""
    images = view.drawn(codes)
    seen = view.still(images)
    if view.climb.differ == PIXELS:
        vectors = weights * departures(images, view.subject, view.prior.view_size)
    else:
        vectors = seen[view.subject.layer_path(view.climb.differ)].float().flatten(1)
    units = F.normalize(vectors, dim=1)
    alike = units @ units.T - 4 * torch.eye(len(units), device=units.device)
    apart = (2 - 2 * alike.amax(1)).clamp(min=1e-8).sqrt()  # its slope does not vanish at 0
    return apart, objective.scores(seen)


def _with(
    result: PreferredInputs,
    places: list[int],
    found: Measured,
    climb: Climb,
    view: View,
    weights: Tensor,
) -> PreferredInputs:
    """Return the result with the pictures of a set, and what the set is in each one's `sets`."""
    changes: dict[str, Any] = {}
    own = {each.name for each in fields(Measured)} & {"images", "codes", "scores"}
    for name in own:
        values = getattr(result, name).clone()
        values[places] = getattr(found, name).cpu().to(values)
        changes[name] = values
    changes["last_scores"] = result.last_scores.clone()
    changes["last_scores"][places] = found.scores
    changes["kept"] = result.kept.clone()
    changes["kept"][places] = climb.steps
    stimuli = list(result.stimuli)
    sets = list(result.sets or [{}] * len(result))
    vectors = weights.cpu() * departures(found.images, view.subject, view.prior.view_size)
    best = float(result.scores[places].max())
    told = {
        "pictures": len(places),
        "best": round(-best if result.members[places[0]].target.least else best, 5),
        "diversity": round(diversity_index(vectors, found.scores, best), 4),
    }
    for at, i in enumerate(places):
        stimuli[i] = climb.stimulus.told(found.stimuli[at], view.subject)
        sets[i] = told
    return replace(result, stimuli=tuple(stimuli), sets=tuple(sets), **changes)
