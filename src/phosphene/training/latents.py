"""Stages 2 and 3 of a generator's training, on pairs of code and latents.

A network learns to read the code from a latent map. Then the map from code to latents is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from phosphene.kept import kept
from phosphene.networks.discriminator import CodeRegressor, Discriminator
from phosphene.networks.generator import ImageGenerator, TwoStageGenerator
from phosphene.training.adversary import Adversary
from phosphene.training.autoencoder import Autoencoder, feature_distance
from phosphene.training.inversion import Inversion
from phosphene.training.optimization import (
    Averaged,
    descend,
    mixed_precision,
    one_cycle,
    placed,
    seeded,
)
from phosphene.training.stage import Stage


@dataclass(frozen=True)
class Views:
    """Training pairs: codes (n, code) float16, latents (n, latent, h, w) float16 normalised.

    View i is photograph `i % photographs` under an augmentation that is a function of the seed
    and i.
    """

    codes: Tensor
    latents: Tensor
    latent_mean: Tensor
    latent_std: Tensor


class _PairStage(Stage):
    """Train on pairs of code and latents."""

    def __init__(self, inversion: Inversion, views: Views, name: str, seed: int):
        self.settings = inversion.recipe[name]
        self.seed, self.steps = inversion.recipe["seed"], self.settings["steps"]
        self.runtime = inversion.runtime
        self.identity = inversion.identity(name)
        torch.manual_seed(self.seed + seed)
        device = self.runtime.device
        self.codes, self.latents = views.codes.to(device), views.latents.to(device)

    def batch(self, step: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return codes and latents, in single precision."""
        n = self.runtime.processes.local_batch(self.settings["batch"])
        chosen = torch.randint(len(self.codes), (n,), generator=rng).to(self.codes.device)
        return self.codes[chosen].float(), self.latents[chosen].float()


class CodeRegressorStage(_PairStage):
    """Train a network that reads the code from a latent map, for the next stage: stage 2."""

    counter = 6
    part = "code_regressor"
    network: CodeRegressor

    def __init__(self, inversion: Inversion, views: Views):
        super().__init__(inversion, views, "code_regressor", 3)
        stage, codes = self.settings, self.codes.float()
        channels, positions = self.latents.shape[1], self.latents.shape[-1]
        regressor = CodeRegressor(channels, codes.shape[1], stage["widths"], positions=positions)
        self.network = placed(regressor, self.runtime.device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), weight_decay=stage["weight_decay"], fused=True
        )
        self.others = {"optimizer": self.optimizer}
        self.averaged = Averaged(self.network, 0.99)
        self.mean, self.std = codes.mean(0), codes.std(0).clamp(min=1e-3)

    def learn(
        self, step: int, batch: tuple[Tensor, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        codes, latents = batch
        with mixed_precision(self.runtime.device):
            _, read = self.network(latents)
        unread = (read.float() - (codes - self.mean) / self.std).square().mean()
        rate = self.settings["lr"] * one_cycle(step / self.steps)
        descend(self.optimizer, rate, unread, self.runtime.processes)
        return {"unread": unread}

    def trained(self) -> CodeRegressor:
        """Return the regressor with averaged weights."""
        regressor: CodeRegressor = super().trained()
        return regressor.requires_grad_(False)


class LatentStage(_PairStage):
    """Train the map from code to latents: stage 3.

    The loss has the latents' squared error, what the regressor finds in them, and a discriminator.

    It starts from the closed-form linear regression of latents on codes. The discriminator joins
    when the recipe's `adversarial_from` steps have settled the rest.
    """

    counter = 3
    part = "map"

    def __init__(
        self,
        inversion: Inversion,
        views: Views,
        generator: TwoStageGenerator,
        regressor: CodeRegressor,
    ):
        super().__init__(inversion, views, "latent", 1)
        stage, device = self.settings, self.runtime.device
        self.regressor = regressor
        self.generator = placed(generator, device).requires_grad_(True)
        channels = [inversion.architecture["latent"], *inversion.recipe["code_regressor"]["widths"]]
        heads = list(zip(channels, stage["halvings"], strict=True))
        discriminator = Discriminator(heads, self.codes.shape[1], stage["width"])
        self.discriminator = placed(discriminator, device)
        regress(generator, views)
        self.network = generator.map
        self.adversary = Adversary.of(stage, self.network, self.discriminator, self.runtime)
        self.others = self.adversary.parts()
        self.averaged = Averaged(self.network, stage["ema"])

    def learn(
        self, step: int, batch: tuple[Tensor, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        stage, (codes, real) = self.settings, batch
        code = (codes - self.generator.code_mean) / self.generator.code_std
        with torch.no_grad(), mixed_precision(self.runtime.device):
            real_maps, real_code = self.regressor(real)
        with mixed_precision(self.runtime.device):
            fake = self.network(code)
            fake_maps, fake_code = self.regressor(fake)
        figures = {
            "error": (fake.float() - real).square().mean(),
            "feature": feature_distance(fake_maps, real_maps),
            "cycle": (fake_code.float() - real_code.float()).square().mean(),
        }
        weighted = [stage[name] * value for name, value in figures.items()]
        loss = weighted[0] + weighted[1] + weighted[2]
        if step < stage["adversarial_from"]:
            optimizer = self.adversary.generator_optimizer
            descend(optimizer, stage["lr"], loss, self.runtime.processes)
            return figures
        maps = [real, *real_maps], [fake, *fake_maps]
        return figures | self.adversary.step(step, loss, *maps, code)

    def trained(self) -> TwoStageGenerator:
        """Return the generator with the averaged map."""
        super().trained()
        return self.generator.eval()


def cached_views(inversion: Inversion, autoencoder: Autoencoder) -> Views:
    """Return codes and latents of `views` views of each photograph; they are found once."""

    def make() -> dict[str, Tensor]:
        pairs = list(_encode(inversion, autoencoder))
        codes = torch.cat([codes for codes, _ in pairs])
        latents = torch.cat([latents for _, latents in pairs]).float()
        mean = latents.mean((0, 2, 3), keepdim=True)
        std = latents.std((0, 2, 3), keepdim=True)
        latents = ((latents - mean) / std).half()
        return {"codes": codes, "latents": latents, "mean": mean, "std": std}

    identity = inversion.identity("views")
    runtime = inversion.runtime
    file = runtime.folder / f"views-{identity[:16]}.safetensors"
    found = kept(file, {"views": identity}, make, runtime.processes)
    return Views(found["codes"], found["latents"], found["mean"], found["std"])


def _encode(
    inversion: Inversion, autoencoder: Autoencoder, batch: int = 250
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield codes and latents, (batch, …) float16, of every view of every photograph, in order."""
    device, seed = inversion.runtime.device, inversion.recipe["seed"]
    images = inversion.photographs.images
    autoencoder = autoencoder.to(device).eval()
    with inversion.code_encoder.reading([inversion.layer]) as read, torch.no_grad():
        for view in range(inversion.recipe["views"]["number"]):
            for at in range(0, len(images), batch):
                pictures = torch.from_numpy(images[at : at + batch]).to(device)
                x = inversion.views(pictures, seeded(seed, 5, view, at))
                with mixed_precision(device):
                    latents = autoencoder.encoder(x)
                    codes = inversion.codes(x, read)
                yield codes, latents.contiguous().half().cpu()


def whiten_code(generator: ImageGenerator, codes: Tensor, damped: bool = False) -> None:
    """Set the generator's code statistics from codes (n, *code).

    The variance of principal components falls far, and the last ones are hardly seen in an image.
    `damped` adds the mean variance to each, so that they weigh less.
    """
    codes = codes.float()
    std = codes.std(0)
    if damped:
        std = (std.square() + std.square().mean()).sqrt()
    generator.code_mean.copy_(codes.mean(0))
    generator.code_std.copy_(std.clamp(min=1e-3))


def whiten(generator: TwoStageGenerator, views: Views, damped: bool = False) -> None:
    """Set the generator's code and latent statistics from its training pairs."""
    whiten_code(generator, views.codes, damped)
    generator.latent_mean.copy_(views.latent_mean)
    generator.latent_std.copy_(views.latent_std)


@torch.no_grad()
def regress(
    generator: TwoStageGenerator, views: Views, most: int = 50_000, ridge: float = 1e-3
) -> None:
    """Set the map's linear part to a regression of latents on whitened codes, in closed form.

    It is a reduced-rank ridge regression (Izenman 1975).
    """
    inward, outward = cast(
        "tuple[nn.Linear, nn.Linear]", tuple(cast("nn.Sequential", generator.map.linear))
    )
    mean, std = generator.code_mean.cpu(), generator.code_std.cpu()
    x = (views.codes[:most].float() - mean) / std
    y = views.latents[:most].flatten(1).float()
    centre = y.mean(0)
    gram = x.T @ x / len(x)
    gram += ridge * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, x.T @ (y - centre) / len(x))
    root = torch.linalg.cholesky(gram)
    leading = torch.linalg.svd(root.T @ weight, full_matrices=False).Vh[: inward.out_features]
    inward.weight.copy_((weight @ leading.T).T)
    outward.weight.copy_(leading.T)
    outward.bias.copy_(centre)
