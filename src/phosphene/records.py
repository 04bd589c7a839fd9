"""A folder of pictures, each with its record."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phosphene.errors import BadFile, OutOfSpace
from phosphene.files import write_together
from phosphene.forms import Record, asked
from phosphene.images import Pixels, animation_bytes, png_bytes, read_png, seen_of

INPUT = ".input.png"
ARRAY = ".npy"
SUFFIXES = (".png", INPUT, ARRAY, ".json", ".webp")
"""What the files of one picture end in."""

Numbers = npt.NDArray[np.float32]
"""(channels, height, width), as a network reads them."""


@dataclass(frozen=True, eq=False)
class Contents:
    """Hold what is written of one picture: its pixels, the subject's input, and that as numbers.

    `input` is None where the picture itself is the input, or where there is none. `frames` are
    those of the climb's animation, without the picture.
    """

    pixels: Pixels
    input: Pixels | None = None
    array: Numbers | None = None
    frames: Sequence[Pixels] = ()

    def files(self, record: Record) -> dict[str, bytes]:
        """Return the files of a picture and its record, by what their names end in."""
        found = {".png": png_bytes(self.pixels)}
        if self.input is not None:
            found[INPUT] = png_bytes(self.input)
        if self.array is not None:
            stream = io.BytesIO()
            np.save(stream, self.array, allow_pickle=False)
            found[ARRAY] = stream.getvalue()
        if self.frames:
            found[".webp"] = animation_bytes([*self.frames, self.pixels])
        return {**found, ".json": record.as_bytes()}


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

    def add(self, name: str, record: Record, contents: Contents) -> None:
        """Write a picture with its record, as `put` does."""
        self.put({name: contents.files(record)})

    def put(self, pictures: Mapping[str, Mapping[str, bytes]]) -> None:
        """Write the files of pictures, each one's record last: a record never lacks its pictures.

        `pictures` are by their names, and the files of each by what their names end in. Others
        that an earlier climb left are removed.
        """
        former = {name: self._left_of(name) for name in pictures}
        written = {}
        for name, files in pictures.items():
            if not {".png", ".json"} <= files.keys() <= set(SUFFIXES):
                raise BadFile(f"the files of {name} end in {', '.join(files)}")
            for suffix in sorted(files, key=lambda each: each == ".json"):
                written[self.path / f"{name}{suffix}"] = files[suffix]
        write_together(written)
        for name, files in pictures.items():
            for each in former[name] - {f"{name}{suffix}" for suffix in files}:
                (self.path / each).unlink(missing_ok=True)

    def _left_of(self, name: str) -> set[str]:
        """Return files of a name that an earlier climb may have left.

        An array is one only if the record names it: others write files of this kind as well.
        """
        ours = {f"{name}.webp", f"{name}{INPUT}"}
        try:
            return ours | ({Record.read(self.path / f"{name}.json").array} & {f"{name}{ARRAY}"})
        except BadFile:  # none, or no whole one
            return ours

    def find(
        self,
        name: str,
        request: dict[str, Any],
        weights: dict[str, str],
        upgraded: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> Record | None:
        """Return the record of that name, or None.

        It is returned if the same request with the same weights made it and its files are whole,
        in whatever batch it climbed (see `forms.asked`).
        `upgraded` returns the request of an older record as this version would write it.
        """
        try:
            record = Record.read(self.path / f"{name}.json")
            made = json.loads(json.dumps(asked(upgraded(record.request))))
            same = made == json.loads(json.dumps(asked(request))) and record.weights == weights
            return record if same and self._is_whole(record) else None
        except BadFile:
            return None

    def _is_whole(self, record: Record) -> bool:
        """Return whether the files that a record names hold what it says."""
        pictures = {record.image: record.image_sha256}
        if record.input:
            pictures[record.input] = record.input_sha256
        whole = (pixels_sha256(read_png(self.path / each)) == pictures[each] for each in pictures)
        return all(whole) and (
            not record.array or pixels_sha256(self.array(record)) == record.array_sha256
        )

    def may_hold(self, record: Record) -> bool:
        """Return whether this picture would replace none of another request."""
        file = self.path / Path(record.image).with_suffix(".json")
        try:
            there = Record.read(file).request
            return asked(there) == asked(json.loads(json.dumps(record.request)))
        except (BadFile, KeyError, TypeError, IndexError):  # none, or no whole one
            return not (file.exists() or (self.path / record.image).exists())

    def picture(self, record: Record) -> Pixels:
        """Return a record's picture."""
        return read_png(self.path / record.image)

    def own_input(self, record: Record) -> Pixels:
        """Return what the subject reads of a record's picture, in 8 bits."""
        return read_png(self.path / record.input)

    def shown(self, record: Record) -> Pixels:
        """Return what a page shows of a record: its picture, or the input (see `seen_of`)."""
        picture = self.picture(record)
        return seen_of(picture, self.own_input(record)) if record.input else picture

    def array(self, record: Record) -> Numbers:
        """Return a record's array; `BadFile` where it is none."""
        file = self.path / record.array
        try:
            array: Numbers = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BadFile(f"{file} is not a .npy array: {error}") from None
        return array


def pixels_sha256(pixels: npt.NDArray[Any]) -> str:
    """Return the hash of the shape and the values of 8-bit pixels, or of an array of numbers.

    In whatever file they lie, it is the same.
    """
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
