"""Pictures on disk: what is none is refused, and a full disk leaves no half of one."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image, ImageCms

from phosphene import files
from phosphene.errors import BadFile, OutOfSpace
from phosphene.images import (
    COLOURS,
    animation_bytes,
    contact_sheet,
    crossed_out,
    opened,
    read_image,
    read_png,
    seen_of,
    short_side,
    suffixes,
    to_pixels,
    write_picture,
    write_png,
    write_webp,
)
from phosphene.testing import IMAGE

PIXELS = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that claims many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def whole(tmp_path: Path, kind: str) -> bytes:
    file = tmp_path / f"whole.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file)
    return file.read_bytes()


def refused(file: Path) -> None:
    for reads in (lambda: read_image(file, 16), lambda: read_png(file)):
        with pytest.raises(BadFile) as caught:
            reads()
        assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0" + b"\0" * 50,
        b"GIF89a" + b"\xff" * 20,
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"BM" + b"\0" * 60,
        b"<svg/>",
        bomb(100_000, 100_000),
        bomb(9_000, 9_000),
        bomb(2**31 - 1, 2**31 - 1),
        bomb(0, 5),
        bomb(64, 64)[:60],
    ],
    ids=lambda raw: repr(raw[:10]),
)
def test_what_is_no_picture_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.png").write_bytes(raw)
    refused(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp", "gif"])
def test_a_picture_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    raw = whole(tmp_path, kind)
    assert read_image(tmp_path / f"whole.{kind}", 16).shape == (16, 16, 3)
    for share in (0.1, 0.5, 0.8):
        (tmp_path / "cut").write_bytes(raw[: int(share * len(raw))])
        refused(tmp_path / "cut")


def test_damage_anywhere_in_a_png_is_refused_or_read_but_never_another_error(
    tmp_path: Path,
) -> None:
    raw = whole(tmp_path, "png")
    for at in range(0, len(raw), max(1, len(raw) // 150)):
        damaged = bytearray(raw)
        damaged[at] ^= 0xFF
        (tmp_path / "x.png").write_bytes(damaged)
        try:
            read_png(tmp_path / "x.png")
        except BadFile:
            pass


def test_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    refused(tmp_path)
    refused(tmp_path / "none.png")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16", "LA"])
def test_every_kind_of_picture_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    grey = Image.fromarray(np.full((20, 20), 128, np.uint8))
    (Image.new("I;16", (20, 20), 128) if mode == "I;16" else grey.convert(mode)).save(file)
    assert read_image(file, 16).shape == (16, 16, 3)
    assert read_image(file, 16).dtype == np.uint8


# ---------------------------------------------------------------- more than 8 bits

RAMP = np.tile(np.arange(256) * 257, (4, 1))
"""The 256 levels as 16 bits have them."""


def tiff(values: np.ndarray, kind: int = 1, photometric: int = 1, order: str = "<") -> bytes:
    """Return the bytes of a grey TIFF.

    `kind` tells unsigned (1) or signed (2) whole numbers or floats (3).
    """
    raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
    (height, width), bits = values.shape, 8 * values.dtype.itemsize
    short = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
    entries = {tag: struct.pack(order + "HIHH", 3, 1, value, 0) for tag, value in short.items()}
    entries[339] = struct.pack(order + "HIHH", 3, 1, kind, 0)
    entries[273] = struct.pack(order + "HII", 4, 1, 8)
    entries[279] = struct.pack(order + "HII", 4, 1, len(raw))
    table = b"".join(struct.pack(order + "H", tag) + entries[tag] for tag in sorted(entries))
    head = b"II*\0" if order == "<" else b"MM\0*"
    place = struct.pack(order + "I", 8 + len(raw))
    return head + place + raw + struct.pack(order + "H", len(entries)) + table + b"\0" * 4


def saved(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def read(raw: bytes) -> np.ndarray:
    return np.asarray(opened(io.BytesIO(raw), "x"))


@pytest.mark.parametrize(
    "raw",
    [
        saved(RAMP.astype("u2"), "PNG"),
        saved(RAMP.astype("u2"), "TIFF"),
        saved(RAMP.astype("u2"), "JPEG2000"),
        saved(RAMP.astype("u2"), "PPM"),
        tiff(RAMP.astype("u2")),
        tiff(RAMP.astype("u2"), order=">"),
        tiff((RAMP / 65535).astype("f4"), 3),
        tiff((RAMP / 65535).astype("f4"), 3, order=">"),
    ],
    ids=["png", "tiff", "jpeg2000", "pgm", "little", "big", "float", "float big"],
)
def test_256_levels_of_16_bits_or_floats_are_256_levels(raw: bytes) -> None:
    assert np.array_equal(read(raw), np.tile(np.arange(256)[:, None], (4, 1, 3)))


def test_black_is_white_where_a_file_says_so() -> None:
    """As X-rays do: Pillow heeds it in 8 bits only."""
    for values, kind in ((RAMP.astype("u2"), 1), ((RAMP / 65535).astype("f4"), 3)):
        assert read(tiff(values, kind, photometric=0))[0, :, 0].tolist() == [*range(255, -1, -1)]


@pytest.mark.parametrize(
    ("values", "kind", "helps"),
    [
        (RAMP.astype("i4"), 2, "8 or 16 bits"),
        (RAMP.astype("u4"), 1, "8 or 16 bits"),
        ((RAMP // 2).astype("i2"), 2, "8 or 16 bits"),
        ((RAMP // 514).astype("i1"), 2, "8 or 16 bits"),
        ((RAMP / 257).astype("f4"), 3, "from 0 to 255; floats are read from 0"),
        ((RAMP / 65535 - 0.5).astype("f4"), 3, "from -0.5 to 0.5"),
        (np.full((4, 4), np.nan, "f4"), 3, "floats are read from 0"),
    ],
    ids=["i4", "u4", "i2", "i1", "0 … 255", "−½ … ½", "NaN"],
)
def test_numbers_without_a_scale_are_refused(values: np.ndarray, kind: int, helps: str) -> None:
    with pytest.raises(BadFile, match=helps) as caught:
        read(tiff(values, kind))
    assert "\n" not in str(caught.value)


def test_one_value_of_16_bits_is_transparent() -> None:
    raw = saved(RAMP.astype("u2"), "PNG", transparency=257)
    assert read(raw)[0, :4, 0].tolist() == [0, 255, 2, 3]


# ---------------------------------------------------------------- colour


def icc(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a colour profile of version 4."""
    places, body = [], b""
    at = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        places.append(name + struct.pack(">II", at + len(body), len(data)))
        body += data
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x04000000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s4s", 2020, 1, 1, 0, 0, 0, b"acsp", b"\0" * 4)
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)  # lit by D50
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + b"".join(places) + body


def number(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def point(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(number, values))


def gamma(value: float) -> bytes:
    return b"para" + struct.pack(">IHH", 0, 0, 0) + number(value)


SRGB_CURVE = b"para" + struct.pack(">IHH", 0, 3, 0) + b"".join(
    map(number, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)  # fmt: skip
WHITE = point(0.9642, 1.0, 0.8249)


def p3(curve: bytes) -> bytes:
    """Return a profile with the primaries of Display P3."""
    primaries = {
        b"rXYZ": point(0.51512, 0.24120, -0.00105),
        b"gXYZ": point(0.29198, 0.69225, 0.04189),
        b"bXYZ": point(0.15710, 0.06657, 0.78407),
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return icc(b"RGB ", {b"wtpt": WHITE, **primaries, **curves})


P3 = p3(gamma(2.2))
LINEAR_GREY = icc(b"GRAY", {b"wtpt": WHITE, b"kTRC": gamma(1.0)})
PLAIN = np.full((8, 8, 3), (200, 60, 50), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    ("curve", "wanted"), [(gamma(2.2), (219, 37, 34)), (SRGB_CURVE, (217, 42, 39))]
)
def test_a_phone_s_colours_are_brought_to_srgb(
    kind: str, curve: bytes, wanted: tuple[int, ...]
) -> None:
    """What P3 calls (200, 60, 50) is another colour in sRGB, by the definition of both."""
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    found = read(saved(PLAIN, kind, icc_profile=p3(curve), **options.get(kind, {})))
    assert np.abs(found.astype(int) - wanted).max() <= (2 if kind == "JPEG" else 1)


def test_a_profile_holds_for_palettes_and_beneath_transparency() -> None:
    file = io.BytesIO()
    Image.fromarray(PLAIN).quantize(4).save(file, "PNG", icc_profile=P3)
    assert np.abs(read(file.getvalue()).astype(int) - (219, 37, 34)).max() <= 1
    clear = np.dstack([PLAIN, np.full((8, 8), 255, np.uint8)])
    clear[:, :4, 3] = 0
    found = read(saved(clear, "PNG", icc_profile=P3)).astype(int)
    assert (found[:, :4] == 255).all()
    assert np.abs(found[:, 4:] - (219, 37, 34)).max() <= 1


def test_a_grey_profile_holds_for_grey() -> None:
    """Half of the light is level 188 in sRGB, whatever the bits."""
    for half in (np.full((8, 8), 128, np.uint8), np.full((8, 8), 128 * 257, np.uint16)):
        found = read(saved(half, "PNG", icc_profile=LINEAR_GREY))
        assert np.abs(found.astype(int) - 188).max() <= 1


def test_a_profile_that_says_srgb_changes_nothing() -> None:
    levels = np.arange(256, dtype=np.uint8)
    every = np.stack([np.tile(levels, (256, 1)), np.tile(levels[:, None], (1, 256))], -1)
    every = np.dstack([every, every[..., 0] ^ every[..., 1]])
    said = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read(saved(every, "PNG", icc_profile=said)), every)


@pytest.mark.parametrize(
    "profile",
    [b"no profile", P3[:200], P3[:300] + b"\xff" * 40 + P3[340:], LINEAR_GREY],
    ids=["none", "cut", "damaged", "of another space"],
)
def test_a_profile_that_does_not_fit_is_left_out(profile: bytes) -> None:
    assert np.array_equal(read(saved(PLAIN, "PNG", icc_profile=profile)), PLAIN)


def test_a_record_of_version_0_1_0_begins_with_the_pixels_that_it_began_with(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    """It read a phone's photograph without its profile, so as the plain one beside it."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGE, IMAGE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(pixels).save(tmp_path / "phone.png", icc_profile=P3)
    made = {}
    for name in ("plain", "phone"):
        climb = ("--prior", "pixels", "--steps", 2, "--device", "cpu", "--precision", "float32")
        start = ("--start", tmp_path / f"{name}.png", "--out", tmp_path / name, "--json")
        (said,) = phosphene(
            "synthesize", zoo / "subject.safetensors", "fc8:0", *climb, *start
        ).json()
        made[name] = Path(said["image"]).with_suffix(".json")
    said = json.loads(made["phone"].read_text())
    assert said["request"]["start"].pop("colours") == COLOURS
    assert "colours" not in json.loads(made["plain"].read_text())["request"]["start"]
    assert not np.array_equal(*(read_png(file.with_suffix(".png")) for file in made.values()))
    made["phone"].write_text(json.dumps(said))
    assert phosphene("synthesize", "--record", made["phone"], "--out", tmp_path / "again").code == 0
    (again,) = (tmp_path / "again").glob("fc8*s0.png")
    assert np.array_equal(read_png(again), read_png(made["plain"].with_suffix(".png")))


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(RAMP.astype("u2")),
        Image.fromarray((RAMP * 2).astype("i4")),
        Image.fromarray((RAMP / 65535).astype("f4")),
    ],
    ids=["16 bits", "32 bits", "floats"],
)
def test_what_version_0_1_0_read_can_be_read_as_it_did(picture: Image.Image) -> None:
    file = io.BytesIO()
    picture.save(file, "TIFF")
    then = np.asarray(opened(io.BytesIO(file.getvalue()), "x", colours=""))
    assert np.array_equal(then, np.asarray(picture.convert("RGB")))


def test_what_is_seen_is_the_first_frame_upright(tmp_path: Path) -> None:
    red, blue = (np.full((12, 20, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    frames = [Image.fromarray(blue)]
    for kind in ("gif", "png", "webp", "tiff"):
        options = {"lossless": True} if kind == "webp" else {}
        Image.fromarray(red).save(
            tmp_path / f"x.{kind}", save_all=True, append_images=frames, **options
        )
        assert (read_png(tmp_path / f"x.{kind}") == (255, 0, 0)).all()
    half = np.concatenate([red, blue])
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    Image.fromarray(half).save(tmp_path / "held.png", exif=exif)
    assert np.array_equal(read_png(tmp_path / "held.png"), half[::-1])
    deep = half[..., 0].astype("u2") * 257
    Image.fromarray(deep).save(tmp_path / "deep.png", exif=exif)
    assert np.array_equal(read_png(tmp_path / "deep.png")[..., 0], half[::-1, :, 0])


@pytest.mark.parametrize(
    "name",
    ["x.tif", "x.TIFF", "x.jfif", "x.avif", "x.GIF", "x.ppm", "x.pgm", "x.jp2", "x.tga", "x.pcx"],
)
def test_what_the_library_reads_is_read(tmp_path: Path, name: str) -> None:
    file, suffix = tmp_path / name, Path(name).suffix.lower()
    if suffix == ".avif" and ".avif" not in suffixes():
        pytest.skip("this Pillow has no AVIF")
    picture = Image.fromarray(PLAIN).convert("L" if suffix == ".pgm" else "RGB")
    picture.save(file, Image.registered_extensions()[suffix])
    assert suffix in suffixes()
    wanted = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(read_png(file) - wanted).max() <= 6
    assert short_side(file) == 8


def test_only_what_is_a_picture_by_itself_is_read() -> None:
    assert not suffixes() & {".eps", ".wmf", ".h5", ".mpg", ".pdf", ".txt"}


def test_a_photograph_is_its_central_square(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = (200, 100, 50)
    for pixels in (wide, wide.transpose(1, 0, 2)):
        Image.fromarray(pixels).save(tmp_path / "x.png")
        assert (read_image(tmp_path / "x.png", 10) == (200, 100, 50)).all()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for name in ("x.png", "x", "x.jpg"):
        write_png(tmp_path / name, PIXELS)
        assert np.array_equal(read_png(tmp_path / name), PIXELS)
    (tmp_path / "x.webp").write_bytes(animation_bytes([PIXELS, 255 - PIXELS, PIXELS]))
    with Image.open(tmp_path / "x.webp") as animation:
        assert animation.n_frames == 3
    assert sorted(os.listdir(tmp_path)) == ["x", "x.jpg", "x.png", "x.webp"]


WRITES: list[Callable[[Path], None]] = [
    lambda path: write_png(path, PIXELS),
    lambda path: write_webp(path, PIXELS),
]


@pytest.mark.parametrize("write", WRITES, ids=["png", "webp"])
@pytest.mark.parametrize("where", ["replace", "write_bytes"])
def test_a_full_disk_leaves_no_half_picture_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], where: str
) -> None:
    (tmp_path / "x").write_bytes(b"what was there")

    def full(*arguments: Any, **_: Any) -> None:
        if where == "write_bytes":
            Path(arguments[0]).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if where == "replace" else Path, where, full)
    with pytest.raises(OutOfSpace, match="No space left"):
        write(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"what was there"


def test_an_interruption_leaves_no_half_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_png(tmp_path / "x.png", PIXELS)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", WRITES, ids=["png", "webp"])
def test_a_path_that_takes_no_file_is_refused(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(OutOfSpace):
            write(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_photograph_stands_as_it_was_held(tmp_path: Path) -> None:
    """A camera that was turned writes its sensor's rows, and how to turn them.

    EXIF's orientation 6 is by 90°.
    """
    picture, exif = Image.fromarray(PIXELS), Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    assert (read_png(tmp_path / "turned.png") == np.rot90(PIXELS, -1)).all()


def test_what_is_transparent_has_no_colour(tmp_path: Path) -> None:
    picture = np.zeros((12, 10, 4), np.uint8)
    picture[:, :5] = (255, 0, 255, 0)
    picture[:, 5:] = (10, 20, 30, 255)
    Image.fromarray(picture).save(tmp_path / "cut.png")
    found = read_png(tmp_path / "cut.png")
    assert (found[:, :5] == 255).all()
    assert (found[:, 5:] == (10, 20, 30)).all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_that_is_really_full(tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    with pytest.raises(OutOfSpace, match="No space left"):  # noqa: PT012, SIM117
        with files.atomic_path(tmp_path / "x.png") as scratch:
            scratch.symlink_to("/dev/full")
            Image.fromarray(large).save(scratch, "PNG")
    assert os.listdir(tmp_path) == []


def test_floats_become_the_nearest_of_256_and_are_clipped() -> None:
    image = (
        np.array([-1.0, 0.0, 0.5, 1.0, 7.0, 1 / 255, 0.9999, np.nan]).reshape(1, 1, 8).repeat(3, 0)
    )
    assert to_pixels(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255, 1, 255, 0]
    every = np.arange(256).reshape(1, 16, 16).repeat(3, 0) / 255
    assert np.array_equal(
        to_pixels(every.astype(np.float32))[..., 0], np.arange(256).reshape(16, 16)
    )


def test_a_contact_sheet_shows_every_picture_row_by_row() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    pictures = [np.full((20, 20, 3), colour, np.uint8) for colour in colours]
    sheet = contact_sheet(pictures, ["a very long label that cannot fit\n1.0"] * 5, columns=3)
    places = {colour: np.argwhere((sheet == colour).all(2)) for colour in colours}
    assert all(len(found) == 400 for found in places.values())
    tops, lefts = ([int(found[:, axis].min()) for found in places.values()] for axis in (0, 1))
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4]
    assert lefts[0] == lefts[3] < lefts[1] == lefts[4] < lefts[2]
    assert contact_sheet(pictures[:1], ["α × ∞\nβ"], columns=8, scale=2).shape[1] == 2 * 20 + 2 * 6


def test_what_is_shown_of_a_picture_is_what_the_network_saw_of_it() -> None:
    red = np.full((40, 40, 3), (250, 0, 0), np.uint8)
    grey = np.full((40, 40, 3), 90, np.uint8)
    for picture, own, shown in [
        (red, red[:20, :20], red),  # the same, finer
        (red, red[:30], red[:30]),  # the network saw a part
        (red, grey[:20, :20], grey[:20, :20]),  # it saw no colour
        (grey, grey[:20, :20], grey),
        (grey[:, :39], grey[:20, :20], grey[:, :39]),  # rounded margins
    ]:
        assert np.array_equal(seen_of(picture, own), shown)


def test_a_tile_of_another_size_is_brought_to_that_of_most() -> None:
    wide = np.full((10, 20, 3), 90, np.uint8)
    square = np.full((20, 20, 3), 90, np.uint8)
    usual = contact_sheet([wide] * 3, ["a"] * 3, columns=3)
    assert np.array_equal(contact_sheet([square, wide, wide], ["a"] * 3, columns=3), usual)


def test_a_sheet_of_thousands_of_pictures_is_one_that_can_be_read(tmp_path: Path) -> None:
    picture = np.zeros((200, 200, 3), np.uint8)
    sheet = contact_sheet([picture] * 3000, [""] * 3000, columns=60)
    write_png(tmp_path / "sheet.png", sheet)
    assert read_png(tmp_path / "sheet.png").shape[1] > 60 * 100


def test_a_webp_has_no_side_that_the_format_has_not(tmp_path: Path) -> None:
    write_webp(tmp_path / "x.webp", np.full((40, 20_000, 3), 9, np.uint8))
    assert read_png(tmp_path / "x.webp").shape == (33, 16_383, 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.png", "PNG"), ("x.JPG", "JPEG"), ("x.webp", "WEBP"), ("x.tiff", "TIFF"), ("x", "PNG")],
)
def test_a_picture_is_what_its_name_says(tmp_path: Path, name: str, kind: str) -> None:
    write_picture(tmp_path / name, np.full((8, 8, 3), 90, np.uint8))
    with Image.open(tmp_path / name) as picture:
        assert picture.format == kind
    assert np.abs(read_png(tmp_path / name).astype(int) - 90).max() <= 1


def test_a_label_goes_on_below_pictures_that_have_none() -> None:
    white = [np.full((20, 20, 3), 255, np.uint8)] * 4
    long, ended = (
        contact_sheet(white, ["a very long label", *others], columns=2)
        for others in (["", "", ""], "abc")
    )
    second = np.s_[26:48, 36:]  # below the second tile of the first row
    assert (long[second] < 128).any()
    assert not np.array_equal(long[second], ended[second])
    assert (long[:48] != ended[:48]).any()
    assert (long[48:] == 255).all(), "nothing runs into the next row"


def test_a_crossed_out_tile_is_no_picture() -> None:
    tile = crossed_out(PIXELS)
    assert tile.shape == PIXELS.shape
    assert np.array_equal(tile, crossed_out(255 - PIXELS)), "nothing of the picture shows"
    assert 2 <= len(np.unique(tile.reshape(-1, 3), axis=0)) <= 4
