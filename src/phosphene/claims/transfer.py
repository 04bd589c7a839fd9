"""C3 and C4: what a prior that was learnt elsewhere still shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phosphene.claims.claim import Claim, Expectation, Findings, gain, named
from phosphene.claims.lab import Lab, Shots
from phosphene.evaluation import Figure, bootstrap, judge_channels, mean, share

SCENES, SCENE_JUDGE = "caffenet-scenes", "resnet18-scenes"
OWN = {"caffenet-objects": "objects-fc6-equal", SCENES: "scenes-fc6"}
"""Each subject's own prior, by the same recipe and as long."""
BOTH, LONGEST = "all-fc6", "objects-fc6"
"""One of both, likewise, and one that was trained far longer, of objects."""
HALF = 0.5
LITE = "efficientnet-lite0:160"
"""As its prior's encoder looks at images."""
MATRIX = {
    "caffenet-objects": "objects-fc6-equal",
    "resnet18-objects": "resnet18-pool",
    LITE: "lite0-pool",
    "googlenet-objects": "",
}
"""Subjects of C4, each with the prior that inverts it, if there is one; all by the same recipe and as long."""
GRID = ({"rate": 0.1}, {"rate": 0.2}, {"rate": 0.4})
"""The small search of every cell of C4: step sizes."""
TUNED_ON, TESTED = 10, 50


def measure_data(lab: Lab) -> Findings:
    """Output units of a scene network and of an object network, each through its own prior, the other's, one that was
    trained on both, and one that was trained longest."""
    units: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    shown = []
    for subject, data, judges in (
        ("caffenet-objects", lab.objects, lab.judges),
        (SCENES, lab.scenes, (SCENE_JUDGE,)),
    ):
        network = lab.network(subject)
        channels = lab.some(len(network.classes), 100)
        names = [f"{network.output}:{channel}" for channel in channels]
        own: list[dict[str, Any]] = [
            {"unit": name, "label": network.classes[c], "subject": subject}
            for name, c in zip(names, channels, strict=True)
        ]
        natural, labels = lab.drawn(data, "val", 1000, max(network.size), 30)
        seen = [lab.named_by(judge, natural, labels.tolist(), network.classes) for judge in judges]
        for prior in (*OWN.values(), BOTH, LONGEST):
            shots = lab.climbed(f"C3-{subject}-{prior}", names, subject=subject, prior=prior)
            hits = [
                lab.named_by(judge, shots.images, channels, network.classes) for judge in judges
            ]
            row: dict[str, Any] = {
                "subject": subject,
                "prior": prior,
                "activation": mean(shots.scores),
            }
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
    picture = lab.row("C3", shown)
    return Findings(
        data_numbers(units, DATA.level),
        rows,
        units,
        [("The first units of each, the first seed.", picture)],
    )


def data_numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Each unit has `subject`, `named` (by prior: a list, one for each judge, of whether first and among five),
    `activation` (by prior) and `photographs`, each judge's share of photographs named among five."""
    scenes = [unit for unit in units if unit["subject"] == SCENES]
    foreign = OWN["caffenet-objects"]
    natural = [sum(unit["photographs"]) / len(unit["photographs"]) for unit in scenes]
    found = {
        "carries over": gain(
            [named(unit, foreign, 1) for unit in scenes],
            [HALF * often for often in natural],
            level,
            f"share of scene units' pictures through {foreign} named among five, less half that of photographs",
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
                found[f"{subject}: {own} over {other}"] = gain(mine, theirs, note=note)
    return found


def measure_architecture(lab: Lab) -> Findings:
    """Every subject's output units through every prior, each cell with its own best step size on ten other units."""
    classes = lab.network("caffenet-objects").classes
    tested = lab.some(len(classes), TESTED, 40)
    others = [c for c in range(len(classes)) if c not in tested][: 1 if lab.quick else TUNED_ON]
    priors, grid = [prior for prior in MATRIX.values() if prior], lab.few(GRID)
    units: dict[tuple[str, int], dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    shown = []
    for subject in MATRIX:
        network = lab.network(subject)
        channels = judge_channels(network, classes)
        row: dict[str, Any] = {"subject": subject}
        for prior in priors:
            tried = [
                _cell(lab, subject, prior, f"tuning-{i}", others, how)[1]
                for i, how in enumerate(grid)
            ]
            best = max(
                range(len(grid)), key=lambda i: sum(sum(hit) for hits in tried[i] for hit in hits)
            )
            chosen[f"{subject} through {prior}"] = grid[best]
            shots, hits = _cell(lab, subject, prior, "tested", tested, grid[best])
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
    picture = lab.row("C4", shown)
    found = list(units.values())
    return Findings(
        architecture_numbers(found, ARCHITECTURE.level),
        rows,
        found,
        [("The same classes through every prior, the first seed.", picture)],
        {"chosen": chosen},
    )


def _cell(
    lab: Lab, subject: str, prior: str, name: str, which: Sequence[int], how: Mapping[str, Any]
) -> tuple[Shots, list[list[list[float]]]]:
    """Pictures of some classes of the objects, and for each judge and picture whether it is named first, among five."""
    network, classes = lab.network(subject), lab.network("caffenet-objects").classes
    channels = judge_channels(network, classes)
    asked = [f"{network.output}:{channels[c]}" for c in which]
    shots = lab.climbed(f"C4-{subject}-{prior}-{name}", asked, subject=subject, prior=prior, **how)
    judges = [judge for judge in lab.judges if judge != subject]
    return shots, [lab.named_by(judge, shots.images, which, classes).tolist() for judge in judges]


def architecture_numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Each unit has `subject` and `named`: by prior a list, one for each judge, of whether first and among five."""
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
            found[f"{subject}: its own"] = gain(mine, theirs, level, note)
    return found


DATA = Claim(
    "C3",
    "Other data",
    "A prior that was trained on objects shows what a network prefers that was trained on scenes.",
    (
        Expectation(
            "carries over",
            "scene units' pictures through the objects' prior are named half as often as photographs",
        ),
        Expectation(
            "still excites",
            "they excite their units more than half as much as through a prior of scenes",
            HALF,
        ),
    ),
    measure_data,
    (SCENES, SCENE_JUDGE, *OWN.values(), BOTH, LONGEST),
    ("objects", "scenes"),
)
ARCHITECTURE = Claim(
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
    measure_architecture,
    tuple(name for pair in MATRIX.items() for name in pair if name not in ("", LITE)),
)
