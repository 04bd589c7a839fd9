"""Stages 2 and 3 of a generator's training: pairs of code and latents, a reader of latents, the map between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from phosphene.datasets import Photographs
from phosphene.kept import kept
from phosphene.networks.discriminator import Discriminator, LatentReader
from phosphene.networks.generator import ImageGenerator, TwoStageGenerator
from phosphene.runtime import Runtime
from phosphene.subjects import Subject
from phosphene.tensors import center_crop
from phosphene.training.adversary import Adversary, adversarial_step
from phosphene.training.autoencoder import Autoencoder, feature_distance
from phosphene.training.run import (
    Averaged,
    Recipe,
    RunFolder,
    Stateful,
    descend,
    one_cycle,
    placed,
    seeded,
)
from phosphene.training.stages import (
    drawn_views,
    kept_codes,
    mixed_precision,
    stage_identity,
    tell,
)


@dataclass(frozen=True)
class Views:
    """Cached training pairs: codes (n, code) float16, latents (n, latent, h, w) float16 normalised, and their source.

    View i is photograph `i % photographs` under an augmentation that is a function of the seed and i.
    """

    codes: Tensor
    latents: Tensor
    latent_mean: Tensor
    latent_std: Tensor


def train_reader(
    recipe: Recipe,
    views: Views,
    runtime: Runtime,
    identity: str,
) -> tuple[LatentReader, bool]:
    """Stage 2: a network that reads the code off a latent map, for the next stage to look through."""
    stage = recipe["reader"]
    folder = RunFolder(runtime, identity)
    device, processes = runtime.device, runtime.processes
    torch.manual_seed(recipe["seed"] + 3)
    codes, latents = views.codes.to(device), views.latents.to(device)
    shape = {"latent": latents.shape[1], "code": codes.shape[1], "widths": stage["widths"]}
    fresh = lambda: LatentReader(**shape, positions=latents.shape[-1])  # noqa: E731
    reader = placed(fresh(), device)
    optimizer = torch.optim.AdamW(
        reader.parameters(), weight_decay=stage["weight_decay"], fused=True
    )
    averaged = Averaged(reader, 0.99)
    parts: dict[str, Stateful] = {"reader": reader, "optimizer": optimizer, "averaged": averaged}
    mean, std = codes.float().mean(0), codes.float().std(0).clamp(min=1e-3)
    steps = stage["steps"]
    for step in folder.steps(parts, steps):
        rng = seeded(recipe["seed"], 6, step, *processes.counters)
        chosen = torch.randint(
            len(codes), (processes.local_batch(stage["batch"]),), generator=rng
        ).to(device)
        with mixed_precision(device):
            _, read = reader(latents[chosen].float())
        unread = (read.float() - (codes[chosen].float() - mean) / std).square().mean()
        folder.watch(unread)
        descend(optimizer, stage["lr"] * one_cycle(step / steps), unread, processes)
        averaged.update(reader, step + 1)
        tell(folder, step, steps, {"unread": unread})
    finished = folder.load(parts) == steps
    return averaged.network(fresh()).requires_grad_(False), finished


def train_latent(
    recipe: Recipe,
    generator: TwoStageGenerator,
    reader: LatentReader,
    views: Views,
    runtime: Runtime,
    identity: str,
) -> tuple[TwoStageGenerator, Discriminator, bool]:
    """Stage 3: squared error of the latents, what the reader sees in them, and a discriminator of both.

    It starts from the closed-form linear regression of latents on codes; the discriminator joins when the
    recipe's `adversarial_from` steps have settled the rest.
    """
    stage = recipe["latent"]
    folder = RunFolder(runtime, identity)
    device, processes = runtime.device, runtime.processes
    torch.manual_seed(recipe["seed"] + 1)
    generator = placed(generator, device).requires_grad_(True)
    channels = [recipe["architecture"]["latent"], *recipe["reader"]["widths"]]
    discriminator = Discriminator(
        list(zip(channels, stage["halvings"], strict=True)), views.codes.shape[1], stage["width"]
    )
    discriminator = placed(discriminator, device)
    regress(generator, views)
    adversary = Adversary.of(stage, generator.map, discriminator, runtime)
    averaged = Averaged(generator.map, stage["ema"])
    parts: dict[str, Stateful] = {
        "map": generator.map,
        "discriminator": discriminator,
        **adversary.optimizers(),
        "averaged": averaged,
    }
    codes, latents = views.codes.to(device), views.latents.to(device)
    batch, steps = processes.local_batch(stage["batch"]), stage["steps"]
    for step in folder.steps(parts, steps):
        rng = seeded(recipe["seed"], 3, step, *processes.counters)
        chosen = torch.randint(len(codes), (batch,), generator=rng).to(device)
        code = (codes[chosen].float() - generator.code_mean) / generator.code_std
        real = latents[chosen].float()
        with torch.no_grad(), mixed_precision(device):
            real_maps, real_code = reader(real)
        with mixed_precision(device):
            fake = generator.map(code)
            fake_maps, fake_code = reader(fake)
        error = (fake.float() - real).square().mean()
        feature = feature_distance(fake_maps, real_maps)
        cycle = (fake_code.float() - real_code.float()).square().mean()
        loss = stage["error"] * error + stage["feature"] * feature + stage["cycle"] * cycle
        figures = {"error": error, "feature": feature, "cycle": cycle}
        folder.watch(loss)
        if step < stage["adversarial_from"]:
            descend(adversary.generator_optimizer, stage["lr"], loss, processes)
        else:
            maps = [real, *real_maps], [fake, *fake_maps]
            figures |= adversarial_step(adversary, step, loss, *maps, code)
            folder.watch(figures["loss"])
        averaged.update(generator.map, step + 1)
        tell(folder, step, steps, figures)
    finished = folder.load(parts) == steps
    generator.map.load_state_dict(averaged.state)
    return generator.eval(), discriminator, finished


def cached_views(
    recipe: Recipe,
    encoder: Subject,
    autoencoder: Autoencoder,
    photographs: Photographs,
    runtime: Runtime,
) -> Views:
    """Codes and latents of `views` augmented views of each photograph, computed once and kept beside the run."""

    def make() -> dict[str, Tensor]:
        pairs = list(_encode(recipe, encoder, autoencoder, photographs, runtime.device))
        codes, latents = (torch.cat(part) for part in zip(*pairs, strict=True))
        mean = latents.float().mean((0, 2, 3), keepdim=True)
        std = latents.float().std((0, 2, 3), keepdim=True)
        latents = ((latents.float() - mean) / std).half()
        return {"codes": codes, "latents": latents, "mean": mean, "std": std}

    identity = stage_identity(recipe, encoder, photographs, "views")
    file = runtime.folder / f"views-{identity[:16]}.safetensors"
    found = kept(file, {"views": identity}, make, runtime.processes)
    return Views(found["codes"], found["latents"], found["mean"], found["std"])


def _encode(
    recipe: Recipe,
    encoder: Subject,
    autoencoder: Autoencoder,
    photographs: Photographs,
    device: str,
    batch: int = 250,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes and latents, (batch, …) float16, of every view of every photograph, in order."""
    autoencoder = autoencoder.to(device).eval()
    with encoder.reading([recipe["code_layer"]]) as read, torch.no_grad():
        for view in range(recipe["views"]["number"]):
            for at in range(0, len(photographs), batch):
                x = drawn_views(
                    torch.from_numpy(photographs.images[at : at + batch]).to(device),
                    recipe,
                    seeded(recipe["seed"], 5, view, at),
                )
                with mixed_precision(device):
                    latents = autoencoder.encoder(x)
                    codes = read(encoder.prepare(center_crop(x, recipe["architecture"]["seen"])))
                layer = recipe["code_layer"]
                yield (
                    kept_codes(codes[layer].flatten(1), encoder, layer),
                    latents.contiguous().half().cpu(),
                )


def whiten_code(generator: ImageGenerator, codes: Tensor) -> None:
    """Set the generator's code statistics from codes (n, *code)."""
    codes = codes.float()
    generator.code_mean.copy_(codes.mean(0))
    generator.code_std.copy_(codes.std(0).clamp(min=1e-3))


def whiten(generator: TwoStageGenerator, views: Views) -> None:
    """Set the generator's code and latent statistics from its training pairs."""
    whiten_code(generator, views.codes)
    generator.latent_mean.copy_(views.latent_mean)
    generator.latent_std.copy_(views.latent_std)


@torch.no_grad()
def regress(
    generator: TwoStageGenerator, views: Views, most: int = 50_000, ridge: float = 1e-3
) -> None:
    """Set the map's linear part to the reduced-rank ridge regression of latents on whitened codes (Izenman 1975)."""
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
