"""Objectives beside the activation: their closed forms on linear networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import phosphene
from phosphene.errors import BadRequest
from phosphene.objectives.cosine import Cosine
from phosphene.subjects import Subject
from phosphene.units import Direction, Target, Unit

UNITS = 5
PATTERN = (1.0, -2.0, 0.5, 0.0, 3.0)


def linear() -> Subject:
    """Return five linear units that see an image of 8 × 8."""
    conv = nn.Conv2d(3, UNITS, 8, bias=False)
    conv.weight.data = torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(conv, nn.Flatten())
    return phosphene.wrap(network, size=8, mean=0.5, std=0.25)


def answers(subject: Subject, images: Tensor) -> Tensor:
    margin = (images.shape[-1] - 8) // 2
    with torch.no_grad():
        return subject(images[..., margin : margin + 8, margin : margin + 8])


def test_a_population_takes_the_pattern_that_it_is_asked_for() -> None:
    subject = linear()
    target = Target(((1.0, Direction("1", PATTERN)),), "pattern")
    climbed = {
        objective: phosphene.synthesize(
            subject, target, objective=objective, prior="pixels", steps=150, tv=0, blur=0, shift=0
        )
        for objective in ("cosine", "activation")
    }
    cosines = {
        objective: torch.cosine_similarity(
            answers(subject, result.images)[0], torch.tensor(PATTERN), dim=0
        )
        for objective, result in climbed.items()
    }
    # five units and 192 pixels: the pattern can be had exactly
    assert cosines["cosine"] > 0.999
    assert cosines["cosine"] > cosines["activation"]
    assert float(climbed["cosine"].scores[0]) == pytest.approx(float(cosines["cosine"]), abs=1e-3)


def test_a_cosine_is_of_units_directions_and_positions() -> None:
    maps = torch.randn(2, UNITS, 3, 4)
    vector = torch.tensor(PATTERN)
    direction = Direction("a", PATTERN, (1, 2))
    unit = Unit("a", 3, (1, 2))
    targets = [Target(((1.0, direction),)), Target(((2.0, direction), (-1.0, unit)))]
    mixed = 2 * vector / vector.norm() - torch.eye(UNITS)[3]
    wanted = [
        torch.cosine_similarity(maps[i, :, 1, 2], each, dim=0)
        for i, each in enumerate((vector, mixed))
    ]
    torch.testing.assert_close(Cosine(targets).scores({"a": maps}), torch.stack(wanted))
    swapped = Cosine(targets).of([1, 1])
    assert swapped.targets == (targets[1], targets[1])


def test_a_contrast_of_groups_prefers_the_difference_of_their_filters() -> None:
    def groups(activations: dict[str, Tensor], target: Target) -> Tensor:
        values = activations["1"]
        return values[:2].mean() - values[2:].mean()

    subject = linear()
    result = phosphene.synthesize(
        subject, "1:0", objective=groups, prior="pixels", steps=60, tv=0, blur=0, shift=0
    )
    filters = subject.network[0].weight
    wanted = filters[:2].mean(0) - filters[2:].mean(0)
    margin = (result.images.shape[-1] - 8) // 2
    found = result.images[0, :, margin : margin + 8, margin : margin + 8] - 0.5
    assert (found.sign() * wanted).sum() / wanted.abs().sum() > 0.95


def test_a_cosine_of_two_layers_is_refused() -> None:
    with pytest.raises(BadRequest, match="one layer at one position"):
        Cosine([Target(((1.0, Unit("a", 0)), (1.0, Unit("b", 0))))])
