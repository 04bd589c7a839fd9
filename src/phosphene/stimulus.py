"""What a picture must be as a stimulus: its norm, contrast, luminance, range, and where it lies.

A projection brings a prior's images to these values at each step of a climb. What the written
picture really has is measured as well.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene.errors import BadFile, BadRequest
from phosphene.images import read_png
from phosphene.parts import check_options, option
from phosphene.subjects import Subject
from phosphene.tensors import LUMINANCE, as_images, center_crop, resized

Project = Callable[[Tensor], Tensor]
"""From images (batch, channels, height, width) to images that keep the constraints."""


class Drawn(Protocol):
    """Describe images: those of a prior, or those that a screen shows (see `Shape`)."""

    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def view_size(self) -> tuple[int, int]: ...


@dataclass(frozen=True)
class Shape:
    """Describe images of which all is shown. `size` is (height, width)."""

    channels: int
    size: tuple[int, int]

    @property
    def view_size(self) -> tuple[int, int]:
        """Return the size of the part that is shown."""
        return self.size


MEASURES = ("norm", "contrast", "luminance")
"""What is measured of a picture, in this order."""

ROUNDS = 8
"""How often a picture is scaled again after its pixels were kept in their range."""

TINY = 1e-12


@dataclass(frozen=True)
class Stimulus:
    """What a picture must be. All values are of what the subject is shown of the picture.

    `norm` is the L2 norm of what the network reads about the subject's grey, which is its mean
    (Walker et al. 2019). `contrast` is the standard deviation of luminance in 0 … 1, the RMS
    contrast (Peli 1990), and `luminance` its mean. Both are over the whole input, the background
    included.

    The picture is first blended with the background by the mask, the aperture and the border. Then
    the luminance is set inside the mask, and then the scale that gives the norm or the contrast.
    The range comes last and wins: a picture that cannot have its norm within the range misses it.
    """

    norm: float = option(
        0.0, "L2 norm of what the network reads, about its grey; 0: any.", low=0, high=1_000_000
    )
    contrast: float = option(
        0.0, "RMS contrast: the deviation of luminance in 0 … 1; 0: any.", low=0, high=0.5
    )
    luminance: float = option(0.0, "Mean luminance in 0 … 1; 0: any.", low=0, high=1)
    range: str = option("0,1", "Least and largest value of a pixel, such as 0.1,0.9.")
    mask: str = option("", "A picture's file: white shows the image, black the background.")
    aperture: float = option(
        0.0, "Diameter of a round aperture, as a share of the shorter side; 0: none.", low=0, high=2
    )
    edge: float = option(
        0.0, "Soft edge of the aperture, as a share of its diameter.", low=0, high=0.5
    )
    border: int = option(0, "Pixels of background at each side.", low=0, high=10_000)
    background: str = option("grey", "A value in 0 … 1, or grey: the subject's mean.")
    mask_sha256: str = field(default_factory=str)

    def __post_init__(self) -> None:
        if isinstance(self.range, (tuple, list)):
            self._set("range", ",".join(map(str, self.range)))
        if isinstance(self.background, (int, float)) and not isinstance(self.background, bool):
            self._set("background", str(self.background))
        if isinstance(self.mask, Path):
            self._set("mask", str(self.mask))
        check_options(self)
        if self.norm and self.contrast:
            raise BadRequest("norm and contrast both set the scale of a picture; give one of them")
        low, high = self.limits
        if self.level is not None and not low <= self.level <= high:
            raise BadRequest(f"background {self.background} lies outside of range {self.range}")
        if self.mask and not self.mask_sha256:
            self._set("mask_sha256", _sha256(self.mask))

    def _set(self, name: str, value: str) -> None:
        object.__setattr__(self, name, value)

    @property
    def limits(self) -> tuple[float, float]:
        """Return the least and the largest value of a pixel."""
        low, _, high = self.range.partition(",")
        try:
            limits = float(low), float(high)
        except ValueError:
            limits = (math.nan, math.nan)
        if not 0 <= limits[0] < limits[1] <= 1:
            raise BadRequest(f"range is two numbers in 0 … 1 such as 0.1,0.9; got {self.range!r}")
        return limits

    @property
    def level(self) -> float | None:
        """Return the background's value, None where it is the subject's grey."""
        if self.background == "grey":
            return None
        try:
            level = float(self.background)
        except ValueError:
            level = math.nan
        if not 0 <= level <= 1:
            raise BadRequest(f"background is grey or a value in 0 … 1; got {self.background!r}")
        return level

    def changed(self, **changes: Any) -> Stimulus:
        """Return the same with changes; another mask is read again."""
        if "mask" in changes:
            changes = {"mask_sha256": "", **changes}
        return replace(self, **changes)

    def as_json(self) -> dict[str, Any]:
        """Return what is not as without constraints, as a record keeps it."""
        kept = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in kept.items() if value != getattr(FREE, name)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Stimulus:
        """Return the constraints of a record; the mask's file is not read yet."""
        return cls(**kept)

    def fit(self, subject: Subject, drawn: Drawn) -> Project:
        """Return the projection of images, which a gradient comes through.

        Without constraints it returns the images as they are.
        """
        if not self.as_json():
            return lambda images: images
        return _Projection(self, subject, drawn)

    def background_of(self, subject: Subject, channels: int) -> tuple[float, ...]:
        """Return the background's value of each channel; grey where channels differ in number."""
        if self.level is not None:
            return (self.level,) * channels
        grey = grey_of(subject)
        return grey if len(grey) == channels else (sum(grey) / len(grey),) * channels

    def told(self, values: Tensor, subject: Subject) -> dict[str, Any]:
        """Return a picture's norm, contrast and luminance by name, as its record keeps them.

        `values` are those of `measure` for one picture. The entry "missed" names what is wanted
        and is further off than rounding to 8 bits and one part in 1,000 explain.
        """
        found = {name: round(float(each), 5) for name, each in zip(MEASURES, values, strict=True)}
        pixel = 0.5 / 255
        pixels = subject.size[0] * subject.size[1]
        norm = pixel * math.sqrt(pixels * sum(each**-2 for each in subject.std))
        slack = {"norm": norm, "contrast": pixel, "luminance": pixel}
        wanted = {name: getattr(self, name) for name in MEASURES}
        off = {name: abs(found[name] - value) - 1e-3 * value for name, value in wanted.items()}
        missed = [name for name in MEASURES if wanted[name] and off[name] > slack[name]]
        return found | ({"missed": missed} if missed else {})


FREE = Stimulus()


def measure(images: Tensor, subject: Subject, view: tuple[int, int]) -> Tensor:
    """Return norm, contrast and luminance, (batch, 3), of what the subject is shown of images.

    `images` (batch, channels, height, width) are in [0, 1], and `view` is the central part that is
    shown.
    """
    plane = luminances(subject.fitted(center_crop(images, view).float()))
    norm = departures(images, subject, view).norm(dim=1)
    return torch.stack([norm, plane.std(1, correction=0), plane.mean(1)], 1).cpu()


def departures(images: Tensor, subject: Subject, view: tuple[int, int]) -> Tensor:
    """Return how what the network reads of images departs from the subject's grey, (batch, n)."""
    seen = subject.fitted(center_crop(images, view).float())
    return ((seen - _column(grey_of(subject), seen)) / _column(subject.std, seen)).flatten(1)


def grey_of(subject: Subject) -> tuple[float, ...]:
    """Return the grey of a subject in [0, 1]: its mean, or 0.5 where that is no grey."""
    inside = all(0 < value < 1 for value in subject.mean)
    return subject.mean if inside else (0.5,) * subject.channels


def luminances(images: Tensor) -> Tensor:
    """Return the luminance of each pixel, (batch, pixels), of images (batch, c, height, width).

    Of images that are not RGB it is the mean of their channels.
    """
    channels = images.shape[1]
    shares = LUMINANCE if channels == 3 else (1 / channels,) * channels
    return (images * _column(shares, images)).sum(1).flatten(1)


class _Projection:
    """Project images of one kind on one stimulus, for a subject (see `Stimulus`).

    Images differ from the background by a departure. What the subject is shown is linear in it.
    """

    def __init__(self, stimulus: Stimulus, subject: Subject, drawn: Drawn):
        self.stimulus = stimulus
        self.subject = subject
        self.view = drawn.view_size
        shape = (1, drawn.channels, *drawn.size)
        level = stimulus.background_of(subject, drawn.channels)
        self.background = torch.tensor(level).view(1, -1, 1, 1).expand(shape)
        self.mask = _mask(stimulus, subject, drawn).expand(shape)

    def __call__(self, images: Tensor) -> Tensor:
        background = self.background.to(images)
        mask = self.mask.to(images)
        low, high = self.stimulus.limits
        images = background + mask * (images - background)
        if not any(getattr(self.stimulus, name) for name in MEASURES):
            return images.clamp(low, high)
        for _ in range(ROUNDS):
            images = self._set(images - background, background, mask).clamp(low, high)
        return images

    def _set(self, departure: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Return the images of departures, with the luminance and the scale set."""
        fixed = background
        if self.stimulus.luminance:
            share = luminances(self._change(mask)).mean()
            lacking = self.stimulus.luminance - luminances(self._shown(background)).mean()
            own = luminances(self._change(departure)).mean(1)[:, None, None, None]
            fixed = background + mask * lacking / share
            departure = departure - mask * own / share
        return fixed + self._scale(fixed, departure) * departure

    def _scale(self, fixed: Tensor, departure: Tensor) -> Tensor | float:
        """Return the scale (batch, 1, 1, 1) that gives images their norm or their contrast."""
        if self.stimulus.norm:
            grey = _column(grey_of(self.subject), fixed)
            std = _column(self.subject.std, fixed)
            still = ((self._shown(fixed) - grey) / std).flatten(1)
            moving = (self._change(departure) / std).flatten(1)
            scale = _reaching(still, moving, self.stimulus.norm)
        elif self.stimulus.contrast:
            still = _centred(luminances(self._shown(fixed)))
            moving = _centred(luminances(self._change(departure)))
            scale = _reaching(still, moving, self.stimulus.contrast * still.shape[1] ** 0.5)
        else:
            return 1.0
        return scale[:, None, None, None]

    def _shown(self, images: Tensor) -> Tensor:
        return self.subject.fitted(center_crop(images, self.view))

    def _change(self, departures: Tensor) -> Tensor:
        """Return how departures change what is shown; a padded image keeps its borders."""
        shown = self._shown(departures)
        if self.subject.fit != "pad":
            return shown
        return shown - self._shown(torch.zeros_like(departures[:1]))


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)


def _reaching(still: Tensor, moving: Tensor, size: float) -> Tensor:
    """Return the scale s ≥ 0 (batch,) at which |still + s · moving| is `size`.

    The vectors are (batch, n), or (1, n) for all. Where no scale gives the size, the result is the
    nearest one.
    """
    square = moving.square().sum(1).clamp(min=TINY)
    half = (still * moving).sum(1)
    rest = still.square().sum(1) - size**2
    root = (half.square() - square * rest).clamp(min=TINY**2).sqrt()
    return ((root - half) / square).clamp(min=0)


def _mask(stimulus: Stimulus, subject: Subject, drawn: Drawn) -> Tensor:
    """Return how much of an image is shown, (1, 1, height, width): 0 … 1.

    The mask, the aperture and the border are of the part that the subject is shown.
    """
    height, width = drawn.view_size
    if subject.fit == "crop":
        scale = min(height / subject.size[0], width / subject.size[1])
        height, width = round(subject.size[0] * scale), round(subject.size[1] * scale)
    mask = torch.ones(1, 1, height, width)
    if stimulus.mask:
        if _sha256(stimulus.mask) != stimulus.mask_sha256:
            raise BadFile(f"{stimulus.mask} is not the mask that the record was made with")
        grey = as_images([read_png(stimulus.mask)]).mean(1, keepdim=True)
        mask = mask * resized(grey, (height, width)).clamp(0, 1)
    if stimulus.aperture:
        mask = mask * _disc(height, width, stimulus.aperture, stimulus.edge)
    border = round(stimulus.border * height / subject.size[0])
    if 2 * border >= min(height, width):
        raise BadRequest(f"a border of {stimulus.border} leaves nothing of {subject.size} pixels")
    inside = torch.zeros_like(mask)
    inside[..., border : height - border, border : width - border] = 1
    top = (drawn.view_size[0] - height) // 2 + (drawn.size[0] - drawn.view_size[0]) // 2
    left = (drawn.view_size[1] - width) // 2 + (drawn.size[1] - drawn.view_size[1]) // 2
    right = drawn.size[1] - width - left
    mask = F.pad(mask * inside, (left, right, top, drawn.size[0] - height - top))
    if not bool(mask.any()):
        raise BadRequest("the mask shows nothing: it is black where the subject looks")
    return mask


def _disc(height: int, width: int, share: float, edge: float) -> Tensor:
    """Return a disc whose diameter is a share of the shorter side; its edge is half a cosine."""
    rows = torch.arange(height) - (height - 1) / 2
    columns = torch.arange(width) - (width - 1) / 2
    radius = share * min(height, width) / 2
    beyond = (rows[:, None].square() + columns.square()).sqrt() - radius
    soft = max(2 * radius * edge, TINY)
    return (1 - torch.cos(math.pi * (-beyond / soft).clamp(0, 1))) / 2


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return a number for each channel, (channels, 1, 1)."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def _sha256(file: str) -> str:
    """Return the hash of a mask's file; `BadFile` where it cannot be read."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError as error:
        raise BadFile(f"mask takes a picture's file; {file!r}: {error.strerror}") from None
