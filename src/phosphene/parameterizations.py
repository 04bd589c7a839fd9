"""Ways to write an image as something that can be climbed.

They are a generator's code, pixels and Fourier coefficients.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from phosphene import weights
from phosphene.errors import BadFile, BadRequest
from phosphene.networks import build
from phosphene.networks.deepsim import LICENCE, approximate_statistics, load_deepsim, read_bounds
from phosphene.networks.inspection import sha256_of_weights
from phosphene.priors import CodeStatistics


class Parameterization(ABC):
    """Codes to RGB images in [0, 1], (batch, 3, image_size, image_size), and where to begin.

    The subject is shown the central `seen` pixels. Start codes are drawn on the CPU and then moved,
    so one seed means one start on every machine, alone or in a batch.
    """

    image_size: int
    seen: int

    @abstractmethod
    def images(self, codes: Tensor) -> Tensor:
        """The images of a batch of codes."""

    @abstractmethod
    def start(self, seed: int, normal: bool = False) -> Tensor:
        """Return the code, without a batch axis, at which the climb with this seed begins.

        `normal`: it is drawn from the standard normal distribution.
        """

    @abstractmethod
    def mean(self) -> Tensor:
        """Return the code, without a batch axis, of the most ordinary start."""

    def above_zero(self) -> Parameterization:
        """Return the same with no code below 0, as version 0.1.0 climbed in every generator."""
        return self

    def encode(self, image: Tensor) -> Tensor:
        """The code, without a batch axis, of a real image (3, image_size, image_size)."""
        raise BadRequest("only a generator's encoder knows the code of an image")

    def to(self, device: str | torch.device) -> Parameterization:
        """The same parameterization with its tensors on another device."""
        return self


class Generated(Parameterization):
    """A generator's codes. `encoder` names the subject whose layer `layer` it inverts."""

    def __init__(
        self,
        generator: nn.Module,
        statistics: CodeStatistics,
        encoder: str = "",
        layer: str = "",
        card: dict[str, Any] | None = None,
    ):
        self.generator, self.statistics = generator, statistics
        self.encoder, self.layer, self.card = encoder, layer, card or {}
        self.image_size, self.seen = int(generator.image_size), int(generator.seen)  # type: ignore[arg-type]

    def images(self, codes: Tensor) -> Tensor:
        return self.generator(codes)

    def start(self, seed: int, normal: bool = False) -> Tensor:
        """Return a draw from the code's Gaussian, cut at `lower` as the encoder's layer cuts it."""
        s = self.statistics
        noise = torch.randn(s.mean.shape, generator=torch.Generator().manual_seed(seed)).to(s.mean)
        if normal:
            return noise
        return torch.maximum(s.mean + s.whitened(noise[None], 1.0)[0], s.lower)

    def mean(self) -> Tensor:
        return self.statistics.mean.clone()

    def above_zero(self) -> Generated:
        lower = torch.zeros_like(self.statistics.mean)
        statistics = replace(self.statistics, lower=lower)
        return Generated(self.generator, statistics, self.encoder, self.layer, self.card)

    def to(self, device: str | torch.device) -> Generated:
        return Generated(
            self.generator.to(device),
            self.statistics.to(device),
            self.encoder,
            self.layer,
            self.card,
        )


class Pixels(Parameterization):
    """The image itself, through a sigmoid so that it stays in range."""

    def __init__(self, size: int, seen: int | None = None):
        self.image_size, self.seen = size, seen or size

    def images(self, codes: Tensor) -> Tensor:
        return codes.sigmoid()

    def start(self, seed: int, normal: bool = False) -> Tensor:
        return 0.1 * torch.randn(
            3, self.image_size, self.image_size, generator=torch.Generator().manual_seed(seed)
        )

    def mean(self) -> Tensor:
        return torch.zeros(3, self.image_size, self.image_size)

    def encode(self, image: Tensor) -> Tensor:
        return torch.logit(image, 1e-3)


class Fourier(Parameterization):
    """Coefficients of a 2-D Fourier basis scaled by 1 / frequency, in decorrelated colours.

    The method is that of Olah et al. (2017).
    """

    def __init__(self, size: int, seen: int | None = None):
        self.image_size, self.seen = size, seen or size
        rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None]
        self.scale = size / torch.sqrt(rows**2 + columns**2).clamp(min=1 / size) / size
        self.colours = torch.tensor(COLOURS) / 0.4619524  # the largest norm of the map's columns

    def images(self, codes: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(codes.contiguous()) * self.scale.to(codes.device)
        planes = torch.fft.irfft2(spectrum, s=(self.image_size, self.image_size), norm="ortho") / 4
        return torch.einsum("ij,bjhw->bihw", self.colours.to(codes), planes).sigmoid()

    def start(self, seed: int, normal: bool = False) -> Tensor:
        return 0.01 * torch.randn(
            3, *self.scale.shape, 2, generator=torch.Generator().manual_seed(seed)
        )

    def mean(self) -> Tensor:
        return torch.zeros(3, *self.scale.shape, 2)

    def encode(self, image: Tensor) -> Tensor:
        planes = torch.einsum(
            "ij,jhw->ihw", torch.linalg.inv(self.colours).to(image), torch.logit(image, 1e-3)
        )
        return torch.view_as_real(
            torch.fft.rfft2(4 * planes, norm="ortho") / self.scale.to(image.device)
        )


COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Columns: the directions in which the colours of natural images vary independently.

They are those of Olah et al. (2017).
"""


def load_generated(
    name: str | Path, file: str | Path | None = None, bounds: str | Path | None = None
) -> Generated:
    """Return a generator with its statistics.

    It is a bundled one by name, a weights file, or `deepsim:LAYER` (see `networks.deepsim`).
    """
    if str(name).startswith("deepsim:"):
        return _published(str(name), file, bounds)
    checked = weights.read(name, "generator")
    with torch.device("meta"):
        network = build(checked.card["architecture"])
    check_generator(network, checked.card, checked.path.name)
    weights.fill(network, checked.part("network"), checked.path.name)
    if not bool((cast("Tensor", network.code_std) > 0).all()):
        raise BadFile(f"{checked.path.name} is damaged: code_std is not above 0 everywhere")
    return Generated(
        network,
        _statistics(checked.part("code"), network.code_shape, checked.path.name),  # type: ignore[arg-type]
        str(checked.card.get("encoder", "")),
        str(checked.card.get("code_layer", "")),
        {**checked.card, "sha256": checked.sha256},
    )


def check_generator(network: nn.Module, card: Mapping[str, Any], source: str) -> None:
    """Refuse a card that describes no generator with `BadFile`."""
    if not hasattr(network, "image_size"):
        raise BadFile(
            f"{source} is no generator: architecture {card['architecture']} makes no images"
        )


def _statistics(
    tensors: Mapping[str, Tensor], code_shape: tuple[int, ...], source: str
) -> CodeStatistics:
    """The `code.` part of a weights file, its shapes those of the code."""
    code, axes = (
        math.prod(code_shape),
        tensors["variances"].numel() if "variances" in tensors else 0,
    )
    shapes = {
        "axes": (axes, code),
        "variances": (axes,),
        "rest": (),
        **dict.fromkeys(("mean", "std", "upper"), code_shape),
    }
    if "lower" in tensors:  # version 0.1.0 wrote none
        shapes["lower"] = code_shape
    for name, shape in shapes.items():
        value = tensors.get(name)
        if (
            value is None
            or value.shape != shape
            or not value.is_floating_point()
            or not value.isfinite().all()
        ):
            got = "missing" if value is None else f"{value.dtype} {list(value.shape)}"
            raise BadFile(
                f"{source}: code.{name} is {got}, expected finite numbers of shape {list(shape)}"
            )
        if name in ("std", "variances", "rest") and bool((value < 0).any()):
            raise BadFile(f"{source}: code.{name} has numbers below 0")
        if name == "lower" and bool((value > 0).any()):
            raise BadFile(f"{source}: code.lower has numbers above 0")
    return CodeStatistics.of({name: tensors[name] for name in shapes})


def _published(name: str, file: str | Path | None, bounds: str | Path | None) -> Generated:
    """Return a DeePSiM generator.

    Its release has no statistics: bounds (μ + 3σ) come from a file, or are rough ones.
    """
    layer = name.partition(":")[2]
    generator = load_deepsim(layer, file)
    if bounds is None:
        mean, std = approximate_statistics(layer)
    else:
        upper = read_bounds(bounds, generator.code_shape)
        mean, std = upper * MEAN_SHARE, upper * (1 - MEAN_SHARE) / 3
    rest = std.square().mean()
    statistics = CodeStatistics(
        mean, std, mean + 3 * std, torch.zeros(0, mean.numel()), torch.zeros(0), rest
    )
    known = hashlib.sha256(
        sha256_of_weights(generator).encode() + statistics.upper.numpy().tobytes()
    ).hexdigest()
    return Generated(
        generator, statistics, "", layer, {"name": name, "sha256": known, "licence": LICENCE}
    )


MEAN_SHARE = 0.63 / (0.63 + 3 * 3.74)
"""μ / (μ + 3σ) of the paper's fc6 on the average (method: §2), to split a bound into its parts."""
