"""Image classifiers of torchvision, trained or with random weights."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import nn

from phosphene.errors import BadFile, UnknownName, near, one_line
from phosphene.networks.inspection import logits_layer, sha256_of_weights
from phosphene.networks.sources.loading import (
    LoadedNetwork,
    extra_module,
    fetching,
    seeded_by_zero,
    triple,
)


def load(text: str) -> LoadedNetwork:
    """Return `MODEL`, `MODEL@WEIGHTS` or `MODEL@random` of torchvision's classifiers."""
    library = extra_module("torchvision")
    models = library.models
    model, _, wanted = text.partition("@")
    if model not in (known := models.list_models(module=models)):
        raise UnknownName(f"torchvision has no classifier {model!r}; near: {near(model, known)}")
    choices = models.get_model_weights(model)
    weights = choices.DEFAULT if wanted in ("", "random") else choices.__members__.get(wanted)
    if weights is None:
        raise UnknownName(
            f"torchvision:{model} has no weights {wanted!r}; "
            f"there are: {', '.join(choices.__members__)}, random"
        )
    random = wanted == "random"
    with seeded_by_zero():
        network = _random(models, model) if random else _trained(models, model, weights)
    transforms = weights.transforms()
    classes = tuple(weights.meta["categories"])
    # the default weights of some transformers want a larger image than the bare architecture
    side = int(getattr(network, "image_size", transforms.crop_size[0]))
    card = {
        "source": "torchvision",
        "weights": wanted if random else weights.name,
        "licence": "BSD-3-Clause (the library)",
        "version": library.__version__,
        "sha256": sha256_of_weights(network),
    }
    mean = triple(transforms.mean)
    std = triple(transforms.std)
    output = logits_layer(network, len(classes))
    return LoadedNetwork(network, (side, side), mean, std, classes, output, card)


def _random(models: ModuleType, model: str) -> nn.Module:
    # these two warn unless told how to draw their weights
    options = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(model, weights=None, **options)
    return network


def _trained(models: ModuleType, model: str, weights: Any) -> nn.Module:
    """Return a trained network.

    Its file is read once without running code from it, before the library reads it in its own way.
    """
    name = f"torchvision:{model}"
    with fetching(name, "download.pytorch.org"):
        try:
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (UnpicklingError, EOFError, RuntimeError) as error:
            file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
            raise BadFile(
                f"the weights of {name} are damaged ({one_line(error)}); "
                f"delete {file} and try again"
            ) from None
    network: nn.Module = models.get_model(model, weights=weights)
    return network
