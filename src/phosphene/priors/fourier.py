"""Fourier coefficients as a prior: smooth images, without anything learned."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.priors.pixels import Pixels, Side

COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Columns: the directions in which the colours of natural images vary independently.

They are those of Olah et al. (2017).
"""
LARGEST_NORM = 0.4619524
"""The largest norm of these columns."""


class Fourier(Pixels):
    """Make images of Fourier coefficients, scaled by 1 / frequency, in decorrelated colours.

    Codes are (batch, channels, height, width // 2 + 1, 2). Channels other than RGB are independent.
    Source: Olah et al. (2017).
    """

    climb = "fourier"

    def __init__(self, size: Side, view: Side | None = None, channels: int = 3):
        super().__init__(size, view, channels)
        height, width = self.size
        side = max(self.size)
        rows = torch.fft.fftfreq(height)[:, None]
        columns = torch.fft.rfftfreq(width)[None]
        self.scale = side / torch.sqrt(rows**2 + columns**2).clamp(min=1 / side) / side
        self.colours = torch.eye(channels)
        if channels == 3:
            self.colours = torch.tensor(COLOURS) / LARGEST_NORM

    def images(self, codes: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(codes.contiguous()) * self.scale.to(codes.device)
        planes = torch.fft.irfft2(spectrum, s=self.size, norm="ortho") / 4
        return torch.einsum("ij,bjhw->bihw", self.colours.to(codes), planes).sigmoid()

    def start(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 0.01 * torch.randn(self.channels, *self.scale.shape, 2, generator=generator)

    def mean(self) -> Tensor:
        return torch.zeros(self.channels, *self.scale.shape, 2)

    def encode(self, image: Tensor) -> Tensor:
        inverse = torch.linalg.inv(self.colours).to(image)
        planes = torch.einsum("ij,jhw->ihw", inverse, torch.logit(image, 1e-3))
        spectrum = torch.fft.rfft2(4 * planes, norm="ortho")
        return torch.view_as_real(spectrum / self.scale.to(image.device))
