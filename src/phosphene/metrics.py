"""Metrics of pictures, from activations and from the features of a network that judges."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import torch
from torch import Tensor, nn

from phosphene.errors import BadRequest, Unavailable
from phosphene.statistics import Figure
from phosphene.subjects import Subject
from phosphene.tensors import device_of

SCALES = 3
"""At how many resolutions a network's features are compared."""
AT_ONCE, PIXELS = 50, 2**18
"""Images that a network is shown at once, and on a CPU their pixels: caches hold no more (benchmarks/looking.py)."""


def judge_channels(judge: Subject, classes: Sequence[str]) -> list[int]:
    """The judge's output channel for each class name: the one that shares most synonyms, the first of them above all.

    A class that the judge does not have, or that two of its classes fit equally, is an error; the same list of
    classes needs no names compared.
    """
    if tuple(judge.classes) == tuple(classes):
        return list(range(len(classes)))
    known = [_synonyms(name) for name in judge.classes]
    channels = []
    for name in classes:
        words = _synonyms(name)
        fits = [
            (len({*words} & {*other}) + (words[0] == other[0]), i) for i, other in enumerate(known)
        ]
        best = max(fits)[0]
        if best == 0 or sum(fit == best for fit, _ in fits) > 1:
            having = "several classes" if best else "no class"
            raise BadRequest(
                f"judge {judge.name} has {having} named {name!r}; take a judge whose names tell "
                "them apart, such as efficientnet-lite2, or add a synonym to the name"
            )
        channels.append(max(fits)[1])
    return channels


def recognised(judge: Subject, images: Tensor, labels: Tensor, channels: Sequence[int]) -> Tensor:
    """(n, 2) of 0 and 1: does the judge, restricted to `channels`, name an image's label first, and among its first
    five? `images` (n, 3, h, w) in [0, 1] are resized to the judge's input; `labels` (n,) index `channels`."""
    chosen, found, batch = torch.tensor(list(channels)), [], _at_once(judge)
    with torch.no_grad():
        for part, wanted in zip(images.split(batch), labels.split(batch), strict=True):
            first = (
                judge(part.to(device_of(judge.network)))
                .cpu()[:, chosen]
                .topk(min(5, len(chosen)))
                .indices
            )
            right = first == wanted[:, None]
            found.append(torch.stack([right[:, 0], right.any(1)], 1).float())
    return torch.cat(found)


def activation_ratio(synthesized: float, natural: float) -> float:
    """The best synthesized activation over the best natural one; NaN where no photograph excites the unit."""
    return synthesized / natural if natural > 0 else math.nan


def ranks(peaks: Tensor, channel: int, sample: Tensor) -> Tensor:
    """The rank, 1 for the first, of a channel among its layer's on each image.

    `peaks` (n, channels) are the images' activations. Each channel is counted in its own standard deviations from its
    own mean over photographs, `sample` (m, channels), since channels differ in scale; one that never varies is last.
    """
    spread = sample.std(0)
    scaled = torch.where(spread > 0, (peaks - sample.mean(0)) / spread.clamp(min=1e-12), -torch.inf)
    return 1 + (scaled > scaled[:, channel, None]).sum(1)


def feature_layers(network: Subject) -> list[str]:
    """The layers of a network that are compared: the last of each size of map, the coarsest few."""
    shapes = network.shapes()
    axes = 3 if any(len(shape) == 3 for shape in shapes.values()) else 2
    maps = {shape[1:]: name for name, shape in shapes.items() if len(shape) == axes}
    return list(maps.values())[-SCALES:] or [list(shapes)[-1]]


def features(network: Subject, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a network sees in images (n, 3, h, w): perceptual vectors (n, d), and pooled features (n, channels).

    The perceptual vector holds the maps of `feature_layers`, at every position of length one over the channels, scaled
    so that the squared distance of two vectors is the distance of LPIPS with all weights equal (Zhang et al. 2018,
    eq. 1), averaged over the layers: 0 for equal images, 2 for those that have nothing in common. The pooled features
    are the coarsest layer's means over its positions.
    """
    layers, vectors, pooled = feature_layers(network), [], []
    with network.reading(layers) as read, torch.no_grad():
        for part in images.split(_at_once(network)):
            maps = read(network.prepare(part.to(device_of(network.network))))
            flat = [maps[layer].float().flatten(2) if maps[layer].ndim > 2 else maps[layer].float()[..., None]
                    for layer in layers]  # fmt: skip
            lengths = [
                nn.functional.normalize(each, dim=1) / math.sqrt(len(flat) * each.shape[2])
                for each in flat
            ]
            vectors.append(torch.cat([each.flatten(1) for each in lengths], 1).cpu())
            pooled.append(flat[-1].mean(2).cpu())
    return torch.cat(vectors), torch.cat(pooled)


def distances(one: Tensor, other: Tensor) -> Tensor:
    """(n, m): perceptual distances between vectors (n, d) and (m, d) of `features`."""
    squares = one.square().sum(1)[:, None] + other.square().sum(1)
    return (squares - 2 * one @ other.T).clamp(min=0)


def nearest(pooled: Tensor, references: Tensor) -> list[float]:
    """The cosine distance of each of (n, d) pooled features to the nearest of the references, (m, d)."""
    one, other = nn.functional.normalize(pooled, dim=1), nn.functional.normalize(references, dim=1)
    return (1 - (one @ other.T).amax(1)).tolist()


def diversity(vectors: Tensor) -> float:
    """Mean perceptual distance over all pairs of vectors (n, d); NaN for fewer than two."""
    n = len(vectors)
    return (
        float(distances(vectors, vectors).triu(1).sum()) / (n * (n - 1) / 2) if n > 1 else math.nan
    )


def kernel_distance() -> Any:
    """The library's metric of `kid`; `Unavailable` where it is not installed, better said before hours of measuring."""
    try:
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError:
        raise Unavailable(
            "the distance between sets needs torchmetrics; pip install 'phosphene[evaluate]'"
        ) from None
    except RuntimeError as error:  # it imports torchvision, where there is one
        raise Unavailable(
            f"no torchmetrics, for this torchvision is not of this torch: {error}"
        ) from None
    return KernelInceptionDistance


def kid(one: Tensor, other: Tensor, note: str = "", seed: int = 0) -> Figure:
    """The kernel inception distance (Bińkowski et al. 2018) between pooled features (n, d) and (m, d).

    The mean over a hundred random halves; their spread gives the interval (a jackknife that leaves half out), which
    misses less often than one in twenty where the sets are of unequal size, or alike.
    """
    metric_class = kernel_distance()
    half = min(len(one), len(other)) // 2
    if half < 2:
        return Figure(math.nan, math.nan, math.nan, min(len(one), len(other)), note)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # it says that it keeps the features that it was given
        metric = metric_class(nn.Identity(), subsets=100, subset_size=half)
    metric.update(one, real=False)
    metric.update(other, real=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value, spread = (float(each) for each in metric.compute())
    return Figure(
        value, value - 1.96 * spread, value + 1.96 * spread, min(len(one), len(other)), note
    )


def two_afc(references: Tensor, strong: Tensor, weak: Tensor) -> float:
    """How often an observer, shown references (r, d), picks from each pair the photograph that excites the unit more.

    A machine's version of Borowski et al. 2021: it takes the one of `strong` (p, d) and `weak` (p, d) that is
    perceptually nearer to the references on the average; a tie counts one half.
    """
    ahead = distances(weak, references).mean(1) - distances(strong, references).mean(1)
    return float((ahead > 0).float().mean() + (ahead == 0).float().mean() / 2)


def prior_share(picture: Tensor, control: Tensor, origin: Tensor) -> float:
    """How much of a picture the prior alone explains, 0 … 1: the squared cosine between its departure from the average
    photograph, `origin`, and that of a control which no trained unit asked for; 0 where they point apart. All are
    pooled features (d,)."""
    cosine = nn.functional.cosine_similarity(picture - origin, control - origin, dim=0)
    return float(cosine.clamp(min=0).square())


def _at_once(network: Subject) -> int:
    """As many images as a network takes, and looks at quickly."""
    height, width = network.size
    fast = (
        max(1, PIXELS // (height * width)) if device_of(network.network).type == "cpu" else AT_ONCE
    )
    return network.at_most(min(fast, AT_ONCE))


def _synonyms(name: str) -> list[str]:
    return [word.strip().lower() for word in normalize("NFC", name).split(",")]
