"""Image classifiers of timm, trained or with random weights."""

from __future__ import annotations

from pickle import UnpicklingError
from types import ModuleType
from typing import Any

from torch import nn

from phosphene.errors import BadFile, UnknownName, near, one_line
from phosphene.networks.inspection import sha256_of_weights
from phosphene.networks.sources.loading import (
    LoadedNetwork,
    ask,
    extra_module,
    fetching,
    seeded_by_zero,
    triple,
)


def load(text: str) -> LoadedNetwork:
    """Return `MODEL`, `MODEL.TAG` or either with `@random`, of timm."""
    library = extra_module("timm")
    model, _, wanted = text.partition("@")
    _check_name(library, model, wanted)
    with seeded_by_zero():
        network: Any = (
            library.create_model(model, pretrained=False) if wanted else _trained(library, model)
        )
    pretrained = network.pretrained_cfg
    config = library.data.resolve_model_data_config(network, use_test_size=True)
    height, width = config["input_size"][1:]
    size_of_training = library.data.resolve_model_data_config(network)["input_size"][1:]
    classes: tuple[str, ...] = ()
    if network.num_classes == 1000:
        classes = tuple(library.data.ImageNetInfo().label_descriptions())
    card = {
        "source": "timm",
        "weights": wanted or pretrained.get("tag") or "default",
        "licence": pretrained.get("license") or "Apache-2.0 (the library)",
        "version": library.__version__,
        "sha256": sha256_of_weights(network),
    }
    if (height, width) != tuple(size_of_training):
        card["size_0_1_0"] = list(size_of_training)
    mean = triple(config["mean"])
    std = triple(config["std"])
    return LoadedNetwork(network, (height, width), mean, std, classes, _output(network), card)


def _check_name(library: ModuleType, model: str, wanted: str) -> None:
    """Refuse a model that timm does not have, and weights that the model does not have."""
    known = [*library.list_models(), *library.list_pretrained()]
    if model not in known:
        raise UnknownName(f"timm has no model {model!r}; near: {near(model, known)}")
    name = f"timm:{model}"
    if wanted not in ("", "random"):
        tagged = library.list_pretrained(f"{model.partition('.')[0]}.*")
        tags = ", ".join(f"timm:{each}" for each in tagged)
        raise UnknownName(
            f"{name} has no weights {wanted!r}; "
            f"write {tags or 'nothing (it has none)'} or {name}@random"
        )
    if not wanted and not library.is_model_pretrained(model):
        raise UnknownName(f"{name} comes without trained weights; there is {name}@random")


def _trained(library: ModuleType, model: str) -> nn.Module:
    """Return a trained network, from the cache where it is there.

    Otherwise the hub is asked first, since its client tries for a minute.
    """
    import huggingface_hub
    from safetensors import SafetensorError

    name = f"timm:{model}"
    pretrained = library.get_pretrained_cfg(model)
    cached = None
    if pretrained.hf_hub_id and not pretrained.custom_load:
        cached = huggingface_hub.try_to_load_from_cache(
            pretrained.hf_hub_id, pretrained.hf_hub_filename or "model.safetensors"
        )
    hub = huggingface_hub.constants.ENDPOINT
    overlay = {"file": cached} if isinstance(cached, str) else None
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    with fetching(name, hub):
        if overlay is None and pretrained.hf_hub_id and not offline:
            ask(hub)
        try:
            network: nn.Module = library.create_model(
                model, pretrained=True, pretrained_cfg_overlay=overlay
            )
        except (SafetensorError, UnpicklingError, EOFError) as error:
            where = f"; delete {cached} and try again" if overlay else ""
            raise BadFile(f"the weights of {name} are damaged ({one_line(error)}){where}") from None
    return network


def _output(network: Any) -> str:
    """Return the path of the classifier that timm names, the first of several."""
    classifier = network.get_classifier()
    if isinstance(classifier, (tuple, list, nn.ModuleList)):
        classifier = classifier[0]
    if classifier is None or isinstance(classifier, nn.Identity):
        return ""
    return next((path for path, module in network.named_modules() if module is classifier), "")
