"""The pictures of a site.

They are decoded, checked against what is said of them, and written as small WebP.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from phosphene.atlas.cards import Atlas, Card, Exemplars, Picture
from phosphene.errors import BadFile
from phosphene.images import MAX_WEBP, opened, png_bytes, seen_of
from phosphene.records import pixels_sha256

MAX_SIDE = 1024
"""Pixels; a larger picture is shrunk."""
TILE = 160
"""Pixels; the side of what a page with many units shows of each."""
LARGE_TILE = 320
"""Pixels; the same where a layer has at most `FEW` units, whose tiles fill the window."""
FEW = 40
MAX_BYTES = 32 << 20
"""Of an animation or of a strip of photographs."""


def draw(atlas: Atlas, site: Path) -> int:
    """Write what the pages show into a folder, and return how many pictures of units that is."""
    drawn = 0
    for subject in atlas.subjects:
        for layer in subject.layers:
            folder = site / subject.place / layer.place
            folder.mkdir(parents=True)
            side = LARGE_TILE if len(layer.cards) <= FEW else TILE
            drawn += sum(_card(card, folder, side) for card in layer.cards)
        if subject.combinations:
            folder = site / subject.place / "combinations"
            folder.mkdir(parents=True)
            drawn += sum(
                _pictures(each.pictures, folder, each.place, TILE) for each in subject.combinations
            )
    return drawn


def _card(card: Card, folder: Path, side: int) -> int:
    """Draw a card's pictures, their climbs and records, its exemplars, and its tile."""
    name = str(card.unit.channel)
    strips = [
        _strip(exemplars, folder / f"{name}-exemplars-{i}.webp")
        for i, exemplars in enumerate(card.exemplars)
    ]
    for answer in card.answers:
        for picture, file in zip(answer.pictures, card.files(answer), strict=True):
            _write(_at_most(opened(picture), MAX_SIDE), folder / file, quality=92)
    if strips and not card.pictures:
        _write_tile(_best(card.exemplars[0], strips[0]), folder / f"{name}.webp", side)
    return _pictures(card.pictures, folder, name, side)


def _pictures(pictures: Sequence[Picture], folder: Path, name: str, side: int) -> int:
    """Draw the pictures of one target, and a tile of the first; return how many they are.

    `side` is the longest side of the tile.
    """
    for i, picture in enumerate(pictures):
        image = shown = _checked(picture.image, picture.image_sha256, picture)
        if picture.input:
            own = _checked(picture.input, picture.input_sha256, picture)
            file = folder / f"{folder.name}-{name}-{i}.input.png"
            file.write_bytes(png_bytes(np.asarray(own)))
            shown = Image.fromarray(seen_of(np.asarray(image), np.asarray(own)))
        if i == 0:
            _write_tile(shown, folder / f"{name}.webp", side)
        _write(_at_most(shown, MAX_SIDE), folder / f"{name}-{i}.webp", quality=92)
        shutil.copyfile(picture.record, folder / f"{folder.name}-{name}-{i}.json")
        if picture.animation:
            _copy_animation(picture.animation, folder / f"{name}-{i}-climb.webp", image.size)
    return len(pictures)


def _checked(file: Path, sha256: str, picture: Picture) -> Image.Image:
    """Return what a file shows, if it is what a picture's record describes."""
    image = opened(file)
    if pixels_sha256(np.asarray(image)) != sha256:
        raise BadFile(f"{file} is not the picture that {picture.record.name} describes")
    return image


def _strip(exemplars: Exemplars, file: Path) -> Image.Image:
    """Copy a strip of photographs, if it has one tile for each."""
    image = opened(exemplars.strip)
    if image.size != exemplars.size:
        raise BadFile(
            f"{exemplars.strip} has {image.size} pixels; {len(exemplars.shown)} photographs need "
            f"{exemplars.size}"
        )
    if _is_webp(exemplars.strip):
        shutil.copyfile(exemplars.strip, file)
    elif max(image.size) > MAX_WEBP:
        raise BadFile(
            f"{exemplars.strip} is {max(image.size):,} pixels wide and no WebP, which has at most "
            f"{MAX_WEBP:,}; make it again with phosphene exemplars"
        )
    else:
        _write(image, file, quality=90)
    return image


def _best(exemplars: Exemplars, strip: Image.Image) -> Image.Image:
    """Return what a unit sees of the photograph that excites it most, in its proportions."""
    wide, high = exemplars.tile
    top, bottom = (edge * high for edge in exemplars.shown[0].box[::2])
    left, right = (edge * wide for edge in exemplars.shown[0].box[1::2])
    ratio = high / wide
    height = max(bottom - top, (right - left) * ratio, 1)
    width = height / ratio
    x = min(max((left + right - width) / 2, 0), wide - width)
    y = min(max((top + bottom - height) / 2, 0), high - height)
    size = (max(1, 96 * wide // max(wide, high)), max(1, 96 * high // max(wide, high)))
    return strip.resize(size, Image.Resampling.LANCZOS, box=(x, y, x + width, y + height))


def _copy_animation(source: Path, file: Path, size: tuple[int, int]) -> None:
    if opened(source).size != size or not _is_webp(source):
        raise BadFile(f"{source} is not a WebP of {size[0]} × {size[1]} pixels, as its picture is")
    shutil.copyfile(source, file)


def _is_webp(file: Path) -> bool:
    """Return whether a picture can be copied as it is."""
    if file.stat().st_size > MAX_BYTES:
        raise BadFile(f"{file} is too large ({file.stat().st_size:,} bytes; at most {MAX_BYTES:,})")
    with open(file, "rb") as opened_file:
        start = opened_file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def _write_tile(image: Image.Image, file: Path, side: int) -> None:
    _write(_at_most(image, side), file, quality=85)


def _at_most(image: Image.Image, side: int) -> Image.Image:
    copy = image.copy()
    copy.thumbnail((side, side), Image.Resampling.LANCZOS)
    return copy


def _write(image: Image.Image, file: Path, quality: int) -> None:
    image.save(file, "WEBP", quality=quality, method=4)
