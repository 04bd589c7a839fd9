"""The log of a closed loop: append-only, each line on the disk before the next step.

A line is a JSON object with its own checksum. The last line may be torn by a kill or a power cut.
It is cut off then, because nobody was told that it was written.
"""

from __future__ import annotations

import json
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phosphene.errors import BadFile, BadRequest, OutOfSpace
from phosphene.files import without_nan

FORMAT = 1
NAME = "session.jsonl"
"""The log's file in a loop's folder."""

Event = dict[str, Any]


class Session:
    """Keep a log of events in a folder, which one process holds at a time."""

    def __init__(self, folder: Path):
        self.path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutOfSpace(f"cannot write {self.path}: {error.strerror}") from None
        self.close = weakref.finalize(self, os.close, self._file)
        """Give the log back, so that another process may hold it."""
        _lock(self._file, self.path)
        self.events = self._whole_lines()

    def _whole_lines(self) -> list[Event]:
        """Return the events; cut off a last line that is not whole."""
        raw = self.path.read_bytes()
        whole, newline, _ = raw.rpartition(b"\n")
        events = [*self._read(whole)] if whole else []
        if len(whole) + len(newline) < len(raw):
            os.ftruncate(self._file, len(whole) + len(newline))
        if events and events[0].get("format") != FORMAT:
            raise BadFile(
                f"{self.path} has format {events[0].get('format')!r}; this version reads {FORMAT}"
            )
        return events

    def _read(self, whole: bytes) -> Iterator[Event]:
        for number, line in enumerate(whole.split(b"\n"), 1):
            checksum, _, text = line.partition(b" ")
            try:
                event = json.loads(text)
                right = checksum == _checksum(text) and isinstance(event, dict)
            except ValueError:
                right = False
            if not right:
                raise BadFile(
                    f"{self.path}: line {number} is damaged; the lines before it are whole: "
                    "copy them into a new folder to go on from there"
                )
            yield event

    def append(self, event: Mapping[str, Any]) -> None:
        """Write an event and wait until it is on the disk; `OutOfSpace` where that fails."""
        text = json.dumps(without_nan(dict(event)), allow_nan=False).encode()
        size = os.fstat(self._file).st_size
        try:
            _write(self._file, _checksum(text) + b" " + text + b"\n")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise OutOfSpace(f"cannot write {self.path}: {error.strerror}") from None
        self.events.append(json.loads(text))


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _checksum(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}".encode()


def _lock(file: int, path: Path) -> None:
    """Hold a file until it is closed; `BadRequest` where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BadRequest(
            f"{path} is in use by another process; stop it, or give another folder"
        ) from None
