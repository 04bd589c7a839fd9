"""How far a generator can be looked through.

That is what survives of photographs, and what it makes of random codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene import metrics
from phosphene.datasets import Photographs, load, places_of, same_names
from phosphene.errors import BadRequest
from phosphene.metrics import distances, features, judge_channels, recognised
from phosphene.priors import Generated
from phosphene.statistics import Figure, mean, share
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import as_images, center_crop, resized

RANDOM_CODES, REFERENCES = 200, 2000
"""Codes drawn from the stored Gaussian, and training photographs to look for the nearest in."""


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
class Reconstruction:
    """Photographs, what the generator made of their codes, and figures of each.

    Photographs and reconstructions are (n, 3, h, w), each figure is (n,).
    """

    photographs: Tensor
    reconstructions: Tensor
    figures: dict[str, Tensor]


class Observer:
    """Let a judge look at photographs, once for all generators of one size, in pixels.

    `photographs` is how many held-out ones are measured, evenly spread over their split.
    """

    def __init__(
        self,
        judge: str | Subject,
        images: str | Path,
        size: int,
        *,
        photographs: int = 1000,
        device: str = "cpu",
    ):
        metrics.kernel_distance()
        self.judge = load_subject(judge) if isinstance(judge, str) else judge
        self.size, self.device = size, device
        self.judge.network.to(device)
        train, val = (load(images, split, labelled=False) for split in ("train", "val"))
        held_out, known = (
            np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(np.int64)
            for data, most in ((val, photographs), (train, REFERENCES))
        )
        self.data, self.classes = val.name, val.classes
        self.photographs = _pictures(val, held_out, size)
        self.labels = torch.from_numpy(val.labels[held_out])
        self._references = _pictures(train, known, size)
        self._channels: list[int] | None = None  # a judge of other classes still compares
        if self.labelled:
            with suppress(BadRequest):
                self._channels = judge_channels(self.judge, self.classes)

    @property
    def labelled(self) -> bool:
        """Return whether the classes of all photographs are known."""
        return bool(self.classes) and bool((self.labels >= 0).all())

    @property
    def names(self) -> bool:
        """Return whether the judge knows the photographs' classes."""
        return self._channels is not None

    def hits(self, images: Tensor) -> Tensor:
        """Return (n, 2) of 0 and 1, a row for each held-out photograph.

        Is its class named first of its picture, and among the first five?
        """
        return recognised(self.judge, images, self.labels, self._channels or [])

    @cached_property
    def natural(self) -> Tensor:
        """Return the hits of the photographs themselves."""
        return self.hits(self.photographs)

    @cached_property
    def features(self) -> tuple[list[Tensor], Tensor]:
        """Return the held-out photographs' perceptual vectors and pooled features.

        The vectors are a list, with a tensor for each fifty photographs.
        """
        each = [features(self.judge, x) for x in self.photographs.split(50)]
        return [vectors for vectors, _ in each], torch.cat([pooled for _, pooled in each])

    @cached_property
    def references(self) -> Tensor:
        """Return the pooled features of training photographs."""
        return torch.cat([features(self.judge, x)[1] for x in self._references.split(50)])


def measure_prior(generated: Generated, observer: Observer, trusted: str = "") -> Fidelity:
    """Encode held-out photographs and generate them again, and let a judge look at both.

    The judge looks at pictures of random codes too. Distances are taken in the judge's features.
    The nearest training photograph tells whether the generator copies: its random pictures should
    be no nearer to one than photographs held out are. An encoder that is code, `python:…`, is
    loaded only where it is the `trusted` one.
    """
    encoder, device = generated.load_encoder(trusted), observer.device
    encoder.network.to(device)
    generated = generated.to(device)
    labels = observer.labels
    same = observer.labelled and same_names(observer.classes, encoder.classes)
    if same:
        places = places_of(observer.classes, encoder.classes)
        labels = torch.tensor([places[label] for label in labels.tolist()])
    made = reconstructed(generated, encoder, observer.photographs, labels)
    figures = {name: mean(values.tolist()) for name, values in made.figures.items()}
    del figures["class_kept"]
    if same:
        figures["class_kept"] = share(made.figures["class_kept"].tolist())
    if observer.names:
        figures |= _recognition(observer, made)
    figures |= _distances(observer, made, generated)
    card = generated.card
    about = (str(card.get("name", "")), str(card.get("sha256", "")), encoder.name, generated.layer)
    return Fidelity(*about, observer.judge.name, observer.data, figures)


@torch.no_grad()
def reconstructed(
    generated: Generated, encoder: Subject, photographs: Tensor, labels: Tensor, batch: int = 50
) -> Reconstruction:
    """Send photographs through encoder and generator, and the pictures through the encoder again.

    `photographs` are (n, 3, size, size). `image_error` is the mean absolute one on [0, 1],
    `code_error` squared, in standard deviations, `code_cosine` that of the two codes, `class_kept`
    whether the encoder's own network names the photograph's class.
    """
    made, found, batch = [], [], encoder.at_most(batch)
    device, layer = generated.statistics.mean.device, generated.layer
    with encoder.reading([layer, encoder.output]) as read:
        for x, named in zip(photographs.split(batch), labels.split(batch), strict=True):
            x = x.to(device)
            shape = (len(x), *generated.statistics.mean.shape)
            code = read(encoder.prepare(center_crop(x, generated.view_size)))[layer].view(shape)
            y = generated.images(code).clamp(0, 1)
            second = read(encoder.prepare(center_crop(y, generated.view_size)))
            other = second[layer].view(shape).flatten(1)
            class_ = second[encoder.output].argmax(1).cpu()
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
    return Reconstruction(
        photographs,
        torch.cat(made),
        {name: torch.cat([each[name] for each in found]) for name in found[0]},
    )


def _recognition(observer: Observer, made: Reconstruction) -> dict[str, Figure]:
    hits = {"recognised": observer.hits(made.reconstructions), "natural": observer.natural}
    note = f"by {observer.judge.name}"
    return {
        f"{name}_top{n}": share(own[:, i].tolist(), note)
        for name, own in hits.items()
        for i, n in enumerate((1, 5))
    }


def _distances(observer: Observer, made: Reconstruction, generated: Generated) -> dict[str, Figure]:
    judge, note = observer.judge, f"in features of {observer.judge.name}"
    (natural, photographs), references = observer.features, observer.references
    feature_distances = []
    pooled_parts = []
    for one, y in zip(natural, made.reconstructions.split(50), strict=True):
        other, pooled = features(judge, y)
        feature_distances += distances(one, other).diagonal().tolist()
        pooled_parts.append(pooled)
    reconstructions = torch.cat(pooled_parts)
    imagined = torch.cat([features(judge, part)[1] for part in _random_pictures(generated)])
    both = f"reconstructions and photographs, {note}"
    drawn = f"random codes and photographs, {note}"
    known = f"to {len(references):,} training photographs, {note}"
    same = f"to the same, {note}"
    return {
        "perceptual_distance": mean(feature_distances, note),
        "kid": metrics.kid(reconstructions, photographs, both),
        "kid_random_codes": metrics.kid(imagined, photographs, drawn),
        "nearest_random_codes": mean(metrics.nearest(imagined, references), known),
        "nearest_photographs": mean(metrics.nearest(photographs, references), same),
    }


def _random_pictures(generated: Generated) -> Iterator[Tensor]:
    codes = torch.stack([generated.start(seed) for seed in range(RANDOM_CODES)])
    with torch.no_grad():
        for part in codes.split(50):
            yield generated.images(part).clamp(0, 1).cpu()


def _pictures(photographs: Photographs, chosen: Any, size: int) -> Tensor:
    return resized(as_images(photographs.images[chosen]), (size, size))
