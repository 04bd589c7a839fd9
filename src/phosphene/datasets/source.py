"""A source of photographs: the contract of all of them, and how one is found by its name."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image

from phosphene.datasets.fingerprints import contents
from phosphene.datasets.names import check_split
from phosphene.errors import BadFile
from phosphene.images import opened, short_side
from phosphene.parts import built_in

UNKNOWN = -1
"""The label of a photograph that has none; data sets write it where they hide labels."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """One photograph of a source.

    `where` is how a message names it. `label` is a place in the source's classes, or `UNKNOWN`.
    `key` tells it from others, "" where nothing does. `image` is an encoded picture, the file that
    holds one, or pixels, uint8 (height, width, 3) of RGB or (height, width) of grey; None where it
    is missing.
    """

    where: str
    label: int
    key: str
    image: bytes | Path | Pixels | None

    def picture(self) -> Image.Image:
        """Return the photograph in sRGB; `BadFile` where it cannot be read."""
        if isinstance(self.image, np.ndarray):
            return Image.fromarray(self.image).convert("RGB")
        return opened(self._file(), self.where)

    def short_side(self) -> int | None:
        """Return the shorter side in pixels, from a picture's header; None where it has none."""
        if isinstance(self.image, np.ndarray):
            return min(self.image.shape[:2])
        return None if self.image is None else short_side(self._file(), self.where)

    def content(self) -> str:
        """Return a hash of the label and of the image as it is stored."""
        image = self.image
        if isinstance(image, Path):
            return f"{self.label} {contents([image])[0]}"
        raw = b"" if image is None else np.ascontiguousarray(image).tobytes()
        shape = image.shape if isinstance(image, np.ndarray) else ""
        return f"{self.label} {shape} {hashlib.sha256(raw).hexdigest()}"

    def _file(self) -> Path | IO[bytes]:
        if isinstance(self.image, bytes):
            return io.BytesIO(self.image)
        if not isinstance(self.image, Path):
            raise BadFile(f"{self.where} has no image")
        return self.image


class Source(ABC):
    """Read one split of photographs: of a folder, of a hub, or of your own.

    A subclass says how many photographs there are and yields them, in an order that is always the
    same. It may set `name`, `classes` and `licence`, which an index or a weights file states. Where
    its photographs lie in `files`, by name within the data set, their contents tell the source from
    others; otherwise every photograph is read for that.

    `python:package.module:factory` names a source from outside. Its factory, which may be the class
    itself, is given the split ("train", "val" or "all") and returns an instance.
    """

    name: str = ""
    classes: tuple[str, ...] = ()
    licence: str = "not stated"
    split: str = "train"
    files: tuple[tuple[str, Path], ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return how many photographs there are."""

    @abstractmethod
    def rows(self, keyed: bool = False) -> Iterator[Row]:
        """Yield every photograph. Keys are needed only where they are `keyed`."""

    def contents(self) -> Iterable[str]:
        """Return what tells the photographs from others, where `files` do not."""
        return () if self.files else (row.content() for row in self.rows())

    def former_contents(self) -> Iterable[str]:
        """Return what told the photographs from others in version 0.1.0."""
        return ()

    def largest_label(self) -> int:
        """Return the largest label of the training split, where nothing names classes."""
        return max((row.label for row in self.rows()), default=UNKNOWN)


def open_source(name: str | Path, split: str, labelled: bool) -> Source:
    """Return one split of a data set: `SOURCE:PLACE`, such as `hf:OWNER/NAME`, or a path.

    The sources are the modules of `datasets/sources`. `labelled` refuses one without classes.
    """
    check_split(split)
    known = built_in("phosphene.datasets.sources")
    kind, _, place = str(name).partition(":")
    if kind not in known or not place:
        kind, place = "folder", str(name)
    source: Source = import_module(known[kind]).open_split(place, split, labelled)
    return source
