"""Extra classes of modified photographs.

Does a unit's picture show what only its own photographs had? Nguyen et al. (2016) trained networks
with such twins to tell the neuron's preference from the prior's. Channels are permuted, pictures
blurred, or cut into tiles that are stitched together in another order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from phosphene.datasets import Photographs
from phosphene.errors import BadRequest

Pixels = npt.NDArray[np.uint8]

TILES = 4
"""Tiles along each side."""
BLUR = 2.0
"""Radius of the blur, in pixels."""


def with_modified(photographs: Photographs, extra: Sequence[Mapping[str, Any]]) -> Photographs:
    """Return photographs, and behind them modified copies of some classes, as classes of their own.

    `extra` is a list of {kind, classes}: kind is one of `KINDS`, classes are labels. The twin of
    class "lion" is called "lion (brg)". Tiles are shuffled by each photograph's place, so the same
    photographs give the same bits.
    """
    if not extra:
        return photographs
    images, labels, names = [photographs.images], [photographs.labels], list(photographs.classes)
    for part in extra:
        kind, classes = part.get("kind"), part.get("classes")
        if kind not in KINDS or not isinstance(classes, list):
            raise BadRequest(
                f"an extra class has a kind ({', '.join(KINDS)}) and a list of classes; "
                f"got {dict(part)}"
            )
        for label in classes:
            if not isinstance(label, int) or not 0 <= label < len(photographs.classes):
                raise BadRequest(
                    f"{photographs.name} has {len(photographs.classes)} classes, "
                    f"and no class {label!r}"
                )
            places = np.flatnonzero(photographs.labels == label)
            if len(places):  # held-out photographs may have none of a class
                made = [KINDS[kind](photographs.images[place], int(place)) for place in places]
                images.append(np.stack(made))
            labels.append(np.full(len(places), len(names), np.int64))
            names.append(f"{photographs.classes[label]} ({kind})")
    text = photographs.fingerprint + json.dumps([dict(part) for part in extra], sort_keys=True)
    return replace(
        photographs,
        images=np.concatenate(images),
        labels=np.concatenate(labels),
        classes=tuple(names),
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )


def _brg(picture: Pixels, place: int) -> Pixels:
    """Permute red, green, blue to blue, red, green."""
    return picture[..., [2, 0, 1]]


def _blurred(picture: Pixels, place: int) -> Pixels:
    """Blur by a Gaussian."""
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(BLUR)))


def _tiled(picture: Pixels, place: int) -> Pixels:
    """Shuffle tiles; the edge that does not divide stays as it is."""
    side = picture.shape[0] // TILES
    order = np.random.default_rng(place).permutation(TILES * TILES)
    stitched = picture.copy()
    for goal, source in enumerate(order):
        (top, left), (row, column) = (
            side * np.array(divmod(int(n), TILES)) for n in (goal, source)
        )
        stitched[top : top + side, left : left + side] = picture[
            row : row + side, column : column + side
        ]
    return stitched


KINDS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "brg": _brg,
    "blurred": _blurred,
    "tiled": _tiled,
}
