"""Generators from a code to an image, and the networks that only their training needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TwoStageGenerator(nn.Module):
    """Code → latent map → image: a map learnt against the latents of an autoencoder, then its decoder.

    Codes (batch, code), as the encoder gives them, to RGB in (0, 1), (batch, 3, size, size). The subject
    was shown the central `seen` pixels of such an image. `code_mean` and `code_std` whiten what enters.
    """

    code_mean: Tensor
    code_std: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        code: int = 1024,
        hidden: int = 1024,
        grid: int = 6,
        seed_channels: int = 96,
        width: int = 192,
        blocks: int = 3,
        rank: int = 256,
        latent: int = 24,
        decoder: Sequence[int] = (192, 128, 64),
        size: int = 96,
        seen: int = 84,
    ):
        super().__init__()
        if size != 16 * grid or not 0 < seen <= size or not 0 <= blocks <= 64:
            raise ValueError(
                f"size is 16 × grid, seen within it, blocks at most 64; got {size}, {grid}, {seen}, {blocks}"
            )
        self.image_size, self.seen, self.code_shape = size, seen, (code,)
        self.register_buffer("code_mean", torch.zeros(code))
        self.register_buffer("code_std", torch.ones(code))
        self.register_buffer("latent_mean", torch.zeros(1, latent, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, latent, 1, 1))
        self.map = CodeToLatent(code, hidden, grid, seed_channels, width, blocks, rank, latent)
        self.decoder = Decoder(latent, decoder)

    def latents(self, codes: Tensor) -> Tensor:
        """The latent map, (batch, latent, size / 8, size / 8), as the autoencoder's encoder would give it."""
        return self.map((codes - self.code_mean) / self.code_std) * self.latent_std + self.latent_mean

    def forward(self, codes: Tensor) -> Tensor:
        return self.decoder(self.latents(codes)).float().sigmoid()


class CodeToLatent(nn.Module):
    """Whitened codes (batch, code) → latent maps (batch, latent, 2 grid, 2 grid).

    A linear map of low rank, which has a closed form, plus what a network adds to it.
    """

    def __init__(
        self, code: int, hidden: int, grid: int, seed_channels: int, width: int, blocks: int, rank: int, latent: int
    ):
        super().__init__()
        self.seed_shape = (seed_channels, grid, grid)
        self.latent_shape = (latent, 2 * grid, 2 * grid)
        self.linear = nn.Sequential(nn.Linear(code, rank, bias=False), nn.Linear(rank, math.prod(self.latent_shape)))
        self.first = nn.Linear(code, hidden)
        self.second = nn.Linear(hidden, math.prod(self.seed_shape))
        self.grow = nn.Conv2d(seed_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        last = nn.Conv2d(width, latent, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3)
        self.last = nn.Sequential(nn.GroupNorm(16, width), nn.LeakyReLU(0.2), last)

    def forward(self, codes: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.first(codes), 0.2)
        seed = F.leaky_relu(self.second(hidden), 0.2).view(-1, *self.seed_shape)
        seed = F.interpolate(seed.contiguous(memory_format=torch.channels_last), scale_factor=2)
        return self.linear(codes).view(-1, *self.latent_shape) + self.last(self.blocks(self.grow(seed)))


class Residual(nn.Module):
    """x + two 3×3 convolutions of it, each after group norm and LeakyReLU."""

    def __init__(self, channels: int):
        super().__init__()
        last = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3)
        self.body = nn.Sequential(
            nn.GroupNorm(16, channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(16, channels),
            nn.LeakyReLU(0.2),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Decoder(nn.Module):
    """Latent maps (batch, latent, n, n) → image logits (batch, 3, 8n, 8n); no norm, so patches stay local.

    It runs in every step of a climb: two plain convolutions at each of three resolutions, the last
    doubling by a pixel shuffle.
    """

    def __init__(self, latent: int, widths: Sequence[int]):
        super().__init__()
        a, b, c = widths
        self.low = nn.Sequential(nn.Conv2d(latent, a, 3, padding=1), nn.LeakyReLU(0.2), _Plain(a))
        self.middle = nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.2), _Plain(b))
        self.high = nn.Sequential(nn.Conv2d(b, c, 3, padding=1), nn.LeakyReLU(0.2), _Plain(c))
        self.last = nn.Conv2d(c, 12, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.low(latents.contiguous(memory_format=torch.channels_last))
        x = self.middle(F.interpolate(x, scale_factor=2))
        x = self.high(F.interpolate(x, scale_factor=2))
        return F.pixel_shuffle(self.last(x), 2)


class _Plain(nn.Module):
    """x + LeakyReLU(convolution)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.leaky_relu(self.conv(x), 0.2)


class LatentEncoder(nn.Module):
    """Images (batch, 3, 8n, 8n) in [0, 1] → latent maps (batch, latent, n, n): the autoencoder's first half."""

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


class LatentDiscriminator(nn.Module):
    """Is this latent map a photograph's, and this code's? (Miyato & Koyama 2018, at every position.)

    Latents (batch, latent, n, n) and whitened codes (batch, code) → a logit for each position, and the
    features that feature matching compares.
    """

    def __init__(self, latent: int, code: int, width: int = 128, depth: int = 4):
        super().__init__()
        inputs = [latent] + [width] * (depth - 1)
        self.stages = nn.ModuleList(nn.Sequential(nn.Conv2d(n, width, 3, padding=1), nn.LeakyReLU(0.2)) for n in inputs)
        self.logit = nn.Conv2d(width, 1, 1)
        self.project = nn.Linear(code, width, bias=False)
        nn.init.normal_(self.project.weight, std=code**-0.5)

    def forward(self, latents: Tensor, codes: Tensor) -> tuple[Tensor, list[Tensor]]:
        features, x = [], latents.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        agreement = (x * self.project(codes)[:, :, None, None]).sum(1, keepdim=True) / x.shape[1] ** 0.5
        return (self.logit(x) + agreement).flatten(1), features


class PatchDiscriminator(nn.Module):
    """Is this patch a photograph's? Images (batch, 3, n, n) in [0, 1] → a logit for each of (n / 8)² patches."""

    def __init__(self, widths: Sequence[int] = (64, 128, 192)):
        super().__init__()
        a, b, c = widths
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, a, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
                nn.Sequential(nn.Conv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
                nn.Sequential(nn.Conv2d(b, c, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),
            ]
        )
        self.logit = nn.Conv2d(c, 1, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        features, x = [], (2 * images - 1).contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.logit(x).flatten(1), features
