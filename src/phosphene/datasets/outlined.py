"""Photographs whose objects are outlined, from parquet shards."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from phosphene.datasets.fingerprints import fingerprint
from phosphene.datasets.meta import read_meta
from phosphene.datasets.source import UNKNOWN, Row, open_source
from phosphene.datasets.sources.shards import columns
from phosphene.datasets.stream import Damage, decode, how_read
from phosphene.errors import BadFile
from phosphene.images import middle


class Outlined:
    """Read photographs whose objects are outlined, one after the other.

    Shards with a column `objects` beside `image`: JSON, a list of {"c": number of the object's
    name, "p": [[x, y], …]}, in pixels of the picture counted from 1. The names are
    `object_classes` of `meta.json`.
    """

    def __init__(self, folder: str | Path, split: str, size: int | tuple[int, int], every: int = 1):
        """Open a split; photographs and masks are cut to the proportions of `size`, at that size.

        `size` is (height, width) in pixels; a number is both. One photograph in `every` is taken.
        """
        self._source = open_source(folder, split, labelled=False)
        self._files = [file for _, file in self._source.files]
        self._split = split
        self._every = every
        self.name = self._source.name
        self.licence = self._source.licence
        self.size = (size, size) if isinstance(size, int) else size
        self.damage = Damage(self.name)
        named = read_meta(Path(folder)).get("object_classes", ())
        self.objects = tuple(map(str, named)) if isinstance(named, list) else ()
        if not self._files or self._files[0].suffix != ".parquet" or not self.objects:
            raise BadFile(
                f"{folder} has no outlined objects; it takes shards with a column objects, and a "
                "meta.json that names object_classes"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Return what tells these photographs, and how they are read, from others."""
        return fingerprint(how_read(self._split, self.size, self._every), self._source.files)

    def __len__(self) -> int:
        return -(-len(self._source) // self._every)

    def photographs(
        self,
    ) -> Iterator[tuple[npt.NDArray[np.uint8], dict[int, npt.NDArray[np.bool_]]]]:
        """Yield pixels uint8 (*size, 3), and for each object in it the mask, of this size.

        A photograph that cannot be read is left out, and is named in `damage`.
        """
        rows = itertools.islice(self._rows(), 0, None, self._every)
        for number, (row, outlines) in enumerate(rows):
            if not isinstance(outlines, str):
                raise BadFile(f"{row.where}: image holds encoded bytes and objects a text")
            with self.damage.noted(number):
                sides = row.picture().size
                pixels = decode(row, self.size)
            if number not in self.damage:
                yield pixels, _masks(outlines, len(self.objects), sides, self.size, row.where)

    def _rows(self) -> Iterator[tuple[Row, Any]]:
        for file in self._files:
            found = zip(*columns(file, "image", "objects"), strict=True)
            for number, (raw, outlines) in enumerate(found):
                where = f"{file}, row {number}"
                if not (raw is None or isinstance(raw, bytes)):
                    raise BadFile(f"{where}: image holds encoded bytes and objects a text")
                yield Row(where, UNKNOWN, "", raw), outlines


def _masks(
    outlines: str, known: int, picture: tuple[int, int], size: tuple[int, int], where: str
) -> dict[int, npt.NDArray[np.bool_]]:
    """Return the mask of each object in the middle of a picture (width, height)."""
    height, width = size
    left, top, right, bottom = middle(picture, size)
    drawn: dict[int, Image.Image] = {}
    try:
        for outline in json.loads(outlines):
            number = int(outline["c"])
            corners = [
                ((x - 1 - left) * width / (right - left), (y - 1 - top) * height / (bottom - top))
                for x, y in outline["p"]
            ]
            if not 0 <= number < known or not np.isfinite(corners).all():
                raise ValueError(f"an outline of object {number}, {known} are named")
            if len(corners) > 2:
                mask = drawn.setdefault(number, Image.new("1", (width, height)))
                ImageDraw.Draw(mask).polygon(corners, fill=1)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BadFile(f"{where}: objects is not a list of outlines: {error}") from None
    return {number: np.asarray(mask) for number, mask in drawn.items()}
