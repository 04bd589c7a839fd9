"""Training a generator that inverts a layer of an encoder, in four stages, each resumable.

1. `autoencoder`: an autoencoder of photographs; its decoder is the generator's second half.
2. `code_regressor`: a network that reads the code from a latent map, for the next losses.
3. `latent`: the map from code to latents, against a discriminator of latents and codes.
4. `image`: both halves together, with the encoder's features and a discriminator of them.

A recipe with a table `init_from` takes the first three from a trained generator, whatever its code.
For a direct generator it does without them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from phosphene import weights
from phosphene.code_statistics import CodeStatistics
from phosphene.datasets import Photographs, renumbered, same_names
from phosphene.errors import BadRequest
from phosphene.networks.components import Components
from phosphene.networks.generator import ImageGenerator, TwoStageGenerator
from phosphene.priors import Generated
from phosphene.runtime import Runtime
from phosphene.subjects import Subject
from phosphene.tensors import as_images, center_crop, device_of, resized
from phosphene.training.autoencoder import Autoencoder, AutoencoderStage
from phosphene.training.components import with_components
from phosphene.training.image import ImageStage, check_image
from phosphene.training.initialization import code_statistics, initialized
from phosphene.training.inversion import Inversion
from phosphene.training.latents import CodeRegressorStage, LatentStage, cached_views, whiten
from phosphene.training.optimization import mixed_precision, placed
from phosphene.training.recipes import Recipe, current
from phosphene.training.stage import Stage, run_stage


@dataclass(frozen=True, eq=False)
class Trained:
    """A generator with averaged weights, and what is published with it.

    That is its code's `statistics`, the networks that only training needs, by name, whether the
    recipe's end was reached, the sha256 of the weights files that the run began from, and the
    `components` that are the code, where it is such. `regression_r2` tells how well its code gives
    that of its teacher, where it began so.
    """

    generator: ImageGenerator
    statistics: dict[str, Tensor]
    helpers: dict[str, nn.Module]
    finished: bool
    init_from: tuple[str, ...] = ()
    components: Components | None = None
    regression_r2: float | None = None


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
    inversion = Inversion(current(recipe), encoder, photographs, Runtime.of(run))
    four = init_from is None and inversion.from_scratch
    inversion.check()
    known = init_from.components if init_from else None
    if four:
        inversion.check_views()
    if inversion.recipe["image"]["steps"]:
        check_image(inversion)
    placed(encoder.network, inversion.runtime.device)
    inversion = with_components(inversion, known)
    last = partial(ImageStage, inversion.within("image"), held_out=held_out)
    if four:
        return _train_all_stages(inversion, last)
    beside = (discriminator.sha256,) if discriminator else ()
    state = discriminator.part("image_discriminator") if discriminator else None
    r2 = None
    if init_from is None:
        begun = initialized(inversion)
        r2 = begun.translation.r2 if begun.translation else None
        generator, statistics, parents = begun.generator, begun.statistics, begun.parents
        parents += beside
        if state and begun.translation:
            state = begun.translation.discriminator(state)
    else:
        parents = (str(init_from.card["sha256"]), *beside)
        generator = _continued(inversion.architecture, init_from)
        names = CodeStatistics.__dataclass_fields__
        statistics = {name: getattr(init_from.statistics, name) for name in names}
    stage = last(generator, parents=parents, discriminator_state=state)
    finished = run_stage(stage).finished
    helpers: dict[str, nn.Module] = {"image_discriminator": stage.discriminator}
    return Trained(
        stage.trained(), statistics, helpers, finished, parents, inversion.components, r2
    )


def _train_all_stages(
    inversion: Inversion, last: Callable[[ImageGenerator], ImageStage]
) -> Trained:
    """Train the four stages; `BadRequest` where time runs out before there is a generator."""
    autoencoder: Autoencoder = _whole(AutoencoderStage(inversion.within("autoencoder")))
    fresh = fresh_generator(inversion, autoencoder)
    views = cached_views(inversion, autoencoder)
    whiten(fresh, views, inversion.damped)
    regressor = _whole(CodeRegressorStage(inversion.within("code_regressor"), views))
    latent = LatentStage(inversion.within("latent"), views, fresh, regressor)
    finished = run_stage(latent).finished
    generator: ImageGenerator = latent.trained()
    helpers: dict[str, nn.Module] = {
        "latent_encoder": autoencoder.encoder,
        "code_regressor": regressor,
        "latent_discriminator": latent.discriminator,
    }
    if finished and inversion.recipe["image"]["steps"]:
        image = last(generator)
        finished = run_stage(image).finished
        generator = image.trained()
        helpers["image_discriminator"] = image.discriminator
    statistics = code_statistics(views.codes, inversion.axes)
    return Trained(generator, statistics, helpers, finished, components=inversion.components)


def _whole(stage: Stage) -> Any:
    """Run a stage to its end and return what it trained."""
    if not run_stage(stage).finished:
        raise BadRequest(
            "the time budget ended within the first two stages, so there is no generator yet; "
            "what is done is kept: give the same command again"
        )
    return stage.trained()


def _continued(architecture: dict[str, Any], trained: Generated) -> ImageGenerator:
    """Return a copy of a trained generator; `BadRequest` where the recipe makes another."""
    theirs = trained.card.get("architecture")
    if theirs != architecture:
        raise BadRequest(
            f"{trained.card['name']} is of another architecture than the recipe's: "
            f"{theirs}, not {architecture}"
        )
    return cast("ImageGenerator", copy.deepcopy(trained.generator))


def generator_card(
    name: str,
    recipe: Recipe,
    encoder: Subject,
    train: Photographs,
    val: Photographs,
    trained: Trained,
) -> dict[str, Any]:
    """Return what the weights file says of the generator, its held-out errors among it."""
    inversion = Inversion(recipe, encoder, train, Runtime(Path()), trained.components)
    size = recipe["architecture"]["view_size"]
    read, layer = inversion.code_encoder, inversion.layer
    r2 = trained.regression_r2
    return {
        **inversion.card(name),
        "init_from": list(trained.init_from),
        **({} if r2 is None else {"regression_r2": r2}),
        "measured": held_out_errors(layer, size, read, val, trained.generator),
    }


def held_out_errors(
    layer: str,
    view_size: int,
    encoder: Subject,
    val: Photographs,
    generator: ImageGenerator,
    batch: int = 100,
) -> dict[str, float]:
    """Measure reconstructions of every held-out photograph, plainly resized.

    The errors are the mean absolute error of the image on [0, 1], and the mean squared error of
    its whitened code after another pass through the encoder. Where the photographs are of the
    encoder's classes, there is the share of reconstructions whose class the encoder names.
    """
    device = device_of(generator)
    same = same_names(val.classes, encoder.classes) and bool((val.labels >= 0).all())
    val = renumbered(val, encoder.classes, encoder.name) if same else val
    totals = torch.zeros(3, dtype=torch.float64)
    encoder.network.to(device)
    with torch.no_grad(), encoder.reading([layer, encoder.output]) as read:
        for at in range(0, len(val), batch):
            x = as_images(val.images[at : at + batch]).to(device)
            x = resized(x, (generator.image_size, generator.image_size))
            with mixed_precision(str(device.type)):
                code = read(encoder.prepare(center_crop(x, view_size)))[layer].float()
                code = code.reshape(len(x), *generator.code_shape)
                y = generator(code)
                reread = read(encoder.prepare(center_crop(y, view_size)))
            shift = (reread[layer].float().reshape(code.shape) - code) / generator.code_std
            labels = torch.from_numpy(val.labels[at : at + batch])
            named = (reread[encoder.output].argmax(1).cpu() == labels).sum()
            image = (y - x).abs().mean((1, 2, 3)).sum().cpu()
            code_error = shift.square().flatten(1).mean(1).sum().cpu()
            totals += torch.stack([image, code_error, named]).double()
    found = dict(
        zip(("image_error", "code_error", "class_kept"), (totals / len(val)).tolist(), strict=True)
    )
    if not same:
        del found["class_kept"]
    return {"photographs": len(val), **found}


def fresh_generator(inversion: Inversion, autoencoder: Autoencoder) -> TwoStageGenerator:
    """Return a generator with an untrained map and the autoencoder's decoder."""
    torch.manual_seed(inversion.recipe["seed"] + 1)
    arguments = {key: value for key, value in inversion.architecture.items() if key != "name"}
    generator = TwoStageGenerator(**arguments)
    generator.decoder.load_state_dict(autoencoder.decoder.state_dict())
    return generator
