"""C5: hidden units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.claims.claim import Claim, Expectation, Findings, gain
from phosphene.claims.lab import Lab
from phosphene.evaluation import Figure, mean, median
from phosphene.subjects import outer_layers

EACH, MOST_LAYERS = 50, 8
"""Units of a layer, and layers."""
ARMS = ("generator", "Fourier")
KEPT = ("activation_ratio", "two_afc_synthetic", "two_afc_natural", "two_afc_none", "selectivity")


def measure(lab: Lab) -> Findings:
    """Units at random of every layer, through the generator and through Fourier, beside natural references."""
    shapes = {name: shape for name, shape in outer_layers(lab.network(lab.subject).shapes()).items() if shape}
    layers = [
        list(shapes)[i * len(shapes) // min(MOST_LAYERS, len(shapes))] for i in range(min(MOST_LAYERS, len(shapes)))
    ]
    names = [
        f"{layer}:{channel}" for i, layer in enumerate(layers) for channel in lab.some(shapes[layer][0], EACH, 50 + i)
    ]
    shots = {
        "generator": lab.climbed("C5-generator", names),
        "Fourier": lab.climbed("C5-fourier", names, prior="fourier", steps=200),
    }
    units: dict[str, dict[str, Any]] = {}
    for arm, made in shots.items():
        for layer, found in lab.evaluated(made).items():
            for measured in found.units:
                unit = units.setdefault(measured["unit"], {"unit": measured["unit"], "layer": layer})
                unit[arm] = {key: measured[key] for key in KEPT}
    rows = []
    for layer in layers:
        own = [unit for unit in units.values() if unit["layer"] == layer and set(ARMS) <= unit.keys()]
        row: dict[str, Any] = {"layer": layer, "units": len(own)}
        for arm in ARMS:
            row |= {f"{key}, {arm}": mean([unit[arm][key] for unit in own]) for key in KEPT if "afc" not in key}
            row[f"choice, {arm}"] = mean([unit[arm]["two_afc_synthetic"] for unit in own])
        row["choice, photographs"] = mean([unit["generator"]["two_afc_natural"] for unit in own])
        row["choice, nothing"] = mean([unit["generator"]["two_afc_none"] for unit in own])
        rows.append(row)
    pictures = []
    for arm, made in shots.items():
        first = {layer: [i for i, name in enumerate(names) if name.startswith(f"{layer}:")] for layer in layers}
        sheet = lab.row(f"C5-{arm.lower()}", [(layer, made.images[numbers]) for layer, numbers in first.items()], 10)
        pictures.append((f"Units of each layer, drawn at random: {arm}.", sheet))
    whole = [unit for unit in units.values() if set(ARMS) <= unit.keys()]
    return Findings(numbers(whole, layers[-1], CLAIM.level), rows, whole, pictures)


def numbers(units: Sequence[Mapping[str, Any]], output: str, level: float) -> dict[str, Figure]:
    """Over the units of all layers but `output`; each has `layer`, and for each arm the figures of `KEPT`."""
    hidden = [unit for unit in units if unit["layer"] != output]

    def values(arm: str, key: str) -> list[float]:
        return [unit[arm][key] for unit in hidden]

    right, none, other = (
        values("generator", "two_afc_synthetic"),
        values("generator", "two_afc_none"),
        values("Fourier", "two_afc_synthetic"),
    )
    return {
        "excites": median(
            [ratio - 1 for ratio in values("generator", "activation_ratio")],
            "median activation ratio to the best photograph, less 1",
            level,
        ),
        "informs": gain(right, none, level, "share right by the picture, less that by photographs at random"),
        "beats Fourier": gain(right, other, level, "share right by the generator's picture, less that by Fourier's"),
    }


CLAIM = Claim(
    "C5",
    "Hidden units too",
    "The method shows what hidden units prefer, in realistic colours and textures.",
    (
        Expectation("excites", "a hidden unit's picture excites it more than the best photograph does"),
        Expectation("informs", "the picture tells an observer which of two photographs excites the unit more"),
        Expectation("beats Fourier", "and tells it better than a picture without a learned prior"),
    ),
    measure,
)
