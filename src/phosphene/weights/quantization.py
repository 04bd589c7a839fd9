"""Numbers of 16, 8 and 4 bits in a weights file, and their step sizes."""

from __future__ import annotations

import torch
from torch import Tensor

STEP = ":step"
"""What the name of a tensor's step sizes ends in."""
GROUP = 32
"""Neighbouring inputs whose weights share a step size where each has 4 bits."""


def stored(name: str, value: Tensor, bits: int, filters: int) -> dict[str, Tensor]:
    """Return a tensor as a file holds it, with its step sizes beside it where it has any.

    Only weights and axes have steps. `filters` are the bits of filters, 0 for the same `bits`.
    """
    if not value.is_floating_point() or value.ndim < 2:
        return {name: value.contiguous()}
    wanted = filters if value.ndim > 2 and filters else bits
    if wanted == 16 or not name.endswith(("weight", "axes")):
        return {name: _in_half(value)}
    if wanted == 8 or value.shape[1] % GROUP:
        return _in_steps(name, value.float())
    return _in_halves(name, value.float())


def whole(value: Tensor, step: Tensor | None) -> Tensor:
    """Return a stored tensor in float32; `ValueError` where its step sizes do not fit it."""
    if step is None:
        return value.float() if value.is_floating_point() else value
    if value.dtype == torch.int8 and value.ndim >= 2 and step.shape == value.shape[:1]:
        return value.float() * step.float().view(-1, *[1] * (value.ndim - 1))
    if value.dtype == torch.uint8 and step.ndim >= 2:
        outputs, groups, *sides = step.shape
        if list(value.shape) == [outputs, GROUP // 2 * groups, *sides]:
            return _of_halves(value, step.float())
    raise ValueError("the step sizes")


def _in_half(value: Tensor) -> Tensor:
    half = value.to(torch.float16).contiguous()
    return half if bool(half.isfinite().all()) else value.float().contiguous()


def _in_steps(name: str, value: Tensor) -> dict[str, Tensor]:
    rows = value.flatten(1)
    step = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return {
        name: (rows / step[:, None]).round().to(torch.int8).view(value.shape).contiguous(),
        name + STEP: step,
    }


def _in_halves(name: str, value: Tensor) -> dict[str, Tensor]:
    """Return two inputs' weights in each byte, the first in its lower half.

    Of some step sizes it takes those with the least error.
    """
    groups = value.unflatten(1, (-1, GROUP))
    farthest = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    best = torch.zeros_like(farthest)
    least = torch.full_like(farthest, torch.inf)
    for part in torch.linspace(0.75, 1.1, 15).tolist():
        step = (farthest * (part / -8)).half().float()
        error = (_halves(groups, step) * step - groups).square().sum(2, keepdim=True)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    numbers = (_halves(groups, best) + 8).to(torch.uint8).flatten(1, 2)
    return {name: numbers[:, 0::2] | numbers[:, 1::2] << 4, name + STEP: best.squeeze(2).half()}


def _halves(groups: Tensor, step: Tensor) -> Tensor:
    """Return whole numbers from −8 to 7 that stand for the weights of each group."""
    return (groups / torch.where(step == 0, 1.0, step)).round().clamp(-8, 7)


def _of_halves(value: Tensor, step: Tensor) -> Tensor:
    """Return the weights that two halves of each byte stand for."""
    numbers = torch.stack([value & 15, value >> 4], 2).flatten(1, 2).float() - 8
    return (numbers.unflatten(1, (-1, GROUP)) * step.unsqueeze(2)).flatten(1, 2)
