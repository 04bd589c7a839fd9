"""C3: what a prior that learned other data still shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.claims.claim import Claim, Expectation, Findings, named
from phosphene.claims.experiment import Experiment
from phosphene.statistics import Figure, bootstrap, mean, paired_difference, share

SCENES, SCENE_JUDGE = "caffenet-scenes", "resnet18-scenes"
OWN = {"caffenet-objects": "objects-fc6-equal", SCENES: "scenes-fc6"}
"""Each subject's own prior, by the same recipe and as long."""
BOTH, LONGEST = "all-fc6", "objects-fc6"
"""One of both, likewise, and one that was trained far longer, of objects."""
HALF = 0.5


def measure(experiment: Experiment) -> Findings:
    """Climb output units of a scene network and of an object network through four priors.

    These are the network's own, the other network's, one that was trained on both, and one that was
    trained longest.
    """
    units: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    shown = []
    for subject, data, judges in (
        ("caffenet-objects", experiment.objects, experiment.judges),
        (SCENES, experiment.scenes, (SCENE_JUDGE,)),
    ):
        network = experiment.network(subject)
        channels = experiment.some(len(network.classes), 100)
        names = [f"{network.output}:{channel}" for channel in channels]
        own: list[dict[str, Any]] = [
            {"unit": name, "label": network.classes[c], "subject": subject}
            for name, c in zip(names, channels, strict=True)
        ]
        natural, labels = experiment.drawn(
            data, "val", 1000, max(network.size), 30, network.classes
        )
        seen = [
            experiment.named_by(judge, natural, labels.tolist(), network.classes)
            for judge in judges
        ]
        for prior in (*OWN.values(), BOTH, LONGEST):
            shots = experiment.climbed(f"C3-{subject}-{prior}", names, subject=subject, prior=prior)
            hits = [
                experiment.named_by(judge, shots.images, channels, network.classes)
                for judge in judges
            ]
            row: dict[str, Any] = {"subject": subject, "prior": prior}
            row["activation"] = mean(shots.scores)
            for judge, hit, real in zip(judges, hits, seen, strict=True):
                for i, top in enumerate(("top1", "top5")):
                    row[f"{top}, {judge}"] = share(hit[:, i].tolist())
                    row[f"{top} of photographs, {judge}"] = share(real[:, i].tolist())
            rows.append(row)
            for i, unit in enumerate(own):
                unit.setdefault("named", {})[prior] = [hit[i].tolist() for hit in hits]
                unit.setdefault("activation", {})[prior] = shots.scores[i]
                unit["photographs"] = [real[:, 1].mean().item() for real in seen]
            shown.append((f"{subject} through {prior}", shots.images))
        units += own
    pictures = [("The first units of each, the first seed.", experiment.row("C3", shown))]
    return Findings(numbers(units, CLAIM.level), rows, units, pictures)


def numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Return the claim's figures of its units.

    Each unit has `subject`, `named`, `activation` and `photographs`. `named` holds for each prior a
    list with one entry for each judge: whether the picture is named first, and among five.
    `activation` holds a number for each prior, `photographs` each judge's share of photographs that
    are named among five.
    """
    scenes = [unit for unit in units if unit["subject"] == SCENES]
    foreign = OWN["caffenet-objects"]
    natural = [sum(unit["photographs"]) / len(unit["photographs"]) for unit in scenes]
    found = {
        "carries over": paired_difference(
            [named(unit, foreign, 1) for unit in scenes],
            [HALF * often for often in natural],
            level,
            f"share of scene units' pictures through {foreign} named among five, "
            "less half that of photographs",
        ),
        "still excites": bootstrap(
            [unit["activation"][foreign] / unit["activation"][OWN[SCENES]] for unit in scenes],
            f"activation of scene units through {foreign} over that through {OWN[SCENES]}",
            level,
        ),
    }
    for subject, own in OWN.items():
        for other in (*OWN.values(), BOTH, LONGEST):
            if other != own:
                these = [unit for unit in units if unit["subject"] == subject]
                mine, theirs = ([named(unit, prior, 1) for unit in these] for prior in (own, other))
                note = "difference of shares named among five"
                found[f"{subject}: {own} over {other}"] = paired_difference(mine, theirs, note=note)
    return found


CLAIM = Claim(
    "C3",
    "Other data",
    "A prior that was trained on objects shows what a network prefers that was trained on scenes.",
    (
        Expectation(
            "carries over",
            "scene units' pictures through the objects' prior are named half as often as "
            "photographs",
        ),
        Expectation(
            "still excites",
            "they excite their units more than half as much as through a prior of scenes",
            HALF,
        ),
    ),
    measure,
    (SCENES, SCENE_JUDGE, *OWN.values(), BOTH, LONGEST),
    ("objects", "scenes"),
)
