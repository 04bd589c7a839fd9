"""A search that learns which features of another network explain the responses, and climbs those.

A neuron without a gradient is modelled by a linear readout of another network's feature maps, as in
Bashivan, Kar & DiCarlo 2019 and Walker et al. 2019. Here the model is fitted again after every
generation, and its gradient runs through the prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from phosphene.code_statistics import needed
from phosphene.errors import BadRequest
from phosphene.optimizers._evolution import Array, EvolutionStrategy, Search, Start
from phosphene.optimizers.evolution import focused, main_directions
from phosphene.parts import option
from phosphene.priors import Prior
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import center_crop

SAMPLES = 64
"""Random images of the prior that give each layer's mean and spread."""
MAX_FEATURES = 24_000
"""Numbers of a layer at most, for those that are chosen without being named."""
SCALES = 4
"""Layers that are chosen: the last ones at each of so many scales, the coarsest first."""
CODE = 0.3
"""The share of the code itself among what the model reads, of that of a layer."""
PENALTIES = 10.0 ** np.arange(-4, 2.1, 0.25)
"""Penalties of the regression, in units of the mean squared length of what it reads."""
LEAST_VARIANCE = 0.1
"""The least variance of a response, of the median one."""
ATTEMPTS = 6
"""Times that a system is tried to be solved, each time with penalties ten times as high."""
CHUNK = 512
"""Rows that are multiplied at once."""
CLOSE = 0.3
"""The deviation of the last draws, of what it would be."""
CLOSE_SHARE = 1 / 15
"""The share of the generations that are drawn so close."""


@dataclass
class Surrogate(EvolutionStrategy):
    """Fit a ridge regression of all responses on features, and move the base along its gradient.

    Codes are drawn in opposite pairs around the base, along the `directions` in which images change
    most, as `evolution` draws them. The model reads the `layers` of the network `features`, and the
    code. It learns which positions of the maps a neuron reads: from time to time a first fit gives
    each position its importance, by which its penalty is divided. The penalty is the best of a row
    by the error of responses, each of them left out. A response counts less, the more noise
    responses of its size have. After each generation the base
    takes `moves` steps along the model's gradient, together `advance` deviations. It stays within
    `reach` lengths of natural codes. The model sees the prior's pictures without constraints of the
    stimulus, in bfloat16.
    """

    needs_statistics = True
    features: str = option("", "Network whose features are read; the prior's encoder if empty.")
    layers: str = option("", "Its layers, with commas between them; four scales if empty.")
    directions: int = option(256, "Directions along which codes are drawn.", low=1, high=4096)
    focus: float = option(0.3, "How much more the main directions vary; 0: no more.", low=0, high=4)
    first_deviation: float = option(1.2, "Of the first draws, where codes are white.", low=1e-6)
    last_deviation: float = option(0.5, "Of the last draws.", low=1e-6)
    advance: float = option(0.2, "Way of the base in a generation.", low=0, high=100)
    moves: int = option(3, "Steps along the model's gradient in a generation.", low=1, high=1000)
    reach: float = option(1.1, "How far the base may go.", low=0, high=1000)

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        self.reader = Reader.of(self.features, self.layers, prior)
        super().begin(codes, prior, steps, seeds)

    def search(self, start: Start) -> Search:
        return _Modelled(self, start)


@dataclass(eq=False)
class Reader:
    """Read a network's `layers` on a prior's images: maps, centred, of one spread each."""

    network: Subject
    layers: list[str]
    prior: Prior
    means: list[Tensor] = field(default_factory=list)
    spreads: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, features: str, layers: str, prior: Prior) -> Reader:
        """Return a reader of the named layers, or of some that are chosen.

        `BadRequest` where no network is named and the prior has no encoder.
        """
        network = load_subject(features) if features else _encoder(prior)
        network.network.to(prior.mean().device)
        chosen = [network.layer_path(name.strip()) for name in layers.split(",") if name.strip()]
        reader = cls(network, chosen or scales(network), prior)
        reader._measure()
        return reader

    @torch.no_grad()
    def _measure(self) -> None:
        images = self.prior.images(torch.stack([self.prior.start(i) for i in range(SAMPLES)]))
        maps = self._maps(images)
        self.means = [each.mean(0) for each in maps]
        lengths = [(e - m).square().sum(1).mean() for e, m in zip(maps, self.means, strict=True)]
        self.spreads = [each.clamp(min=1e-12).sqrt() * math.sqrt(len(maps)) for each in lengths]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the maps that are read."""
        known = self.network.shapes()
        return [known[layer] for layer in self.layers]

    def _maps(self, images: Tensor) -> list[Tensor]:
        view = center_crop(images.float(), self.prior.view_size).clamp(0, 1)
        with self.network.reading(self.layers) as read:
            parts = [
                read(self.network.prepare(part)) for part in view.split(self.network.at_most(64))
            ]
        return [
            torch.cat([part[name].float().flatten(1) for part in parts]) for name in self.layers
        ]

    def read(self, codes: Tensor, white: Tensor) -> Tensor:
        """Return (n, features) of codes (n, *code), which are `white` (n, d) before colouring."""
        with torch.autocast(codes.device.type, torch.bfloat16):
            maps = self._maps(self.prior.images(codes))
        triples = zip(maps, self.means, self.spreads, strict=True)
        parts = [(each - mean) / spread for each, mean, spread in triples]
        return torch.cat([*parts, white * math.sqrt(CODE / white.shape[1])], 1)


def scales(network: Subject) -> list[str]:
    """Return the last layer of maps at each of the coarsest scales of a network."""
    last: dict[tuple[int, ...], str] = {}
    for name, shape in network.shapes().items():
        if len(shape) == 3 and math.prod(shape[1:]) > 1 and math.prod(shape) <= MAX_FEATURES:
            last[shape[1:]] = name
    coarsest = sorted(last, key=math.prod)[:SCALES]
    if not coarsest:
        raise BadRequest(f"{network.name} has no feature maps; name its layers: --layers")
    return [last[size] for size in coarsest]


def _encoder(prior: Prior) -> Subject:
    load = getattr(prior, "load_encoder", None)
    if load is None:
        raise BadRequest(
            "optimizer surrogate reads the features of a network, and this prior has no encoder; "
            "name one, such as features=resnet18-objects"
        )
    encoder: Subject = load()
    return encoder


class Ridge:
    """Regress responses on rows (n, features), which grow by a generation at a time.

    A response's variance is taken to be a + b × its size squared, as of neurons whose noise
    grows with their response. The model is `weights` (features,) and an `offset`. The penalty of a
    feature is divided by the `importance` of its position, which a first fit gives: a neuron
    reads a part of the picture. `shapes` are those of the features' maps, in their order.
    """

    def __init__(self, most: int, features: int, shapes: Sequence[tuple[int, ...]], like: Tensor):
        self.rows = torch.zeros(most, features, device=like.device)
        self.shapes = shapes
        self.products = torch.zeros(most, most, device=like.device)
        self.flat_products = torch.zeros(most, most, device=like.device)
        self.told = torch.zeros(most, device=like.device)
        self.known = 0
        self.refits = 1
        self.penalty = 1.0
        self.offset = torch.zeros((), device=like.device)
        self.importance = torch.ones(features, device=like.device)
        self.weights = torch.zeros(features, device=like.device)

    def add(self, rows: Tensor, told: Tensor) -> None:
        """Add rows (n, features) and their responses (n,), and fit again."""
        first = self.known
        self.known = last = first + len(rows)
        self.rows[first:last] = rows
        self.told[first:last] = told
        variances = self._variances(first)
        self._multiply(self.flat_products, rows, first)
        if last < self.refits:
            self._multiply(self.products, rows * self.importance, first)
            self._fit(self.products, variances)
            return
        self.importance = torch.ones_like(self.importance)
        self.penalty = self._chosen(self.flat_products, variances)
        self._fit(self.flat_products, variances)
        self.importance = by_position(self.weights, self.shapes)
        for at in range(0, last, CHUNK):
            part = self.rows[at : min(at + CHUNK, last)] * self.importance
            self._multiply(self.products, part, at)
        self.penalty = self._chosen(self.products, variances)
        self._fit(self.products, variances)
        self.refits = math.ceil(1.4 * last)

    def _multiply(self, products: Tensor, rows: Tensor, first: int) -> None:
        """Set the products of rows that begin at `first` with those up to them."""
        last = first + len(rows)
        found = rows @ self.rows[:last].T
        products[first:last, :last] = found
        products[:last, first:last] = found.T

    def _variances(self, before: int) -> Tensor:
        """Return the relative variances of all responses, from the errors of the last model."""
        told = self.told[: self.known]
        if not before:
            return torch.ones_like(told)
        sizes = (self.rows[: self.known] @ self.weights + self.offset).square()
        errors = (told - self.rows[: self.known] @ self.weights - self.offset).square()
        terms = torch.stack([torch.ones_like(sizes), sizes], 1)
        solved = torch.linalg.lstsq(terms[:before], errors[:before, None]).solution
        variances = (terms @ solved.clamp(min=0))[:, 0]
        least = LEAST_VARIANCE * variances.median().clamp(min=1e-12)
        variances = variances.clamp(min=float(least))
        return variances / variances.mean()

    def _kernel(self, products: Tensor, variances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the centred kernel (n, n), its size and the share (n,) of each response."""
        share = 1 / variances / (1 / variances).sum()
        kernel = centred(products[: self.known, : self.known], share)
        size = kernel.diagonal().mean().clamp(min=1e-12)
        return kernel / size, size, share

    def _chosen(self, products: Tensor, variances: Tensor) -> float:
        kernel, _, share = self._kernel(products, variances)
        told = self.told[: self.known]
        return best_penalty(kernel, told - share @ told, variances)

    def _fit(self, products: Tensor, variances: Tensor) -> None:
        kernel, size, share = self._kernel(products, variances)
        rows = self.rows[: self.known]
        told = self.told[: self.known]
        mean = share @ told
        duals = solved(kernel, self.penalty * variances, told - mean) / size
        self.weights = self.importance * (rows.T @ (duals - share * duals.sum()))
        self.offset = mean - share @ (rows @ self.weights)


def by_position(weights: Tensor, shapes: Sequence[tuple[int, ...]]) -> Tensor:
    """Return the importance (features,) of each feature, by the weights of a fit that knows none.

    A position's importance is its share of the squared weights, over the mean share of a position,
    where all maps count alike. What is no map, such as the code at the end, keeps importance 1.
    """
    importance = torch.ones_like(weights)
    maps = weights[: sum(math.prod(shape) for shape in shapes)].square()
    total = float(maps.sum())
    at = 0
    for shape in shapes if total > 0 else ():
        last = at + math.prod(shape)
        energy = maps[at:last].view(shape).sum(0) * len(shapes) * math.prod(shape[1:]) / total
        importance[at:last] = energy.expand(shape).flatten()
        at = last
    return importance


def centred(products: Tensor, share: Tensor) -> Tensor:
    """Return products (n, n) of rows, of those rows less their mean, weighted by `share` (n,)."""
    along = products @ share
    return products - along - along[:, None] + share @ along


def solved(kernel: Tensor, penalties: Tensor, told: Tensor) -> Tensor:
    """Solve (kernel + diag(penalties)) x = told, for x (n,).

    Rounding may leave a kernel (n, n) of rows that are alike below zero. Then penalties are raised.
    """
    for power in range(ATTEMPTS):
        system = kernel + 10.0**power * torch.diag(penalties)
        factor, failed = torch.linalg.cholesky_ex(system.double())
        if not int(failed):
            break
    return torch.cholesky_solve(told.double()[:, None], factor)[:, 0].to(told)


def best_penalty(kernel: Tensor, told: Tensor, variances: Tensor) -> float:
    """Return the penalty with the least squared error of responses, each of them left out."""
    scale = variances.rsqrt()
    values, vectors = torch.linalg.eigh(kernel * scale[:, None] * scale)
    along = vectors.T @ (told * scale)
    mean = scale.square() / scale.square().sum()  # what the offset explains of each response
    errors = []
    for penalty in PENALTIES:
        inverse = 1 / (values.clamp(min=0) + penalty)
        duals = vectors @ (inverse * along)
        own = ((vectors.square() * inverse).sum(1) - mean / penalty).clamp(min=1e-12)
        errors.append(float((duals / own).square().mean()))
    return float(PENALTIES[int(np.argmin(errors))])


class _Modelled(Search):
    def __init__(self, options: Surrogate, start: Start):
        self.options = options
        self.reader = options.reader
        self.prior = start.prior
        self.rng = start.rng
        self.statistics = needed(start.prior.statistics)
        self.generations = start.generations
        self.done = 0
        directions, shares = main_directions(start.prior, options.directions)
        scale = focused(shares, options.focus)
        self.spread = torch.from_numpy(scale[:, None] * directions)
        self.base = torch.zeros(self.spread.shape[1])
        self.model: Ridge | None = None

    @property
    def deviation(self) -> float:
        """Return the deviation of the present generation, where codes are white."""
        share = self.done / max(1, self.generations - 1)
        options = self.options
        return float(options.first_deviation ** (1 - share) * options.last_deviation**share)

    def ask(self) -> Array:
        half = -(-self.options.population // 2)
        deviation = self.deviation
        if self.done >= self.generations * (1 - CLOSE_SHARE):
            deviation *= CLOSE
        along = torch.from_numpy(deviation * self.rng.standard_normal((half, len(self.spread))))
        noise = along @ self.spread
        drawn = torch.cat([noise, -noise])[: self.options.population]
        return self._flat(self.base + drawn.float())

    def tell(self, scores: Array, codes: Tensor) -> None:
        mean = self.statistics.mean
        white = self.statistics.whitened(codes - mean).flatten(1)
        with torch.no_grad():
            rows = self.reader.read(codes, white)
        told = torch.from_numpy(scores).to(rows)
        if self.model is None:
            most = self.generations * self.options.population
            self.model = Ridge(most, rows.shape[1], self.reader.shapes, rows)
        self.model.add(rows, told)
        for _ in range(self.options.moves):
            self._move(self.model.weights)
        self.done += 1

    @torch.enable_grad()
    def _move(self, weights: Tensor) -> None:
        """Take a step along the model's gradient, within reach."""
        base = self.base.requires_grad_()
        predicted = self.reader.read(self._codes(base[None]), base[None]) @ weights
        (gradient,) = torch.autograd.grad(predicted.sum(), base)
        root = math.sqrt(len(base))
        length = self.options.advance * self.deviation * root / self.options.moves
        base = base.detach() + length * gradient / gradient.norm().clamp(min=1e-12)
        self.base = base * min(1.0, self.options.reach * root / max(float(base.norm()), 1e-12))

    def _codes(self, white: Tensor) -> Tensor:
        mean = self.statistics.mean
        return self.statistics.whitened(white.to(mean).view(len(white), *mean.shape), 1.0) + mean

    def _flat(self, white: Tensor) -> Array:
        found: Array = self._codes(white).flatten(1).cpu().double().numpy()
        return found

    def current(self) -> Array:
        return self._flat(self.base[None])[0]
