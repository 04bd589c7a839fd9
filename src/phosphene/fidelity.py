"""How far a generator can be looked through: what survives of photographs, and what it makes of random codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene import evaluation
from phosphene.datasets import Photographs, load
from phosphene.errors import BadRequest
from phosphene.evaluation import Figure, as_images, distances, features, judge_channels, mean, recognised, share
from phosphene.parameterizations import Generated, seen_part
from phosphene.probe import probe
from phosphene.subjects import Subject, load_subject

RANDOM_CODES, REFERENCES = 200, 2000
"""Codes drawn from the stored Gaussian, and training photographs among which the nearest is looked for."""


@dataclass(frozen=True)
class Fidelity:
    """Figures of a generator over held-out photographs."""

    prior: str
    sha256: str
    encoder: str
    layer: str
    judge: str
    data: str
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Again:
    """Photographs (n, 3, h, w), what the generator made of their codes, and (n,) figures of each."""

    photographs: Tensor
    reconstructions: Tensor
    figures: dict[str, Tensor]


def measure_prior(
    generated: Generated, images: str | Path, judge: str, *, photographs: int = 1000, device: str = "cpu"
) -> Fidelity:
    """Encode held-out photographs and generate them again; generate from random codes; let a judge look at both.

    Distances are taken in the judge's features. The nearest training photograph tells whether the generator copies:
    its random pictures should be no nearer to one than photographs held out are.
    """
    if not generated.encoder:
        raise BadRequest("this generator does not say which encoder it inverts, so no photograph has a code in it")
    encoder, observer = load_subject(generated.encoder), load_subject(judge)
    for network in (encoder.network, observer.network):
        network.to(device)
    train, val = (load(images, split) for split in ("train", "val"))
    chosen = np.linspace(0, len(val) - 1, min(photographs, len(val))).round().astype(np.int64)
    labels = torch.from_numpy(val.labels[chosen])
    again = reconstructed(generated.to(device), encoder, _pictures(val, chosen, generated.image_size), labels)
    summed = {"class_kept": share}
    figures = {name: summed.get(name, mean)(values.tolist()) for name, values in again.figures.items()}
    if val.classes == encoder.classes:
        figures |= _recognition(observer, again, labels, encoder.classes)
    figures |= _distances(observer, again, generated, train)
    card = generated.card
    about = (str(card.get("name", "")), str(card.get("sha256", "")), encoder.name, generated.layer)
    return Fidelity(*about, observer.name, val.name, figures)


@torch.no_grad()
def reconstructed(
    generated: Generated, encoder: Subject, photographs: Tensor, labels: Tensor, batch: int = 50
) -> Again:
    """The photographs (n, 3, size, size) through encoder and generator, and the pictures through the encoder again.

    `image_error` is the mean absolute one on [0, 1], `code_error` squared, in standard deviations, `code_cosine` that
    of the two codes, `class_kept` whether the encoder's own network names the class again.
    """
    made, found = [], []
    device, layer = generated.statistics.mean.device, generated.layer
    with probe(encoder.network, [layer, encoder.output]) as read:
        for x, named in zip(photographs.split(batch), labels.split(batch), strict=True):
            x = x.to(device)
            shape = (len(x), *generated.statistics.mean.shape)
            code = read(encoder.prepare(seen_part(x, generated.seen)))[layer].view(shape)
            y = generated.images(code).clamp(0, 1)
            second = read(encoder.prepare(seen_part(y, generated.seen)))
            other, class_ = second[layer].view(shape).flatten(1), second[encoder.output].argmax(1).cpu()
            code, spread = code.flatten(1), generated.statistics.std.flatten().clamp(min=1e-3)
            made.append(y.cpu())
            found.append(
                {
                    "image_error": (y - x).abs().mean((1, 2, 3)).cpu(),
                    "code_error": ((other - code) / spread).square().mean(1).cpu(),
                    "code_cosine": F.cosine_similarity(other, code).cpu(),
                    "class_kept": (class_ == named).float(),
                }
            )
    return Again(photographs, torch.cat(made), {name: torch.cat([each[name] for each in found]) for name in found[0]})


def _recognition(judge: Subject, again: Again, labels: Tensor, classes: Sequence[str]) -> dict[str, Figure]:
    channels = judge_channels(judge, classes)
    found: dict[str, Figure] = {}
    for name, images in (("recognised", again.reconstructions), ("natural", again.photographs)):
        hits = recognised(judge, images, labels, channels)
        found |= {f"{name}_top{n}": share(hits[:, i].tolist(), f"by {judge.name}") for i, n in enumerate((1, 5))}
    return found


def _distances(judge: Subject, again: Again, generated: Generated, train: Photographs) -> dict[str, Figure]:
    note = f"in features of {judge.name}"
    apart, natural, made = [], [], []
    for x, y in zip(again.photographs.split(50), again.reconstructions.split(50), strict=True):
        (one, pooled), (other, pooled_too) = features(judge, x), features(judge, y)
        apart += distances(one, other).diagonal().tolist()
        natural.append(pooled)
        made.append(pooled_too)
    photographs, reconstructions = torch.cat(natural), torch.cat(made)
    imagined = torch.cat([features(judge, part)[1] for part in _random_pictures(generated)])
    known = np.linspace(0, len(train) - 1, min(REFERENCES, len(train))).round().astype(np.int64)
    references = torch.cat(
        [features(judge, _pictures(train, part, generated.image_size))[1] for part in np.array_split(known, 40)]
    )
    return {
        "perceptual_distance": mean(apart, note),
        "kid": evaluation.kid(reconstructions, photographs, f"reconstructions and photographs, {note}"),
        "kid_random_codes": evaluation.kid(imagined, photographs, f"random codes and photographs, {note}"),
        "nearest_random_codes": mean(
            evaluation.nearest(imagined, references), f"to {len(known):,} training photographs, {note}"
        ),
        "nearest_photographs": mean(evaluation.nearest(photographs, references), f"to the same, {note}"),
    }


def _random_pictures(generated: Generated) -> Iterator[Tensor]:
    codes = torch.stack([generated.start(seed) for seed in range(RANDOM_CODES)])
    with torch.no_grad():
        for part in codes.split(50):
            yield generated.images(part).clamp(0, 1).cpu()


def _pictures(photographs: Photographs, chosen: Any, size: int) -> Tensor:
    return F.interpolate(as_images(photographs.images[chosen]), (size, size), mode="bilinear", align_corners=False)
