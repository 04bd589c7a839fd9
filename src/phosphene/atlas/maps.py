"""Where the units of a layer lie on its map: beside those whose pictures are alike.

A picture is described by its colours, the directions of its edges and its detail. The same pictures
give the same map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from phosphene.atlas.cards import Layer
from phosphene.errors import Unavailable
from phosphene.images import MAX_WEBP

Array = npt.NDArray[np.float64]

LEAST = 8
"""Units with a picture; a layer with fewer has no map, for its page shows all of them at once."""
SIDE = 32
"""Pixels of the side at which a picture is described."""
NEIGHBOURS = 30
"""The perplexity of t-SNE, the usual one; a layer of fewer units than thrice that has less."""
BLOCK = 1200
"""Units that are brought to a grid together; more take time that grows with their cube."""
SHEET = ((600, 64), (2500, 48))
"""Pixels of a tile in a sheet of at most so many units."""


@dataclass(frozen=True)
class Map:
    """Hold the places of a layer's units.

    Each of the layer's cards has a place and a cell, or None where it has nothing to show.
    """

    columns: int
    rows: int
    cell: tuple[int, int]
    """Width and height of a tile in the sheet, in pixels."""
    places: tuple[tuple[float, float] | None, ...]
    """Across and down, 0 … 1; near each other where pictures are alike."""
    cells: tuple[tuple[int, int] | None, ...]
    """Column and row in the sheet, where no tile covers another."""


def made(layer: Layer, folder: Path) -> Map | None:
    """Return the map of a layer whose tiles lie in a folder, and write its sheet there.

    None where there is too little to show.
    """
    shown = [i for i, card in enumerate(layer.cards) if card.shown]
    if len(shown) < LEAST:
        return None
    tiles = [_tile(folder / f"{layer.cards[i].unit.channel}.webp") for i in shown]
    (width, height), _ = Counter(tile.size for tile in tiles).most_common(1)[0]
    side = next((side for most, side in SHEET if len(tiles) <= most), 32)
    longest = max(width, height)
    cell = (max(1, round(side * width / longest)), max(1, round(side * height / longest)))
    columns = int(np.ceil(np.sqrt(len(tiles) * 4 / 3 * cell[1] / cell[0])))
    columns = min(columns, MAX_WEBP // cell[0])
    rows = -(-len(tiles) // columns)
    places = spread(described(np.stack([_small(tile) for tile in tiles])))
    cells = on_a_grid(places, columns, rows)
    _write_sheet(folder / "map.webp", tiles, cells, (columns, rows), cell)
    at = {i: n for n, i in enumerate(shown)}
    count = range(len(layer.cards))
    return Map(
        columns,
        rows,
        cell,
        tuple(
            (float(places[at[i], 0]), float(places[at[i], 1])) if i in at else None for i in count
        ),
        tuple((int(cells[at[i], 0]), int(cells[at[i], 1])) if i in at else None for i in count),
    )


def _tile(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def _small(tile: Image.Image) -> Array:
    return np.asarray(tile.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64) / 255


def described(images: Array) -> Array:
    """Return the features (pictures, features) of images (pictures, SIDE, SIDE, 3) in 0 … 1.

    Colours, edges and detail have the same weight over all pictures together.
    """
    light = images.mean(3)
    opponents = np.stack(
        [light, images[..., 0] - images[..., 1], images[..., :2].mean(3) - images[..., 2]], -1
    )
    colours = np.concatenate([_in_cells(opponents, 4), _in_cells(np.abs(opponents), 1)], 1)
    halves = light.reshape(len(light), SIDE // 2, 2, SIDE // 2, 2).mean((2, 4))
    edges = np.concatenate([_edges(light), _edges(halves)], 1)
    return np.concatenate([_level(colours), _level(edges), _level(_detail(light))], 1)


def _in_cells(values: Array, across: int) -> Array:
    """Return the means of values (pictures, side, side, channels) in so many cells a side."""
    n, side, _, channels = values.shape
    size = side // across
    return values.reshape(n, across, size, across, size, channels).mean((2, 4)).reshape(n, -1)


def _edges(light: Array) -> Array:
    """Return how strong edges are, and their directions, in nine parts and in all of a picture."""
    down, across = np.gradient(light, axis=(1, 2))
    strength = np.hypot(down, across)
    angle = np.arctan2(down, across)  # an edge and its reverse count as one direction
    waves = [strength, *(strength * f(k * angle) for k in (2, 4) for f in (np.cos, np.sin))]
    found = np.stack(waves, -1)
    return np.concatenate([_in_cells(found, 1), _in_cells(found, 2)], 1)


def _detail(light: Array) -> Array:
    """Return how much of a picture's contrast lies in each octave."""
    found, level = [], light
    while level.shape[1] > 2:
        half = level.shape[1] // 2
        coarse = level.reshape(len(level), half, 2, half, 2).mean((2, 4))
        found.append((level - coarse.repeat(2, 1).repeat(2, 2)).std((1, 2)))
        level = coarse
    return np.stack(found, -1)


def _level(features: Array) -> Array:
    """Return features around 0 whose total variance is 1, or 0 where they are all the same."""
    features = features - features.mean(0)
    return features / max(float(np.sqrt(features.var(0).sum())), 1e-9)


def spread(features: Array) -> Array:
    """Return places (pictures, 2) in 0 … 1, near each other where features are alike."""
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise Unavailable("scikit-learn is not installed; pip install 'phosphene[atlas]'") from None
    with threadpool_limits(1):  # sums of several threads have other bits each time
        places = _principal(features)
        if len(places) >= 3 * LEAST:
            start = places / max(float(places[:, 0].std()), 1e-12) * 1e-4
            perplexity = min(NEIGHBOURS, len(places) / 4)
            layout = TSNE(init=start, perplexity=perplexity, random_state=0, n_jobs=1)
            places = layout.fit_transform(features).astype(np.float64)
    low, high = places.min(0), places.max(0)
    return (places - low) / np.maximum(high - low, 1e-12)


def _principal(features: Array) -> Array:
    """Return the two principal components of features around 0, (pictures, 2)."""
    _, vectors = np.linalg.eigh(features.T @ features)
    first = vectors[:, [-1, -2]]
    largest = np.abs(first).argmax(0)
    return features @ (first * np.sign(first[largest, [0, 1]]))


def on_a_grid(places: Array, columns: int, rows: int) -> npt.NDArray[np.int64]:
    """Return a cell of its own, column and row, for each place; the sum of moves is small."""
    down, across = np.divmod(np.arange(columns * rows), columns)
    found = np.empty((len(places), 2), np.int64)
    _assign(places, np.arange(len(places)), np.stack([across, down], 1), found)
    return found


def _assign(
    places: Array,
    some: npt.NDArray[np.int64],
    free: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> None:
    """Give `some` of the places cells out of the `free` ones; many of them half by half."""
    from scipy.optimize import linear_sum_assignment

    if len(some) > BLOCK:
        axis = int(np.ptp(free[:, 1]) > np.ptp(free[:, 0]))
        ordered = free[np.argsort(free[:, axis], kind="stable")]
        half = len(some) // 2
        cut = round(len(ordered) * half / len(some))
        by_place = some[np.argsort(places[some, axis], kind="stable")]
        _assign(places, by_place[:half], ordered[:cut], found)
        _assign(places, by_place[half:], ordered[cut:], found)
        return
    low, size = free.min(0), np.maximum(np.ptp(free, axis=0), 1)
    own = places[some]
    own = (own - own.min(0)) / np.maximum(np.ptp(own, axis=0), 1e-12)
    moves = ((own[:, None] - ((free - low) / size)[None]) ** 2).sum(2)
    who, where = linear_sum_assignment(moves)
    found[some[who]] = free[where]


def _write_sheet(
    file: Path,
    tiles: Sequence[Image.Image],
    places: npt.NDArray[np.int64],
    shape: tuple[int, int],
    cell: tuple[int, int],
) -> None:
    """Write all tiles in one picture, each whole in the middle of its cell."""
    sheet = Image.new("RGBA", (shape[0] * cell[0], shape[1] * cell[1]))
    for tile, (column, row) in zip(tiles, places, strict=True):
        scale = min(cell[0] / tile.width, cell[1] / tile.height)
        size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
        left = int(column) * cell[0] + (cell[0] - size[0]) // 2
        top = int(row) * cell[1] + (cell[1] - size[1]) // 2
        sheet.paste(tile.resize(size, Image.Resampling.LANCZOS), (left, top))
    sheet.save(file, "WEBP", quality=80, method=4)
