"""A folder of pictures, each with its record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.errors import BadFile, OutOfSpace
from phosphene.forms import Record
from phosphene.images import Pixels, read_png, write_png


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
        record.write(self.path / f"{name}.json")

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
            record = Record.read(self.path / f"{name}.json")
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
            return Record.read(file).request == json.loads(json.dumps(record.request))
        except BadFile:  # none, or no whole one
            return not (file.exists() or (self.path / record.image).exists())

    def picture(self, record: Record) -> Pixels:
        """Return a record's picture."""
        return read_png(self.path / record.image)


def pixels_sha256(pixels: Pixels) -> str:
    """Return the hash of a picture's shape and 8-bit pixels, whatever file they lie in."""
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
