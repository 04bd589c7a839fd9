"""The object that each channel of a layer detects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from phosphene import forms
from phosphene.files import path_of
from phosphene.forms.dissection import UnitOverlap
from phosphene.notebook._results import StudyResult
from phosphene.notebook._shared import USUAL_SIZE, Place, device_for, lent, progress
from phosphene.studies.dissection import QUANTILE, Dissection, Search
from phosphene.subjects import Subject
from phosphene.tables import Table, detectors_table


class DissectionResult(StudyResult[UnitOverlap]):
    """Hold the object that each channel detects. A notebook shows the table of detectors.

    `form` is what `dissection.json` says. Each row has its `object`, its overlap `iou`, and others.
    """

    files = ("dissection.json",)

    def __init__(self, form: forms.Dissection, place: Place) -> None:
        self.form = form
        self.rows = form.units
        self.folder = place.folder
        self._place = place  # the folder lives as long as it

    @property
    def table(self) -> Table:
        """Return the table that `phosphene dissect` prints."""
        return detectors_table(self.form)

    @property
    def detectors(self) -> list[UnitOverlap]:
        """Return the channels that detect an object, the best one first."""
        found = [row for row in self.rows if row.iou > self.form.detector_above]
        return sorted(found, key=lambda row: -row.iou)

    def __repr__(self) -> str:
        layer, total = self.form.layer, len(self)
        return f"<DissectionResult of {layer}: {len(self.detectors)} of {total:,} channels detect>"

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def dissect(
    subject: Subject | nn.Module | str | Path,
    layer: str,
    images: str | Path,
    *,
    split: str = "all",
    quantile: float = QUANTILE,
    batch: int = 16,
    size: int | tuple[int, int] = USUAL_SIZE,
    fit: str = "",
    inputs: Mapping[str, Any] = MappingProxyType({}),
    device: str = "auto",
    out: str | Path | None = None,
    quiet: bool | None = None,
) -> DissectionResult:
    """Return the object that each channel of a layer detects, as `phosphene dissect` does.

    Args:
        subject: as for `phosphene.synthesize`.
        layer: a layer with a map.
        images: shards of photographs with outlined objects.
        split: "train", "val" or "all" of them.
        quantile: the share of a channel's activations that is its answer.
        batch: photographs that are read at once.
        size: what a module reads, in pixels: one number, or (height, width).
        fit: how images of other proportions come to the subject's shape (see `tensors.FITS`).
        inputs: what the network reads beside images, by argument.
        device: "auto" takes an accelerator where there is one.
        out: a folder for `dissection.json`. Without one, the file goes with the result.
        quiet: no progress; unless told, it is shown on a terminal and in a notebook.

    Examples:
        >>> phosphene.dissect("caffenet-objects", "conv5", "miniplaces-objects")
    """
    photographs = path_of(images, "images")
    where = device_for(device)
    how = Dissection(split=split, quantile=quantile, batch=batch)
    with lent(subject, fit, inputs, size) as network:
        place = Place(out)
        read = () if isinstance(subject, (Subject, nn.Module)) else (str(subject),)
        search = Search.of(network, layer, photographs, place.folder, how, *read)
        with progress(search.photographs, "looking", "photographs", quiet) as advance:
            return DissectionResult(search.look(where, advance), place)
