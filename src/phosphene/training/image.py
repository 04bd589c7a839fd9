"""Stage 4 of a generator's training: map and decoder together, on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from phosphene import weights
from phosphene.datasets import Photographs
from phosphene.errors import BadRequest
from phosphene.networks.discriminator import Discriminator
from phosphene.networks.generator import ImageGenerator
from phosphene.probe import find_layer
from phosphene.runtime import Runtime
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import center_crop
from phosphene.training.adversary import Adversary, adversarial_step
from phosphene.training.autoencoder import feature_distance
from phosphene.training.gallery import Gallery
from phosphene.training.run import (
    TOLD,
    Averaged,
    Recipe,
    RunFolder,
    Stateful,
    Waiting,
    placed,
    seeded,
)
from phosphene.training.stages import compiled, drawn_views, mixed_precision, stage_identity, tell


def train_image(
    recipe: Recipe,
    encoder: Subject,
    generator: ImageGenerator,
    photographs: Photographs,
    runtime: Runtime,
    *,
    begun: Sequence[str] = (),
    discriminator_state: dict[str, Tensor] | None = None,
    held_out: Photographs | None = None,
) -> tuple[ImageGenerator, Discriminator, bool]:
    """Stage 4: the whole generator on images, with DeePSiM's three losses (Dosovitskiy & Brox 2016, eq. 2).

    `begun` are the hashes of the files that the run begins from, if any, and `discriminator_state` the weights of the
    discriminator. What the averaged weights make of some of the `held_out` photographs is kept every few minutes.
    Where the recipe has `beyond`, there are so many more codes, between and beyond those of the photographs, whose
    images should give the code again and fool the discriminator. Where it has `named`, the comparator should name an
    image as it names its photograph. The processes share each batch.
    """
    stage = recipe["image"]
    identity = stage_identity(recipe, encoder, photographs, "image", begun)
    folder = RunFolder(runtime, identity)
    device, processes = runtime.device, runtime.processes
    torch.manual_seed(recipe["seed"] + 2)
    generator = placed(generator, device).requires_grad_(True)
    comparator = _comparator(recipe, encoder, device)
    heads = _heads(stage, comparator, generator.image_size)
    discriminator = Discriminator(heads, math.prod(generator.code_shape), stage["width"])
    if discriminator_state is not None:
        own = {name: value.clone() for name, value in discriminator_state.items()}
        weights.fill(discriminator, own, "the discriminator's file").requires_grad_(True).train()
    discriminator = placed(discriminator, device)
    adversary = Adversary.of(stage, generator, discriminator, runtime)
    averaged = Averaged(generator, stage["ema"])
    parts: dict[str, Stateful] = {
        "generator": generator,
        "discriminator": discriminator,
        **adversary.optimizers(),
        "averaged": averaged,
    }
    images = torch.from_numpy(photographs.images).to(device)
    batch, steps, waiting = processes.local_batch(stage["batch"]), stage["steps"], Waiting(device)
    gallery = (
        Gallery(held_out, generator.image_size, device) if held_out and processes.is_main else None
    )
    with _looking(recipe, encoder, comparator, generator.code_shape) as look:

        def tried(
            codes: Tensor, x: Tensor, wanted: _Glance
        ) -> tuple[Tensor, _Glance, dict[str, Tensor], Tensor]:
            with mixed_precision(device):
                y = generator(codes)
                got = look(y)
            return y, got, *_losses(stage, generator, x, y, codes, wanted, got)

        seen, attempt = compiled(look, device), compiled(tried, device)
        for step in folder.steps(parts, steps):
            with waiting.sample(step % TOLD == 0) as ready:
                rng = seeded(recipe["seed"], 4, step, *processes.counters)
                chosen = torch.randint(len(images), (batch,), generator=rng).to(
                    device, non_blocking=True
                )
                x = drawn_views(images[chosen], recipe, rng)
                ready()
                with torch.no_grad(), mixed_precision(device):
                    wanted = seen(x)
                codes = torch.cat(
                    [wanted.code, extrapolated_codes(wanted.code, stage.get("beyond", 0.0), rng)]
                )
                y, got, figures, loss = attempt(codes, x, wanted)
                folder.watch(loss)
                real, fake = [x - 0.5, *wanted.judged], [y - 0.5, *got.judged]
                code = generator.whitened(codes).flatten(1)
                figures |= adversarial_step(adversary, step, loss, real, fake, code)
                folder.watch(figures["loss"])
                averaged.update(generator, step + 1)
            if gallery and gallery.due():
                sheet = gallery.sheet(
                    lambda x: look(x).code, partial(functional_call, generator, averaged.state)
                )
                folder.show("reconstructions", step, sheet)
            tell(folder, step, steps, figures, waiting)
    finished = folder.load(parts) == steps
    generator.load_state_dict(averaged.state)
    return generator.eval(), discriminator, finished


def check_image(recipe: Recipe, encoder: Subject) -> None:
    """`BadRequest` or `UnknownName` where the last stage cannot be: told before the stages that come first."""
    stage, comparator = recipe["image"], _comparator(recipe, encoder, "cpu")
    _heads(stage, comparator, recipe["architecture"]["size"])
    for network, layers in ((encoder, stage["layers"]), (comparator, stage.get("compared", []))):
        for layer in layers:
            find_layer(network.network, layer, network.name)


@dataclass(frozen=True)
class _Glance:
    """What the last stage's networks see in a batch: the encoder's code, feature maps to compare and to judge, and the
    comparator's logits, where they are asked for."""

    code: Tensor
    compared: list[Tensor]
    judged: list[Tensor]
    logits: Tensor | None


def _comparator(recipe: Recipe, encoder: Subject, device: str) -> Subject:
    """The network whose features are judged: the recipe's, shown images of `comparator_size` pixels (0: the generator's
    size), or else the encoder."""
    name = recipe["image"].get("comparator", "")
    if not name:
        return encoder
    size = recipe["image"].get("comparator_size", 0) or recipe["architecture"]["size"]
    comparator = replace(load_subject(name), size=(size, size))
    placed(comparator.network, device)
    return comparator


def _heads(stage: Recipe, comparator: Subject, size: int) -> list[tuple[int, int]]:
    """Channels and halvings of the discriminator's heads, the image's first; `BadRequest` where one cannot be."""
    judged, halvings = stage["judged"], stage["halvings"]
    for layer in judged:
        find_layer(comparator.network, layer, comparator.name)
    try:
        shapes = comparator.shapes()
    except RuntimeError as error:
        raise BadRequest(
            f"{comparator.name} cannot look at images of {comparator.size[0]} pixels: {error}"
        ) from None
    if len(halvings) != 1 + len(judged):
        raise BadRequest(
            f"halvings has one number for the image and one for each of judged; got {halvings} for {judged}"
        )
    maps = [(3, size, size), *(shapes.get(layer, ()) for layer in judged)]
    for name, shape, times in zip(["the image", *judged], maps, halvings, strict=True):
        if len(shape) != 3 or min(shape[1:]) >> times == 0:
            raise BadRequest(
                f"a head judges maps that can be halved {times} times; {name} is of "
                f"{' × '.join(map(str, shape)) or 'no fixed shape'} ({comparator.name}, {comparator.size[0]} pixels)"
            )
    return [(shape[0], times) for shape, times in zip(maps, halvings, strict=True)]


@contextmanager
def _looking(
    recipe: Recipe, encoder: Subject, comparator: Subject, shape: tuple[int, ...]
) -> Iterator[Callable[[Tensor], _Glance]]:
    """Lend a function from images to what both networks see, the code in its shape; where they are one, it looks once.

    A comparator's maps are divided by the root mean square over their channels at each position, since those of a
    network from elsewhere may be of any size.
    """
    stage, layer = recipe["image"], recipe["code_layer"]
    own, judged, compared = stage["layers"], stage["judged"], stage.get("compared", [])
    output = [comparator.output] if stage.get("named") else []
    for network in (encoder.network, comparator.network):
        network.requires_grad_(False)
    encoder.check_gradient(
        [*(own if stage["feature"] else []), *([layer] if stage["cycle"] else [])]
    )
    comparator.check_gradient([*(compared if stage["feature"] else []), *judged, *output])
    alone = comparator is encoder
    with (
        encoder.reading([*own, *([*judged, *output] if alone else []), layer]) as read,
        nullcontext() if alone else comparator.reading([*compared, *judged, *output]) as read_too,
    ):

        def look(images: Tensor) -> _Glance:
            maps = read(encoder.prepare(center_crop(images, recipe["architecture"]["seen"])))
            code = maps[layer].float().reshape(len(images), *shape)
            others = maps if read_too is None else read_too(comparator.prepare(images))
            logits = others[comparator.output] if output else None
            if read_too is None:
                return _Glance(
                    code, [maps[each] for each in own], [maps[each] for each in judged], logits
                )
            both = [maps[each] for each in own] + [others[each] for each in compared]
            return _Glance(code, both, [_even(others[each]) for each in judged], logits)

        yield look


def _losses(
    stage: Recipe,
    generator: ImageGenerator,
    x: Tensor,
    y: Tensor,
    codes: Tensor,
    wanted: _Glance,
    got: _Glance,
) -> tuple[dict[str, Tensor], Tensor]:
    """The last stage's figures of photographs x and images y of the codes, and their weighted sum.

    The first images are of the photographs' codes; those of other codes have no photograph to be compared with.
    """
    n = len(x)
    shift = (got.code - codes) / generator.code_std
    figures = {
        "image": (y[:n] - x).abs().mean(),
        "feature": feature_distance([maps[:n] for maps in got.compared], wanted.compared),
        "cycle": shift.square().mean(),
    }
    if got.logits is not None and wanted.logits is not None:
        figures["named"] = class_kl(got.logits[:n], wanted.logits)
    return figures, torch.stack([stage[name] * value for name, value in figures.items()]).sum()


def class_kl(got: Tensor, wanted: Tensor) -> Tensor:
    """Logits (batch, classes) twice → the mean Kullback–Leibler divergence of the first's classes from the second's, in
    nats (Hinton et al. 2015, at temperature 1)."""
    return F.kl_div(
        got.float().log_softmax(1),
        wanted.float().log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )


def extrapolated_codes(codes: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Codes between those of photographs and further out, where a climb leads: `share` of the number that is given.

    Each is a mixture of two (Reed et al. 2016, eq. 5), of any shares, then moved away from the batch's mean by up to
    half its distance, and kept above the least value that its unit has in the batch: codes after a ReLU stay so.
    """
    number = round(share * len(codes))
    sides = [1] * (codes.ndim - 1)
    drawn = [torch.randint(len(codes), (number,), generator=rng) for _ in range(2)]
    drawn += [torch.rand(number, *sides, generator=rng) for _ in range(2)]
    one, other, mixture, stretch = (each.to(codes.device, non_blocking=True) for each in drawn)
    mean, least = codes.mean(0), codes.amin(0)
    between = torch.lerp(codes[one], codes[other], mixture)
    return torch.maximum(mean + (1 + stretch / 2) * (between - mean), least)


def _even(maps: Tensor) -> Tensor:
    return maps * (maps.float().square().mean(1, keepdim=True) + 1e-6).rsqrt().to(maps.dtype)
