"""What a text such as `conv5:151@6,6` or `class:lion` means for one network (see `units`)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Protocol

from phosphene.errors import BadRequest, UnknownName, near
from phosphene.units import Direction, Target, Term, Unit, channel_range, is_token, parse


class Addressed(Protocol):
    """A network whose layers, channels and classes have names."""

    @property
    def name(self) -> str:
        """Return what an error calls the network."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of its classes, each with its synonyms."""

    @property
    def output(self) -> str:
        """Return the layer whose channels are the classes, "" where that is unknown."""

    def layer_path(self, layer: str) -> str:
        """Return the path of a layer; `UnknownName` where there is none."""

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of a layer, without the batch; () where it gives no activations."""

    def text_vector(self, text: str) -> tuple[float, ...]:
        """Return a text's embedding, a direction in `output`; `BadRequest` where there is none."""

    def channel_names(self, layer: str) -> tuple[str, ...]:
        """Return the names of a layer's channels, () where they have none."""

    def token_names(self, layer: str) -> tuple[str, ...]:
        """Return the names of a layer's tokens ahead of its patches."""


def resolve(subject: Addressed, text: str) -> list[Target]:
    """Return the targets that a text names: one, or one for each channel of a range."""
    terms = parse(text)
    if len(terms) == 1:
        (term,) = terms
        return [
            Target(((term.weight, unit),), _label(subject, unit, term.weight))
            for unit in _units(subject, term)
        ]
    found = []
    for term in terms:
        units = _units(subject, term)
        if len(units) != 1:
            raise BadRequest(
                f"{term.layer}:{term.channels} names {len(units)} units; "
                "a sum takes one unit in each term"
            )
        found.append((term.weight, units[0]))
    label = " ".join(_signed(weight, _label(subject, unit)) for weight, unit in found)
    return [Target(tuple(found), label.removeprefix("+ "))]


def _units(subject: Addressed, term: Term) -> list[Unit | Direction]:
    if term.layer == "text":
        vector = subject.text_vector(term.channels)
        return [Direction(subject.output, vector, name=term.channels)]
    if term.layer == "class":
        channel = str(_class_of_output(subject, term))
        term = replace(term, layer=subject.output, channels=channel, quoted=False)
    term = replace(term, layer=subject.layer_path(term.layer))
    shape = subject.shape(term.layer)
    if not shape:
        raise UnknownName(f"{subject.name}: layer {term.layer!r} gives no activations for an image")
    channels = _channels(subject, term, shape[0])
    _check_position(subject, term, shape[1:])
    position = term.position if len(shape) > 1 else "centre"
    return [Unit(term.layer, channel, position) for channel in channels]


def _class_of_output(subject: Addressed, term: Term) -> int:
    if not subject.output or not subject.classes:
        raise UnknownName(
            f"{subject.name} has no class names; write LAYER:CHANNEL "
            f"(`phosphene layers {subject.name}`)"
        )
    return class_number(subject, term.channels, term.quoted)


def _channels(subject: Addressed, term: Term, count: int) -> list[int]:
    """Return the channels that a term names, of a layer that has so many."""
    channels = None if term.quoted else channel_range(term.channels)
    if term.channels == "all" and not term.quoted:
        channels = list(range(count))
    if channels is None:
        channels = [_named_channel(subject, term, count)]
    if wrong := [channel for channel in channels if channel >= count]:
        raise UnknownName(
            f"{subject.name}: {term.layer} has {count} channels, 0 … {count - 1}; got {wrong[0]}"
        )
    return channels


def _named_channel(subject: Addressed, term: Term, count: int) -> int:
    """Return the channel that a name means, of a layer whose channels have names."""
    if term.layer == subject.output:
        return class_number(subject, term.channels)
    names = subject.channel_names(term.layer)
    if term.channels in names:
        return names.index(term.channels)
    if names:
        raise UnknownName(
            f"{term.layer} has no {term.channels!r}; near: {near(term.channels, names)}"
        )
    raise UnknownName(
        f"{term.layer}:{term.channels}: only the output layer "
        f"({subject.output or 'unknown here'}) has names; "
        f"{term.layer} has channels 0 … {count - 1}"
    )


def _check_position(subject: Addressed, term: Term, sides: tuple[int, ...]) -> None:
    """Refuse a position or a token that a layer does not have, of a map with these sides."""
    if is_token(term.position) and term.position not in subject.token_names(term.layer):
        there = ", ".join(f"@{name}" for name in subject.token_names(term.layer)) or "none"
        raise UnknownName(
            f"{term.layer} has no token @{term.position} ahead of its patches; there is: {there}"
        )
    if not isinstance(term.position, tuple):
        return
    if len(sides) != 2:
        raise BadRequest(
            f"{term.layer} has no map, so no position; write {term.layer}:{term.channels}"
        )
    if any(place >= side for place, side in zip(term.position, sides, strict=True)):
        raise BadRequest(
            f"{term.layer} has a map of {sides[0]} rows and {sides[1]} columns, "
            f"counted from 0; got @{term.position[0]},{term.position[1]}"
        )


def class_number(subject: Addressed, name: str, quoted: bool = True) -> int:
    """Return the class that a name means.

    A whole name comes first, then a synonym, both in the letters as typed before any others. A bare
    number that names no class is a channel. The last resort is the only class with that word in it.
    """
    if not subject.classes:
        raise UnknownName(f"{subject.name} has no class names; write LAYER:CHANNEL")
    wanted = _plain(name)
    names = [_plain(each) for each in subject.classes]
    synonyms = [[part.strip() for part in each.split(",")] for each in names]
    found = _named(wanted, names, synonyms)
    bare = not quoted and re.fullmatch(r"[0-9]{1,9}", wanted)
    if not found and bare and int(wanted) < len(names):
        return int(wanted)
    if not found:
        word = re.compile(rf"\b{re.escape(wanted.lower())}\b")
        found = [i for i, each in enumerate(synonyms) if word.search(", ".join(each).lower())]
    if not found:
        known = [part.lower() for each in synonyms for part in each]
        near = get_close_matches(wanted.lower(), known, n=3, cutoff=0.5)
        near = near or get_close_matches(wanted.lower(), known, n=3, cutoff=0.0)
        raise UnknownName(f"{subject.name} has no class {name!r}; near: {', '.join(near)}")
    if len(found) > 1:
        layer = subject.output or "LAYER"
        some = ", ".join(f"{names[i].split(',')[0]!r} ({layer}:{i})" for i in found[:4])
        raise UnknownName(
            f"{subject.name}: {name!r} fits {len(found)} classes: {some}; write {layer}:{found[0]}"
        )
    return found[0]


def _named(wanted: str, names: Sequence[str], synonyms: Sequence[Sequence[str]]) -> list[int]:
    """Return the classes that have exactly this name.

    The strictest comparison that finds any decides.
    """
    folded = [[part.lower() for part in each] for each in synonyms]
    lower = [each.lower() for each in names]
    for tests in (
        [each == wanted for each in names],
        [each == wanted.lower() for each in lower],
        [wanted in each for each in synonyms],
        [wanted.lower() in each for each in folded],
    ):
        if any(tests):
            return [i for i, fits in enumerate(tests) if fits]
    return []


def _plain(name: str) -> str:
    """Return a class's name in one form: accents composed, no spaces at its ends."""
    return unicodedata.normalize("NFC", name).strip()


def _label(subject: Addressed, unit: Unit | Direction, weight: float = 1) -> str:
    sign = "" if weight == 1 else f"{weight:g} × "
    if isinstance(unit, Direction):
        return sign + unit.name
    if unit.layer == subject.output and unit.channel < len(subject.classes):
        return sign + subject.classes[unit.channel].split(",")[0]
    names = subject.channel_names(unit.layer)
    if unit.layer != subject.output and unit.channel < len(names):
        return sign + names[unit.channel]
    return sign + str(unit)


def _signed(weight: float, label: str) -> str:
    sign = "-" if weight < 0 else "+"
    return f"{sign} {label}" if abs(weight) == 1 else f"{sign} {abs(weight):g} × {label}"
