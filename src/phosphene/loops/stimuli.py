"""Pictures of any origin as a block that a rig shows: climbed ones, or photographs beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from phosphene.errors import BadRequest
from phosphene.files import outlet_folder
from phosphene.images import opened, read_image, suffixes
from phosphene.loops.folder import write_block
from phosphene.loops.generation import Generation, numbered
from phosphene.loops.loop import viewer
from phosphene.screen import Place, Screen
from phosphene.stimulus import Shape, Stimulus, measure
from phosphene.tensors import as_images, in_8_bits
from phosphene.texts import file_names


@dataclass(frozen=True)
class Shown:
    """Hold a picture's norm, contrast and luminance on the screen, and what it misses."""

    picture: str
    norm: float
    contrast: float
    luminance: float
    missed: tuple[str, ...] = ()


def pictures_of(places: Sequence[Path]) -> list[Path]:
    """Return the picture files that are given, and those of folders that are.

    Of a folder with records, the pictures are those of the records. `BadRequest` without any.
    """
    found: list[Path] = []
    for place in places:
        inside = sorted(place.iterdir()) if place.is_dir() else [place]
        recorded = {each.stem for each in inside if each.suffix == ".json"}
        files = [each for each in inside if each.suffix.lower() in suffixes()]
        own = [each for each in files if each.stem in recorded]
        found += own or files
    if not found:
        raise BadRequest(f"no pictures in {', '.join(map(str, places))}")
    return found


def write_stimuli(
    files: Sequence[Path], stimulus: Stimulus, screen: Screen, out: Path
) -> list[Shown]:
    """Write pictures with the constraints of a stimulus, as they lie on a screen.

    The folder `out` is like a block of a closed loop: pictures, and a manifest with their place.
    All pictures have the proportions of the first one. Norm and contrast are of the picture in
    0 … 1 about 0.5, as in a closed loop without a network.
    """
    outlet_folder(out)
    if out.exists():
        raise BadRequest(f"{out} is there already; give a new folder")
    width, height = opened(files[0]).size
    place = screen.place((height, width))
    shape = Shape(3, place.size)
    reader = viewer(shape)
    project = stimulus.fit(reader, shape)
    names = file_names([each.stem for each in files])
    images = as_images([read_image(each, place.size) for each in files])
    shown = in_8_bits(torch.cat([project(each[None]) for each in images]))
    background = stimulus.background_of(reader, 3)
    order = numbered(names, {})
    generation = Generation(0, torch.empty(0), shown, (*names,), order, place, background)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_block(out, generation, out.name, [])
    return _measured(generation, stimulus, place)


def _measured(generation: Generation, stimulus: Stimulus, place: Place) -> list[Shown]:
    reader = viewer(Shape(3, place.size))
    rows = measure(generation.images, reader, place.size)
    told = [stimulus.told(row, reader) for row in rows]
    return [
        Shown(name, **{**each, "missed": tuple(each.get("missed", ()))})
        for name, each in zip(generation.ids, told, strict=True)
    ]
