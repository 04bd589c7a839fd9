"""What a prior from outside must be, checked once before any work."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.code_statistics import CodeStatistics
from phosphene.errors import BadRequest, type_name
from phosphene.factories import is_from_outside, users_code
from phosphene.priors._prior import Prior

SLACK = 0.01
"""How far beyond 0 … 1 an image may go, as a resize may overshoot."""


def check_prior(prior: Prior) -> Prior:
    """Return a prior; `BadRequest` where one from outside does not draw what it says.

    Its images of two codes must have its size and its channels, and lie in 0 … 1.
    """
    if not is_from_outside(prior):
        return prior
    name = f"prior {prior.name or prior}"
    for key in ("size", "view_size"):
        with users_code(f"{name}: {key}"):
            pair = getattr(prior, key)
        if not _is_pair(pair):
            raise BadRequest(f"{name}: {key} is (height, width) in pixels; got {pair!r}")
    if any(view > side for view, side in zip(prior.view_size, prior.size, strict=True)):
        raise BadRequest(f"{name}: view_size {prior.view_size} is larger than size {prior.size}")
    if not isinstance(prior.statistics, CodeStatistics | None):
        kind = type_name(prior.statistics)
        raise BadRequest(f"{name}: statistics is phosphene's CodeStatistics or None; got {kind}")
    with users_code(name), torch.no_grad():
        codes = torch.stack([prior.start(0), prior.mean()])
        images = prior.images(codes)
    _check_images(name, prior, images)
    return prior


def _is_pair(value: object) -> bool:
    sides = value if isinstance(value, tuple) else ()
    return len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)


def _check_images(name: str, prior: Prior, images: object) -> None:
    wanted = (2, prior.channels, *prior.size)
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type_name(images)
        raise BadRequest(
            f"{name}: images returns floats of shape {wanted} for two codes; got {kind}"
        )
    if images.shape != wanted:
        raise BadRequest(
            f"{name}: images of two codes are (2, channels, height, width), so {wanted} by its "
            f"size and channels; got {tuple(images.shape)}"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= -SLACK and high <= 1 + SLACK):
        raise BadRequest(
            f"{name}: images lie in 0 … 1; got {low:g} … {high:g}; "
            "write images / 255 for 0 … 255, (images + 1) / 2 for -1 … 1"
        )


def check_gradient(prior: Prior) -> None:
    """Refuse with `BadRequest` a prior from outside whose images have no gradient."""
    if not is_from_outside(prior):
        return
    name = f"prior {prior.name or prior}"
    with users_code(name), torch.enable_grad():
        images = prior.images(prior.mean()[None].requires_grad_())
    if not images.requires_grad:
        raise BadRequest(
            f"no gradient comes through the images of {name} to its codes; no_grad, detach and "
            "rounding cut it; an optimizer without gradients does not need it"
        )
