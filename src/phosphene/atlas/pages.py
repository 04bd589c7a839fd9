"""An atlas → HTML, through templates in which every text is escaped.

Pure: no page knows where it will lie.
"""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from phosphene.atlas import charts, measures
from phosphene.atlas.cards import Atlas, Card, Layer, Picture, Subject
from phosphene.errors import Unavailable
from phosphene.factories import is_factory, users_code
from phosphene.forms.figures import unit_of
from phosphene.forms.form import short
from phosphene.units import Unit

if TYPE_CHECKING:
    from jinja2 import Environment

T = TypeVar("T")

MAX_ON_FRONT = 16
"""Tiles of a layer on the front page."""


@dataclass(frozen=True)
class Page:
    """A file of the site: its path from the root, and its text."""

    path: str
    text: str


@dataclass(frozen=True)
class Column:
    """A number that units of a layer can be sorted by, and its value for each card."""

    key: str
    values: tuple[float | None, ...]

    @property
    def name(self) -> str:
        return measures.measure_name(self.key)

    @property
    def share(self) -> bool:
        return measures.is_share(self.key)


def pages(atlas: Atlas, own: Path | None = None) -> Iterator[Page]:
    """Yield every page of the site, and the index that its search reads.

    `own` is a folder of templates for studies, NAME.html each.
    """
    templates = environment(atlas, own)
    yield _page(templates, "front.html", "index.html")
    yield _page(templates, "search.html", "search.html")
    yield Page("assets/index.js", search_index(atlas))
    for subject in atlas.subjects:
        if subject.combinations:
            path = f"{subject.place}/combinations.html"
            yield _page(templates, "combinations.html", path, subject=subject)
        for before, layer, after in around(subject.layers):
            yield _layer_page(templates, subject, layer, before=before, after=after)
            yield Page(f"{subject.place}/{layer.place}/units.js", units_script(layer))
            yield from _unit_pages(templates, subject, layer, own)


def _layer_page(templates: Environment, subject: Subject, layer: Layer, **context: Any) -> Page:
    path = f"{subject.place}/{layer.place}.html"
    detected = Counter(card.object.object for card in layer.cards if card.object)
    context |= {"subject": subject, "layer": layer, "columns": columns(layer)}
    return _page(templates, "layer.html", path, objects=sorted(detected.items()), **context)


def _unit_pages(
    templates: Environment, subject: Subject, layer: Layer, own: Path | None
) -> Iterator[Page]:
    cards = {card.unit: card for card in layer.cards}
    for before, card, after in around(layer.cards):
        path = f"{subject.place}/{layer.place}/{card.unit.channel}.html"
        context = {"subject": subject, "layer": layer, "nearest": nearest(card, cards)}
        context |= {"before": before, "card": card, "after": after}
        with users_code(f"a template of {own}") if own else nullcontext():
            page = _page(templates, "unit.html", path, **context)
        yield page


def around(items: Sequence[T]) -> Iterator[tuple[T | None, T, T | None]]:
    """Return each item with the one before and the one after it."""
    return zip([None, *items][: len(items)], items, [*items, None][1:], strict=True)


def _page(templates: Environment, template: str, path: str, **context: Any) -> Page:
    root = "../" * (len(PurePosixPath(path).parts) - 1)
    return Page(path, templates.get_template(template).render(root=root, **context))


def templates_of(package: str, extra: str, own: Path | None = None) -> Environment:
    """Return the templates of a package, in which every text is escaped.

    A missing name is an error. A template `studies/NAME.html` is taken from the folder `own` where
    that has it.
    """
    try:
        from jinja2 import (
            ChoiceLoader,
            Environment,
            FileSystemLoader,
            PackageLoader,
            PrefixLoader,
            StrictUndefined,
        )
    except ImportError:
        raise Unavailable(f"jinja2 is not installed; pip install 'phosphene[{extra}]'") from None
    studies = PrefixLoader({"studies": FileSystemLoader(own)} if own else {})
    return Environment(
        loader=ChoiceLoader([studies, PackageLoader(package)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def environment(atlas: Atlas, own: Path | None = None) -> Environment:
    """Return the templates, with what they call."""
    made = templates_of("phosphene.atlas", "atlas", own)
    filters = (measures.number, measures.percent, measures.told)
    called = (measures.grouped, measures.headlines, sample, median_score, moving, labels, is_code)
    made.filters |= {each.__name__: each for each in filters}
    made.filters |= {"measure": measures.measure_name, "quoted": shlex.quote}
    made.globals |= {each.__name__: each for each in called}
    made.globals |= {"atlas": atlas, "charts": charts}
    made.tests["code"] = is_code
    return made


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


def units_script(layer: Layer) -> str:
    """Return a script that assigns what the units of a layer are filtered and sorted by.

    It is for the layer's page and for theirs.
    """
    found = columns(layer)
    units = []
    for row, card in enumerate(layer.cards):
        values = (column.values[row] for column in found)
        rounded = [None if value is None else float(f"{value:.6g}") for value in values]
        detected = card.object.object if card.object else ""
        units.append([card.unit.channel, card.name, detected, rounded])
    said = {
        "layer": layer.name,
        "columns": [[column.key, column.share] for column in found],
        "units": units,
    }
    return f"const atlasUnits = {_compact(said)};\n"


def nearest(card: Card, cards: dict[Unit, Card]) -> list[tuple[Card, float]]:
    """Return the units that prefer the same photographs and have a card, with the correlation."""
    pairs = [pair for exemplars in card.exemplars[:1] for pair in exemplars.row.nearest]
    found = [(unit_of(name), correlation) for name, correlation in pairs]
    return [(cards[unit], correlation) for unit, correlation in found if unit in cards]


def search_index(atlas: Atlas) -> str:
    """Return a script that assigns what the search looks through.

    A page from a file may not read JSON.
    """
    entries = [entry for i, subject in enumerate(atlas.subjects) for entry in _entries(i, subject)]
    names = [subject.name for subject in atlas.subjects]
    return f"const atlasIndex = {_compact({'subjects': names, 'entries': entries})};\n"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _entries(number: int, subject: Subject) -> Iterator[list[Any]]:
    """Yield the entry of each target.

    It has subject, key, name, object, classes of its photographs, page, tile, and whether that is a
    photograph.
    """
    for layer in subject.layers:
        for card in layer.cards:
            path = f"{subject.place}/{layer.place}/{card.unit.channel}"
            detected = card.object.object if card.object else ""
            told = [str(card.unit), card.name, detected, _also(card)]
            tile = path if card.shown else ""
            yield [number, *told, f"{path}.html", tile, int(not card.pictures)]
    for each in subject.combinations:
        name = "" if each.name == each.target else each.name
        path = f"{subject.place}/combinations"
        page, tile = f"{path}.html#{each.place}", f"{path}/{each.place}"
        yield [number, each.target, name, "", "", page, tile, 0]


def _also(card: Card) -> str:
    """Return the classes of the photographs that excite a unit: those that come more than once."""
    return "; ".join(
        name for exemplars in card.exemplars for name, times in exemplars.names if times > 1
    )


def sample(cards: Sequence[Card], most: int = MAX_ON_FRONT) -> list[Card]:
    """Return so many cards with a picture, evenly spaced and not chosen.

    Where there is no picture they are those with a photograph.
    """
    shown = [card for card in cards if card.pictures] or [card for card in cards if card.exemplars]
    return [shown[i * len(shown) // most] for i in range(most)] if len(shown) > most else shown


def labels(pictures: Sequence[Picture]) -> list[str]:
    """Return a name for each picture of a page, all different: its seed, and what else differs."""
    parts = [
        [f"seed {each.seed}" for each in pictures],
        [each.target for each in pictures],
        [each.prior for each in pictures],
    ]
    several = [part for i, part in enumerate(parts) if i == 0 or len({*part}) > 1]
    names = [" · ".join(words) for words in zip(*several, strict=True)]
    if len({*names}) < len(names):
        folders = [short(each.folder.name) for each in pictures]
        names = [f"{name} · {folder}" for name, folder in zip(names, folders, strict=True)]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = name if seen[name] == 1 else f"{name} · no. {seen[name]}"
    return names


def is_code(subject: str) -> bool:
    """Return whether a subject runs only where it is named in the command."""
    return is_factory(subject)


def moving(pictures: Sequence[Picture]) -> int | None:
    """Return the first picture whose climb was filmed."""
    return next((i for i, picture in enumerate(pictures) if picture.animation), None)


def median_score(cards: Sequence[Card]) -> float:
    return statistics.median(
        [card.score for card in cards if math.isfinite(card.score)] or [math.nan]
    )
