"""Training a generator that inverts a layer of an encoder, in four stages, each resumable at any step.

1. `autoencoder`: an autoencoder of photographs; its decoder is the generator's second half.
2. `reader`: a network that reads the code off a latent map, the eyes of the next stage.
3. `latent`: the map from code to latents, against a discriminator of latents that sees the code too.
4. `image`: both halves together, with the encoder's features and a discriminator of them on the image.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene import weights
from phosphene.datasets import Photographs
from phosphene.errors import BadRequest
from phosphene.networks.discriminator import Discriminator, LatentReader
from phosphene.networks.generator import TwoStageGenerator
from phosphene.parameterizations import Generated
from phosphene.priors import CodeStatistics
from phosphene.probe import find_layer, probe
from phosphene.subjects import Subject, load_subject
from phosphene.training.augment import random_crops
from phosphene.training.autoencoder import Autoencoder, apart, train_autoencoder
from phosphene.training.run import (
    Averaged,
    Clock,
    Recipe,
    Report,
    RunFolder,
    Stateful,
    Waiting,
    descend,
    one_cycle,
    placed,
    recipe_hash,
    seeded,
    silent,
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


@dataclass(frozen=True, eq=False)
class Trained:
    """The generator with averaged weights, its code's `statistics`, the training-only networks by name (so that
    training can go on from published weights), and whether the recipe's end was reached.
    """

    generator: TwoStageGenerator
    statistics: dict[str, Tensor]
    helpers: dict[str, nn.Module]
    finished: bool
    begun: tuple[str, ...] = ()
    """The sha256 of the weights files that the run began from."""


_NOTHING_YET = (
    "the time budget ended within the first two stages, so there is no generator yet; "
    "what is done is kept: give the same command again"
)


def train_generator(
    recipe: Recipe,
    encoder: Subject,
    photographs: Photographs,
    run: str | Path,
    *,
    begin: Generated | None = None,
    discriminator: weights.Weights | None = None,
    device: str = "cpu",
    time_budget: float | None = None,
    report: Report = silent,
) -> Trained:
    """Train all stages as far as the budget (seconds) goes, and measure the code's statistics.

    With a trained generator to `begin` from, only the last stage is run, on it, and with its `discriminator` where
    there is one; the statistics are its own.
    """
    run, clock = Path(run), Clock(time_budget)
    _check_code(recipe, encoder)
    placed(encoder.network, device)
    if begin is not None:
        begun = (str(begin.card["sha256"]), *([discriminator.sha256] if discriminator else []))
        generator, judge, finished = train_image(
            recipe,
            encoder,
            _begun(recipe, begin),
            photographs,
            run / "image",
            begun=begun,
            discriminator_state=discriminator.part("image_discriminator") if discriminator else None,
            device=device,
            time_budget=time_budget,
            report=report,
        )
        kept = {name: getattr(begin.statistics, name) for name in CodeStatistics.__dataclass_fields__}
        return Trained(generator, kept, {"image_discriminator": judge}, finished, begun)
    autoencoder, finished = train_autoencoder(
        recipe, encoder, photographs, run / "autoencoder", device=device, time_budget=time_budget, report=report
    )
    generator = fresh_generator(recipe, autoencoder)
    helpers: dict[str, nn.Module] = {"latent_encoder": autoencoder.encoder}
    if not finished:
        raise BadRequest(_NOTHING_YET)
    views = cached_views(recipe, encoder, autoencoder, photographs, run, device)
    whiten(generator, views)
    reader, finished = train_reader(
        recipe,
        views,
        run / "reader",
        _identity(recipe, encoder, photographs, "reader"),
        device=device,
        time_budget=clock.left(),
        report=report,
    )
    if not finished:
        raise BadRequest(_NOTHING_YET)
    helpers["reader"] = reader
    generator, helpers["latent_discriminator"], finished = train_latent(
        recipe,
        generator,
        reader,
        views,
        run / "latent",
        _identity(recipe, encoder, photographs, "latent"),
        device=device,
        time_budget=clock.left(),
        report=report,
    )
    if finished and recipe["image"]["steps"]:
        generator, helpers["image_discriminator"], finished = train_image(
            recipe,
            encoder,
            generator,
            photographs,
            run / "image",
            device=device,
            time_budget=clock.left(),
            report=report,
        )
    return Trained(generator, code_statistics(views.codes), helpers, finished)


def _begun(recipe: Recipe, begin: Generated) -> TwoStageGenerator:
    """A trained generator to go on from; `BadRequest` where the recipe makes another."""
    if begin.card.get("architecture") != recipe["architecture"]:
        raise BadRequest(
            f"{begin.card['name']} is of another architecture than the recipe's: "
            f"{begin.card.get('architecture')}, not {dict(recipe['architecture'])}"
        )
    return cast("TwoStageGenerator", copy.deepcopy(begin.generator))


def _check_code(recipe: Recipe, encoder: Subject) -> None:
    layer, code = recipe["code_layer"], recipe["architecture"]["code"]
    find_layer(encoder.network, layer, encoder.name)
    units = math.prod(encoder.shapes().get(layer, ()))
    if units != code:
        raise BadRequest(f"{encoder.name}: layer {layer} has {units} units, and the recipe's code {code}")


def generator_card(
    name: str, recipe: Recipe, encoder: Subject, train: Photographs, val: Photographs, trained: Trained
) -> dict[str, Any]:
    """What the weights file says of the generator, its held-out errors among it."""
    return {
        "name": name,
        "kind": "generator",
        "architecture": recipe["architecture"],
        "recipe": recipe,
        "encoder": encoder.name,
        "encoder_sha256": encoder.card.get("sha256", ""),
        "code_layer": recipe["code_layer"],
        "images": "RGB in (0, 1), the encoder sees the central part",
        "data": {
            "name": train.name,
            "photographs": len(train),
            "fingerprint": train.fingerprint,
            "licence": train.licence,
        },
        "begun_from": list(trained.begun),
        "measured": held_out_errors(recipe, encoder, val, trained.generator),
    }


def held_out_errors(
    recipe: Recipe, encoder: Subject, val: Photographs, generator: TwoStageGenerator, batch: int = 100
) -> dict[str, float]:
    """On every held-out photograph, plainly resized: mean absolute error of the image on [0, 1], mean squared
    error of its code after another pass through the encoder (whitened), and the share of reconstructions whose
    class the encoder's own network still names.
    """
    layer, device = recipe["code_layer"], next(generator.parameters()).device
    totals = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad(), probe(encoder.network.to(device), [layer, encoder.output]) as read:
        for at in range(0, len(val), batch):
            x = torch.from_numpy(val.images[at : at + batch]).to(device).permute(0, 3, 1, 2).float() / 255
            x = F.interpolate(x, generator.image_size, mode="bilinear", align_corners=False)
            with _mixed_precision(str(device.type)):
                code = read(encoder.prepare(_seen(x, recipe)))[layer].flatten(1).float()
                y = generator(code)
                again = read(encoder.prepare(_seen(y, recipe)))
            shift = (again[layer].flatten(1).float() - code) / generator.code_std
            named = again[encoder.output].argmax(1).cpu() == torch.from_numpy(val.labels[at : at + batch])
            totals += torch.stack(
                [(y - x).abs().mean((1, 2, 3)).sum().cpu(), shift.square().mean(1).sum().cpu(), named.sum()]
            ).double()
    image, code_error, named_share = (totals / len(val)).tolist()
    return {"photographs": len(val), "image_error": image, "code_error": code_error, "class_kept": named_share}


def train_reader(
    recipe: Recipe,
    views: Views,
    run: Path,
    identity: str,
    *,
    device: str = "cpu",
    time_budget: float | None = None,
    report: Report = silent,
) -> tuple[LatentReader, bool]:
    """Stage 2: a network that reads the code off a latent map, for the next stage to look through."""
    stage = recipe["reader"]
    folder = RunFolder(run, identity)
    torch.manual_seed(recipe["seed"] + 3)
    codes, latents = views.codes.to(device), views.latents.to(device)
    shape = {"latent": latents.shape[1], "code": codes.shape[1], "widths": stage["widths"]}
    fresh = lambda: LatentReader(**shape, positions=latents.shape[-1])  # noqa: E731
    reader = placed(fresh(), device)
    optimizer = torch.optim.AdamW(reader.parameters(), weight_decay=stage["weight_decay"], fused=True)
    averaged = Averaged(reader, 0.99)
    parts: dict[str, Stateful] = {"reader": reader, "optimizer": optimizer, "averaged": averaged}
    mean, std = codes.float().mean(0), codes.float().std(0).clamp(min=1e-3)
    steps = stage["steps"]
    for step in folder.steps(parts, steps, time_budget=time_budget):
        chosen = torch.randint(len(codes), (stage["batch"],), generator=seeded(recipe["seed"], 6, step)).to(device)
        with _mixed_precision(device):
            _, read = reader(latents[chosen].float())
        unread = (read.float() - (codes[chosen].float() - mean) / std).square().mean()
        descend(optimizer, stage["lr"] * one_cycle(step / steps), unread)
        averaged.update(reader, step + 1)
        _tell(folder, report, step, steps, {"unread": unread})
    finished = folder.load(parts) == steps
    return averaged.network(fresh()).requires_grad_(False), finished


def train_latent(
    recipe: Recipe,
    generator: TwoStageGenerator,
    reader: LatentReader,
    views: Views,
    run: Path,
    identity: str,
    *,
    device: str = "cpu",
    time_budget: float | None = None,
    report: Report = silent,
) -> tuple[TwoStageGenerator, Discriminator, bool]:
    """Stage 3: squared error of the latents, what the reader sees in them, and a discriminator of both.

    It starts from the closed-form linear regression of latents on codes; the discriminator joins when the
    recipe's `adversarial_from` steps have settled the rest.
    """
    stage = recipe["latent"]
    folder = RunFolder(run, identity)
    torch.manual_seed(recipe["seed"] + 1)
    generator = placed(generator, device).requires_grad_(True)
    channels = [recipe["architecture"]["latent"], *recipe["reader"]["widths"]]
    discriminator = Discriminator(
        list(zip(channels, stage["halvings"], strict=True)), views.codes.shape[1], stage["width"]
    )
    discriminator = placed(discriminator, device)
    regress(generator, views)
    climber = torch.optim.Adam(generator.map.parameters(), betas=(0.5, 0.99), fused=True)
    judge = torch.optim.Adam(discriminator.parameters(), betas=(0.5, 0.99), fused=True)
    averaged = Averaged(generator.map, stage["ema"])
    parts: dict[str, Stateful] = {
        "map": generator.map,
        "discriminator": discriminator,
        "climber": climber,
        "judge": judge,
        "averaged": averaged,
    }
    codes, latents = views.codes.to(device), views.latents.to(device)
    batch, steps = stage["batch"], stage["steps"]
    for step in folder.steps(parts, steps, time_budget=time_budget):
        chosen = torch.randint(len(codes), (batch,), generator=seeded(recipe["seed"], 3, step)).to(device)
        code = (codes[chosen].float() - generator.code_mean) / generator.code_std
        real = latents[chosen].float()
        with torch.no_grad(), _mixed_precision(device):
            real_maps, real_code = reader(real)
        with _mixed_precision(device):
            fake = generator.map(code)
            fake_maps, fake_code = reader(fake)
        error = (fake.float() - real).square().mean()
        feature = apart(fake_maps, real_maps)
        cycle = (fake_code.float() - real_code.float()).square().mean()
        loss = stage["error"] * error + stage["feature"] * feature + stage["cycle"] * cycle
        figures = {"error": error, "feature": feature, "cycle": cycle}
        if step < stage["adversarial_from"]:
            descend(climber, stage["lr"], loss)
        else:
            maps = [real, *real_maps], [fake, *fake_maps]
            figures |= _duel(stage, step, climber, judge, discriminator, loss, *maps, code, device)
        averaged.update(generator.map, step + 1)
        _tell(folder, report, step, steps, figures)
    finished = folder.load(parts) == steps
    generator.map.load_state_dict(averaged.state)
    return generator.eval(), discriminator, finished


def train_image(
    recipe: Recipe,
    encoder: Subject,
    generator: TwoStageGenerator,
    photographs: Photographs,
    run: Path,
    *,
    begun: Sequence[str] = (),
    discriminator_state: dict[str, Tensor] | None = None,
    device: str = "cpu",
    time_budget: float | None = None,
    report: Report = silent,
) -> tuple[TwoStageGenerator, Discriminator, bool]:
    """Stage 4: the whole generator on images, with DeePSiM's three losses (Dosovitskiy & Brox 2016, eq. 2).

    `begun` are the hashes of the files that the run begins from, if any, and `discriminator_state` the weights of the
    discriminator.
    """
    stage = recipe["image"]
    folder = RunFolder(run, _identity(recipe, encoder, photographs, "image", begun))
    torch.manual_seed(recipe["seed"] + 2)
    generator = placed(generator, device).requires_grad_(True)
    comparator = _comparator(recipe, encoder, device)
    shapes = comparator.shapes()
    channels = [3, *(shapes[layer][0] for layer in stage["judged"])]
    code_units = math.prod(encoder.shapes()[recipe["code_layer"]])
    discriminator = Discriminator(list(zip(channels, stage["halvings"], strict=True)), code_units, stage["width"])
    if discriminator_state is not None:
        own = {name: value.clone() for name, value in discriminator_state.items()}
        weights.fill(discriminator, own, "the discriminator's file").requires_grad_(True).train()
    discriminator = placed(discriminator, device)
    climber = torch.optim.Adam(generator.parameters(), betas=(0.5, 0.99), fused=True)
    judge = torch.optim.Adam(discriminator.parameters(), betas=(0.5, 0.99), fused=True)
    averaged = Averaged(generator, stage["ema"])
    parts: dict[str, Stateful] = {
        "generator": generator,
        "discriminator": discriminator,
        "climber": climber,
        "judge": judge,
        "averaged": averaged,
    }
    images = torch.from_numpy(photographs.images).to(device)
    batch, steps, waiting = stage["batch"], stage["steps"], Waiting(device)
    with _looking(recipe, encoder, comparator) as look:
        for step in folder.steps(parts, steps, time_budget=time_budget):
            with waiting.sample(step % 20 == 0) as ready:
                rng = seeded(recipe["seed"], 4, step)
                chosen = torch.randint(len(images), (batch,), generator=rng).to(device)
                x = _views(images[chosen], recipe, rng)
                ready()
                with torch.no_grad(), _mixed_precision(device):
                    wanted = look(x)
                with _mixed_precision(device):
                    y = generator(wanted.code)
                    got = look(y)
                figures, loss = _losses(stage, generator, x, y, wanted, got)
                code = (wanted.code - generator.code_mean) / generator.code_std
                real, fake = [x - 0.5, *wanted.judged], [y - 0.5, *got.judged]
                figures |= _duel(stage, step, climber, judge, discriminator, loss, real, fake, code, device)
                averaged.update(generator, step + 1)
            _tell(folder, report, step, steps, figures, waiting)
    finished = folder.load(parts) == steps
    generator.load_state_dict(averaged.state)
    return generator.eval(), discriminator, finished


@dataclass(frozen=True)
class _Glance:
    """What the last stage's networks see in a batch: the encoder's code, and feature maps to compare and to judge."""

    code: Tensor
    compared: list[Tensor]
    judged: list[Tensor]


def _comparator(recipe: Recipe, encoder: Subject, device: str) -> Subject:
    """The network whose features are judged, at the generator's size: the recipe's, or else the encoder."""
    name = recipe["image"].get("comparator", "")
    if not name:
        return encoder
    size = recipe["architecture"]["size"]
    comparator = replace(load_subject(name), size=(size, size))
    placed(comparator.network, device)
    return comparator


@contextmanager
def _looking(recipe: Recipe, encoder: Subject, comparator: Subject) -> Iterator[Callable[[Tensor], _Glance]]:
    """Lend a function from images to what both networks see; where they are one, it looks once.

    A comparator's maps are divided by the root mean square over their channels at each position, since those of a
    network from elsewhere may be of any size.
    """
    stage, layer = recipe["image"], recipe["code_layer"]
    own, judged, compared = stage["layers"], stage["judged"], stage.get("compared", [])
    for network in (encoder.network, comparator.network):
        network.requires_grad_(False)
    alone = comparator is encoder
    with (
        probe(encoder.network, [*own, *(judged if alone else []), layer]) as read,
        nullcontext() if alone else probe(comparator.network, [*compared, *judged]) as read_too,
    ):

        def look(images: Tensor) -> _Glance:
            maps = read(encoder.prepare(_seen(images, recipe)))
            code = maps[layer].flatten(1).float()
            if read_too is None:
                return _Glance(code, [maps[each] for each in own], [maps[each] for each in judged])
            others = read_too(comparator.prepare(images))
            both = [maps[each] for each in own] + [others[each] for each in compared]
            return _Glance(code, both, [_even(others[each]) for each in judged])

        yield look


def _losses(
    stage: Recipe, generator: TwoStageGenerator, x: Tensor, y: Tensor, wanted: _Glance, got: _Glance
) -> tuple[dict[str, Tensor], Tensor]:
    """The last stage's figures of photographs x and images y, and their weighted sum."""
    shift = (got.code - wanted.code) / generator.code_std
    figures = {
        "image": (y - x).abs().mean(),
        "feature": apart(got.compared, wanted.compared),
        "cycle": shift.square().mean(),
    }
    return figures, torch.stack([stage[name] * value for name, value in figures.items()]).sum()


def _even(maps: Tensor) -> Tensor:
    return maps * (maps.float().square().mean(1, keepdim=True) + 1e-6).rsqrt().to(maps.dtype)


def fresh_generator(recipe: Recipe, autoencoder: Autoencoder) -> TwoStageGenerator:
    """A generator with an untrained map and the autoencoder's decoder."""
    torch.manual_seed(recipe["seed"] + 1)
    arguments = {key: value for key, value in recipe["architecture"].items() if key != "name"}
    generator = TwoStageGenerator(**arguments)
    generator.decoder.load_state_dict(autoencoder.decoder.state_dict())
    return generator


def cached_views(
    recipe: Recipe, encoder: Subject, autoencoder: Autoencoder, photographs: Photographs, run: Path, device: str
) -> Views:
    """Codes and latents of `views` augmented views of each photograph, computed once and kept beside the run."""
    from safetensors.torch import load_file, save_file

    identity = _identity(recipe, encoder, photographs, "views")
    file = run / f"views-{identity[:16]}.safetensors"
    if not file.exists():
        pairs = list(_encode(recipe, encoder, autoencoder, photographs, device))
        codes, latents = (torch.cat(part) for part in zip(*pairs, strict=True))
        mean = latents.float().mean((0, 2, 3), keepdim=True)
        std = latents.float().std((0, 2, 3), keepdim=True)
        latents = ((latents.float() - mean) / std).half()
        scratch = file.with_suffix(".tmp")  # a killed run leaves no half file to be believed
        save_file({"codes": codes, "latents": latents, "mean": mean, "std": std}, scratch)
        os.replace(scratch, file)
    kept = load_file(file)
    return Views(kept["codes"], kept["latents"], kept["mean"], kept["std"])


def _identity(recipe: Recipe, encoder: Subject, photographs: Photographs, stage: str, begun: Sequence[str] = ()) -> str:
    """What a stage's results depend on. The later stages have constant rates, so that more steps go on from fewer."""
    order = ["views", "reader", "latent", "image"]
    parts = order[: order.index(stage) + 1]
    settings: dict[str, Any] = {
        part: {k: v for k, v in recipe[part].items() if k != "steps" or part == "reader"} for part in parts
    }
    whole = {part: recipe[part] for part in ("seed", "architecture", "autoencoder", "code_layer")}
    if stage in ("views", "reader"):
        whole["architecture"] = {part: recipe["architecture"][part] for part in ("latent", "decoder", "size", "seen")}
    if begun:
        settings = {stage: settings[stage], "begun": list(begun)}
    return recipe_hash(
        {**settings, **whole, "encoder": encoder.card.get("sha256", encoder.name)}, photographs.fingerprint
    )


def _encode(
    recipe: Recipe, encoder: Subject, autoencoder: Autoencoder, photographs: Photographs, device: str, batch: int = 250
) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes and latents, (batch, …) float16, of every view of every photograph, in order."""
    autoencoder = autoencoder.to(device).eval()
    with probe(encoder.network, [recipe["code_layer"]]) as read, torch.no_grad():
        for view in range(recipe["views"]["number"]):
            for at in range(0, len(photographs), batch):
                x = _views(
                    torch.from_numpy(photographs.images[at : at + batch]).to(device),
                    recipe,
                    seeded(recipe["seed"], 5, view, at),
                )
                with _mixed_precision(device):
                    latents = autoencoder.encoder(x)
                    codes = read(encoder.prepare(_seen(x, recipe)))
                yield codes[recipe["code_layer"]].flatten(1).half().cpu(), latents.contiguous().half().cpu()


def _views(pictures: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """uint8 (batch, height, width, 3) to augmented views in [0, 1] at the generator's size."""
    x = pictures.permute(0, 3, 1, 2).float() / 255
    return random_crops(x, recipe["architecture"]["size"], generator, scale=tuple(recipe["views"]["scale"]), ratio=1.05)


def _seen(images: Tensor, recipe: Recipe) -> Tensor:
    """The central part of the generator's image, which the encoder is shown."""
    seen = recipe["architecture"]["seen"]
    at = (images.shape[-1] - seen) // 2
    return images[..., at : at + seen, at : at + seen]


def whiten(generator: TwoStageGenerator, views: Views) -> None:
    """Set the generator's code and latent statistics from its training pairs."""
    codes = views.codes.float()
    generator.code_mean.copy_(codes.mean(0))
    generator.code_std.copy_(codes.std(0).clamp(min=1e-3))
    generator.latent_mean.copy_(views.latent_mean)
    generator.latent_std.copy_(views.latent_std)


@torch.no_grad()
def regress(generator: TwoStageGenerator, views: Views, most: int = 50_000, ridge: float = 1e-3) -> None:
    """Set the map's linear part to the reduced-rank ridge regression of latents on whitened codes (Izenman 1975)."""
    inward, outward = cast("tuple[nn.Linear, nn.Linear]", tuple(generator.map.linear))
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


def code_statistics(codes: Tensor, axes: int = 64) -> dict[str, Tensor]:
    """What a prior needs to know of a code (n, code): mean, std, upper quantile, leading principal axes.

    `axes` (axes, code) are orthonormal, `variances` (axes,) their variances, `rest` () the mean variance
    of all other directions.
    """
    codes = codes.float()
    mean, std = codes.mean(0), codes.std(0)
    centred = codes - mean
    covariance = centred.T @ centred / (len(codes) - 1)
    values, vectors = torch.linalg.eigh(covariance.double())
    values, vectors = values.flip(0).float().clamp(min=0), vectors.flip(1).float()
    upper = torch.stack([column.kthvalue(max(1, int(0.999 * len(codes)))).values for column in codes.T])
    return {
        "mean": mean,
        "std": std,
        "upper": upper,
        "axes": vectors[:, :axes].T.contiguous(),
        "variances": values[:axes].clone(),
        "rest": values[axes:].mean() if len(values) > axes else values[-1].clone(),
    }


def _duel(
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
) -> dict[str, Tensor]:
    """A step of the generator, on its `loss` and the verdict, and one of the discriminator; the latter's figures."""
    descend(climber, stage["lr"], loss + stage["adversarial"] * _fooling(discriminator, fake, code, device))
    penalty = stage["r1"] * stage["r1_every"] if step % stage["r1_every"] == 0 else 0.0
    judged = _judging(discriminator, real, fake, code, device, penalty)
    descend(judge, stage["lr_discriminator"], judged["loss"])
    return judged


def _tell(
    folder: RunFolder, report: Report, step: int, steps: int, figures: dict[str, Tensor], waiting: Waiting | None = None
) -> None:
    """Figures are fetched from the device only for the steps that are told. The log has none that a clock made."""
    if step % 20 == 0:
        numbers = {name: value.item() for name, value in figures.items()}
        report(step + 1, steps, numbers | ({} if waiting is None else {"waiting": waiting.share}))
        if step % 100 == 0:
            folder.log(step=step, **numbers)


def _fooling(discriminator: Discriminator, fake: list[Tensor], code: Tensor, device: str) -> Tensor:
    """The generator's side: the non-saturating loss of Goodfellow et al. (2014), mean over heads and positions."""
    discriminator.requires_grad_(False)  # the discriminator's own gradients are not wanted here
    with _mixed_precision(device):
        logits = discriminator(fake, code)
    discriminator.requires_grad_(True)
    return torch.stack([F.softplus(-logit.float()).mean() for logit in logits]).mean()


def _judging(
    discriminator: Discriminator, real: list[Tensor], fake: list[Tensor], code: Tensor, device: str, penalty: float
) -> dict[str, Tensor]:
    """The discriminator's side: its loss, and the mean logits of its heads for what is real and what is not.

    `penalty` is γ of R1 (Mescheder et al. 2018): half the squared gradient of each head by what it looks at, on
    a quarter of the real batch, in float32.
    """
    with _mixed_precision(device):
        yes = discriminator(real, code)
        no = discriminator([x.detach() for x in fake], code)
    both = [F.softplus(-a.float()).mean() + F.softplus(b.float()).mean() for a, b in zip(yes, no, strict=True)]
    loss = torch.stack(both).mean()
    if penalty:
        few = max(1, len(code) // 4)
        looked_at = [x[:few].detach().float().requires_grad_() for x in real]
        logits = discriminator(looked_at, code[:few])
        total = torch.stack([logit.mean(1).sum() for logit in logits]).sum()
        slopes = torch.autograd.grad(total, looked_at, create_graph=True)
        steepness = torch.stack([slope.square().flatten(1).sum(1).mean() for slope in slopes]).mean()
        loss = loss + penalty / 2 * steepness
    average = lambda logits: torch.stack([logit.float().mean() for logit in logits]).mean()  # noqa: E731
    return {"loss": loss, "real": average(yes), "fake": average(no)}


def _mixed_precision(device: str) -> Any:
    return torch.autocast(torch.device(device).type, torch.bfloat16)
