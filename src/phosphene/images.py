"""Pictures on disk: reading what may not be one, writing PNG, contact sheets and animations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from phosphene.errors import BadFile
from phosphene.files import whole

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3) RGB."""

LONGEST_LINE, MOST_LINES = 200, 4
"""Of a label on a contact sheet: letters, and lines."""
LARGEST = 64_000_000
"""Pixels; a larger picture is refused before it is decoded."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read: other decoders are seldom looked after, or are other programs."""


def read_image(path: str | Path, size: int) -> Pixels:
    """A photograph's central square, resized to `size` pixels; `BadFile` when it is not a picture."""
    picture = opened(path)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def read_png(path: str | Path) -> Pixels:
    """A picture as it is; `BadFile` when it is not one."""
    return np.asarray(opened(path))


def opened(path: str | Path | IO[bytes], name: str = "") -> Image.Image:
    """A picture in RGB, from a file or from bytes that are called `name`; `BadFile` when it is not one."""
    name = name or str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                if file.width * file.height > LARGEST:
                    raise BadFile(
                        f"{name} has {file.width} × {file.height} pixels; at most {LARGEST:,} are read"
                    )
                picture = ImageOps.exif_transpose(file)  # as it was held, not as its sensor lay
                if picture.has_transparency_data:  # what cannot be seen has a colour all the same
                    white = Image.new("RGBA", picture.size, "white")
                    picture = Image.alpha_composite(white, picture.convert("RGBA"))
                return picture.convert("RGB")
    except BadFile:
        raise
    except FileNotFoundError:
        raise BadFile(f"{name} does not exist") from None
    except UnidentifiedImageError:  # its message names an object, where there was no path
        raise BadFile(f"{name} cannot be read as an image: it is of no known format") from None
    except Exception as error:  # a decoder has no common error of its own
        raise BadFile(f"{name} cannot be read as an image: {error}") from None


def to_pixels(image: npt.NDArray[np.floating]) -> Pixels:
    """(3, height, width) float in [0, 1] to 8-bit pixels, clipped and rounded."""
    return (np.clip(np.nan_to_num(image), 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def write_png(path: Path, pixels: Pixels) -> None:
    """Write a PNG whole or not at all; `OutOfSpace` when the disk takes no more."""
    _write(path, "png", [Image.fromarray(pixels)])


def write_webp(path: Path, pixels: Pixels) -> None:
    """Write a picture as WebP, small enough for a page."""
    _write(path, "webp", [Image.fromarray(pixels)], quality=88, method=6)


def write_animation(path: Path, frames: Sequence[Pixels], milliseconds: int = 60) -> None:
    """Write the climb as an animated WebP that holds its last frame for a second."""
    _write(
        path,
        "webp",
        [Image.fromarray(frame) for frame in frames],
        duration=[milliseconds] * (len(frames) - 1) + [1000],
        save_all=True,
        loop=0,
        quality=85,
    )


def contact_sheet(
    pictures: Sequence[Pixels], labels: Sequence[str], columns: int, scale: int = 1
) -> Pixels:
    """A grid of pictures of one size, row by row, each with its label below it; a label may hold a newline,
    and goes on below the pictures to its right that have none."""
    height, width = (side * scale for side in pictures[0].shape[:2])
    font = ImageFont.load_default(size=12)
    labels = [
        "\n".join(line[:LONGEST_LINE] for line in label.split("\n")[:MOST_LINES])
        for label in labels
    ]
    lines = max(label.count("\n") + 1 for label in labels)
    gap, strip = 6, 16 * lines + 2
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, rows * (height + strip + gap) + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + strip + gap)
        sheet.paste(
            Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS), (x, y)
        )
        own = [*labels[i + 1 : i - i % columns + columns], "next"]
        room = width + (width + gap) * next(n for n, other in enumerate(own) if other)
        for number, line in enumerate(label.split("\n")):
            draw.text(
                (x, y + height + 1 + 16 * number),
                _fitting(line, room, font),
                fill="black",
                font=font,
            )
    return np.asarray(sheet)


def _fitting(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The line, or as much of it as fits in `width` pixels, with an ellipsis."""
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def _write(path: Path, kind: str, frames: list[Image.Image], **options: object) -> None:
    with whole(path) as scratch:
        more = {"append_images": frames[1:]} if len(frames) > 1 else {}
        frames[0].save(scratch, format=kind, **more, **options)


def crossed_out(pixels: Pixels) -> Pixels:
    """A light tile with a cross, of the same size: there is no picture to show."""
    tile = Image.new("RGB", (pixels.shape[1], pixels.shape[0]), (236, 236, 236))
    draw = ImageDraw.Draw(tile)
    for line in ((0, 0, *tile.size), (0, tile.height, tile.width, 0)):
        draw.line(line, fill=(190, 190, 190), width=2)
    return np.asarray(tile)
