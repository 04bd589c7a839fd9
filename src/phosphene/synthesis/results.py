"""What a climb returns: pictures, codes and scores of every member of a batch."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.errors import BadRequest, UnknownName, near
from phosphene.files import path_of
from phosphene.forms import Record
from phosphene.records import Contents, Folder
from phosphene.tensors import per_row
from phosphene.units import Target

NOT_ABOVE = "no higher than its start"
"""The status of a picture whose unit answers to it no more than it did to the start."""

SHOWN = 128
"""Pixels of a picture's longer side in a notebook; smaller ones are shown larger."""

MAX_SEED = 2**53
"""As large a whole number as every reader of JSON keeps."""


@dataclass(frozen=True)
class Member:
    """One climb of a batch: what for, and from which seed."""

    target: Target
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise BadRequest(f"seeds lie in 0 … {MAX_SEED:,}; got {self.seed}")


@dataclass(frozen=True, eq=False, repr=False)
class PreferredInputs:
    """What a climb returns, one entry for each member.

    A result can be indexed, cut and iterated over: each part is a result of its own. Of a target
    that is to fall, scores and curves are its activation.

    Attributes:
        members: what was climbed for: a target and a seed each.
        images: float32 in [0, 1] (n, channels, *size), as 8-bit pictures hold them.
        codes: what the prior drew the images of (n, …).
        scores: each target's activation on the picture (n,), measured in float32 on 8-bit pixels.
        start_scores: the same on the start (n,).
        curves: the objective at each step (n, steps).
        statuses: "climbed", `NOT_ABOVE`, "dead" (no start had a gradient) or "stopped: …".
        kept: the step whose code the picture shows (n,), `steps` where that is the last one.
        last_scores: the activation on the last code's picture (n,).
        frames: (frames, n, channels, *size) where an animation was asked for.
        stimuli: each picture's norm, contrast and luminance by name, and what it missed of them
            (see `Stimulus.told`).
        sets: of pictures that were moved apart, the number of their set, its best score and its
            diversity (see `metrics.diversity_index`).
        records: how each picture came to be, where `synthesize` made them.
        inputs: what the subject reads of the pictures (n, channels, height, width), in [0, 1] and 8
            bits, in its own channels and size.
        input_scores: the activations on these (n,).
        arrays: what the network reads of the pictures, normalised, where they were asked for.
    """

    members: tuple[Member, ...]
    images: Tensor
    codes: Tensor
    scores: Tensor
    start_scores: Tensor
    curves: Tensor
    statuses: tuple[str, ...]
    kept: Tensor
    last_scores: Tensor
    frames: Tensor | None = None
    stimuli: tuple[dict[str, Any], ...] = ()
    sets: tuple[dict[str, Any], ...] = ()
    records: tuple[Record, ...] = ()
    inputs: Tensor | None = None
    input_scores: Tensor | None = None
    arrays: Tensor | None = None

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        shown = [
            f"{member.target} {score:.2f}" + (f" ({status})" if status != "climbed" else "")
            for member, score, status in zip(
                self.members[:4], self.scores.tolist(), self.statuses, strict=False
            )
        ]
        more = [f"and {len(self) - 4:,} more"] if len(self) > 4 else []
        return f"<PreferredInputs: {', '.join([*shown, *more])}>"

    def __getitem__(self, which: int | slice | str) -> PreferredInputs:
        """Return the one at a place, or a part, as a result of its own.

        A text is a unit, such as "fc8:27", or its class, such as "class:lion": all seeds of it are
        returned. `UnknownName` where the result has none of it.
        """
        if isinstance(which, str):
            found = [self[i] for i, member in enumerate(self.members) if _is_named(member, which)]
            if not found:
                targets = [member.target for member in self.members]
                classes = (f"class:{each.label}" for each in targets if each.label != str(each))
                names = dict.fromkeys([*map(str, targets), *classes])
                raise UnknownName(f"no unit {which!r} in this result; near: {near(which, names)}")
            return joined(found)
        if not isinstance(which, slice):
            place = range(len(self))[which]  # `IndexError` where there is none
            which = slice(place, place + 1)
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        cut = {name: value[which] for name, value in parts.items() if value is not None}
        if self.frames is not None:
            cut["frames"] = self.frames[:, which]
        return PreferredInputs(**cut)

    def taken(self, places: Sequence[int]) -> PreferredInputs:
        """Return the members at some places, in that order, as a result of its own."""
        at = list(places)
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        cut: dict[str, Any] = {
            name: value[at] if isinstance(value, Tensor) else tuple(value[i] for i in at)
            for name, value in parts.items()
            if value is not None and len(value) and name != "frames"
        }
        if self.frames is not None:
            cut["frames"] = self.frames[:, at]
        return PreferredInputs(**cut)

    def __iter__(self) -> Iterator[PreferredInputs]:
        return (self[i] for i in range(len(self)))

    def picture(self, i: int) -> pictures.Pixels:
        """Return one picture's 8-bit pixels, crossed out where its unit is dead."""
        pixels = pictures.to_pixels(self.images[i].numpy())
        return pictures.crossed_out(pixels) if self.statuses[i] == "dead" else pixels

    def contents(self, i: int) -> Contents:
        """Return what is written of one picture. A dead unit has no input."""
        pixels = self.picture(i)
        if self.statuses[i] == "dead":
            return Contents(pixels)
        own = None if self.inputs is None else pictures.to_pixels(self.inputs[i].numpy())
        array = None if self.arrays is None else self.arrays[i].numpy()
        same = own is not None and np.array_equal(own, pixels)
        return Contents(pixels, None if same else own, array)

    def save(self, folder: str | Path, anew: bool = False) -> Path:
        """Write pictures, their records and a contact sheet as `phosphene synthesize` does.

        A picture of another run that has the same name is replaced only when `anew` is true.
        """
        if not self:
            raise BadRequest("there is no picture in this part of the result")
        if len(self.records) != len(self):
            raise BadRequest("only what phosphene.synthesize returned has records to save")
        into = Folder(path_of(folder, "folder"))
        into.create()
        for record in self.records:
            if not (anew or into.may_hold(record)):
                raise BadRequest(
                    f"{into.path / record.image} is a picture of another run; "
                    "give another folder, or anew=True to replace it"
                )
        for i, record in enumerate(self.records):
            into.add(Path(record.image).stem, record, self.contents(i))
        pictures.write_png(into.path / "contact-sheet.png", self.sheet())
        return into.path

    def sheet(self, columns: int = 8, scale: int = 1) -> pictures.Pixels:
        """Return all pictures in a grid, `scale` times as large, with target and score below."""
        return pictures.contact_sheet(*tiles(self), columns=columns, scale=scale)

    def _repr_png_(self) -> bytes:
        from PIL import Image

        scale = max(1, SHOWN // max(self.images.shape[2:]))
        buffer = io.BytesIO()
        Image.fromarray(self.sheet(scale=scale)).save(buffer, "png")
        return buffer.getvalue()


def _is_named(member: Member, name: str) -> bool:
    """Return whether a name is that of a member's target, or of its class."""
    target = member.target
    return name in (str(target), target.label) or name == f"class:{target.label}"


def with_higher(
    result: PreferredInputs, tried: Sequence[int], again: PreferredInputs
) -> PreferredInputs:
    """Return the result with those of the members that tried again and came higher."""
    higher = (again.scores > result.scores[list(tried)]).nonzero().flatten().tolist()
    if not higher:
        return result
    into = [tried[j] for j in higher]
    statuses = list(result.statuses)
    stimuli = list(result.stimuli)

    def merged(name: str, axis: int = 0) -> Tensor:
        new = getattr(again, name).index_select(axis, torch.tensor(higher))
        old: Tensor = getattr(result, name)
        return old.clone().index_copy_(axis, torch.tensor(into), new)

    for i, j in zip(into, higher, strict=True):
        statuses[i] = again.statuses[j]
        stimuli[i] = again.stimuli[j]
    names = ("images", "codes", "scores", "start_scores", "curves", "kept", "last_scores")
    better: dict[str, Any] = {name: merged(name) for name in names}
    if result.frames is not None:
        better["frames"] = merged("frames", 1)
    return replace(result, statuses=tuple(statuses), stimuli=tuple(stimuli), **better)


def upright(result: PreferredInputs) -> PreferredInputs:
    """Return the result with the scores of targets that are to fall as activations.

    A climb maximises their negative.
    """
    names = ("scores", "start_scores", "last_scores", "curves")
    turned: dict[str, Any] = {
        name: as_activations(getattr(result, name), result.members) for name in names
    }
    return replace(result, **turned)


def as_activations(scores: Tensor, members: Sequence[Member]) -> Tensor:
    """Return scores (members, …), those of targets that are to fall turned to activations."""
    falling = torch.tensor([member.target.least for member in members])
    return torch.where(per_row(falling, scores), 0 - scores, scores)  # 0 - 0 has no sign


def joined(results: Sequence[PreferredInputs]) -> PreferredInputs:
    """Several batches' results as one."""

    def together(name: str) -> Tensor:
        return torch.cat([getattr(result, name) for result in results])

    frames = [result.frames for result in results if result.frames is not None]
    moving = len(frames) == len(results)
    sets = [result.sets or ({},) * len(result) for result in results]
    optional = ("inputs", "input_scores", "arrays")
    there = [name for name in optional if all(getattr(r, name) is not None for r in results)]
    return PreferredInputs(
        tuple(m for r in results for m in r.members),
        together("images"),
        together("codes"),
        together("scores"),
        together("start_scores"),
        together("curves"),
        tuple(s for r in results for s in r.statuses),
        together("kept"),
        together("last_scores"),
        torch.cat(frames, 1) if moving else None,
        tuple(each for result in results for each in result.stimuli),
        tuple(each for own in sets for each in own) if any(map(any, sets)) else (),
        tuple(record for result in results for record in result.records),
        **{name: together(name) for name in there},
    )


def tiles(result: PreferredInputs) -> tuple[list[pictures.Pixels], list[str]]:
    """Return pictures and two-line labels for a contact sheet.

    A dead unit is a crossed-out tile, not a grey picture.
    """
    shown = []
    labels = []
    for i, member in enumerate(result.members):
        contents = result.contents(i)
        own = contents.pixels if contents.input is None else contents.input
        shown.append(pictures.seen_of(contents.pixels, own))
        note = result.statuses[i] if result.statuses[i] != "climbed" else f"{result.scores[i]:.2f}"
        labels.append(
            f"{member.target.label or member.target}\n{note}"
            + (f" · seed {member.seed}" if member.seed else "")
        )
    return shown, labels
