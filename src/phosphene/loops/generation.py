"""What a generation of a closed loop shows, and what is answered."""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from phosphene.errors import BadRequest, UnknownName, near
from phosphene.images import Pixels, contact_sheet, to_pixels
from phosphene.screen import Place, for_psychopy

BLANK = "blank"
"""The id of the grey picture that is shown between the others."""

MAX_TRIALS = 10_000
"""A higher trial number is taken for a slip."""


@dataclass(frozen=True)
class Response:
    """What one channel answered to one presentation of a picture.

    `trial` counts the presentations of the picture within its generation, from 0. A `value` that is
    NaN is a trial that failed.
    """

    picture: str
    trial: int
    channel: str
    value: float


class Presentation(NamedTuple):
    """A picture that is shown once. `trial` counts its presentations in a generation, from 0."""

    picture: str
    trial: int


@dataclass(frozen=True, eq=False, repr=False)
class Generation:
    """The pictures of a generation, and the order in which they are shown.

    `codes` (n, *code) are those of the first n pictures; reference pictures and the blank follow.
    `images` are (pictures, channels, height, width) in [0, 1], in steps of 1/255. `order` holds the
    presentations that are still wanted. With a `place`, images have the size that they have on the
    screen, whose `background` has a value in 0 … 1 for each channel.
    """

    number: int
    codes: Tensor
    images: Tensor
    ids: tuple[str, ...]
    order: tuple[Presentation, ...]
    place: Place | None = None
    background: tuple[float, ...] = (0.5,)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        wanted = f"{len(self.order)} presentations wanted"
        return f"<Generation {self.number}: {len(self)} pictures, {wanted}>"

    def sheet(self, columns: int = 8) -> Pixels:
        """Return all pictures in a grid, labelled with their ids."""
        return contact_sheet([self.pixels(each) for each in self.ids], self.ids, columns)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.sheet()).save(buffer, "png")
        return buffer.getvalue()

    def pixels(self, picture: str) -> Pixels:
        """Return the 8-bit pixels of a picture."""
        return to_pixels(self.image(picture).numpy())

    def image(self, picture: str) -> Tensor:
        """Return the image (channels, height, width) of a picture, in [0, 1].

        `UnknownName` where the generation has no such picture.
        """
        if picture not in self.ids:
            raise UnknownName(f"no picture {picture!r} here; near: {near(picture, self.ids)}")
        return self.images[self.ids.index(picture)]

    def shown(self, picture: str) -> Pixels:
        """Return the 8-bit pixels of what is shown: the picture, or the whole screen with it."""
        pixels = self.pixels(picture)
        if self.place is None or not self.place.screen.whole:
            return pixels
        return self.place.on_screen(pixels, self.background)

    def psychopy(self, picture: str) -> npt.NDArray[np.float32]:
        """Return a picture as PsychoPy's `ImageStim` reads it (see `for_psychopy`)."""
        return for_psychopy(self.image(picture).numpy())

    @property
    def has_arrays(self) -> bool:
        """Return whether arrays for PsychoPy are written as well."""
        return self.place is not None and self.place.screen.arrays

    def place_as_json(self) -> dict[str, Any]:
        """Return what a rig is told of the pictures' place; nothing without a screen."""
        return {} if self.place is None else {"place": self.place.as_json(self.background)}

    @property
    def wanted(self) -> dict[str, Tensor]:
        """Return the images that are still to be shown, by their ids."""
        names = sorted({each.picture for each in self.order})
        return {name: self.image(name) for name in names}


def shuffled(
    pictures: Sequence[str], repeats: int, blank: str, blanks: int, seed: int
) -> tuple[Presentation, ...]:
    """Return an order of presentations, the same for the same seed.

    Each picture is shown `repeats` times, once in each of as many passes. The `blank` is spread
    over the whole, `blanks` times.
    """
    rng = random.Random(seed)
    order: list[str] = []
    for _ in range(repeats):
        order += rng.sample(pictures, len(pictures))
    for _ in range(blanks):
        order.insert(rng.randint(0, len(order)), blank)
    return numbered(order, {})


def numbered(order: Iterable[str], shown: Mapping[str, int]) -> tuple[Presentation, ...]:
    """Return presentations of pictures, of which each was shown so often before."""
    counts = Counter(shown)
    found = []
    for picture in order:
        found.append(Presentation(picture, counts[picture]))
        counts[picture] += 1
    return tuple(found)


def sha256_of_codes(codes: Tensor) -> str:
    """Return the hash of codes, bit by bit."""
    return hashlib.sha256(codes.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def responses_of(given: Any, generation: Generation) -> list[Response]:
    """Return responses in one form.

    `given` is a list of `Response`; a map from a picture's id to its value or the values of its
    trials; or an array, one row for each presentation of `generation.order`, one column for each
    channel. `BadRequest` where it is neither.
    """
    if isinstance(given, Mapping):
        return [*_of_mapping(given, generation)]
    if isinstance(given, Sequence) and all(isinstance(each, Response) for each in given):
        return [*given]
    try:
        rows = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise BadRequest(
            "responses are a list of phosphene.Response, a map from picture to values, or an array"
        ) from None
    if rows.ndim not in (1, 2) or len(rows) != len(generation.order):
        raise BadRequest(
            f"generation {generation.number} has {len(generation.order)} presentations; "
            f"got responses of shape {list(rows.shape)}"
        )
    rows = rows.reshape(len(rows), -1)
    return [
        Response(picture, trial, str(channel), float(value))
        for (picture, trial), row in zip(generation.order, rows, strict=True)
        for channel, value in enumerate(row)
    ]


def _of_mapping(given: Mapping[str, Any], generation: Generation) -> Iterable[Response]:
    for picture, values in given.items():
        shown = [each.trial for each in generation.order if each.picture == picture]
        trials = values if isinstance(values, Sequence | np.ndarray) else [values]
        numbers = chain(shown, count(max(shown, default=-1) + 1))
        for trial, value in zip(numbers, trials, strict=False):
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise BadRequest(f"{picture}: a response is a number; got {value!r}")
            yield Response(picture, trial, "0", float(value))


def checked_response(response: Response) -> Response:
    """Return a response; `BadRequest` where its trial or its value cannot be."""
    if not isinstance(response.picture, str) or not isinstance(response.trial, int | np.integer):
        raise BadRequest(f"a response is to a picture's id and a whole trial; got {response}")
    if isinstance(response.value, bool) or not isinstance(response.value, int | float | np.number):
        raise BadRequest(f"{response.picture}: a response is a number; got {response.value!r}")
    if not 0 <= response.trial <= MAX_TRIALS:
        raise BadRequest(
            f"{response.picture}: trials are numbered 0 … {MAX_TRIALS:,}; got {response.trial}"
        )
    if math.isinf(response.value):
        raise BadRequest(f"{response.picture}, trial {response.trial}: the response is infinite")
    trial = int(response.trial)
    return Response(response.picture, trial, str(response.channel), float(response.value))
