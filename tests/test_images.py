"""Pictures on disk: what is none is refused, and a full disk leaves no half of one."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene.errors import BadFile, OutOfSpace
from phosphene.images import (
    contact_sheet,
    crossed_out,
    read_image,
    read_png,
    to_pixels,
    write_animation,
    write_png,
)

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
    write_animation(tmp_path / "x.webp", [PIXELS, 255 - PIXELS, PIXELS])
    with Image.open(tmp_path / "x.webp") as animation:
        assert animation.n_frames == 3
    assert sorted(os.listdir(tmp_path)) == ["x", "x.jpg", "x.png", "x.webp"]


WRITES: list[Callable[[Path], None]] = [
    lambda path: write_png(path, PIXELS),
    lambda path: write_animation(path, [PIXELS, 255 - PIXELS]),
]


@pytest.mark.parametrize("write", WRITES, ids=["png", "animation"])
@pytest.mark.parametrize("where", ["replace", "save"])
def test_a_full_disk_leaves_no_half_picture_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], where: str
) -> None:
    (tmp_path / "x").write_bytes(b"what was there")

    def full(*arguments: Any, **_: Any) -> None:
        if where == "save":
            Path(arguments[1]).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if where == "replace" else Image.Image, where, full)
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


@pytest.mark.parametrize("write", WRITES, ids=["png", "animation"])
def test_a_path_that_takes_no_file_is_refused(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.png", tmp_path):
        with pytest.raises(OutOfSpace):
            write(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_photograph_stands_as_it_was_held(tmp_path: Path) -> None:
    """A camera that was turned writes its sensor's rows, and how to turn them (EXIF's orientation 6: by 90°)."""
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
    (tmp_path / f".x.png.{os.getpid()}.tmp").symlink_to("/dev/full")
    large = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    with pytest.raises(OutOfSpace, match="No space left"):
        write_png(tmp_path / "x.png", large)
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
