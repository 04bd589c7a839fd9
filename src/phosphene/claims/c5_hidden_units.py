"""C5: hidden units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.experiment import Experiment
from phosphene.probe import find_layer
from phosphene.statistics import Figure, bootstrap, mean, median, paired_difference
from phosphene.subjects import Subject, outer_layers

EACH, MAX_LAYERS = 50, 8
"""Units of a layer, and layers."""
FEW_LAYERS = 4
ARMS = ("generator", "Fourier")
KEPT = ("activation_ratio", "two_afc_synthetic", "two_afc_natural", "two_afc_none", "selectivity")
TOLD = {
    "activation_ratio": "activation over the best photograph's",
    "selectivity": "rank",
    "two_afc_synthetic": "choice",
}
"""Figures of an arm in the table, and what they are called there."""
GUESSED = 0.5
"""How often an observer is right who is shown nothing.

Shown photographs at random it is right less often: of two, it takes the one that is more usual, and
that is the weaker.
"""
NOTHING = {**dict.fromkeys(KEPT, math.nan), "activation_ratio": 0.0, "two_afc_synthetic": GUESSED}
"""The score of a unit that no climb of an arm could excite: an observer can only guess."""


def measure(experiment: Experiment) -> Findings:
    """Climb random units of every layer by generator and by Fourier, with natural references."""
    network = experiment.network(experiment.subject)
    layers, shapes = _layers(network), network.shapes()
    names = [
        f"{layer}:{channel}"
        for i, layer in enumerate(layers)
        for channel in experiment.some(shapes[layer][0], EACH, 50 + i)
    ]
    shots = {
        "generator": experiment.climbed("C5-generator", names),
        "Fourier": experiment.climbed("C5-fourier", names, prior="fourier", steps=200),
    }
    found = {
        name: {"unit": name, "layer": name.partition(":")[0], **dict.fromkeys(ARMS, NOTHING)}
        for name in names
    }
    for arm, evaluations in zip(shots, experiment.evaluated(*shots.values()), strict=True):
        for evaluation in evaluations.values():
            for measured in evaluation.units:
                found[measured["unit"]][arm] = {key: measured[key] for key in KEPT}
    units: list[dict[str, Any]] = list(found.values())
    rows = []
    for layer in layers:
        own = [unit for unit in units if unit["layer"] == layer]
        row: dict[str, Any] = {"layer": layer, "units": len(own)}
        for arm in ARMS:
            row[f"no picture, {arm}"] = sum(unit[arm] is NOTHING for unit in own)
            for key, name in TOLD.items():
                row[f"{name}, {arm}"] = mean([unit[arm][key] for unit in own])
        row["choice, photographs"] = mean([unit["generator"]["two_afc_natural"] for unit in own])
        row["choice, nothing"] = mean([unit["generator"]["two_afc_none"] for unit in own])
        rows.append(row)
    pictures = []
    for arm, made in shots.items():
        first = {
            layer: [i for i, name in enumerate(names) if name.startswith(f"{layer}:")]
            for layer in layers
        }
        sheet = experiment.row(
            f"C5-{arm.lower()}", [(layer, made.images[some]) for layer, some in first.items()], 10
        )
        pictures.append((f"Units of each layer, drawn at random: {arm}.", sheet))
    return Findings(numbers(units, network.output, CLAIM.level), rows, units, pictures)


def _layers(subject: Subject) -> list[str]:
    """Return layers with weights, evenly spread if there are many.

    They are the outermost, or where these are few the layers within them.
    """
    outer = [name for name, shape in outer_layers(subject.shapes()).items() if shape]
    weighted = [
        name for name in outer if any(True for _ in find_layer(subject.network, name).parameters())
    ]
    top = [name for name in weighted if "." not in name]
    chosen = top if len(top) >= FEW_LAYERS else weighted
    last = len(chosen) - 1
    if last < MAX_LAYERS:
        return chosen
    return [chosen[round(i * last / (MAX_LAYERS - 1))] for i in range(MAX_LAYERS)]


def numbers(units: Sequence[Mapping[str, Any]], output: str, level: float) -> dict[str, Figure]:
    """Return figures over the units of all layers but `output`.

    Each unit has `layer`, and for each arm the figures of `KEPT`.
    """
    hidden = [unit for unit in units if unit["layer"] != output]

    def values(arm: str, key: str) -> list[float]:
        return [unit[arm][key] for unit in hidden]

    right, other = (values(arm, "two_afc_synthetic") for arm in ARMS)
    return {
        "excites": median(
            [ratio - 1 for ratio in values("generator", "activation_ratio")],
            "median activation ratio to the best photograph, less 1",
            level,
        ),
        "informs": bootstrap(
            [each - GUESSED for each in right], "share right by the picture, less one half", level
        ),
        "beats Fourier": paired_difference(
            right, other, level, "share right by the generator's picture, less that by Fourier's"
        ),
    }


CLAIM = Claim(
    "C5",
    "Hidden units too",
    "The method shows what hidden units prefer, in realistic colours and textures.",
    (
        Expectation(
            "excites", "a hidden unit's picture excites it more than the best photograph does"
        ),
        Expectation(
            "informs",
            "the picture tells an observer which of two photographs excites the unit more",
        ),
        Expectation("beats Fourier", "and tells it better than a picture without a learned prior"),
    ),
    measure,
)
ANY_NETWORK = CLAIM
