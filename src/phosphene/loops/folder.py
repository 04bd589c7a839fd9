"""A closed loop through a folder: pictures and a manifest for the rig, a response file from it.

A block of generation 3 lies in `block-0003-00/`, which appears whole: its pictures as PNG, and
`manifest.json` with their SHA-256 and the order. The rig writes `responses-0003-00.csv` (or .json,
.mat, .h5) beside it. A file that is still being written does no harm: responses that are there are
counted, and those that come later as well. A block is over when each presentation has a response or
NaN, or when the rig makes an empty file `responses-0003-00.done`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from phosphene.errors import BadFile, Notice
from phosphene.files import scratch_folder
from phosphene.images import Pixels
from phosphene.loops.block import Interleaved
from phosphene.loops.generation import Generation
from phosphene.loops.loop import Loop
from phosphene.loops.responses import SUFFIXES, read_responses

PROTOCOL = 1
POLLED = 0.1
"""Seconds between looks where nothing tells of changes."""

Changes = Callable[[Path], Iterator[object]]
"""Yields at once, and then after each change in a folder."""


def serve_folder(
    loop: Loop | Interleaved, folder: Path, changes: Changes | None = None
) -> Iterator[Generation]:
    """Run a loop through a folder; yield each block once it is on the disk.

    The responses of a block are awaited when the next one is asked for.
    """
    changes = changes or changes_of
    folder.mkdir(parents=True, exist_ok=True)
    while not loop.is_over:
        generation = loop.ask()
        name = f"{generation.number:04}-{loop.blocks - 1:02}"
        write_block(folder / f"block-{name}", generation, name)
        yield generation
        for _ in changes(folder):
            if take_responses(loop, folder, name):
                break


def write_block(place: Path, generation: Generation, name: str) -> None:
    """Write the pictures of a block and its manifest; the folder appears whole."""
    if place.exists():
        return
    wanted = sorted({each.picture for each in generation.order})
    pictures = {}
    with scratch_folder(place.parent, place.name) as scratch:
        for picture in wanted:
            content = png(generation.pixels(picture))
            (scratch / f"{picture}.png").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            pictures[picture] = {"file": f"{picture}.png", "sha256": digest}
        manifest = {
            "protocol": PROTOCOL,
            "generation": generation.number,
            "responses": f"responses-{name}",
            "pictures": pictures,
            "order": generation.order,
        }
        with open(scratch / "manifest.json", "w", encoding="utf-8") as file:
            json.dump(manifest, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(place)


def png(pixels: Pixels) -> bytes:
    """Return a picture as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


def take_responses(loop: Loop | Interleaved, folder: Path, name: str) -> bool:
    """Tell the loop what the rig has written of a block; return whether the block is over."""
    files = [folder / f"responses-{name}{suffix}" for suffix in SUFFIXES]
    done = (folder / f"responses-{name}.done").exists()
    before = loop.number, loop.blocks
    for file in files:
        if not file.exists():
            continue
        try:
            responses = read_responses(file)
        except BadFile as error:
            warnings.warn(Notice(f"{error}; waiting for a whole one"), stacklevel=2)
            continue
        loop.tell(responses, done=False)
    if (loop.number, loop.blocks) == before and (done or not loop.ask().order):
        loop.tell([], done=True)
        return True
    return (loop.number, loop.blocks) != before


def changes_of(folder: Path) -> Iterator[object]:
    """Yield at once, and then after each change in a folder.

    The file system tells of changes where `watchfiles` is installed; otherwise the folder is looked
    at every tenth of a second.
    """
    try:
        from watchfiles import watch
    except ImportError:
        while True:
            yield None
            time.sleep(POLLED)
    yield None
    # `yield_on_timeout`: what was written between the first look and the watch is seen after that
    yield from watch(folder, recursive=False, yield_on_timeout=True, rust_timeout=1000, step=5)
