"""The adversary: a step of a generator against its discriminator, and one of the discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.networks.discriminator import Discriminator
from phosphene.runtime import Runtime
from phosphene.training.optimization import cosine_decay, descend, mixed_precision
from phosphene.training.recipes import Recipe
from phosphene.training.run import Stateful


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

    def parts(self) -> dict[str, Stateful]:
        """Return what a checkpoint keeps."""
        return {
            "discriminator": self.discriminator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def step(
        self, step: int, loss: Tensor, real: list[Tensor], fake: list[Tensor], code: Tensor
    ) -> dict[str, Tensor]:
        """Take a step of the generator and one of the discriminator; return the latter's figures.

        The generator minimizes its `loss` and fools the discriminator. Of images and codes beyond
        the number that is real only the generator learns: no photograph has such a code, so the
        discriminator could tell them by it.
        """
        stage, processes = self.stage, self.runtime.processes
        n = len(real[0])
        share = cosine_decay(stage.get("cosine_decay", 0.0), step / stage["steps"])
        loss = loss + stage["adversarial"] * self._generator_loss(fake, code)
        descend(self.generator_optimizer, share * stage["lr"], loss, processes)
        penalty = stage["r1"] * stage["r1_every"] if step % stage["r1_every"] == 0 else 0.0
        fakes = [maps[:n] for maps in fake]
        figures = self._discriminator_loss(real, fakes, code[:n], penalty)
        rate = share * stage["lr_discriminator"]
        descend(self.discriminator_optimizer, rate, figures["loss"], processes)
        return figures

    def _generator_loss(self, fake: list[Tensor], code: Tensor) -> Tensor:
        """Return the non-saturating loss of Goodfellow et al. (2014).

        It is the mean over heads and positions.
        """
        # its own gradients are not wanted here
        self.discriminator.requires_grad_(False)
        with mixed_precision(self.runtime.device):
            logits = self.discriminator(fake, code)
        self.discriminator.requires_grad_(True)
        return torch.stack([F.softplus(-logit.float()).mean() for logit in logits]).mean()

    def _discriminator_loss(
        self, real: list[Tensor], fake: list[Tensor], code: Tensor, penalty: float
    ) -> dict[str, Tensor]:
        """Return the discriminator's loss, and its mean logits for what is real and what is not.

        `penalty` is γ of R1 (Mescheder et al. 2018): half the squared gradient of each head by its
        input, on a quarter of the real batch, in float32.
        """
        with mixed_precision(self.runtime.device):
            yes = self.discriminator(real, code)
            no = self.discriminator([x.detach() for x in fake], code)
        both = [
            F.softplus(-a.float()).mean() + F.softplus(b.float()).mean()
            for a, b in zip(yes, no, strict=True)
        ]
        loss = torch.stack(both).mean()
        if penalty:
            loss = loss + penalty / 2 * self._steepness(real, code)
        return {"loss": loss, "real": _average(yes), "fake": _average(no)}

    def _steepness(self, real: list[Tensor], code: Tensor) -> Tensor:
        """Return the squared gradient of each head by its input, the mean over heads and images."""
        few = max(1, len(code) // 4)
        inputs = [x[:few].detach().float().requires_grad_() for x in real]
        logits = self.discriminator(inputs, code[:few])
        total = torch.stack([logit.mean(1).sum() for logit in logits]).sum()
        slopes = torch.autograd.grad(total, inputs, create_graph=True)
        return torch.stack([slope.square().flatten(1).sum(1).mean() for slope in slopes]).mean()


def _average(logits: list[Tensor]) -> Tensor:
    """Return the mean of heads' logits, each head counting as much."""
    return torch.stack([logit.float().mean() for logit in logits]).mean()
