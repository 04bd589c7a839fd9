"""A generator's second stage: its beginning, what it learns on, and runs that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from phosphene import weights
from phosphene.datasets import Photographs, Stream
from phosphene.errors import BadFile, BadRequest
from phosphene.images import write_png
from phosphene.networks import build
from phosphene.networks.enlarger import EnlargedGenerator, Enlarger, enlarged
from phosphene.priors import Generated, load_generated
from phosphene.runtime import Runtime
from phosphene.testing import write_subject
from phosphene.training.enlarge import Pairs, cached_pairs, drawn, style, train_enlarger, view, worn
from phosphene.training.optimization import seeded
from phosphene.training.recipes import Recipe, read_recipe

pytestmark = pytest.mark.training

TRAINED = Path(__file__).parent.parent / "weights" / "enlarger.safetensors"
TINY = {"widths": [8, 8, 4], "blocks": [1, 1, 1]}


def flops(network: torch.nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(x)
    return int(counted.get_total_flops())


def test_begins_as_the_plain_enlargement_and_costs_no_more_than_the_first_stage() -> None:
    enlarger = build(dict(read_recipe("enlarger")["architecture"]))
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(enlarger(images), enlarged(images).clamp(0, 1), atol=0.02)
    generator = load_generated("objects-fc6").generator
    assert flops(enlarger, images[:1]) <= flops(generator, torch.zeros(1, 1024))


def test_the_trained_one_sharpens_and_keeps_what_it_enlarges() -> None:
    if not TRAINED.is_file():
        pytest.skip("its weights are not here")
    file = weights.read(TRAINED, "enlarger")
    enlarger = weights.fill(build(file.card["architecture"]), file.part("network"), TRAINED.name)
    images = load_generated("objects-fc6").images(torch.rand(2, 1024) * 2)
    with torch.no_grad():
        large, plain = enlarger(images), enlarged(images).clamp(0, 1)
    rough = lambda x: (x[..., 1:] - x[..., :-1]).abs().mean()  # noqa: E731
    assert rough(large) > 1.1 * rough(plain)
    apart = torch.nn.functional.avg_pool2d(large - plain, 4).abs().mean()
    assert apart < 0.03


def test_doubles_pictures_of_any_sides_that_are_multiples_of_four() -> None:
    enlarger = Enlarger(**TINY)
    assert enlarger(torch.rand(1, 3, 12, 20)).shape == (1, 3, 24, 40)
    with pytest.raises(ValueError, match="multiples of four"):
        enlarger(torch.rand(1, 3, 12, 18))


def test_stays_in_range_whatever_it_has_learnt() -> None:
    enlarger = Enlarger(**TINY)
    torch.nn.init.normal_(enlarger.last.weight, std=1.0)
    made = enlarger(torch.rand(4, 3, 16, 16))
    assert made.min() >= 0
    assert made.max() <= 1


def test_adds_nothing_that_alternates_from_pixel_to_pixel() -> None:
    enlarger = Enlarger(**TINY)
    torch.nn.init.normal_(enlarger.last.weight, std=1.0)
    added = enlarger.added(torch.full((1, 3, 32, 32), 0.3)).detach()[..., 16:-16, 16:-16]
    board = (-1.0) ** (torch.arange(32)[:, None] + torch.arange(32))
    assert (added * board).mean((2, 3)).abs().max() < 1e-3 * added.abs().max() + 1e-6


@pytest.mark.parametrize(
    "wrong", [{"widths": [8, 8]}, {"blocks": [1, 1, 65]}, {"widths": [0, 8, 4]}]
)
def test_refuses_what_is_no_architecture(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadFile, match="enlarger"):
        build({"name": "enlarger", **TINY, **wrong})


def test_an_enlarged_generator_is_climbed_as_any_other(generated: Generated) -> None:
    both = EnlargedGenerator(generated.generator, Enlarger(**TINY))
    assert (both.image_size, both.view_size) == (
        2 * generated.image_size,
        2 * generated.view_size[0],
    )
    codes = torch.zeros(2, *both.code_shape, requires_grad=True)
    images = Generated(both, generated.statistics).images(codes)
    images[..., 3, 3].sum().backward()
    assert images.shape == (2, 3, both.image_size, both.image_size)
    assert codes.grad is not None
    assert bool((codes.grad != 0).any())


def test_a_view_is_a_piece_at_the_size_that_is_asked_for() -> None:
    image = torch.arange(3 * 40 * 40).view(3, 40, 40) / 4800
    assert view(image, 32, seeded(0)).shape == (1, 3, 32, 32)
    assert torch.equal(view(image, 40, seeded(0))[0], image)
    assert view(image, 64, seeded(0)).shape == (1, 3, 64, 64)


def test_a_batch_holds_pieces_of_one_place() -> None:
    row = torch.arange(64, dtype=torch.uint8)[:, None].expand(64, 64)
    large = torch.stack([row, row.T, torch.zeros_like(row)], 2)[None]
    again, beyond = large[:, ::2, ::2] + 100, large[:, ::2, ::2] + 150
    stage: Recipe = {
        "photographs": 1,
        "reconstructed": 1,
        "extrapolated": 1,
        "crop": 16,
        "blur": 0,
        "noise": 0,
    }
    small, wanted = drawn(Pairs(large, again, beyond), stage, seeded(3, 1))
    assert (small.shape, wanted.shape) == ((3, 3, 16, 16), (3, 3, 32, 32))
    halved = torch.nn.functional.avg_pool2d(wanted, 2) * 255
    assert torch.allclose(small[0, :, 1:-1, 1:-1] * 255, halved[0, :, 1:-1, 1:-1], atol=1)
    assert torch.allclose(small[1, :2] * 255, halved[1, :2] + 100, atol=1)
    assert torch.allclose(small[2, :2] * 255, halved[2, :2] + 150, atol=1)


def test_a_worn_picture_is_softer_and_rougher_but_the_same() -> None:
    image = torch.rand(1, 3, 32, 32).round()
    soft = worn(image, 2.0, 0.0, seeded(0))
    assert soft.std() < image.std()
    assert torch.equal(soft, worn(image, 2.0, 0.0, seeded(0)))
    rough = worn(image * 0 + 0.5, 0.0, 0.1, seeded(0)) - 0.5
    assert 0 < rough.std() <= 0.1
    assert rough.mean().abs() < 0.02


def test_style_forgets_where_things_are() -> None:
    maps = torch.rand(2, 3, 4, 4)
    assert style(maps).shape == (2, 6, 1, 1)
    assert torch.allclose(style(maps), style(maps.flip(2, 3)))
    assert not torch.allclose(style(maps), style(maps / 2))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Return the bundled recipe, made so small that a step takes moments."""
    found = read_recipe("enlarger")
    found["architecture"] = {"name": "enlarger", **TINY}
    found["pixels"] = 40
    tiny = {
        "crop": 16,
        "photographs": 2,
        "reconstructed": 1,
        "extrapolated": 1,
        "steps": 4,
        "width": 8,
    }
    layers = {
        "comparator_layers": ["conv1"],
        "style_layers": ["conv2"],
        "discriminator_layers": ["conv2"],
        "halvings": [1, 0],
    }
    comparator = str(write_subject(tmp_path / "comparator.safetensors"))
    found["enlarge"] |= {**tiny, **layers, "comparator": comparator}
    return found


@pytest.fixture
def stream(tmp_path: Path, photographs: Callable[..., Photographs]) -> Callable[[int], Stream]:
    """Return a maker of synthetic photographs of 40 pixels, in a folder of class folders."""

    def make(n: int) -> Stream:
        folder = tmp_path / f"photographs-{n}"
        for i, pixels in enumerate(photographs(n, 40).images):
            write_png(folder / "train" / f"kind {i % 2}" / f"{i}.png", pixels)
        return Stream(folder, "train", 40)

    return make


@pytest.fixture
def prior(zoo: Path) -> Generated:
    return load_generated(zoo / "generator.safetensors")


def test_a_killed_run_goes_on_to_the_same_bits(
    recipe: Recipe, prior: Generated, tmp_path: Path, stream: Callable[[int], Stream]
) -> None:
    whole = train_enlarger(recipe, prior, stream(6), tmp_path / "whole", held_out=stream(3))
    assert whole.finished
    assert list((tmp_path / "whole" / "pictures").glob("enlarged-*.png"))
    stopped = train_enlarger(recipe, prior, stream(6), Runtime(tmp_path / "cut", progress=stopping))
    assert (stopped.finished, stopped.steps) == (False, 1)
    resumed = train_enlarger(recipe, prior, stream(6), tmp_path / "cut")
    for one, other in zip(whole.enlarger.parameters(), resumed.enlarger.parameters(), strict=True):
        assert torch.equal(one, other)


def stopping(step: int, steps: int, figures: dict[str, float]) -> None:
    """Stop a run politely after its first step."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_training_goes_on_from_what_another_run_left(
    recipe: Recipe, prior: Generated, tmp_path: Path, stream: Callable[[int], Stream]
) -> None:
    first = train_enlarger(recipe, prior, stream(6), tmp_path / "first")
    tensors = {
        f"{part}.{name}": value
        for part, kept in first.helpers.items()
        for name, value in kept.items()
    }
    card = {
        "name": "enlarger-training",
        "kind": "training",
        "architecture": recipe["architecture"],
        "steps": first.steps,
    }
    weights.write(tmp_path / "left.safetensors", tensors, card)
    left = weights.read(tmp_path / "left.safetensors", "training")
    recipe["enlarge"] |= {"steps": 1, "lr": 0.0, "lr_discriminator": 0.0}
    second = train_enlarger(recipe, prior, stream(6), tmp_path / "second", init_from=left)
    assert second.steps == 5
    for name, value in second.enlarger.state_dict().items():
        assert torch.allclose(value, first.enlarger.state_dict()[name], atol=1e-3)
    recipe["enlarge"] |= {"lr": 0.1}
    third = train_enlarger(recipe, prior, stream(6), tmp_path / "third", init_from=left)
    assert not torch.allclose(
        third.enlarger.low[0].body[1].weight, second.enlarger.low[0].body[1].weight
    )


def test_what_the_prior_makes_is_computed_once(
    prior: Generated,
    tmp_path: Path,
    stream: Callable[[int], Stream],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = cached_pairs(0, prior, stream(5), Runtime(tmp_path / "run"))
    assert first.large.shape == (5, 32, 32, 3)
    assert first.reconstructed.shape == first.extrapolated.shape == (5, 16, 16, 3)
    monkeypatch.setattr(prior, "generator", None)
    assert torch.equal(
        cached_pairs(0, prior, stream(5), Runtime(tmp_path / "run")).reconstructed,
        first.reconstructed,
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [({"crop": 32}, "crop"), ({"crop": 12}, "crop"), ({"halvings": [1]}, "halvings")],
)
def test_refuses_a_recipe_that_cannot_be(
    change: dict[str, Any],
    told: str,
    recipe: Recipe,
    prior: Generated,
    tmp_path: Path,
    stream: Callable[[int], Stream],
) -> None:
    recipe["enlarge"] |= change
    with pytest.raises(BadRequest, match=told):
        train_enlarger(recipe, prior, stream(4), tmp_path / "run")
