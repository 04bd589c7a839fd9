"""Which object a channel detects: network dissection (Bau et al. 2017) with outlined objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from phosphene import forms
from phosphene.datasets import Outlined, batched, check_apart
from phosphene.errors import BadRequest
from phosphene.files import outlet
from phosphene.forms.dissection import UnitOverlap
from phosphene.parts import check_options, option
from phosphene.probe import Read, find_layer
from phosphene.runtime import Runtime
from phosphene.studies._study import Study, counted
from phosphene.subjects import Subject
from phosphene.tensors import as_images
from phosphene.units import Unit

QUANTILE = 0.005
"""Share of a channel's activations that count as its answer: the T_k of Bau et al. 2017."""
DETECTOR = 0.04
"""A channel whose best object overlaps by more than this is called its detector, as there."""
MIN_PHOTOGRAPHS = 10
"""An object in fewer photographs is not counted, as there: in so few, chance overlaps."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How far each channel's answer and each object cover the same pixels.

    `iou` is (channels, objects), 0 … 1, and 0 for objects in too few photographs. `thresholds`
    (channels,) are what an activation must exceed to be an answer.
    """

    layer: str
    objects: tuple[str, ...]
    iou: Tensor
    thresholds: Tensor
    photographs: int
    quantile: float

    def best(self, channel: int, n: int = 4) -> list[tuple[str, float]]:
        """Return the objects that a channel covers best, with their IoU.

        There are none where it covers nothing.
        """
        values, numbers = self.iou[channel].topk(min(n, len(self.objects)))
        return [
            (self.objects[i], round(float(v), 4))
            for i, v in zip(numbers, values, strict=True)
            if v > 0
        ]

    def form(self, subject: Subject, data: Outlined) -> forms.Dissection:
        """Return what `phosphene dissect` keeps, a row for each channel."""
        rows = []
        for channel in range(len(self.iou)):
            (name, iou), *others = self.best(channel) or [("", 0.0)]
            unit = f"{self.layer}:{channel}"
            rows.append(UnitOverlap(unit=unit, object=name, iou=iou, others=tuple(others)))
        return forms.Dissection(
            subject=subject.name,
            subject_sha256=subject.identity,
            layer=self.layer,
            data=data.name,
            licence=data.licence,
            quantile=self.quantile,
            detector_above=DETECTOR,
            photographs=self.photographs,
            units=tuple(rows),
        )


def dissect(
    subject: Subject,
    layer: str,
    data: Outlined,
    *,
    quantile: float = QUANTILE,
    batch: int = 16,
    device: str = "cpu",
    report: Callable[[int], None] = lambda photographs: None,
) -> Overlaps:
    """Return how well the answers of a layer's channels cover objects.

    Two passes over the photographs find what each channel calls an answer, and then what its
    answers cover. A channel's map is enlarged to the photograph and cut at its threshold T_k; its
    overlap with an object is counted over all photographs together. A pixel in no outline is
    unknown, so it counts neither for nor against.
    """
    find_layer(subject.network, layer, subject.name)
    shape = subject.shape(layer)
    if len(shape) != 3:
        raise BadRequest(
            f"{subject.name}: layer {layer} has no map, so nothing shows where it answers"
        )
    if not 0 < quantile < 1:
        raise BadRequest(f"a quantile lies between 0 and 1; got {quantile}")
    if not len(data):
        raise BadRequest(f"{data.name} holds no photographs")
    subject.network.to(device)
    with subject.reading([layer]) as read, torch.no_grad():
        thresholds = _thresholds(
            _maps(subject, read, layer, data, batch, device, report), quantile, len(data), shape
        )
        whole = len(data) - len(data.damage.found)
        data.damage.tell(whole)
        answered = torch.zeros(shape[0])
        both = torch.zeros(shape[0], len(data.objects))
        covered = torch.zeros(len(data.objects))
        there = torch.zeros(len(data.objects))
        for maps, masks in _maps(subject, read, layer, data, batch, device, report):
            answers = interpolate(maps, data.size, mode="bilinear") > thresholds[:, None, None]
            for answer, mask in zip(answers.flatten(2), masks, strict=True):
                if mask:
                    outlined = torch.from_numpy(np.stack(list(mask.values()))).flatten(1).to(device)
                    numbers = list(mask)
                    known = outlined.any(0)
                    own = answer[:, known].float()
                    there[numbers] += 1
                    answered += own.sum(1).cpu()
                    covered[numbers] += outlined.sum(1).cpu().float()
                    both[:, numbers] += (own @ outlined[:, known].T.float()).cpu()
    iou = both / (answered[:, None] + covered - both).clamp(min=1)
    iou[:, there < MIN_PHOTOGRAPHS] = 0
    return Overlaps(layer, data.objects, iou, thresholds.cpu(), whole, quantile)


Maps = Iterator[tuple[Tensor, list[dict[int, Any]]]]


def _maps(
    subject: Subject,
    read: Read,
    layer: str,
    data: Outlined,
    batch: int,
    device: str,
    report: Callable[[int], None],
) -> Maps:
    """Yield a layer's maps on all photographs, with the masks of each photograph's objects.

    The maps are (batch, channels, height, width).
    """
    for waiting in batched(data.photographs(), subject.at_most(batch)):
        pixels = torch.from_numpy(np.stack([pixels for pixels, _ in waiting])).to(device)
        yield (
            read(subject.prepare(as_images(pixels)))[layer].float(),
            [masks for _, masks in waiting],
        )
        report(len(waiting))


def _thresholds(maps: Maps, quantile: float, photographs: int, shape: tuple[int, ...]) -> Tensor:
    """Return what the share `quantile` of each channel's activations exceeds, (channels,), exactly.

    Only the largest are kept, one more than may exceed it: memory is that share of all activations.
    Of no activations it is 0.
    """
    kept = max(1, math.floor(quantile * photographs * shape[1] * shape[2])) + 1
    largest = torch.empty(shape[0], 0)
    total = 0
    for values, _ in maps:
        values = values.transpose(0, 1).flatten(1)
        total += values.shape[1]
        together = torch.cat([largest.to(values), values], 1)
        largest = together.topk(min(kept, together.shape[1]), sorted=True).values
    rank = max(1, math.floor(quantile * total))  # of fewer, where photographs could not be read
    return largest[:, min(rank, largest.shape[1] - 1)] if total else largest.sum(1)


@dataclass(frozen=True)
class Dissection(Study):
    """Which object each channel of a layer detects, on photographs with outlined objects."""

    split: str = option("all", "train, val or all of them.")
    quantile: float = option(QUANTILE, "Share of a channel's activations that are its answer.")
    batch: int = option(16, "Photographs read at once.", low=1, high=4096)

    def __post_init__(self) -> None:
        check_options(self)

    def run(
        self, subject: Subject, units: Sequence[Unit], images: Path, runtime: Runtime
    ) -> forms.Dissection:
        """Return the objects of all channels of the units' layer."""
        layers = list(dict.fromkeys(unit.layer for unit in units))
        if len(layers) != 1:
            raise BadRequest(f"a dissection is of one layer; got {', '.join(layers) or 'none'}")
        data = Outlined(images, self.split, subject.photograph_size)
        found = dissect(
            subject,
            layers[0],
            data,
            quantile=self.quantile,
            batch=self.batch,
            device=runtime.device,
            report=counted(runtime, 2 * len(data)),
        )
        return found.form(subject, data)


@dataclass(frozen=True)
class Search:
    """Make two passes over photographs with outlined objects, for a layer of a network."""

    subject: Subject
    layer: str
    data: Outlined
    folder: Path
    how: Dissection

    @classmethod
    def of(
        cls,
        subject: Subject,
        layer: str,
        photographs: Path,
        folder: Path,
        how: Dissection,
        *read: str,
    ) -> Search:
        """Return the search; before any work, a folder is refused that cannot take its file.

        A file that is one of those that are `read` is refused as well.
        """
        check_apart(folder, photographs)
        outlet(folder / "dissection.json", *read)
        data = Outlined(photographs, how.split, subject.photograph_size)
        return cls(subject, layer, data, folder, how)

    @property
    def photographs(self) -> int:
        """Return how many photographs both passes read together."""
        return 2 * len(self.data)

    def look(
        self, device: str, report: Callable[[int], None] = lambda photographs: None
    ) -> forms.Dissection:
        """Return which object each channel detects, and write it."""
        options: dict[str, Any] = {"quantile": self.how.quantile, "batch": self.how.batch}
        found = dissect(
            self.subject, self.layer, self.data, device=device, report=report, **options
        ).form(self.subject, self.data)
        found.write(self.folder / found.file_name)
        return found
