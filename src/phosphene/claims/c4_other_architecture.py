"""C4: what a prior that inverts another architecture still shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.claims.claim import Claim, Expectation, Findings, named
from phosphene.claims.experiment import Experiment, Shots
from phosphene.metrics import judge_channels
from phosphene.statistics import Figure, mean, paired_difference, share

LITE = "efficientnet-lite0:160"
"""As its prior's encoder looks at images."""
MATRIX = {
    "caffenet-objects": "objects-fc6-equal",
    "resnet18-objects": "resnet18-pool",
    LITE: "lite0-pool",
    "googlenet-objects": "",
}
"""Subjects of C4, each with the prior that inverts it, or "".

All were trained by the same recipe and equally long.
"""
GRID = ({"rate": 0.1}, {"rate": 0.2}, {"rate": 0.4})
"""The small search of every cell of C4: step sizes."""
TUNED_ON, TESTED = 10, 50


def measure(experiment: Experiment) -> Findings:
    """Climb every subject's output units through every prior.

    Each cell has the step size that was best for it on ten other units.
    """
    classes = experiment.network("caffenet-objects").classes
    tested = experiment.some(len(classes), TESTED, 40)
    others = [c for c in range(len(classes)) if c not in tested][
        : 1 if experiment.quick else TUNED_ON
    ]
    priors, grid = [prior for prior in MATRIX.values() if prior], experiment.few(GRID)
    units: dict[tuple[str, int], dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    shown = []
    for subject in MATRIX:
        network = experiment.network(subject)
        channels = judge_channels(network, classes)
        row: dict[str, Any] = {"subject": subject}
        for prior in priors:
            tried = [
                _cell(experiment, subject, prior, f"tuning-{i}", others, how)[1]
                for i, how in enumerate(grid)
            ]
            best = max(
                range(len(grid)), key=lambda i: sum(sum(hit) for hits in tried[i] for hit in hits)
            )
            chosen[f"{subject} through {prior}"] = grid[best]
            shots, hits = _cell(experiment, subject, prior, "tested", tested, grid[best])
            for i, c in enumerate(tested):
                name = f"{network.output}:{channels[c]}"
                unit = units.setdefault(
                    (subject, c), {"subject": subject, "unit": name, "label": classes[c]}
                )
                unit.setdefault("named", {})[prior] = [hit[i] for hit in hits]
                unit.setdefault("activation", {})[prior] = shots.scores[i]
            for j, top in enumerate(("top1", "top5")):
                own = [unit for unit in units.values() if unit["subject"] == subject]
                row[f"{top}, {prior}"] = share([named(unit, prior, j) for unit in own])
            row[f"activation, {prior}"] = mean(shots.scores)
            shown.append((f"{subject} through {prior}", shots.images))
        rows.append(row)
    picture = experiment.row("C4", shown)
    found = list(units.values())
    pictures = [("The same classes through every prior, the first seed.", picture)]
    return Findings(numbers(found, CLAIM.level), rows, found, pictures, {"chosen": chosen})


def _cell(
    experiment: Experiment,
    subject: str,
    prior: str,
    name: str,
    which: Sequence[int],
    how: Mapping[str, Any],
) -> tuple[Shots, list[list[list[float]]]]:
    """Return pictures of some classes of the objects, and how they are named.

    For each judge and picture there are two numbers: whether it is named first, and among five.
    """
    network, classes = experiment.network(subject), experiment.network("caffenet-objects").classes
    channels = judge_channels(network, classes)
    asked = [f"{network.output}:{channels[c]}" for c in which]
    shots = experiment.climbed(
        f"C4-{subject}-{prior}-{name}", asked, subject=subject, prior=prior, **how
    )
    judges = [judge for judge in experiment.judges if judge != subject]
    return shots, [
        experiment.named_by(judge, shots.images, which, classes).tolist() for judge in judges
    ]


def numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Return the claim's figures of its units.

    Each unit has `subject` and `named`. `named` holds for each prior a list with one entry for each
    judge: whether the picture is named first, and among five.
    """
    found = {}
    for subject, own in MATRIX.items():
        if own:
            these = [unit for unit in units if unit["subject"] == subject]
            others = [prior for prior in MATRIX.values() if prior not in ("", own)]
            mine = [named(unit, own, 1) for unit in these]
            theirs = [
                sum(named(unit, prior, 1) for prior in others) / len(others) for unit in these
            ]
            note = f"share named among five through {own}, less the mean of the other priors"
            found[f"{subject}: its own"] = paired_difference(mine, theirs, level, note)
    return found


CLAIM = Claim(
    "C4",
    "Another architecture",
    "The prior shows less of a subject whose architecture is not the encoder's.",
    tuple(
        Expectation(
            f"{subject}: its own",
            f"pictures of {subject} are named more often through its own prior than others",
        )
        for subject, own in MATRIX.items()
        if own
    ),
    measure,
    tuple(name for pair in MATRIX.items() for name in pair if name not in ("", LITE)),
)
