"""C1: a learned prior against hand-designed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import metrics, statistics
from phosphene.claims.claim import Claim, Expectation, Findings, named
from phosphene.claims.experiment import Experiment, Shots
from phosphene.datasets import same_names
from phosphene.statistics import Figure, paired_difference

STEPS, PHOTOGRAPHS = 200, 1000
TUNED_ON = 10
"""Units on which each arm is tuned; none of them is tested."""
TUNED_WITH = "resnet18-objects"
"""Arms are tuned on output units of this network where the subject is the default.

All output units of the default subject are tested.
"""

Settings = dict[str, Any]
ARMS: dict[str, tuple[str, list[Settings]]] = {
    "generator": (
        "",
        [{"decay": d, "rate": r} for d, r in product((0.96, 0.98, 0.99), (0.1, 0.2))],
    ),
    "pixels, L2": (
        "pixels",
        [
            {"decay": d, "rate": r, "tv": 0.0, "blur": 0.0, "shift": 0}
            for d, r in product((0.97, 0.99, 0.999), (0.05, 0.2))
        ],
    ),
    "pixels, total variation": (
        "pixels",
        [
            {"tv": t, "rate": r, "blur": 0.0, "shift": 0}
            for t, r in product((0.5, 2.0, 8.0), (0.05, 0.2))
        ],
    ),
    "pixels, blur and jitter": (
        "pixels",
        [
            {"blur": b, "shift": s, "tv": 0.0, "rate": 0.1}
            for b, s in product((0.5, 1.0, 2.0), (2, 6))
        ],
    ),
    "Fourier, jitter": (
        "fourier",
        [{"shift": s, "rate": r} for s, r in product((0, 2, 6), (0.03, 0.1))],
    ),
}
"""The prior of each arm, and the six settings among which it is tuned.

"" stands for the experiment's generator.
"""
GENERATOR, *BASELINES = ARMS


def measure(experiment: Experiment) -> Findings:
    """Climb all output units through every arm.

    Every arm has equally many steps and the settings that were best for it on ten other units.
    """
    classes, layer = experiment.network(experiment.subject).classes, experiment.named
    tested, tuner, others = _units(experiment)
    others = others[:1] if experiment.quick else others
    names = [f"{layer}:{channel}" for channel in tested]
    chosen: dict[str, Settings] = {}
    arms: dict[str, Shots] = {}
    for arm, (prior, every) in ARMS.items():
        grid = experiment.few(every)
        scores = [
            _tuning_score(experiment, arm, i, prior, each, tuner, others)
            for i, each in enumerate(grid)
        ]
        chosen[arm] = grid[max(range(len(grid)), key=scores.__getitem__)]
        arms[arm] = experiment.climbed(
            f"C1-{_short(arm)}", names, prior=prior, steps=STEPS, **chosen[arm]
        )
    same = same_names(experiment.photographs(experiment.objects, "val").classes, classes)
    size = max(experiment.network(experiment.subject).size)
    natural, labels = experiment.drawn(
        experiment.objects, "val", PHOTOGRAPHS, size, 2, classes if same else ()
    )
    real = {judge: experiment.features(judge, natural)[1] for judge in experiment.judges}
    units: list[dict[str, Any]] = [
        {"unit": name, "label": classes[c]} for name, c in zip(names, tested, strict=True)
    ]
    rows: list[dict[str, Any]] = []
    for arm, shots in arms.items():
        row: dict[str, Any] = {"prior": arm, "settings": chosen[arm]}
        for judge in experiment.judges:
            experiment.report(f"C1: {judge} looks at {arm}")
            hits = experiment.named_by(judge, shots.images, tested, classes)
            made = experiment.features(judge, shots.images)[1]
            note = f"to {len(natural):,} photographs, features of {judge}"
            row[f"KID, {judge}"] = metrics.kid(made, real[judge], note)
            for i, top in enumerate(("top1", "top5")):
                row[f"{top}, {judge}"] = statistics.share(hits[:, i].tolist(), f"by {judge}")
            nearest = metrics.nearest(made, real[judge])
            for unit, hit, far in zip(units, hits.tolist(), nearest, strict=True):
                unit.setdefault("named", {}).setdefault(arm, []).append(hit)
                unit.setdefault("far", {}).setdefault(arm, []).append(far)
        for unit, score in zip(units, shots.scores, strict=True):
            unit.setdefault("activation", {})[arm] = score
        row["to the nearest photograph"] = statistics.mean(
            [fmean(unit["far"][arm]) for unit in units]
        )
        row["activation"] = statistics.median(shots.scores)
        rows.append(row)
    if same:
        rows.append(_photographs(experiment, natural, labels.tolist(), real, classes))
    picture = experiment.row("C1", [(arm, shots.images) for arm, shots in arms.items()])
    pictures = [("The first twelve of the units, the first seed.", picture)]
    tuned = {"tuned on": f"{len(others)} of the output units of {tuner}", "chosen": chosen}
    found = numbers(units, CLAIM.level)
    return Findings(found, rows, units, pictures, {**tuned, "photographs": len(natural)})


def _photographs(
    experiment: Experiment,
    natural: Tensor,
    labels: Sequence[int],
    real: Mapping[str, Tensor],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return the row of the table for photographs of the same classes."""
    row: dict[str, Any] = {"prior": "photographs"}
    apart = []
    for judge in experiment.judges:
        apart.append(metrics.nearest(*real[judge].chunk(2)))
        hits = experiment.named_by(judge, natural, labels, classes)
        for i, top in enumerate(("top1", "top5")):
            row[f"{top}, {judge}"] = statistics.share(hits[:, i].tolist())
    mean = np.mean(apart, 0).tolist()
    return row | {"to the nearest photograph": statistics.mean(mean, "of half as many")}


def numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Return how the generator's pictures compare with each baseline's, over all judges.

    The figures say how much more often its picture of a unit is named first, and how much nearer it
    is to a photograph. Each unit has for each arm two lists with one entry for each judge: `named`
    says whether the picture is named first and among five, `far` is the distance to the nearest
    photograph.
    """
    mine = [named(unit, GENERATOR) for unit in units]
    found = {"generator": statistics.share(mine, "named first, mean over the judges")}
    for arm in BASELINES:
        theirs = [named(unit, arm) for unit in units]
        found[f"over {arm}"] = paired_difference(
            mine, theirs, level, "difference of shares named first, mean over the judges"
        )
    for arm in BASELINES:
        mine, theirs = ([fmean(unit["far"][each]) for unit in units] for each in (GENERATOR, arm))
        note = "distance to the nearest photograph in the judges' features, less the generator's"
        found[f"realer than {arm}"] = paired_difference(theirs, mine, level, note)
    return found


def _units(experiment: Experiment) -> tuple[list[int], str, list[int]]:
    """Return the tested channels, the network on whose units arms are tuned, and its channels."""
    outputs = len(experiment.network(experiment.subject).classes)
    if experiment.subject == Experiment.subject:
        classes = len(experiment.network(TUNED_WITH).classes)
        drawn = torch.randperm(classes, generator=_seeded(experiment.seed)).tolist()
        return experiment.some(outputs, outputs), TUNED_WITH, sorted(drawn[:TUNED_ON])
    drawn = torch.randperm(outputs, generator=_seeded(experiment.seed)).tolist()
    others = sorted(drawn[: min(TUNED_ON, outputs // 2)])
    rest = [channel for channel in range(outputs) if channel not in others]
    return [rest[i] for i in experiment.some(len(rest), 100)], experiment.subject, others


def _tuning_score(
    experiment: Experiment,
    arm: str,
    number: int,
    prior: str,
    how: Settings,
    subject: str,
    channels: Sequence[int],
) -> float:
    """Return how often the judges name these settings' pictures of the units that are tuned on."""
    network = experiment.network(subject)
    units = [f"{network.output}:{channel}" for channel in channels]
    shots = experiment.climbed(
        f"C1-tuning-{_short(arm)}-{number}", units, subject=subject, prior=prior, steps=STEPS, **how
    )
    judges = [judge for judge in experiment.judges if judge != subject]
    hits = [
        experiment.named_by(judge, shots.images, channels, network.classes)
        for judge in judges or experiment.judges
    ]
    return float(torch.stack(hits).mean())


def _short(arm: str) -> str:
    return arm.replace(",", "").replace(" ", "-").lower()


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLAIM = Claim(
    "C1",
    "A learned prior against hand-designed ones",
    "With a learned prior preferred inputs look real and can be named; "
    "with hand-designed priors they cannot.",
    tuple(
        Expectation(name.format(arm), says.format(arm))
        for name, says in (
            ("over {}", "judges name the generator's pictures more often than those of {}"),
            (
                "realer than {}",
                "the generator's pictures are nearer to photographs than those of {}",
            ),
        )
        for arm in BASELINES
    ),
    measure,
)
ANY_NETWORK = CLAIM
