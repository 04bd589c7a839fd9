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
from phosphene.loops.folder import Changes, changes_of
from phosphene.loops.server import HOST
from phosphene.loops.simulated import Neuron, Noise, responses
from phosphene.loops.zeromq import Client
from phosphene.parts import check_options, option

Row = tuple[str, int, str, float]
"""Picture, trial, channel, value."""


@dataclass(frozen=True)
class Mishaps:
    """What goes wrong on a rig: each is a chance for every presentation, but `delay`.

    A presentation that is `missing` has no response; one that is `failed` has NaN; one that is
    `repeated` is answered twice. `delay` is the seconds that a block takes.
    """

    delay: float = option(0.0, "Seconds that a block takes.", low=0, high=3600)
    missing: float = option(0.0, "Chance of no response.", low=0, high=1)
    failed: float = option(0.0, "Chance of NaN.", low=0, high=1)
    repeated: float = option(0.0, "Chance of two equal responses.", low=0, high=1)

    def __post_init__(self) -> None:
        check_options(self)

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
        key = [self.seed, len(found), found[0][1], *found[0][0].encode()]
        return [*self.mishaps.of(found, np.random.default_rng(key))]

    def _image(self, name: str, content: bytes) -> torch.Tensor:
        pixels = np.asarray(opened(io.BytesIO(content), name))
        return torch.from_numpy(from_pixels(pixels, self.channels))


def answer_folder(rig: Rig, folder: Path, changes: Changes | None = None) -> Iterator[str]:
    """Answer the blocks in a folder as they come; yield the name of each answered block.

    It never ends by itself: the loop's side knows when the search is over.
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


def _answer_block(rig: Rig, block: Path, folder: Path) -> None:
    """Write a block's responses; `BadFile` where a picture is not what the manifest says."""
    try:
        manifest = read_json(block / "manifest.json")
        listed = manifest["pictures"].items()
        said = {name: (str(each["file"]), each["sha256"]) for name, each in listed}
        order = [(str(picture), int(trial)) for picture, trial in manifest["order"]]
        responses_name = str(manifest["responses"])
        files = {name: block / Path(file).name for name, (file, _) in said.items()}
        pictures = {name: file.read_bytes() for name, file in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadFile(f"{block / 'manifest.json'} is no manifest of a block: {error}") from None
    for name, (file, sha256) in said.items():
        if hashlib.sha256(pictures[name]).hexdigest() != sha256:
            raise BadFile(f"{block / file} is not the picture of the manifest")
    lines = ["picture,trial,channel,value"]
    lines += [",".join(map(str, row)) for row in rig.rows(pictures, order, manifest.get("place"))]
    with atomic_path(folder / f"{Path(responses_name).name}.csv") as scratch:
        scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
        rows = rig.rows(pictures, block["order"], block.get("place"))
        plain = [[*row[:3], None if row[3] != row[3] else row[3]] for row in rows]
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
