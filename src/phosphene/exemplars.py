"""Which photographs excite a unit most, where, and how its activation is spread over all of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from phosphene import images
from phosphene.datasets import Stream
from phosphene.errors import BadFile, BadRequest
from phosphene.files import whole
from phosphene.probe import find_layer, probe
from phosphene.receptive_fields import Box, receptive_fields
from phosphene.subjects import Subject
from phosphene.units import Unit

FORMAT = 1
MOST_SAMPLED = 2048
"""Photographs whose activations are all kept, evenly spaced among those seen; from them come the quantiles."""


@dataclass(eq=False)
class Exemplars:
    """What one pass over `seen` photographs found for every channel of one layer.

    A photograph's activation of a channel is its largest over all positions. `values` (channels, k) are the largest
    of them, best first and the earlier photograph first among equals, `photographs` (channels, k) whose they are (−1
    where fewer were seen), `positions` (channels, k, 2) the row and column of each peak, 0 without a map. `sample`
    (m, channels) has every `every`-th photograph's, `silent` (channels,) counts those that were not above 0.
    """

    values: Tensor
    photographs: Tensor
    positions: Tensor
    sample: Tensor
    silent: Tensor
    seen: int = 0
    every: int = 1

    @classmethod
    def none_yet(cls, channels: int, k: int) -> Exemplars:
        return cls(
            torch.full((channels, k), float("-inf")),
            torch.full((channels, k), -1),
            torch.zeros(channels, k, 2, dtype=torch.int64),
            torch.zeros(0, channels),
            torch.zeros(channels, dtype=torch.int64),
        )

    def take(self, layer: Tensor) -> None:
        """The next photographs' activations, (batch, channels, …)."""
        maps = layer.float().cpu().nan_to_num(nan=float("-inf"))  # what is no number is nobody's exemplar
        maps = maps.flatten(2) if maps.ndim > 2 else maps[..., None]
        columns = layer.shape[3] if layer.ndim == 4 else 1
        peaks, places = maps.max(2)
        numbers = torch.arange(self.seen, self.seen + len(peaks))
        values = torch.cat([self.values, peaks.T], 1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.values.shape[1]]
        found = torch.stack([places.T // columns, places.T % columns], 2)
        self.values = values.gather(1, order)
        self.photographs = torch.cat([self.photographs, numbers.expand(peaks.shape[1], -1)], 1).gather(1, order)
        self.positions = torch.cat([self.positions, found], 1).gather(1, order[..., None].expand(-1, -1, 2))
        self.silent = self.silent + (peaks <= 0).sum(0)
        self.sample = torch.cat([self.sample, peaks[numbers % self.every == 0]])
        while len(self.sample) > MOST_SAMPLED:
            self.sample, self.every = self.sample[::2].clone(), 2 * self.every
        self.seen += len(peaks)

    def quantiles(self, channel: int, shares: Sequence[float]) -> Tensor:
        """(len(shares),): the activations of a channel that these shares of photographs stay below, from the sample."""
        return self.sample[:, channel].quantile(torch.tensor(shares))


def find_exemplars(
    subject: Subject,
    layers: Sequence[str],
    data: Stream,
    file: Path,
    *,
    k: int = 9,
    batch: int = 64,
    device: str = "cpu",
    every: float = 30.0,
    report: Callable[[int], None] = lambda seen: None,
) -> dict[str, Exemplars]:
    """One pass over the photographs for every channel of some layers, or what is left of it.

    The index `file` (safetensors) is written every so many seconds and at the end; a pass that was interrupted goes on
    where it was, and one that is done is only read. `BadRequest` where the file is of another subject, data or k.
    """
    for layer in layers:
        find_layer(subject.network, layer, subject.name)
    shapes = subject.shapes()
    identity = {
        "format": FORMAT,
        "subject": str(subject.card.get("sha256", subject.name)),
        "data": data.fingerprint,
        "k": k,
    }
    found, finished = _read(file, identity)
    if finished and set(layers) <= found.keys():
        return found
    if finished or set(layers) != found.keys():  # a pass is over one set of layers
        layers = list(dict.fromkeys([*layers, *(found if finished else ())]))
        found = {layer: Exemplars.none_yet(shapes[layer][0], k) for layer in layers}
    done, saved = next(iter(found.values())).seen, time.monotonic()
    subject.network.to(device)
    with probe(subject.network, layers) as read, torch.no_grad():
        for pixels in _batches(data, done, min(batch, subject.batch or batch)):
            photographs = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
            activations = read(subject.prepare(photographs))
            for layer, exemplars in found.items():
                exemplars.take(activations[layer])
            done += len(pixels)
            report(done)
            if time.monotonic() - saved > every:
                _write(file, found, {**identity, "finished": False})
                saved = time.monotonic()
    if not done:
        raise BadFile(f"{data.name} holds no photographs")
    _write(file, found, {**identity, "finished": True})
    return found


def sheet(subject: Subject, units: Sequence[Unit], found: Mapping[str, Exemplars], data: Stream, file: Path) -> None:
    """A contact sheet, a row for each unit, of its exemplars cut to the receptive field of their peaks."""
    kept = {unit: found[unit.layer].photographs[unit.channel].tolist() for unit in units}
    wanted = {number for numbers in kept.values() for number in numbers if number >= 0}
    pictures = {number: pixels for number, pixels, _ in data.photographs(wanted)}
    layers = list(dict.fromkeys(unit.layer for unit in units))
    fields = receptive_fields(subject.network, subject.size, layers, subject.batch or 32)
    blank = np.full((data.size, data.size, 3), 255, np.uint8)
    tiles, labels = [], []
    for unit, numbers in kept.items():
        exemplars, (target,) = found[unit.layer], subject.targets(f"{unit.layer}:{unit.channel}")
        for place, number in enumerate(numbers):
            field = fields.get(unit.layer)
            row, column = exemplars.positions[unit.channel, place].tolist()
            box = field.box(row, column) if field else Box(0, 0, *subject.size)
            tiles.append(_cut(pictures[number], box, subject.size) if number >= 0 else blank)
            labels.append(f"{target.label}\n{exemplars.values[unit.channel, place]:.2f}" if number >= 0 else "\n")
    images.write_png(file, images.contact_sheet(tiles, labels, columns=len(numbers)))


def _cut(picture: images.Pixels, box: Box, size: tuple[int, int]) -> images.Pixels:
    """What of a square picture lies in a box of the network's input, enlarged to the same square, the rest white."""
    side = len(picture)
    (height, width), whole_picture = size, Image.fromarray(picture)
    corners = (box.left / width, box.top / height, box.right / width, box.bottom / height)
    left, top, right, bottom = (round(side * corner) for corner in corners)
    crop = whole_picture.crop((left, top, right, bottom))
    return np.asarray(ImageOps.pad(crop, (side, side), Image.Resampling.LANCZOS, color="white"))


def _batches(data: Stream, start: int, size: int) -> Iterator[Any]:
    """Pixels (batch, size, size, 3) from photograph `start` on."""
    waiting = []
    for _, pixels, _ in data.photographs(_From(start)):
        waiting.append(pixels)
        if len(waiting) == size:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield np.stack(waiting)


@dataclass(frozen=True)
class _From:
    """All numbers from `start` on."""

    start: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= self.start


_PARTS = ("values", "photographs", "positions", "sample", "silent")


def _write(file: Path, found: dict[str, Exemplars], identity: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    one = next(iter(found.values()))
    tensors = {f"{layer}.{part}": getattr(each, part).contiguous() for layer, each in found.items() for part in _PARTS}
    text = json.dumps({**identity, "layers": list(found), "seen": one.seen, "every": one.every})
    with whole(file) as scratch:
        save_file(tensors, scratch, {"phosphene": text})


def _read(file: Path, identity: dict[str, Any]) -> tuple[dict[str, Exemplars], bool]:
    """What an index holds, and whether its pass came to its end; nothing where there is no index yet."""
    if not file.exists():
        return {}, False
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as kept:
            said = json.loads(kept.metadata()["phosphene"])
            found = {layer: _kept(kept, layer, said) for layer in said["layers"]}
            finished = bool(said["finished"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadFile(f"{file} is no index of exemplars ({error}); delete it, or give another --out") from None
    if wrong := [key for key in identity if said.get(key) != identity[key]]:
        raise BadRequest(f"{file} was made with another {wrong[0]}; give another --out, or what it was made with")
    return found, finished


def _kept(kept: Any, layer: str, said: dict[str, Any]) -> Exemplars:
    """One layer's; `ValueError` where its tensors do not fit together."""
    values, photographs, positions, sample, silent = (kept.get_tensor(f"{layer}.{part}") for part in _PARTS)
    channels = len(silent)
    if not (values.shape == photographs.shape == positions.shape[:2] == (channels, said["k"])):
        raise ValueError(f"layer {layer} has tensors that do not fit together")
    if sample.ndim != 2 or sample.shape[1] != channels or said["seen"] < 0 or said["every"] < 1:
        raise ValueError(f"layer {layer} has a sample that does not fit")
    return Exemplars(values, photographs, positions, sample, silent, int(said["seen"]), int(said["every"]))
