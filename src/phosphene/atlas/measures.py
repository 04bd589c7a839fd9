"""The names of an evaluation's figures, what they say, and which stand beside one another."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phosphene.atlas.cards import Evaluation, Figure, Layer
from phosphene.atlas.charts import Axis, axis


@dataclass(frozen=True)
class Measure:
    """What several figures say of different things.

    `keys` are the figures' by what they are of, the pictures' own first.
    """

    name: str
    says: str
    keys: dict[str, str]
    judged: bool = True
    """Whether it depends on the judge; what the subject itself answers does not."""


GROUPS = {
    "Recognition": (
        Measure(
            "recognised first",
            "The judge names the class first.",
            {"pictures": "recognised_top1", "photographs": "natural_top1"},
        ),
        Measure(
            "recognised among five",
            "The class is among the judge’s first five.",
            {"pictures": "recognised_top5", "photographs": "natural_top5"},
        ),
    ),
    "Activation": (
        Measure(
            "activation",
            "The unit’s own, on the best of the measured pictures and on the best photograph.",
            {"pictures": "score", "photographs": "natural_score"},
            judged=False,
        ),
        Measure(
            "activation ratio",
            "Best measured picture over best photograph; above 1, the picture excites more.",
            {"pictures": "activation_ratio"},
            judged=False,
        ),
        Measure(
            "ratio above one",
            "Units that a measured picture excites more than any photograph does.",
            {"pictures": "activation_ratio_above_1"},
            judged=False,
        ),
    ),
    "Selectivity": (
        Measure(
            "rank in its layer",
            "Of the unit among its layer’s, each in its own standard deviations; 1 is first.",
            {"pictures": "selectivity", "exemplars": "exemplar_selectivity"},
            judged=False,
        ),
        Measure(
            "first in its layer",
            "Units that no other of the layer outdoes.",
            {"pictures": "selectivity_first", "exemplars": "exemplar_selectivity_first"},
            judged=False,
        ),
    ),
    "Forced choice": (
        Measure(
            "two-alternative choice",
            "Which of two photographs excites the unit more? "
            "Answered by likeness to nine references; chance is 50 %.",
            {
                "pictures": "two_afc_synthetic",
                "exemplars": "two_afc_natural",
                "random photographs": "two_afc_none",
            },
        ),
    ),
    "The prior": (
        Measure(
            "prior’s share",
            "How much of a picture the prior alone explains: "
            "what it draws for an untrained network, or at random.",
            {"untrained network": "prior_share", "random codes": "prior_share_random_codes"},
        ),
    ),
    "Distances": (
        Measure(
            "distance",
            "Of a picture to others, in the judge’s features: 0 is equal, 2 nothing in common.",
            {
                "to exemplars": "distance_exemplars",
                "to its control": "distance_control",
                "to random codes": "distance_random_codes",
            },
        ),
        Measure(
            "diversity",
            "Mean distance among a unit’s own.",
            {"pictures": "diversity", "exemplars": "exemplar_diversity"},
        ),
        Measure(
            "kernel distance",
            "To the exemplars, all units together; 0 where both are alike.",
            {"pictures": "kid", "other photographs": "kid_photographs"},
        ),
    ),
}
"""What `phosphene evaluate` writes; a key that is not here goes by its own name."""

OF_PHOTOGRAPHS = re.compile("natural_|exemplar_|two_afc_n|kid_photographs")
"""How the keys of figures begin that are the same whatever pictures were measured."""

HEADLINES = ("recognised_top1", "activation_ratio", "two_afc_synthetic")
"""Measures that a front page has room for, by the first of their keys."""

NAMES = {
    key: measure.name if i == 0 else f"{measure.name}, {of}"
    for measures in GROUPS.values()
    for measure in measures
    for i, (of, key) in enumerate(measure.keys.items())
} | {
    "score": "score",
    "iou": "overlap with its object",
    "area": "share of the pixels",
    "kept_mean": "kept, the rest the prior’s mean",
    "kept_grey": "kept, the rest grey",
    "kept_photographs": "kept, the rest photographs",
    "without_region": "left without the region",
}
"""What a figure is called where it stands alone."""


@dataclass(frozen=True)
class Line:
    """One figure: of what it is, whether that is the pictures, and who judged it, if anybody."""

    of: str
    own: bool
    judges: tuple[str, ...]
    figure: Figure
    source: str = ""
    """Which pictures were measured, where there are others."""


@dataclass(frozen=True)
class Row:
    """Figures that are to be compared, on a common axis."""

    measure: Measure
    lines: tuple[Line, ...]

    @property
    def judges(self) -> tuple[str, ...]:
        """Return who judged all of it; nobody where the lines have different judges."""
        found = {line.judges for line in self.lines}
        return found.pop() if len(found) == 1 else ()

    @property
    def axis(self) -> Axis | None:
        return bar_axis([line.figure for line in self.lines])

    @property
    def note(self) -> str:
        """Return what the figures say of themselves, each thing once."""
        notes = dict.fromkeys(line.figure.note for line in self.lines)
        return "; ".join(
            note for note in notes if not any(note in other for other in notes.keys() - {note})
        )


def grouped(evaluations: Sequence[Evaluation]) -> dict[str, list[Row]]:
    """Return all figures of some evaluations in groups.

    Those of several judges stand beside one another.
    """
    keys = dict.fromkeys(figure.name for evaluation in evaluations for figure in evaluation.figures)
    known = {
        key for measures in GROUPS.values() for measure in measures for key in measure.keys.values()
    }
    others = tuple(Measure(measure_name(key), "", {"": key}) for key in keys if key not in known)
    groups = {
        group: _rows(measures, evaluations)
        for group, measures in {**GROUPS, "Others": others}.items()
    }
    return {group: rows for group, rows in groups.items() if rows}


def headlines(evaluations: Sequence[Evaluation]) -> list[Row]:
    """Return the rows that matter most."""
    known = [measure for measures in GROUPS.values() for measure in measures]
    return _rows(
        [measure for measure in known if next(iter(measure.keys.values())) in HEADLINES],
        evaluations,
    )


def _rows(measures: Sequence[Measure], evaluations: Sequence[Evaluation]) -> list[Row]:
    rows = [Row(measure, tuple(_lines(measure, evaluations))) for measure in measures]
    return [row for row in rows if row.lines]


def _lines(measure: Measure, evaluations: Sequence[Evaluation]) -> Iterator[Line]:
    for i, (of, key) in enumerate(measure.keys.items()):
        judges = defaultdict(list)
        for evaluation in evaluations:
            source = "" if OF_PHOTOGRAPHS.match(key) else evaluation.of
            for figure in evaluation.figures:
                if figure.name == key:
                    judges[figure, source].append(evaluation.judge)
        for (figure, source), names in judges.items():
            by = tuple(dict.fromkeys(names)) if measure.judged else ()
            yield Line(of, i == 0, by, figure, source)


def bar_axis(figures: Sequence[Figure]) -> Axis | None:
    """Return the axis that figures are drawn on; None where all are texts.

    It is 0 … 1 for shares, and else begins at nothing.
    """
    numbers = [figure for figure in figures if not isinstance(figure.value, str)]
    values = [
        value
        for each in numbers
        for value in (each.value, each.low, each.high)
        if isinstance(value, float)
    ]
    if not values:
        return None
    return (
        Axis(0, 1, (0, 1))
        if all(is_share(figure.name) for figure in numbers)
        else axis([0, *values])
    )


def number(value: float, digits: int = 2) -> str:
    """Return a number as people write it."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.2e}".replace("-", "−")
    text = f"{value:,.{digits}f}" if abs(value) >= 0.1 or not value else f"{value:.3g}"
    return (text.rstrip("0").rstrip(".") if digits > 2 and "." in text else text).replace("-", "−")


def percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def told(value: float | str, key: str) -> str:
    """Return a measure's value in words: shares in per cent, ranks whole where they are."""
    if isinstance(value, str):
        return value
    return percent(value) if is_share(key) else number(value).removesuffix(".00")


def is_share(key: str) -> bool:
    return bool(re.search(r"_top\d+$|_first$|_above_|share|two_afc", key))


def measure_name(key: str) -> str:
    return NAMES.get(key, key.replace("_", " "))


@dataclass(frozen=True)
class Column:
    """Describe a number that units of a layer can be sorted by, with its value for each card."""

    key: str
    values: tuple[float | None, ...]

    @property
    def name(self) -> str:
        return measure_name(self.key)

    @property
    def share(self) -> bool:
        return is_share(self.key)


def columns(layer: Layer) -> list[Column]:
    """Return what the units of a layer can be sorted by: all that at least one of them has."""
    cards = layer.cards
    figures = [figure for card in cards for figure in card.figures]
    numbers = [figure.name for figure in figures if isinstance(figure.value, float)]
    keys = [key for key in dict.fromkeys(numbers) if key not in ("name", "score", "iou")]
    scores = tuple(card.score if math.isfinite(card.score) else None for card in cards)
    overlaps = tuple(card.object.row.iou if card.object else None for card in cards)
    found = [Column("score", scores)]
    found += [Column(key, tuple(card.measure(key) for card in cards)) for key in keys]
    found += [Column("iou", overlaps)]
    return [column for column in found if any(value is not None for value in column.values)]
