"""A picture on a screen: its size and its place in degrees and in pixels, and how it is given.

One degree has the same number of pixels everywhere, as at the middle of the screen. PsychoPy's unit
`deg` has the same meaning.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phosphene.errors import BadRequest
from phosphene.images import Pixels, to_pixels
from phosphene.parts import check_options, option

MAX_SIDE = 16_384
"""Pixels of a screen's longer side."""

_LENGTH = re.compile(r"\s*([+-]?[0-9.]+)\s*(deg|px)?\s*")


@dataclass(frozen=True)
class Screen:
    """Describe a screen, and where on it a picture lies.

    `size` is the picture's width and `position` that of its middle, from the middle of the screen,
    to the right and up. Both are in degrees, or in pixels: "4", "144px", "2,-3", "72px,-108px".
    With `whole`, files show the whole screen. With `arrays`, there are arrays for PsychoPy as well.
    """

    resolution: str = option("1920x1080", "Pixels of the screen, as 1920x1080.")
    width: float = option(0.0, "Width of the screen in cm.", low=0, high=10_000)
    distance: float = option(0.0, "Distance of the eye from the screen in cm.", low=0, high=100_000)
    size: str = option("", "Width of the picture: 4 (degrees) or 144px.")
    position: str = option("0,0", "The picture's middle, from the screen's, to the right and up.")
    whole: bool = option(False, "Write the whole screen, with the background.")
    arrays: bool = option(False, "Write arrays for PsychoPy as well.")

    def __post_init__(self) -> None:
        check_options(self)
        self.pixels  # noqa: B018  a wrong text is refused here
        if not self.width or not self.distance:
            raise BadRequest("a screen has a width and a distance from the eye, both in cm")
        if self._length(self.size, "size") <= 0:
            raise BadRequest(f"the picture's size is 4 (degrees) or 144px; got {self.size!r}")
        self._middle()

    @property
    def pixels(self) -> tuple[int, int]:
        """Return the width and the height in pixels."""
        found = re.fullmatch(r"(\d{1,5})\s*[x×]\s*(\d{1,5})", self.resolution.strip())
        sides = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 0 < min(sides) <= max(sides) <= MAX_SIDE:
            raise BadRequest(f"a screen's pixels are as 1920x1080; got {self.resolution!r}")
        return sides

    @property
    def pixels_per_degree(self) -> float:
        """Return the pixels of one degree at the middle of the screen."""
        return self.distance * math.tan(math.radians(1)) * self.pixels[0] / self.width

    def _length(self, text: str, name: str) -> float:
        """Return the pixels that a text means."""
        found = _LENGTH.fullmatch(text)
        try:
            number = float(found[1]) if found else math.nan
        except ValueError:
            number = math.nan
        if not found or math.isnan(number):
            raise BadRequest(f"{name} is in degrees or in pixels, as 4 or 144px; got {text!r}")
        return number if found[2] == "px" else number * self.pixels_per_degree

    def _middle(self) -> tuple[float, float]:
        """Return where the picture's middle shall be, in pixels to the right and up."""
        across, comma, up = self.position.partition(",")
        if not comma:
            raise BadRequest(f"position is as 2,-3 or 72px,-108px; got {self.position!r}")
        return self._length(across, "position"), self._length(up, "position")

    def place(self, shape: tuple[int, int]) -> Place:
        """Return the place of a picture with the proportions of `shape` (height, width).

        It has whole pixels. `BadRequest` where it leaves the screen.
        """
        width = round(self._length(self.size, "size"))
        height = round(width * shape[0] / shape[1])
        across, up = self._middle()
        left = round(self.pixels[0] / 2 + across - width / 2)
        top = round(self.pixels[1] / 2 - up - height / 2)
        inside = left >= 0 and left + width <= self.pixels[0]
        if min(width, height) < 2 or not (inside and top >= 0 and top + height <= self.pixels[1]):
            sides = " × ".join(f"{each / self.pixels_per_degree:.1f}" for each in self.pixels)
            raise BadRequest(
                f"a picture of {width} × {height} pixels at {self.position} does not fit on the "
                f"screen of {self.resolution} pixels, which are {sides} degrees"
            )
        return Place(self, left, top, width, height)

    def as_json(self) -> dict[str, Any]:
        """Return all that decides where the picture lies and how it is given."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Name a picture's pixels on a screen; left and top are counted from the upper left."""

    screen: Screen
    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Return the picture's height and width in pixels."""
        return self.height, self.width

    @property
    def middle(self) -> tuple[float, float]:
        """Return the picture's middle from the screen's, in pixels to the right and up."""
        across, down = self.screen.pixels
        return self.left + self.width / 2 - across / 2, down / 2 - self.top - self.height / 2

    def as_json(self, background: tuple[float, ...]) -> dict[str, Any]:
        """Return what a rig is told of the place, with the background's value in 0 … 1.

        Sizes are (width, height), positions are to the right and up.
        """
        degree = self.screen.pixels_per_degree
        return {
            "screen_pixels": self.screen.pixels,
            "screen_width_cm": self.screen.width,
            "distance_cm": self.screen.distance,
            "pixels_per_degree": degree,
            "size_pixels": (self.width, self.height),
            "size_degrees": (self.width / degree, self.height / degree),
            "position_pixels": self.middle,
            "position_degrees": tuple(each / degree for each in self.middle),
            "left_top_pixels": (self.left, self.top),
            "background": background,
            "whole": self.screen.whole,
        }

    def on_screen(self, pixels: Pixels, background: tuple[float, ...]) -> Pixels:
        """Return the whole screen (height, width, 3) with a picture at its place."""
        across, down = self.screen.pixels
        steps = np.round(
            np.asarray(background, np.float32) * np.float32(255)
        )  # as the picture's own pixels
        value = steps[:, None, None] / np.float32(255)
        whole = np.empty((down, across, 3), np.uint8)
        whole[:] = to_pixels(value)[0, 0]
        whole[self.top : self.top + self.height, self.left : self.left + self.width] = pixels
        return whole


def for_psychopy(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return an image (channels, height, width) in [0, 1] as PsychoPy's `ImageStim` reads it.

    The first row is the lowest one. A grey image is (height, width) in -1 … 1, and RGB (height,
    width, 3) in 0 … 1: so its shaders `progSignedTexMask` and `progImageStim` take them (PsychoPy
    2024.2, `visual/image.py`; its recipe `showImages.py` says the same of RGB).
    """
    image = image.astype(np.float32)
    upwards = image[0, ::-1] * 2 - 1 if len(image) == 1 else image[:, ::-1].transpose(1, 2, 0)
    return np.ascontiguousarray(upwards)
