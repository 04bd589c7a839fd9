"""What the game "guess the unit" asks with: units that have both pictures and photographs."""

from __future__ import annotations

import json
from typing import Any

from phosphene.atlas.cards import Card, Layer, Subject

PHOTOGRAPHS = 4
"""Of the exemplars, the best ones are shown."""


def players(layer: Layer) -> list[Card]:
    """Return the units of a layer that can be asked for; none where there are no two."""
    found = [card for card in layer.cards if card.pictures and card.exemplars]
    return found if len(found) > 1 else []


def script(subject: Subject, layer: Layer) -> str:
    """Return a script that keeps what a layer's questions are made of, under the layer's place."""
    said = {
        "subject": subject.name,
        "sha256": subject.sha256,
        "layer": layer.name,
        "units": [_unit(card) for card in players(layer)],
    }
    place = json.dumps(f"{subject.place}/{layer.place}")
    text = json.dumps(said, separators=(",", ":"))
    return f"(globalThis.atlasChoices ??= {{}})[{place}] = {text};\n"


def _unit(card: Card) -> list[Any]:
    """Return channel, name, score, size of the strip, and value, class and box of photographs.

    Boxes are left, top, width and height in the strip, in pixels.
    """
    exemplars = card.exemplars[0]
    photographs = []
    for i, each in enumerate(exemplars.shown[:PHOTOGRAPHS]):
        (wide, high), columns = exemplars.tile, exemplars.columns
        top, left, bottom, right = each.box
        box = [(i % columns + left) * wide, (i // columns + top) * high]
        box += [(right - left) * wide, (bottom - top) * high]
        photographs.append([each.value, each.name, [round(edge, 2) for edge in box]])
    return [card.unit.channel, card.name, card.score, list(exemplars.size), photographs]
