"""An evolution strategy along the directions of a code in which the prior's images change most.

A unit's gradient is what the generator passes on of it. Where natural codes are white, a generator
passes on little in most directions, whatever the network and its unit. So the few others are
searched, which takes fewer pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.code_statistics import needed
from phosphene.errors import BadRequest
from phosphene.optimizers._evolution import (
    Array,
    EvolutionStrategy,
    Search,
    Start,
    recombination_weights,
)
from phosphene.parts import option
from phosphene.priors import Prior

PASSES = 50
BATCH = 8
"""The directions are those of so many random changes of images, in each of so many passes."""
GRAIN = 5
"""Pixels over which every other random change is smoothed."""
MAX_SCALE = 2.5
"""The largest deviation along a direction, in units of the mean one."""
_FOUND: WeakKeyDictionary[Prior, dict[tuple[int, bool], tuple[Array, Array]]] = WeakKeyDictionary()
REACH = 1.1
"""How far the base may go, in lengths of natural codes along the directions."""


@dataclass
class Evolution(EvolutionStrategy):
    """Draw codes in opposite pairs around a base, and move it towards the better half's mean.

    Codes are drawn where natural codes are white, along `directions` of them. The deviation along
    each grows with its share of the images' changes, to the power of half the `focus`, and falls
    from `first_deviation` to `last_deviation`. The base goes `first_advance` to `last_advance` of
    the way. It stays within the length of natural codes.
    """

    needs_statistics = True
    directions: int = option(256, "Directions that are searched.", low=1, high=4096)
    focus: float = option(0.3, "How much more the main directions vary; 0: no more.", low=0, high=4)
    first_deviation: float = option(1.2, "Of the first draws, where codes are white.", low=1e-6)
    last_deviation: float = option(0.15, "Of the last draws.", low=1e-6)
    first_advance: float = option(1.5, "Way to the better half's mean, at first.", low=0, high=100)
    last_advance: float = option(1.0, "Way to the better half's mean, at last.", low=0, high=100)

    def search(self, start: Start) -> Search:
        return _Directed(self, start)


def main_directions(prior: Prior, wanted: int) -> tuple[Array, Array]:
    """Return `found_directions`, which are found once for each prior.

    Several searches through one prior share them, since to find them 400 pictures are drawn.
    """
    known = _FOUND.setdefault(prior, {})
    case = (wanted, torch.is_autocast_enabled("cpu"))
    if case not in known:
        known[case] = found_directions(prior, wanted)
    return known[case]


@torch.enable_grad()
def found_directions(prior: Prior, wanted: int) -> tuple[Array, Array]:
    """Return directions of white codes (k, d), orthonormal, and their shares of changes (k,).

    The gradients of random weighted sums of pixels are taken at random codes, where natural codes
    are white, each of length 1. Their singular vectors are the directions. The share of each is
    that of the squared singular value. `wanted` is the most directions.
    """
    statistics = needed(prior.statistics)
    rng = torch.Generator().manual_seed(0)
    found = []
    for number in range(PASSES):
        starts = [prior.start(number * BATCH + i) for i in range(BATCH)]
        codes = torch.stack(starts).detach().requires_grad_()
        images = prior.images(codes)
        if not images.requires_grad:
            raise BadRequest(
                "optimizer evolution needs a prior with a gradient; take cma-es, genetic or sphere"
            )
        noise = torch.randn(images.shape, generator=rng).to(images)
        if number % 2:
            noise = F.avg_pool2d(noise, GRAIN, 1, GRAIN // 2)
        (gradient,) = torch.autograd.grad((images * noise).sum(), codes)
        white = statistics.whitened(gradient, 1.0).flatten(1)
        found.append(white / white.norm(dim=1, keepdim=True).clamp(min=1e-12))
    gradients = torch.cat(found).cpu().double()
    _, sizes, directions = torch.linalg.svd(gradients, full_matrices=False)
    shares = sizes.square() / sizes.square().sum()
    some = shares[:wanted] > 1e-9
    return directions[:wanted][some].numpy(), shares[:wanted][some].numpy()


def focused(shares: Array, focus: float) -> Array:
    """Return the deviation along each direction (k,), in units of the root of the mean square."""
    weights = np.sqrt(shares**focus)
    scale: Array = np.minimum(weights / np.sqrt(np.square(weights).mean()), MAX_SCALE)
    return scale


class _Directed(Search):
    def __init__(self, options: Evolution, start: Start):
        self.options = options
        self.rng = start.rng
        self.statistics = needed(start.prior.statistics)
        self.steps = max(1, start.generations - 1)
        self.done = 0
        self.directions, shares = main_directions(start.prior, options.directions)
        self.scale = focused(shares, options.focus)
        self.base = np.zeros(len(shares))
        self.drawn = np.empty((0, len(shares)))
        self.weights = recombination_weights(options.population // 2)

    def ask(self) -> Array:
        options = self.options
        share = self.done / self.steps
        deviation = options.first_deviation ** (1 - share) * options.last_deviation**share
        half = -(-options.population // 2)
        noise = deviation * self.scale * self.rng.standard_normal((half, len(self.base)))
        self.drawn = np.concatenate([noise, -noise])[: options.population]
        return self._codes(self.base + self.drawn)

    def tell(self, scores: Array, codes: Tensor) -> None:
        share = self.done / self.steps
        advance = (1 - share) * self.options.first_advance + share * self.options.last_advance
        order = np.argsort(-scores, kind="stable")[: len(self.weights)]
        base = self.base + advance * (self.weights @ self.drawn[order])
        limit = REACH * math.sqrt(len(base))
        self.base = base * min(1.0, limit / max(float(np.linalg.norm(base)), 1e-12))
        self.done += 1

    def _codes(self, places: Array) -> Array:
        """Return the codes of places along the directions."""
        mean = self.statistics.mean
        # torch's product, since the threads of numpy's would stand in the way of the generator's
        white = torch.from_numpy(places) @ torch.from_numpy(self.directions)
        white = white.to(mean).view(len(places), *mean.shape)
        coloured = self.statistics.whitened(white, 1.0) + mean
        found: Array = coloured.flatten(1).cpu().double().numpy()
        return found

    def current(self) -> Array:
        return self._codes(self.base[None])[0]
