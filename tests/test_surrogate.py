"""The search that models responses by the features of another network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from phosphene.errors import BadRequest
from phosphene.optimizers import load_optimizer
from phosphene.optimizers.surrogate import (
    PENALTIES,
    SAMPLES,
    Reader,
    Ridge,
    best_penalty,
    by_position,
    centred,
    scales,
    solved,
)
from phosphene.priors.pixels import Pixels
from phosphene.subjects import load_subject
from phosphene.testing import CODE, VIEW, tiny_generated, tiny_subject, write_subject


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Return a weights file whose features are read."""
    return str(write_subject(tmp_path_factory.mktemp("features") / "net.safetensors"))


def neuron(subject, prior, weights):
    """Return the responses to codes of a linear readout of the subject's first maps."""

    @torch.no_grad()
    def respond(codes):
        images = prior.images(codes)[..., 1 : 1 + VIEW, 1 : 1 + VIEW].clamp(0, 1)
        with subject.reading(["conv2"]) as read:
            return read(subject.prepare(images))["conv2"].flatten(1) @ weights

    return respond


def searched(respond, generations=12, seed=0, noise=0.0, name="surrogate", **options):
    """Return the code that is handed over."""
    prior = tiny_generated()
    optimizer = load_optimizer(name)(**options)
    optimizer.begin(prior.start(seed)[None], prior, generations, [seed])
    rng = torch.Generator().manual_seed(seed)
    for _ in range(generations):
        codes = optimizer.ask()
        scores = respond(codes[0])
        told = scores * (1 + noise * torch.randn(scores.shape, generator=rng))
        optimizer.tell(codes, told[None], lambda: pytest.fail("it took a gradient"))
    return optimizer.current()[0]


def test_a_neuron_that_reads_the_features_climbs_in_spite_of_noise(features):
    subject = load_subject(features)
    size = int(np.prod(subject.shape("conv2")))
    prior = tiny_generated()
    drawn = torch.stack([prior.start(1000 + i) for i in range(200)])
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        respond = neuron(subject, prior, torch.randn(size, generator=rng))
        code = searched(respond, 25, seed, 0.5, features=features, advance=1.0, reach=3.0)
        assert float(respond(code[None])) > float(respond(drawn).max())


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(features):
    subject = load_subject(features)
    prior = tiny_generated()
    respond = neuron(subject, prior, torch.ones(int(np.prod(subject.shape("conv2")))))
    found = [searched(respond, 3, seed, features=features) for seed in (3, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_linear_neuron_without_noise_is_fitted_exactly():
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 8, generator=rng)
    truth = torch.arange(8.0)
    model = Ridge(200, 8, [], rows)
    for part in rows.split(40):
        model.add(part, part @ truth + 3)
    assert torch.allclose(model.weights, truth, atol=0.02)
    assert float(model.offset) == pytest.approx(3, abs=0.05)


def test_a_response_counts_less_where_noise_grows_with_it():
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 4, generator=rng)
    truth = torch.tensor([1.0, 0, 0, 0])
    clean = 5 + rows @ truth * 2
    told = clean * (1 + 0.5 * torch.randn(400, generator=rng))
    model = Ridge(400, 4, [], rows)
    for part, some in zip(rows.split(100), told.split(100), strict=True):
        model.add(part, some)
    variances = model._variances(400)
    assert torch.corrcoef(torch.stack([variances, clean.square()]))[0, 1] > 0.9


def test_the_penalty_is_the_best_of_responses_that_are_left_out():
    rng = torch.Generator().manual_seed(1)
    rows = torch.randn(30, 5, generator=rng)
    told = 7 + rows @ torch.ones(5) + torch.randn(30, generator=rng) * 2
    share = torch.full((30,), 1 / 30)
    kernel = centred(rows @ rows.T, share)
    size = kernel.diagonal().mean()

    def error(penalty):
        """Fit 29 responses and an offset, and look at the one that is left out; 30 times."""
        total = 0.0
        for out in range(30):
            keep = torch.arange(30) != out
            mean = rows[keep].mean(0)
            inside = rows[keep] - mean
            system = inside.T @ inside + penalty * size * torch.eye(5)
            weights = torch.linalg.solve(system, inside.T @ told[keep])
            total += float((told[out] - told[keep].mean() - (rows[out] - mean) @ weights) ** 2)
        return total

    wanted = PENALTIES[int(np.argmin([error(float(each)) for each in PENALTIES]))]
    found = best_penalty(kernel / size, told - told.mean(), torch.ones(30))
    assert found == pytest.approx(float(wanted))


def test_a_neuron_of_one_position_is_found_to_read_it():
    rng = torch.Generator().manual_seed(2)
    shapes = [(4, 5, 5), (6, 3, 3)]
    rows = torch.randn(240, 100 + 54 + 2, generator=rng)
    weights = torch.zeros(4, 5, 5)
    weights[:, 1, 2] = torch.randn(4, generator=rng)
    told = rows[:, :100] @ weights.flatten() + 0.5 * torch.randn(240, generator=rng)
    model = Ridge(240, 156, shapes, rows)
    model.add(rows, told)
    assert int(model.importance[:25].argmax()) == 1 * 5 + 2
    assert (model.importance[154:] == 1).all()
    fresh = torch.randn(500, 156, generator=rng)
    clean = fresh[:, :100] @ weights.flatten()

    def missed(found):
        return float((fresh @ found - clean).square().mean() / clean.square().mean())

    localised = missed(model.weights)
    model.importance = torch.ones(156)
    model._fit(model.flat_products, torch.ones(240))
    assert localised < missed(model.weights) / 2


def test_importance_is_of_maps_and_positions():
    weights = torch.tensor([3.0, 0, 0, 0, 1, 0, 0, 0, 9])
    importance = by_position(weights, [(1, 2, 2), (1, 2, 2)])
    assert importance.tolist() == pytest.approx([7.2, 0, 0, 0, 0.8, 0, 0, 0, 1])


def test_a_system_that_rounding_spoils_is_solved_with_higher_penalties():
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 5, generator=rng).repeat_interleave(100, 0)
    kernel = rows @ rows.T
    kernel -= 1e-3 * torch.eye(300)
    told = rows @ torch.ones(5)
    assert int(torch.linalg.cholesky_ex((kernel + 1e-6 * torch.eye(300)).double()).info)
    found = solved(kernel, torch.full((300,), 1e-6), told)
    assert torch.allclose(kernel @ found, told, atol=0.1)


def test_layers_are_the_last_of_the_coarsest_scales():
    subject = tiny_subject()
    chosen = scales(subject)
    shapes = subject.shapes()
    assert all(len(shapes[name]) == 3 for name in chosen)
    assert len({shapes[name][1:] for name in chosen}) == len(chosen)


def test_a_network_without_maps_is_refused():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * VIEW * VIEW, CODE))
    with pytest.raises(BadRequest, match="no feature maps; name its layers"):
        scales(tiny_subject(flat))


def test_a_prior_without_an_encoder_needs_the_name_of_a_network():
    prior = Pixels(size=(VIEW, VIEW))
    with pytest.raises(BadRequest, match="name one, such as features="):
        load_optimizer("surrogate")().begin(prior.start(0)[None], prior, 3, [0])


def test_what_it_reads_has_the_same_spread_in_every_layer(features):
    prior = tiny_generated()
    reader = Reader.of(features, "conv1,conv2", prior)
    codes = torch.stack([prior.start(i) for i in range(SAMPLES)])
    rows = reader.read(codes, torch.zeros(SAMPLES, CODE))
    first = int(np.prod(reader.network.shape("conv1")))
    lengths = [part.square().sum(1).mean() for part in (rows[:, :first], rows[:, first:])]
    assert float(lengths[0]) == pytest.approx(0.5, rel=0.05)
    assert float(lengths[1]) == pytest.approx(0.5, rel=0.05)
