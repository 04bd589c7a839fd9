"""Layouts of the published generators, with the tensor names of the release's Caffe definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import BadRequest, UnknownName

LICENCE = (
    "DeePSiM weights: the hub's mirror is tagged MIT; the authors' own terms "
    "(lmb.informatik.uni-freiburg.de) allow non-commercial research only"
)

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
"""Mean colour of ILSVRC 2012 in Caffe's channel order, on 0 … 255; the release leaves it out."""

STATISTICS = {"fc6": (0.63, 3.74), "fc6_eucl": (0.63, 3.74)}
"""Mean over units of μ and of σ of CaffeNet's code over natural images, by code layer.

They are an approximation, since the release has no code statistics. They are recovered from the
2016 code's bounds (whole numbers, one, two and three σ above μ). So they can be far off for a
single unit: its 3σ bounds range over 3 … 17, while these two numbers give every unit 11.85. Where
the bounds are at hand, `read_bounds` is the better constraint.
"""

_Layers = dict[str, nn.Module]


@dataclass(frozen=True)
class Layout:
    """The codes, the image and the layers, in order, of one code layer's generator."""

    code_shape: tuple[int, ...]
    image_size: int
    layers: Callable[[], _Layers]
    linear: tuple[str, ...] = ("deconv0",)
    """The layers that no LeakyReLU follows."""
    tanh: bool = False
    """The image is 255 · tanh of the last layer."""


class DeePSiM(nn.Module):
    """Map a code of CaffeNet to an image; the prior of Nguyen et al. (2016).

    Codes (batch, *code_shape) as Caffe's CaffeNet gives them (after the ReLU) to RGB float32
    (batch, 3, image_size, image_size). The subject was shown the central `view_size` pixels, from
    row and column (image_size − view_size) // 2 on: 14 for the 256-pixel generators.

    The release's convention (BGR, mean left out, ±255) ends here: 0 is black and 1 is white. Values
    are **not** clamped to [0, 1], because the paper hands x = G(y) to the subject as it is and a
    clamp would stop the gradient at every saturated pixel. Clamp when a picture is drawn.
    """

    mean_bgr: Tensor

    def __init__(self, layer: str = "fc6"):
        super().__init__()
        self.layout = _layout(layer)
        self.layer = layer
        self.view_size = 227
        self.code_shape = self.layout.code_shape
        self.image_size = self.layout.image_size
        for name, module in self.layout.layers().items():
            self.add_module(name, module)
        mean = torch.tensor(MEAN_BGR, device="cpu")  # real even where the layers are on "meta"
        self.register_buffer("mean_bgr", mean.view(1, 3, 1, 1), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        if codes.shape[1:] != self.code_shape:
            sides = ", ".join(map(str, self.code_shape))
            raise BadRequest(
                f"deepsim:{self.layer} reads codes (batch, {sides}), got {tuple(codes.shape)}"
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


def approximate_statistics(layer: str) -> tuple[Tensor, Tensor]:
    """Return μ and σ of a code layer, the same for every unit and rough (see `STATISTICS`)."""
    if layer not in STATISTICS:
        raise UnknownName(
            f"no code statistics for deepsim:{layer}; there are: {', '.join(STATISTICS)}; "
            "or give a file of bounds"
        )
    mean, std = STATISTICS[layer]
    shape = _layout(layer).code_shape
    return torch.full(shape, mean), torch.full(shape, std)


def _layout(layer: str) -> Layout:
    if layer not in LAYOUTS:
        raise UnknownName(f"no DeePSiM generator for {layer!r}; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[layer]


def _up(inputs: int, outputs: int) -> nn.Module:
    """Return a layer that doubles the size."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def _turned(inputs: int, outputs: int) -> nn.Module:
    """Return a transposed convolution of the same size; its kernel is turned by 180°."""
    return nn.ConvTranspose2d(inputs, outputs, 3, padding=1)


def _same(inputs: int, outputs: int) -> nn.Module:
    """Return an ordinary convolution of the same size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _from_vector(units: int) -> _Layers:
    """Return the layers for fc6, fc7 and fc8: three fully connected ones, then up from 4×4."""
    return {
        "defc7": nn.Linear(units, 4096),
        "defc6": nn.Linear(4096, 4096),
        "defc5": nn.Linear(4096, 4096),
        **_from_4x4(256),
    }


def _from_pool5() -> _Layers:
    """Return the layers for pool5: three convolutions (6×6 to 4×4), then the same way up."""
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
    """Return the layers for conv3 and conv4: 13×13 to 8×8, then up."""
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
    """Return the layers for norm1 (27×27) and norm2 (13×13): to 15×15, then up to 240 pixels."""
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
