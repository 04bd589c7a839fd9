"""Axes of a layer's values: which are channels, positions or tokens."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

BEFORE = "~"
"""What the key of values from before a closing ReLU ends in."""

MAX_TOKENS = 8
"""Tokens ahead of the patches that are looked for where no one says how many there are."""


@dataclass(frozen=True)
class Tokens:
    """How the tokens of a transformer's layers lie: some by name, then patches in rows.

    `names` are those ahead of the patches, such as ("class", "register0"); None where it is not
    known, so that the fewest are taken, at most one for four patches, that leave a map of patches
    in the image's shape. In a network that is `recurrent` they are steps in one line, unless a
    library names its tokens.
    """

    names: tuple[str, ...] | None = None
    recurrent: bool = False

    def split(self, count: int, size: tuple[int, int]) -> tuple[tuple[str, ...], int, int] | None:
        """Return the names, rows and columns of so many tokens of an image of `size` pixels.

        None where they are not patches. A layer may also have the patches alone.
        """
        if self.names is None and self.recurrent:
            return None
        known = [self.names, ()] if self.names is not None else map(_names, range(MAX_TOKENS))
        for names in known:
            rows, columns = _grid(count - len(names), size)
            if rows and (self.names is not None or 4 * len(names) <= rows * columns):
                return names, rows, columns
        return None


def tokens_of(network: nn.Module, names: tuple[str, ...] | None) -> Tokens:
    """Return how the tokens of a network lie, of which a library gives the names; None: nobody."""
    return Tokens(names, any(isinstance(module, nn.RNNBase) for module in network.modules()))


def _grid(patches: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of so many patches in the image's shape, (0, 0) if none fit."""
    square = round(max(0, patches) * size[1] / size[0])
    columns = math.isqrt(square)
    if columns * columns != square or not columns or patches % columns:
        return 0, 0
    return patches // columns, columns


def _names(count: int) -> tuple[str, ...]:
    """Return names for so many tokens of which nothing is known: a class token, then registers."""
    return ("class", *(f"register{i}" for i in range(count - 1)))[:count]


def before(layer: str) -> str:
    """Return the key under which `probe` gives values from before a layer's closing ReLU."""
    return layer + BEFORE


def at_token(layer: str, name: str) -> str:
    """Return the key under which `probe` gives the values at a token ahead of the patches."""
    return f"{layer}@{name}"


_SEQUENCE = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.GroupNorm, nn.Unfold),
    *(nn.AvgPool1d, nn.MaxPool1d, nn.LPPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    *(nn.ReflectionPad1d, nn.ReplicationPad1d, nn.ConstantPad1d, nn.ZeroPad1d, nn.CircularPad1d),
)
"""Modules whose values of three axes are (batch, channels, length)."""
TOKEN_MODULES = (
    nn.Linear,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.RNNBase,
)
"""Modules whose values of three axes are (batch, tokens, channels)."""


def makes_sequences(module: nn.Module) -> bool:
    """Return whether a module's values of three axes are (batch, channels, length)."""
    flat = isinstance(module, nn.Flatten) and module.start_dim == 2
    return flat or isinstance(module, _SEQUENCE)


def with_patches(
    found: dict[str, Tensor], tokens: Tokens | None, sequences: Collection[str], inputs: Tensor
) -> dict[str, Tensor]:
    """Return what was found with the patches of each layer as a map, and its other tokens apart."""
    given: dict[str, Tensor] = {}
    size = (inputs.shape[-2], inputs.shape[-1])
    for key, value in found.items():
        sequence = value.ndim != 3 or key.removesuffix(BEFORE) in sequences
        parts = None if tokens is None or sequence else tokens.split(value.shape[2], size)
        if parts is None:
            given[key] = value
            continue
        names, rows, columns = parts
        given[key] = value[:, :, len(names) :].unflatten(2, (rows, columns))
        given |= {at_token(key, name): value[:, :, i] for i, name in enumerate(names)}
    return given


def shape_of_maps(
    inputs: Tensor, tokens: Tokens | None, network: nn.Module
) -> tuple[int, int] | None:
    """Return the size of the images that tells a map's axes, None where all have channels first.

    Version 0.1.0 knew squares alone. A network of convolutions without a layer norm keeps its
    channels first: there the shape of a wide map could be taken for the other order.
    """
    height, width = inputs.shape[-2:]
    wide = height != width
    return None if wide and (tokens is None or _is_convolutional(network)) else (height, width)


def _is_convolutional(network: nn.Module) -> bool:
    modules = list(network.modules())
    convolutions = any(isinstance(each, nn.Conv2d) for each in modules)
    return convolutions and not any(isinstance(each, nn.LayerNorm) for each in modules)


def channels_first(layer: Tensor, size: tuple[int, int] | None, sequence: bool) -> Tensor:
    """Return a layer's values with the channels ahead of the positions.

    Maps have the shape of the image, `size`: where the first two sides have it and the last two do
    not, the channels come last; with None, they come first. Three axes are (batch, tokens,
    channels), unless the layer is a `sequence`. Five axes are (batch, channels, frames, rows,
    columns), of which the middle frame is given: the ends of a clip border on nothing. One number
    for each image is a channel.
    """
    if layer.ndim < 2 and layer.is_floating_point():
        return layer.reshape(-1, 1)
    if layer.ndim == 5:
        return layer[:, :, layer.shape[2] // 2]
    if layer.ndim == 4 and size is not None and _channels_last(layer.shape[1:], size):
        return layer.permute(0, 3, 1, 2)
    return layer.transpose(1, 2) if layer.ndim == 3 and not sequence else layer


def _channels_last(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Return whether a map of three axes has its channels last, by the shape of the image."""
    first, second, third = shape
    if size[0] == size[1]:
        return first == second != third
    return _shrunk((first, second), size) and not _shrunk((second, third), size)


def _shrunk(sides: tuple[int, int], size: tuple[int, int]) -> bool:
    """Return whether one stride makes both sides of an image's, each to within one position."""
    both = list(zip(size, sides, strict=True))
    least = max(image / (side + 1) for image, side in both)
    return all(side == 1 or least < image / (side - 1) for image, side in both)
