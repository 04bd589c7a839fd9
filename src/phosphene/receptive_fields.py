"""Which input pixels can affect a unit, found by watching where a NaN spreads.

A NaN put into some pixels reaches a unit if and only if some path leads there from one of them,
through convolutions, ReLUs and poolings alike. So a box is exact, whatever the weights. Since a
unit is reached from a block of lines if and only if it is reached from one of them, the search goes
from coarse blocks to single lines, and looks only into those blocks in which a box may end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from phosphene.axes import Tokens
from phosphene.errors import BadRequest, UnknownName
from phosphene.networks.inspection import number_type
from phosphene.probe import find_layer, probe
from phosphene.tensors import device_of

BRANCHES = 4
"""Parts into which a block of lines is divided."""
AT_ONCE = 8
"""Images in a pass: more take more memory and, on a CPU, as much time."""
MEMORY = 1 << 30
"""Bytes of activations in a pass of several images."""
NEAR = 4
"""Layers that are asked together: the next ones often see the same box."""

T = TypeVar("T")

Span = tuple[int, int]
"""A first line, and the one beyond the last."""
Spans = tuple[Span, ...]


@dataclass(frozen=True)
class Box:
    """Rows `top` … `bottom` − 1 and columns `left` … `right` − 1 of the subject's input."""

    top: int
    left: int
    bottom: int
    right: int

    def __str__(self) -> str:
        return f"{self.bottom - self.top} × {self.right - self.left}"


@dataclass(frozen=True)
class Fields:
    """The receptive fields of all units of a layer's map.

    They are the (first, beyond the last) input row that reaches each of its rows, and the input
    column that reaches each of its columns. A layer without a map has one row and one column, and
    one of steps in one line a row for each. Channels without a map may look at places of their own,
    as neurons do: `of_channels` are the rows and the columns that reach each of them.
    """

    rows: Spans
    columns: Spans
    of_channels: tuple[tuple[Span, Span], ...] = ()

    def box(self, row: int, column: int, channel: int | None = None) -> Box:
        """Return the box of the unit at this position, or of all channels there together."""
        rows, columns = self.rows[row], self.columns[column]
        if channel is not None and self.of_channels and any(self.of_channels[channel][0]):
            rows, columns = self.of_channels[channel]
        return Box(rows[0], columns[0], rows[1], columns[1])

    @property
    def centre(self) -> Box:
        return self.box(len(self.rows) // 2, len(self.columns) // 2)


def receptive_fields(
    network: nn.Module,
    size: tuple[int, int],
    layers: Sequence[str],
    batch: int = AT_ONCE,
    tokens: Tokens | None = None,
    channels: int = 3,
) -> dict[str, Fields]:
    """Return the receptive fields of each layer's units in a network that reads `size` pixels.

    `size` is (height, width) of so many `channels`, `batch` the most images in a pass, `tokens` as
    `probe` takes them. Absent are layers whose centre no pixel reaches and those that cannot be
    read. What was found is kept as long as the network is.
    """

    def find(layers: Sequence[str]) -> dict[str, Fields]:
        spread = _Spread(network, (channels, *size), batch, tokens)
        readable = spread.readable(layers)
        rows = spread.spans(0, readable)
        columns = spread.spans(1, readable)
        found = {
            layer: _fields(rows[layer], columns[layer], layer not in spread.flat)
            for layer in readable
        }
        return {
            layer: fields
            for layer, fields in found.items()
            if all(any(spans[len(spans) // 2]) for spans in (fields.rows, fields.columns))
        }

    return _remembered(("fields", tokens), network, size, layers, find)


def central_boxes(
    network: nn.Module,
    size: tuple[int, int],
    layers: Sequence[str],
    batch: int = AT_ONCE,
    tokens: Tokens | None = None,
    channels: int = 3,
) -> dict[str, Box]:
    """Return `receptive_fields(…)[layer].centre` for each layer, with fewer passes.

    What a unit's gradient reaches is a guess, which a few passes confirm or correct.
    """

    def find(layers: Sequence[str]) -> dict[str, Box]:
        spread = _Spread(network, (channels, *size), batch, tokens)
        left = spread.readable(layers)
        found = dict.fromkeys(spread.seeing(spread.whole, left), spread.whole)
        left = [layer for layer in left if layer not in found]
        guess = _guesses(network, (channels, *size), left, tokens)
        for i, layer in enumerate(left):
            if layer in found:
                continue
            near = [each for each in left[i : i + NEAR] if each not in found]
            box = guess(layer)
            if box is not None:
                found |= dict.fromkeys(spread.seeing(box, near), box)
            searched = None if layer in found else spread.searched(layer, box)
            if searched is not None:
                found[layer] = searched
        return found

    return _remembered(("boxes", tokens), network, size, layers, find)


class _NoNaN(Exception):
    """Raised where a network ends at a NaN, so that none tells what its units see."""


class _Spread:
    """Ask a network which of its units a NaN in a part of its input reaches."""

    def __init__(
        self, network: nn.Module, shape: tuple[int, int, int], batch: int, tokens: Tokens | None
    ):
        self.network = network
        self.shape = shape
        self.size = shape[1:]
        self.batch = min(batch, AT_ONCE)
        self.tokens = tokens
        self.whole = Box(0, 0, *self.size)
        self.flat: set[str] = set()
        """Layers whose channels have no map."""
        self._at_once = self.batch
        self._device = device_of(network)
        self._kind = number_type(network)

    def reached(
        self, parts: Sequence[Sequence[Box]], layers: Sequence[str], along: int | None = None
    ) -> dict[str, Tensor]:
        """Return bool (parts, rows, columns) by layer.

        It is true where a NaN in all boxes of a part gets to that place. `along` 0 or 1 lays the
        channels of layers without a map along the rows or the columns.
        """
        hits: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        # cuDNN's fast algorithms mix neighbours: a NaN would spread further
        exact = torch.backends.cudnn.flags(enabled=False)
        with exact, probe(self.network, layers, self.tokens) as read, torch.no_grad():
            for at in range(0, len(parts), self._at_once):
                images = self._images(parts[at : at + self._at_once])
                try:
                    found = read(images)
                except Exception as error:  # of every kind: quantization and own checks refuse NaN
                    raise _NoNaN from error
                for layer in layers:
                    hits[layer].append(_units(found[layer], along).isnan().any(1))
        return {layer: torch.cat(each).cpu() for layer, each in hits.items()}

    def _images(self, parts: Sequence[Sequence[Box]]) -> Tensor:
        shape = (len(parts), *self.shape)
        images = torch.full(shape, 0.5, device=self._device, dtype=self._kind)
        for image, boxes in zip(images, parts, strict=True):
            for box in boxes:
                image[:, box.top : box.bottom, box.left : box.right] = float("nan")
        return images

    def readable(self, layers: Sequence[str]) -> list[str]:
        """Return the layers that give an image's activations, in the order in which they run."""
        for layer in layers:
            find_layer(self.network, layer)
        try:
            return self._order(layers)
        except (BadRequest, UnknownName):  # of one of them, so each is asked by itself
            if len(layers) == 1:
                return []
        alone = [each for each in layers if self.readable([each])]
        return self._order(alone) if alone else []

    def _order(self, layers: Sequence[str]) -> list[str]:
        """Weigh an image's activations, and return the layers in the order in which they run."""
        two = self._images([[]] * min(2, self.batch))  # two tell a batch from its images
        with probe(self.network, layers, self.tokens) as read, torch.no_grad():
            values = {key: value for key, value in read(two).items() if key in layers}
        self.flat |= {layer for layer, value in values.items() if value.ndim == 2}
        largest = sum(value.numel() * value.element_size() for value in values.values()) / len(two)
        self._at_once = max(1, min(self.batch, int(MEMORY / max(1, largest))))
        return list(values)

    # ------------------------------------------------------------ the central unit

    def centre(
        self, parts: Sequence[Sequence[Box]], layers: Sequence[str]
    ) -> dict[str, list[bool]]:
        """Return by layer whether each part reaches its central unit."""
        hits = self.reached(parts, layers)
        return {
            layer: hit[:, hit.shape[1] // 2, hit.shape[2] // 2].tolist()
            for layer, hit in hits.items()
        }

    def seeing(self, box: Box, layers: Sequence[str]) -> list[str]:
        """Return the layers whose central unit sees this box and nothing beyond.

        Each edge of the box reaches such a unit, and all that lies outside of the box does not.
        """
        edges = list(dict.fromkeys((each,) for each in _edges(box)))
        beyond = [tuple(_beyond(box, self.size))] if box != self.whole else []
        hits = self.centre([*beyond, *edges], layers)
        wanted = [False] * len(beyond) + [True] * len(edges)
        return [layer for layer, hit in hits.items() if hit == wanted]

    def searched(self, layer: str, guess: Box | None) -> Box | None:
        """Return the box of a layer's central unit, by bisection.

        None where no pixel reaches the unit.
        """
        height, width = self.size
        if not self.centre([[self.whole]], [layer])[layer][0]:
            return None

        def edge(length: int, guessed: int, part: Callable[[int], Box]) -> int:
            """Return the least line such that all lines up to it reach the unit."""
            return _least(
                length - 1, guessed, lambda n: self.centre([[part(n)]], [layer])[layer][0]
            )

        box = guess or self.whole
        top = edge(height, box.top, lambda n: Box(0, 0, n + 1, width))
        left = edge(width, box.left, lambda n: Box(0, 0, height, n + 1))
        below = edge(height, height - box.bottom, lambda n: Box(height - 1 - n, 0, height, width))
        beside = edge(width, width - box.right, lambda n: Box(0, width - 1 - n, height, width))
        return Box(top, left, height - below, width - beside)

    # ------------------------------------------------------------ all units

    def spans(self, axis: int, layers: Sequence[str]) -> dict[str, Spans]:
        """Return (first, beyond the last) line that reaches each row (axis 0) or column of a layer.

        (0, 0) where none does. A layer without a map has its channels' instead. The layers are in
        the order in which they run.
        """
        length = self.size[axis]
        step = 1
        while step * BRANCHES < length:
            step *= BRANCHES
        wanted = {layer: list(range(0, length, step)) for layer in layers}
        while True:
            hits = self._blocks(axis, step, wanted)
            ends = {layer: _ends(wanted[layer], hit) for layer, hit in hits.items()}
            if step == 1:
                return ends
            finer = step // BRANCHES
            wanted = {layer: _divided(found, step, finer, length) for layer, found in ends.items()}
            step = finer

    def _blocks(self, axis: int, step: int, wanted: Mapping[str, list[int]]) -> dict[str, Tensor]:
        """Return by layer bool (blocks, units): does a block that begins at such a line reach it?

        Each pass goes no deeper than the layers that one of its blocks is wanted for.
        """
        depth = {layer: i for i, layer in enumerate(wanted)}
        users: dict[int, list[str]] = {}
        for layer, starts in wanted.items():
            for start in starts:
                users.setdefault(start, []).append(layer)
        order = sorted(users, key=lambda start: (depth[users[start][-1]], start))
        rows: dict[str, dict[int, Tensor]] = {layer: {} for layer in wanted}
        for at in range(0, len(order), self._at_once):
            starts = order[at : at + self._at_once]
            layers = [each for each in wanted if any(each in users[start] for start in starts)]
            parts = [[self._block(axis, each, step)] for each in starts]
            hits = self.reached(parts, layers, axis)
            for layer, hit in hits.items():
                middle = hit[:, :, hit.shape[2] // 2] if axis == 0 else hit[:, hit.shape[1] // 2]
                rows[layer] |= dict(zip(starts, middle, strict=True))
        return {
            layer: torch.stack([rows[layer][start] for start in starts])
            for layer, starts in wanted.items()
        }

    def _block(self, axis: int, start: int, step: int) -> Box:
        height, width = self.size
        return (
            Box(start, 0, start + step, width) if axis == 0 else Box(0, start, height, start + step)
        )


def _units(values: Tensor, along: int | None = None) -> Tensor:
    """Return a layer's values as (batch, channels, rows, columns): without a map, one of each.

    Steps in one line are rows of one column. `along` 0 or 1 makes rows or columns of the channels
    that have no map.
    """
    if along is not None and values.ndim == 2:
        return values[:, None, :, None] if along == 0 else values[:, None, None, :]
    if values.ndim == 3:
        return values[..., None]
    return values if values.ndim == 4 else values.flatten(1)[:, :, None, None]


def _fields(rows: Spans, columns: Spans, has_map: bool) -> Fields:
    """Return the fields of a layer's units; without a map, those of its channels."""
    if has_map:
        return Fields(rows, columns)
    whole = _together(rows), _together(columns)
    each = tuple(zip(rows, columns, strict=True))
    alike = set(each) == {whole}
    return Fields((whole[0],), (whole[1],), () if alike else each)


def _together(spans: Spans) -> Span:
    """Return the lines from the first to the last that any of the spans has."""
    there = [span for span in spans if any(span)] or [(0, 0)]
    return min(first for first, _ in there), max(last for _, last in there)


def _ends(starts: Sequence[int], hit: Tensor) -> Spans:
    """Return for each unit (first, beyond the last) block of those that begin at `starts`.

    `hit` is bool (blocks, units). A block is told by its first line, what is beyond it by that + 1.
    """
    lines = torch.tensor(starts)
    first = lines[hit.int().argmax(0)]
    last = lines[len(hit) - 1 - hit.flip(0).int().argmax(0)] + 1
    there = hit.any(0)
    return tuple(zip((first * there).tolist(), (last * there).tolist(), strict=True))


def _divided(ends: Sequence[tuple[int, int]], step: int, finer: int, length: int) -> list[int]:
    """Return where the parts begin of those blocks in which some unit's lines begin or end."""
    blocks = {line for first, last in ends if last for line in (first, last - 1)} or {0}
    parts = (line for block in blocks for line in range(block, block + step, finer))
    return sorted(line for line in parts if line < length)


def _edges(box: Box) -> list[Box]:
    return [
        Box(box.top, box.left, box.top + 1, box.right),
        Box(box.bottom - 1, box.left, box.bottom, box.right),
        Box(box.top, box.left, box.bottom, box.left + 1),
        Box(box.top, box.right - 1, box.bottom, box.right),
    ]


def _beyond(box: Box, size: tuple[int, int]) -> list[Box]:
    height, width = size
    return [
        Box(0, 0, box.top, width),
        Box(box.bottom, 0, height, width),
        Box(0, 0, height, box.left),
        Box(0, box.right, height, width),
    ]


def _least(most: int, guessed: int, reaches: Callable[[int], bool]) -> int:
    """Return the least number that reaches, of those up to `most`, which does.

    All numbers beyond one that reaches do too. The search begins at the guess.
    """
    low, high = -1, most
    step = 1
    at = guessed
    while high - low > 1:
        at = min(max(at, low + 1), high - 1)
        if reaches(at):
            high = at
            at -= step
        else:
            low = at
            at += step
        step *= 2
        if low >= 0 and high < most:
            at = (low + high) // 2
    return high


def _guesses(
    network: nn.Module, shape: tuple[int, int, int], layers: Sequence[str], tokens: Tokens | None
) -> Callable[[str], Box | None]:
    """Lend a function from a layer to the box that its central unit's gradient reaches.

    It is not larger than what the unit can see. None where no gradient comes through.
    """
    device = device_of(network)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(1, *shape, generator=rng).to(device, number_type(network))
    images.requires_grad_()
    values: dict[str, Tensor] = {}
    try:
        with torch.enable_grad(), probe(network, layers, tokens) as read:
            values = read(images * 1) if layers else {}
    except RuntimeError:  # of a network that runs only without gradients
        pass

    def guess(layer: str) -> Box | None:
        if layer not in values or not values[layer].requires_grad:
            return None
        units = _units(values[layer])
        unit = units[0, :, units.shape[2] // 2, units.shape[3] // 2]
        weights = torch.randn(unit.shape, generator=rng).to(unit)
        try:
            (slope,) = torch.autograd.grad(
                unit @ weights, images, retain_graph=True, allow_unused=True
            )
        except RuntimeError:  # of one that overwrites what its gradient needs
            return None
        seen = None if slope is None else (slope[0] != 0).any(0)
        if seen is None or not bool(seen.any()):
            return None
        rows = seen.any(1).nonzero().flatten()
        columns = seen.any(0).nonzero().flatten()
        return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)

    return guess


_kept: WeakKeyDictionary[nn.Module, dict[object, dict[str, object]]] = WeakKeyDictionary()


def _found(layers: Sequence[str], find: Callable[[Sequence[str]], dict[str, T]]) -> dict[str, T]:
    """Return what `find` finds of each layer; nothing of one ahead of which a NaN is refused."""
    try:
        return find(layers)
    except _NoNaN:
        each = [] if len(layers) == 1 else [_found([layer], find) for layer in layers]
    return {layer: value for one in each for layer, value in one.items()}


def _remembered(
    what: object,
    network: nn.Module,
    size: tuple[int, int],
    layers: Sequence[str],
    find: Callable[[Sequence[str]], dict[str, T]],
) -> dict[str, T]:
    """Return what `find` finds of each layer; it is asked only for those that are not known yet.

    Weights may change, since they do not matter; modules may not.
    """
    known: dict[str, T | None]
    of_network = _kept.setdefault(network, {})
    known = of_network.setdefault((what, str(network), size), {})  # type: ignore[assignment]
    missing = [layer for layer in dict.fromkeys(layers) if layer not in known]
    if missing:
        found = _found(missing, find)
        known |= {layer: found.get(layer) for layer in missing}
    return {layer: each for layer in layers if (each := known[layer]) is not None}
