"""Pictures on disk: reading what may not be one, writing PNG, contact sheets and animations."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from phosphene.errors import BadFile, BadRequest
from phosphene.files import FIRST, atomic_path, really, really_is

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3) RGB."""

MAX_LINE = 200
"""Letters in a line of a label on a contact sheet."""
MAX_LINES = 4
"""Lines of a label on a contact sheet."""
MAX_PIXELS = 64_000_000
"""Pixels; a larger picture is refused before it is decoded."""
FORMATS = (
    *("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "JPEG2000", "PPM"),
    *("QOI", "SGI", "SUN", "PSD", "DDS", "ICO", "ICNS"),
)
"""What is read: formats with a signature that Pillow decodes by itself. Others are other programs
(EPS, WMF), films, or values whose scale the format leaves to its readers (FITS)."""
BY_SUFFIX = {".tga": "TGA", ".pcx": "PCX"}
"""Formats without a signature, so what another format's damage leaves could pass for them. They are
read where a file's name says so."""
WRITTEN = {
    **{".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"},
    **{".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"},
}
"""What is written, by the suffix of a file's name."""
MAX_WEBP = 16_383
"""Pixels; the format has no number for a longer side."""
COLOURS = "sRGB"
"""How pictures are read: by their colour profiles, and by the scale of their values. Version 0.1.0
read them otherwise, and records of pictures that began with such a photograph say nothing here."""
FORMER_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
SRGB_WITHIN = 2
"""Levels of 255 by which a profile may differ from sRGB and still be taken for it."""


def read_image(path: str | Path, size: int | tuple[int, int], colours: str = COLOURS) -> Pixels:
    """Return a photograph at a size (height, width); a number is both.

    What does not fit into that shape is cut off evenly. `BadFile` where the file is no photograph.
    """
    height, width = (size, size) if isinstance(size, int) else size
    return np.asarray(cut_to(opened(path, colours=colours), (height, width)))


def cut_to(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the largest middle part with the proportions of a size (height, width), at it."""
    left, top, right, bottom = middle(picture.size, size)
    part = picture.crop((left, top, right, bottom))
    return part.resize((size[1], size[0]), Image.Resampling.LANCZOS)


def middle(picture: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of a picture (width, height) that has the proportions of (height, width).

    It is left, top, right and bottom, in pixels.
    """
    height, width = size
    scale = min(picture[0] / width, picture[1] / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (picture[0] - across) // 2, (picture[1] - down) // 2
    return left, top, left + across, top + down


def read_png(path: str | Path) -> Pixels:
    """Read a picture as it is; `BadFile` when it is not one."""
    return np.asarray(opened(path))


def colours_of(path: str | Path) -> str:
    """Return how a picture must be read, or nothing where every version reads the same."""
    now = opened(path)
    try:
        then = opened(path, colours="")
    except BadFile:
        return COLOURS
    return "" if now.tobytes() == then.tobytes() else COLOURS


def opened(path: str | Path | IO[bytes], name: str = "", colours: str = COLOURS) -> Image.Image:
    """Return a picture in sRGB, from a file or from bytes that are called `name`.

    The first frame of an animation and the first page of a file are read, turned as the camera was
    held, over white where it is transparent. Grey values of 16 bits are scaled by 257, floats from
    0 … 1; other numbers are refused, because nothing says which of them is white. A colour profile
    is followed; one that is damaged or does not fit the picture is left out, as browsers do. With
    no `colours`, it is read as by version 0.1.0. `BadFile` when it is no picture.
    """
    name = name or str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            formats = _formats(name) if colours else FORMER_FORMATS
            with Image.open(path, formats=formats) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise BadFile(
                        f"{name} has {file.width} × {file.height} pixels; "
                        f"at most {MAX_PIXELS:,} are read"
                    )
                if not colours:
                    return _in_srgb(ImageOps.exif_transpose(file), b"")
                return _in_srgb(_in_8_bits(file, name), file.info.get("icc_profile") or b"")
    except BadFile:
        raise
    except FileNotFoundError:
        raise BadFile(f"{name} does not exist") from None
    except UnidentifiedImageError:  # its message names an object, where there was no path
        kind = _really(path) or "of no known format"
        raise BadFile(f"{name} cannot be read as an image: it is {kind}") from None
    except Exception as error:  # a decoder has no common error of its own
        raise BadFile(f"{name} cannot be read as an image: {error}") from None


def _really(path: str | Path | IO[bytes]) -> str:
    """Return what a file or bytes that are no picture are, or ""."""
    if isinstance(path, str | Path):
        return really_is(Path(path))
    path.seek(0)
    return really(path.read(FIRST))


def short_side(file: str | Path | IO[bytes], name: str = "") -> int | None:
    """Return a picture's shorter side in pixels from its header; None where it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats(name or str(file))) as picture:
                return min(picture.size)
    except Exception:  # a decoder has no common error of its own
        return None


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of files that are read as pictures."""
    known = Image.registered_extensions()
    wanted = {*_known_formats(), "MPO"}  # the decoder of JPEG reads MPO, as some phones name it
    return frozenset({each for each, kind in known.items() if kind in wanted} | set(BY_SUFFIX))


@cache
def _known_formats() -> tuple[str, ...]:
    """Return the formats that are read and that this Pillow was built with."""
    Image.init()
    return tuple(each for each in FORMATS if each in Image.OPEN)


def _formats(name: str) -> tuple[str, ...]:
    """Return the formats in which a file of this name is read."""
    unsigned = BY_SUFFIX.get(Path(name).suffix.lower())
    return (*_known_formats(), unsigned) if unsigned else _known_formats()


BITS_PER_SAMPLE = 258
PHOTOMETRIC = 262
SAMPLE_FORMAT = 339
"""Numbers of tags in a TIFF."""
WHITE_IS_ZERO = 0
"""A value of `PHOTOMETRIC`."""
SIGNED = 2
"""A value of `SAMPLE_FORMAT`."""


def _in_8_bits(file: Image.Image, name: str) -> Image.Image:
    """Return a file's first picture, upright, in a mode of 8 bits.

    `BadFile` where it has no scale.
    """
    file.load()
    tags = getattr(file, "tag_v2", {})
    kind = file.format
    transparent = file.info.get("transparency")
    upright = ImageOps.exif_transpose(file)  # as it was held, not as its sensor lay
    if SIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)) or (
        upright.mode == "I" and kind not in ("PNG", "PPM")
    ):
        raise BadFile(
            f"{name} holds whole numbers of 32 bits or with a sign, and nothing says which of them "
            "is white; save it with 8 or 16 bits, from 0"
        )
    if upright.mode != "F" and not upright.mode.startswith("I"):
        return upright
    values = np.asarray(upright, np.float64)
    seen = np.ones(values.shape, bool) if transparent is None else values != transparent
    if upright.mode != "F":
        bits = int(np.atleast_1d(tags.get(BITS_PER_SAMPLE, 16))[0])
        values = values / (2**bits - 1)
    elif not (values.min() >= 0 and values.max() <= 1):  # nor where one is no number
        raise BadFile(
            f"{name} holds floats from {values.min():g} to {values.max():g}; floats are read from "
            "0, black, to 1, white: scale them, or save it with 8 or 16 bits"
        )
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow heeds in 8 bits only
        values = 1 - values
    grey = Image.fromarray((values * 255 + 0.5).astype(np.uint8))
    return grey if seen.all() else Image.merge("LA", (grey, Image.fromarray(seen).convert("L")))


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture of 8 bits in sRGB, over white where it is transparent."""
    space = _space_of(profile)
    alpha = None
    colours = picture
    if picture.has_transparency_data:  # what cannot be seen has a colour all the same
        alpha = picture.convert("RGBA").getchannel("A")
        colours = picture.convert("RGBA").convert("RGB")
    if picture.mode in ("1", "L", "LA") and space == "GRAY":
        colours = picture.convert("L")
    elif picture.mode not in ("CMYK", "LAB"):
        colours = colours.convert("RGB")
    conversion = _conversion(profile, colours.mode)
    if conversion is not None:
        colours = ImageCms.applyTransform(colours, conversion) or colours
    colours = colours.convert("RGB")
    if alpha is None:
        return colours
    colours.putalpha(alpha)
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, colours).convert("RGB")


@lru_cache(maxsize=16)
def _space_of(profile: bytes) -> str:
    """Return the colour space that a profile is for, or nothing where it is damaged."""
    try:
        return str(ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space).strip()
    except (OSError, ImageCms.PyCMSError):
        return ""


@lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what brings colours of a profile to sRGB; None where they are so, or it does not fit.

    A profile that moves no colour by more than `SRGB_WITHIN` is sRGB: every maker has his own file
    of it, and a picture does not change because it says what all pictures are.
    """
    srgb = ImageCms.createProfile("sRGB")
    fits = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
    if mode == "LAB":
        return ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, "LAB", "RGB")
    if fits.get(_space_of(profile)) != mode:
        return None
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = ImageCms.buildTransform(own, srgb, mode, "RGB")
    except (OSError, ImageCms.PyCMSError):
        return None
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    if mode == "RGB":
        moved = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), found))
        if np.abs(moved.astype(int) - colours).max() <= SRGB_WITHIN:
            return None
    return found


def to_pixels(image: npt.NDArray[np.floating]) -> Pixels:
    """Return 8-bit pixels (height, width, 3) of an image (channels, height, width) in [0, 1].

    Grey has three equal channels. Of other numbers of channels, each is grey, side by side.
    """
    pixels = (np.clip(np.nan_to_num(image), 0, 1) * 255 + 0.5).astype(np.uint8)
    if len(pixels) != 3:
        pixels = np.repeat(np.concatenate([*pixels], 1)[None], 3, 0)
    return pixels.transpose(1, 2, 0)


def from_pixels(pixels: Pixels, channels: int) -> npt.NDArray[np.float32]:
    """Return the image (channels, height, width) in [0, 1] of what `to_pixels` made."""
    image: npt.NDArray[np.float32] = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return image if channels == 3 else np.stack(np.split(image[0], channels, 1))


def write_png(path: Path, pixels: Pixels) -> None:
    """Write a PNG whole or not at all, a grey one of grey; `OutOfSpace` on a full disk."""
    _write(path, "png", [_grey_or_rgb(pixels)])


def _grey_or_rgb(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if is_grey(pixels) else pixels)


def png_bytes(pixels: Pixels) -> bytes:
    """Return what `write_png` writes."""
    return _encoded("png", [_grey_or_rgb(pixels)])


def write_webp(path: Path, pixels: Pixels) -> None:
    """Write a picture as WebP, small enough for a page; sides that WebP cannot have are shrunk."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_WEBP, MAX_WEBP), Image.Resampling.LANCZOS)
    _write(path, "webp", [picture], quality=88, method=6)


def kind_of(path: Path) -> str:
    """Return the format that a file's suffix names, PNG without one; `BadRequest` for others."""
    suffix = path.suffix.lower() or ".png"
    if suffix not in WRITTEN:
        raise BadRequest(
            f"{path}: no picture is written as {path.suffix}; give a name that ends in one of "
            f"{', '.join(WRITTEN)}"
        )
    return WRITTEN[suffix]


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write a picture, whole or not at all, in the format that the suffix of its name says."""
    kind = kind_of(path)
    lossy = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95, "method": 6}}
    _write(path, kind, [Image.fromarray(pixels)], **lossy.get(kind, {}))


def animation_bytes(frames: Sequence[Pixels], milliseconds: int = 60) -> bytes:
    """Return a climb as an animated WebP that holds its last frame for a second."""
    return _encoded(
        "webp",
        [Image.fromarray(frame) for frame in frames],
        duration=[milliseconds] * (len(frames) - 1) + [1000],
        save_all=True,
        loop=0,
        quality=85,
    )


ALIKE = 1.05
"""How many times as wide as another's the proportions of a picture with its margin may be."""


def seen_of(picture: Pixels, own: Pixels) -> Pixels:
    """Return what a page shows of a picture of which a network reads its `own` input.

    It is the picture, which may be finer. It is the input where the picture has colours or sides
    that the network never saw.
    """
    height, width = picture.shape[:2]
    wider = width / height * own.shape[0] / own.shape[1]
    return picture if 1 / ALIKE <= wider <= ALIKE and is_grey(picture) >= is_grey(own) else own


def is_grey(pixels: Pixels) -> bool:
    """Return whether the channels of a picture are equal."""
    return bool((pixels == pixels[..., :1]).all())


def contact_sheet(
    pictures: Sequence[Pixels], labels: Sequence[str], columns: int, scale: int = 1
) -> Pixels:
    """Return a grid of pictures of one size, row by row, each with its label below it.

    One of another size is brought to that of most. A label may hold a newline, and goes on below
    the pictures to its right that have none. Each picture is `scale` times as large, or as large as
    fits into a sheet of `MAX_PIXELS` pixels.
    """
    font = ImageFont.load_default(size=12)
    labels = [
        "\n".join(line[:MAX_LINE] for line in label.split("\n")[:MAX_LINES]) for label in labels
    ]
    lines = max(label.count("\n") + 1 for label in labels)
    gap = 6
    strip = 16 * lines + 2
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    usual = Counter(picture.shape[:2] for picture in pictures).most_common(1)[0][0]
    height, width = usual[0] * scale, usual[1] * scale
    while (columns * (width + gap)) * (rows * (height + strip + gap)) > MAX_PIXELS and width > 8:
        height, width = max(1, height * 9 // 10), width * 9 // 10
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
    """Return the line, or as much of it as fits in `width` pixels, with an ellipsis."""
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def _write(path: Path, kind: str, frames: list[Image.Image], **options: object) -> None:
    with atomic_path(path) as scratch:
        scratch.write_bytes(_encoded(kind, frames, **options))


def _encoded(kind: str, frames: list[Image.Image], **options: object) -> bytes:
    more = {"append_images": frames[1:]} if len(frames) > 1 else {}
    file = io.BytesIO()
    frames[0].save(file, format=kind, **more, **options)
    return file.getvalue()


def crossed_out(pixels: Pixels) -> Pixels:
    """Return a light tile with a cross, of the same size, where there is no picture to show."""
    tile = Image.new("RGB", (pixels.shape[1], pixels.shape[0]), (236, 236, 236))
    draw = ImageDraw.Draw(tile)
    for line in ((0, 0, *tile.size), (0, tile.height, tile.width, 0)):
        draw.line(line, fill=(190, 190, 190), width=2)
    return np.asarray(tile)
