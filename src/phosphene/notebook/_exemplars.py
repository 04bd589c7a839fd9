"""The photographs that excite units most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, SupportsIndex

import numpy as np
from torch import nn

from phosphene import forms
from phosphene.files import path_of
from phosphene.forms.exemplars import UnitExemplars
from phosphene.images import Pixels, read_png
from phosphene.notebook._results import StudyResult
from phosphene.notebook._shared import (
    USUAL_SIZE,
    Place,
    device_for,
    lent,
    progress,
    since,
    texts_of,
)
from phosphene.studies.exemplars import Exemplars, Search, signed_layers
from phosphene.subjects import Subject
from phosphene.tables import Table, exemplars_table
from phosphene.units import Target, Unit


class ExemplarResult(StudyResult[UnitExemplars]):
    """Hold the exemplars of units. A notebook shows their contact sheet.

    `form` is what `exemplars.json` says. Each row has the activations in `values`, the numbers of
    the photographs and their `files`.
    """

    def __init__(self, form: forms.Exemplars, signed: Sequence[str], place: Place) -> None:
        self.form = form
        self.rows = form.units
        self.folder = place.folder
        own = ("exemplars.safetensors", "exemplars.json", "exemplars.png")
        self.files = (*own, *(row.whole for row in self.rows))
        self._place, self._signed = place, signed  # the folder lives as long as its place

    @property
    def table(self) -> Table:
        """Return the table that `phosphene exemplars` prints."""
        return exemplars_table(self.rows, self._signed)

    def sheet(self) -> Pixels:
        """Return the contact sheet: the parts of photographs that excite each unit."""
        return read_png(self.folder / "exemplars.png")

    def photographs(self, which: SupportsIndex | str) -> list[Pixels]:
        """Return the whole photographs of a unit (height, width, 3), best first."""
        row = self[which]
        strip = read_png(self.folder / row.whole)
        height = self.form.tile_height or self.form.tile
        lines = [strip[top : top + height] for top in range(0, len(strip), height)]
        tiles = [
            line[:, left : left + self.form.tile]
            for line in lines
            for left in range(0, line.shape[1], self.form.tile)
        ]
        return [np.ascontiguousarray(tile) for tile in tiles[: len(row.values)]]

    def _repr_png_(self) -> bytes:
        return (self.folder / "exemplars.png").read_bytes()


def exemplars(
    subject: Subject | nn.Module | str | Path,
    units: str | Unit | Target | Sequence[str | Unit | Target],
    images: str | Path,
    *,
    split: str = "train",
    k: int = 9,
    batch: int = 64,
    size: int | tuple[int, int] = USUAL_SIZE,
    fit: str = "",
    inputs: Mapping[str, Any] = MappingProxyType({}),
    device: str = "auto",
    out: str | Path | None = None,
    quiet: bool | None = None,
) -> ExemplarResult:
    """Return the photographs that excite units most, as `phosphene exemplars` does.

    Args:
        subject: as for `phosphene.synthesize`.
        units: channels such as "conv5:0-31" or "class:lion", wherever they peak.
        images: a folder of photographs (see the guide "Train a network").
        split: "train", "val" or "all" of them.
        k: exemplars of each unit.
        batch: photographs that are read at once.
        size: what a module reads, in pixels: one number, or (height, width).
        fit: how images of other proportions come to the subject's shape (see `tensors.FITS`).
        inputs: what the network reads beside images, by argument.
        device: "auto" takes an accelerator where there is one.
        out: a folder that keeps the index, so that the same layers need no other pass. Without
            one, the files go with the result.
        quiet: no progress; unless told, it is shown on a terminal and in a notebook.

    Examples:
        >>> phosphene.exemplars("caffenet-objects", ["class:lion", "conv5:7"], "photos")
    """
    texts = texts_of(units)
    photographs = path_of(images, "images")
    where = device_for(device)
    how = Exemplars(split=split, k=k, batch=batch)
    with lent(subject, fit, inputs, size) as network:
        place = Place(out)
        read = () if isinstance(subject, (Subject, nn.Module)) else (str(subject),)
        search = Search.of(network, texts, photographs, place.folder, how, *read)
        with progress(None, "looking", "photographs", quiet) as advance:
            found = search.look(where, since(advance))
            return ExemplarResult(search.describe(found), signed_layers(found), place)
