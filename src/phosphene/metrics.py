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
AT_ONCE = 50
"""Images that a network is shown at once."""
PIXELS = 2**18
"""Pixels that a network is shown at once on a CPU: caches hold no more (benchmarks/looking.py)."""


def judge_channels(judge: Subject, classes: Sequence[str]) -> list[int]:
    """Return the judge's output channel for each class name.

    It is the channel that shares most synonyms, the first of them above all. A class that the judge
    does not have, or that two of its classes fit equally, is an error. The same list of classes
    needs no names compared.
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
        best = max(fits, default=(0, 0))[0]
        if best == 0 or sum(fit == best for fit, _ in fits) > 1:
            having = "several classes" if best else "no class"
            raise BadRequest(
                f"judge {judge.name} has {having} named {name!r}; take a judge whose names tell "
                "them apart, such as efficientnet-lite2, or add a synonym to the name"
            )
        channels.append(max(fits)[1])
    return channels


def recognised(judge: Subject, images: Tensor, labels: Tensor, channels: Sequence[int]) -> Tensor:
    """Return whether the judge names an image's label first, and among its first five.

    The result is (n, 2) of 0 and 1. The judge is restricted to `channels`, which `labels` (n,)
    index. `images` (n, c, h, w) in [0, 1] are resized to the judge's input.
    """
    chosen = torch.tensor(list(channels))
    batch = _at_once(judge)
    found = []
    with torch.no_grad():
        for part, wanted in zip(images.split(batch), labels.split(batch), strict=True):
            answers = judge(part.to(device_of(judge.network))).cpu()[:, chosen]
            right = answers.topk(min(5, len(chosen))).indices == wanted[:, None]
            found.append(torch.stack([right[:, 0], right.any(1)], 1).float())
    return torch.cat(found)


def activation_ratio(synthesized: float, natural: float) -> float:
    """Divide the best synthesized activation by the best natural one.

    The ratio is NaN where no photograph excites the unit.
    """
    return synthesized / natural if natural > 0 else math.nan


def ranks(peaks: Tensor, channel: int, sample: Tensor) -> Tensor:
    """Return the rank, 1 for the first, of a channel among its layer's on each image.

    `peaks` (n, channels) are the images' activations. Each channel is counted in its own standard
    deviations from its own mean over photographs, `sample` (m, channels), since channels differ in
    scale. A channel that never varies is last.
    """
    spread = sample.std(0)
    scaled = torch.where(spread > 0, (peaks - sample.mean(0)) / spread.clamp(min=1e-12), -torch.inf)
    return 1 + (scaled > scaled[:, channel, None]).sum(1)


def feature_layers(network: Subject) -> list[str]:
    """Return the layers that are compared: the last of each size of map, the coarsest few."""
    shapes = network.shapes()
    axes = 3 if any(len(shape) == 3 for shape in shapes.values()) else 2
    maps = {shape[1:]: name for name, shape in shapes.items() if len(shape) == axes}
    return list(maps.values())[-SCALES:] or [list(shapes)[-1]]


def features(network: Subject, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return perceptual vectors (n, d) and pooled features (n, channels) of images (n, 3, h, w).

    The perceptual vector holds the maps of `feature_layers`, at every position of length one over
    the channels. The vectors are scaled so that the squared distance of two is the distance of
    LPIPS with all weights equal (Zhang et al. 2018, eq. 1), averaged over the layers. It is 0 for
    equal images, and 2 for those that have nothing in common. The pooled features are the coarsest
    layer's means over its positions.
    """
    layers = feature_layers(network)
    vectors = []
    pooled = []
    with network.reading(layers) as read, torch.no_grad():
        for part in images.split(_at_once(network)):
            maps = read(network.prepare(part.to(device_of(network.network))))
            wide = (maps[layer].float() for layer in layers)
            flat = [each.flatten(2) if each.ndim > 2 else each[..., None] for each in wide]
            lengths = [
                nn.functional.normalize(each, dim=1) / math.sqrt(len(flat) * each.shape[2])
                for each in flat
            ]
            vectors.append(torch.cat([each.flatten(1) for each in lengths], 1).cpu())
            pooled.append(flat[-1].mean(2).cpu())
    return torch.cat(vectors), torch.cat(pooled)


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the perceptual distances (n, m) of vectors (n, d) and (m, d) of `features`."""
    squares = one.square().sum(1)[:, None] + other.square().sum(1)
    return (squares - 2 * one @ other.T).clamp(min=0)


def nearest(pooled: Tensor, references: Tensor) -> list[float]:
    """Return the cosine distance of each of (n, d) pooled features to the nearest reference.

    The references are (m, d).
    """
    one = nn.functional.normalize(pooled, dim=1)
    other = nn.functional.normalize(references, dim=1)
    return (1 - (one @ other.T).amax(1)).tolist()


def diversity(vectors: Tensor) -> float:
    """Average the perceptual distance over all pairs of vectors (n, d); NaN for fewer than two."""
    n = len(vectors)
    if n < 2:
        return math.nan
    return float(distances(vectors, vectors).triu(1).sum()) / (n * (n - 1) / 2)


def diversity_index(vectors: Tensor, scores: Tensor, best: float) -> float:
    """Return how freely pictures of one unit differ, 0 … 1.

    `vectors` (n, d) are the pictures' departures from grey, and `scores` (n,) their scores. The
    index is 1 − (|m| / s)², with m the mean of the vectors' directions and s the mean score as a
    share of `best`, the unit's highest. At one norm, a linear unit (a simple cell) has 0 whatever
    the pictures are, since no direction can leave its weights further than its score tells. An
    energy unit (a complex cell) whose pictures have all phases has 1, since they cancel.
    """
    mean = nn.functional.normalize(vectors.double(), dim=1).mean(0)
    share = float(scores.double().mean()) / best if best > 0 else 1.0
    return min(1.0, max(0.0, 1 - float(mean.square().sum()) / max(share, 1e-6) ** 2))


def kernel_distance() -> Any:
    """Return the library's metric for `kid`.

    `Unavailable` says that the library is not installed. Hours of measuring should not come before.
    """
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
    """Return the kernel inception distance (Bińkowski et al. 2018) of (n, d) and (m, d) features.

    It is the mean over a hundred random halves. Their spread gives the interval, by a jackknife
    that leaves half out. The interval misses less often than one in twenty where the sets are of
    unequal size, or alike.
    """
    metric_class = kernel_distance()
    count = min(len(one), len(other))
    half = count // 2
    if half < 2:
        return Figure(math.nan, math.nan, math.nan, count, note)
    with warnings.catch_warnings():
        # It says that it keeps the features that it was given.
        warnings.simplefilter("ignore", UserWarning)
        metric = metric_class(nn.Identity(), subsets=100, subset_size=half)
    metric.update(one, real=False)
    metric.update(other, real=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    value = float(mean)
    spread = float(deviation)
    return Figure(value, value - 1.96 * spread, value + 1.96 * spread, count, note)


def two_afc(references: Tensor, strong: Tensor, weak: Tensor) -> float:
    """Return how often an observer picks the photograph of each pair that excites the unit more.

    This is a machine's version of Borowski et al. 2021. The observer is shown references (r, d). It
    takes the one of `strong` (p, d) and `weak` (p, d) that is perceptually nearer to the references
    on the average. A tie counts one half.
    """
    ahead = distances(weak, references).mean(1) - distances(strong, references).mean(1)
    return float((ahead > 0).float().mean() + (ahead == 0).float().mean() / 2)


def prior_share(picture: Tensor, control: Tensor, origin: Tensor) -> float:
    """Return how much of a picture the prior alone explains, 0 … 1.

    It is the squared cosine between the picture's departure from the average photograph, `origin`,
    and that of a control which no trained unit asked for. It is 0 where they point apart. All are
    pooled features (d,).
    """
    cosine = nn.functional.cosine_similarity(picture - origin, control - origin, dim=0)
    return float(cosine.clamp(min=0).square())


def _at_once(network: Subject) -> int:
    """Return as many images as a network takes, and looks at quickly."""
    height, width = network.size
    fast = AT_ONCE
    if device_of(network.network).type == "cpu":
        fast = min(fast, max(1, PIXELS // (height * width)))
    return network.at_most(fast)


def _synonyms(name: str) -> list[str]:
    return [word.strip().lower() for word in normalize("NFC", name).split(",")]
