"""The layers of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from phosphene.layer_table import LayerTable
from phosphene.notebook._shared import USUAL_SIZE, lent
from phosphene.subjects import Subject


def layers(
    subject: Subject | nn.Module | str | Path,
    *,
    every: bool = False,
    size: int | tuple[int, int] = USUAL_SIZE,
    fit: str = "",
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> LayerTable:
    """Return the table of a network's layers that `phosphene layers` prints.

    Args:
        subject: as for `phosphene.synthesize`.
        every: also the layers inside of layers.
        size: what a module reads, in pixels: one number, or (height, width).
        fit: how images of other proportions come to the subject's shape (see `tensors.FITS`).
        inputs: what the network reads beside images, by argument.

    Examples:
        >>> phosphene.layers("caffenet-objects")["conv5"].shape
        (256, 10, 10)
    """
    named = str(subject) if isinstance(subject, (str, Path)) else ""
    with lent(subject, fit, inputs, size) as network:
        return LayerTable.of(network, named, every)
