"""C6: object detectors in a scene network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.experiment import Experiment
from phosphene.datasets import Outlined, Stream
from phosphene.images import Pixels
from phosphene.priors import load_generated
from phosphene.statistics import Figure, bootstrap, difference_of_means, paired_difference, share
from phosphene.studies.dissection import DETECTOR, Overlaps, dissect
from phosphene.studies.exemplars import cut_out, field_box, fields_of, find_exemplars
from phosphene.tensors import as_images, center_crop

SUBJECT, LAYER = "caffenet-scenes", "conv5"
CROPS, MIN_AREA, SIZE = 40, 0.02, 128
"""Crops of each object that the classifier learns from, at most; the least share of a photograph
that an object covers; pixels of a photograph."""
MIN_CROPS = 8


def measure(experiment: Experiment) -> Findings:
    """Dissect all units, climb them, and classify the detectors' pictures by object crops."""
    network = experiment.network(SUBJECT)
    every = experiment.every(experiment.outlined, "all")
    data = Outlined(experiment.outlined, "all", network.photograph_size, every)
    experiment.report("C6: dissecting")
    trained, untrained = (
        dissect(experiment.network(name), LAYER, data, device=experiment.device)
        for name in (SUBJECT, f"{SUBJECT}@random")
    )
    channels = experiment.some(len(trained.iou), len(trained.iou), 60)
    shots = experiment.climbed(
        "C6", [f"{LAYER}:{channel}" for channel in channels], subject=SUBJECT
    )
    experiment.report("C6: crops of objects")
    crops = _crops(experiment, trained, channels)
    names = list(crops)
    classify = _Nearest(experiment, {name: each[::2] for name, each in crops.items()})
    right = [
        float(names[i] == name)
        for name, each in crops.items()
        for i in (classify(each[1::2]).tolist() if len(each) > 1 else [])
    ]
    view = load_generated(experiment.prior).view_size
    shown = classify(center_crop(shots.images, view)).tolist()
    natural = _exemplars(experiment, channels)
    units: list[dict[str, Any]] = []
    for i, channel in enumerate(channels):
        (name, iou), *_ = trained.best(channel) or [("", 0.0)]
        chance_iou = (untrained.best(channel) or [("", 0.0)])[0][1]
        unit = {
            "unit": f"{LAYER}:{channel}",
            "object": name,
            "iou": iou,
            "detector": float(iou > DETECTOR),
            "detector_untrained": float(chance_iou > DETECTOR),
        }
        if unit["detector"] and name in crops:
            read = classify(natural[channel]).tolist()
            unit |= {"shows": names[shown[i]], "exemplars_show": [names[each] for each in read]}
        units.append(unit)
    detectors = sorted((u for u in units if u["detector"]), key=lambda unit: -unit["iou"])
    rows = [
        {key: unit.get(key, "") for key in ("unit", "object", "iou", "shows")} for unit in detectors
    ]
    findings = numbers(units, CLAIM.level)
    findings["classifier"] = share(
        right, note=f"right on crops that it did not learn from, {len(names)} objects"
    )
    found = {
        "detectors": len(detectors),
        "of units": len(units),
        "objects": len({unit["object"] for unit in detectors}),
    }
    order = [channels.index(int(unit["unit"].partition(":")[2])) for unit in detectors]
    pictures = []
    if order:
        best = torch.stack([natural[channels[i]][0] for i in order])
        made = ("pictures of the best detectors", shots.images[order])
        sheet = experiment.row("C6", [made, ("their best photographs", best)])
        caption = ", ".join(f"{unit['unit']} {unit['object']}" for unit in detectors[:12])
        pictures.append((caption, sheet))
    return Findings(findings, rows, units, pictures, found)


def numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Return figures over units, which have `detector` and `detector_untrained` (0 or 1).

    A detector whose object has crops also has `object`, `shows` and `exemplars_show`. Chance is how
    often another detector has the object that this picture shows.
    """
    judged = [unit for unit in units if "shows" in unit]
    others = max(1, len(judged) - 1)
    chance = [
        sum(other["object"] == unit["shows"] for other in judged if other is not unit) / others
        for unit in judged
    ]
    hits = [float(unit["shows"] == unit["object"]) for unit in judged]
    natural = [
        float(np.mean([name == unit["object"] for name in unit["exemplars_show"]]))
        for unit in judged
    ]
    more: dict[str, list[float]] = {}
    for unit, hit, expected in zip(judged, hits, chance, strict=True):
        more.setdefault(unit["object"], []).append(hit - expected)
    return {
        "emerge": difference_of_means(
            [unit["detector"] for unit in units],
            [unit["detector_untrained"] for unit in units],
            level,
            "share of units that are detectors, trained less untrained",
        ),
        "show it": paired_difference(
            hits, chance, level, "share of detectors' pictures that show their object, less chance"
        ),
        "by object": bootstrap(
            [float(np.mean(each)) for each in more.values()],
            "the same, mean over objects, since detectors of one object may be copies "
            "of each other",
        ),
        "pictures": share(hits, note="share of detectors' pictures that show their object"),
        "exemplars": share(natural, note="the same of their exemplars"),
        "chance": share(chance, note="the same by chance"),
    }


class _Nearest:
    """Find the object whose mean crop is nearest, in the pooled features of the first judge."""

    def __init__(self, experiment: Experiment, crops: Mapping[str, Tensor]):
        self._experiment = experiment
        pooled = [experiment.features(experiment.judges[0], each)[1] for each in crops.values()]
        self._origin = torch.cat(pooled).mean(0)
        self._means = normalize(
            torch.stack([normalize(each - self._origin, dim=1).mean(0) for each in pooled]), dim=1
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the numbers (n,) of objects for images (n, 3, h, w)."""
        pooled = self._experiment.features(self._experiment.judges[0], images)[1]
        return (normalize(pooled - self._origin, dim=1) @ self._means.T).argmax(1)


def _crops(experiment: Experiment, found: Overlaps, channels: Sequence[int]) -> dict[str, Tensor]:
    """Return square crops (n, 3, size, size) of each object that some unit detects."""
    wanted = {
        name for channel in channels for name, iou in found.best(channel)[:1] if iou > DETECTOR
    }
    kept: dict[str, list[Pixels]] = {name: [] for name in sorted(wanted)}
    for pixels, masks in Outlined(experiment.outlined, "all", SIZE).photographs():
        for number, mask in masks.items():
            name = found.objects[number]
            if name in kept and len(kept[name]) < 2 * CROPS and mask.mean() >= MIN_AREA:
                kept[name].append(cut_out(pixels, _around(mask)))
    return {name: as_images(each) for name, each in kept.items() if len(each) >= MIN_CROPS}


def _around(mask: Any) -> tuple[float, float, float, float]:
    """Return the smallest square about a mask, within the photograph.

    It is (top, left, bottom, right), as shares of the photograph's side.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    side = len(mask)
    half = max(rows[-1] - rows[0], columns[-1] - columns[0]) / 2 + 1
    middle = [(each[0] + each[-1]) / 2 for each in (rows, columns)]
    top, left = (min(max(0.0, centre - half), max(0.0, side - 2 * half)) for centre in middle)
    bottom, right = (min(1.0, (edge + 2 * half) / side) for edge in (top, left))
    return top / side, left / side, bottom, right


def _exemplars(experiment: Experiment, channels: Sequence[int]) -> dict[int, Tensor]:
    """Return each channel's exemplars among scene photographs, cut to its receptive field."""
    network = experiment.network(SUBJECT)
    every = experiment.every(experiment.scenes, "train")
    data = Stream(experiment.scenes, "train", network.photograph_size, every)
    experiment.report(f"C6: looking through {data.name}")
    file = experiment.out / "exemplars" / f"{SUBJECT}-{LAYER}-{every}.safetensors"
    found = find_exemplars(network, [LAYER], data, file, device=experiment.device)[LAYER]
    field = fields_of(network, [LAYER]).get(LAYER)
    pictures = {
        n: pixels for n, pixels, _ in data.photographs({n for c in channels for n in found.best(c)})
    }
    cut = {}
    for channel in channels:
        places = found.positions[channel].tolist()
        best = zip(found.best(channel), places, strict=False)
        cut[channel] = as_images(
            [cut_out(pictures[n], field_box(field, place, network)) for n, place in best]
        )
    return cut


CLAIM = Claim(
    "C6",
    "Object detectors in a scene network",
    "In a scene network object detectors emerge in hidden units, and their preferred inputs show "
    "the objects.",
    (
        Expectation("emerge", "more units detect an object than in the same network untrained"),
        Expectation("show it", "a detector's picture shows its object, more often than by chance"),
    ),
    measure,
    (SUBJECT,),
    ("scenes", "outlined"),
)
