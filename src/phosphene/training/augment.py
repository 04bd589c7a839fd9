"""Augmentation of a whole batch at once, on the device where the batch lives."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crops(
    images: Tensor,
    size: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (0.35, 1.0),
    ratio: float = 4 / 3,
    flip: bool = True,
) -> Tensor:
    """Return random crops, resized and flipped (Szegedy et al. 2015), by one affine map an image.

    `images` float (batch, 3, height, width) → (batch, 3, size, size). `scale` is the crop's share
    of the area, `ratio` the largest ratio of its sides.
    """
    n = len(images)
    draw = torch.rand(5, n, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * draw[0]
    aspect = torch.exp((2 * draw[1] - 1) * math.log(ratio))
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    left, top = (2 * draw[2] - 1) * (1 - width), (2 * draw[3] - 1) * (1 - height)
    mirror = torch.where(draw[4] < 0.5, -1.0, 1.0) if flip else torch.ones(n)
    zero = torch.zeros(n)
    maps = torch.stack(
        [torch.stack([width * mirror, zero, left], 1), torch.stack([zero, height, top], 1)], 1
    )
    grid = F.affine_grid(
        maps.to(images, non_blocking=True), [n, 3, size, size], align_corners=False
    )
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def jitter_colours(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale brightness, contrast and saturation of each image by factors in 1 ± strength."""
    if not strength:
        return images
    factors = 1 + strength * (2 * torch.rand(3, len(images), 1, 1, 1, generator=generator) - 1)
    brightness, contrast, saturation = factors.to(images)
    images = images * brightness
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    grey = images.mean(1, keepdim=True)
    return (grey + saturation * (images - grey)).clamp(0, 1)


def mixed(
    images: Tensor, labels: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Mix each image with a partner (mixup, Zhang et al. 2018).

    Returns the images, the partners' labels, and the share of the first.
    """
    if not alpha:
        return images, labels, 1.0
    # Beta(a, a) from uniforms would need rejection (Jöhnk): numpy's sampler has a seed from ours
    import numpy as np

    number = int(torch.randint(2**31, (), generator=generator))
    share = float(np.random.default_rng(number).beta(alpha, alpha))
    share = max(share, 1 - share)
    partner = torch.randperm(len(images), generator=generator).to(labels.device)
    return share * images + (1 - share) * images[partner], labels[partner], share
