"""What the stages of a generator's training share: views of photographs, what a stage depends on, what is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from phosphene.datasets import Photographs
from phosphene.errors import BadRequest
from phosphene.subjects import Subject
from phosphene.tensors import as_images
from phosphene.training.augment import random_crops
from phosphene.training.run import TOLD, Recipe, RunFolder, Waiting, recipe_hash

F = TypeVar("F", bound=Callable[..., Any])

DECODER = ("latent", "decoder", "decoder_blocks")
"""What of an architecture the decoder hangs on."""


def stage_identity(
    recipe: Recipe,
    encoder: Subject,
    photographs: Photographs,
    stage: str,
    begun: Sequence[str] = (),
) -> str:
    """What a stage's results depend on. At constant rates more steps go on from fewer; their number is left out."""
    order = ["views", "reader", "latent", "image"]
    parts = order[: order.index(stage) + 1]
    settings: dict[str, Any] = {
        part: {
            k: v
            for k, v in recipe[part].items()
            if k != "steps" or part == "reader" or recipe[part].get("fall")
        }
        for part in parts
        if part in recipe
    }
    whole: dict[str, Any] = {
        part: recipe[part]
        for part in ("seed", "architecture", "autoencoder", "code_layer")
        if part in recipe
    }
    if stage in ("views", "reader"):
        shared = (*DECODER, "size", "seen")
        whole["architecture"] = {
            part: value for part, value in recipe["architecture"].items() if part in shared
        }
    if begun:
        settings = {stage: settings[stage], "begun": list(begun)}
    if "begin" in recipe:
        settings |= {"begin": recipe["begin"], "views": recipe["views"]}
    return recipe_hash(
        {**settings, **whole, "encoder": encoder.identity},
        photographs.fingerprint,
    )


def drawn_views(pictures: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """uint8 (batch, height, width, 3) to augmented views in [0, 1] at the generator's size."""
    x = as_images(pictures)
    return random_crops(
        x,
        recipe["architecture"]["size"],
        generator,
        scale=tuple(recipe["views"]["scale"]),
        ratio=1.05,
    )


def kept_codes(codes: Tensor, encoder: Subject, layer: str) -> Tensor:
    """Return codes in half precision, on the CPU.

    `BadRequest` where one is not a finite number then.
    """
    half = codes.half().cpu()
    if not bool(half.isfinite().all()):
        raise BadRequest(
            f"{encoder.name}: layer {layer} gives numbers that are not finite or beyond ±65504; "
            "a generator cannot be trained for it"
        )
    return half


def tell(
    folder: RunFolder,
    step: int,
    steps: int,
    figures: dict[str, Tensor],
    waiting: Waiting | None = None,
) -> None:
    """Figures are fetched from the device only for the steps that are told. The log has none that a clock made."""
    if step % TOLD == 0:
        numbers = {name: value.item() for name, value in figures.items()}
        waited = {} if waiting is None else {"waiting": waiting.share}
        folder.runtime.progress(step + 1, steps, numbers | waited)
        if step % 100 == 0:
            folder.log(step=step, **numbers)


def mixed_precision(device: str) -> Any:
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def compiled(function: F, device: str) -> F:
    """The function with its kernels fused by torch's compiler, where there is an accelerator; on a CPU, as it is."""
    return (
        function
        if torch.device(device).type == "cpu"
        else cast("F", torch.compile(function, dynamic=False))
    )
