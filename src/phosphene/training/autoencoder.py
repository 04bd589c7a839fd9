"""The first stage of a two-stage generator: an autoencoder of photographs.

Its decoder becomes the generator's second half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.networks.generator import Decoder, LatentEncoder
from phosphene.tensors import as_images
from phosphene.training.augment import random_crops
from phosphene.training.inversion import DECODER, Inversion
from phosphene.training.optimization import Averaged, descend, mixed_precision, one_cycle, placed
from phosphene.training.recipes import recipe_hash
from phosphene.training.stage import Stage


class Autoencoder(nn.Module):
    """Map images in [0, 1] to latent maps and back to images in (0, 1)."""

    def __init__(
        self,
        latent: int,
        encoder: list[int],
        decoder: list[int],
        decoder_blocks: Sequence[int] = (0, 0, 0),
    ):
        super().__init__()
        self.encoder = LatentEncoder(latent, encoder)
        self.decoder = Decoder(latent, decoder, decoder_blocks)

    def forward(self, images: Tensor, noise: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the images again, and their latent maps.

        `noise` is added to what the decoder is given.
        """
        latents = self.encoder(images)
        return self.decoder(latents + noise).float().sigmoid(), latents


class AutoencoderStage(Stage):
    """Train the autoencoder on random crops of the photographs: stage 1.

    Its loss is the mean absolute error of the image, and the feature distance by the encoder at
    the recipe's layers. Noise on the latents, and a penalty on their size, make the decoder forgive
    what the map gets slightly wrong.
    """

    counter = 2

    def __init__(self, inversion: Inversion):
        recipe = inversion.recipe
        self.settings = stage = recipe["autoencoder"]
        self.seed, self.steps = recipe["seed"], stage["steps"]
        self.runtime = inversion.runtime
        self.comparator = inversion.encoder
        own = inversion.architecture
        self.shape = {part: own[part] for part in DECODER if part in own}
        self.shape["encoder"] = stage["encoder"]
        fixed = {"shape": self.shape, **stage, "seed": self.seed}
        fixed["comparator"] = self.comparator.identity
        self.identity = recipe_hash(fixed, inversion.photographs.fingerprint)
        torch.manual_seed(self.seed)
        device = self.runtime.device
        self.network = placed(Autoencoder(**self.shape), device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=(0.9, 0.99), fused=True)
        self.others = {"optimizer": self.optimizer}
        self.averaged = Averaged(self.network, 0.998)
        self.images = torch.from_numpy(inversion.photographs.images).to(device)

    @contextmanager
    def reading(self) -> Iterator[None]:
        self.comparator.check_gradient(self.settings["layers"])
        with self.comparator.reading(self.settings["layers"]) as self.read:
            yield

    def batch(self, step: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return crops, and the noise that is added to their latents."""
        stage, images = self.settings, self.images
        n = self.runtime.processes.local_batch(stage["batch"])
        chosen = torch.randint(len(images), (n,), generator=rng).to(images.device)
        crop, scale = stage["crop"], tuple(stage["scale"])
        x = random_crops(as_images(images[chosen]), crop, rng, scale=scale, ratio=1.1)
        shape = (self.shape["latent"], crop // 8, crop // 8)
        return x, stage["noise"] * torch.randn(n, *shape, generator=rng).to(images.device)

    def learn(
        self, step: int, batch: tuple[Tensor, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        stage, (x, noise) = self.settings, batch
        with mixed_precision(self.runtime.device):
            y, latents = self.network(x, noise)
            with torch.no_grad():
                wanted = self.read(self.comparator.prepare(x))
            got = self.read(self.comparator.prepare(y))
            feature = feature_distance([got[layer] for layer in wanted], list(wanted.values()))
        image = (y - x).abs().mean()
        loss = stage["image"] * image + stage["feature"] * feature
        loss = loss + stage["penalty"] * latents.float().square().mean()
        rate = stage["lr"] * one_cycle(step / self.steps)
        descend(self.optimizer, rate, loss, self.runtime.processes)
        return {"image": image, "feature": feature, "loss": loss}


def feature_distance(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Return how different feature maps are: LPIPS (Zhang et al. 2018) without its learnt weights.

    It is the mean over maps and positions of the squared difference of unit-length channel
    vectors, in [0, 4].
    """
    distances = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
        for a, b in zip(got, wanted, strict=True)
    ]
    return torch.stack(distances).mean()
