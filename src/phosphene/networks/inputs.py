"""What a network reads beside images: values that stay the same, and the frames of a held image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import BadFile, BadRequest, one_line
from phosphene.files import really_is

MAX_FRAMES = 4096
"""Frames that an image is held for; more are taken for a slip."""


@dataclass(frozen=True, eq=False)
class FixedInput:
    """A value (1, …) that a network reads beside each image; the file that it lies in, or ""."""

    value: Tensor
    file: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what a record keeps: the shape, the sha256 of the numbers, and the file."""
        array = self.value.numpy()
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        told = {"shape": list(array.shape), "sha256": digest.hexdigest()}
        return {**told, "file": self.file} if self.file else told


def read_inputs(given: Mapping[str, Any]) -> dict[str, FixedInput]:
    """Return values by the names of arguments, given as files of numpy, arrays, tensors, numbers.

    One whose first axis is 1 has the axis of a batch; any other gets one.
    """
    if not isinstance(given, Mapping):
        raise BadRequest(f"inputs are a dict of names and arrays; got {type(given).__name__}")
    return {str(name): _read(str(name), each) for name, each in given.items()}


def _read(name: str, given: Any) -> FixedInput:
    if isinstance(given, FixedInput):
        return given
    file = str(Path(given).resolve()) if isinstance(given, (str, Path)) else ""
    values = _loaded(name, file) if file else given
    try:
        tensor = torch.as_tensor(values).detach().cpu().clone()
    except Exception as error:  # torch has no common error of its own
        raise BadRequest(f"input {name!r} is no array of numbers: {one_line(error)}") from None
    if not tensor.numel():
        raise BadRequest(f"input {name!r} holds no numbers; its shape is {tuple(tensor.shape)}")
    if tensor.isnan().any():  # infinities are left: masks of attention have them
        raise BadRequest(
            f"input {name!r} has NaN in {int(tensor.isnan().sum())} of its {tensor.numel():,} "
            "numbers, so no score would be a number; replace them"
        )
    batched = tensor if tensor.ndim and len(tensor) == 1 else tensor[None]
    return FixedInput(batched.contiguous(), file)


def _loaded(name: str, file: str) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except Exception as error:  # numpy has no common error of its own
        why = really_is(Path(file)) or one_line(error)
        raise BadFile(f"input {name!r}: {file} is not a .npy array: {why}") from None


class WithInputs(nn.Module):
    """Give a network fixed inputs with its images, and images as frames.

    Its layers are those of the network, under the same names. `fixed` has a value (1, …) for each
    argument of `forward`. With `frames` above 0, the network reads (batch, channels, frames,
    height, width), and all frames of an image are alike.
    """

    def __init__(self, network: nn.Module, fixed: Mapping[str, FixedInput], frames: int = 0):
        super().__init__()
        shared = ("_modules", "_parameters", "_buffers", "training")
        vars(self).update({name: vars(network)[name] for name in shared})
        vars(self)["network"] = network  # no child: that would give its layers other names
        self.fixed = dict(fixed)
        self.frames = frames

    def __getattr__(self, name: str) -> Any:
        """Return what the network itself has under a name, such as its configuration."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "network" not in vars(self):
                raise
            return getattr(vars(self)["network"], name)

    def forward(self, images: Tensor) -> Any:
        """Return what the network makes of images (batch, channels, height, width)."""
        given = {name: _for_batch(each.value, images) for name, each in self.fixed.items()}
        if self.frames:
            images = images[:, :, None].expand(-1, -1, self.frames, -1, -1)
        network: Callable[..., Any] = vars(self)["network"]
        return network(images, **given)


def _for_batch(value: Tensor, images: Tensor) -> Tensor:
    """Return a value for each image, on the images' device; fractions in their precision."""
    kind = images.dtype if value.is_floating_point() else value.dtype
    return value.to(images.device, kind).expand(len(images), *value.shape[1:])


def with_inputs(
    name: str, network: nn.Module, options: Mapping[str, Any], given: Mapping[str, Any]
) -> nn.Module:
    """Return a network with the `inputs` and `frames` of its options, and with those given.

    Without any of them it is the network itself.
    """
    fixed = {**read_inputs(options.get("inputs", {})), **read_inputs(given)}
    frames = options.get("frames", 0)
    if not isinstance(frames, int) or not 0 <= frames <= MAX_FRAMES:
        raise BadRequest(f"{name}: frames is a number in 0 … {MAX_FRAMES:,}; got {frames!r}")
    return WithInputs(network, fixed, frames) if fixed or frames else network
