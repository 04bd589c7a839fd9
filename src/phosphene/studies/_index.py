"""The index of exemplars: for each channel, the photographs that excite it most, in one pass."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import kept
from phosphene.datasets import Stream, batched
from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.probe import find_layer
from phosphene.subjects import READINGS, Subject
from phosphene.tensors import as_images

MAX_SAMPLED = 2048
"""Photographs whose activations are all kept, evenly spaced among those that were read.

The quantiles come from them.
"""


@dataclass(eq=False)
class LayerExemplars:
    """What one pass over `n_images` photographs found for every channel of one layer.

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
    n_images: int = 0
    every: int = 1
    numbers: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    damaged: dict[int, str] = field(default_factory=dict)

    @property
    def after(self) -> int:
        """Return the number of the photograph after the last one that was looked at."""
        return self.n_images + len(self.damaged)

    @property
    def whole(self) -> list[int]:
        """Return the numbers of the photographs that were seen."""
        return [number for number in range(self.after) if number not in self.damaged]

    @classmethod
    def none_yet(cls, channels: int, k: int) -> LayerExemplars:
        return cls(
            torch.full((channels, k), float("-inf")),
            torch.full((channels, k), -1),
            torch.zeros(channels, k, 2, dtype=torch.int64),
            torch.zeros(0, channels),
            torch.zeros(channels, dtype=torch.int64),
        )

    def first(self, k: int) -> LayerExemplars:
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
        self.n_images += len(peaks)

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
    report: Callable[[int], None] = lambda n_images: None,
) -> dict[str, LayerExemplars]:
    """Make one pass over the photographs for every channel of some layers, or its rest.

    The index `file` (safetensors) is written every so many seconds and at the end; a pass that was
    interrupted goes on where it was, and one that is done is only read. A photograph that cannot be
    read is left out, and said. An index that holds more than `k` exemplars of each channel serves
    too. `BadRequest` where the file is of another subject or other data, or holds fewer.
    """
    for layer in layers:
        find_layer(subject.network, layer, subject.name)
    identity = {
        "subject": subject.identity,
        "data": data.fingerprint,
        "reading": subject.reading_version(),
        "k": k,
    }
    found, finished = _read(file, identity, data, subject)
    if finished and set(layers) <= found.keys():
        data.damage.tell(next(iter(found.values())).n_images)
        return {layer: each.first(k) for layer, each in found.items()}
    number = identity["k"] = _index_k(found) or k
    if finished or set(layers) != found.keys():  # a pass is over one set of layers
        others = filter(subject.shape, found if finished else ())  # sums of other calls are gone
        layers = list(dict.fromkeys([*layers, *others]))
        found = {
            layer: LayerExemplars.none_yet(subject.shape(layer)[0], number) for layer in layers
        }
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
    data.damage.tell(first.n_images)
    if not first.n_images:
        raise BadFile(f"{data.name} holds no photographs")
    for exemplars in found.values():
        exemplars.damaged = dict(data.damage.found)
    _write(file, found, identity, True)
    return {layer: each.first(k) for layer, each in found.items()}


def _index_k(found: Mapping[str, LayerExemplars]) -> int:
    """Return how many exemplars of each channel an index has, 0 where it has none."""
    return max((each.values.shape[1] for each in found.values()), default=0)


def _batches(data: Stream, start: int, size: int) -> Iterator[tuple[list[int], Any]]:
    """Yield numbers and pixels (batch, *size, 3) from photograph `start` on."""
    for batch in batched(data.photographs(_From(start)), size):
        yield [number for number, *_ in batch], np.stack([pixels for _, pixels, _ in batch])


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
    file: Path, found: dict[str, LayerExemplars], identity: dict[str, Any], finished: bool
) -> None:
    one = next(iter(found.values()))
    tensors = {
        f"{layer}.{part}": getattr(each, part)
        for layer, each in found.items()
        for part in (*_PARTS, *_LATER)
    }
    state = {
        "layers": list(found),
        "seen": one.n_images,
        "every": one.every,
        "damaged": one.damaged,
    }
    kept.write(file, identity, {**state, **tensors}, finished)


def _read(
    file: Path, identity: dict[str, Any], data: Stream, subject: Subject
) -> tuple[dict[str, LayerExemplars], bool]:
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
    elif said.get("data") != identity["data"] and data.is_of_squares(str(said.get("data"))):
        height, width = data.size
        raise BadRequest(
            f"{file} is of the central squares of {data.name}, and {subject.name} is now shown "
            f"parts of {height} × {width} pixels; delete it, or give another folder, to look at "
            "the photographs again"
        )
    if found and _index_k(found) < identity["k"]:
        raise BadRequest(
            f"{file} holds {_index_k(found)} exemplars of each unit, fewer than {identity['k']}; "
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


def _agrees(subject: Subject, found: Mapping[str, LayerExemplars], data: Stream) -> bool:
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
    return at == first.n_images


def _kept(said: Mapping[str, Any], layer: str) -> LayerExemplars:
    """Return one layer's exemplars; `ValueError` where its tensors do not fit together."""
    values, photographs, positions, sample, silent = (said[f"{layer}.{part}"] for part in _PARTS)
    channels = len(silent)
    if not (values.shape == photographs.shape == positions.shape[:2] == (channels, said["k"])):
        raise ValueError(f"layer {layer} has tensors that do not fit together")
    n_images, every = int(said["seen"]), int(said["every"])
    if sample.ndim != 2 or sample.shape[1] != channels or n_images < 0 or every < 1:
        raise ValueError(f"layer {layer} has a sample that does not fit")
    numbers = said.get(f"{layer}.{_LATER[0]}", every * torch.arange(len(sample)))
    if numbers.shape != sample.shape[:1]:
        raise ValueError(f"layer {layer} has a sample of other photographs")
    damaged = {int(number): str(why) for number, why in said.get("damaged", {}).items()}
    return LayerExemplars(
        values, photographs, positions, sample, silent, n_images, every, numbers, damaged
    )
