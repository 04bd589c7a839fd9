"""Photographs to compare pictures with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from phosphene.datasets import Stream
from phosphene.errors import BadRequest
from phosphene.images import Pixels
from phosphene.receptive_fields import Fields
from phosphene.studies._index import LayerExemplars, find_exemplars
from phosphene.studies.exemplars import fields_of
from phosphene.subjects import Subject

MIN_HELD_OUT = 8
REFERENCES = 9
"""What an observer is shown of each kind, and the pairs that it is asked about.

As in Borowski et al. 2021.
"""
ORDINARY = 200
"""Photographs drawn at random that stand for photographs in general."""


@dataclass(frozen=True)
class NaturalImages:
    """Photographs to compare with: what excites the units in one split, and in one held out."""

    train: Stream
    held_out: Stream
    exemplars: dict[str, LayerExemplars]
    held_out_exemplars: dict[str, LayerExemplars]
    fields: dict[str, Fields]
    ordinary: list[int]
    """Held-out photographs drawn at random, by number."""

    @classmethod
    def of(
        cls,
        subject: Subject,
        layers: Sequence[str],
        images: str,
        every: int,
        folder: Path,
        device: str,
        report: Callable[[], None],
    ) -> NaturalImages:
        """Search one photograph in `every` once, and keep what was found in the folder."""
        train, held_out = (
            Stream(images, part, subject.photograph_size, every) for part in ("train", "val")
        )

        def found(data: Stream, name: str) -> dict[str, LayerExemplars]:
            return find_exemplars(
                subject, layers, data, folder / name, device=device, report=lambda done: report()
            )

        exemplars = found(train, "exemplars.safetensors")
        others = found(held_out, "held-out.safetensors")
        first = others[layers[0]]
        if first.n_images < MIN_HELD_OUT:
            raise BadRequest(
                f"{held_out.name} holds out {first.n_images} photographs; "
                f"at least {MIN_HELD_OUT} are needed"
            )
        chosen = np.random.default_rng(1).permutation(first.n_images)[:ORDINARY].tolist()
        ordinary = [first.whole[number] for number in chosen]
        fields = fields_of(subject, layers)
        return cls(train, held_out, exemplars, others, fields, ordinary)

    def pairs(self, layer: str, channel: int) -> tuple[list[int], list[int]]:
        """Return held-out photographs that excite a channel most, and as many that do less.

        The latter are drawn from the half that excites it less.
        """
        found = self.held_out_exemplars[layer]
        order = found.sample[:, channel].argsort(descending=True, stable=True)
        n = min(REFERENCES, len(order) // 4)
        half = len(order) // 2
        drawn = torch.randperm(len(order) - half, generator=seeded(channel))
        lower = order[half:][drawn]
        return found.best(channel)[:n], found.numbers[lower[:n]].tolist()

    def read(self, numbers: set[int], held_out: bool = False) -> dict[int, Pixels]:
        """Return photographs by their numbers."""
        data = self.held_out if held_out else self.train
        return {number: pixels for number, pixels, _ in data.photographs(numbers)}


def seeded(seed: int) -> torch.Generator:
    """Return a generator of random numbers with a seed."""
    return torch.Generator().manual_seed(seed)
