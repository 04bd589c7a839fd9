"""Which photographs excite a unit most, where, and how its activation spreads over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from phosphene import forms, images
from phosphene.datasets import Stream, check_apart
from phosphene.files import outlet, outlet_folder
from phosphene.forms.exemplars import UnitExemplars
from phosphene.parts import check_options, option
from phosphene.receptive_fields import Box, Fields, receptive_fields
from phosphene.runtime import Runtime
from phosphene.studies._index import LayerExemplars, find_exemplars, find_peaks
from phosphene.studies._study import Study
from phosphene.studies._sums import asked_of
from phosphene.subjects import Subject, outer_layers
from phosphene.tensors import as_images, recoloured
from phosphene.texts import clean, file_names, slug
from phosphene.units import Unit

__all__ = [
    "Exemplars",
    "LayerExemplars",
    "Search",
    "cut_out",
    "describe",
    "field_box",
    "fields_of",
    "find_exemplars",
    "find_peaks",
    "signed_layers",
]

NAME = "exemplars"
"""What the files of a search are called, but for their endings."""
MAX_ROWS, MAX_COLUMNS = 50, 20
"""Units on a contact sheet, and exemplars of each."""
MAX_STRIP, MAX_TILE = 16_000_000, 2048
"""Pixels of a strip, and of a tile's side in it; photographs that are more are shrunk."""
SMALLEST = 128
"""Pixels of a tile's longer side on a contact sheet; smaller ones are shown larger."""
MAX_HELD = 1 << 30
"""Bytes of photographs in memory while they are cut out."""
SHARES = (0.01, 0.1, 0.5, 0.9, 0.99)
"""The quantiles that are told of a unit."""


def describe(
    subject: Subject,
    units: Sequence[Unit],
    found: Mapping[str, LayerExemplars],
    data: Stream,
    folder: Path,
) -> forms.Exemplars:
    """Draw what was found of some units, and return what `exemplars.json` says of them.

    In the folder: `tiles/` with a strip of whole photographs for each unit, and `exemplars.png`, a
    contact sheet of the first units' first exemplars, cut to the receptive field of their peaks. A
    strip of many photographs has several lines, and smaller ones.
    """
    best = {unit: found[unit.layer].best(unit.channel) for unit in units}
    places = data.places({number for numbers in best.values() for number in numbers})
    layers = list(dict.fromkeys(unit.layer for unit in units))
    fields = fields_of(subject, layers)
    names = file_names([slug(f"{unit.layer}:{unit.channel}") for unit in units])
    files = dict(zip(units, names, strict=True))
    shown = max(map(len, best.values()))
    tile = _within(data.size, MAX_TILE, MAX_STRIP // shown)
    sheet = _Sheet.of(len(units), shown, data.size)
    rows = []
    for group in _groups(best, max(1, MAX_HELD // (3 * math.prod(data.size)))):
        wanted = {number for unit in group for number in best[unit]}
        pictures = {number: (pixels, label) for number, pixels, label in data.photographs(wanted)}
        for unit in group:
            own = [
                (in_colours_of(subject, pixels), label)
                for pixels, label in (pictures[number] for number in best[unit])
            ]
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
    return forms.Exemplars(
        subject=subject.name,
        subject_sha256=subject.identity,
        data=data.name,
        split=data.split,
        licence=data.licence,
        seen=rows[0].seen,
        k=shown,
        tile=tile[1],
        tile_height=0 if tile[0] == tile[1] else tile[0],
        columns=_columns(tile),
        classes=tuple(data.classes),
        left_out=tuple(data.damage.found[number] for number in sorted(data.damage.found)),
        units=tuple(rows),
    )


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


def _within(size: tuple[int, int], side: int, pixels: int) -> tuple[int, int]:
    """Return a size (height, width), or a smaller one of no longer sides and no more pixels."""
    long, short = max(size), min(size)
    longest = min(long, side, math.isqrt(pixels * long // short))
    height, width = (max(1, each * longest // long) for each in size)
    return height, width


def _columns(tile: tuple[int, int]) -> int:
    """Return how many tiles (height, width) a line of a strip has."""
    return images.MAX_WEBP // tile[1]


def _strip(pictures: Sequence[images.Pixels], tile: tuple[int, int]) -> images.Pixels:
    """Return pictures side by side, in several lines where one would be too long."""
    height, width = tile
    columns = min(_columns(tile), len(pictures))
    lines = -(-len(pictures) // columns)
    strip = Image.new("RGB", (columns * width, lines * height), "white")
    for i, picture in enumerate(pictures):
        strip.paste(_shrunk(picture, tile), (i % columns * width, i // columns * height))
    return np.asarray(strip)


def _shrunk(picture: images.Pixels, size: tuple[int, int]) -> Image.Image:
    """Return a picture at a size (height, width), its own pixels where it has it."""
    height, width = size
    return Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)


def _row(
    subject: Subject, unit: Unit, found: LayerExemplars, field: Fields | None, **photographs: Any
) -> UnitExemplars:
    """Return what is told of one unit."""
    name, numbers = f"{unit.layer}:{unit.channel}", found.best(unit.channel)
    positions = found.positions[unit.channel, : len(numbers)].tolist()
    quantiles = found.quantiles(unit.channel, SHARES).tolist()
    near = ((f"{unit.layer}:{c}", close) for c, close in found.nearest(unit.channel))
    return UnitExemplars(
        unit=name,
        label=subject.targets(name)[0].label,
        values=tuple(found.values[unit.channel, : len(numbers)].tolist()),
        photographs=tuple(numbers),
        positions=tuple(map(tuple, positions)),
        boxes=tuple(field_box(field, position, subject, unit.channel) for position in positions),
        quantiles=dict(zip(map(str, SHARES), quantiles, strict=True)),
        silent=float(found.silent[unit.channel]) / found.n_images,
        seen=found.n_images,
        nearest=tuple(near),
        **photographs,
    )


@dataclass(frozen=True)
class _Sheet:
    """The tiles of a contact sheet, a row of `columns` for each of the first units."""

    columns: int
    size: tuple[int, int]
    tiles: list[images.Pixels]
    labels: list[str]

    @classmethod
    def of(cls, units: int, shown: int, size: tuple[int, int]) -> _Sheet:
        """Return an empty one whose tiles are as large as fit into a picture that can be read."""
        columns = min(shown, MAX_COLUMNS)
        room = images.MAX_PIXELS // (min(units, MAX_ROWS) * columns)
        return cls(columns, _within(size, max(size), room), [], [])

    def add(self, row: UnitExemplars, pictures: Sequence[images.Pixels]) -> None:
        """Add a unit's exemplars, cut to what it sees of them, while there is room."""
        if len(self.tiles) >= MAX_ROWS * self.columns:
            return
        first = list(zip(pictures, row.boxes, row.values, strict=True))[: self.columns]
        missing = self.columns - len(first)
        cut = [_shrunk(cut_out(picture, box), self.size) for picture, box, _ in first]
        blank = np.full((*self.size, 3), 255, np.uint8)
        self.tiles.extend([*map(np.asarray, cut), *[blank] * missing])
        label = clean(row.label)
        self.labels.extend(f"{label}\n{value:.2f}" for *_, value in first)
        self.labels.extend(["\n"] * missing)

    def write(self, file: Path) -> None:
        """Write the sheet as PNG."""
        scale = max(1, SMALLEST // max(self.size))
        images.write_png(file, images.contact_sheet(self.tiles, self.labels, self.columns, scale))


def fields_of(subject: Subject, layers: Sequence[str]) -> dict[str, Fields]:
    """Return the receptive fields of a subject's layers, but of those that have none."""
    size, batch = subject.size, subject.batch or 32
    return receptive_fields(subject.network, size, layers, batch, subject.tokens, subject.channels)


def field_box(
    field: Fields | None, position: Sequence[int], subject: Subject, channel: int | None = None
) -> forms.exemplars.Box:
    """Return the receptive field of a unit at a position, in a photograph of `photograph_size`.

    It is (top, left, bottom, right) as shares of the photograph's sides. Where the field is not
    known, it is all that the subject is shown of the photograph. Without a `channel` it is that of
    all channels together.
    """
    row, column = position
    box = field.box(row, column, channel) if field else Box(0, 0, *subject.size)
    height, width = subject.size
    top = _share(box.top, height, subject)
    left = _share(box.left, width, subject)
    return top, left, _share(box.bottom, height, subject), _share(box.right, width, subject)


def _share(edge: float, side: int, subject: Subject) -> float:
    """Return where an edge along a side of the subject's input lies in a photograph.

    A photograph that is padded is a square in the middle of the input.
    """
    length = min(subject.size) if subject.fit == "pad" else side
    return min(max((edge + (length - side) / 2) / length, 0), 1)


def in_colours_of(subject: Subject, picture: images.Pixels) -> images.Pixels:
    """Return a picture in the colours that the subject sees: grey where it has one channel."""
    if subject.channels != 1:
        return picture
    return images.to_pixels(recoloured(as_images([picture]), 1, subject.from_rgb)[0].numpy())


def cut_out(picture: images.Pixels, box: Sequence[float]) -> images.Pixels:
    """Return the part of a picture that lies in a box (shares of its sides).

    It is enlarged to the same size; the rest is white.
    """
    height, width = picture.shape[:2]
    top, bottom = (round(height * edge) for edge in box[::2])
    left, right = (round(width * edge) for edge in box[1::2])
    crop = Image.fromarray(picture).crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    return np.asarray(ImageOps.pad(crop, (width, height), Image.Resampling.LANCZOS, color="white"))


@dataclass(frozen=True)
class Exemplars(Study):
    """The photographs that excite units most, and the spread of their activations."""

    split: str = option("train", "train, val or all of them.")
    k: int = option(9, "Exemplars of each unit.", low=1, high=1000)
    batch: int = option(64, "Photographs read at once.", low=1, high=4096)

    def __post_init__(self) -> None:
        check_options(self)

    def run(
        self, subject: Subject, units: Sequence[Unit], images: Path, runtime: Runtime
    ) -> forms.Exemplars:
        """Return each unit's exemplars; strips, the contact sheet and the index lie beside."""
        data = _stream(subject, images, self.split)
        found = find_exemplars(
            subject,
            list(dict.fromkeys(unit.layer for unit in units)),
            data,
            runtime.folder / "exemplars.safetensors",
            k=self.k,
            batch=self.batch,
            device=runtime.device,
            report=lambda done: runtime.progress(done, 0, {}),
        )
        return describe(subject, units, found, data, runtime.folder)


@dataclass(frozen=True)
class Search:
    """Make a pass over photographs for units of a network, with its files in a folder.

    `units` are what is described; the index has all channels of the `layers`.
    """

    subject: Subject
    units: list[Unit]
    layers: list[str]
    data: Stream
    folder: Path
    how: Exemplars

    @classmethod
    def of(
        cls,
        subject: Subject,
        units: Sequence[str],
        photographs: Path,
        folder: Path,
        how: Exemplars,
        *read: str,
    ) -> Search:
        """Return the search for units that texts name; for none, of all layers.

        Before any work, a folder is refused that cannot take the files, or whose files are `read`.
        """
        subject, named = asked_of(subject, units)
        layers = list(dict.fromkeys(unit.layer for unit in named))
        layers = layers or [name for name, shape in outer_layers(subject.shapes()).items() if shape]
        check_apart(folder, photographs)
        for kind in (".safetensors", ".json", ".png"):
            outlet(folder / f"{NAME}{kind}", *read)
        outlet_folder(folder / "tiles")
        return cls(subject, named, layers, _stream(subject, photographs, how.split), folder, how)

    @property
    def file(self) -> Path:
        """Return the file of the index."""
        return self.folder / f"{NAME}.safetensors"

    def look(
        self, device: str, report: Callable[[int], None] = lambda photographs: None
    ) -> dict[str, LayerExemplars]:
        """Return what excites each layer, from the index where an earlier search left it."""
        options: dict[str, Any] = {"k": self.how.k, "batch": self.how.batch, "device": device}
        return find_exemplars(
            self.subject, self.layers, self.data, self.file, report=report, **options
        )

    def describe(self, found: Mapping[str, LayerExemplars]) -> forms.Exemplars:
        """Draw the units' photographs, and write and return what is told of the units."""
        form = describe(self.subject, self.units, found, self.data, self.folder)
        form.write(self.file.with_suffix(".json"))
        return form


def _stream(subject: Subject, photographs: Path, split: str) -> Stream:
    return Stream(photographs, split, subject.photograph_size)


def signed_layers(found: Mapping[str, LayerExemplars]) -> list[str]:
    """Return the layers whose activations go below 0, so that no unit of theirs is silent."""
    return [layer for layer, each in found.items() if (each.sample < 0).any()]
