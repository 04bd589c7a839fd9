"""Pictures of units beside photographs that excite the same units."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phosphene import metrics
from phosphene.errors import BadRequest
from phosphene.images import Pixels, cut_to, to_pixels
from phosphene.metrics import features
from phosphene.priors import load_prior
from phosphene.receptive_fields import Fields
from phosphene.statistics import Figure, mean, median, share
from phosphene.studies._folder import Picture, Run
from phosphene.studies._index import LayerExemplars, find_peaks
from phosphene.studies._natural import REFERENCES, NaturalImages, seeded
from phosphene.studies.exemplars import cut_out, field_box, in_colours_of
from phosphene.subjects import Subject
from phosphene.tensors import as_images, device_of, padded_to_shape

RANDOM_CODES = 50
"""Codes for what the prior makes by itself."""

Rows = dict[int, dict[str, Any]]
"""What is said of a layer's units, by channel."""


@dataclass(frozen=True)
class Comparison:
    """The pictures of several runs beside photographs, and beside what each prior draws.

    The photographs are each unit's exemplars and held-out ones.
    """

    runs: Sequence[Run]
    subject: Subject
    judge: Subject
    natural: NaturalImages
    ordinary: list[Pixels]
    priors: list[list[Pixels]]

    @classmethod
    def of(
        cls, runs: Sequence[Run], subject: Subject, judge: Subject, natural: NaturalImages
    ) -> Comparison:
        """Return it with what is the same for all units.

        That is ordinary photographs, and images of random codes.
        """
        photographs = natural.read({*natural.ordinary}, held_out=True)
        ordinary = [photographs[number] for number in natural.ordinary]
        drawn = [_random_pictures(run, natural.train.size) for run in runs]
        return cls(runs, subject, judge, natural, ordinary, drawn)

    def __call__(
        self,
        layer: str,
        rows: Sequence[Rows],
        controls: dict[int, list[Picture]],
        report: Callable[[], None],
    ) -> list[dict[str, Figure]]:
        """Fill in each run's rows of a layer's units, and return its figures."""
        field = self.natural.fields.get(layer)
        ordinary, *priors = (
            features(self.judge, in_squares(_somewhere(pictures, field, self.subject)))
            for pictures in (self.ordinary, *self.priors)
        )
        pooled: list[dict[str, list[Tensor]]] = [{"pictures": [], "exemplars": []} for _ in rows]
        channels = list(dict.fromkeys(channel for own in rows for channel in own))
        photographs = _Photographs(self.natural, layer, channels)
        for channel in channels:
            read = _UnitFeatures(self.subject, self.judge, layer, channel, field)
            beside = self._beside(read, photographs, ordinary)
            if channel in controls:
                beside.control, _ = read(self._resized(controls[channel]))
            for run, own, prior, kept in zip(self.runs, rows, priors, pooled, strict=True):
                if channel in own:
                    pictures = run.layers[layer][channel]
                    made, peaks = read(self._resized(pictures))
                    best = max(picture.score for picture in pictures)
                    own[channel] |= beside.compared(best, made, peaks, prior)
                    kept["pictures"].append(made[1])
                    kept["exemplars"].append(beside.natural[1])
                    report()
        n_images = self.natural.exemplars[layer].n_images
        return [
            _figures(own, kept, ordinary[1], n_images, self.judge.name) if own else {}
            for own, kept in zip(rows, pooled, strict=True)
        ]

    def _beside(
        self, read: _UnitFeatures, photographs: _Photographs, ordinary: tuple[Tensor, Tensor]
    ) -> _Beside:
        """Return what pictures of a unit are compared with."""
        layer, channel = read.layer, read.channel
        found = self.natural.exemplars[layer]
        best = found.best(channel)[:REFERENCES]
        natural, ranked = read([photographs.exemplars[n] for n in best])
        pair = self.natural.pairs(layer, channel)
        strengths = [read([photographs.held_out[n] for n in part])[0] for part in pair]
        strong = strengths[0][0]
        weak = strengths[1][0]
        return _Beside(found, channel, natural, ranked, strong, weak, ordinary)

    def _resized(self, pictures: Sequence[Picture]) -> list[Pixels]:
        size = self.natural.train.size
        return [_resized(picture.pixels, size, self.subject.fit) for picture in pictures]


@dataclass
class _Beside:
    """What pictures of one unit are compared with, as the judge sees it (see `features`)."""

    found: LayerExemplars
    channel: int
    natural: tuple[Tensor, Tensor]
    ranked: Tensor
    strong: Tensor
    weak: Tensor
    ordinary: tuple[Tensor, Tensor]
    control: tuple[Tensor, Tensor] | None = None

    def compared(
        self, score: float, made: tuple[Tensor, Tensor], peaks: Tensor, prior: tuple[Tensor, Tensor]
    ) -> dict[str, Any]:
        """Return the figures of one run's pictures of the unit.

        They have their best score, features, all channels' peaks, and `prior`, the features of what
        the run's prior draws.
        """
        sample, origin = self.found.sample, self.ordinary[1].mean(0)
        row: dict[str, Any] = {
            "score": score,
            "natural_score": float(self.found.values[self.channel, 0]),
        }
        row["activation_ratio"] = metrics.activation_ratio(score, row["natural_score"])
        ranked = {"selectivity": peaks, "exemplar_selectivity": self.ranked}
        for key, each in ranked.items() if sample.shape[1] > 1 else ():  # a sum is alone
            row[key] = float(metrics.ranks(each, self.channel, sample).float().mean())
        row["diversity"] = metrics.diversity(made[0])
        row["exemplar_diversity"] = metrics.diversity(self.natural[0])
        some = torch.randperm(len(self.ordinary[0]), generator=seeded(self.channel))
        shown = {"synthetic": made[0], "natural": self.natural[0], "none": self.ordinary[0][some]}
        for kind, references in shown.items():
            row[f"two_afc_{kind}"] = metrics.two_afc(
                references[:REFERENCES], self.strong, self.weak
            )
        row["distance_exemplars"] = float(metrics.distances(made[0], self.natural[0]).mean())
        row["distance_random_codes"] = float(metrics.distances(made[0], prior[0]).mean())
        row["prior_share_random_codes"] = metrics.prior_share(
            made[1].mean(0), prior[1].mean(0), origin
        )
        if self.control is not None:
            row["distance_control"] = float(metrics.distances(made[0], self.control[0]).mean())
            row["prior_share"] = metrics.prior_share(
                made[1].mean(0), self.control[1].mean(0), origin
            )
        return row


def _figures(
    rows: Rows, pooled: dict[str, list[Tensor]], ordinary: Tensor, n_images: int, judge: str
) -> dict[str, Figure]:
    """Return the rows' figures over all units."""

    def values(key: str) -> list[float]:
        return [row.get(key, math.nan) for row in rows.values()]

    over = f"best of {n_images:,} photographs"
    ratios, ranked = values("activation_ratio"), ("selectivity", "exemplar_selectivity")
    figures = {
        "activation_ratio": median(ratios, f"median; {over}"),
        "activation_ratio_above_1": share(
            [float(ratio > 1) for ratio in ratios if math.isfinite(ratio)], over
        ),
        **{key: median(values(key), "median rank among the layer's units") for key in ranked},
        **{
            f"{key}_first": share(
                [float(v == 1) for v in values(key) if math.isfinite(v)], "share of first ranks"
            )
            for key in ranked
        },
    }
    in_features = f"in features of {judge}"
    for key in ("two_afc_synthetic", "two_afc_natural", "two_afc_none"):
        figures[key] = mean(values(key), f"share right; {in_features}")
    shares = ("prior_share", "prior_share_random_codes")
    distances = ("distance_exemplars", "distance_control", "distance_random_codes")
    for key in ("diversity", "exemplar_diversity", *shares, *distances):
        figures[key] = mean(values(key), in_features)
    made, natural = (torch.cat(pooled[kind]) for kind in ("pictures", "exemplars"))
    figures["kid"] = metrics.kid(made, natural, f"pictures and exemplars, {in_features}")
    figures["kid_photographs"] = metrics.kid(
        ordinary, natural, f"other photographs and exemplars, {in_features}"
    )
    return {key: figure for key, figure in figures.items() if figure.n}


class _Photographs:
    """Hold the photographs that one layer's comparison needs, for as long as it takes."""

    def __init__(self, natural: NaturalImages, layer: str, channels: Sequence[int]):
        found = natural.exemplars[layer]
        best = {n for channel in channels for n in found.best(channel)[:REFERENCES]}
        asked = {n for channel in channels for part in natural.pairs(layer, channel) for n in part}
        self.exemplars = natural.read(best)
        self.held_out = natural.read(asked, held_out=True)


@dataclass(frozen=True)
class _UnitFeatures:
    """Reads a judge's features of what one unit sees of pictures, where it answers most."""

    subject: Subject
    judge: Subject
    layer: str
    channel: int
    field: Fields | None

    def __call__(self, pictures: Sequence[Pixels]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Return the judge's features of what the unit sees, and all channels' peaks.

        The features are those of `metrics.features`, the peaks (n, channels).
        """
        device = device_of(self.subject.network)
        with self.subject.reading([self.layer]) as read, torch.no_grad():
            parts = as_images(pictures).to(device).split(self.subject.at_most(len(pictures)))
            found = [find_peaks(read(self.subject.prepare(part))[self.layer]) for part in parts]
        peaks, places = (torch.cat(each) for each in zip(*found, strict=True))
        boxes = [
            field_box(self.field, place, self.subject, self.channel)
            for place in places[:, self.channel].tolist()
        ]
        shown = [in_colours_of(self.subject, picture) for picture in pictures]
        cut = [cut_out(picture, box) for picture, box in zip(shown, boxes, strict=True)]
        return features(self.judge, in_squares(cut)), peaks


def in_squares(pictures: Sequence[Pixels]) -> Tensor:
    """Return pictures as images in white squares, (n, 3, side, side), which judges see whole.

    A judge cuts what has other proportions than its own.
    """
    return padded_to_shape(as_images(pictures), (1, 1), (1.0, 1.0, 1.0))


def _random_pictures(run: Run, size: tuple[int, int]) -> list[Pixels]:
    """Return what the prior makes of random codes."""
    request = run.request
    prior = load_prior(request.prior, run.subject, request.prior_options)
    with torch.no_grad():
        images = torch.cat([prior.images(prior.start(seed)[None]) for seed in range(RANDOM_CODES)])
    return [_resized(to_pixels(image.numpy()), size, run.subject.fit) for image in images]


def _somewhere(pictures: Sequence[Pixels], field: Fields | None, subject: Subject) -> list[Pixels]:
    """Return as much of each as a unit sees, at a place drawn at random.

    That says nothing of any unit of the layer.
    """
    pictures = [in_colours_of(subject, picture) for picture in pictures]
    if field is None:
        whole = field_box(None, (0, 0), subject)
        return [each if whole == (0, 0, 1, 1) else cut_out(each, whole) for each in pictures]
    places = np.random.default_rng(2).integers(
        (len(field.rows), len(field.columns)), size=(len(pictures), 2)
    )
    return [
        cut_out(picture, field_box(field, place, subject))
        for picture, place in zip(pictures, places, strict=True)
    ]


def _resized(picture: Pixels, size: tuple[int, int], fit: str) -> Pixels:
    """Return a picture as large as the photographs beside it, (height, width).

    The finer of the two would be told by that alone. It is cut as the subject would cut it. Or it
    is stretched to a square, and the subject stretches it back. `BadRequest` where the subject
    would put one that is not square into borders.
    """
    whole = Image.fromarray(picture)
    if whole.width != whole.height and fit == "pad":
        raise BadRequest(
            "pictures that are not square are compared with photographs that are cut or stretched; "
            "these were made with --fit pad"
        )
    if fit == "crop":
        return np.asarray(cut_to(whole, size))
    return np.asarray(whole.resize((size[1], size[0]), Image.Resampling.LANCZOS))
