"""What an atlas shows: subjects, their layers, and a card for each unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from phosphene.units import Unit

FALL = 0.1
"""Of what a climb has gained, the share whose loss is told."""


@dataclass(frozen=True)
class Picture:
    """A preferred input, and what its record says of how it came to be."""

    subject: str
    target: str
    label: str
    seed: int
    score: float
    start_score: float
    curve: tuple[float, ...]
    objective: str
    status: str
    prior: str
    facts: tuple[tuple[str, str], ...]
    image: Path
    image_sha256: str
    animation: Path | None
    record: Path

    @property
    def folder(self) -> Path:
        """Return the folder that the picture lies in."""
        return self.record.parent

    @property
    def fell_from(self) -> tuple[int, float] | None:
        """Return the step at which the climb stood clearly higher than the picture, and its score.

        None where it did not, or where the two are not on one scale.
        """
        curve = [value if math.isfinite(value) else -math.inf for value in self.curve]
        if self.objective != "activation" or not curve or not math.isfinite(self.score):
            return None  # another objective is not on the scale of the score
        best = max(curve)
        lost, rise = best - self.score, best - min(self.start_score, best)
        far = math.isfinite(best) and lost > FALL * max(rise, abs(best) * FALL)
        return (curve.index(best), best) if far else None


@dataclass(frozen=True)
class Figure:
    """A measure with its 95 % interval, where it has one; of something unforeseen, a text."""

    name: str
    value: float | str
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What a judge found of a subject's units together, those of one layer where it is named, or of a single one."""

    judge: str
    data: str
    layer: str
    figures: tuple[Figure, ...]
    folder: Path = Path()
    """Whose pictures were measured."""
    of: str = ""
    """Which these are, where there are others beside them."""


@dataclass(frozen=True)
class Exemplar:
    """A photograph that excites a unit; of it the unit sees `box`: top, left, bottom, right, in shares of the side."""

    value: float
    photograph: int
    name: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Exemplars:
    """The photographs of a data set that excite a unit most, best first, side by side in one strip.

    A line of the strip has `columns` of them, each `tile` pixels wide.
    `flat` where each excites it in the one place that a unit without a map has.
    """

    data: str
    split: str
    licence: str
    seen: int
    silent: float | None
    quantiles: tuple[tuple[float, float], ...]
    shown: tuple[Exemplar, ...]
    strip: Path
    tile: int
    columns: int
    flat: bool
    nearest: tuple[tuple[Unit, float], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the strip, in pixels."""
        columns = min(self.columns, len(self.shown))
        return columns * self.tile, -(-len(self.shown) // columns) * self.tile

    @property
    def cut(self) -> bool:
        """Whether the unit sees only a part of some photograph."""
        return any(exemplar.box != (0, 0, 1, 1) for exemplar in self.shown)

    @property
    def names(self) -> tuple[tuple[str, int], ...]:
        """The photographs' classes and how many are of each, the most frequent first."""
        names = [exemplar.name for exemplar in self.shown if exemplar.name]
        return tuple(
            sorted({name: names.count(name) for name in names}.items(), key=lambda pair: -pair[1])
        )


@dataclass(frozen=True)
class Dissection:
    """The object whose outline a unit's activation covers best, and by how much."""

    data: str
    quantile: float
    detector_above: float
    photographs: int
    object: str
    iou: float
    others: tuple[tuple[str, float], ...]

    @property
    def detects(self) -> bool:
        return self.iou > self.detector_above


@dataclass(frozen=True)
class Card:
    """All that is known of one unit."""

    unit: Unit
    name: str
    pictures: tuple[Picture, ...]
    evaluations: tuple[Evaluation, ...]
    exemplars: tuple[Exemplars, ...]
    dissections: tuple[Dissection, ...]

    @property
    def shown(self) -> bool:
        """Whether there is anything to show on a tile."""
        return bool(self.pictures or self.exemplars)

    @property
    def score(self) -> float:
        """The unit's activation on its first picture."""
        return self.pictures[0].score if self.pictures else math.nan

    @property
    def object(self) -> Dissection | None:
        """The object that the unit detects, by the dissection that is surest of it."""
        found = [dissection for dissection in self.dissections if dissection.detects]
        return max(found, key=lambda dissection: dissection.iou, default=None)

    @property
    def better(self) -> Picture | None:
        """Return the best picture where it excites the unit more than any that was measured.

        None where it does not.
        """
        figures = [figure for each in self.evaluations for figure in each.figures]
        measured = [each.value for each in figures if each.name == "score"]
        best = max((value for value in measured if isinstance(value, float)), default=math.inf)
        found = [each for each in self.pictures if each.score > best + 1e-3 * abs(best)]
        return max(found, key=lambda picture: picture.score, default=None)

    def measure(self, name: str) -> float | None:
        """A figure of the unit, by the first judge who has it."""
        figures = [
            figure
            for evaluation in self.evaluations
            for figure in evaluation.figures
            if figure.name == name
        ]
        return next((figure.value for figure in figures if isinstance(figure.value, float)), None)


@dataclass(frozen=True)
class Combination:
    """A target that is not a lone unit: a sum, a difference, a direction, the least preferred."""

    target: str
    name: str
    place: str
    pictures: tuple[Picture, ...]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Layer:
    """A layer's cards, by channel; `place` is its file name in the site."""

    name: str
    place: str
    cards: tuple[Card, ...]

    @cached_property
    def signed(self) -> bool:
        """Return whether some unit is known to go below 0; there, 0 is no silence."""
        found = (exemplars for card in self.cards for exemplars in card.exemplars)
        return any(value < 0 for exemplars in found for _, value in exemplars.quantiles)

    @property
    def flat(self) -> bool:
        """Whether its units are known to have no map, as those of a fully connected layer."""
        found = [exemplars.flat for card in self.cards for exemplars in card.exemplars]
        return bool(found) and all(found)


@dataclass(frozen=True)
class Subject:
    """A network under study, and the name of its folder in the site."""

    name: str
    sha256: str
    place: str
    layers: tuple[Layer, ...]
    combinations: tuple[Combination, ...]
    evaluations: tuple[Evaluation, ...]

    def judged(self, layer: Layer) -> list[Evaluation]:
        """The evaluations of a layer's units together."""
        return [evaluation for evaluation in self.evaluations if evaluation.layer == layer.name]

    @property
    def judged_otherwise(self) -> list[Evaluation]:
        """The evaluations of no layer that is here."""
        names = {layer.name for layer in self.layers}
        return [evaluation for evaluation in self.evaluations if evaluation.layer not in names]


@dataclass(frozen=True)
class Atlas:
    title: str
    subjects: tuple[Subject, ...]
