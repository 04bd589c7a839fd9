"""The generators that DeePSiM published (Dosovitskiy & Brox 2016) as priors: `deepsim:LAYER`."""

from __future__ import annotations

import hashlib

import torch

from phosphene.code_statistics import CodeStatistics
from phosphene.networks.deepsim import LICENCE, approximate_statistics, load_deepsim, read_bounds
from phosphene.networks.inspection import sha256_of_weights
from phosphene.priors.generated import Generated
from phosphene.subjects import Subject

MEAN_SHARE = 0.63 / (0.63 + 3 * 3.74)
"""μ / (μ + 3σ) of the paper's fc6 on the average (method: §2), to split a bound into its parts."""


class Deepsim(Generated):
    """Make images by a published generator.

    The release has no statistics: bounds (μ + 3σ) come from a file, or are rough ones.
    """

    @classmethod
    def load(
        cls, rest: str, subject: Subject | None = None, prior_file: str = "", bounds: str = ""
    ) -> Deepsim:
        """Return the generator for CaffeNet's layer `rest`.

        `prior_file` holds its weights, where the hub is not to be asked; `bounds` one upper bound
        for each unit of the code.
        """
        generator = load_deepsim(rest, prior_file or None)
        if bounds:
            upper = read_bounds(bounds, generator.code_shape)
            mean = upper * MEAN_SHARE
            std = upper * (1 - MEAN_SHARE) / 3
        else:
            mean, std = approximate_statistics(rest)
        axes = torch.zeros(0, mean.numel())
        variance = std.square().mean()
        statistics = CodeStatistics(mean, std, mean + 3 * std, axes, torch.zeros(0), variance)
        content = sha256_of_weights(generator).encode() + statistics.upper.numpy().tobytes()
        known = hashlib.sha256(content).hexdigest()
        card = {"name": f"deepsim:{rest}", "sha256": known, "licence": LICENCE}
        return cls(generator, statistics, "", rest, card)
