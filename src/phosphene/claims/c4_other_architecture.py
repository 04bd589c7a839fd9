"""C4: what a prior that inverts another architecture still shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phosphene.claims.claim import Claim, Expectation, Findings, named
from phosphene.claims.experiment import Experiment, Shots
from phosphene.errors import BadRequest
from phosphene.metrics import judge_channels
from phosphene.priors import load_generated
from phosphene.statistics import Figure, mean, paired_difference, share
from phosphene.texts import slug

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
ANY_TESTED, ANY_STEPS, ANY_PHOTOGRAPHS = 90, 100, 500
"""Of any network: classes that are tested, steps of a climb, and photographs beside its pictures.

Half the default steps, since large networks are slow.
"""
LESS = "less than its encoder"


@dataclass(frozen=True)
class Classes:
    """Classes whose units are climbed: places in `names` that are `tested`, and `others`.

    The step sizes are tuned on the others.
    """

    names: Sequence[str]
    tested: Sequence[int]
    others: Sequence[int]

    @classmethod
    def drawn(cls, experiment: Experiment, names: Sequence[str], n: int) -> Classes:
        """Draw n classes to test; at most `TUNED_ON` of the others are tuned on."""
        left = min(TUNED_ON, len(names) // 2)
        tested = experiment.some(len(names), min(n, len(names) - left), 40)
        others = [c for c in range(len(names)) if c not in tested]
        return cls(names, tested, others[: 1 if experiment.quick else TUNED_ON])


def measure(experiment: Experiment) -> Findings:
    """Climb every subject's output units through every prior.

    Each cell has the step size that was best for it on ten other units.
    """
    names = experiment.network("caffenet-objects").classes
    classes = Classes.drawn(experiment, names, TESTED)
    priors = [prior for prior in MATRIX.values() if prior]
    found: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    shown = []
    for subject in MATRIX:
        units = _units(experiment, subject, classes)
        row: dict[str, Any] = {"subject": subject}
        judges = [judge for judge in experiment.judges if judge != subject]
        for prior in priors:
            how, shots, hits = _tuned(experiment, subject, prior, classes, judges)
            chosen[f"{subject} through {prior}"] = how
            _told(units, prior, shots, hits)
            for j, top in enumerate(("top1", "top5")):
                row[f"{top}, {prior}"] = share([named(unit, prior, j) for unit in units])
            row[f"activation, {prior}"] = mean(shots.scores)
            shown.append((f"{subject} through {prior}", shots.images))
        found += units
        rows.append(row)
    picture = experiment.row("C4", shown)
    pictures = [("The same classes through every prior, the first seed.", picture)]
    return Findings(numbers(found, CLAIM.level), rows, found, pictures, {"chosen": chosen})


def measure_any(experiment: Experiment) -> Findings:
    """Climb units of the subject, and of the encoder of the prior, through the prior.

    The units are of the photographs' classes. Both networks have the step size that was best for
    them on other classes.
    """
    prior, subject = load_generated(experiment.prior), experiment.subject
    prior.load_encoder(subject)
    encoder = prior.encoder
    judges = [judge for judge in experiment.judges if judge not in (subject, encoder)]
    same = experiment.network(encoder).identity == experiment.network(subject).identity
    if same or not judges:
        raise BadRequest(
            f"{experiment.prior} inverts {encoder}; give another --subject and --judge"
        )
    names = experiment.photographs(experiment.objects, "val").classes
    classes = Classes.drawn(experiment, names, ANY_TESTED)
    units = _units(experiment, subject, classes)
    rows: list[dict[str, Any]] = []
    chosen, shown = {}, []
    for network in (encoder, subject):
        chosen[network], shots, hits = _tuned(
            experiment, network, experiment.prior, classes, judges, steps=ANY_STEPS
        )
        _told(units, network, shots, hits)
        row = {"pictures": network, **_by_judge(judges, hits)}
        rows.append({**row, "activation": mean(shots.scores)})
        shown.append((network, shots.images))
    size = prior.image_size
    images, labels = experiment.drawn(experiment.objects, "val", ANY_PHOTOGRAPHS, size, 41, names)
    seen = [experiment.named_by(judge, images, labels.tolist(), names).tolist() for judge in judges]
    rows.append({"pictures": f"photographs of {size} pixels", **_by_judge(judges, seen)})
    picture = experiment.row("C4", shown)
    caption = f"The same classes through {experiment.prior}, the first seed."
    settings = {"chosen": chosen, "steps": ANY_STEPS, "tuned on": f"{len(classes.others)} classes"}
    found = numbers_any(units, encoder, subject, ANY_NETWORK.level)
    return Findings(found, rows, units, [(caption, picture)], settings)


Hits = list[list[list[float]]]
"""For each judge and picture two numbers: whether it is named first, and among five."""


def _units(experiment: Experiment, subject: str, classes: Classes) -> list[dict[str, Any]]:
    """Return an entry for each class that is tested, with the subject's unit of it."""
    network = experiment.network(subject)
    if not network.output:
        raise BadRequest(f"{subject} has no class names, so nobody can name its pictures")
    channels = judge_channels(network, classes.names)
    return [
        {
            "subject": subject,
            "unit": f"{network.output}:{channels[c]}",
            "label": classes.names[c],
            "named": {},
            "activation": {},
        }
        for c in classes.tested
    ]


def _told(units: Sequence[dict[str, Any]], arm: str, shots: Shots, hits: Hits) -> None:
    """Add to each unit how its picture of an arm is named, and what it answers."""
    for i, unit in enumerate(units):
        unit["named"][arm] = [hit[i] for hit in hits]
        unit["activation"][arm] = shots.scores[i]


def _by_judge(judges: Sequence[str], hits: Hits) -> dict[str, Figure]:
    """Return the share that each judge names first, and among five."""
    return {
        f"{top}, {judge}": share([each[i] for each in hit])
        for judge, hit in zip(judges, hits, strict=True)
        for i, top in enumerate(("top1", "top5"))
    }


def _tuned(
    experiment: Experiment,
    subject: str,
    prior: str,
    classes: Classes,
    judges: Sequence[str],
    **changes: Any,
) -> tuple[Mapping[str, Any], Shots, Hits]:
    """Return the best step size on the other classes, and the pictures of the tested ones."""

    def cell(name: str, which: Sequence[int], how: Mapping[str, Any]) -> tuple[Shots, Hits]:
        asked = [f"{network.output}:{channels[c]}" for c in which]
        shots = experiment.climbed(
            f"C4-{slug(subject)}-{slug(prior)}-{name}",
            asked,
            subject=subject,
            prior=prior,
            **how,
            **changes,
        )
        return shots, [
            experiment.named_by(judge, shots.images, which, classes.names).tolist()
            for judge in judges
        ]

    network, grid = experiment.network(subject), experiment.few(GRID)
    channels = judge_channels(network, classes.names)
    tried = [cell(f"tuning-{i}", classes.others, how)[1] for i, how in enumerate(grid)]
    named_on = [sum(sum(hit) for hits in each for hit in hits) for each in tried]
    best = grid[max(range(len(grid)), key=named_on.__getitem__)]
    return best, *cell("tested", classes.tested, best)


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


def numbers_any(
    units: Sequence[Mapping[str, Any]], encoder: str, subject: str, level: float
) -> dict[str, Figure]:
    """Return how much more often the encoder's pictures are named than the subject's.

    They are of the same classes. Each unit has `named`, as in `numbers`, by network.
    """

    def by(network: str, place: int) -> list[float]:
        return [named(unit, network, place) for unit in units]

    note = "share named {} of the encoder's pictures less the subject's, mean over the judges"
    return {
        LESS: paired_difference(by(encoder, 0), by(subject, 0), level, note.format("first")),
        "among five": paired_difference(
            by(encoder, 1), by(subject, 1), note=note.format("among five")
        ),
    }


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
ANY_NETWORK = Claim(
    "C4",
    "Another architecture",
    CLAIM.says,
    (
        Expectation(
            LESS,
            "judges name the subject's pictures less often than those of the prior's own encoder, "
            "class by class",
        ),
    ),
    measure_any,
)
