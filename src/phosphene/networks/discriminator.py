"""Networks that only a generator's training needs: a discriminator, and a regressor of codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Discriminator(nn.Module):
    """Discriminate photographs, given their codes, by one small head for each feature map.

    Features of a frozen network let the heads tell objects from their first step (Sauer et al.
    2021, Projected GANs); the code joins in at every position (Miyato & Koyama 2018). `maps` says
    for each its channels, and how often its head halves it.
    """

    def __init__(self, maps: Sequence[tuple[int, int]], code: int, width: int):
        super().__init__()
        self.heads = nn.ModuleList(
            Head(channels, halvings, code, width) for channels, halvings in maps
        )

    def forward(self, maps: Sequence[Tensor], codes: Tensor) -> list[Tensor]:
        """Return logits (batch, positions) for each of the maps (batch, channels, n, n).

        Whitened codes are (batch, code).
        """
        return [head(x, codes) for head, x in zip(self.heads, maps, strict=True)]


class Head(nn.Module):
    """Map features and a code to a logit at every position of the map, halved so many times."""

    def __init__(self, channels: int, halvings: int, code: int, width: int):
        super().__init__()
        thin = [max(width >> (halvings - 1 - n), min(width, 16)) for n in range(halvings)]
        inputs = [channels, *thin]
        layers: list[nn.Module] = []
        for before, after in zip(inputs, thin, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for before in (inputs[-1], width):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.logit = nn.Conv2d(width, 1, 1)
        self.project = nn.Linear(code, width, bias=False)
        nn.init.normal_(self.project.weight, std=code**-0.5)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        x = self.body(x.contiguous(memory_format=torch.channels_last))
        projected = self.project(codes)[:, :, None, None]
        agreement = (x * projected).sum(1, keepdim=True) / x.shape[1] ** 0.5
        return (self.logit(x) + agreement).flatten(1)


class CodeRegressor(nn.Module):
    """Regress whitened codes on latents, as the encoder reads images, and cheaper.

    Latents (batch, latent, n, n) → features at n, n / 2 and n / 4 positions a side, and the code
    (batch, code).
    """

    def __init__(self, latent: int, code: int, widths: Sequence[int], positions: int):
        super().__init__()
        inputs = [latent, *widths[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    before, after, 4 if n else 3, stride=2 if n else 1, padding=1, bias=False
                ),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
                nn.Conv2d(after, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            )
            for n, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )
        side = positions // 2 ** (len(widths) - 1)
        self.code = nn.Linear(widths[-1] * side**2, code)

    def forward(self, latents: Tensor) -> tuple[list[Tensor], Tensor]:
        features, x = [], latents.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features, self.code(x.flatten(1))
