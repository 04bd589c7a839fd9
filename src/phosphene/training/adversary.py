"""The adversary: a step of a generator against its discriminator, and one of the discriminator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.networks.discriminator import Discriminator
from phosphene.runtime import Runtime
from phosphene.training.run import Recipe, Stateful, descend
from phosphene.training.stages import mixed_precision


@dataclass(frozen=True, eq=False)
class Adversary:
    """A discriminator, and the optimizers of it and of its generator, for a `stage` of a recipe."""

    stage: Recipe
    discriminator: Discriminator
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    runtime: Runtime

    @classmethod
    def of(
        cls, stage: Recipe, learning: nn.Module, discriminator: Discriminator, runtime: Runtime
    ) -> Adversary:
        """Return a discriminator against a network that is `learning`, each with an Adam."""
        adam = partial(torch.optim.Adam, betas=(0.5, 0.99), fused=True)
        ours, theirs = adam(learning.parameters()), adam(discriminator.parameters())
        return cls(stage, discriminator, ours, theirs, runtime)

    def optimizers(self) -> dict[str, Stateful]:
        """Return the optimizers as parts of a checkpoint."""
        return {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }


def adversarial_step(
    adversary: Adversary,
    step: int,
    loss: Tensor,
    real: list[Tensor],
    fake: list[Tensor],
    code: Tensor,
) -> dict[str, Tensor]:
    """Take a step of the generator and one of the discriminator, and return the latter's figures.

    The generator minimizes its `loss` and fools the discriminator. Of images and codes beyond the
    number that is real only the generator learns: no photograph has such a code, so the
    discriminator could tell them by it.
    """
    stage, discriminator = adversary.stage, adversary.discriminator
    device, processes = adversary.runtime.device, adversary.runtime.processes
    n = len(real[0])
    share = cosine_decay(stage, step)
    loss = loss + stage["adversarial"] * _generator_loss(discriminator, fake, code, device)
    descend(adversary.generator_optimizer, share * stage["lr"], loss, processes)
    penalty = stage["r1"] * stage["r1_every"] if step % stage["r1_every"] == 0 else 0.0
    fakes = [maps[:n] for maps in fake]
    figures = _discriminator_loss(discriminator, real, fakes, code[:n], device, penalty)
    rate = share * stage["lr_discriminator"]
    descend(adversary.discriminator_optimizer, rate, figures["loss"], processes)
    return figures


def cosine_decay(stage: Recipe, step: int) -> float:
    """The rates' share of their full value: 1, and over the last `fall` of the recipe's steps down to 0 in a cosine."""
    left = (1 - step / stage["steps"]) / fall if (fall := stage.get("fall", 0.0)) else 1.0
    return (1 - math.cos(math.pi * min(1.0, max(0.0, left)))) / 2


def _generator_loss(
    discriminator: Discriminator, fake: list[Tensor], code: Tensor, device: str
) -> Tensor:
    """The generator's side: the non-saturating loss of Goodfellow et al. (2014), mean over heads and positions."""
    discriminator.requires_grad_(False)  # the discriminator's own gradients are not wanted here
    with mixed_precision(device):
        logits = discriminator(fake, code)
    discriminator.requires_grad_(True)
    return torch.stack([F.softplus(-logit.float()).mean() for logit in logits]).mean()


def _discriminator_loss(
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
