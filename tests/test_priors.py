"""Priors and code statistics against their closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from phosphene.code_statistics import CodeStatistics
from phosphene.constraints import Box, Constraint, Free, Gaussian
from phosphene.errors import BadRequest
from phosphene.priors import Generated
from phosphene.priors.fourier import Fourier
from phosphene.priors.pixels import Pixels
from phosphene.tensors import blurred, center_crop, total_variation
from phosphene.testing import statistics_of
from phosphene.training.initialization import code_statistics


def drawn(n: int = 500, code: int = 6) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(n, code).double() @ torch.randn(code, code).double() + torch.arange(code)


def bounded(mean: list[float], std: list[float], lower: float = 0.0) -> CodeStatistics:
    """Return statistics of which only the mean, the deviation and the lower bound count."""
    kept = CodeStatistics.standard(len(mean))
    like = torch.tensor(mean)
    least = torch.full_like(like, lower)
    return replace(kept, mean=like, std=torch.tensor(std), lower=least)


def test_the_box_clips_each_unit_to_its_own_bounds_and_then_decays() -> None:
    box = Box(0.5, sigmas=1).fit(bounded([0.5, 1.0, 1.5], [0.5, 1.0, 1.5]))
    assert box(torch.tensor([[-1.0, 1.0, 9.0], [5.0, 5.0, 1.0]])).tolist() == [
        [0.0, 0.5, 1.5],
        [0.5, 1.0, 0.5],
    ]


def test_the_papers_box_is_three_deviations_above_the_mean() -> None:
    codes = drawn()
    statistics = statistics_of(codes)
    box = Box().fit(statistics)
    torch.testing.assert_close(
        box(torch.full((1, 6), 1e9).double())[0], 0.99 * (codes.mean(0) + 3 * codes.std(0))
    )
    lowest = torch.maximum(codes.amin(0), codes.mean(0) - 3 * codes.std(0))
    torch.testing.assert_close(box(torch.full((1, 6), -1e9).double())[0], 0.99 * lowest)
    positive = Box().fit(statistics_of(codes.abs()))
    assert (positive(torch.full((1, 6), -1e9).double()) == 0).all()
    _, upper = Box(1.0, sigmas=1.0).bounds(statistics)
    torch.testing.assert_close(upper, codes.mean(0) + codes.std(0))


def test_the_gaussian_goes_its_share_of_the_way_to_the_mean_inside_the_codes_range() -> None:
    statistics = bounded([1.0] * 6, [1.0] * 6)
    code = torch.tensor([[1.0, 2.0, 3.0, 4.0, 100.0, -100.0]])
    wanted = (code + 0.1 * (statistics.mean - code)).clamp(0, 5)
    torch.testing.assert_close(Gaussian(0.9, sigmas=4).fit(statistics)(code), wanted)
    nearly = Gaussian(1e-6).fit(statistics)(code)
    torch.testing.assert_close(nearly[0], statistics.mean, atol=1e-3, rtol=0)


def test_statistics_without_a_lower_bound_are_those_of_a_relu_or_reflect_the_upper_one() -> None:
    kept = {name: getattr(statistics_of(drawn()), name) for name in CodeStatistics.__annotations__}
    assert torch.equal(CodeStatistics.of(kept).lower, kept["lower"])
    del kept["lower"]
    reflected = CodeStatistics.of({**kept, "mean": torch.full((6,), -1.0).double()})
    torch.testing.assert_close(reflected.lower, (-2 - kept["upper"]).clamp(max=0))
    assert (CodeStatistics.of({**kept, "mean": kept["mean"].abs()}).lower == 0).all()


def test_no_constraint_changes_nothing() -> None:
    code = torch.randn(2, 3)
    assert torch.equal(Free(1.0).fit(None)(code), code)


@pytest.mark.parametrize("constraint", [Box(), Gaussian(0.8)])
def test_each_code_is_pulled_by_itself(constraint: Constraint) -> None:
    codes = drawn(4)
    constrained = constraint.fit(statistics_of(drawn()))
    alone = torch.cat([constrained(code[None]) for code in codes])
    assert torch.equal(constrained(codes), alone)


def test_a_constraint_of_a_code_needs_its_statistics() -> None:
    with pytest.raises(BadRequest, match="needs the statistics"):
        Gaussian().fit(None)


@pytest.mark.parametrize("axes", [1, 3, 6])
def test_whitening_undoes_colouring(axes: int) -> None:
    statistics, vectors = statistics_of(drawn(), axes), torch.randn(5, 6).double()
    torch.testing.assert_close(
        statistics.whitened(statistics.whitened(vectors, 1.0), -1.0), vectors
    )
    torch.testing.assert_close(
        statistics.whitened(statistics.whitened(vectors, -1.0), 1.0), vectors
    )


def test_with_all_axes_power_two_is_the_covariance_and_whitened_codes_are_white() -> None:
    codes = drawn()
    statistics = statistics_of(codes, 6)
    torch.testing.assert_close(statistics.whitened(torch.eye(6).double(), 2.0), torch.cov(codes.T))
    white = statistics.whitened(codes - statistics.mean)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(6).double(), atol=1e-9, rtol=0)


def test_off_the_axes_every_direction_has_the_mean_variance() -> None:
    codes = drawn()
    statistics = statistics_of(codes, 2)
    values = torch.linalg.eigvalsh(torch.cov(codes.T)).flip(0)
    covariance = statistics.whitened(torch.eye(6).double(), 2.0)
    wanted = torch.cat([values[:2], values[2:].mean().repeat(4)])
    torch.testing.assert_close(
        torch.linalg.eigvalsh(covariance).flip(0), wanted.sort(descending=True).values
    )


def test_codes_of_several_axes_are_whitened_as_flat_ones() -> None:
    statistics, vectors = statistics_of(drawn(), 3), torch.randn(5, 6).double()
    shaped = statistics.whitened(vectors.view(5, 2, 3), -1.0)
    assert torch.equal(shaped.flatten(1), statistics.whitened(vectors, -1.0))


@pytest.mark.parametrize("code", [6, 70])
def test_measured_statistics_are_the_closed_forms(code: int) -> None:
    """Also for a code of fewer units than there are axes."""
    codes = drawn(3000, code)
    found = CodeStatistics.of(code_statistics(codes))
    wanted = statistics_of(codes, min(code, 64))
    for name in ("mean", "std", "variances", "rest"):
        torch.testing.assert_close(
            getattr(found, name), getattr(wanted, name).float(), rtol=1e-3, atol=1e-3
        )
    torch.testing.assert_close(
        found.axes @ found.axes.T, torch.eye(len(found.axes)), atol=1e-4, rtol=0
    )
    sizes = (codes.float() <= found.upper).float().mean(0)
    assert ((sizes >= 0.998) & (sizes <= 1)).all()
    below = (codes.float() < found.lower).float().mean(0)
    assert (below <= 0.0011).all()
    assert (found.lower <= 0).all()
    never = CodeStatistics.of(code_statistics(codes.abs() + 1))
    assert (never.lower == 0).all()
    vectors = torch.randn(3, code)
    torch.testing.assert_close(
        found.whitened(found.whitened(vectors, 1.0)), vectors, rtol=1e-2, atol=1e-2
    )


def test_a_random_start_is_a_draw_from_the_codes_gaussian() -> None:
    codes = drawn() + 40  # far above 0, where nothing is cut
    generator = torch.nn.Module()
    generator.image_size = generator.view_size = 8
    generated = Generated(generator, statistics_of(codes, 6))
    starts = torch.stack([generated.start(seed) for seed in range(4000)])
    torch.testing.assert_close(starts.mean(0), codes.mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cov(starts.T), torch.cov(codes.T), atol=0.6, rtol=0.1)
    rectified = Generated(generator, statistics_of((drawn() - 3).relu(), 6))
    assert (rectified.start(0) >= 0).all(), "as the encoder's ReLU leaves it"
    normal = torch.stack([CodeStatistics.standard(6).drawn(seed) for seed in range(2000)])
    torch.testing.assert_close(torch.cov(normal.T), torch.eye(6), atol=0.12, rtol=0)


# ---------------------------------------------------------------- the other priors


@pytest.mark.parametrize("size", [15, 16])
def test_an_image_goes_to_its_code_and_back(size: int) -> None:
    image = 0.05 + 0.9 * torch.rand(3, size, size)
    for prior in (Pixels(size), Fourier(size)):
        torch.testing.assert_close(
            prior.images(prior.encode(image)[None])[0], image, atol=2e-4, rtol=0
        )
        assert prior.start(0).shape == prior.mean().shape == prior.encode(image).shape
        middle = prior.images(prior.mean()[None])
        torch.testing.assert_close(middle, torch.full_like(middle, 0.5))


def test_a_random_fourier_image_is_smoother_than_random_pixels() -> None:
    fourier, pixels = Fourier(32), Pixels(32)
    for seed in range(3):
        images = [prior.images(prior.start(seed)[None]) for prior in (fourier, pixels)]
        rough = [float(total_variation(image)[0] / image.std()) for image in images]
        assert rough[0] < 0.8 * rough[1]


def test_total_variation_is_the_mean_step_between_neighbours() -> None:
    ramp = torch.arange(8.0).repeat(8, 1)[None, None].repeat(1, 3, 1, 1) / 8
    torch.testing.assert_close(total_variation(ramp), torch.tensor([1 / 8]))
    torch.testing.assert_close(total_variation(ramp.transpose(2, 3)), torch.tensor([1 / 8]))
    assert total_variation(torch.full((2, 3, 8, 8), 0.3)).tolist() == [0.0, 0.0]


def test_blur_keeps_a_flat_image_and_spreads_a_point_as_a_gaussian() -> None:
    flat = torch.full((1, 3, 12, 12), 0.3)
    torch.testing.assert_close(blurred(flat, 1.0), flat)
    point = torch.zeros(1, 3, 21, 21)
    point[..., 10, 10] = 1
    spread = blurred(point, 1.5)[0, 0]
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    squares = (torch.arange(21) - 10.0) ** 2
    torch.testing.assert_close(spread.sum(1) @ squares, torch.tensor(1.5**2), rtol=0.05, atol=0)
    assert torch.equal(spread, spread.T)
    assert torch.equal(blurred(point, 0.0), point)


def test_the_seen_part_is_the_centre_moved_by_rows_and_columns() -> None:
    images = torch.arange(2 * 3 * 16 * 16.0).view(2, 3, 16, 16)
    assert torch.equal(center_crop(images, 14), images[..., 1:15, 1:15])
    moved = center_crop(images, 12, [(2, -1), (-2, 0)])
    assert torch.equal(moved[0], images[0, :, 4:16, 1:13])
    assert torch.equal(moved[1], images[1, :, 0:12, 2:14])
