"""Files of the published generators and of bounds of codes; they are hostile until checked."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene.errors import BadFile
from phosphene.files import from_hub, in_utf8, read_text, really_is
from phosphene.networks.deepsim.network import LAYOUTS, DeePSiM
from phosphene.networks.empty import without_weights

HUB = "binxu/DeePSim_DosovitskiyBrox2016"

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_deepsim(layer: str, file: str | Path | None = None) -> DeePSiM:
    """Return a published generator by its code layer, frozen, from a file or from the hub.

    The file (.pt, .safetensors) is hostile until checked: no code in it runs, and names, shapes,
    types and values must be the release's. Names may share one prefix (`module.`, `0.`, `G.`).
    """
    with without_weights():
        network = DeePSiM(layer)
    path = from_hub(HUB, f"upconvGAN_{layer}.pt") if file is None else Path(file)
    largest = 8 * sum(parameter.numel() for parameter in network.parameters()) + (1 << 20)
    tensors = _plain_names(_read(path, largest), network.state_dict(), path)
    _check(tensors, network, path)
    checked = {name: _finite(name, value, path) for name, value in tensors.items()}
    network.load_state_dict(checked, assign=True)
    return network.requires_grad_(False).eval()


def read_bounds(file: str | Path, code_shape: tuple[int, ...] | None = None) -> Tensor:
    """Return upper bounds of the units of a code, float32 of `code_shape`, flat without one.

    They are numbers in a text file, as the 2016 code keeps them, or in a .npy file. Bounds are
    finite and not negative.
    """
    path = Path(file)
    _size(path, 64 << 20)
    numbers = _array(path) if path.suffix == ".npy" else _text(path)
    wanted = numbers.numel() if code_shape is None else math.prod(code_shape)
    if numbers.numel() != wanted or not wanted:
        raise BadFile(
            f"{path} has {numbers.numel()} bounds, expected {wanted or 'one for each unit'}"
        )
    if not (numbers.isfinite() & (numbers >= 0)).all():
        raise BadFile(
            f"{path} has bounds that are negative, infinite or not numbers; expected 0 or more"
        )
    return numbers.view(code_shape or -1)


def _read(path: Path, largest: int) -> dict[str, Tensor]:
    """Return the tensors of a file of at most so many bytes; nothing in it is run."""
    _size(path, largest)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            with in_utf8(path) as file:
                found: Any = load_file(file)
        else:
            _not_inflated(path, largest)
            found = torch.load(path, map_location="cpu", weights_only=True)
    except BadFile:
        raise
    except Exception as error:  # a damaged file can make a parser raise anything
        raise BadFile(
            f"{path} {_complaint(path, error)}; expected the tensors of one DeePSiM generator"
        ) from None
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise BadFile(
            f"{path} holds a {type(found).__name__}, expected tensors by name (a state dict)"
        )
    return dict(found)


def _complaint(path: Path, error: Exception) -> str:
    """Return what a parser's many lines come down to."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"carries code ({code[1][:60]}), which is never run"
    problem = "is damaged, truncated, or neither a PyTorch nor a safetensors file"
    return f"{problem} (it is {kind})" if (kind := really_is(path)) else problem


def _not_inflated(path: Path, largest: int) -> None:
    """Refuse a zip whose contents are much larger than itself before it is unpacked."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > largest:
            raise BadFile(f"{path} unpacks to {size:,} bytes, expected at most {largest:,}")


def _size(path: Path, largest: int) -> None:
    if not path.is_file():
        raise BadFile(f"{path} cannot be read: there is no such file")
    if (size := path.stat().st_size) > largest:
        raise BadFile(f"{path} has {size:,} bytes, expected at most {largest:,}")


def _plain_names(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Return tensors by the release's names.

    The prefix that all share and the mirror's stray `.1` are removed.
    """
    names = {name: name.replace(".1.", ".") for name in tensors}
    endings = [
        (name, end) for name in names.values() for end in wanted if f".{name}".endswith(f".{end}")
    ]
    prefixes = {name.removesuffix(end) for name, end in endings}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    plain = {plain.removeprefix(prefix): tensors[name] for name, plain in names.items()}
    if len(plain) != len(tensors):
        raise BadFile(f"{path} holds the same tensor under two names; expected one of each")
    return plain


def _check(tensors: Mapping[str, Tensor], network: DeePSiM, path: Path) -> None:
    """Refuse any file but this generator's, before memory is taken for the network."""
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        value, shape = tensors.get(name), wanted.get(name)
        got = "missing" if name not in tensors else _describe(value)
        if value is None or shape is None or got != str(list(shape)):
            right = "no such tensor" if shape is None else list(shape)
            raise BadFile(
                f"{path} is not a DeePSiM {network.layer} generator: {name[:60]!r} is {got}, "
                f"expected {right}{_other(tensors)}"
            )


def _describe(value: object) -> str:
    """Return a shape where the value is plain numbers in memory, and otherwise what it is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided or value.device.type != "cpu":
        return f"a {value.layout} tensor on {value.device}"
    return (
        str(list(value.shape))
        if value.dtype in _FLOATS
        else f"{list(value.shape)} of {value.dtype}"
    )


def _other(tensors: Mapping[str, Tensor]) -> str:
    """Return a hint where the file is another code layer's generator."""
    shapes = {name: getattr(value, "shape", None) for name, value in tensors.items()}
    with without_weights():
        fits = [
            layer
            for layer in LAYOUTS
            if {name: value.shape for name, value in DeePSiM(layer).state_dict().items()} == shapes
        ]
    return f"; it fits deepsim:{' or '.join(fits)}" if fits else ""


def _finite(name: str, value: Tensor, path: Path) -> Tensor:
    """Return the values in float32; `BadFile` where some are infinite."""
    value = value.detach().to(torch.float32).contiguous()
    if not value.isfinite().all():
        raise BadFile(
            f"{path} is damaged: {name!r} has values that are infinite or not numbers; "
            "fetch it again"
        )
    return value


def _array(path: Path) -> Tensor:
    """Return the numbers of a .npy file, mapped first so that its header's size is not believed."""
    import numpy as np

    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file can make a parser raise anything
        reason = really_is(path) or type(error).__name__
        raise BadFile(
            f"{path} is not a .npy file of numbers, or a damaged one ({reason})"
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise BadFile(f"{path} is not a .npy file of numbers; expected one for each unit")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        return torch.from_numpy(values.astype(np.float32).ravel())


def _text(path: Path) -> Tensor:
    try:
        return torch.tensor([float(word) for word in read_text(path).split()])
    except (OSError, ValueError) as error:
        raise BadFile(
            f"{path} is not a readable text of numbers between spaces: {str(error)[:80]!r}"
        ) from None
