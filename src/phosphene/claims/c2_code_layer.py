"""C2: which layer's codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from phosphene.claims.claim import Claim, Expectation, Findings, named
from phosphene.claims.experiment import Experiment
from phosphene.metrics import feature_layers
from phosphene.priors import load_generated
from phosphene.statistics import Figure, mean, paired_difference, share
from phosphene.studies.generator import reconstructed

PRIORS = {
    "conv3": "objects-conv3",
    "pool5": "objects-pool5",
    "fc6": "objects-fc6-equal",
    "fc7": "objects-fc7",
}
"""Generators of one encoder's layers, by the same recipe and as long."""
PHOTOGRAPHS = 500


def measure(experiment: Experiment) -> Findings:
    """Encode and decode photographs by each layer's generator, and climb all output units by it."""
    network, layer = experiment.network(experiment.subject), experiment.named
    channels = experiment.some(len(network.classes), 100)
    names = [f"{layer}:{channel}" for channel in channels]
    photographs, labels = experiment.drawn(
        experiment.objects, "val", PHOTOGRAPHS, load_generated(PRIORS["fc6"]).image_size, 20
    )
    seen: list[dict[str, Any]] = [{"photograph": i} for i in range(len(photographs))]
    units: list[dict[str, Any]] = [
        {"unit": name, "label": network.classes[c]} for name, c in zip(names, channels, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    shown, again_shown = [], [("photographs", photographs)]
    for code, prior in PRIORS.items():
        experiment.report(f"C2: photographs through {prior}")
        generated = load_generated(prior).to(experiment.device)
        again = reconstructed(generated, experiment.network(generated.encoder), photographs, labels)
        errors = again.figures["image_error"].tolist()
        cosines = again.figures["code_cosine"].tolist()
        shots = experiment.climbed(f"C2-{code}", names, prior=prior)
        repeats = repetition(experiment, shots.images)
        row: dict[str, Any] = {"code": code, "prior": prior}
        row |= {"image error": mean(errors), "code cosine": mean(cosines)}
        for judge in experiment.judges:
            hits = experiment.named_by(judge, shots.images, channels, network.classes)
            for i, top in enumerate(("top1", "top5")):
                row[f"{top}, {judge}"] = share(hits[:, i].tolist())
            for unit, hit in zip(units, hits.tolist(), strict=True):
                unit.setdefault("named", {}).setdefault(code, []).append(hit)
        for each, error in zip(seen, errors, strict=True):
            each.setdefault("image_error", {})[code] = error
        for unit, score, repeat in zip(units, shots.scores, repeats, strict=True):
            unit.setdefault("activation", {})[code] = score
            unit.setdefault("repetition", {})[code] = repeat
        rows.append({**row, "repetition": mean(repeats), "activation": mean(shots.scores)})
        shown.append((code, shots.images))
        again_shown.append((code, again.reconstructions))
    rows.append({"code": "photographs", "repetition": mean(repetition(experiment, photographs))})
    captions = (
        "Photographs, and what each layer's generator makes of their codes.",
        "Output units climbed through each layer's generator, the first seed.",
    )
    sheets = (experiment.row("C2-reconstructions", again_shown), experiment.row("C2", shown))
    pictures = list(zip(captions, sheets, strict=True))
    return Findings(numbers(units, seen, CLAIM.level), rows, units + seen, pictures)


def numbers(
    units: Sequence[Mapping[str, Any]], seen: Sequence[Mapping[str, Any]], level: float
) -> dict[str, Figure]:
    """Return reconstruction over photographs and recognisability over units, by layer.

    Photographs have `image_error`. Units have `named`: for each layer a list, one for each judge,
    of whether a picture is named first and among five.
    """

    def errors(code: str) -> list[float]:
        return [each["image_error"][code] for each in seen]

    def first(code: str) -> list[float]:
        return [named(unit, code) for unit in units]

    found = {
        f"{code} reconstructs": paired_difference(
            errors("fc6"), errors(code), level, f"image error from fc6 less that from {code}"
        )
        for code in ("conv3", "pool5")
    }
    for code in ("conv3", "pool5"):
        note = f"share named first through fc6 less that through {code}, mean over the judges"
        found[f"over {code}"] = paired_difference(first("fc6"), first(code), level, note)
    found["fc6 over fc7"] = paired_difference(
        first("fc6"), first("fc7"), note="as above, through fc6 less through fc7"
    )
    for code in ("conv3", "pool5"):
        one, other = ([unit["repetition"][each] for unit in units] for each in (code, "fc6"))
        found[f"{code} repeats"] = paired_difference(
            one, other, note=f"repetition through {code} less that through fc6"
        )
    return found


def repetition(experiment: Experiment, images: Tensor) -> list[float]:
    """Return how much of each picture is repeated elsewhere in it.

    It is the largest mean cosine similarity between a bystander's features and the same features
    moved by at least a quarter of the map, each position less the mean of all.
    """
    bystander = experiment.network(experiment.judges[-1])
    layer, found = feature_layers(bystander)[0], []
    with bystander.reading([layer]) as read, torch.no_grad():
        for part in images.split(bystander.at_most(50)):
            maps = read(bystander.prepare(part.to(experiment.device)))[layer].float()
            found += moved_likeness(maps).tolist()
    return found


def moved_likeness(maps: Tensor) -> Tensor:
    """Return (n,) of maps (n, channels, h, w)."""
    maps = normalize(maps - maps.mean((2, 3), keepdim=True), dim=1)
    height, width = maps.shape[2:]
    best = maps.new_full((len(maps),), -1.0)
    for row in range(0, height // 2 + 1):
        for column in range(-(width // 2), width // 2 + 1):
            if max(4 * row, 4 * abs(column)) < min(height, width) or (row == 0 and column <= 0):
                continue
            one = maps[..., row:, max(column, 0) : width + min(column, 0)]
            other = maps[..., : height - row, max(-column, 0) : width + min(-column, 0)]
            best = torch.maximum(best, (one * other).sum(1).mean((1, 2)))
    return best


CLAIM = Claim(
    "C2",
    "Which layer's codes",
    "Codes of fully connected layers, fc6 best, give coherent images; codes of convolutional "
    "layers give repeated fragments, although lower layers reconstruct better.",
    (
        Expectation("conv3 reconstructs", "photographs come back better from conv3 than from fc6"),
        Expectation("pool5 reconstructs", "photographs come back better from pool5 than from fc6"),
        Expectation(
            "over conv3", "judges name pictures climbed through fc6 more often than through conv3"
        ),
        Expectation(
            "over pool5", "judges name pictures climbed through fc6 more often than through pool5"
        ),
    ),
    measure,
    tuple(PRIORS.values()),
)
