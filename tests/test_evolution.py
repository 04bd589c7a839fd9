"""Searches that need only scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import phosphene
from phosphene.code_statistics import CodeStatistics
from phosphene.optimizers import load_optimizer
from phosphene.optimizers.evolution import main_directions
from phosphene.priors import Prior

STRATEGIES = ("cholesky", "cma-es", "evolution", "genetic", "sphere")
SIZE = 12


class Plain(Prior):
    """Codes of 12 numbers, which are the image, a column of grey pixels about 0.5."""

    channels = 1
    size = (SIZE, 1)
    statistics = CodeStatistics.standard(SIZE)

    def images(self, codes):
        return (0.5 + codes[:, None, :, None] / 100).clamp(0, 1)


def searched(name, score, *, generations=60, seed=0, prior=None, **options):
    """Return the code that a search hands over, in units of the paper's code for all."""
    prior = prior or Plain()
    optimizer = load_optimizer(name)(**options)
    optimizer.begin(prior.start(seed)[None], prior, generations, [seed])
    for _ in range(generations):
        codes = optimizer.ask()
        optimizer.tell(codes, score(codes), lambda: pytest.fail("it took a gradient"))
    return optimizer.current()[0]


PEAK = torch.linspace(-1, 1, SIZE)


def near(codes):
    """Return scores that are highest, 0, at PEAK."""
    return -(codes - PEAK).square().sum(-1)


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_finds_a_peak(name):
    """On a sphere that does not hold the peak, the best code lies in its direction."""
    code = searched(name, near)
    assert torch.cosine_similarity(code, PEAK, 0) > 0.9


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_score_that_is_stretched_changes_nothing_but_of_the_genetic_algorithm(name):
    """All but the genetic algorithm, which draws parents by scores, learn of ranks alone."""
    one = searched(name, near, generations=9)
    other = searched(name, lambda codes: near(codes) ** 3, generations=9)
    assert torch.equal(one, other) == (name != "genetic")


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_gives_the_same_bits_and_another_gives_others(name):
    found = [searched(name, near, generations=5, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", STRATEGIES)
def test_members_search_as_they_would_alone(name):
    prior = Plain()
    weights = torch.stack([torch.linspace(-1, 1, SIZE), torch.ones(SIZE)])
    both = load_optimizer(name)()
    both.begin(torch.stack([prior.start(0), prior.start(1)]), prior, 6, [0, 1])
    for _ in range(6):
        codes = both.ask()
        both.tell(codes, torch.einsum("mcd,md->mc", codes, weights), None)
    alone = searched(name, lambda codes: codes @ weights[1], generations=6, seed=1)
    assert torch.equal(both.current()[1], alone)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_score_that_is_no_number_is_the_worst(name):

    def score(codes):
        scores = near(codes)
        scores[:, ::4] = -torch.inf
        return scores

    assert torch.cosine_similarity(searched(name, score), PEAK, 0) > 0.8


def test_the_factor_and_its_inverse_stay_each_others_inverse():
    optimizer = load_optimizer("cholesky")(update_every=1)
    optimizer.begin(Plain().start(0)[None], Plain(), 50, [0])
    for _ in range(50):
        codes = optimizer.ask()
        optimizer.tell(codes, near(codes), None)
    (search,) = optimizer.searches
    assert np.allclose(search.factor @ search.inverse, np.eye(SIZE), atol=1e-9)
    assert torch.allclose(optimizer.current()[0], PEAK, atol=0.05)


class Blind(Plain):
    """Images that show three of the twelve numbers alone, two of them faintly."""

    def images(self, codes):
        shown = codes * torch.tensor([4.0, 2.0, 1.0, *[0.0] * (SIZE - 3)])
        return (0.5 + shown[:, None, :, None] / 1000).clamp(0, 1)


def test_only_directions_that_an_image_shows_are_searched():
    directions, shares = main_directions(Blind(), 256)
    assert directions.shape == (3, SIZE)
    assert (np.abs(np.diagonal(directions)) > 0.9).all()
    assert np.allclose(directions[:, 3:], 0, atol=1e-6)
    assert shares[0] > shares[1] > shares[2]
    code = searched("evolution", lambda codes: codes.sum(-1), prior=Blind())
    assert torch.allclose(code[3:], torch.zeros(SIZE - 3), atol=1e-5)
    assert (code[:3] > 0).all()


def test_on_the_sphere_all_codes_have_one_length():
    optimizer = load_optimizer("sphere")()
    optimizer.begin(Plain().start(0)[None], Plain(), 10, [0])
    for _ in range(4):
        codes = optimizer.ask()
        lengths = codes.norm(dim=-1)
        assert torch.allclose(lengths, lengths[0, 0].expand_as(lengths), rtol=1e-5)
        optimizer.tell(codes, codes.sum(-1), None)


def test_a_climb_of_the_command_line_takes_an_evolution():
    """The same searches are optimizers of `synthesize`; nothing runs backwards."""
    result = phosphene.synthesize(
        "caffenet-objects", "class:lion", climb="evolution", population=4, steps=3
    )
    assert result.scores[0] >= result.start_scores[0]
