"""Generators from a code to an image, and the autoencoder's first half, which training needs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ImageGenerator(nn.Module):
    """Map the encoder's codes (batch, *code) to RGB in (0, 1), (batch, 3, size, size).

    A code is a vector, its length given, or a map, given as [channels, rows, columns]. The subject
    was shown the central `view_size` pixels of such an image. `code_mean` and `code_std` whiten
    what enters.
    """

    code_mean: Tensor
    code_std: Tensor

    def __init__(self, code: int | Sequence[int], size: int, view_size: int):
        super().__init__()
        shape = (code,) if isinstance(code, int) else tuple(code)
        if len(shape) not in (1, 3):
            raise ValueError(f"a code is a vector or a map of three sides; got {code}")
        if not 0 < view_size <= size:
            raise ValueError(
                f"the subject sees a part of the image; got {view_size} of {size} pixels"
            )
        self.image_size = size
        self.view_size = view_size
        self.code_shape = shape
        self.register_buffer("code_mean", torch.zeros(shape))
        self.register_buffer("code_std", torch.ones(shape))

    def whitened(self, codes: Tensor) -> Tensor:
        """Return codes with mean zero and standard deviation one over natural images."""
        return (codes - self.code_mean) / self.code_std


class TwoStageGenerator(ImageGenerator):
    """Map code → latent map → image: a map learned on an autoencoder's latents, then its decoder.

    Where the code is a map, `hidden`, `seed_channels` and `rank` mean nothing.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        code: int | Sequence[int] = 1024,
        hidden: int = 1024,
        grid: int = 6,
        seed_channels: int = 96,
        widths: Sequence[int] = (256, 128),
        blocks: Sequence[int] = (2, 1),
        rank: int = 256,
        latent: int = 16,
        decoder: Sequence[int] = (128, 96, 48),
        size: int = 96,
        view_size: int = 84,
        decoder_blocks: Sequence[int] = (0, 0, 0),
    ):
        super().__init__(code, size, view_size)
        doubled = 2 ** (1 + len(decoder))
        if not 3 <= len(decoder) <= 5 or size != doubled * grid:
            raise ValueError(
                "the decoder has 3 to 5 widths, and size is 16 × grid, doubled for each after the "
                f"third; got {decoder}, {size}, {grid}"
            )
        if not all(0 <= number <= 64 for number in (*blocks, *decoder_blocks)):
            raise ValueError(f"blocks are 0 … 64; got {blocks}, {decoder_blocks}")
        self.register_buffer("latent_mean", torch.zeros(1, latent, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, latent, 1, 1))
        self.map: CodeToLatent | MapToLatent
        shape = self.code_shape
        if len(shape) == 1:
            self.map = CodeToLatent(
                shape[0], hidden, grid, seed_channels, widths, blocks, rank, latent
            )
        else:
            self.map = MapToLatent(shape[0], 2 * grid, widths, blocks, latent)
        self.decoder = Decoder(latent, decoder, decoder_blocks)

    def latents(self, codes: Tensor) -> Tensor:
        """Return latent maps (batch, latent, size / 8, size / 8) as the encoder would."""
        return self.map(self.whitened(codes)) * self.latent_std + self.latent_mean

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder(self.latents(codes)).float().sigmoid()


class DirectGenerator(ImageGenerator):
    """Map codes to images by DeePSiM's layout (Dosovitskiy & Brox 2016), at any size and width.

    A vector goes through three fully connected layers, a map through three convolutions, to 4 … 7
    positions a side. From there each transposed convolution doubles, and all but the last two are
    followed by one that does not. There are as many `widths` as doublings: `size` is 4 … 7 times a
    power of two.
    """

    def __init__(
        self,
        code: int | Sequence[int] = 4096,
        hidden: int = 1024,
        widths: Sequence[int] = (256, 256, 128, 64),
        size: int = 96,
        view_size: int = 84,
    ):
        super().__init__(code, size, view_size)
        self.grid = size >> len(widths)
        if not 4 <= self.grid <= 7 or self.grid << len(widths) != size:
            raise ValueError(
                "size is 4 … 7 doubled as often as there are widths; "
                f"got {size} and {len(widths)} widths"
            )
        first = widths[0]
        units = first * self.grid**2
        if len(self.code_shape) == 1:
            self.deep = _chain(
                nn.Linear(*sides)
                for sides in ((self.code_shape[0], hidden), (hidden, hidden), (hidden, units))
            )
        else:
            self.deep = _chain(
                nn.Conv2d(channels, first, 3, padding=1)
                for channels in (self.code_shape[0], first, first)
            )
        up: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(itertools.pairwise((*widths, 3))):
            up.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1))
            if i < len(widths) - 2:
                up.append(nn.ConvTranspose2d(outputs, outputs, 3, padding=1))
        self.up = _chain(up)[:-1]  # no rectifier after the last

    def forward(self, codes: Tensor) -> Tensor:
        x = self.deep(self.whitened(codes))
        if len(self.code_shape) == 1:
            x = x.view(len(x), -1, self.grid, self.grid)
        else:
            x = F.interpolate(x, (self.grid, self.grid), mode="bilinear", align_corners=False)
        return self.up(x.contiguous(memory_format=torch.channels_last)).float().sigmoid()


def _chain(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Return the layers, each with DeePSiM's rectifier, initialised as in He et al. (2015)."""
    chain = nn.Sequential()
    for layer in layers:
        weight = cast("Tensor", layer.weight)
        nn.init.kaiming_normal_(weight, 0.3, mode="fan_in")
        if isinstance(layer, nn.ConvTranspose2d):
            # torch takes its outputs for its inputs; each reads a stride's share
            fan = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
            nn.init.normal_(weight, std=math.sqrt(2 / (1 + 0.3**2) / fan))
        nn.init.zeros_(cast("Tensor", layer.bias))
        chain.extend([layer, nn.LeakyReLU(0.3)])
    return chain


def _refining(
    channels: int, widths: Sequence[int], blocks: Sequence[int], latent: int
) -> tuple[nn.Sequential, nn.Sequential, nn.Conv2d]:
    """Return residual blocks for coarse maps, others for fine ones, and a last convolution.

    The last one begins near zero.
    """
    coarse, fine = widths
    low = _with_blocks(channels, coarse, blocks[0])
    high = _with_blocks(coarse, fine, blocks[1])
    high.append(nn.LeakyReLU(0.2))
    last = nn.Conv2d(fine, latent, 3, padding=1)
    nn.init.normal_(last.weight, std=1e-3)
    return low, high, last


def _with_blocks(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(first, *(Residual(outputs) for _ in range(blocks)))


class CodeToLatent(nn.Module):
    """Map whitened codes (batch, code) to latent maps (batch, latent, 2 grid, 2 grid).

    A linear map of low rank, which has a closed form, plus what a network adds to it: residual
    blocks at `grid` positions a side, where convolutions are cheap and read all of the picture,
    then at twice that.
    """

    def __init__(
        self,
        code: int,
        hidden: int,
        grid: int,
        seed_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        rank: int,
        latent: int,
    ):
        super().__init__()
        self.seed_shape = (seed_channels, grid, grid)
        self.latent_shape = (latent, 2 * grid, 2 * grid)
        self.linear = nn.Sequential(
            nn.Linear(code, rank, bias=False), nn.Linear(rank, math.prod(self.latent_shape))
        )
        self.first = nn.Linear(code, hidden)
        self.second = nn.Linear(hidden, math.prod(self.seed_shape))
        self.coarse, self.fine, self.last = _refining(seed_channels, widths, blocks, latent)

    def forward(self, codes: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.first(codes), 0.2)
        seed = F.leaky_relu(self.second(hidden), 0.2).view(-1, *self.seed_shape)
        x = self.coarse(seed.contiguous(memory_format=torch.channels_last))
        x = self.fine(F.interpolate(x, scale_factor=2))
        return self.linear(codes).view(-1, *self.latent_shape) + self.last(x)


class MapToLatent(nn.Module):
    """Map whitened maps (batch, channels, rows, columns) to latents (batch, latent, side, side).

    A convolution, which has a closed form, plus what a network adds to it: residual blocks at the
    code's own resolution, then at that of the latents.
    """

    def __init__(
        self, channels: int, side: int, widths: Sequence[int], blocks: Sequence[int], latent: int
    ):
        super().__init__()
        self.side = side
        self.linear = nn.Conv2d(channels, latent, 3, padding=1)
        self.coarse, self.fine, self.last = _refining(channels, widths, blocks, latent)

    def resized(self, x: Tensor) -> Tensor:
        """Return maps at the latents' resolution."""
        return F.interpolate(x, (self.side, self.side), mode="bilinear", align_corners=False)

    def forward(self, codes: Tensor) -> Tensor:
        codes = codes.contiguous(memory_format=torch.channels_last)
        return self.linear(self.resized(codes)) + self.last(
            self.fine(self.resized(self.coarse(codes)))
        )


class Residual(nn.Module):
    """Return x + two 3×3 convolutions of it, each after a LeakyReLU.

    The second begins near zero, in place of a norm.
    """

    def __init__(self, channels: int):
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3)
        self.body = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Conv2d(channels, channels, 3, padding=1), nn.LeakyReLU(0.2), last
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Decoder(nn.Module):
    """Map latent maps (batch, latent, n, n) to image logits (batch, 3, 8n, 8n), without a norm.

    It runs in every step of a climb: two plain convolutions at each of three resolutions, `blocks`
    residual ones after them, and the last doubling by a pixel shuffle. A binomial filter removes
    the shuffle's checkerboard, to which an encoder that strides is blind. Each width after the
    third doubles the picture once more, and adds detail that begins near nothing.
    """

    def __init__(self, latent: int, widths: Sequence[int], blocks: Sequence[int] = (0, 0, 0)):
        super().__init__()
        if len(blocks) != len(widths):
            raise ValueError(f"one number of blocks for each width; got {widths}, {blocks}")
        a, b, c, *finer = widths
        low, middle, high, *more = blocks
        self.low = _resolution(latent, a, low)
        self.middle = _resolution(a, b, middle)
        self.high = _resolution(b, c, high)
        self.last = nn.Conv2d(c, 12, 3, padding=1)
        self.finer = nn.ModuleList()
        for inputs, outputs, number in zip([c, *finer], finer, more, strict=False):
            self.finer.append(_Finer(inputs, outputs, number))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.low(latents.contiguous(memory_format=torch.channels_last))
        x = self.middle(F.interpolate(x, scale_factor=2))
        x = self.high(F.interpolate(x, scale_factor=2))
        image = smoothed(F.pixel_shuffle(self.last(x), 2))
        for finer in self.finer:
            x, image = finer(x, image)
        return image


class _Finer(nn.Module):
    """Double maps and the logits that were drawn from them, and add the detail between."""

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.maps = _resolution(inputs, outputs, blocks)
        self.last = nn.Conv2d(outputs, 12, 3, padding=1)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(cast("Tensor", self.last.bias))

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maps(F.interpolate(x, scale_factor=2))
        doubled = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        return x, doubled + smoothed(F.pixel_shuffle(self.last(x), 2))


def _resolution(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(
        first, nn.LeakyReLU(0.2), _Plain(outputs), *(Residual(outputs) for _ in range(blocks))
    )


def smoothed(x: Tensor) -> Tensor:
    """Filter maps with (1, 2, 1) / 4 along both axes, which removes what alternates by pixels."""
    x = F.pad(x.float(), (1, 1, 1, 1), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4


class _Plain(nn.Module):
    """Return x + LeakyReLU(convolution)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.leaky_relu(self.conv(x), 0.2)


class LatentEncoder(nn.Module):
    """Map images (batch, 3, 8n, 8n) in [0, 1] to latent maps (batch, latent, n, n).

    It is the first half of the autoencoder.
    """

    def __init__(self, latent: int, widths: Sequence[int] = (64, 128, 192)):
        super().__init__()
        a, b, c = widths
        self.body = nn.Sequential(
            nn.Conv2d(3, a, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            _Plain(a),
            nn.Conv2d(a, b, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            _Plain(b),
            nn.Conv2d(b, c, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            _Plain(c),
            nn.Conv2d(c, latent, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.body((2 * images - 1).contiguous(memory_format=torch.channels_last))
