"""From a generator's code to that of another one: a regression, and what is composed with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from phosphene.networks.generator import CodeToLatent, TwoStageGenerator

RIDGES = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Penalties that are tried, in the mean variance of the regressors."""
HELD_OUT = 0.1
"""The share of the pairs that chooses the penalty, and that tells how well the regression does."""


@dataclass(frozen=True, eq=False)
class Translation:
    """Hold a linear map of whitened codes, `weight` (theirs, own) and `offset` (theirs,).

    `r2` is the share of the variance that it explains in pairs held out.
    """

    weight: Tensor
    offset: Tensor
    r2: float

    @torch.no_grad()
    def compose(self, generator: TwoStageGenerator, teacher: TwoStageGenerator) -> None:
        """Make a generator draw what its teacher draws of translated codes.

        The map goes into the layers that read the code. The statistics of the code stay.
        """
        state = teacher.state_dict()
        for name in ("code_mean", "code_std"):
            state[name] = generator.state_dict()[name]
        to_latent = cast("CodeToLatent", teacher.map)
        inward, outward = cast("tuple[nn.Linear, nn.Linear]", tuple(to_latent.linear))
        for name in ("map.first.weight", "map.linear.0.weight"):
            state[name] = state[name] @ self.weight
        state["map.first.bias"] = state["map.first.bias"] + to_latent.first.weight @ self.offset
        added = outward.weight @ (inward.weight @ self.offset)
        state["map.linear.1.bias"] = state["map.linear.1.bias"] + added
        generator.load_state_dict({**generator.state_dict(), **state})

    def discriminator(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of the teacher's discriminator for the generator's own codes."""
        return {
            name: value @ self.weight if name.endswith("project.weight") else value
            for name, value in state.items()
        }


def translation_of(own: Tensor, theirs: Tensor) -> Translation:
    """Return the ridge regression of whitened codes (n, theirs) on others (n, own)."""
    n = max(1, int(len(own) * (1 - HELD_OUT)))
    mean, goal = own[:n].mean(0), theirs[:n].mean(0)
    x, y = own - mean, theirs - goal
    values, vectors = torch.linalg.eigh((x[:n].T @ x[:n] / n).double())
    product = vectors.T @ (x[:n].T @ y[:n] / n).double()
    total = y[n:].square().sum()
    best = None
    for ridge in RIDGES:
        damped = values.clamp(min=0) + ridge * values.mean()
        weight = (vectors @ (product / damped[:, None])).T.float()
        r2 = float(1 - (y[n:] - x[n:] @ weight.T).square().sum() / total)
        if best is None or r2 > best.r2:
            best = Translation(weight, goal - weight @ mean, r2)
    return cast("Translation", best)
