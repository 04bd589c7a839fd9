"""Names of what a climb can excite: units, weighted sums of them, directions.

Grammar of a target, as typed on the command line:

    conv5:151          channel 151 of conv5, at the centre of its map (as in the paper)
    conv5:151@6,2      … at row 6, column 2;   @max, @mean: over all positions
    blocks.3:7@6,2     a transformer's patch at row 6, column 2;   @max, @mean: over all patches
    blocks.3:7@class   its class token;   @distillation, @register0 … likewise
    conv5:0-31         one target for each channel;   fc8:1,5,9 and conv5:all likewise
    class:lion         the output unit of a class, by name; class:10 is the class called "10", and
                       output unit 10 where no class has that name
    class:"10"         a name, never a number;   fc8:"10" likewise;   fc8:10 is always unit 10
    sae:117            a feature of a dictionary that the subject has (see `dictionaries`)
    text:"a dog"       how similar the image is to a text, of a subject that reads texts
    fc8:3 + 0.5*fc8:7  several at once;   fc8:3 - fc8:7  the difference of two
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

from phosphene.errors import BadRequest

Position = tuple[int, int] | str
"""(row, column) counted from 0, or one of `POOLED`, or the name of a token ahead of the patches."""

POOLED = ("centre", "max", "mean")
_TOKEN = re.compile(r"class|distillation|register[0-9]{1,3}")

_TERM = re.compile(
    r"""\s*(?:(?P<weight>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?)\s*\*\s*)?   # 0.5*
                       (?P<layer>[^\s:@*"]+):                        # conv5:
                       (?:"(?P<quoted>[^"]*)"|(?P<channels>[^@"]+?)) # 151, 0-31, "golden retriever"
                       (?:@(?P<position>[^@"]+))?\s*$""",
    re.VERBOSE,
)
_MAX_DIGITS = 18
_SEPARATOR = re.compile(r"""\s([+-])\s(?=(?:[^"]*"[^"]*")*[^"]*$)""")


@dataclass(frozen=True)
class Unit:
    """A channel of a layer, read at one position or over all of them.

    `layer` is a `named_modules()` path, `position` is (row, column) counted from 0. In a layer
    without a map the position has no meaning and is "centre".
    """

    layer: str
    channel: int
    position: Position = "centre"

    def __str__(self) -> str:
        where = (
            ""
            if self.position == "centre"
            else "@"
            + (
                self.position
                if isinstance(self.position, str)
                else f"{self.position[0]},{self.position[1]}"
            )
        )
        return f"{self.layer}:{self.channel}{where}"


@dataclass(frozen=True)
class Direction:
    """A direction in a layer's channels.

    The score is the product of the activations with the unit vector.
    """

    layer: str
    vector: tuple[float, ...]
    position: Position = "centre"
    name: str = "direction"

    def __post_init__(self) -> None:
        if not any(self.vector) or not all(map(math.isfinite, self.vector)):
            raise BadRequest(f"direction {self.name!r} needs finite numbers, not all zero")

    def __str__(self) -> str:
        return f"{self.layer}:<{self.name}>"


@dataclass(frozen=True)
class Target:
    """What one picture is climbed for: a weighted sum of units and directions.

    `label` is for people.
    """

    terms: tuple[tuple[float, Unit | Direction], ...]
    label: str = ""

    def __post_init__(self) -> None:
        if not self.terms:
            raise BadRequest("a target needs at least one unit")
        if not all(math.isfinite(weight) for weight, _ in self.terms):
            raise BadRequest("a target's weights are finite numbers")

    def __str__(self) -> str:
        text = ""
        for weight, unit in self.terms:
            sign = (
                " - " if weight < 0 and text else " + " if text else "-1*" if weight == -1 else ""
            )
            size = abs(weight) if text else weight
            text += sign + (str(unit) if abs(weight) == 1 else f"{_exactly(size)}*{unit}")
        return text

    @property
    def layers(self) -> set[str]:
        return {unit.layer for _, unit in self.terms}

    @property
    def lone(self) -> Unit | None:
        """Return the unit whose own activation the target is; None where it is no such."""
        (weight, unit), *others = self.terms
        return unit if isinstance(unit, Unit) and weight == 1 and not others else None

    @property
    def least(self) -> bool:
        """Return whether all units are to fall: scores are told of the same target upright."""
        return all(weight < 0 for weight, _ in self.terms)

    def as_json(self) -> dict[str, Any]:
        """Return the target as a record keeps it; `Target.from_json` reads it back."""
        return {
            "label": self.label,
            "terms": [[weight, asdict(unit)] for weight, unit in self.terms],
        }

    @classmethod
    def from_json(cls, data: Any) -> Target:
        """Read a target from a record; `BadRequest` when it is not one."""
        try:
            terms = tuple(
                (float(weight), _unit_from_json(dict(unit))) for weight, unit in data["terms"]
            )
            return cls(terms, str(data["label"]))
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise BadRequest(
                f"a record's target is not of the form that a record has: {error}"
            ) from None

    def negative(self) -> Target:
        """Return the same target, to be excited least."""
        terms = tuple((-weight, unit) for weight, unit in self.terms)
        return Target(terms, f"least {self.label}".strip())


@dataclass(frozen=True)
class Term:
    """One term as typed: channels still a text, since only a subject knows its classes."""

    weight: float
    layer: str
    channels: str
    position: Position
    quoted: bool


def parse(text: str) -> list[Term]:
    """Split one target into its terms as typed; `BadRequest` says what a target looks like."""
    pieces = _SEPARATOR.split(text)
    terms = []
    for sign, piece in zip(["+", *pieces[1::2]], pieces[::2], strict=True):
        match = _TERM.match(piece)
        if match is None:
            raise BadRequest(
                f"cannot read {piece.strip()!r} as a unit; write LAYER:CHANNEL, "
                "LAYER:CHANNEL@ROW,COLUMN, LAYER:CHANNEL@max or class:NAME, "
                "with ' + ' or ' - ' between several"
            )
        weight = float(match["weight"] or 1) * (-1 if sign == "-" else 1)
        quoted = match["quoted"] is not None
        channels = match["quoted"] if quoted else match["channels"].strip()
        terms.append(
            Term(weight, match["layer"], channels, _position(match["position"], piece), quoted)
        )
    return terms


def channel_range(
    text: str,
    noun: str = "channels",
    limit: str = "no layer has so many channels",
    digits: int = _MAX_DIGITS,
) -> list[int] | None:
    """Return the channels, or other numbers, of "7", "0-31", "1,5,9" or "0-3,8".

    None when the text is not of that form, so a name.
    """
    if not re.fullmatch(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", text):
        return None
    channels: list[int] = []  # or what `noun` calls them
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        if max(len(first), len(last)) > digits:
            longest = max(len(first), len(last))
            raise BadRequest(f"{piece[:20]}… has {longest} digits; {limit}")
        low, high = int(first), int(last or first)
        if high < low:
            raise BadRequest(f"range {piece} runs backwards; write {high}-{low}")
        if len(channels) + high - low > 1_000_000:
            raise BadRequest(f"range {piece} has {high - low + 1:,} {noun}; {limit}")
        channels.extend(range(low, high + 1))
    return channels


def is_token(position: object) -> TypeGuard[str]:
    """Return whether a position is the name of a token ahead of the patches."""
    return isinstance(position, str) and _TOKEN.fullmatch(position) is not None


def _exactly(number: float) -> str:
    """Format a number as short as it can be read back the same."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def _unit_from_json(data: dict[str, Any]) -> Unit | Direction:
    where = data.pop("position")
    position: Position = (int(where[0]), int(where[1])) if isinstance(where, list) else where
    if not isinstance(position, tuple) and position not in POOLED and not is_token(position):
        raise ValueError(f"position {position!r}")
    if "vector" in data:
        return Direction(
            str(data["layer"]), tuple(float(v) for v in data["vector"]), position, str(data["name"])
        )
    return Unit(str(data["layer"]), int(data["channel"]), position)


def _position(text: str | None, term: str) -> Position:
    if text is None:
        return "centre"
    text = text.strip()
    if text in POOLED or is_token(text):
        return text
    if text == "center":
        return "centre"
    match = re.fullmatch(r"([0-9]{1,9})\s*,\s*([0-9]{1,9})", text)
    if match is None:
        raise BadRequest(
            f"position @{text} in {term.strip()!r} is neither @ROW,COLUMN "
            "nor @centre, @max, @mean, @class"
        )
    return int(match[1]), int(match[2])
