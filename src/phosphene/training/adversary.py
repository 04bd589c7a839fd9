"""The adversary: a step of a generator against its discriminator, and one of the discriminator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.networks.discriminator import Discriminator
from phosphene.training.crew import Crew
from phosphene.training.run import Recipe, descend
from phosphene.training.stages import mixed_precision


def duel(
    stage: Recipe,
    step: int,
    climber: torch.optim.Optimizer,
    judge: torch.optim.Optimizer,
    discriminator: Discriminator,
    loss: Tensor,
    real: list[Tensor],
    fake: list[Tensor],
    code: Tensor,
    device: str,
    crew: Crew,
) -> dict[str, Tensor]:
    """A step of the generator, on its `loss` and the verdict, and one of the discriminator; the latter's figures.

    Of images and codes beyond the number that is real only the generator learns: no photograph has such a code, so the
    discriminator could tell them by it.
    """
    n, share = len(real[0]), falling(stage, step)
    loss = loss + stage["adversarial"] * _fooling(discriminator, fake, code, device)
    descend(climber, share * stage["lr"], loss, crew)
    penalty = stage["r1"] * stage["r1_every"] if step % stage["r1_every"] == 0 else 0.0
    judged = _judging(discriminator, real, [maps[:n] for maps in fake], code[:n], device, penalty)
    descend(judge, share * stage["lr_discriminator"], judged["loss"], crew)
    return judged


def falling(stage: Recipe, step: int) -> float:
    """The rates' share of their full value: 1, and over the last `fall` of the recipe's steps down to 0 in a cosine."""
    left = (1 - step / stage["steps"]) / fall if (fall := stage.get("fall", 0.0)) else 1.0
    return (1 - math.cos(math.pi * min(1.0, max(0.0, left)))) / 2


def _fooling(discriminator: Discriminator, fake: list[Tensor], code: Tensor, device: str) -> Tensor:
    """The generator's side: the non-saturating loss of Goodfellow et al. (2014), mean over heads and positions."""
    discriminator.requires_grad_(False)  # the discriminator's own gradients are not wanted here
    with mixed_precision(device):
        logits = discriminator(fake, code)
    discriminator.requires_grad_(True)
    return torch.stack([F.softplus(-logit.float()).mean() for logit in logits]).mean()


def _judging(
    discriminator: Discriminator,
    real: list[Tensor],
    fake: list[Tensor],
    code: Tensor,
    device: str,
    penalty: float,
) -> dict[str, Tensor]:
    """The discriminator's side: its loss, and the mean logits of its heads for what is real and what is not.

    `penalty` is γ of R1 (Mescheder et al. 2018): half the squared gradient of each head by what it looks at, on
    a quarter of the real batch, in float32.
    """
    with mixed_precision(device):
        yes = discriminator(real, code)
        no = discriminator([x.detach() for x in fake], code)
    both = [
        F.softplus(-a.float()).mean() + F.softplus(b.float()).mean()
        for a, b in zip(yes, no, strict=True)
    ]
    loss = torch.stack(both).mean()
    if penalty:
        few = max(1, len(code) // 4)
        looked_at = [x[:few].detach().float().requires_grad_() for x in real]
        logits = discriminator(looked_at, code[:few])
        total = torch.stack([logit.mean(1).sum() for logit in logits]).sum()
        slopes = torch.autograd.grad(total, looked_at, create_graph=True)
        steepness = torch.stack(
            [slope.square().flatten(1).sum(1).mean() for slope in slopes]
        ).mean()
        loss = loss + penalty / 2 * steepness
    average = lambda logits: torch.stack([logit.float().mean() for logit in logits]).mean()  # noqa: E731
    return {"loss": loss, "real": average(yes), "fake": average(no)}
