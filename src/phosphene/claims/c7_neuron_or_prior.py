"""C7: what the neuron prefers, not what the prior prefers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.experiment import Experiment
from phosphene.claims.linear_probe import LinearProbe
from phosphene.datasets import renumbered
from phosphene.statistics import Figure, bootstrap, mean, paired_difference
from phosphene.subjects import Subject
from phosphene.tensors import as_images, center_crop
from phosphene.training.modified import KINDS, TILES

SUBJECT = "caffenet-modified"
SEEDS = 3
READS_ON = 60
"""Photographs of each class that the linear probe learns from; as many others are its test."""


def measure(experiment: Experiment) -> Findings:
    """Compare twins: units of a class and of its modified copy, in one network.

    The control is the same network untrained.
    """
    control = measure_control(experiment)
    network = experiment.network(SUBJECT)
    seeds = [experiment.seed + i for i in range(SEEDS)]
    units: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    shown: list[tuple[str, Tensor]] = []
    for kind, twins in _twins(network, experiment).items():
        pairs = [(f"{network.output}:{plain}", f"{network.output}:{twin}") for plain, twin in twins]
        made = [
            experiment.climbed(
                f"C7-{kind}-{name}", [pair[i] for pair in pairs], subject=SUBJECT, seeds=seeds
            )
            for i, name in enumerate(("plain", "modified"))
        ]
        classifier, accuracy = _linear_probe(experiment, kind, [plain for plain, _ in twins])
        sides = [center_crop(shots.images, network.size) for shots in made]
        read = [classifier(images).diff(dim=1).view(len(twins), SEEDS) for images in sides]
        plainly, modified = (images.unflatten(0, (len(twins), SEEDS)) for images in sides)
        for i, (plain, _) in enumerate(twins):
            later, earlier = read[1][i][:, None], read[0][i][None]
            auc = float(((later > earlier).float() + (later == earlier).float() / 2).mean())
            name, twin_name = pairs[i]
            unit = {"unit": twin_name, "twin": name, "label": network.classes[plain], "kind": kind}
            measured = MEASURES[kind](plainly[i], modified[i])
            units.append({**unit, "auc": auc, "measure": measured})
        own = [unit for unit in units if unit["kind"] == kind]
        rows.append(
            {
                "modification": kind,
                "classes": len(own),
                "AUC of the reader on pictures": mean([unit["auc"] for unit in own]),
                "right on photographs held out": accuracy,
                "measure": MEASURED[kind],
                "found": mean([unit["measure"] for unit in own]),
            }
        )
        shown += [
            (f"{kind}: {name}", shots.images[::SEEDS])
            for name, shots in zip(("plain", "modified"), made, strict=True)
        ]
    caption = "Units of a class, and of its modified copy, the first seed."
    pictures = [(caption, experiment.row("C7", shown)), *control.pictures]
    found = {**numbers(units, CLAIM.level), **control_numbers(control.units, CLAIM.level)}
    every = units + control.units
    return Findings(found, rows + control.rows, every, pictures, control.settings)


def measure_control(experiment: Experiment) -> Findings:
    """Climb the output units of the subject and of the same network untrained, by one prior."""
    layer, outputs = experiment.named, len(experiment.network(experiment.subject).classes)
    names = [f"{layer}:{channel}" for channel in experiment.some(outputs, 100, 70)]
    trained = experiment.climbed("C7-trained", names)
    untrained = experiment.climbed("C7-untrained", names, subject=_untrained(experiment.subject))
    found = experiment.evaluated(trained, control=untrained)[0][layer]
    kept = ("prior_share", "distance_exemplars", "distance_control", "distance_random_codes")
    units = [
        {"unit": row["unit"], "label": row["label"], **{key: row[key] for key in kept}}
        for row in found.units
    ]
    row = {"control": f"{len(units)} output units", **{key: found.figures[key] for key in kept}}
    sets = [("trained", trained.images), ("untrained", untrained.images)]
    caption = "The same units of the network trained and untrained, the first seed."
    pictures = [(caption, experiment.row("C7-control", sets))]
    return Findings(control_numbers(units, ANY_NETWORK.level), [row], units, pictures)


def numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Return the claim's figures of its units.

    Each unit has `kind` and `auc`: how often the linear probe finds the twin's picture the more
    modified of two.
    """
    return {
        kind: bootstrap(
            [unit["auc"] - 0.5 for unit in units if unit.get("kind") == kind],
            "mean AUC over classes, less one half",
            level,
        )
        for kind in KINDS
    }


def control_numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Return figures over units.

    Each has its picture's distances to its exemplars and to the untrained network's picture.
    """
    far = [unit["distance_control"] for unit in units]
    near = [unit["distance_exemplars"] for unit in units]
    note = "distance to the untrained network's picture, less that to its exemplars"
    return {"control": paired_difference(far, near, level, note)}


def _untrained(subject: str) -> str:
    """Return the name of the same network untrained; a name's @ tells its other weights."""
    return f"{subject if Path(subject).is_file() else subject.partition('@')[0]}@random"


def _twins(network: Subject, experiment: Experiment) -> dict[str, list[tuple[int, int]]]:
    """Return (channel of a class, channel of its copy) for each kind of modification.

    In a quick run there are two of each kind.
    """
    plain = {name: channel for channel, name in enumerate(network.classes)}
    found = {
        kind: [
            (plain[name.removesuffix(f" ({kind})")], c)
            for name, c in plain.items()
            if name.endswith(f" ({kind})")
        ]
        for kind in KINDS
    }
    return {
        kind: [pairs[i] for i in experiment.some(len(pairs), len(pairs), 71)]
        for kind, pairs in found.items()
    }


def _linear_probe(
    experiment: Experiment, kind: str, classes: Sequence[int]
) -> tuple[LinearProbe, Figure]:
    """Return a probe that tells photographs (0) from modified ones (1), and its accuracy."""
    network = experiment.network(SUBJECT)
    data = experiment.photographs(experiment.objects, "val")
    data = renumbered(data, network.classes, network.name)
    places = [np.flatnonzero(data.labels == label) for label in classes]
    sets = []
    for i in range(2):
        part = np.concatenate([each[i * READS_ON : (i + 1) * READS_ON] for each in places])
        modified = np.stack([KINDS[kind](data.images[place], int(place)) for place in part])
        images = as_images(np.concatenate([data.images[part], modified]))
        sets.append((images, torch.arange(2).repeat_interleave(len(part))))
    classifier = LinearProbe.of(experiment.network(experiment.judges[-1]), *sets[0])
    return classifier, classifier.right(*sets[1])


def _turned_hue(plain: Tensor, modified: Tensor) -> float:
    """Return how far the mean hue turned as the channels did: 1 for all of it, −0.5 for none."""
    third = torch.polar(torch.ones(3), 2 * math.pi / 3 * torch.arange(3.0))
    hues = [(images.mean((0, 2, 3)) * third).sum() for images in (plain, modified)]
    return math.cos(float((hues[1] * hues[0].conj()).angle()) - 2 * math.pi / 3)


def _sharpness(images: Tensor) -> Tensor:
    """Return (n,) how much of each image's contrast its finest details have.

    It is the standard deviation about the mean of 3 × 3 pixels, over that of all pixels.
    """
    grey = images.mean(1, keepdim=True)
    fine = grey[..., 1:-1, 1:-1] - avg_pool2d(grey, 3, 1)
    return fine.flatten(1).std(1) / grey.flatten(1).std(1).clamp(min=1e-6)


def _seams(images: Tensor) -> Tensor:
    """Return (n,) the mean difference of neighbours across lines of tiles, over that elsewhere."""
    side = images.shape[-1] // TILES
    columns, rows = (images.diff(dim=axis).abs().mean((1, 5 - axis)) for axis in (3, 2))
    lines = torch.zeros(images.shape[-1] - 1, dtype=torch.bool)
    lines[side - 1 :: side] = True
    across, elsewhere = (
        torch.cat([columns[:, chosen], rows[:, chosen]], 1).mean(1) for chosen in (lines, ~lines)
    )
    return across / elsewhere.clamp(min=1e-6)


def _more(measure: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], float]:
    """Return a function: how much larger a measure is on the modified images."""
    return lambda plain, modified: float(measure(modified).mean() - measure(plain).mean())


MEASURES = {"brg": _turned_hue, "blurred": _more(_sharpness), "tiled": _more(_seams)}
MEASURED = {
    "brg": "hue turned as the channels were, 1 for all and -0.5 for not at all",
    "blurred": "sharpness, modified less plain",
    "tiled": "edges at the tiles' lines, modified less plain",
}

READS = (
    "a classifier that learnt from photographs finds the picture of the modified twin the more "
    "modified"
)
NOT_THE_PRIOR = Expectation(
    "control",
    "a picture is nearer to its unit's photographs than to what the untrained network yields",
)
CLAIM = Claim(
    "C7",
    "The neuron or the prior?",
    "The images show what the neuron prefers, not what the prior prefers.",
    (
        Expectation("brg", f"red, green and blue permuted: {READS}"),
        Expectation("blurred", f"blurred: {READS}"),
        Expectation("tiled", f"tiles shuffled: {READS}"),
        NOT_THE_PRIOR,
    ),
    measure,
    (SUBJECT,),
)
ANY_NETWORK = Claim("C7", CLAIM.title, CLAIM.says, (NOT_THE_PRIOR,), measure_control)
"""The part of the claim that any network can be asked."""
