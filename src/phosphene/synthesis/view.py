"""How the subject is shown the images of codes, and what its answer says of the codes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.objectives import Objective
from phosphene.priors import Prior
from phosphene.probe import Read, redirected
from phosphene.stimulus import Project, measure
from phosphene.subjects import Subject
from phosphene.synthesis.climb import Climb
from phosphene.tensors import blurred, center_crop, device_of, in_8_bits, per_row, total_variation

Shifts = Sequence[tuple[int, int]] | None
"""Each image's shift of the crop, in (rows, columns); None for no shifts."""

FEW = 4
"""Members of a climb in which casting weights counts beside the work with them."""
CAST = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers whose weights autocast makes bfloat16."""
TOGETHER = 4
"""Members of a pass that only some of a batch take."""
AT_ONCE = 32
"""Images of a pass without a gradient, which may have many candidates for each member."""


@dataclass(frozen=True, eq=False)
class View:
    """Show the subject an image during a climb. `read` reads its layers.

    `together` is the size of passes that only some members take (see `groups`).
    """

    subject: Subject
    prior: Prior
    climb: Climb
    read: Read
    device: str
    precision: str
    project: Project
    together: int = 0

    def drawn(self, codes: Tensor) -> Tensor:
        """Return the images of codes as the climb's stimulus has them.

        They are in float32 at least: half precision cannot be resized.
        """
        images = self.prior.images(codes)
        whole = images.dtype in (torch.float32, torch.float64)
        return self.project(images if whole else images.float())

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a pass in the climb's precision, where the network takes it."""
        device = device_of(self.subject.network).type
        if self.precision == "bfloat16" and self.subject.takes_autocast:
            return torch.autocast(device, torch.bfloat16)
        return nullcontext()

    def moving(self, images: Tensor, shifts: Shifts) -> dict[str, Tensor]:
        """Return the activations for images as the climb shows them: blurred, and shifted."""
        view = center_crop(images, self.prior.view_size, shifts)
        return self.read(self.subject.prepare(blurred(view, self.climb.blur)))

    def still(self, images: Tensor) -> dict[str, Tensor]:
        """Return the activations for images without the climb's blur and shifts.

        This is how a picture is measured.
        """
        return self.read(self.subject.prepare(center_crop(images, self.prior.view_size)))

    def smooth(self, scores: list[Tensor], images: Tensor) -> list[Tensor]:
        """Return the scores less what the images' total variation costs."""
        if not self.climb.tv:
            return scores
        rough = self.climb.tv * total_variation(images) * len(images[0, 0])
        if self.climb.tv_unit == "score":
            units = [score.detach().abs() for score in scores]
            rough = rough * torch.stack(units)
        return [score - each for score, each in zip(scores, rough, strict=True)]


def groups(places: Sequence[int], size: int) -> list[list[int]]:
    """Return places in groups of one size, the last filled with copies; one group for size 0.

    A kernel sums in another order for a batch of another size, but not for other neighbours. With
    one size, a member's bits do not depend on how many others take the same pass.
    """
    if not size:
        return [list(places)]
    found = [list(places[at : at + size]) for at in range(0, len(places), size)]
    return [group + group[-1:] * (size - len(group)) for group in found]


@contextmanager
def cast_once(view: View, members: int) -> Iterator[None]:
    """Keep what autocast makes of the networks' weights for a whole climb of few members.

    Autocast keeps the casts of leaves that require a gradient, until its outermost context ends, so
    the bits are the same. No gradient of a weight is taken. Linear layers keep their inputs for
    one, so a climb of more members would take more memory and gain nothing.
    """
    if view.precision != "bfloat16" or members > FEW:
        yield
        return
    networks = [each for each in vars(view.prior).values() if isinstance(each, nn.Module)]
    layers = [each for one in (view.subject.network, *networks) for each in one.modules()]
    weights = [
        weight
        for layer in layers
        if isinstance(layer, CAST)
        for weight in layer.parameters(recurse=False)
        if not weight.requires_grad and weight.is_leaf and weight.dtype == torch.float32
    ]
    device = device_of(view.subject.network).type
    with torch.autocast(device, torch.bfloat16, enabled=False):
        try:
            for weight in weights:
                weight.requires_grad_(True)
            yield
        finally:
            for weight in weights:
                weight.requires_grad_(False)


class Ascent:
    """Make one pass: images of codes (batch, *code), their scores, and on demand the gradient.

    `scores` (batch,) are what the climb follows. `going` are the places in the batch that have not
    stopped. The graph is kept until the gradient was taken.
    """

    def __init__(
        self, view: View, codes: Tensor, objective: Objective, shifts: Shifts, going: Sequence[int]
    ):
        self.view = view
        self.objective = objective
        self.shifts = shifts
        self.going = going
        self.codes = codes.detach().requires_grad_()
        with view.autocast():
            shown = view.drawn(self.codes)
            self._rising = objective(view.moving(shown, shifts))
            self._followed = view.smooth(self._rising, shown)
        self.images = shown.detach()
        self.scores = torch.stack(self._followed).detach()

    @cached_property
    def gradient(self) -> Tensor:
        """Return the gradient of the scores, of the codes' shape; the graph is freed."""
        climb = self.view.climb
        if climb.redirect:
            gradient = gradient_of(self._rising, self.codes, self.going)
            gradient = opened(
                gradient, self.codes, self.objective, self.view, self.shifts, self.going
            )
            if climb.tv:
                pairs = zip(self._followed, self._rising, strict=True)
                rough = [after - before for after, before in pairs]
                gradient = gradient + gradient_of(rough, self.codes, self.going)
        else:
            gradient = gradient_of(self._followed, self.codes, self.going)
        self._rising = []
        self._followed = []
        return gradient


@torch.no_grad()
def scored(
    view: View, codes: Tensor, objective: Objective, shifts: Shifts
) -> tuple[Tensor, Tensor]:
    """Return the images of codes (batch, *code) and their scores (batch,), without a gradient.

    No more than `AT_ONCE` images are looked at at once.
    """
    most = view.subject.at_most(AT_ONCE)
    even = math.ceil(len(codes) / math.ceil(len(codes) / most))
    images = []
    scores = []
    for some in groups(range(len(codes)), even if view.together else most):
        with view.autocast():
            shown = view.drawn(codes[some])
            seen = view.moving(shown, [shifts[i] for i in some] if shifts else None)
            scores.append(torch.stack(view.smooth(objective.of(some)(seen), shown)))
        images.append(shown)
    return torch.cat(images)[: len(codes)], torch.cat(scores)[: len(codes)]


def opened(
    gradient: Tensor,
    codes: Tensor,
    objective: Objective,
    view: View,
    shifts: Shifts,
    going: Sequence[int],
) -> Tensor:
    """Return the gradient; of members that have none, the one that shut ReLUs kept back."""
    moves = is_moving(gradient)
    shut = [i for i in going if not moves[i]]
    if not shut:
        return gradient
    gradient = gradient.clone()
    for group in groups(shut, view.together):
        some = codes[group].detach().requires_grad_()
        with view.autocast():
            shown = view.drawn(some)
            with redirected():
                seen = view.moving(shown, [shifts[i] for i in group] if shifts else None)
                scores = objective.of(group)(seen)
        gradient[group] = gradient_of(scores, some, range(len(group)))
    return gradient


def is_moving(gradient: Tensor) -> list[bool]:
    """Return, for each member, whether its gradient is not zero."""
    found: list[bool] = (gradient.flatten(1) != 0).any(1).tolist()
    return found


def gradient_of(scores: Sequence[Tensor], codes: Tensor, going: Sequence[int]) -> Tensor:
    """Return each member's gradient, (batch, …).

    One that is not finite is taken again without the other members: a member's zero gradient still
    runs through every layer that the batch needs, and 0 · NaN is NaN. A score that no code reaches
    has a gradient of zero.
    """
    reached = [i for i in going if scores[i].requires_grad]
    if not reached:
        return torch.zeros_like(codes)

    def of(some: Sequence[Tensor]) -> Tensor:
        return torch.autograd.grad(
            some, codes, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]  # a score may need one for the network's own weights alone

    gradient = of([scores[i] for i in reached])
    wrong = (~gradient.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
    for i in set(wrong).intersection(reached):
        gradient[i] = of([scores[i]])[i]
    return gradient


@dataclass(frozen=True, eq=False)
class Measured:
    """Codes, their 8-bit images and, in float32 on those, the targets' activations.

    `followed` is what a climb would follow there; `faint` says whose unit answers less than its
    layer's other channels do. `stimuli` (batch, 3) are those of `stimulus.measure`. All but the
    codes lie on the CPU.
    """

    codes: Tensor
    images: Tensor
    scores: Tensor
    followed: Tensor
    faint: Tensor
    stimuli: Tensor

    def chosen(self, other: Measured, better: Tensor) -> Measured:
        """Return the members of this for which `better` (batch,) is true, else those of `other`."""

        def merged(name: str) -> Tensor:
            one = getattr(self, name)
            return torch.where(per_row(better.to(one.device), one), one, getattr(other, name))

        return Measured(*(merged(each.name) for each in fields(self)))


@torch.no_grad()
def measured(view: View, codes: Tensor, objective: Objective) -> Measured:
    """Measure codes (batch, *code) on their 8-bit pictures."""
    images = in_8_bits(view.drawn(codes))
    stimuli = measure(images, view.subject, view.prior.view_size)
    activations = view.still(images)
    scores = objective.scores(activations)
    followed = torch.stack(view.smooth(objective(activations), images))
    faint = torch.tensor(objective.faint(activations))
    return Measured(codes, images.float().cpu(), scores.cpu(), followed.cpu(), faint, stimuli)
