"""What a subject reads of the pictures of a climb, in 8 bits, and its answer to that."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from phosphene.objectives import make_objective
from phosphene.priors import Prior
from phosphene.subjects import Subject
from phosphene.synthesis.climb import Climb
from phosphene.synthesis.results import PreferredInputs, as_activations
from phosphene.tensors import center_crop, device_of, in_8_bits


@torch.no_grad()
def with_inputs(
    result: PreferredInputs, subject: Subject, prior: Prior, arrays: bool = False
) -> PreferredInputs:
    """Return the result with what the subject reads of its pictures, rounded to 8 bits.

    A picture of the subject's channels and scale is only cut, so its input has the same bits and
    scores. Others have no `input_scores` yet. With `arrays`, the numbers that the network reads of
    the pictures are kept too: float32, normalised, not rounded.
    """
    shown = center_crop(result.images, prior.view_size)
    seen = subject.fitted(shown)
    inputs = in_8_bits(seen)
    scores = result.scores if torch.equal(inputs, seen) else None
    numbers = _prepared(subject, shown) if arrays else None
    return replace(result, inputs=inputs, input_scores=scores, arrays=numbers)


def _prepared(subject: Subject, shown: Tensor) -> Tensor:
    parts = shown.split(subject.at_most(len(shown)))
    return torch.cat([subject.prepare(part).float().contiguous() for part in parts])


@torch.no_grad()
def with_input_scores(result: PreferredInputs, subject: Subject, climb: Climb) -> PreferredInputs:
    """Return the result with the activations on its inputs, by one forward pass where they lack."""
    if result.inputs is None or result.input_scores is not None:
        return result
    part, options = climb.completed().make("objective")
    objective = make_objective(part, [member.target for member in result.members], **options)
    with subject.reading(objective.layers) as read:
        prepared = subject.prepare(result.inputs.to(device_of(subject.network)))
        scores = objective.scores(read(prepared)).cpu()
    return replace(result, input_scores=as_activations(scores, result.members))
