"""What an atlas shows: subjects, their layers, and a card for each unit."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from pathlib import Path

from phosphene import forms
from phosphene.forms import StudyTable
from phosphene.forms.dissection import UnitOverlap
from phosphene.forms.exemplars import Box, UnitExemplars
from phosphene.forms.figures import Told
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
    input: Path | None = None
    """What the subject reads of the picture, where that is another picture."""
    input_sha256: str = ""
    least: bool = False

    @property
    def folder(self) -> Path:
        """Return the folder that the picture lies in."""
        return self.record.parent

    @property
    def fell_from(self) -> tuple[int, float] | None:
        """Return the step at which the climb stood clearly higher than the picture, and its score.

        None where it did not, or where the two are not on one scale.
        """
        sign = -1 if self.least else 1
        curve = [sign * value if math.isfinite(value) else -math.inf for value in self.curve]
        if self.objective != "activation" or not curve or not math.isfinite(self.score):
            return None  # another objective is not on the scale of the score
        best = max(curve)
        lost = best - sign * self.score
        rise = best - min(sign * self.start_score, best)
        far = math.isfinite(best) and lost > FALL * max(rise, abs(best) * FALL)
        return (curve.index(best), sign * best) if far else None


@dataclass(frozen=True)
class Figure:
    """A measure with its 95 % interval, where it has one; of something unforeseen, a text."""

    name: str
    value: float | str
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""

    @classmethod
    def of(cls, name: str, told: Told) -> Figure:
        """Return a measure as a form tells it."""
        if not isinstance(told, forms.Figure):
            return cls(name, told)
        if math.isnan(told.low) or math.isnan(told.high):
            return cls(name, told.value, n=told.n or None, note=told.note)
        return cls(name, told.value, told.low, told.high, told.n or None, told.note)


@dataclass(frozen=True)
class Evaluation:
    """What a judge found of a subject's units together, or of a single one.

    Those together are of one layer where it is named.
    """

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
    """A photograph that excites a unit; of it the unit sees `box`."""

    value: float
    photograph: int
    name: str
    box: Box


@dataclass(frozen=True)
class Exemplars:
    """The photographs of a data set that excite a unit most, side by side in one strip."""

    of: forms.Exemplars
    row: UnitExemplars
    strip: Path

    @cached_property
    def shown(self) -> tuple[Exemplar, ...]:
        """Return the photographs, best first."""
        names = [name.split(",")[0] for name in self.of.classes]
        labels = self.row.classes or (len(names),) * len(self.row.values)
        own = (names[label] if label < len(names) else "" for label in labels)
        columns = (self.row.values, self.row.photographs, own, self.row.boxes)
        return tuple(starmap(Exemplar, zip(*columns, strict=True)))

    @property
    def quantiles(self) -> tuple[tuple[float, float], ...]:
        """Return shares of photographs, each with the activation that they stay below."""
        return tuple(sorted((float(share), v) for share, v in self.row.quantiles.items()))

    @property
    def columns(self) -> int:
        """Return how many photographs a line of the strip has."""
        return self.of.columns or len(self.row.values)

    @property
    def tile(self) -> tuple[int, int]:
        """Return width and height of each photograph in the strip, in pixels."""
        return self.of.tile, self.of.tile_height or self.of.tile

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the strip, in pixels."""
        width, height = self.tile
        columns = min(self.columns, len(self.shown))
        return columns * width, -(-len(self.shown) // columns) * height

    @property
    def names(self) -> tuple[tuple[str, int], ...]:
        """Return the photographs' classes and how many are of each, the most frequent first."""
        return tuple(Counter(each.name for each in self.shown if each.name).most_common())


@dataclass(frozen=True)
class Dissection:
    """The object whose outline a unit's activation covers best, and by how much."""

    of: forms.Dissection
    row: UnitOverlap

    @property
    def objects(self) -> tuple[tuple[str, float], ...]:
        """Return the objects with their overlaps, the best first.

        They are named as people write; data sets have an underscore for a space.
        """
        found = ((self.row.object, self.row.iou), *self.row.others)
        return tuple((name.replace("_", " "), overlap) for name, overlap in found)

    @property
    def object(self) -> str:
        """Return the object that is covered best."""
        return self.objects[0][0]

    @property
    def detects(self) -> bool:
        """Return whether the unit is called the object's detector."""
        return self.row.iou > self.of.detector_above


@dataclass(frozen=True)
class Answer:
    """What a study of any kind says of a unit, with pictures where it has some."""

    of: StudyTable
    figures: tuple[Figure, ...]
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class Card:
    """All that is known of one unit."""

    unit: Unit
    name: str
    pictures: tuple[Picture, ...]
    evaluations: tuple[Evaluation, ...]
    exemplars: tuple[Exemplars, ...]
    dissections: tuple[Dissection, ...]
    answers: tuple[Answer, ...] = ()

    @property
    def studies(self) -> dict[str, list[Answer]]:
        """Return the answers by the names of their studies."""
        names = dict.fromkeys(answer.of.study for answer in self.answers)
        return {name: [a for a in self.answers if a.of.study == name] for name in names}

    def files(self, answer: Answer) -> list[str]:
        """Return what the pictures of an answer are called beside the unit's page."""
        stem = f"{self.unit.channel}-{answer.of.study}-{self.answers.index(answer)}"
        return [f"{stem}-{i}.webp" for i in range(len(answer.pictures))]

    @property
    def figures(self) -> list[Figure]:
        """Return all figures of the unit, those of the first judge first."""
        judged = [figure for each in self.evaluations for figure in each.figures]
        return judged + [figure for each in self.answers for figure in each.figures]

    @property
    def shown(self) -> bool:
        """Return whether there is anything to show on a tile."""
        return bool(self.pictures or self.exemplars)

    @property
    def score(self) -> float:
        """Return the unit's activation on its first picture."""
        return self.pictures[0].score if self.pictures else math.nan

    @property
    def object(self) -> Dissection | None:
        """Return the object that the unit detects, by the dissection that is surest of it."""
        found = [dissection for dissection in self.dissections if dissection.detects]
        return max(found, key=lambda dissection: dissection.row.iou, default=None)

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
        """Return a figure of the unit, by the first judge who has it."""
        found = (each.value for each in self.figures if each.name == name)
        return next((value for value in found if isinstance(value, float)), None)


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
        """Return whether its units are known to have no map, as in a fully connected layer."""
        found = [exemplars.row.flat for card in self.cards for exemplars in card.exemplars]
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
        """Return the evaluations of a layer's units together."""
        return [evaluation for evaluation in self.evaluations if evaluation.layer == layer.name]

    @property
    def judged_otherwise(self) -> list[Evaluation]:
        """Return the evaluations of no layer that is here."""
        names = {layer.name for layer in self.layers}
        return [evaluation for evaluation in self.evaluations if evaluation.layer not in names]


@dataclass(frozen=True)
class Atlas:
    title: str
    subjects: tuple[Subject, ...]
