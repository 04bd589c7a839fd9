"""Numbers for pictures: does a network that took no part see the same class in them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import BadRequest
from phosphene.subjects import Subject


@dataclass(frozen=True)
class Recognised:
    """Shares of images whose class a judge names first, or among its first five, of `n`; `interval` is Wilson's
    95 % interval of `top1`."""

    top1: float
    top5: float
    n: int
    interval: tuple[float, float]


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
        fits = [(len({*words} & {*other}) + (words[0] == other[0]), i) for i, other in enumerate(known)]
        best = max(fits)[0]
        if best == 0 or sum(fit == best for fit, _ in fits) > 1:
            raise BadRequest(f"judge {judge.name} has {'several classes' if best else 'no class'} named {name!r}")
        channels.append(max(fits)[1])
    return channels


def recognised(judge: Subject, images: Tensor, labels: Tensor, channels: Sequence[int], batch: int = 50) -> Recognised:
    """How often the judge, restricted to `channels`, names the label of images (n, 3, h, w) in [0, 1].

    `labels` (n,) index `channels`. Images are enlarged to the judge's input.
    """
    device = next(judge.network.parameters(), torch.zeros(())).device
    batch = min(batch, judge.batch or batch)
    chosen = torch.tensor(list(channels), device=device)
    hits = torch.zeros(2)
    with torch.no_grad():
        for at in range(0, len(images), batch):
            logits = judge(images[at : at + batch].to(device))[:, chosen]
            right = logits.topk(min(5, len(chosen))).indices.cpu() == labels[at : at + batch, None]
            hits += torch.stack([right[:, 0].sum(), right.sum()])
    top1, top5 = (hits / len(images)).tolist()
    return Recognised(top1, top5, len(images), wilson(top1, len(images)))


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval for a share of n."""
    centre, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def _synonyms(name: str) -> list[str]:
    return [word.strip().lower() for word in name.split(",")]
