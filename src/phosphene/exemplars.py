"""Which photographs excite a unit most, where, and how its activation spreads over all of them."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from phosphene import forms, images, kept
from phosphene.datasets import Stream
from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.probe import find_layer
from phosphene.receptive_fields import Box, Fields, receptive_fields
from phosphene.subjects import READINGS, Subject
from phosphene.tensors import as_images
from phosphene.texts import clean, file_names, slug
from phosphene.units import Unit

FORMAT = 1
MAX_SAMPLED = 2048
"""Photographs whose activations are all kept, evenly spaced among those seen.

The quantiles come from them.
"""
MAX_ROWS, MAX_COLUMNS = 50, 20
"""Units on a contact sheet, and exemplars of each."""
MAX_STRIP, MAX_TILE = 16_000_000, 2048
"""Pixels of a strip, and of a tile's side in it; photographs that are more are shrunk."""
MAX_HELD = 1 << 30
"""Bytes of photographs in memory while they are cut out."""
SHARES = (0.01, 0.1, 0.5, 0.9, 0.99)
"""The quantiles that are told of a unit."""


@dataclass(eq=False)
class Exemplars:
    """What one pass over `seen` photographs found for every channel of one layer.

    A photograph's activation of a channel is its largest over all positions. `values` (channels, k)
    are the largest of them, best first and the earlier photograph first among equals, `photographs`
    (channels, k) whose they are (−1 where fewer were seen), `positions` (channels, k, 2) the row
    and column of each peak, 0 without a map. `sample` (m, channels) has every `every`-th
    photograph's, `silent` (channels,) counts those that were not above 0. `numbers` (m,) are whose
    the sample is: a photograph that is `damaged` has a number, and was not seen.
    """

    values: Tensor
    photographs: Tensor
    positions: Tensor
    sample: Tensor
    silent: Tensor
    seen: int = 0
    every: int = 1
    numbers: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    damaged: dict[int, str] = field(default_factory=dict)

    @property
    def after(self) -> int:
        """Return the number of the photograph after the last one that was looked at."""
        return self.seen + len(self.damaged)

    @property
    def whole(self) -> list[int]:
        """Return the numbers of the photographs that were seen."""
        return [number for number in range(self.after) if number not in self.damaged]

    @classmethod
    def none_yet(cls, channels: int, k: int) -> Exemplars:
        return cls(
            torch.full((channels, k), float("-inf")),
            torch.full((channels, k), -1),
            torch.zeros(channels, k, 2, dtype=torch.int64),
            torch.zeros(0, channels),
            torch.zeros(channels, dtype=torch.int64),
        )

    def first(self, k: int) -> Exemplars:
        """Return the same with no more than `k` exemplars of each channel."""
        best = (part[:, :k] for part in (self.values, self.photographs, self.positions))
        values, photographs, positions = best
        return replace(self, values=values, photographs=photographs, positions=positions)

    def take(self, layer: Tensor, numbers: Sequence[int] | None = None) -> None:
        """Take the activations of the next photographs, (batch, channels, …), and their numbers."""
        peaks, places = find_peaks(layer)
        given = range(self.after, self.after + len(peaks)) if numbers is None else numbers
        own = torch.tensor(list(given), dtype=torch.int64)
        values = torch.cat([self.values, peaks.T], 1)
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.values.shape[1]]
        self.values = values.gather(1, order)
        self.photographs = torch.cat([self.photographs, own.expand(peaks.shape[1], -1)], 1).gather(
            1, order
        )
        places = torch.cat([self.positions, places.transpose(0, 1)], 1)
        self.positions = places.gather(1, order[..., None].expand(-1, -1, 2))
        self.silent = self.silent + (peaks <= 0).sum(0)
        self.sample = torch.cat([self.sample, peaks[own % self.every == 0]])
        self.numbers = torch.cat([self.numbers, own[own % self.every == 0]])
        while len(self.sample) > MAX_SAMPLED:
            self.every *= 2
            left = self.numbers % self.every == 0
            self.sample, self.numbers = self.sample[left], self.numbers[left]
        self.seen += len(peaks)

    def quantiles(self, channel: int, shares: Sequence[float]) -> Tensor:
        """Return the activations of a channel that these shares of photographs stay below.

        They are (len(shares),), taken from the sample.
        """
        return self.sample[:, channel].quantile(torch.tensor(shares))

    def best(self, channel: int) -> list[int]:
        """Return the numbers of a channel's exemplars.

        They are fewer than k where fewer photographs were seen.
        """
        return [number for number in self.photographs[channel].tolist() if number >= 0]

    def nearest(self, channel: int, n: int = 6) -> list[tuple[int, float]]:
        """Return the channels that prefer the same photographs, each with its correlation.

        They are those whose activations in the sample correlate most with this one's. There are
        none for a channel that does not vary.
        """
        spread = self.sample - self.sample.mean(0)
        length = spread.norm(dim=0)
        if not length[channel] > 0:  # nor where it is no number
            return []
        close = (spread.T @ spread[:, channel]) / (length * length[channel])
        close[(length == 0) | (torch.arange(len(close)) == channel)] = -torch.inf
        values, channels = close.topk(max(0, min(n, int((length > 0).sum()) - 1)))
        return [(int(c), round(float(v), 4)) for c, v in zip(channels, values, strict=True)]


def find_peaks(layer: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest activation of each channel over all positions, and where it is.

    `layer` is (batch, channels, …). The values are (batch, channels), the places (batch, channels,
    2): row and column, 0 without a map. Both are on the CPU. What is no number is nobody's peak.
    """
    maps = layer.float().nan_to_num(nan=float("-inf"))
    maps = maps.flatten(2) if maps.ndim > 2 else maps[..., None]
    columns = layer.shape[3] if layer.ndim == 4 else 1
    peaks, places = maps.max(2)
    return peaks.cpu(), torch.stack([places // columns, places % columns], 2).cpu()


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
    """Make one pass over the photographs for every channel of some layers, or its rest.

    The index `file` (safetensors) is written every so many seconds and at the end; a pass that was
    interrupted goes on where it was, and one that is done is only read. A photograph that cannot be
    read is left out, and said. An index that holds more than `k` exemplars of each channel serves
    too. `BadRequest` where the file is of another subject or other data, or holds fewer.
    """
    for layer in layers:
        find_layer(subject.network, layer, subject.name)
    shapes = subject.shapes()
    identity = {
        "subject": subject.identity,
        "data": data.fingerprint,
        "reading": subject.reading_version(),
        "k": k,
    }
    found, finished = _read(file, identity, data, subject)
    if finished and set(layers) <= found.keys():
        data.damage.tell(next(iter(found.values())).seen)
        return {layer: each.first(k) for layer, each in found.items()}
    number = identity["k"] = _kept_k(found) or k
    if finished or set(layers) != found.keys():  # a pass is over one set of layers
        layers = list(dict.fromkeys([*layers, *(found if finished else ())]))
        found = {layer: Exemplars.none_yet(shapes[layer][0], number) for layer in layers}
    first, saved = next(iter(found.values())), time.monotonic()
    subject.network.to(device)
    with subject.reading(layers) as read, torch.no_grad():
        for numbers, pixels in _batches(data, first.after, subject.at_most(batch)):
            photographs = as_images(torch.from_numpy(pixels).to(device))
            activations = read(subject.prepare(photographs))
            for layer, exemplars in found.items():
                exemplars.damaged = data.damage.before(numbers[-1])
                exemplars.take(activations[layer], numbers)
            report(first.after)
            if time.monotonic() - saved > every:
                _write(file, found, identity, False)
                saved = time.monotonic()
    data.damage.tell(first.seen)
    if not first.seen:
        raise BadFile(f"{data.name} holds no photographs")
    for exemplars in found.values():
        exemplars.damaged = dict(data.damage.found)
    _write(file, found, identity, True)
    return {layer: each.first(k) for layer, each in found.items()}


def _kept_k(found: Mapping[str, Exemplars]) -> int:
    """Return how many exemplars of each channel an index has, 0 where it has none."""
    return max((each.values.shape[1] for each in found.values()), default=0)


def describe(
    subject: Subject,
    units: Sequence[Unit],
    found: Mapping[str, Exemplars],
    data: Stream,
    folder: Path,
) -> forms.Exemplars:
    """Write what was found of some units for people and for pages, and return it.

    The result has a row for each unit. In the folder: `exemplars.json` with it, `tiles/` with a
    strip of whole photographs for each unit, and `exemplars.png`, a contact sheet of the first
    units' first exemplars, cut to the receptive field of their peaks. A strip of many photographs
    has several lines, and smaller ones.
    """
    best = {unit: found[unit.layer].best(unit.channel) for unit in units}
    places = data.places({number for numbers in best.values() for number in numbers})
    layers = list(dict.fromkeys(unit.layer for unit in units))
    fields = receptive_fields(
        subject.network, subject.size, layers, subject.batch or 32, subject.tokens
    )
    names = file_names([slug(f"{unit.layer}:{unit.channel}") for unit in units])
    files = dict(zip(units, names, strict=True))
    shown = max(map(len, best.values()))
    tile = min(data.size, MAX_TILE, math.isqrt(MAX_STRIP // shown))
    sheet = _Sheet.of(len(units), shown, data.size)
    rows = []
    for group in _groups(best, max(1, MAX_HELD // (3 * data.size**2))):
        wanted = {number for unit in group for number in best[unit]}
        pictures = {number: (pixels, label) for number, pixels, label in data.photographs(wanted)}
        for unit in group:
            own = [pictures[number] for number in best[unit]]
            row = _row(
                subject,
                unit,
                found[unit.layer],
                fields.get(unit.layer),
                classes=tuple(len(data.classes) if label < 0 else label for _, label in own),
                files=tuple(places[number] for number in best[unit]),
                whole=f"tiles/{files[unit]}.webp",
            )
            images.write_webp(folder / row.whole, _strip([pixels for pixels, _ in own], tile))
            sheet.add(row, [pixels for pixels, _ in own])
            rows.append(row)
    sheet.write(folder / "exemplars.png")
    form = forms.Exemplars(
        subject=subject.name,
        subject_sha256=subject.identity,
        data=data.name,
        split=data.split,
        licence=data.licence,
        seen=rows[0].seen,
        k=shown,
        tile=tile,
        columns=_columns(tile),
        classes=tuple(data.classes),
        left_out=tuple(data.damage.found[number] for number in sorted(data.damage.found)),
        units=tuple(rows),
    )
    form.write(folder / "exemplars.json")
    return form


def _groups(best: Mapping[Unit, list[int]], most: int) -> Iterator[list[Unit]]:
    """Yield the units in groups of which each has no more than `most` photographs, or one unit."""
    group: list[Unit] = []
    wanted: set[int] = set()
    for unit, numbers in best.items():
        if group and len(wanted.union(numbers)) > most:
            yield group
            group, wanted = [], set()
        group.append(unit)
        wanted.update(numbers)
    yield group


def _columns(tile: int) -> int:
    """Return how many tiles a line of a strip has."""
    return images.MAX_WEBP // tile


def _strip(pictures: Sequence[images.Pixels], tile: int) -> images.Pixels:
    """Return pictures side by side, in several lines where one would be too long."""
    columns = min(_columns(tile), len(pictures))
    lines = -(-len(pictures) // columns)
    strip = Image.new("RGB", (columns * tile, lines * tile), "white")
    for i, picture in enumerate(pictures):
        strip.paste(_shrunk(picture, tile), (i % columns * tile, i // columns * tile))
    return np.asarray(strip)


def _shrunk(picture: images.Pixels, side: int) -> Image.Image:
    """Return a picture with this side, its own pixels where it has it."""
    whole_one = Image.fromarray(picture)
    if whole_one.size == (side, side):
        return whole_one
    return whole_one.resize((side, side), Image.Resampling.LANCZOS)


def _row(
    subject: Subject, unit: Unit, found: Exemplars, field: Fields | None, **photographs: Any
) -> forms.exemplars.UnitExemplars:
    """Return what is told of one unit."""
    name, numbers = f"{unit.layer}:{unit.channel}", found.best(unit.channel)
    positions = found.positions[unit.channel, : len(numbers)].tolist()
    quantiles = found.quantiles(unit.channel, SHARES).tolist()
    near = ((f"{unit.layer}:{c}", close) for c, close in found.nearest(unit.channel))
    return forms.exemplars.UnitExemplars(
        unit=name,
        label=subject.targets(name)[0].label,
        values=tuple(found.values[unit.channel, : len(numbers)].tolist()),
        photographs=tuple(numbers),
        positions=tuple(map(tuple, positions)),
        boxes=tuple(seen_box(field, position, subject.size) for position in positions),
        quantiles=dict(zip(map(str, SHARES), quantiles, strict=True)),
        silent=float(found.silent[unit.channel]) / found.seen,
        seen=found.seen,
        nearest=tuple(near),
        **photographs,
    )


@dataclass(frozen=True)
class _Sheet:
    """The tiles of a contact sheet, a row of `columns` for each of the first units."""

    columns: int
    side: int
    tiles: list[images.Pixels]
    labels: list[str]

    @classmethod
    def of(cls, units: int, shown: int, side: int) -> _Sheet:
        """Return an empty one whose tiles are as large as fit into a picture that can be read."""
        columns = min(shown, MAX_COLUMNS)
        room = images.MAX_PIXELS // (min(units, MAX_ROWS) * columns)
        return cls(columns, min(side, math.isqrt(room)), [], [])

    def add(self, row: forms.exemplars.UnitExemplars, pictures: Sequence[images.Pixels]) -> None:
        """Add a unit's exemplars, cut to what it sees of them, while there is room."""
        if len(self.tiles) >= MAX_ROWS * self.columns:
            return
        first = list(zip(pictures, row.boxes, row.values, strict=True))[: self.columns]
        missing = self.columns - len(first)
        cut = [_shrunk(cut_out(picture, box), self.side) for picture, box, _ in first]
        blank = np.full((self.side, self.side, 3), 255, np.uint8)
        self.tiles.extend([*map(np.asarray, cut), *[blank] * missing])
        label = clean(row.label)
        self.labels.extend(f"{label}\n{value:.2f}" for *_, value in first)
        self.labels.extend(["\n"] * missing)

    def write(self, file: Path) -> None:
        """Write the sheet as PNG."""
        images.write_png(file, images.contact_sheet(self.tiles, self.labels, self.columns))


def seen_box(
    field: Fields | None, position: Sequence[int], size: tuple[int, int]
) -> forms.exemplars.Box:
    """Return the receptive field of a unit at a position.

    It is (top, left, bottom, right) as shares of the input's height and width, and all of the input
    where the field is not known.
    """
    row, column = position
    box = field.box(row, column) if field else Box(0, 0, *size)
    height, width = size
    return (box.top / height, box.left / width, box.bottom / height, box.right / width)


def cut_out(picture: images.Pixels, box: Sequence[float]) -> images.Pixels:
    """Return the part of a square picture that lies in a box (shares of its side).

    It is enlarged to the same square; the rest is white.
    """
    side = len(picture)
    top, left, bottom, right = (round(side * edge) for edge in box)
    crop = Image.fromarray(picture).crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    return np.asarray(ImageOps.pad(crop, (side, side), Image.Resampling.LANCZOS, color="white"))


def _batches(data: Stream, start: int, size: int) -> Iterator[tuple[list[int], Any]]:
    """Yield numbers and pixels (batch, size, size, 3) from photograph `start` on."""
    numbers: list[int] = []
    waiting = []
    for number, pixels, _ in data.photographs(_From(start)):
        numbers.append(number)
        waiting.append(pixels)
        if len(waiting) == size:
            yield numbers, np.stack(waiting)
            numbers, waiting = [], []
    if waiting:
        yield numbers, np.stack(waiting)


@dataclass(frozen=True)
class _From:
    """All numbers from `start` on."""

    start: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= self.start


_PARTS = ("values", "photographs", "positions", "sample", "silent")
_LATER = ("numbers",)
"""What indexes of version 0.1.0 lack."""


def _write(
    file: Path, found: dict[str, Exemplars], identity: dict[str, Any], finished: bool
) -> None:
    one = next(iter(found.values()))
    tensors = {
        f"{layer}.{part}": getattr(each, part)
        for layer, each in found.items()
        for part in (*_PARTS, *_LATER)
    }
    state = {"layers": list(found), "seen": one.seen, "every": one.every, "damaged": one.damaged}
    kept.write(file, identity, {**state, **tensors}, finished)


def _read(
    file: Path, identity: dict[str, Any], data: Stream, subject: Subject
) -> tuple[dict[str, Exemplars], bool]:
    """Return what an index holds, and whether its pass came to its end.

    Where there is no index, it holds nothing. What it says of photographs that cannot be read goes
    to the data's `damage`.
    """
    index = kept.read(file)
    if index is None:
        return {}, False
    said = {**index.content, **(index.identity or {})}  # version 0.1.0 kept them side by side
    try:
        found = {layer: _kept(said, layer) for layer in said["layers"]}
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(
            f"{file} is no index of exemplars ({error}); delete it, or give another --out"
        ) from None
    if said.get("subject") == subject.former_identity != subject.identity:
        if not subject.made_by_library:
            raise BadRequest(
                f"{file} was made by version 0.1.0, which did not note how {subject.name} looks "
                "and computes; delete it, or give another folder"
            )
        said["subject"] = subject.identity
    former = data.is_former(str(said.get("data")))
    if former:
        said["data"] = identity["data"]
    if found and _kept_k(found) < identity["k"]:
        raise BadRequest(
            f"{file} holds {_kept_k(found)} exemplars of each unit, fewer than {identity['k']}; "
            "ask for no more, or delete it or give another folder to look at the photographs again"
        )
    wanted = {name: value for name, value in identity.items() if name != "k"}
    replace(index, identity={"reading": READINGS[0], **said}).check(wanted)
    if former:
        _check_former(file, data, lambda: _agrees(subject, found, data))
        if not index.finished:  # the rest would be read in another way than its beginning
            return {}, False
    for each in found.values():
        data.damage.found |= each.damaged
    return found, index.finished


def _check_former(file: Path, data: Stream, agrees: Callable[[], bool]) -> None:
    """Say that an index is of version 0.1.0; `BadRequest` where it may be of other photographs.

    It is taken where no photograph was written since, and where all photographs give the
    activations that it has, which only an index of few photographs can tell.
    """
    what = (
        f"{file} is of version 0.1.0, which told photographs by their names and sizes, and read "
        "none of their colour profiles"
    )
    again = "delete it, or give another --out, to look at them again"
    before = data.written_before(file.stat().st_mtime)
    if not before and not agrees():
        raise BadRequest(f"{what}; some of {data.name} were written after it: {again}")
    why = "none was written since" if before else "they give what it says"
    warnings.warn(f"{what}; {why}, so it is taken: {again}", Notice, stacklevel=2)


def _agrees(subject: Subject, found: Mapping[str, Exemplars], data: Stream) -> bool:
    """Return whether all photographs give the activations that an index has of each."""
    first = next(iter(found.values()))
    if first.every > 1:
        return False
    at = 0
    device = next(subject.network.parameters(), torch.zeros(())).device
    with subject.reading(list(found)) as read, torch.no_grad():
        for numbers, pixels in _batches(data, 0, subject.at_most(32)):
            activations = read(subject.prepare(as_images(torch.from_numpy(pixels).to(device))))
            for layer, exemplars in found.items():
                peaks, _ = find_peaks(activations[layer])
                own = exemplars.sample[at : at + len(numbers)]
                if peaks.shape != own.shape or not torch.allclose(peaks, own, 1e-3, 1e-3):
                    return False
            at += len(numbers)
    return at == first.seen


def _kept(said: Mapping[str, Any], layer: str) -> Exemplars:
    """One layer's; `ValueError` where its tensors do not fit together."""
    values, photographs, positions, sample, silent = (said[f"{layer}.{part}"] for part in _PARTS)
    channels = len(silent)
    if not (values.shape == photographs.shape == positions.shape[:2] == (channels, said["k"])):
        raise ValueError(f"layer {layer} has tensors that do not fit together")
    seen, every = int(said["seen"]), int(said["every"])
    if sample.ndim != 2 or sample.shape[1] != channels or seen < 0 or every < 1:
        raise ValueError(f"layer {layer} has a sample that does not fit")
    numbers = said.get(f"{layer}.{_LATER[0]}", every * torch.arange(len(sample)))
    if numbers.shape != sample.shape[:1]:
        raise ValueError(f"layer {layer} has a sample of other photographs")
    damaged = {int(number): str(why) for number, why in said.get("damaged", {}).items()}
    return Exemplars(values, photographs, positions, sample, silent, seen, every, numbers, damaged)
