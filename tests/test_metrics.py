"""Every measure meets a case whose answer is known, and none knows how its images were batched."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene import metrics, statistics
from phosphene.metrics import (
    activation_ratio,
    distances,
    diversity,
    feature_layers,
    features,
    kid,
    prior_share,
    ranks,
    recognised,
    two_afc,
)
from phosphene.statistics import mean, median, share
from phosphene.subjects import Subject
from phosphene.testing import TinyNet, lively

SIDE = 14


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def judge() -> Subject:
    return Subject("tiny", lively(TinyNet()), (SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)


def test_a_judge_that_is_the_subject_agrees(judge: Subject) -> None:
    """An image is recognised if its label is what the judge says first, not if it says it last."""
    images = noise(23, 3, SIDE, SIDE)
    order = judge(images).argsort(1, descending=True)
    every = range(order.shape[1])
    assert recognised(judge, images, order[:, 0], every).eq(1).all()
    assert recognised(judge, images, order[:, 4], every).eq(torch.tensor([0.0, 1.0])).all()
    assert recognised(judge, images, order[:, -1], every).eq(0).all()


def test_a_judge_is_restricted_to_the_classes_in_question(judge: Subject) -> None:
    images = noise(9, 3, SIDE, SIDE)
    allowed = [4, 1]
    best = judge(images)[:, allowed].argmax(1)
    assert recognised(judge, images, best, allowed)[:, 0].eq(1).all()


def test_no_measure_depends_on_how_many_are_looked_at_at_once(
    judge: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, shown = noise(11, 3, SIDE, SIDE), torch.arange(11) % 10, []
    judge.network.register_forward_pre_hook(lambda _, x: shown.append(len(x[0])))
    whole, sight = recognised(judge, images, labels, range(10)), features(judge, images)
    assert max(shown) == 11
    shown.clear()
    monkeypatch.setattr(metrics, "PIXELS", 3 * SIDE * SIDE)
    assert torch.equal(recognised(judge, images, labels, range(10)), whole)
    for one, other in zip(features(judge, images), sight, strict=True):
        torch.testing.assert_close(one, other)
    assert max(shown) == 3


def test_features_are_compared_at_several_sizes_of_map() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 1),
        nn.Flatten(),
        nn.Linear(5 * 36, 7),
    )
    judge = Subject("judge", network, (SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)
    assert feature_layers(judge) == ["1", "3"], "the last of each size of map"
    vectors, pooled = features(judge, noise(2, 3, SIDE, SIDE))
    assert vectors.shape == (2, 4 * 144 + 5 * 36)
    assert pooled.shape == (2, 5)


def test_perceptual_distance_by_hand() -> None:
    """Maps whose channels point the same way, at right angles and opposite give 0, 2 and 4.

    Their lengths do not count.
    """
    judge = Subject("judge", nn.Sequential(nn.Conv2d(3, 3, 1)), (2, 2), (0.0,) * 3, (1.0,) * 3)
    nn.init.dirac_(judge.network[0].weight)
    nn.init.zeros_(judge.network[0].bias)
    red, green = torch.tensor([[1.0, 0, 0], [0, 1, 0]])[:, :, None, None].expand(-1, -1, 2, 2)
    vectors, pooled = features(judge, torch.stack([red, 0.5 * red, green, -red]))
    torch.testing.assert_close(distances(vectors[:1], vectors)[0], torch.tensor([0.0, 0, 2, 4]))
    torch.testing.assert_close(pooled[1], torch.tensor([0.5, 0, 0]))
    assert diversity(vectors[:3]) == pytest.approx((0 + 2 + 2) / 3)
    assert math.isnan(diversity(vectors[:1])), "one picture has no diversity"


def test_sets_of_one_kind_are_at_no_distance_and_others_are() -> None:
    """The estimate is unbiased: two draws of one kind are as often below zero as above.

    A set and itself are below.
    """
    one, other = torch.randn(2, 200, 16, generator=torch.Generator().manual_seed(0))
    alike, same, far = kid(one, other), kid(one, one), kid(one, other + 2)
    assert alike.low < 0 < alike.high
    assert -0.1 < same.value <= 0
    assert far.low > 100 * abs(same.value)
    assert kid(one, other) == alike, "the same halves each time"
    assert math.isnan(kid(one[:3], one).value)


def test_a_kernel_distance_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    kid(noise(8, 4), noise(8, 4, seed=1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_observer_that_tosses_a_coin_scores_one_half() -> None:
    """With references that have nothing to do with either photograph."""
    drawn = torch.randn(4009, 8, generator=torch.Generator().manual_seed(0))
    assert two_afc(drawn[:9], drawn[9:2009], drawn[2009:]) == pytest.approx(0.5, abs=0.03)


def test_an_observer_with_telling_references_is_right() -> None:
    strong, weak = noise(5, 8), noise(5, 8) + 3
    assert two_afc(noise(9, 8, seed=1), strong, weak) == 1
    assert two_afc(noise(9, 8, seed=1), weak, strong) == 0
    assert two_afc(noise(9, 8, seed=1), strong, strong) == 0.5, "a tie is one half"


def test_the_prior_explains_its_own_pictures_and_nothing_at_right_angles() -> None:
    origin, control = torch.tensor([1.0, 1, 1]), torch.tensor([3.0, 1, 1])
    assert prior_share(control, control, origin) == pytest.approx(1)
    assert prior_share(origin + torch.tensor([0, 5.0, 0]), control, origin) == 0
    assert prior_share(origin + torch.tensor([1.0, 1, 0]), control, origin) == pytest.approx(0.5)
    assert prior_share(2 * origin - control, control, origin) == 0, "the other way is not explained"


def test_a_rank_is_in_each_channels_own_scale() -> None:
    """A channel that is always large does not come first by that; a constant one comes last."""
    sample = torch.tensor([[0.0, 100, 5], [2.0, 300, 5]])
    peaks = torch.tensor([[5.0, 310, 9], [0.0, 310, 9]])
    assert ranks(peaks, 0, sample).tolist() == [1, 2]
    assert ranks(peaks, 1, sample).tolist() == [2, 1]
    assert ranks(peaks, 2, sample).tolist() == [3, 3]


def test_a_unit_that_no_photograph_excites_has_no_ratio() -> None:
    assert activation_ratio(3, 2) == 1.5
    assert math.isnan(activation_ratio(3, 0))
    assert math.isnan(activation_ratio(3, -1))


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_a_figure_lies_in_its_interval(values: list[float]) -> None:
    for figure, plain in ((mean(values), np.mean(values)), (median(values), np.median(values))):
        assert figure.value == pytest.approx(plain)
        assert figure.low - 1e-6 <= figure.value <= figure.high + 1e-6
        assert figure.n == len(values)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Means of 40 draws from an exponential distribution, 200 times."""
    random = np.random.default_rng(0)
    found = [mean(random.exponential(1, 40).tolist()) for _ in range(200)]
    assert 0.89 <= np.mean([figure.low <= 1 <= figure.high for figure in found]) <= 0.97


def test_shares_have_wilsons_interval_and_what_is_no_number_does_not_count() -> None:
    assert (share([1.0] * 20).low, share([1.0] * 20).high) == pytest.approx((0.839, 1), abs=1e-3)
    assert mean([1.0, math.nan, 0.0]).n == share([1.0, math.nan, 0.0]).n == 2
    assert (mean([1.0] * 20).low, share([0.5] * 20).low) == (1, 0.5), "ranks are no shares"
    nothing = statistics.mean([math.nan])
    assert nothing.n == 0
    assert math.isnan(nothing.value)
