"""What a generator is trained for: a layer of an encoder that it inverts, on photographs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from phosphene import weights
from phosphene.datasets import Photographs
from phosphene.errors import BadRequest
from phosphene.networks import build
from phosphene.networks.components import NAME as COMPONENTS
from phosphene.networks.components import Components
from phosphene.networks.empty import without_weights
from phosphene.priors import check_generator
from phosphene.probe import find_layer
from phosphene.runtime import Runtime
from phosphene.subjects import Subject
from phosphene.tensors import as_images, center_crop
from phosphene.training.augment import random_crops
from phosphene.training.recipes import FORMER_NAMES, Recipe, recipe_hash

DECODER = ("latent", "decoder", "decoder_blocks")
"""What of an architecture the decoder depends on."""
STAGES = ("views", "code_regressor", "latent", "image")
"""The recipe's tables of the stages after the autoencoder, each of which builds on those before."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """Hold a recipe for a generator, the encoder whose layer it inverts, and photographs.

    Where the code is the principal components of that layer, they are `components`. `known` are
    the codes of the first views, half precision, where they have been found already.
    """

    recipe: Recipe
    encoder: Subject
    photographs: Photographs
    runtime: Runtime
    components: Components | None = None
    known: Tensor | None = None

    @property
    def layer(self) -> str:
        """Return the layer of the `code_encoder` whose units are the code."""
        return str(self.recipe["code_layer"]) if self.components is None else COMPONENTS

    @cached_property
    def code_encoder(self) -> Subject:
        """Return the encoder, with the components as a layer where the code is such."""
        if self.components is None:
            return self.encoder
        return self.encoder.with_components(str(self.recipe["code_layer"]), self.components)

    @property
    def damped(self) -> bool:
        """Return whether the code's units are of very different spread, as components are."""
        return self.components is not None

    @property
    def axes(self) -> int:
        """Return how many principal axes are told of the code's statistics."""
        return 64 if self.components is None else 256

    @property
    def architecture(self) -> dict[str, Any]:
        """Return the generator's architecture."""
        return dict(self.recipe["architecture"])

    @property
    def from_scratch(self) -> bool:
        """Return whether all four stages are trained."""
        return "init_from" not in self.recipe

    def within(self, name: str) -> Inversion:
        """Return the same for a folder inside the run's, or the one that version 0.1.0 made."""
        former = FORMER_NAMES.get(name, name)
        old = (self.runtime.folder / former).is_dir()
        return replace(self, runtime=self.runtime.within(former if old else name))

    def identity(self, stage: str, parents: Sequence[str] = ()) -> str:
        """Return one hash of what a stage's results depend on.

        At constant rates more steps go on from fewer, so their number is left out.
        """
        recipe = self.recipe
        own = {part: recipe[part] for part in STAGES[: STAGES.index(stage) + 1] if part in recipe}
        settings: dict[str, Any] = {part: _lasting(part, table) for part, table in own.items()}
        shared = ("seed", "architecture", "autoencoder", "code_layer", "code")
        whole: dict[str, Any] = {part: recipe[part] for part in shared if part in recipe}
        if stage in ("views", "code_regressor"):
            known = (*DECODER, "size", "view_size")
            whole["architecture"] = {k: v for k, v in self.architecture.items() if k in known}
        if parents:
            settings = {stage: settings[stage], "begun": list(parents)}
        if not self.from_scratch:
            settings |= {"init_from": recipe["init_from"], "views": recipe["views"]}
        everything = {**settings, **whole, "encoder": self.encoder.identity}
        return recipe_hash(everything, self.photographs.fingerprint)

    def views(self, pictures: Tensor, rng: torch.Generator) -> Tensor:
        """Return views of photographs, augmented, in [0, 1], at the generator's size.

        `pictures` are uint8 (batch, height, width, 3).
        """
        scale = tuple(self.recipe["views"]["scale"])
        size = self.architecture["size"]
        return random_crops(as_images(pictures), size, rng, scale=scale, ratio=1.05)

    def prepared(self, images: Tensor) -> Tensor:
        """Return what the encoder reads of images at the generator's size: their central part."""
        return self.encoder.prepare(center_crop(images, self.recipe["architecture"]["view_size"]))

    def codes(self, images: Tensor, read: Callable[[Tensor], dict[str, Tensor]]) -> Tensor:
        """Return the codes (batch, *code) of images, in half precision, on the CPU.

        `BadRequest` where one is not a finite number then.
        """
        shape = self.architecture["code"]
        codes = read(self.prepared(images))[self.layer]
        codes = codes.reshape(len(images), *([shape] if isinstance(shape, int) else shape))
        half = codes.half().cpu()
        if not bool(half.isfinite().all()):
            raise BadRequest(
                f"{self.encoder.name}: layer {self.layer} gives numbers that are not finite or "
                "beyond ±65504; a generator cannot be trained for it"
            )
        return half

    def check(self) -> None:
        """Refuse what cannot be trained, or could not be opened, with `BadFile` or `BadRequest`."""
        encoder, layer = self.encoder, self.recipe["code_layer"]
        code = self.architecture["code"]
        find_layer(encoder.network, layer, encoder.name)
        shape = encoder.shapes().get(layer, ())
        if "code" in self.recipe:
            check_components(self.recipe, math.prod(shape), f"{encoder.name}: layer {layer}")
        elif not (math.prod(shape) == code if isinstance(code, int) else shape == tuple(code)):
            raise BadRequest(
                f"{encoder.name}: layer {layer} has units of shape {list(shape)}, "
                f"and the recipe's code is {code}"
            )
        if not isinstance(code, int) and self.from_scratch:
            raise BadRequest(
                "a code that is a map needs a recipe with [init_from], such as from-teacher or "
                "deepsim-layout"
            )
        with without_weights():
            network = build(self.architecture)
        name = self.photographs.name
        source = f"a generator of {name}"
        check_generator(network, weights.rehearse(self.card(name), network, source), source)

    def check_views(self) -> None:
        """Refuse too few views of photographs for the spread of their codes, with `BadRequest`."""
        n = len(self.photographs)
        if n * self.recipe["views"]["number"] < 2:
            raise BadRequest(
                f"{self.photographs.name} has {n} photograph for training, and the recipe takes "
                "one view of it; the spread of a code needs at least two"
            )

    def card(self, name: str) -> dict[str, Any]:
        """Return what the weights file will say that is known before the first step."""
        return {
            "name": name,
            "kind": "generator",
            "architecture": self.recipe["architecture"],
            "recipe": self.recipe,
            "encoder": self.encoder.name,
            "encoder_sha256": self.encoder.identity,
            "code_layer": self.recipe["code_layer"],
            "images": "RGB in (0, 1), the encoder sees the central part",
            "data": data_card(self.photographs),
        }


def _lasting(part: str, table: Recipe) -> Recipe:
    """Leave out what may change while a stage goes on: at constant rates, the number of steps."""
    fixed = part == "code_regressor" or table.get("cosine_decay")
    return {key: value for key, value in table.items() if key != "steps" or fixed}


def data_card(photographs: Photographs) -> dict[str, Any]:
    """Return what a weights file says of the photographs."""
    return {
        "name": photographs.name,
        "photographs": len(photographs),
        "fingerprint": photographs.fingerprint,
        "licence": photographs.licence,
    }


def check_components(recipe: Recipe, units: int, where: str) -> None:
    """Refuse components of a code that cannot be found, with `BadRequest`."""
    table = recipe["code"]
    number, views = table["components"], table["views"]
    if not 0 < number <= min(units, views - 1):
        raise BadRequest(
            f"{where} has {units:,} units, and [code] takes {views:,} views; so there can be "
            f"{min(units, views - 1):,} components, and the recipe asks for {number:,}"
        )
    if recipe["architecture"]["code"] != number:
        raise BadRequest(
            f"[code] has {number:,} components, and the architecture's code is "
            f"{recipe['architecture']['code']}; leave that out"
        )


def with_code(recipe: Recipe, encoder: Subject, layer: str | None) -> Recipe:
    """Return the recipe for a layer of an encoder.

    Where the recipe does not say what the code is, the layer's shape does.
    """
    table = recipe.get("code", {})
    layer = layer or table.get("layer") or recipe.get("code_layer")
    if layer is None:
        raise BadRequest(
            "the recipe names no code layer; give one with --layer "
            f"(phosphene layers {encoder.name})"
        )
    find_layer(encoder.network, layer, encoder.name)
    shape = encoder.shapes().get(layer, ())
    code = list(shape) if math.prod(shape[1:]) > 1 else math.prod(shape)
    code = table.get("components", code)
    architecture = {"code": code, **recipe["architecture"]}
    if "rank" in architecture and isinstance(architecture["code"], int):
        architecture["rank"] = min(architecture["rank"], architecture["code"])
    return type(recipe)({**recipe, "code_layer": layer, "architecture": architecture})
