"""Training a generator that inverts a layer of an encoder, in four stages, each resumable at any step.

1. `autoencoder`: an autoencoder of photographs; its decoder is the generator's second half.
2. `reader`: a network that reads the code off a latent map, the eyes of the next stage.
3. `latent`: the map from code to latents, against a discriminator of latents that sees the code too.
4. `image`: both halves together, with the encoder's features and a discriminator of them on the image.

A recipe with a table `begin` takes the first three from a trained generator instead, whatever its code, or, for a
direct generator, does without them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from phosphene import weights
from phosphene.datasets import Photographs, renumbered, same_names
from phosphene.errors import BadRequest
from phosphene.networks import build
from phosphene.networks.discriminator import Discriminator
from phosphene.networks.generator import ImageGenerator, TwoStageGenerator
from phosphene.parameterizations import Generated, check_generator
from phosphene.priors import CodeStatistics
from phosphene.probe import find_layer
from phosphene.runtime import Runtime
from phosphene.subjects import Subject
from phosphene.tensors import as_images, center_crop, device_of, resized
from phosphene.training.autoencoder import Autoencoder, train_autoencoder
from phosphene.training.image import check_image, train_image
from phosphene.training.initialization import code_statistics, initialized
from phosphene.training.latents import cached_views, train_latent, train_reader, whiten
from phosphene.training.run import Recipe, placed
from phosphene.training.stages import mixed_precision, stage_identity


@dataclass(frozen=True, eq=False)
class Trained:
    """The generator with averaged weights, its code's `statistics`, the training-only networks by name (so that
    training can go on from published weights), and whether the recipe's end was reached.
    """

    generator: ImageGenerator
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
    run: Runtime | str | Path,
    *,
    init_from: Generated | None = None,
    discriminator: weights.Weights | None = None,
    held_out: Photographs | None = None,
) -> Trained:
    """Train all stages until the runtime's deadline, and measure the code's statistics.

    With a trained generator to `init_from`, only the last stage is run, on it, and with its
    `discriminator` where there is one; the statistics are its own. The last stage shows what it
    makes of some `held_out` photographs. The processes share each batch.
    """
    runtime = Runtime.of(run)
    _check_code(recipe, encoder)
    _check_card(recipe, encoder, photographs)
    if init_from is None and "begin" not in recipe:
        _check_views(recipe, photographs)
    if recipe["image"]["steps"]:
        check_image(recipe, encoder)
    placed(encoder.network, runtime.device)
    last_stage = partial(
        train_image,
        recipe,
        encoder,
        photographs=photographs,
        runtime=runtime.within("image"),
        held_out=held_out,
    )
    if init_from is None and "begin" not in recipe:
        return _train_all_stages(recipe, encoder, photographs, runtime, last_stage)
    if init_from is None:
        generator, statistics, begun = initialized(recipe, encoder, photographs, runtime)
        state = None
    else:
        begun = (str(init_from.card["sha256"]), *([discriminator.sha256] if discriminator else []))
        state = discriminator.part("image_discriminator") if discriminator else None
        generator = _continued(recipe, init_from)
        statistics = {
            name: getattr(init_from.statistics, name)
            for name in CodeStatistics.__dataclass_fields__
        }
    generator, judge, finished = last_stage(generator, begun=begun, discriminator_state=state)
    return Trained(generator, statistics, {"image_discriminator": judge}, finished, begun)


def _train_all_stages(
    recipe: Recipe,
    encoder: Subject,
    photographs: Photographs,
    runtime: Runtime,
    last_stage: Callable[[ImageGenerator], tuple[ImageGenerator, Discriminator, bool]],
) -> Trained:
    """Train the four stages; `BadRequest` where time runs out before there is a generator."""
    autoencoder, finished = train_autoencoder(
        recipe, encoder, photographs, runtime.within("autoencoder")
    )
    if not finished:
        raise BadRequest(_NOTHING_YET)
    begun = fresh_generator(recipe, autoencoder)
    views = cached_views(recipe, encoder, autoencoder, photographs, runtime)
    whiten(begun, views)
    identity = stage_identity(recipe, encoder, photographs, "reader")
    reader, finished = train_reader(recipe, views, runtime.within("reader"), identity)
    if not finished:
        raise BadRequest(_NOTHING_YET)
    helpers: dict[str, nn.Module] = {"latent_encoder": autoencoder.encoder, "reader": reader}
    identity = stage_identity(recipe, encoder, photographs, "latent")
    generator: ImageGenerator
    generator, helpers["latent_discriminator"], finished = train_latent(
        recipe, begun, reader, views, runtime.within("latent"), identity
    )
    if finished and recipe["image"]["steps"]:
        generator, helpers["image_discriminator"], finished = last_stage(generator)
    return Trained(generator, code_statistics(views.codes), helpers, finished)


def _continued(recipe: Recipe, trained: Generated) -> ImageGenerator:
    """A trained generator to go on from; `BadRequest` where the recipe makes another."""
    if trained.card.get("architecture") != recipe["architecture"]:
        raise BadRequest(
            f"{trained.card['name']} is of another architecture than the recipe's: "
            f"{trained.card.get('architecture')}, not {dict(recipe['architecture'])}"
        )
    return cast("ImageGenerator", copy.deepcopy(trained.generator))


def with_code(recipe: Recipe, encoder: Subject, layer: str | None) -> Recipe:
    """The recipe for this layer of this encoder; where it does not say what the code is, the layer's shape does."""
    layer = layer or recipe.get("code_layer")
    if layer is None:
        raise BadRequest(
            "the recipe names no code layer; give one with --layer "
            f"(phosphene layers {encoder.name})"
        )
    find_layer(encoder.network, layer, encoder.name)
    shape = encoder.shapes().get(layer, ())
    code = list(shape) if math.prod(shape[1:]) > 1 else math.prod(shape)
    architecture = {"code": code, **recipe["architecture"]}
    if "rank" in architecture and isinstance(
        architecture["code"], int
    ):  # no linear map has more than its code
        architecture["rank"] = min(architecture["rank"], architecture["code"])
    return type(recipe)({**recipe, "code_layer": layer, "architecture": architecture})


def _check_code(recipe: Recipe, encoder: Subject) -> None:
    layer, code = recipe["code_layer"], recipe["architecture"]["code"]
    find_layer(encoder.network, layer, encoder.name)
    shape = encoder.shapes().get(layer, ())
    if not (math.prod(shape) == code if isinstance(code, int) else shape == tuple(code)):
        raise BadRequest(
            f"{encoder.name}: layer {layer} has units of shape {list(shape)}, and the recipe's code is {code}"
        )
    if not isinstance(code, int) and "begin" not in recipe:
        raise BadRequest(
            "a code that is a map needs a recipe with [begin], such as taught or direct"
        )


def generator_card(
    name: str,
    recipe: Recipe,
    encoder: Subject,
    train: Photographs,
    val: Photographs,
    trained: Trained,
) -> dict[str, Any]:
    """What the weights file says of the generator, its held-out errors among it."""
    return {
        **_planned_card(name, recipe, encoder, train),
        "begun_from": list(trained.begun),
        "measured": held_out_errors(recipe, encoder, val, trained.generator),
    }


def _planned_card(
    name: str, recipe: Recipe, encoder: Subject, train: Photographs
) -> dict[str, Any]:
    """Return what the weights file will say that is known before the first step."""
    return {
        "name": name,
        "kind": "generator",
        "architecture": recipe["architecture"],
        "recipe": recipe,
        "encoder": encoder.name,
        "encoder_sha256": encoder.identity,
        "code_layer": recipe["code_layer"],
        "images": "RGB in (0, 1), the encoder sees the central part",
        "data": {
            "name": train.name,
            "photographs": len(train),
            "fingerprint": train.fingerprint,
            "licence": train.licence,
        },
    }


def _check_views(recipe: Recipe, train: Photographs) -> None:
    """Refuse too few views of photographs for the spread of their codes, with `BadRequest`."""
    if len(train) * recipe["views"]["number"] < 2:
        raise BadRequest(
            f"{train.name} has {len(train)} photograph for training, and the recipe takes one view "
            "of it; the spread of a code needs at least two"
        )


def _check_card(recipe: Recipe, encoder: Subject, train: Photographs) -> None:
    """Check that the file that the run would write could be opened.

    `BadFile` or `BadRequest` where it could not.
    """
    with torch.device("meta"):
        network = build(dict(recipe["architecture"]))
    source = f"a generator of {train.name}"
    planned = _planned_card(train.name, recipe, encoder, train)
    check_generator(network, weights.rehearse(planned, network, source), source)


def held_out_errors(
    recipe: Recipe, encoder: Subject, val: Photographs, generator: ImageGenerator, batch: int = 100
) -> dict[str, float]:
    """On every held-out photograph, plainly resized: mean absolute error of the image on [0, 1], mean squared
    error of its code after another pass through the encoder (whitened), and, where the photographs are of the encoder's
    classes, the share of reconstructions of which its own network names the photograph's class.
    """
    layer, seen, device = (
        recipe["code_layer"],
        recipe["architecture"]["seen"],
        device_of(generator),
    )
    same = same_names(val.classes, encoder.classes) and bool((val.labels >= 0).all())
    val = renumbered(val, encoder.classes, encoder.name) if same else val
    totals = torch.zeros(3, dtype=torch.float64)
    encoder.network.to(device)
    with torch.no_grad(), encoder.reading([layer, encoder.output]) as read:
        for at in range(0, len(val), batch):
            x = as_images(val.images[at : at + batch]).to(device)
            x = resized(x, (generator.image_size, generator.image_size))
            with mixed_precision(str(device.type)):
                code = (
                    read(encoder.prepare(center_crop(x, seen)))[layer]
                    .float()
                    .reshape(len(x), *generator.code_shape)
                )
                y = generator(code)
                again = read(encoder.prepare(center_crop(y, seen)))
            shift = (again[layer].float().reshape(code.shape) - code) / generator.code_std
            named = again[encoder.output].argmax(1).cpu() == torch.from_numpy(
                val.labels[at : at + batch]
            )
            totals += torch.stack(
                [
                    (y - x).abs().mean((1, 2, 3)).sum().cpu(),
                    shift.square().flatten(1).mean(1).sum().cpu(),
                    named.sum(),
                ]
            ).double()
    image, code_error, named_share = (totals / len(val)).tolist()
    kept = {"class_kept": named_share} if same else {}
    return {"photographs": len(val), "image_error": image, "code_error": code_error, **kept}


def fresh_generator(recipe: Recipe, autoencoder: Autoencoder) -> TwoStageGenerator:
    """A generator with an untrained map and the autoencoder's decoder."""
    torch.manual_seed(recipe["seed"] + 1)
    arguments = {key: value for key, value in recipe["architecture"].items() if key != "name"}
    generator = TwoStageGenerator(**arguments)
    generator.decoder.load_state_dict(autoencoder.decoder.state_dict())
    return generator
