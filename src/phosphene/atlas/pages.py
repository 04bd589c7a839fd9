"""An atlas → HTML, through templates in which every text is escaped.

Pure: no page knows where it will lie.
"""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from phosphene.atlas import charts, exports, games, measures
from phosphene.atlas.cards import Atlas, Card, Layer, Picture, Subject
from phosphene.atlas.maps import Map
from phosphene.atlas.measures import columns
from phosphene.errors import Unavailable
from phosphene.factories import is_factory, users_code
from phosphene.forms import AtlasPage
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
class Shelf:
    """Hold a layer with its network, and its map where it has one."""

    subject: Subject
    layer: Layer
    map: Map | None

    @property
    def place(self) -> str:
        """Return the layer's folder, from the root."""
        return f"{self.subject.place}/{self.layer.place}"


Maps = Mapping[tuple[str, str], Map]
"""The map of each layer that has one, by the places of its network and of itself."""


def pages(atlas: Atlas, own: Path | None = None, maps: Maps | None = None) -> Iterator[Page]:
    """Yield every page of the site, each with its JSON, and the index that its search reads.

    `own` is a folder of templates for studies, NAME.html each.
    """
    templates = environment(atlas, own)
    laid = maps or {}
    yield from _page(templates, "front.html", "index.html", exports.front(atlas))
    for name in ("search", "unit-link"):
        yield from _page(templates, f"{name}.html", f"{name.removesuffix('-link')}.html")
    yield from _lessons(templates, atlas)
    yield Page("assets/index.js", search_index(atlas))
    for subject in atlas.subjects:
        if subject.combinations:
            path = f"{subject.place}/combinations.html"
            said = exports.combinations_page(atlas, subject)
            yield from _page(templates, "combinations.html", path, said, subject=subject)
        for before, layer, after in around(subject.layers):
            shelf = Shelf(subject, layer, laid.get((subject.place, layer.place)))
            yield from _layer_pages(templates, atlas, shelf, before=before, after=after)
            yield from _unit_pages(templates, atlas, own, shelf)


def _lessons(templates: Environment, atlas: Atlas) -> Iterator[Page]:
    """Yield the page that teaches how to read a unit's page, and the game, where units allow it."""
    playing = [(s, layer) for s in atlas.subjects for layer in s.layers if games.players(layer)]
    if playing:
        yield from _page(templates, "guess.html", "guess.html", playing=playing)
    for subject, layer in playing:
        yield Page(f"{subject.place}/{layer.place}/choices.js", games.script(subject, layer))
    if found := richest(atlas):
        subject, layer, card = found
        context: dict[str, Any] = {"subject": subject, "layer": layer, "card": card}
        context["nearest"] = nearest(card, {each.unit: each for each in layer.cards})
        context["at"] = f"{subject.place}/{layer.place}/"
        yield from _page(templates, "reading.html", "reading.html", **context)


def richest(atlas: Atlas) -> tuple[Subject, Layer, Card] | None:
    """Return the first of the units of which most is known, with its layer and its network."""
    found = [
        (subject, layer, card)
        for subject in atlas.subjects
        for layer in subject.layers
        for card in layer.cards
    ]

    def known(each: tuple[Subject, Layer, Card]) -> tuple[int, int]:
        card = each[2]
        evidence = (card.exemplars, card.evaluations, card.object)
        return sum(map(bool, (card.pictures, *evidence))), int(moving(card.pictures) is not None)

    return max(found, key=known, default=None)


def _layer_pages(
    templates: Environment, atlas: Atlas, shelf: Shelf, **context: Any
) -> Iterator[Page]:
    """Yield the page of a layer, its map, and what their scripts read."""
    subject, layer, place = shelf.subject, shelf.layer, shelf.place
    detected = Counter(card.object.object for card in layer.cards if card.object)
    context |= {**vars(shelf), "columns": columns(layer), "objects": sorted(detected.items())}
    said = exports.layer_page(atlas, subject, layer)
    yield from _page(templates, "layer.html", f"{place}.html", said, **context)
    yield Page(f"{place}/units.js", units_script(layer))
    if shelf.map:
        said = exports.map_page(atlas, subject, layer, shelf.map)
        yield from _page(templates, "map.html", f"{place}/map.html", said, **context)
        yield Page(f"{place}/places.js", places_script(layer, shelf.map))


def places_script(layer: Layer, laid: Map) -> str:
    """Return a script that assigns where the units of a layer lie, in the order of `units.js`."""
    units = [
        place and [*(round(each, 4) for each in place), *(cell or ()), int(not card.pictures)]
        for card, place, cell in zip(layer.cards, laid.places, laid.cells, strict=True)
    ]
    said = {"columns": laid.columns, "rows": laid.rows, "cell": laid.cell, "units": units}
    return f"const atlasPlaces = {_compact(said)};\n"


def _unit_pages(
    templates: Environment, atlas: Atlas, own: Path | None, shelf: Shelf
) -> Iterator[Page]:
    subject, layer = shelf.subject, shelf.layer
    cards = {card.unit: card for card in layer.cards}
    for before, card, after in around(layer.cards):
        path = f"{shelf.place}/{card.unit.channel}.html"
        near = nearest(card, cards)
        context = {**vars(shelf), "nearest": near, "at": "", "before": before, "after": after}
        said = exports.unit_page(atlas, subject, layer, card, near)
        with users_code(f"a template of {own}") if own else nullcontext():
            made = [*_page(templates, "unit.html", path, said, card=card, **context)]
        yield from made


def around(items: Sequence[T]) -> Iterator[tuple[T | None, T, T | None]]:
    """Return each item with the one before and the one after it."""
    return zip([None, *items][: len(items)], items, [*items, None][1:], strict=True)


def _page(
    templates: Environment, template: str, path: str, said: AtlasPage | None = None, **context: Any
) -> Iterator[Page]:
    """Yield a page, and its JSON where there is some."""
    root = "../" * (len(PurePosixPath(path).parts) - 1)
    file = PurePosixPath(path).with_suffix(".json") if said else None
    context |= {"root": root, "json_file": file.name if file else ""}
    yield Page(path, templates.get_template(template).render(**context))
    if said and file:
        yield Page(str(file), _compact(said.as_json()) + "\n")


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
    own_names = (sample, median_score, moving, labels, is_code, permanent)
    called = (measures.grouped, measures.headlines, *own_names)
    made.filters |= {each.__name__: each for each in filters}
    made.filters |= {"measure": measures.measure_name, "quoted": shlex.quote}
    made.globals |= {each.__name__: each for each in called}
    playing = any(games.players(layer) for each in atlas.subjects for layer in each.layers)
    made.globals |= {"atlas": atlas, "charts": charts, "has_game": playing}
    made.globals |= {"has_lesson": richest(atlas) is not None}
    made.tests["code"] = is_code
    return made


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
    hashes = [subject.sha256[:12] for subject in atlas.subjects]
    said = {"subjects": names, "hashes": hashes, "entries": entries}
    return f"const atlasIndex = {_compact(said)};\n"


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


def permanent(subject: Subject, card: Card) -> str:
    """Return the part of a unit's permanent link that names it: NETWORK@SHA256/LAYER:CHANNEL."""
    return quote(f"{subject.name}@{subject.sha256[:12]}/{card.unit}", safe="/:@")


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
