"""What a network's layers are: the table that `phosphene layers` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, SupportsIndex

from phosphene.errors import UnknownName, near
from phosphene.files import path_of, write_json
from phosphene.probe import kind_of
from phosphene.receptive_fields import Box, central_boxes
from phosphene.subjects import Subject, outer_layers
from phosphene.tables import Table

HEADINGS = ("layer", "kind", "shape", "channels", "units", "receptive field")


@dataclass(frozen=True)
class Layer:
    """Describe one layer.

    `shape` is without the batch. `receptive_field` is what the unit at the centre sees, None where
    nothing is known. `tokens` are the names of tokens ahead of a transformer's patches.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    receptive_field: Box | None
    tokens: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return self.shape[0]

    @property
    def units(self) -> int:
        """Return the number of units: of channels, at every position."""
        return math.prod(self.shape)

    def as_json(self) -> dict[str, Any]:
        """Return what `phosphene layers --json` tells of the layer."""
        return {
            "layer": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "channels": self.channels,
            "units": self.units,
            "receptive_field": asdict(self.receptive_field) if self.receptive_field else None,
            "tokens": list(self.tokens),
        }

    def cells(self) -> tuple[str, ...]:
        """Return the layer's row of the table."""
        shape = " ".join([" × ".join(map(str, self.shape)), *(f"@{name}" for name in self.tokens)])
        field = str(self.receptive_field or "–")
        return (self.name, self.kind, shape, f"{self.channels:,}", f"{self.units:,}", field)


@dataclass(frozen=True, repr=False)
class LayerTable:
    """Hold a network's layers, with what the network reads.

    A layer is found by its place or its name: `table[-1]`, `table["conv5"]`. `called` is the name
    of the subject, as it was given.
    """

    subject: Subject
    called: str
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, subject: Subject, called: str = "", every: bool = False) -> LayerTable:
        """Measure the layers of a subject; with `every`, also those inside of layers."""
        shapes = {name: shape for name, shape in subject.shapes().items() if shape}
        shapes = {**shapes, **subject.heads()} if every else outer_layers(shapes)
        network = subject.network
        tokens, channels = subject.tokens, subject.channels
        batch = subject.batch or 32
        boxes = central_boxes(network, subject.size, list(shapes), batch, tokens, channels)
        found = [
            Layer(name, kind_of(network, name), shape, boxes.get(name), subject.token_names(name))
            for name, shape in shapes.items()
        ]
        return cls(subject, called or subject.name, tuple(found))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __getitem__(self, which: SupportsIndex | str) -> Layer:
        """Return a layer by its place or its name; `UnknownName` where no layer has that name."""
        if isinstance(which, SupportsIndex):
            return self.layers[which]
        names = [layer.name for layer in self.layers]
        if which not in names:
            raise UnknownName(f"{self.called} has no layer {which!r}; near: {near(which, names)}")
        return self.layers[names.index(which)]

    def __repr__(self) -> str:
        return f"<LayerTable of {self.called}: {', '.join(layer.name for layer in self)}>"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def table(self, option: str = "") -> Table:
        """Return the table. `option` stands before the names of settings, as in `--fit`."""
        rows = [layer.cells() for layer in self]
        return Table(HEADINGS, rows, self._input(), tuple(self._notes(option)))

    def as_json(self) -> dict[str, Any]:
        """Return what `phosphene layers --json` prints."""
        subject = self.subject
        return {
            "subject": self.called,
            "input": list(subject.size),
            "channels": subject.channels,
            "mean": list(subject.mean),
            "std": list(subject.std),
            "adapter": {
                "fit": subject.fit,
                "from_rgb": subject.rgb_shares(),
                "frames": subject.frames,
                "inputs": subject.inputs,
            },
            "output": subject.output,
            "layers": [layer.as_json() for layer in self],
        }

    def save(self, file: str | Path) -> Path:
        """Write what `phosphene layers --json` prints into a file."""
        place = path_of(file, "file")
        write_json(place, self.as_json())
        return place

    def _input(self) -> str:
        """Return a line on what a subject reads: its size, its channels, and its normalisation."""
        subject = self.subject
        kinds = {1: "grey", 3: "RGB"}
        colours = kinds.get(subject.channels, f"{subject.channels} channels")
        size = f"{subject.size[0]} × {subject.size[1]} pixels"
        mean, std = (", ".join(f"{v:.3g}" for v in pair) for pair in (subject.mean, subject.std))
        return f"{self.called}: {size}, {colours}, less {mean}, over {std}"

    def _notes(self, option: str) -> list[str]:
        """Return lines on how images come to a subject, and on what of that is assumed."""
        subject = self.subject
        ways = {
            "crop": "cut to its shape",
            "stretch": "stretched to its shape",
            "pad": "put whole into a border of its shape",
        }
        shares = [", ".join(f"{share:g}" for share in row) for row in subject.rgb_shares()]
        lines = [f"images of other shapes are {ways[subject.fit]} ({option}fit)"]
        if subject.channels != 3:
            made = f"channels are {'; '.join(shares)} of red, green, blue"
            lines.append(f"{made if shares else 'none is RGB'} (from_rgb)")
        if subject.frames:
            lines.append(f"an image is held for {subject.frames} frames")
        for name, told in subject.inputs.items():
            shape = " × ".join(map(str, told["shape"]))
            lines.append(f"beside it {name}, {shape}, sha256 {told['sha256'][:16]}")
        if subject.heads():
            every = f"{option}all" if option else "every=True"
            lines.append(f"{every} also lists attention heads; LAYER.in is what a layer reads")
        assumed = [f"assumed: {subject.card['assumed']}"] if "assumed" in subject.card else []
        return lines + assumed
