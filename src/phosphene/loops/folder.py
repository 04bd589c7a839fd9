"""A closed loop through a folder: pictures and a manifest for the rig, a response file from it.

A block of generation 3 lies in `block-0003-00/`, which appears whole: its pictures as PNG, and
`manifest.json` with their SHA-256, their place on the screen, and the order. The rig writes
`responses-0003-00.csv` (or .json, .mat, .h5) beside it. A file that is still being written does no
harm: responses that are there are counted, and those that come later as well. A block is over when
each presentation has a response or NaN, or when the rig makes an empty file
`responses-0003-00.done`. The file `over.json` says that the search is over.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from phosphene.errors import BadFile, BadRequest, Notice, OutOfSpace, Unavailable
from phosphene.files import read_json, scratch_folder, write_json
from phosphene.images import Pixels
from phosphene.loops.block import Interleaved
from phosphene.loops.generation import Generation
from phosphene.loops.loop import Loop
from phosphene.loops.responses import SUFFIXES, read_responses
from phosphene.loops.run import write_preferred

PROTOCOL = 1
OVER = "over.json"
"""The file that says that the search is over."""
POLLED = 0.1
"""Seconds between looks where nothing tells of changes."""
WRITERS = 2
"""Threads that write pictures: to compress them takes longest."""
QUIET = 5.0
"""Seconds after which a file is not being written any more."""

Changes = Callable[[Path], Iterator[object]]
"""Yields at once, and then after each change in a folder."""


def serve_folder(
    loop: Loop | Interleaved, folder: Path, changes: Changes | None = None
) -> Iterator[Generation]:
    """Run a loop through a folder; yield each block once it is on the disk.

    The responses of a block are awaited when the next one is asked for. At the end the preferred
    pictures lie beside the logs, and the rig is told that the search is over.
    """
    changes = changes or changes_of
    folder.mkdir(parents=True, exist_ok=True)
    if not _begun(loop):
        _refuse_leftovers(folder)
    while not loop.is_over:
        before = loop.number, loop.blocks
        generation = loop.ask()
        name = f"{generation.number:04}-{loop.blocks - 1:02}"
        if (loop.number, loop.blocks) != before:
            _set_aside(folder, name)
        try:
            write_block(folder / f"block-{name}", generation, name, _begun(loop))
        except OSError as error:
            raise OutOfSpace(f"cannot write {folder}/block-{name}: {error.strerror}") from None
        yield generation
        for _ in changes(folder):
            if not folder.is_dir():
                raise Unavailable(f"{folder} has gone; give the same command again when it is back")
            if take_responses(loop, folder, name):
                break
    for each in loop.loops:
        write_preferred(each)
    write_json(folder / OVER, {"generations": loop.number})


def _begun(loop: Loop | Interleaved) -> list[float]:
    """Return when each search began; nothing before the first did."""
    return [each.begun for each in loop.loops if each.begun]


def _refuse_leftovers(folder: Path) -> None:
    """Refuse a folder with files of another search: its responses are to other pictures."""
    for pattern in ("block-*", "responses-*", OVER):
        for left in folder.glob(pattern):
            raise BadRequest(
                f"{folder} has files of another search, such as {left.name}; give an empty folder, "
                "or the --out with which that search was started"
            )


def _set_aside(folder: Path, name: str) -> None:
    """Rename responses that were there before their block: nobody had seen its pictures."""
    if (folder / f"block-{name}").exists():
        return
    for suffix in (*SUFFIXES, ".done"):
        early = folder / f"responses-{name}{suffix}"
        if early.exists():
            early.rename(folder / f"early-{name}{suffix}")
            text = f"{early} was there before its block; it is now early-{name}{suffix}"
            warnings.warn(Notice(text), stacklevel=2)


def write_block(place: Path, generation: Generation, name: str, begun: Sequence[float]) -> None:
    """Write the pictures of a block and its manifest; the folder appears whole.

    A block that is there already is kept; `BadRequest` where it is of another search.
    """
    if (place / "manifest.json").exists():
        with suppress(OSError, ValueError):
            former = read_json(place / "manifest.json").get("begun", [])
            if former and not {*former} & {*begun}:
                raise BadRequest(f"{place} is of another search; give each a folder of its own")
        return
    wanted = sorted({each.picture for each in generation.order})
    with scratch_folder(place.parent, place.name) as scratch, ThreadPoolExecutor(WRITERS) as pool:
        written = pool.map(partial(_write_picture, scratch, generation), wanted)
        pictures = dict(zip(wanted, written, strict=True))
        manifest = {
            "protocol": PROTOCOL,
            "begun": [*begun],
            "generation": generation.number,
            "responses": f"responses-{name}",
            "pictures": pictures,
            "order": generation.order,
            **generation.place_as_json(),
        }
        with open(scratch / "manifest.json", "w", encoding="utf-8") as file:
            json.dump(manifest, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            scratch.rename(place)
        except OSError as error:
            raise BadRequest(
                f"{place} is in the way and has no manifest: {error.strerror}; remove it"
            ) from None


def _write_picture(folder: Path, generation: Generation, picture: str) -> dict[str, str]:
    """Write a picture's files; return their names and hashes as the manifest says them."""
    content = png(generation.shown(picture))
    (folder / f"{picture}.png").write_bytes(content)
    said = {"file": f"{picture}.png", "sha256": hashlib.sha256(content).hexdigest()}
    if generation.has_arrays:
        content = npy(generation.psychopy(picture))
        (folder / f"{picture}.npy").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        said |= {"array": f"{picture}.npy", "array_sha256": digest}
    return said


def npy(array: npt.NDArray[np.float32]) -> bytes:
    """Return an array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def png(pixels: Pixels) -> bytes:
    """Return a picture as the bytes of a PNG."""
    file = io.BytesIO()
    # to look for run lengths alone is faster, and pictures of a generator get no larger
    Image.fromarray(pixels).save(file, "png", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()


def take_responses(loop: Loop | Interleaved, folder: Path, name: str) -> bool:
    """Tell the loop what the rig has written of a block; return whether the block is over.

    Files to earlier blocks of the same generation are read again: their responses count as well.
    """
    generation, _, block = name.partition("-")
    blocks = [f"{generation}-{i:02}" for i in range(int(block) + 1)]
    files = [(each, folder / f"responses-{each}{suffix}") for each in blocks for suffix in SUFFIXES]
    finished = {each for each in blocks if (folder / f"responses-{each}.done").exists()}
    before = loop.number, loop.blocks
    for each, file in files:
        if not file.exists():
            continue
        try:
            responses = read_responses(file, whole=each in finished)
            _tell_of_last_line(file, len(responses))
        except BadFile as error:
            warnings.warn(Notice(f"{error}; waiting for a whole one"), stacklevel=2)
            finished.discard(each)
            continue
        loop.tell(responses, done=False)
    if (loop.number, loop.blocks) == before and (name in finished or not loop.ask().order):
        loop.tell([], done=True)
        return True
    return (loop.number, loop.blocks) != before


def _tell_of_last_line(file: Path, read: int) -> None:
    """Tell where a file's last line has no end, and nobody has written on for a while."""
    if time.time() - file.stat().st_mtime > QUIET and len(read_responses(file, whole=True)) > read:
        text = (
            f"{file}: its last line has no end, so it may not be whole; end it, or make the .done"
        )
        warnings.warn(Notice(text), stacklevel=2)


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
