"""Pictures on a screen: degrees and pixels, place, background, and what PsychoPy reads."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loops import CLIMB, brightness, history, tiny_loop

from phosphene.errors import BadRequest
from phosphene.images import read_png, write_png
from phosphene.loops.folder import serve_folder
from phosphene.loops.rig import Rig, answer_folder
from phosphene.loops.server import as_json
from phosphene.loops.session import NAME, Session
from phosphene.loops.stimuli import pictures_of, write_stimuli
from phosphene.screen import Screen, for_psychopy
from phosphene.stimulus import Shape, Stimulus
from phosphene.tensors import recoloured

DISTANCE = 1 / math.tan(math.radians(1))
"""Centimetres at which one degree is one centimetre."""

TEN = {"resolution": "1000x600", "width": 100, "distance": DISTANCE}
"""A screen with ten pixels for each degree."""


@pytest.mark.parametrize(
    ("size", "position", "shape", "left_top", "sides"),
    [
        ("4", "0,0", (14, 14), (480, 280), (40, 40)),
        ("4", "2,-3", (14, 14), (500, 310), (40, 40)),
        ("40px", "20px,-30px", (14, 14), (500, 310), (40, 40)),
        ("4deg", "-2deg, 3", (14, 14), (460, 250), (40, 40)),
        ("64px", "0,0", (36, 64), (468, 282), (64, 36)),
        ("100", "0,0", (6, 10), (0, 0), (1000, 600)),
    ],
)
def test_degrees_and_pixels(size, position, shape, left_top, sides):
    screen = Screen(**TEN, size=size, position=position)
    assert screen.pixels_per_degree == pytest.approx(10)
    place = screen.place(shape)
    assert ((place.left, place.top), (place.width, place.height)) == (left_top, sides)
    told = place.as_json((0.5,))
    assert told["size_degrees"] == pytest.approx([each / 10 for each in sides])
    assert told["position_pixels"] == (left_top[0] + sides[0] / 2 - 500,
                                       300 - left_top[1] - sides[1] / 2)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution": "1920"}, "pixels are as 1920x1080"),
        ({"resolution": "0x5"}, "pixels are as 1920x1080"),
        ({"width": 0}, "has a width and a distance"),
        ({"distance": 0}, "has a width and a distance"),
        ({"size": ""}, "size is in degrees or in pixels"),
        ({"size": "4 cm"}, "size is in degrees or in pixels"),
        ({"size": "-4"}, "the picture's size is"),
        ({"position": "3"}, "position is as 2,-3"),
        ({"position": "a,b"}, "position is in degrees or in pixels"),
        ({"position": "1.2.3,0"}, "position is in degrees or in pixels"),
        (
            {"position": "49,0"},
            "does not fit on the screen of 1000x600 pixels, which are 100.0 × 6",
        ),
        ({"size": "101"}, "does not fit"),
        ({"size": "1px"}, "does not fit"),
    ],
)
def test_a_place_that_cannot_be_is_refused(change, words):
    with pytest.raises(BadRequest, match=words):
        Screen(**{**TEN, "size": "4", **change}).place((14, 14))


def test_the_background_of_the_screen_is_the_picture_s_own():
    """For each value that an option can have, to the last bit: no frame shows."""
    place = Screen(**TEN, size="4", whole=True).place((8, 8))
    for step in range(0, 1001):
        value = step / 1000
        stimulus = Stimulus(background=str(value), aperture=0.5)
        shape = Shape(1, (8, 8))
        fit = stimulus.fit(_viewer(shape), shape)
        picture = (fit(torch.rand(1, 1, 8, 8)) * 255).round() / 255
        corner = round(float(picture[0, 0, 0, 0]) * 255)
        whole = place.on_screen(np.full((40, 40, 3), corner, np.uint8), (value,))
        assert (whole == corner).all()


def _viewer(shape):
    from phosphene.loops.loop import viewer

    return viewer(shape)


def test_a_picture_lies_where_the_place_says():
    place = Screen(**TEN, size="4", position="2,-3").place((4, 4))
    pixels = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)
    whole = place.on_screen(pixels, (0.2, 0.4, 0.6))
    assert whole.shape == (600, 1000, 3)
    assert (whole[310:350, 500:540] == pixels).all()
    whole[310:350, 500:540] = whole[0, 0]
    assert (whole == [51, 102, 153]).all()


def test_arrays_are_what_psychopy_s_shaders_read():
    """A texture's first row is the lowest. Grey is shown as (t + 1) / 2, and RGB as it is."""
    image = np.random.default_rng(0).random((3, 5, 7), np.float32)
    colour = for_psychopy(image)
    assert (colour.shape, colour.dtype, colour.flags.c_contiguous) == ((5, 7, 3), np.float32, True)
    assert (colour[::-1].transpose(2, 0, 1) == image).all()
    grey = for_psychopy(image[:1])
    assert (grey.shape, grey.dtype, grey.flags.c_contiguous) == ((5, 7), np.float32, True)
    assert np.allclose((grey[::-1] + 1) / 2, image[0], atol=1e-7)
    black_above_white = np.float32([[[0], [1]]])
    assert for_psychopy(black_above_white).tolist() == [[1], [-1]]


SHOWN = Screen(**TEN, size="4", position="2,-3", whole=True, arrays=True)


def test_pictures_keep_their_constraints_at_the_size_of_the_screen(tmp_path):
    climb = CLIMB.changed(contrast=0.1, luminance=0.5, aperture=0.8)
    references = torch.rand(2, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    loop = tiny_loop(tmp_path, climb=climb, screen=SHOWN, references=references, blanks=1)
    images = loop.ask().images
    assert images.shape == (9, 3, 40, 40)
    plane = recoloured(images[:8], 1)
    assert torch.allclose(plane.mean((1, 2, 3)), torch.tensor(0.5), atol=0.003)
    assert torch.allclose(plane.std((1, 2, 3), correction=0), torch.tensor(0.1), atol=0.003)
    departs = (images[:8] != images[8]).any(1).float().mean((1, 2))
    assert torch.allclose(departs, torch.tensor(math.pi / 4 * 0.8**2), atol=0.03)
    assert torch.equal(images[8], torch.full_like(images[8], 128 / 255))


def test_the_constraints_are_those_of_a_gradient_climb(tmp_path):
    """A screen on which a picture has the generator's own pixels changes no bit of it."""
    climb = CLIMB.changed(contrast=0.1, luminance=0.45, aperture=0.9, edge=0.2)
    screen = Screen(**TEN, size="14px")
    generation = tiny_loop(tmp_path, climb=climb, screen=screen).ask()
    loop = tiny_loop(tmp_path / "plain", climb=climb)
    assert torch.equal(loop.ask().images, generation.images)
    shape = Shape(3, (14, 14))
    climbed = climb.stimulus.fit(_viewer(shape), loop.prior)(loop.prior.images(generation.codes))
    assert torch.equal((climbed[..., 1:15, 1:15] * 255).round() / 255, generation.images)


def test_a_rig_is_told_the_place_and_given_whole_screens_and_arrays(tmp_path):
    loop = tiny_loop(tmp_path / "log", screen=SHOWN)
    generation = next(serve_folder(loop, tmp_path / "exchange"))
    block = tmp_path / "exchange" / "block-0000-00"
    manifest = json.loads((block / "manifest.json").read_text())
    left, top = manifest["place"]["left_top_pixels"]
    width, height = manifest["place"]["size_pixels"]
    for name, said in manifest["pictures"].items():
        whole = read_png(block / said["file"])
        assert whole.shape == (600, 1000, 3)
        pixels = whole[top : top + height, left : left + width]
        assert (pixels == generation.pixels(name)).all()
        array = np.load(block / said["array"], allow_pickle=False)
        assert np.allclose(array[::-1] * 255, pixels, atol=1e-4)
    message = json.loads(json.dumps(as_json(generation)))
    assert message["place"] == manifest["place"]
    assert message["arrays"].keys() == message["pictures"].keys() == manifest["pictures"].keys()


def test_a_simulated_rig_looks_where_the_place_says(tmp_path):
    """Whole screens and pictures alone end with the same scores."""
    climb = CLIMB.changed(steps=2)
    alone = tiny_loop(tmp_path / "alone", climb=climb, screen=Screen(**TEN, size="4"))
    whole = tiny_loop(tmp_path / "whole", climb=climb, screen=SHOWN)
    answering = answer_folder(Rig(brightness), tmp_path / "exchange")
    threading.Thread(target=lambda: [*answering], daemon=True).start()
    assert len([*serve_folder(whole, tmp_path / "exchange")]) == 2
    assert whole.history == history(alone)


def test_another_screen_is_refused_and_a_log_from_before_screens_goes_on(tmp_path):
    loop = tiny_loop(tmp_path / "new", screen=SHOWN)
    loop.session.close()
    with pytest.raises(BadRequest, match="started with another screen"):
        tiny_loop(tmp_path / "new")
    loop = tiny_loop(tmp_path / "plain")
    loop.session.close()
    event = dict(loop.session.events[0])
    settings = {key: value for key, value in event["settings"].items() if key != "screen"}
    former = Session(tmp_path / "former")
    former.append({**event, "settings": settings})
    former.close()
    assert tiny_loop(tmp_path / "former").number == 0
    assert (tmp_path / "former" / NAME).exists()


def test_options_of_a_screen_need_one(tmp_path: Path):
    run = subprocess.run(
        [sys.executable, "-m", "phosphene", "evolve", "--folder", str(tmp_path / "exchange"),
         "--size", "4"], capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert "the place of a picture is on a screen: --screen 1920x1080" in run.stderr


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two pictures of noise, of which one has a record."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("a", "b"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (30, 60, 3), np.uint8)
        write_png(folder / f"{name}.png", pixels)
    return folder


def test_pictures_of_any_origin_are_brought_to_a_screen(tmp_path, photographs):
    stimulus = Stimulus(contrast=0.1, luminance=0.4, background="0.4", aperture=0.8)
    rows = write_stimuli(pictures_of([photographs]), stimulus, SHOWN, tmp_path / "out")
    assert [each.picture for each in rows] == ["a", "b"]
    for row in rows:
        assert (row.contrast, row.luminance) == pytest.approx((0.1, 0.4), abs=0.002)
        assert row.missed == ()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["place"]["size_pixels"] == [40, 20]
    array = np.load(tmp_path / "out" / "a.npy", allow_pickle=False)
    grey = array @ np.float32([0.299, 0.587, 0.114])
    assert (grey.mean(), grey.std()) == pytest.approx((0.4, 0.1), abs=0.002)
    whole = read_png(tmp_path / "out" / "a.png")
    assert (whole[0, 0] == 102).all()
    with pytest.raises(BadRequest, match="is there already"):
        write_stimuli(pictures_of([photographs]), stimulus, SHOWN, tmp_path / "out")


def test_a_constraint_that_a_picture_misses_is_told(tmp_path, photographs):
    stimulus = Stimulus(contrast=0.4, range="0.4,0.6", background="0.5")
    rows = write_stimuli([photographs / "a.png"], stimulus, SHOWN, tmp_path / "out")
    assert [each.missed for each in rows] == [("contrast",)]


def test_of_a_folder_with_records_the_pictures_are_theirs(photographs):
    (photographs / "b.json").write_text("{}")
    assert [each.name for each in pictures_of([photographs])] == ["b.png"]
    assert [each.name for each in pictures_of([photographs / "a.png"])] == ["a.png"]
    with pytest.raises(BadRequest, match="no pictures in"):
        pictures_of([photographs / "nothing"])
