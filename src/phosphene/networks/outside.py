"""What every network from elsewhere is and needs: its way of looking, extras, downloads, errors on one line."""

from __future__ import annotations

import errno
import hashlib
import importlib
import math
import re
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

import torch
from torch import Tensor, nn

from phosphene.errors import (
    BadRequest,
    OutOfSpace,
    Unavailable,
    UnknownName,
    near,
    one_line,
    type_name,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

OPTIONS = ("size", "mean", "std", "classes", "output")


@dataclass(frozen=True, eq=False)
class External:
    """A network from elsewhere, in eval mode and frozen, that reads `size` (height, width) pixels.

    `mean` and `std` are on RGB in [0, 1]. `output` is the layer whose channels are the classes ("" lets the
    caller guess). `card` says where it is from: source, weights, licence, version of the library. `batch` is the
    most images that it takes at once, 0 for any number; `layout` the order of their numbers in memory, which a
    program that was traced with one may insist on.
    """

    network: nn.Module
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...] = ()
    output: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    batch: int = 0
    layout: torch.memory_format = torch.channels_last

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)


def checked_options(name: str, network: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a factory says of its network, checked, with ImageNet's usual ways where it says nothing."""
    if unknown := [key for key in options if key not in OPTIONS]:
        raise BadRequest(f"{name} gives an option {unknown[0]!r}; there are: {', '.join(OPTIONS)}")
    size = _sides(name, options.get("size", (224, 224)))
    classes, output = options.get("classes", ()), options.get("output", "")
    if not isinstance(classes, (tuple, list)) or not all(isinstance(each, str) for each in classes):
        raise BadRequest(f"{name}: classes is a list of names; got {type_name(classes)}")
    if output and output not in (paths := [path for path, _ in network.named_modules() if path]):
        raise UnknownName(
            f"{name} has no layer {output!r} for its output; near: {near(str(output), paths)}"
        )
    mean, std = (
        _colours(name, key, options.get(key, usual))
        for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
    )
    return {"size": size, "mean": mean, "std": std, "classes": tuple(classes), "output": output}


def _sides(name: str, size: Any) -> tuple[int, int]:
    """Return (height, width) of a size in pixels, one number of which means a square."""
    sides = (size, size) if isinstance(size, int) else size
    fine = isinstance(sides, (tuple, list)) and len(sides) == 2
    if not fine or not all(isinstance(side, int) and side > 0 for side in sides):
        raise BadRequest(f"{name}: size is (height, width) in pixels; got {size!r}")
    return sides[0], sides[1]


def _colours(name: str, key: str, value: Any) -> tuple[float, float, float]:
    """Return a mean or a standard deviation for each colour; one number means the same for all."""
    try:
        numbers = tuple(float(each) for each in ([value] * 3 if _is_number(value) else value))
    except (TypeError, ValueError):
        numbers = ()
    finite = len(numbers) == 3 and all(map(math.isfinite, numbers))
    if not finite or (key == "std" and min(numbers) <= 0):
        above = " above 0" if key == "std" else ""
        raise BadRequest(f"{name}: {key} is three numbers{above}, for RGB in 0 … 1; got {value!r}")
    if problem := wrong_scale(key, numbers):
        raise BadRequest(f"{name}: {problem}")
    return triple(numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_FURTHEST = {"mean": 2.0, "std": 10.0}
"""No mean of RGB in 0 … 1 lies further from 0, and no standard deviation is larger; in 0 … 255
nearly all do."""


def wrong_scale(key: str, numbers: Sequence[float]) -> str:
    """Return what is wrong with a `mean` or `std` that is not for RGB in 0 … 1.

    "" where nothing is wrong.
    """
    if max(map(abs, numbers)) <= _FURTHEST[key]:
        return ""
    told = ", ".join(f"{number:g}" for number in numbers)
    return f"{key} is for RGB in 0 … 1; got ({told}); divide by 255?"


def bare(name: str, network: nn.Module) -> nn.Module:
    """Return the network that a wrapper holds: one for several devices, an average, a compiled one.

    `BadRequest` for a scripted one, whose layers cannot be read.
    """
    while True:
        if isinstance(network, torch.jit.ScriptModule):
            raise BadRequest(
                f"{name} is scripted, so its layers cannot be read; give the module that "
                "torch.jit.script or torch.jit.trace was given, or a program of torch.export.save"
            )
        within = getattr(network, "_orig_mod", None)
        if isinstance(network, _WRAPPERS):
            within = network.module
        if not isinstance(within, nn.Module):
            return network
        network = within


def told_tokens(network: nn.Module) -> tuple[str, ...] | None:
    """Return names of the tokens ahead of a transformer's patches, such as ("class", "register0").

    timm's and torchvision's modules and the configurations of 🤗 transformers tell them, also where
    such a network is a part of another. None where nothing does.
    """
    for module in network.modules():
        for told in (_told_by_timm, _told_by_torchvision, _told_by_transformers):
            if (names := told(module)) is not None:
                return names
    return None


def _told_by_timm(module: nn.Module) -> tuple[str, ...] | None:
    count = getattr(module, "num_prefix_tokens", None)
    if not isinstance(count, int):
        return None
    named = [
        name
        for name, part in (("class", "cls_token"), ("distillation", "dist_token"))
        if getattr(module, part, None) is not None
    ][:count]
    return (*named, *(f"register{i}" for i in range(count - len(named))))


def _told_by_torchvision(module: nn.Module) -> tuple[str, ...] | None:
    return ("class",) if isinstance(getattr(module, "class_token", None), nn.Parameter) else None


def _told_by_transformers(module: nn.Module) -> tuple[str, ...] | None:
    config = getattr(module, "config", None)
    if getattr(config, "model_type", None) == "deit":
        return "class", "distillation"
    registers = getattr(config, "num_register_tokens", None)
    if isinstance(registers, int):
        return "class", *(f"register{i}" for i in range(registers))
    return None


_WRAPPERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)


def number_type(network: nn.Module) -> torch.dtype:
    """Return the type of numbers that a network takes: that of its first weights."""
    kinds = (each.dtype for each in network.parameters() if each.is_floating_point())
    return next(kinds, torch.float32)


def extra_module(module: str, extra: str = "") -> ModuleType:
    """The module of an extra; `Unavailable` says how to install it."""
    install = f"pip install 'phosphene[{extra or module}]'"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed; {install}") from None
    except (
        ImportError,
        RuntimeError,
    ) as error:  # RuntimeError: a torchvision that was built for another torch
        raise Unavailable(
            f"{module} is installed but does not fit torch {torch.__version__} ({one_line(error)}); "
            f"{install} with a build for this torch"
        ) from None


@contextmanager
def seeded_by_zero() -> Iterator[None]:
    """Lend torch's CPU random numbers, seeded by 0, and give the caller's back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@contextmanager
def fetching(name: str, hub: str, instead: str = "") -> Iterator[None]:
    """A failed download is one line that also says what to do instead; `NAME@random` unless told."""
    what = f"the weights of {name}"
    try:
        yield
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutOfSpace(f"{what} found no space in the cache ({one_line(error)})") from None
        raise Unavailable(
            f"{what} could not be fetched from {hub} ({one_line(error)}); "
            + (instead or f"{name}@random needs no download")
        ) from None


def ask(hub: str) -> None:
    """Raise `OSError` unless the hub answers; any answer will do."""
    try:
        urllib.request.urlopen(urllib.request.Request(hub, method="HEAD"), timeout=10).close()
    except HTTPError as error:
        error.close()


def logits_layer(network: nn.Module, classes: int) -> str:
    """The last layer with one channel for each class; where that is a convolution, the block that then pools it."""
    for path, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == classes:
            return path
        if isinstance(module, nn.Conv2d) and module.out_channels == classes:
            return path.rpartition(".")[0] or path
    return ""


def fitting_layout(network: nn.Module, size: tuple[int, int]) -> torch.memory_format:
    """Channels last, the faster one, unless the network reshapes by `view` what then lies in another order.

    Whatever else is wrong with the network, its first real pass tells.
    """
    parameter = next(network.parameters(), torch.zeros(()))
    blank = torch.zeros(1, 3, *size, device=parameter.device, dtype=number_type(network))
    try:
        with looking_without_gradients():
            network(blank.contiguous(memory_format=torch.channels_last))
    except Exception as error:
        return torch.contiguous_format if "view" in str(error) else torch.channels_last
    return torch.channels_last


def checked(name: str, outside: External, look: Callable[[Tensor], Tensor]) -> External:
    """Return the network once it has answered a black image by (1, classes).

    One that takes an image but not two, whatever its file says, is shown one at a time.
    """
    blank = torch.zeros(1, 3, *outside.size, dtype=number_type(outside.network))
    with looking(name, outside.size, network=outside.network), torch.no_grad():
        shape = tuple(look(blank).shape)
    if len(shape) != 2 or shape[0] != 1:
        raise BadRequest(f"{name} makes {shape} of one image; a classifier makes (1, classes)")
    check_names(name, shape[1], outside.classes)
    seen = torch.rand(blank.shape, generator=torch.Generator().manual_seed(0)).to(blank.dtype)
    with torch.no_grad():
        check_repeats(name, look(seen), look(seen))
        batch = outside.batch or at_once(lambda images: len(look(blank.expand(images, -1, -1, -1))))
    return replace(outside, batch=batch)


def check_repeats(name: str, first: Tensor, second: Tensor) -> None:
    """Refuse a network that did not say the same twice of the same images, with `BadRequest`."""
    if first.shape != second.shape or not torch.allclose(
        first.double(), second.double(), rtol=1e-3, atol=1e-6, equal_nan=True
    ):
        raise BadRequest(
            f"{name} gives another answer when it sees the same images again, so it keeps "
            "a state or draws random numbers; begin its forward without either"
        )


def at_once(answers: Callable[[int], int]) -> int:
    """Return how many images a network takes: 1, or 0 for any number.

    `answers` shows it so many images and returns for how many it answered.
    """
    with suppress(Exception):  # of every kind: the same of one image tells what is wrong
        if answers(2) == 2:
            return 0
    return 1 if answers(1) == 1 else 0


@contextmanager
def looking(
    name: str, size: tuple[int, int], instead: str = "", network: nn.Module | None = None
) -> Iterator[None]:
    """Turn a first look that fails into one line, `BadRequest`, that says what to do instead."""
    try:
        yield
    except (Exception, SystemExit) as error:  # of every kind: these are other people's networks
        told = one_line(error)
        advice = _advice(network, told) if network is not None else ""
        why = f"{type(error).__name__}: {told[:300]}"
        raise BadRequest(
            f"{name} does not take an image of {size[0]} × {size[1]} pixels ({why})"
            f"{advice or instead}"
        ) from None


@contextmanager
def looking_without_gradients() -> Iterator[None]:
    """Lend a pass without gradients, and without the warning of checkpoints that there are none."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad", UserWarning)
        yield


def _advice(network: nn.Module, told: str) -> str:
    """Return what would help a network that an error says this of, where it is known."""
    channels = _channels_read(told)
    if channels == 1:
        return "; it reads one channel, so begin its forward with images.mean(1, keepdim=True)"
    if channels != 3:
        return (
            f"; it reads {channels} channels, so begin it with one like nn.Conv2d(3, {channels}, 1)"
        )
    kind = number_type(network)
    if kind != torch.float32 and re.search("type|implemented for|Half|BFloat", told):
        return f"; its weights are {kind}, and network.float() makes them float32"
    if "positional argument" in told or "keyword-only argument" in told:
        return "; its forward must take one tensor of images, (batch, 3, height, width)"
    return ""


def _channels_read(told: str) -> int:
    """Return how many channels an image should have by what the error says.

    3 where it does not say.
    """
    if found := re.search(r"to have (\d+) channels, but got 3 channels", told):
        return int(found[1])
    if found := re.search(r"cannot be multiplied \(\d+x(\d+) and (\d+)x", told):
        had, wanted = int(found[1]), int(found[2])
        return next((n for n in (1, 2, 4) if 3 * wanted == n * had), 3)
    return 3


def check_names(name: str, outputs: int, classes: Sequence[str]) -> None:
    """`BadRequest` where a network does not have as many outputs as there are names for them, if there are any."""
    if classes and len(classes) != outputs:
        raise BadRequest(f"{name} has {outputs} outputs and {len(classes)} names of classes")


def sha256_of(files: Iterable[Path]) -> str:
    """A file's sha256; of several files, the sha256 of theirs, written one after the other."""
    digests = []
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        digests.append(digest.hexdigest())
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def sha256_of_weights(network: nn.Module) -> str:
    """Of all that a network's state holds: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(
            f"{name} {getattr(value, 'dtype', '')} {tuple(getattr(value, 'shape', ()))}\n".encode()
        )
        if not isinstance(value, Tensor):
            digest.update(repr(value).encode())
        elif not value.is_meta:
            dense = value.dequantize() if value.is_quantized else value.to_dense()
            digest.update(
                dense.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()


def triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
