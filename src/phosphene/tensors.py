"""Operations on tensors of images.

An image is float in [0, 1], (channels, height, width), mostly RGB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import BadRequest, UnknownName

Pictures = npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]]


def as_images(pictures: Pictures | Tensor) -> Tensor:
    """Return 8-bit pictures (n, height, width, 3) as images (n, 3, height, width) in [0, 1].

    A tensor stays on its device.
    """
    pixels = pictures if isinstance(pictures, Tensor) else torch.from_numpy(np.asarray(pictures))
    return pixels.permute(0, 3, 1, 2).float() / 255


def in_8_bits(images: Tensor) -> Tensor:
    """Return images in [0, 1] as a file of 8 bits holds them: multiples of 1 / 255."""
    return (images.clamp(0, 1) * 255).round() / 255


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's first weight or buffer, the CPU where it has none."""
    return next(chain(network.parameters(), network.buffers()), torch.zeros(())).device


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (n, c, h, w) at another size (height, width).

    The interpolation is linear. Where an image shrinks, it is filtered against aliases.
    """
    if images.shape[-2:] == size:
        return images
    shrinks = images.shape[-2] > size[0] or images.shape[-1] > size[1]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=shrinks)


LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey value (ITU-R BT.601), as Pillow makes grey of RGB."""


def recoloured(images: Tensor, channels: int, from_rgb: Sequence[Sequence[float]] = ()) -> Tensor:
    """Return images (n, c, h, w) with as many channels.

    RGB becomes its luminance, and grey is repeated. `from_rgb` has other shares of red, green and
    blue, a row for each channel. `BadRequest` for pairs that nothing is said of.
    """
    given = images.shape[1]
    if given == channels:
        return images
    if from_rgb and given in (1, 3):
        rows = torch.tensor(from_rgb, dtype=images.dtype, device=images.device)
        with torch.autocast(images.device.type, enabled=False):  # half cannot be resized
            return torch.einsum("ij,njhw->nihw", rows, images.expand(-1, 3, -1, -1))
    if (given, channels) == (3, 1):
        shares = torch.tensor(LUMINANCE, dtype=images.dtype, device=images.device)
        return (images * shares[:, None, None]).sum(1, keepdim=True)
    if (given, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    raise BadRequest(
        f"an image of {given} channels is no input of {channels}; the priors pixels and fourier "
        "have the channels of the subject, and the option from_rgb of a factory makes them of RGB"
    )


FITS = ("crop", "stretch", "pad")
"""How an image of other proportions is brought to a size: its middle, all of it with another shape,
or all of it between borders."""


def fitted(images: Tensor, size: tuple[int, int], fit: str, border: Sequence[float]) -> Tensor:
    """Return images (n, c, h, w) at another size (height, width) in one of the ways of `FITS`.

    `border` has a value for each channel.
    """
    if fit == "crop":
        images = cropped_to_shape(images, size)
    elif fit == "pad":
        images = padded_to_shape(images, size, border)
    return resized(images, size)


def padded_to_shape(images: Tensor, size: tuple[int, int], border: Sequence[float]) -> Tensor:
    """Return images (n, c, h, w) in the middle of a border that gives them the shape of `size`."""
    height, width = images.shape[-2:]
    if height * size[1] == width * size[0]:
        return images
    scale = max(height / size[0], width / size[1])
    rows, columns = round(size[0] * scale) - height, round(size[1] * scale) - width
    values = torch.tensor(border, dtype=images.dtype, device=images.device)[:, None, None]
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(images - values, sides) + values


def cropped_to_shape(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the largest central part of images (n, c, h, w) with the proportions of `size`."""
    height, width = images.shape[-2:]
    if height * size[1] == width * size[0]:
        return images
    scale = min(height / size[0], width / size[1])
    return center_crop(images, (round(size[0] * scale), round(size[1] * scale)))


def center_crop(
    images: Tensor, size: int | tuple[int, int], shifts: Sequence[tuple[int, int]] | None = None
) -> Tensor:
    """Return the central `size` (height, width) pixels of each image; a number is both.

    `shifts` moves each image's crop by its own (rows, columns).
    """
    height, width = (size, size) if isinstance(size, int) else size
    top = (images.shape[-2] - height) // 2
    left = (images.shape[-1] - width) // 2
    if shifts is None:
        return images[..., top : top + height, left : left + width]
    crops = []
    for image, (row, column) in zip(images, shifts, strict=True):
        rows = slice(top + row, top + row + height)
        columns = slice(left + column, left + column + width)
        crops.append(image[:, rows, columns])
    return torch.stack(crops)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Return images under a Gaussian blur with a standard deviation of `sigma` pixels.

    Beyond the border they are mirrored, or go on as they end where they are too small for that.
    """
    if sigma <= 0:
        return images
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    line = torch.exp(-0.5 * (offsets / sigma) ** 2)
    channels = images.shape[1]
    kernel = (line / line.sum()).to(images).expand(channels, 1, -1)
    beyond = "reflect" if radius < min(images.shape[-2:]) else "replicate"
    padded = F.pad(images, (radius,) * 4, mode=beyond)
    along_rows = F.conv2d(padded, kernel[:, :, :, None], groups=channels)
    return F.conv2d(along_rows, kernel[:, :, None], groups=channels)


def total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of each image, (batch,).

    Along a side of one pixel there are none, so it is 0.
    """
    rows = images[..., 1:, :] - images[..., :-1, :]
    columns = images[..., 1:] - images[..., :-1]
    found = [each.abs().mean((1, 2, 3)) for each in (rows, columns) if each.numel()]
    return sum(found[1:], found[0]) if found else images.new_zeros(len(images))


def first_tensor(output: object) -> Tensor:
    """Return a layer's output, or the first tensor of several.

    This is what a tuple, a dict or a dataclass begins with, but for None. Quantized numbers are
    given as float, and sparse ones with their zeros.
    """
    if isinstance(output, Tensor):
        whole = output if output.layout == torch.strided else output.to_dense()
        return whole.dequantize() if whole.is_quantized else whole
    several: list[object] = []
    if isinstance(output, (tuple, list)):
        several = [*output]
    elif isinstance(output, dict):
        several = [*output.values()]
    elif is_dataclass(output):
        several = [getattr(output, each.name) for each in fields(output)]
    found = next((each for each in several if each is not None), None)
    if found is None:
        raise UnknownName(f"a layer returns {type(output).__name__}, not a tensor")
    return first_tensor(found)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """Return one value for each row, (rows,), shaped to meet `like` (rows, …)."""
    return values.view(-1, *[1] * (like.ndim - 1))
