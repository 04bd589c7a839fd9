"""Simulated rigs: programs that show pictures to a simulated neuron, with a rig's mishaps.

They speak the protocols of `folder` and `server`, and know nothing of the loop.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene.errors import BadFile, BadRequest, Unavailable
from phosphene.files import atomic_path, read_json
from phosphene.images import from_pixels, opened
from phosphene.loops.folder import OVER, Changes, changes_of, png
from phosphene.loops.generation import Generation, Response
from phosphene.loops.server import HOST
from phosphene.loops.simulated import Neuron, Noise, responses
from phosphene.loops.zeromq import Client
from phosphene.parts import check_options, option

Row = tuple[str, int, str, float]
"""Picture, trial, channel, value."""


@dataclass(frozen=True)
class Mishaps:
    """Choose what goes wrong on a rig.

    `delay` is the seconds that a block takes. Three are chances for every response: one that is
    `missing` is not there; one that `failed` is NaN; one that is `repeated` is told twice. In a
    block, the rig has `crashed` by this chance: it ends when half of the block is told. A neuron
    that is `fading` loses this share of its response from generation to generation. From the
    generation `dead` on, the last channel is NaN.
    """

    delay: float = option(0.0, "Seconds that a block takes.", low=0, high=3600)
    missing: float = option(0.0, "Chance of no response.", low=0, high=1)
    failed: float = option(0.0, "Chance of NaN.", low=0, high=1)
    repeated: float = option(0.0, "Chance of two equal responses.", low=0, high=1)
    crashed: float = option(0.0, "Chance that the rig ends amid a block.", low=0, high=1)
    fading: float = option(0.0, "Share of the response lost in a generation.", low=0, high=1)
    dead: int = option(0, "Generation from which the last channel is NaN.", low=0, high=100_000)

    def __post_init__(self) -> None:
        check_options(self)

    def worn(self, rows: Sequence[Row], generation: int) -> list[Row]:
        """Return rows of a neuron that fades, and of a channel that is dead."""
        gain = (1 - self.fading) ** generation
        last = rows[-1][2] if 0 < self.dead <= generation else None
        return [(*row[:3], float("nan") if row[2] == last else gain * row[3]) for row in rows]

    def of(self, rows: Sequence[Row], rng: np.random.Generator) -> Iterator[Row]:
        """Yield what is written of rows."""
        time.sleep(self.delay)
        for row in rows:
            missing, failed, repeated = rng.random(3)
            if missing >= self.missing:
                told = (*row[:3], float("nan")) if failed < self.failed else row
                yield told
                if repeated < self.repeated:
                    yield told


@dataclass(frozen=True, eq=False)
class Rig:
    """A neuron, the noise of its trials, and the mishaps of the rig around it."""

    neuron: Neuron
    noise: Noise = field(default_factory=Noise)
    mishaps: Mishaps = field(default_factory=Mishaps)
    seed: int = 0
    channels: int = 3

    def rows(
        self,
        pictures: Mapping[str, bytes],
        order: Sequence[Any],
        generation: int = 0,
        place: Mapping[str, Any] | None = None,
    ) -> list[Row]:
        """Return a block's responses: pictures are PNG by id, the order is (id, trial) pairs.

        `place` says where on the screen the picture is. The neuron is shown this part.
        """
        if not order:
            return []
        images = {name: self._image(name, content) for name, content in pictures.items()}
        if place and place["whole"]:
            left, top = place["left_top_pixels"]
            width, height = place["size_pixels"]
            images = {
                name: image[:, top : top + height, left : left + width]
                for name, image in images.items()
            }
        told, _ = responses(self.neuron, images, [*map(tuple, order)], self.noise, self.seed)
        found = [(each.picture, each.trial, each.channel, each.value) for each in told]
        worn = self.mishaps.worn(found, generation)
        return [*self.mishaps.of(worn, self._rng(found, 0))]

    def told(self, generation: Generation) -> list[Response]:
        """Return the responses to a generation of a loop in Python, mishaps and all."""
        pictures = {name: png(generation.pixels(name)) for name in generation.wanted}
        rows = self.rows(pictures, generation.order, generation.number)
        return [Response(*row) for row in rows]

    def crash(self, rows: Sequence[Row]) -> bool:
        """Return whether the rig crashes in a block; a block of one response is too short."""
        return len(rows) > 1 and self._rng(rows, 1).random() < self.mishaps.crashed

    def _rng(self, rows: Sequence[Row], which: int) -> np.random.Generator:
        """Return a generator of the seed and of what is asked for."""
        key = [self.seed, len(rows), rows[0][1], *rows[0][0].encode()]
        return np.random.default_rng([*key, which] if which else key)

    def _image(self, name: str, content: bytes) -> torch.Tensor:
        pixels = np.asarray(opened(io.BytesIO(content), name))
        return torch.from_numpy(from_pixels(pixels, self.channels))


def answer_folder(rig: Rig, folder: Path, changes: Changes | None = None) -> Iterator[str]:
    """Answer the blocks in a folder as they come; yield the name of each answered block.

    It ends when the loop's side says that the search is over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    answered: set[str] = set()
    for _ in (changes or changes_of)(folder):
        for block in sorted(folder.glob("block-*")):
            name = block.name.removeprefix("block-")
            done = folder / f"responses-{name}.done"
            if name in answered or done.exists():
                continue
            _answer_block(rig, block, folder)
            done.touch()
            answered.add(name)
            yield name
        if (folder / OVER).exists():
            return


def _answer_block(rig: Rig, block: Path, folder: Path) -> None:
    """Write a block's responses; `BadFile` where a picture is not what the manifest says."""
    try:
        manifest = read_json(block / "manifest.json")
        listed = manifest["pictures"].items()
        said = {name: (str(each["file"]), each["sha256"]) for name, each in listed}
        order = [(str(picture), int(trial)) for picture, trial in manifest["order"]]
        responses_name = str(manifest["responses"])
        generation = int(manifest["generation"])
        files = {name: block / Path(file).name for name, (file, _) in said.items()}
        pictures = {name: file.read_bytes() for name, file in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadFile(f"{block / 'manifest.json'} is no manifest of a block: {error}") from None
    for name, (file, sha256) in said.items():
        if hashlib.sha256(pictures[name]).hexdigest() != sha256:
            raise BadFile(f"{block / file} is not the picture of the manifest")
    lines = ["picture,trial,channel,value"]
    rows = rig.rows(pictures, order, generation, manifest.get("place"))
    text = "\n".join(lines + [",".join(map(str, row)) for row in rows]) + "\n"
    place = folder / f"{Path(responses_name).name}.csv"
    if rig.crash(rows) and not place.exists():
        place.write_text(text[: len(text) // 2], encoding="utf-8")
        raise _crash(block.name)
    with atomic_path(place) as scratch:
        scratch.write_text(text, encoding="utf-8")


def _crash(where: str) -> Unavailable:
    return Unavailable(f"the rig crashed in {where}, as it was told to; start it again")


def answer_socket(rig: Rig, port: int, token: str) -> Iterator[str]:
    """Answer a loop behind a port of this machine, until it is over; yield each block's name."""
    try:
        connection = socket.create_connection((HOST, port))
    except OSError as error:
        raise Unavailable(f"no loop answers at {HOST}:{port}: {error.strerror}") from None
    with connection, connection.makefile("rwb") as file:
        _said(file, {"token": token})
        yield from _answer_asking(rig, partial(_said, file))


def answer_zeromq(rig: Rig, port: int, token: str) -> Iterator[str]:
    """Answer a loop behind a ZeroMQ port of this machine (see `answer_socket`)."""
    with Client(port, token) as client:
        client.say({})
        yield from _answer_asking(rig, client.say)


def _answer_asking(rig: Rig, say: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Iterator[str]:
    """Ask for blocks and answer them until the search is over; yield each block's name."""
    over = False
    while not over:
        block = say({"ask": True})
        pictures = {name: base64.b64decode(each) for name, each in block["pictures"].items()}
        rows = rig.rows(pictures, block["order"], block["generation"], block.get("place"))
        plain = [[*row[:3], None if row[3] != row[3] else row[3]] for row in rows]
        if rig.crash(rows):
            say({"tell": plain[: len(plain) // 2]})
            raise _crash(f"generation {block['generation']}")
        over = say({"tell": plain, "done": True})["over"]
        yield f"{block['generation']:04}"


def _said(file: Any, message: Mapping[str, Any]) -> dict[str, Any]:
    """Say a message and return the answer; `BadRequest` where it is an error."""
    file.write(json.dumps(message).encode() + b"\n")
    file.flush()
    line = file.readline()
    if not line:
        raise Unavailable("the loop has closed the connection")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise BadRequest(f"the loop says: {answer['error']}")
    return answer
