"""The published generators of Dosovitskiy & Brox (2016, arXiv 1602.02644), as the paper used them.

Layouts and tensor names are those of the release's Caffe definitions, which the PyTorch mirror on the
Hugging Face hub keeps. Only `load_deepsim` and `read_bounds` read a file; the rest is pure.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import BadFile, BadRequest, UnknownName
from phosphene.files import from_hub, in_utf8, read_text, really_is

HUB = "binxu/DeePSim_DosovitskiyBrox2016"
LICENCE = (
    "DeePSiM weights: the hub's mirror is tagged MIT; the authors' own terms "
    "(lmb.informatik.uni-freiburg.de) allow non-commercial research only"
)

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
"""Mean colour of ILSVRC 2012 in Caffe's channel order, on the 0 … 255 scale; the release leaves it out."""

STATISTICS = {"fc6": (0.63, 3.74), "fc6_eucl": (0.63, 3.74)}
"""Mean over units of μ and of σ of CaffeNet's code over natural images, by code layer: an approximation.

The release has no code statistics. These are recovered from the 2016 code's bounds (whole numbers, one,
two and three σ above μ), so a single unit's can be far off: its 3σ bounds range over 3 … 17, while
these two numbers give every unit 11.85. Where the bounds are at hand, `read_bounds` is the better prior.
"""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_Layers = dict[str, nn.Module]


@dataclass(frozen=True)
class Layout:
    """What one code layer's generator looks like: its codes, its image, its layers in order."""

    code_shape: tuple[int, ...]
    image_size: int
    layers: Callable[[], _Layers]
    linear: tuple[str, ...] = ("deconv0",)
    """The layers that no LeakyReLU follows."""
    tanh: bool = False
    """The image is 255 · tanh of the last layer."""


class DeePSiM(nn.Module):
    """From a code of CaffeNet to an image; the prior of Nguyen et al. (2016).

    Codes (batch, *code_shape) as Caffe's CaffeNet gives them (after the ReLU) to RGB float32 (batch, 3,
    image_size, image_size). The subject was shown the central `seen` pixels, from row and column
    (image_size − seen) // 2 on: 14 for the 256-pixel generators.

    The release's convention (BGR, mean left out, ±255) ends here: 0 is black and 1 is white. Values are
    **not** clamped to [0, 1], because the paper hands x = G(y) to the subject as it is and a clamp would
    stop the gradient at every saturated pixel. Clamp when a picture is drawn.
    """

    mean_bgr: Tensor

    def __init__(self, layer: str = "fc6"):
        super().__init__()
        self.layout = _layout(layer)
        self.layer, self.seen = layer, 227
        self.code_shape, self.image_size = self.layout.code_shape, self.layout.image_size
        for name, module in self.layout.layers().items():
            self.add_module(name, module)
        mean = torch.tensor(MEAN_BGR, device="cpu").view(
            1, 3, 1, 1
        )  # real even where the layers are on "meta"
        self.register_buffer("mean_bgr", mean, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        if codes.shape[1:] != self.code_shape:
            raise BadRequest(
                f"deepsim:{self.layer} reads codes (batch, {', '.join(map(str, self.code_shape))}), "
                f"got {tuple(codes.shape)}"
            )
        x = codes
        for name, module in self.named_children():
            x = module(x)
            if name not in self.layout.linear:
                x = F.leaky_relu(x, 0.3)
            if name == "defc5":
                x = x.unflatten(1, (256, 4, 4))
        bgr = 255 * x.float().tanh() if self.layout.tanh else x.float()
        return (bgr + self.mean_bgr.float()).flip(1) / 255


def load_deepsim(layer: str, file: str | Path | None = None) -> DeePSiM:
    """A published generator by its code layer, frozen, from a file (.pt, .safetensors) or from the hub.

    The file is hostile until checked: no code in it runs, and names, shapes, types and values must be the
    release's. Names may share one prefix (`module.`, `0.`, `G.`).
    """
    with torch.device("meta"):
        network = DeePSiM(layer)
    path = from_hub(HUB, f"upconvGAN_{layer}.pt") if file is None else Path(file)
    largest = 8 * sum(parameter.numel() for parameter in network.parameters()) + (1 << 20)
    tensors = _plain_names(_read(path, largest), network.state_dict(), path)
    _check(tensors, network, path)
    network.load_state_dict(
        {name: _finite(name, value, path) for name, value in tensors.items()}, assign=True
    )
    return network.requires_grad_(False).eval()


def approximate_statistics(layer: str) -> tuple[Tensor, Tensor]:
    """μ and σ of a code layer, the same for every unit: see `STATISTICS` for how rough they are."""
    if layer not in STATISTICS:
        raise UnknownName(
            f"no code statistics for deepsim:{layer}; there are: {', '.join(STATISTICS)}; or give a file of bounds"
        )
    mean, std = STATISTICS[layer]
    shape = _layout(layer).code_shape
    return torch.full(shape, mean), torch.full(shape, std)


def read_bounds(file: str | Path, code_shape: tuple[int, ...] | None = None) -> Tensor:
    """Upper bounds of the units of a code, as the 2016 code keeps them: numbers in a text file, or a .npy file.

    Float32 of `code_shape`, or flat where none is given. Bounds are finite and not negative.
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


def _layout(layer: str) -> Layout:
    if layer not in LAYOUTS:
        raise UnknownName(f"no DeePSiM generator for {layer!r}; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[layer]


def _up(inputs: int, outputs: int) -> nn.Module:
    """Twice the size."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def _turned(inputs: int, outputs: int) -> nn.Module:
    """The same size, as a transposed convolution: its kernel lies turned by 180° and (in, out)."""
    return nn.ConvTranspose2d(inputs, outputs, 3, padding=1)


def _same(inputs: int, outputs: int) -> nn.Module:
    """The same size, as an ordinary convolution."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _from_vector(units: int) -> _Layers:
    """fc6, fc7 and fc8: three fully connected layers, then up from 4×4."""
    return {
        "defc7": nn.Linear(units, 4096),
        "defc6": nn.Linear(4096, 4096),
        "defc5": nn.Linear(4096, 4096),
        **_from_4x4(256),
    }


def _from_pool5() -> _Layers:
    """pool5: three convolutions (6×6 to 4×4), then the same way up."""
    return {
        "Rconv6": _same(256, 512),
        "Rconv7": _same(512, 512),
        "Rconv8": nn.Conv2d(512, 512, 3),
        **_from_4x4(512),
    }


def _from_4x4(channels: int) -> _Layers:
    return {
        "deconv5": _up(channels, 256),
        "conv5_1": _turned(256, 512),
        "deconv4": _up(512, 256),
        "conv4_1": _turned(256, 256),
        "deconv3": _up(256, 128),
        "conv3_1": _turned(128, 128),
        "deconv2": _up(128, 64),
        "deconv1": _up(64, 32),
        "deconv0": _up(32, 3),
    }


def _from_conv() -> _Layers:
    """conv3 and conv4: 13×13 to 8×8, then up."""
    return {
        "Rconv6": nn.Conv2d(384, 384, 3),
        "Rconv7": nn.Conv2d(384, 512, 3),
        "Rconv8": nn.Conv2d(512, 512, 2),
        "deconv5": _up(512, 256),
        "conv5_1": _turned(256, 256),
        "deconv4": _up(256, 128),
        "conv4_1": _turned(128, 128),
        "deconv3": _up(128, 128),
        "conv3_1": _turned(128, 128),
        "deconv2": _up(128, 64),
        "conv2_1": _same(64, 32),
        "deconv1": _up(32, 16),
        "conv1_1": _same(16, 3),
    }


def _from_norm(channels: int, hidden: int, stride: int) -> _Layers:
    """norm1 (27×27) and norm2 (13×13): to 15×15, then up, so the image has 240 pixels and not 256."""
    return {
        "Rconv6": nn.Conv2d(channels, hidden, 3, stride=stride, padding=2),
        "Rconv7": _same(hidden, 128),
        "Rconv8": _same(128, 128),
        "deconv4": _up(128, 128),
        "conv4_1": _same(128, 128),
        "deconv3": _up(128, 64),
        "conv3_1": _same(64, 64),
        "deconv2": _up(64, 32),
        "conv2_1": _same(32, 32),
        "deconv1": _up(32, 16),
        "conv1_1": _same(16, 3),
    }


LAYOUTS: dict[str, Layout] = {
    "norm1": Layout(
        (96, 27, 27), 240, lambda: _from_norm(96, 128, 2), ("deconv1", "conv1_1"), tanh=True
    ),
    "norm2": Layout(
        (256, 13, 13), 240, lambda: _from_norm(256, 256, 1), ("deconv1", "conv1_1"), tanh=True
    ),
    "conv3": Layout((384, 13, 13), 256, _from_conv, ("conv1_1",), tanh=True),
    "conv4": Layout((384, 13, 13), 256, _from_conv, ("conv1_1",), tanh=True),
    "pool5": Layout((256, 6, 6), 256, _from_pool5),
    "fc6": Layout((4096,), 256, lambda: _from_vector(4096)),
    "fc6_eucl": Layout((4096,), 256, lambda: _from_vector(4096)),
    "fc7": Layout((4096,), 256, lambda: _from_vector(4096)),
    "fc8": Layout((1000,), 256, lambda: _from_vector(1000)),
}
"""The released generators, by code layer."""


def _read(path: Path, largest: int) -> dict[str, Tensor]:
    """The tensors of a file no larger than it can honestly be; nothing in it is run."""
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
    """What a parser's many lines come down to."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"carries code ({code[1][:60]}), which is never run"
    told = "is damaged, truncated, or neither a PyTorch nor a safetensors file"
    return f"{told} (it is {kind})" if (kind := really_is(path)) else told


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
    """Names as in the release: without the prefix that all share and without the mirror's stray `.1`."""
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
            raise BadFile(
                f"{path} is not a DeePSiM {network.layer} generator: {name[:60]!r} is {got}, expected "
                f"{'no such tensor' if shape is None else list(shape)}{_other(tensors)}"
            )


def _describe(value: object) -> str:
    """A shape where the value is plain numbers in memory, and otherwise what it is."""
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
    """A hint where the file is another code layer's generator."""
    shapes = {name: getattr(value, "shape", None) for name, value in tensors.items()}
    with torch.device("meta"):
        fits = [
            layer
            for layer in LAYOUTS
            if {name: value.shape for name, value in DeePSiM(layer).state_dict().items()} == shapes
        ]
    return f"; it fits deepsim:{' or '.join(fits)}" if fits else ""


def _finite(name: str, value: Tensor, path: Path) -> Tensor:
    """The values in float32, none of them infinite."""
    value = value.detach().to(torch.float32).contiguous()
    if not value.isfinite().all():
        raise BadFile(
            f"{path} is damaged: {name!r} has values that are infinite or not numbers; "
            "fetch it again"
        )
    return value


def _array(path: Path) -> Tensor:
    """Numbers of a .npy file, mapped first so that a header's size is not believed."""
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
