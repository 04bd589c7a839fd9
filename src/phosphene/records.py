"""The record of a picture: JSON that says how it came to be and can make it again, bit for bit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

from phosphene.errors import BadFile, OutOfSpace
from phosphene.files import read_json, write_json
from phosphene.images import Pixels, read_png, write_png

FORMAT = 2
"""Version 0.1.0 wrote format 1, in which a climb has no parts."""
MAX_BYTES = 16 << 20
"""Bytes; a longer record is not read."""


@dataclass(frozen=True)
class Record:
    """Everything that `phosphene synthesize --record FILE` needs, and what came out.

    `request` holds the arguments of the call for this one picture; `weights` the sha256 of each
    file that took part; `score` is the target's activation on the picture, `start_score` on the
    start; `status` is "climbed", "no higher than its start", "dead" or "stopped: …"; `image_sha256`
    is of the picture's 8-bit pixels. `kept_step` is the step of the curve that the picture shows,
    as many as there are steps where that is the last code; `last_score` is the activation on the
    last code's picture. Version 0.1.0 kept the last one and told neither.
    """

    target: str
    label: str
    request: dict[str, Any]
    weights: dict[str, str]
    score: float
    start_score: float
    curve: list[float]
    status: str
    image: str
    image_sha256: str
    command: str
    versions: dict[str, str]
    format: int = FORMAT
    kept_step: int | None = None
    last_score: float | None = None


LATER = ("kept_step", "last_score")
"""Fields that records of version 0.1.0 do not have."""


@dataclass(frozen=True)
class Folder:
    """A folder of pictures, each with its record; whatever is in it is finished and whole."""

    path: Path

    def create(self) -> None:
        """Make the folder, or say why not."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutOfSpace(f"cannot make the folder {self.path}: {error.strerror}") from None

    def add(self, name: str, record: Record, pixels: Pixels) -> None:
        """Write the picture, then its record: a record never lacks its picture."""
        write_png(self.path / f"{name}.png", pixels)
        write(record, self.path / f"{name}.json")

    def find(
        self,
        name: str,
        request: dict[str, Any],
        weights: dict[str, str],
        upgraded: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> Record | None:
        """Return the record of that name, or None.

        It is returned if the same request with the same weights made it and its picture is whole.
        `upgraded` returns the request of an older record as this version would write it.
        """
        try:
            record = read(self.path / f"{name}.json")
            made = json.loads(json.dumps(upgraded(record.request)))
            same = made == json.loads(json.dumps(request)) and record.weights == weights
            return (
                record
                if same and pixels_sha256(read_png(self.path / record.image)) == record.image_sha256
                else None
            )
        except BadFile:
            return None

    def may_hold(self, record: Record) -> bool:
        """Return whether this picture would replace none of another request."""
        file = self.path / Path(record.image).with_suffix(".json")
        try:
            return read(file).request == json.loads(json.dumps(record.request))
        except BadFile:  # none, or no whole one
            return not (file.exists() or (self.path / record.image).exists())

    def picture(self, record: Record) -> Pixels:
        """A record's picture."""
        return read_png(self.path / record.image)


def pixels_sha256(pixels: Pixels) -> str:
    """The hash of a picture's shape and 8-bit pixels, whatever file they lie in."""
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def write(record: Record, path: Path) -> None:
    """Write a record whole or not at all."""
    write_json(path, asdict(record))


def read(path: Path) -> Record:
    """Read a record and check its form; `BadFile` says what is wrong with it."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadFile(f"{path} is too large for a record ({path.stat().st_size:,} bytes)")
        data = read_json(path)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path} is not a record: {error}") from None
    known = {f.name: f for f in fields(Record)}
    if (
        not isinstance(data, dict)
        or not {"target", "request", "weights", "image_sha256", "format"} <= data.keys()
    ):
        raise BadFile(f"{path} is JSON but not phosphene's record")
    if data["format"] not in range(1, FORMAT + 1):
        raise BadFile(
            f"{path} has format {data['format']!r}, this version reads {FORMAT}; update phosphene"
        )
    if unknown := data.keys() - known.keys():
        raise BadFile(f"{path} has unknown fields: {', '.join(sorted(unknown))}")
    texts = ("target", "label", "status", "image", "image_sha256", "command")
    kinds = {
        **dict.fromkeys(texts, str),
        **dict.fromkeys(("request", "weights", "versions"), dict),
        "curve": list,
    }
    wrong = [name for name, kind in kinds.items() if not isinstance(data.get(name), kind)]
    wrong += [
        name
        for name in ("score", "start_score")
        if not isinstance(data.get(name), (float, int, NoneType))
    ]
    for name, kind in (("kept_step", int), ("last_score", (float, int))):
        if not isinstance(data.get(name), (kind, NoneType)):
            wrong.append(name)
    wrong += sorted(known.keys() - data.keys() - set(LATER))
    if wrong:
        raise BadFile(f"{path}: field {wrong[0]} is not of the form that a record has")
    if not data["image"] or Path(data["image"]).name != data["image"]:
        raise BadFile(f"{path}: its picture {data['image']!r} does not lie beside it")
    data["curve"] = [math.nan if value is None else value for value in data["curve"]]
    try:
        for name in ("score", "start_score"):
            data[name] = math.nan if data[name] is None else float(data[name])
        return Record(**data)
    except (TypeError, OverflowError) as error:
        raise BadFile(f"{path} is not a whole record: {error}") from None
