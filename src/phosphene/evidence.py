"""A folder of pictures, measured: beside photographs that excite the same units, by a network that took no part."""

from __future__ import annotations

import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phosphene import metrics, records
from phosphene.datasets import Stream, check_apart, places_of, same_names
from phosphene.errors import BadFile, BadRequest
from phosphene.exemplars import Exemplars, cut_out, find_exemplars, find_peaks, seen_box
from phosphene.files import outlet_folder
from phosphene.forms import Evaluation
from phosphene.images import Pixels, to_pixels
from phosphene.metrics import features, judge_channels, kernel_distance, recognised
from phosphene.receptive_fields import Fields, receptive_fields
from phosphene.runs import Request, check_trusted, check_weights, open_parameterization
from phosphene.statistics import Figure, mean, median, share
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import NOT_ABOVE
from phosphene.tensors import as_images, device_of
from phosphene.texts import file_names, slug
from phosphene.units import Unit, is_token

MIN_HELD_OUT = 8
REFERENCES = 9
"""What an observer is shown of each kind, and the pairs that it is asked about; as in Borowski et al. 2021."""
ORDINARY, RANDOM_CODES = 200, 50
"""Photographs drawn at random that stand for photographs in general, and codes for what the prior makes by itself."""

BESIDE = ("exemplars.json", "dissection.json")
"""What other commands leave in a folder of pictures."""
MADE_BY = ("subject", "prior", "prior_file", "bounds", "reading")
"""What all pictures of a folder have in common."""

Rows = dict[int, dict[str, Any]]
"""What is said of a layer's units, by channel."""


@dataclass(frozen=True)
class Picture:
    """One finished picture of one unit."""

    unit: Unit
    seed: int
    score: float
    pixels: Pixels


@dataclass(frozen=True)
class Run:
    """The pictures of lone units in a folder, layer by layer and channel by channel, and what made them."""

    subject: Subject
    request: Request
    layers: dict[str, dict[int, list[Picture]]]

    @classmethod
    def of(cls, folder: Path, trusted: str = "") -> Run:
        """`BadFile` where there are no records, `BadRequest` where none is of a lone unit that was climbed up.

        A subject that is code, `python:…`, is loaded only where it is the `trusted` one.
        """
        files = sorted(file for file in folder.glob("[!.]*.json") if file.name not in BESIDE)
        if not files:
            raise BadFile(f"{folder} holds no records; make some with phosphene synthesize")
        layers: dict[str, dict[int, list[Picture]]] = defaultdict(lambda: defaultdict(list))
        first: Request | None = None
        made: list[tuple[Path, records.Record]] = []
        for file in files:
            record = records.read(file)
            made.append((file, record))
            request, members, member = Request.from_record(record, file)
            first = first or request
            if any(getattr(request, part) != getattr(first, part) for part in MADE_BY):
                raise BadRequest(
                    f"{folder} holds pictures of several subjects or priors; evaluate one of them at a time"
                )
            ((weight, unit), *others), seed = members[member].target.terms, members[member].seed
            # a climb that failed counts too
            shown = record.status in ("climbed", NOT_ABOVE) and not others and weight == 1
            if shown and isinstance(unit, Unit) and not is_token(unit.position):
                pixels = records.Folder(folder).picture(record)
                layers[unit.layer][unit.channel].append(Picture(unit, seed, record.score, pixels))
        if not layers:
            raise BadRequest(
                f"{folder} holds no picture of a lone unit, so there is nothing to compare it with"
            )
        named = f"phosphene evaluate {shlex.quote(str(folder))} --subject {shlex.quote(request.subject)}"
        check_trusted(request.subject, trusted, files[0], named)
        subject, prior = request.loaded()
        for file, record in made:
            check_weights(record, subject, prior, file)
        for layer, channels in layers.items():
            subject.targets(
                f"{layer}:{max(channels)}"
            )  # a record comes from outside: its units must exist
        return cls(subject, request, {layer: dict(channels) for layer, channels in layers.items()})


@dataclass(frozen=True)
class Nature:
    """Photographs to compare with: what excites the units, in those seen in one pass and in those held out."""

    exemplars: dict[str, Exemplars]
    held_out: dict[str, Exemplars]
    seen: Stream
    unseen: Stream
    fields: dict[str, Fields]
    ordinary: list[int]
    """Held-out photographs drawn at random, by number."""

    @classmethod
    def of(
        cls,
        subject: Subject,
        layers: Sequence[str],
        images: str,
        every: int,
        folder: Path,
        device: str,
        report: Callable[[], None],
    ) -> Nature:
        """Looks at one photograph in `every` once, and keeps what was found in the folder."""
        seen, unseen = (
            Stream(images, split, max(subject.size), every) for split in ("train", "val")
        )
        exemplars, held_out = (
            find_exemplars(
                subject, layers, data, folder / name, device=device, report=lambda done: report()
            )
            for data, name in ((seen, "exemplars.safetensors"), (unseen, "held-out.safetensors"))
        )
        if (there := held_out[layers[0]].seen) < MIN_HELD_OUT:
            raise BadRequest(
                f"{unseen.name} holds out {there} photographs; at least {MIN_HELD_OUT} are needed"
            )
        known = held_out[layers[0]].whole
        chosen = np.random.default_rng(1).permutation(there)[:ORDINARY].tolist()
        ordinary = [known[number] for number in chosen]
        fields = receptive_fields(
            subject.network, subject.size, layers, subject.batch or 32, subject.tokens
        )
        return cls(exemplars, held_out, seen, unseen, fields, ordinary)

    def pairs(self, layer: str, channel: int) -> tuple[list[int], list[int]]:
        """Held-out photographs that excite a channel most, and as many drawn from the half that excites it less."""
        found = self.held_out[layer]
        order = found.sample[:, channel].argsort(descending=True, stable=True)
        n = min(REFERENCES, len(order) // 4)
        lower = order[len(order) // 2 :][
            torch.randperm(len(order) - len(order) // 2, generator=_seeded(channel))
        ]
        return found.best(channel)[:n], found.numbers[lower[:n]].tolist()


def evaluate(
    folders: Sequence[Path],
    judge: str,
    images: str | None = None,
    *,
    control: Path | None = None,
    trusted: str = "",
    photographs: int = 1000,
    every: int = 1,
    index: Path | None = None,
    device: str = "cpu",
    report: Callable[[], None] = lambda: None,
) -> list[list[Evaluation]]:
    """Measure folders made by `synthesize`: of each one evaluation for each layer, kept in its folder `evidence`.

    `judge` names a network that took no part: it recognises classes, and its features are what distances are taken
    in. With `images` (a folder of photographs with a split to look through and one held out; one in `every` is looked
    at) the pictures are compared with what excites the same units there; with `control`, a folder of the same units
    climbed on the randomised subject, with what the prior draws when nobody asks. What excites the units most is kept
    in `index`. The folders are of one subject: photographs beside a unit are looked at once for all of them.
    """
    if images:
        kernel_distance()
    runs, observer = [Run.of(folder, trusted) for folder in folders], load_subject(judge)
    subject = runs[0].subject
    if other := sorted({run.subject.name for run in runs} - {subject.name}):
        raise BadRequest(
            f"pictures of {subject.name} and of {', '.join(other)}; one subject at a time"
        )
    subject.network.to(device)
    observer.network.to(device)
    controls = Run.of(control, trusted).layers if control is not None else {}
    _check_control(control, controls, runs)
    index = folders[0] / "evidence" if index is None else index
    layers = list(dict.fromkeys(layer for run in runs for layer in run.layers))
    for each in (index, *(folder / "evidence" for folder in folders)):
        outlet_folder(each)
    if images:
        check_apart(index, images)
    files = dict(zip(layers, file_names([slug(layer) for layer in layers]), strict=True))
    nature = Nature.of(subject, layers, images, every, index, device, report) if images else None
    named = subject.output if subject.classes else ""
    try:
        judge_channels(observer, subject.classes)
    except BadRequest as error:
        if nature is None:
            raise BadRequest(
                f"{error}; give a --judge that knows them, or --images to compare with"
            ) from None
        named = ""  # it cannot name them; it compares all the same
    for folder, run in zip(folders, runs, strict=True):
        if nature is None and named not in run.layers:
            raise BadRequest(
                f"{folder} holds no picture of a lone output unit, so no class can be recognised; --images "
                "compares hidden units with photographs"
            )
    comparison = _Comparison.of(runs, subject, observer, nature) if nature is not None else None
    found: list[dict[str, Evaluation]] = [{} for _ in runs]
    for layer in layers:
        rows = [_rows(subject, layer, run.layers.get(layer, {})) for run in runs]
        compared = (
            comparison(layer, rows, controls.get(layer, {}), report)
            if comparison
            else [{} for _ in runs]
        )
        for folder, run, own, figures, mine in zip(
            folders, runs, rows, compared, found, strict=True
        ):
            if own:
                if layer == named:
                    figures = _recognition(run, observer, own, nature, photographs) | figures
                data = nature.seen.name if nature else ""
                mine[layer] = Evaluation(
                    subject=subject.name,
                    subject_sha256=subject.identity,
                    layer=layer,
                    judge=observer.name,
                    data=data,
                    figures=figures,
                    units=list(own.values()),
                )
                name = f"evaluation-{slug(observer.name)}-{files[layer]}.json"
                mine[layer].write(folder / "evidence" / name)
    return [[mine[layer] for layer in run.layers] for run, mine in zip(runs, found, strict=True)]


def _check_control(
    control: Path | None, controls: dict[str, dict[int, list[Picture]]], runs: Sequence[Run]
) -> None:
    """Refuse a control that has none of the units, for nothing would be compared with it."""
    own = {(layer, c) for run in runs for layer, units in run.layers.items() for c in units}
    if control is not None and not own & {
        (layer, c) for layer in controls for c in controls[layer]
    }:
        raise BadRequest(f"{control} holds no picture of a unit that is evaluated")


def _recognition(
    run: Run,
    judge: Subject,
    rows: Rows,
    nature: Nature | None,
    photographs: int,
) -> dict[str, Figure]:
    """Does the judge name the class of the pictures, as it does of photographs?"""
    pictures = [picture for each in run.layers[run.subject.output].values() for picture in each]
    named = judge_channels(judge, run.subject.classes)
    labels = torch.tensor([picture.unit.channel for picture in pictures])
    hits = recognised(judge, as_images([picture.pixels for picture in pictures]), labels, named)
    for channel, row in rows.items():
        row["recognised_top1"], row["recognised_top5"] = hits[labels == channel].mean(0).tolist()
    note = f"by {judge.name} among {len(named):,} classes"
    figures = {
        key: share([row[key] for row in rows.values()], note)
        for key in ("recognised_top1", "recognised_top5")
    }
    if nature is not None and same_names(nature.unseen.classes, run.subject.classes):
        pixels, classes = _known(run.subject, nature, photographs)
        if not pixels:
            return figures
        hits = recognised(judge, as_images(pixels), torch.tensor(classes), named)
        note = f"{note}, photographs held out"
        figures |= {
            f"natural_top{n}": share(hits[:, i].tolist(), note) for i, n in enumerate((1, 5))
        }
    return figures


def _known(subject: Subject, nature: Nature, most: int) -> tuple[list[Pixels], list[int]]:
    """Return held-out photographs drawn at random, and which output unit is of each one's class."""
    known = next(iter(nature.held_out.values())).whole
    chosen = np.random.default_rng(0).permutation(len(known))[:most]
    channels = places_of(nature.unseen.classes, subject.classes)
    pictures, found = [], []
    for _, pixels, label in nature.unseen.photographs({known[number] for number in chosen}):
        if label >= 0 and (channel := channels[label]) is not None:
            pictures.append(pixels)
            found.append(channel)
    return pictures, found


@dataclass(frozen=True)
class _Comparison:
    """Every unit's pictures, of several runs, beside its exemplars, held-out photographs, and what each prior draws."""

    runs: Sequence[Run]
    subject: Subject
    judge: Subject
    nature: Nature
    ordinary: list[Pixels]
    priors: list[list[Pixels]]

    @classmethod
    def of(
        cls, runs: Sequence[Run], subject: Subject, judge: Subject, nature: Nature
    ) -> _Comparison:
        """With what is the same for all units: ordinary photographs, and images of random codes."""
        photographs = {
            n: pixels for n, pixels, _ in nature.unseen.photographs(set(nature.ordinary))
        }
        ordinary = [photographs[n] for n in nature.ordinary]
        return cls(
            runs,
            subject,
            judge,
            nature,
            ordinary,
            [_random_pictures(run, nature.seen.size) for run in runs],
        )

    def __call__(
        self,
        layer: str,
        rows: Sequence[Rows],
        controls: dict[int, list[Picture]],
        report: Callable[[], None],
    ) -> list[dict[str, Figure]]:
        """Fill in each run's rows of a layer's units, and return its figures."""
        found, size = self.nature.exemplars[layer], self.nature.seen.size
        channels = list(dict.fromkeys(channel for own in rows for channel in own))
        photographs, field = (
            _Photographs(self.nature, layer, channels),
            self.nature.fields.get(layer),
        )
        ordinary, *priors = (
            features(self.judge, as_images(_somewhere(pictures, field, self.subject.size)))
            for pictures in (self.ordinary, *self.priors)
        )
        pooled: list[dict[str, list[Tensor]]] = [{"pictures": [], "exemplars": []} for _ in rows]
        for channel in channels:
            look = _Look(self.subject, self.judge, layer, channel, field)
            natural, ranked = look([photographs.seen[n] for n in found.best(channel)[:REFERENCES]])
            strong, weak = (
                look([photographs.unseen[n] for n in part])[0]
                for part in self.nature.pairs(layer, channel)
            )
            beside = _Beside(found, channel, natural, ranked, strong[0], weak[0], ordinary)
            if channel in controls:
                beside.control, _ = look(
                    [_resized(picture.pixels, size) for picture in controls[channel]]
                )
            for run, own, prior, kept in zip(self.runs, rows, priors, pooled, strict=True):
                if channel in own:
                    pictures = run.layers[layer][channel]
                    made, peaks = look([_resized(picture.pixels, size) for picture in pictures])
                    own[channel] |= beside.compared(
                        max(picture.score for picture in pictures), made, peaks, prior
                    )
                    kept["pictures"].append(made[1])
                    kept["exemplars"].append(natural[1])
                    report()
        return [
            _figures(own, kept, ordinary[1], found.seen, self.judge.name) if own else {}
            for own, kept in zip(rows, pooled, strict=True)
        ]


@dataclass
class _Beside:
    """What pictures of one unit are compared with, as the judge sees it (see `features`)."""

    found: Exemplars
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
        """The figures of one run's pictures of the unit: their best score, features, all channels' peaks, and the
        features of what the run's prior draws."""
        sample, origin = self.found.sample, self.ordinary[1].mean(0)
        row: dict[str, Any] = {
            "score": score,
            "natural_score": float(self.found.values[self.channel, 0]),
        }
        row["activation_ratio"] = metrics.activation_ratio(score, row["natural_score"])
        row["selectivity"] = float(metrics.ranks(peaks, self.channel, sample).float().mean())
        row["exemplar_selectivity"] = float(
            metrics.ranks(self.ranked, self.channel, sample).float().mean()
        )
        row["diversity"] = metrics.diversity(made[0])
        row["exemplar_diversity"] = metrics.diversity(self.natural[0])
        some = torch.randperm(len(self.ordinary[0]), generator=_seeded(self.channel))
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


def _rows(subject: Subject, layer: str, channels: Iterable[int]) -> Rows:
    """A row for each unit, which says what it is."""
    return {
        c: {"unit": f"{layer}:{c}", "label": subject.targets(f"{layer}:{c}")[0].label}
        for c in channels
    }


def _figures(
    rows: Rows, pooled: dict[str, list[Tensor]], ordinary: Tensor, seen: int, judge: str
) -> dict[str, Figure]:
    """The rows' figures over all units."""

    def values(key: str) -> list[float]:
        return [row.get(key, math.nan) for row in rows.values()]

    over = f"best of {seen:,} photographs"
    ratios, ranked = values("activation_ratio"), ("selectivity", "exemplar_selectivity")
    figures = {
        "activation_ratio": median(ratios, f"median; {over}"),
        "activation_ratio_above_1": share(
            [float(ratio > 1) for ratio in ratios if math.isfinite(ratio)], over
        ),
        **{key: median(values(key), "median rank among the layer's units") for key in ranked},
        **{
            f"{key}_first": share([float(v == 1) for v in values(key)], "share of first ranks")
            for key in ranked
        },
    }
    in_features = f"in features of {judge}"
    for key in ("two_afc_synthetic", "two_afc_natural", "two_afc_none"):
        figures[key] = mean(values(key), f"share right; {in_features}")
    shares = ("prior_share", "prior_share_random_codes")
    apart = ("distance_exemplars", "distance_control", "distance_random_codes")
    for key in ("diversity", "exemplar_diversity", *shares, *apart):
        figures[key] = mean(values(key), in_features)
    made, natural = (torch.cat(pooled[kind]) for kind in ("pictures", "exemplars"))
    figures["kid"] = metrics.kid(made, natural, f"pictures and exemplars, {in_features}")
    figures["kid_photographs"] = metrics.kid(
        ordinary, natural, f"other photographs and exemplars, {in_features}"
    )
    return {key: figure for key, figure in figures.items() if figure.n}


class _Photographs:
    """The photographs that one layer's comparison needs, in memory for as long as it takes."""

    def __init__(self, nature: Nature, layer: str, channels: Sequence[int]):
        best = {
            n for channel in channels for n in nature.exemplars[layer].best(channel)[:REFERENCES]
        }
        asked = {n for channel in channels for part in nature.pairs(layer, channel) for n in part}
        self.seen = {n: pixels for n, pixels, _ in nature.seen.photographs(best)}
        self.unseen = {n: pixels for n, pixels, _ in nature.unseen.photographs(asked)}


@dataclass(frozen=True)
class _Look:
    """Looks at pictures as one unit does: only what it sees of them, where it answers most, goes to the judge."""

    subject: Subject
    judge: Subject
    layer: str
    channel: int
    field: Fields | None

    def __call__(self, pictures: Sequence[Pixels]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The judge's features (see `features`) of what the unit sees, and all channels' peaks (n, channels)."""
        device = device_of(self.subject.network)
        with self.subject.reading([self.layer]) as read, torch.no_grad():
            parts = as_images(pictures).to(device).split(self.subject.at_most(len(pictures)))
            found = [find_peaks(read(self.subject.prepare(part))[self.layer]) for part in parts]
        peaks, places = (torch.cat(each) for each in zip(*found, strict=True))
        boxes = [
            seen_box(self.field, place, self.subject.size)
            for place in places[:, self.channel].tolist()
        ]
        cut = [cut_out(picture, box) for picture, box in zip(pictures, boxes, strict=True)]
        return features(self.judge, as_images(cut)), peaks


def _random_pictures(run: Run, size: int) -> list[Pixels]:
    """What the prior makes of random codes."""
    request = run.request
    prior = open_parameterization(request.prior, run.subject, request.prior_file, request.bounds)
    with torch.no_grad():
        images = torch.cat([prior.images(prior.start(seed)[None]) for seed in range(RANDOM_CODES)])
    return [_resized(to_pixels(image.numpy()), size) for image in images]


def _somewhere(
    pictures: Sequence[Pixels], field: Fields | None, size: tuple[int, int]
) -> list[Pixels]:
    """As much of each as a unit sees, at a place drawn at random: what says nothing of any unit of the layer."""
    if field is None:
        return list(pictures)
    places = np.random.default_rng(2).integers(
        (len(field.rows), len(field.columns)), size=(len(pictures), 2)
    )
    return [
        cut_out(picture, seen_box(field, place, size))
        for picture, place in zip(pictures, places, strict=True)
    ]


def _resized(picture: Pixels, size: int) -> Pixels:
    """As large as the photographs beside it: the finer of the two would be told by that alone."""
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
