"""What every source of networks needs: preprocessing, extras, downloads, a first forward pass."""

from __future__ import annotations

import errno
import hashlib
import importlib
import math
import operator
import re
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

import numpy as np
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
from phosphene.networks.inspection import input_channels, largest_batch, number_type
from phosphene.tensors import FITS

IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_CHANNELS = 64
"""Channels of an input; more are taken for a slip."""

OPTIONS = (
    *("size", "channels", "mean", "std", "range", "classes", "output"),
    *("fit", "from_rgb", "inputs", "frames"),
)


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network from elsewhere, in eval mode and frozen, that reads `size` (height, width) pixels.

    `mean` and `std` have a number for each channel, on values in [0, 1]. `output` is the layer
    whose channels are the classes ("" lets the caller guess). `card` says where it is from: source,
    weights, licence, version of the library. `batch` is the most images that it takes at once, 0
    for any number. `layout` is the order of their numbers in memory, which a program that was
    traced with one may insist on. `fit` and `from_rgb` are as for `subjects.Subject`. `embed_text`
    gives a text's embedding, (channels,), of the kind that the layer `output` has for an image.
    """

    network: nn.Module
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    output: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    batch: int = 0
    layout: torch.memory_format = torch.channels_last
    fit: str = FITS[0]
    from_rgb: tuple[tuple[float, ...], ...] = ()
    embed_text: Callable[[str], Tensor] | None = None

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)


def checked_options(name: str, network: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a factory says of its network, which is `size`, `mean`, `std` and names.

    `channels` are found where they are not given. By default RGB has ImageNet's preprocessing, and
    other channels are read as they are. `range` (low, high) is that of the values which `mean` and
    `std` normalise, 0 … 1 by default. `fit` is one of `tensors.FITS`. `from_rgb` has the shares of
    red, green and blue in each channel. `inputs` and `frames` are for `networks.inputs`.
    """
    if unknown := [key for key in options if key not in OPTIONS]:
        raise BadRequest(f"{name} gives an option {unknown[0]!r}; there are: {', '.join(OPTIONS)}")
    size = _sides(name, options.get("size", (224, 224)))
    classes = options.get("classes", ())
    output = options.get("output", "")
    if not isinstance(classes, (tuple, list)) or not all(isinstance(each, str) for each in classes):
        raise BadRequest(f"{name}: classes is a list of names; got {type_name(classes)}")
    if output and output not in (paths := [path for path, _ in network.named_modules() if path]):
        raise UnknownName(
            f"{name} has no layer {output!r} for its output; near: {near(str(output), paths)}"
        )
    channels = options.get("channels")
    if channels is None:
        channels = input_channels(network, size)
    mean, std = _normalisation(name, channels, options)
    return {
        "size": size,
        "mean": mean,
        "std": std,
        "classes": tuple(classes),
        "output": output,
        "fit": checked_fit(options.get("fit", FITS[0])),
        "from_rgb": _from_rgb(name, len(mean), options.get("from_rgb", ())),
    }


def checked_fit(fit: Any) -> str:
    """Return how images of another shape are brought to the subject's; `BadRequest` for others."""
    if fit not in FITS:
        raise BadRequest(f"fit is one of {', '.join(FITS)}; got {fit!r}")
    return str(fit)


def _from_rgb(name: str, channels: int, rows: Any) -> tuple[tuple[float, ...], ...]:
    """Return the shares of red, green and blue in each channel, () where they are not said."""
    if isinstance(rows, (tuple, list)) and not rows:
        return ()
    try:
        shares = np.asarray(rows, np.float64)
    except (TypeError, ValueError):
        shares = np.zeros(0)
    fits = shares.shape == (channels, 3) and channels != 3
    if not fits or not (shares >= 0).all() or not (shares.sum(1) <= 1 + 1e-6).all():
        raise BadRequest(
            f"{name}: from_rgb has three shares, with a sum of at most 1, for each of {channels} "
            f"channels that are not RGB; got {rows!r}"
        )
    return tuple(tuple(map(float, row)) for row in shares)


def _sides(name: str, size: Any) -> tuple[int, int]:
    """Return (height, width) of a size in pixels, one number of which means a square."""
    try:
        sides = [*map(operator.index, size if isinstance(size, Sequence) else [size] * 2)]
    except TypeError:
        sides = []
    if len(sides) != 2 or min(sides) <= 0:
        raise BadRequest(f"{name}: size is (height, width) in pixels; got {size!r}")
    return sides[0], sides[1]


def _normalisation(
    name: str, channels: Any, options: Mapping[str, Any]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a mean and a standard deviation for each channel, on values in 0 … 1."""
    whole = isinstance(channels, int) and not isinstance(channels, bool)
    if not whole or not 1 <= channels <= MAX_CHANNELS:
        raise BadRequest(f"{name}: channels is a number in 1 … {MAX_CHANNELS}; got {channels!r}")
    plain = "range" in options or channels != 3
    mean = _numbers(name, "mean", options.get("mean", 0.0 if plain else IMAGENET_MEAN), channels)
    std = _numbers(name, "std", options.get("std", 1.0 if plain else IMAGENET_STD), channels)
    low, high = _range(name, options.get("range", (0.0, 1.0)))
    mean = tuple((each - low) / (high - low) for each in mean)
    std = tuple(each / (high - low) for each in std)
    for key, numbers in (("mean", mean), ("std", std)):
        if problem := wrong_scale(key, numbers):
            raise BadRequest(f"{name}: {problem}")
    return mean, std


def _numbers(name: str, key: str, value: Any, channels: int) -> tuple[float, ...]:
    """Return a number for each channel; one number means the same for all."""
    try:
        numbers = tuple(map(float, [value] * channels if _is_number(value) else value))
    except (TypeError, ValueError):
        numbers = ()
    finite = len(numbers) == channels and all(map(math.isfinite, numbers))
    if not finite or (key == "std" and min(numbers) <= 0):
        above = " above 0" if key == "std" else ""
        count = "three numbers" if channels == 3 else f"{channels} number(s)"
        raise BadRequest(f"{name}: {key} is {count}{above}, for values in 0 … 1; got {value!r}")
    return numbers


def _range(name: str, value: Any) -> tuple[float, float]:
    """Return the least and the largest value that a network reads before its normalisation."""
    fine = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))
    if not fine or not -1e9 < value[0] < value[1] < 1e9:
        raise BadRequest(
            f"{name}: range is (low, high), such as (0, 255) or (-1, 1); got {value!r}"
        )
    return float(value[0]), float(value[1])


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
    given = ", ".join(f"{number:g}" for number in numbers)
    return f"{key} is for values in 0 … 1; got ({given}); divide by 255? Or give their range"


def extra_module(module: str, extra: str = "") -> ModuleType:
    """Return the module of an extra; `Unavailable` says how to install it."""
    install = f"pip install 'phosphene[{extra or module}]'"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed; {install}") from None
    except (
        ImportError,
        RuntimeError,
    ) as error:  # RuntimeError: torchvision built for another torch
        raise Unavailable(
            f"{module} is installed but does not fit torch {torch.__version__} "
            f"({one_line(error)}); {install} with a build for this torch"
        ) from None


@contextmanager
def seeded_by_zero() -> Iterator[None]:
    """Lend torch's CPU random numbers, seeded by 0, and give the caller's back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@contextmanager
def fetching(name: str, hub: str, instead: str = "") -> Iterator[None]:
    """Turn a failed download into one line with what to do instead, `NAME@random` by default."""
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


def checked_network(
    name: str, loaded: LoadedNetwork, forward: Callable[[Tensor], Tensor]
) -> LoadedNetwork:
    """Return the network once its answer to a black image is (1, classes).

    One that takes an image but not two, whatever its file says, gets one at a time.
    """
    blank = torch.zeros(1, len(loaded.mean), *loaded.size, dtype=number_type(loaded.network))
    with first_pass(name, loaded.size, network=loaded.network), torch.no_grad():
        shape = tuple(forward(blank).shape)
    if len(shape) != 2 or shape[0] != 1:
        raise BadRequest(f"{name} makes {shape} of one image; a classifier makes (1, classes)")
    check_names(name, shape[1], loaded.classes)
    images = torch.rand(blank.shape, generator=torch.Generator().manual_seed(0)).to(blank.dtype)
    with torch.no_grad():
        check_repeats(name, forward(images), forward(images))
        batch = loaded.batch or largest_batch(lambda n: len(forward(blank.expand(n, -1, -1, -1))))
    return replace(loaded, batch=batch)


def check_repeats(name: str, first: Tensor, second: Tensor) -> None:
    """Refuse a network that gave two answers to the same images, with `BadRequest`."""
    if first.is_complex():
        first, second = torch.view_as_real(first), torch.view_as_real(second)
    if first.shape != second.shape or not torch.allclose(
        first.double(), second.double(), rtol=1e-3, atol=1e-6, equal_nan=True
    ):
        raise BadRequest(
            f"{name} gives another answer when it sees the same images again, so it keeps "
            "a state or draws random numbers; begin its forward without either"
        )


@contextmanager
def first_pass(
    name: str, size: tuple[int, int], instead: str = "", network: nn.Module | None = None
) -> Iterator[None]:
    """Turn a first forward pass that fails into one line that says what to do instead."""
    try:
        yield
    except (Exception, SystemExit) as error:  # of every kind: these are other people's networks
        message = one_line(error)
        advice = _advice(network, message) if network is not None else ""
        why = f"{type(error).__name__}: {message[:300]}"
        raise BadRequest(
            f"{name} does not take an image of {size[0]} × {size[1]} pixels ({why})"
            f"{advice or instead}"
        ) from None


def _advice(network: nn.Module, message: str) -> str:
    """Return what would help a network that fails with this message, "" where that is unknown."""
    films = any(isinstance(each, nn.Conv3d) for each in network.modules())
    if films and not getattr(network, "frames", 0):
        return (
            "; it reads frames, so say how many: frames=16 holds one image for 16 frames, and a "
            "clip that moves is not climbed"
        )
    channels = _channels_read(message)
    if channels != 3:
        noun = "channel" if channels == 1 else "channels"
        return f"; it reads {channels} {noun}, so say so: channels={channels}"
    kinds = {str(each.dtype) for each in network.parameters() if each.is_floating_point()}
    if len(kinds) > 1 and "dtype" in message:
        return f"; its weights are {' and '.join(sorted(kinds))}; network.float() makes them one"
    kind = number_type(network)
    if kind != torch.float32 and re.search("type|implemented for|Half|BFloat", message):
        return f"; its weights are {kind}, and network.float() makes them float32"
    if re.search("uint8|Byte", message):
        return (
            "; its forward must take fractions, since whole numbers have no gradient: with "
            "range=(0, 255) they are 0 … 255"
        )
    if re.search("unexpected keyword argument", message):
        return "; an input has the name of an argument of forward"
    if re.search("positional argument|keyword-only argument", message):
        return (
            "; its forward must take one tensor of images, (batch, channels, height, width); give "
            "what else it reads by --input NAME=FILE.npy, or by inputs in Python"
        )
    return ""


def _channels_read(message: str) -> int:
    """Return how many channels an image should have by what the error says.

    3 where it does not say.
    """
    if found := re.search(r"to have (\d+) channels, but got 3 channels", message):
        return int(found[1])
    if found := re.search(r"cannot be multiplied \(\d+x(\d+) and (\d+)x", message):
        had, wanted = int(found[1]), int(found[2])
        return next((n for n in (1, 2, 4) if 3 * wanted == n * had), 3)
    return 3


def check_names(name: str, outputs: int, classes: Sequence[str]) -> None:
    """Refuse names of classes, where there are any, that are not as many as the outputs."""
    if classes and len(classes) != outputs:
        raise BadRequest(f"{name} has {outputs} outputs and {len(classes)} names of classes")


def sha256_of(files: Iterable[Path]) -> str:
    """Return a file's sha256; of several files, the sha256 of theirs in a row."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def triple(values: Iterable[float]) -> tuple[float, float, float]:
    """Return three numbers, one for each colour."""
    red, green, blue = map(float, values)
    return red, green, blue
