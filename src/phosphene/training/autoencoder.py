"""The first stage of a two-stage generator: an autoencoder of patches, whose decoder becomes G's second half."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.datasets import Photographs
from phosphene.networks.generator import Decoder, LatentEncoder
from phosphene.runtime import Runtime
from phosphene.subjects import Subject
from phosphene.tensors import as_images
from phosphene.training.augment import random_crops
from phosphene.training.run import (
    TOLD,
    Averaged,
    Recipe,
    RunFolder,
    Stateful,
    descend,
    one_cycle,
    placed,
    recipe_hash,
    seeded,
)
from phosphene.training.stages import DECODER


class Autoencoder(nn.Module):
    """Images in [0, 1] to latent maps and back to images in (0, 1)."""

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
        """The images again, and their latent maps; `noise` is added to what the decoder is given."""
        latents = self.encoder(images)
        return self.decoder(latents + noise).float().sigmoid(), latents


def train_autoencoder(
    recipe: Recipe,
    comparator: Subject,
    photographs: Photographs,
    runtime: Runtime,
) -> tuple[Autoencoder, bool]:
    """Train on random crops of the photographs; returns the averaged autoencoder and whether it is finished.

    Loss: mean absolute error of the image, plus the feature distance of `comparator` at the recipe's layers. Noise
    on the latents, and a penalty on their size, make the decoder forgive what the map gets slightly wrong.
    """
    stage = recipe["autoencoder"]
    own = recipe["architecture"]
    shape = {part: own[part] for part in DECODER if part in own}
    shape["encoder"] = stage["encoder"]
    seen_by = {"comparator": comparator.identity}
    settings = {"shape": shape, **stage, "seed": recipe["seed"], **seen_by}
    folder = RunFolder(runtime, recipe_hash(settings, photographs.fingerprint))
    device, processes = runtime.device, runtime.processes
    torch.manual_seed(recipe["seed"])
    network = placed(Autoencoder(**shape), device)
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99), fused=True)
    averaged = Averaged(network, 0.998)
    images = torch.from_numpy(photographs.images).to(device)
    batch, steps = processes.local_batch(stage["batch"]), stage["steps"]
    latent_shape = (shape["latent"], stage["crop"] // 8, stage["crop"] // 8)
    parts: dict[str, Stateful] = {"network": network, "optimizer": optimizer, "averaged": averaged}
    comparator.check_gradient(stage["layers"])
    with comparator.reading(stage["layers"]) as read:
        for step in folder.steps(parts, steps):
            generator = seeded(recipe["seed"], 2, step, *processes.counters)
            chosen = torch.randint(len(images), (batch,), generator=generator).to(device)
            x = as_images(images[chosen])
            x = random_crops(x, stage["crop"], generator, scale=tuple(stage["scale"]), ratio=1.1)
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                noise = stage["noise"] * torch.randn(len(x), *latent_shape, generator=generator).to(
                    device
                )
                y, latents = network(x, noise)
                with torch.no_grad():
                    wanted = read(comparator.prepare(x))
                got = read(comparator.prepare(y))
                features = feature_distance([got[layer] for layer in wanted], list(wanted.values()))
            image = (y - x).abs().mean()
            loss = stage["image"] * image + stage["feature"] * features
            loss = loss + stage["penalty"] * latents.float().square().mean()
            folder.watch(loss)
            descend(optimizer, stage["lr"] * one_cycle(step / steps), loss, processes)
            averaged.update(network, step + 1)
            if step % TOLD == 0:
                figures = {"image": image.item(), "feature": features.item()}
                runtime.progress(step + 1, steps, figures)
    finished = folder.load(parts) == steps
    return averaged.network(Autoencoder(**shape)), finished


def feature_distance(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """How far feature maps are apart: LPIPS' form (Zhang et al. 2018) without its learnt weights.

    Mean over maps and positions of the squared difference of unit-length channel vectors, in [0, 4].
    """
    distances = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
        for a, b in zip(got, wanted, strict=True)
    ]
    return torch.stack(distances).mean()
