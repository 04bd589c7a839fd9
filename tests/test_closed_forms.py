"""The preferred input of each kind of target, in closed form: of a transformer that is linear.

Under a norm, the preferred input of a linear target is its weight image, scaled. So one formula
tells of a class token, a patch, a hidden neuron, a head and a direction what the climb must find.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import phosphene
from phosphene.networks.sources.huggingface import UnitLength
from phosphene.subjects import Subject
from phosphene.units import Target

SIZE = (12, 20)
PATCH = 4
GRID = (3, 5)
WIDTH = 8
HIDDEN = 12
TOKENS = GRID[0] * GRID[1] + 1
NORM = 2.5


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / shape[-1] ** 0.5


def layer(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.weight.data = weight
    return made


PATCHES = drawn(WIDTH, PATCH * PATCH, seed=0)
VALUE, PROJECTION = drawn(WIDTH, WIDTH, seed=1), drawn(WIDTH, WIDTH, seed=2)
FIRST, SECOND = drawn(HIDDEN, WIDTH, seed=3), drawn(WIDTH, HIDDEN, seed=4)
DIRECTIONS = drawn(2, WIDTH, seed=5)


class Attention(nn.Module):
    """Every token attends to all tokens alike."""

    num_heads = 2

    def __init__(self) -> None:
        super().__init__()
        self.value = layer(VALUE)
        self.proj = layer(PROJECTION)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = self.value(tokens).mean(1, keepdim=True)
        return self.proj(mixed.expand_as(tokens))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = layer(FIRST)
        self.fc2 = layer(SECOND)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.fc1(tokens))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.mlp = Mlp()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(tokens)
        return tokens + self.mlp(tokens)


class LinearTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH, bias=False)
        self.patches.weight.data = PATCHES.view(WIDTH, 1, PATCH, PATCH)
        self.blocks = nn.Sequential(Block())

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.blocks(nn.functional.pad(tokens, (0, 0, 1, 0)))


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """Return the transformer, with the two directions of a file on its residual stream."""
    network = phosphene.wrap(LinearTransformer(), size=SIZE, mean=0.5, std=0.25)
    save_file({"first": DIRECTIONS[0], "second": DIRECTIONS[1]}, tmp_path / "two.safetensors")
    return network.with_dictionary("probe", "blocks.0", tmp_path / "two.safetensors")


MIXED = PROJECTION @ VALUE / TOKENS
"""What attention adds to each token, of the sum of all patches."""
STREAM = torch.eye(WIDTH) + SECOND @ FIRST
"""What the MLP makes of the residual stream behind attention."""
NONE = torch.zeros(WIDTH)


def weight_image(own: Tensor, place: tuple[int, int] | None, everywhere: Tensor) -> Tensor:
    """Return the weights of a target, SIZE, that reads `own` of the patch at `place`.

    It reads `everywhere` of each patch; both are rows (WIDTH,). None is the mean of all places.
    """
    image = (everywhere @ PATCHES).view(PATCH, PATCH).repeat(GRID)
    tile = (own @ PATCHES).view(PATCH, PATCH)
    if place is None:
        return image + tile.repeat(GRID) / (TOKENS - 1)
    top, left = place[0] * PATCH, place[1] * PATCH
    image[top : top + PATCH, left : left + PATCH] += tile
    return image


def behind(row: Tensor, place: tuple[int, int] | None = None, token: bool = False) -> Tensor:
    """Return the weights of a row of the residual stream behind the block."""
    return weight_image(NONE if token else row @ STREAM, place, row @ STREAM @ MIXED)


EYE = torch.eye(WIDTH)
UNITS = [row / row.norm() for row in DIRECTIONS]
TARGETS = {
    "patches:3@1,2": weight_image(EYE[3], (1, 2), NONE),
    "blocks.0:7@2,4": behind(EYE[7], (2, 4)),
    "blocks.0:7@mean": behind(EYE[7]),
    "blocks.0:7@class": behind(EYE[7], token=True),
    "blocks.0.mlp.in:5@0,3": weight_image(EYE[5], (0, 3), EYE[5] @ MIXED),
    "blocks.0.mlp.fc2.in:9@1,1": weight_image(FIRST[9], (1, 1), FIRST[9] @ MIXED),
    "blocks.0.mlp.fc2.in:9@class": weight_image(NONE, None, FIRST[9] @ MIXED),
    "blocks.0.attn.head1:2@class": weight_image(NONE, None, VALUE[WIDTH // 2 + 2] / TOKENS),
    "blocks.0.attn.head0:2@0,0": weight_image(NONE, None, VALUE[2] / TOKENS),
    "probe:first@1,2": behind(UNITS[0], (1, 2)),
    "probe:second@mean": behind(UNITS[1]),
    "probe:first@class": behind(UNITS[0], token=True),
    "blocks.0:7@2,4 - blocks.0:1@class": behind(EYE[7], (2, 4)) - behind(EYE[1], token=True),
    "probe:first@0,0 + 0.5*probe:second@2,2": behind(UNITS[0], (0, 0))
    + 0.5 * behind(UNITS[1], (2, 2)),
}


def climbed(subject: Subject, target: str | Target, **changes: object) -> tuple[Tensor, Tensor]:
    """Return what the network reads of a preferred input, and the score."""
    how = {"tv": 0.0, "blur": 0.0, "shift": 0, "tries": 1, "steps": 150, "norm": NORM, **changes}
    result = phosphene.synthesize(subject, target, prior="pixels", **how)
    return subject.prepare(result.inputs)[0], result.scores[0]


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


@pytest.mark.parametrize("target", TARGETS)
def test_under_a_norm_a_target_prefers_its_weights_scaled(subject: Subject, target: str) -> None:
    weights = TARGETS[target]
    found, score = climbed(subject, target)
    assert cosine(found, weights) > 0.995
    assert float(found.norm()) == pytest.approx(NORM, abs=0.05)
    assert float(score) == pytest.approx(float((found * weights).sum()), rel=1e-4)


@pytest.mark.parametrize("target", ["blocks.0.mlp.fc2.in:9@1,1", "probe:first@1,2"])
def test_the_least_preferred_input_is_the_weights_turned_round(
    subject: Subject, target: str
) -> None:
    weights = TARGETS[target]
    found, score = climbed(subject, subject.targets(target)[0].negative())
    assert cosine(found, -weights) > 0.995
    assert float(score) == pytest.approx(float((found * weights).sum()), rel=1e-4)


# ---------------------------------------------------------------- objectives of one's own

FILTERS = drawn(5, SIZE[0] * SIZE[1], seed=7) * 4


def units() -> Subject:
    """Return five linear units that see the whole image."""
    network = nn.Sequential(nn.Flatten(), layer(FILTERS))
    return phosphene.wrap(network, size=SIZE, channels=1, mean=0.5, std=0.25)


def test_a_ratio_of_two_groups_prefers_the_first_generalized_eigenvector() -> None:
    floor = 0.5

    def ratio(activations: dict[str, Tensor], target: Target) -> Tensor:
        squares = activations["1"].square()
        return squares[:2].sum() / (floor + squares[2:].sum())

    found, score = climbed(units(), "1:0", objective=ratio, steps=800)
    # with the norm |x|, the ratio is xᵀ A x / xᵀ (B + floor / |x|² · 1) x
    above = FILTERS[:2].T @ FILTERS[:2]
    below = FILTERS[2:].T @ FILTERS[2:] + floor / found.norm() ** 2 * torch.eye(FILTERS.shape[1])
    half = torch.linalg.cholesky(below.double())
    inner = torch.linalg.solve(half, torch.linalg.solve(half, above.double()).T)
    values, vectors = torch.linalg.eigh(inner)
    best = torch.linalg.solve(half.T, vectors[:, -1])
    assert float(score) > 0.98 * float(values[-1])
    assert float(score) <= float(values[-1]) * 1.001
    assert abs(cosine(found.double(), best)) > 0.98


def test_a_penalty_holds_the_other_units_at_zero_and_the_unit_at_its_inverse() -> None:
    weight = 0.5

    def penalized(activations: dict[str, Tensor], target: Target) -> Tensor:
        values = activations["1"]
        return values[0] - weight / 2 * values.square().sum()

    found, score = climbed(units(), "1:0", objective=penalized, norm=None, steps=600)
    values = FILTERS @ found.flatten()
    # the five units can take any values, and a - weight / 2 · a² is largest at 1 / weight
    wanted = torch.tensor([1 / weight, 0, 0, 0, 0])
    torch.testing.assert_close(values, wanted, atol=0.1, rtol=0)
    assert float(score) == pytest.approx(1 / (2 * weight), rel=0.01)


def test_a_contrast_of_two_groups_prefers_the_difference_of_their_means() -> None:
    def groups(activations: dict[str, Tensor], target: Target) -> Tensor:
        values = activations["1"]
        return values[:2].mean() - values[2:].mean()

    found, score = climbed(units(), "1:0", objective=groups)
    wanted = FILTERS[:2].mean(0) - FILTERS[2:].mean(0)
    assert cosine(found, wanted) > 0.995
    assert float(score) == pytest.approx(NORM * float(wanted.norm()), rel=0.01)


def test_a_text_is_answered_by_the_picture_whose_embedding_is_the_text_s() -> None:
    """There are more pixels than numbers of the embedding, so a cosine of 1 can be had."""
    text = drawn(5, seed=6)
    network = nn.Sequential(nn.Flatten(), layer(FILTERS), UnitLength())
    tower = phosphene.wrap(network, size=SIZE, channels=1, mean=0.5, std=0.25, output="2")
    tower = replace(tower, embed_text=lambda said: text if said == "a lighthouse" else -text)
    found, score = climbed(tower, 'text:"a lighthouse"', norm=None)
    assert cosine(FILTERS @ found.flatten(), text) > 0.999
    assert float(score) == pytest.approx(cosine(FILTERS @ found.flatten(), text), abs=1e-4)
    _, away = climbed(tower, 'text:"the sea" - text:"a lighthouse"', norm=None)
    assert float(away) == pytest.approx(2, abs=0.01)
