"""What tells one data set from another: the contents of its files, each read once."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from phosphene.files import caches

VERSION = 2
"""Of how photographs are read and told apart: another one is another fingerprint."""
SETTLED = 2_000_000_000
"""Nanoseconds. A file that was written so shortly before is read again the next time: a second
change within one tick of the file system's clock would not show."""
UNREAD = "unread"
"""In place of the content of a file that cannot be read."""
AT_ONCE = 500
"""Paths in one question to the table of what is known."""
_KNOWN = "contents.sqlite"
_CREATE = "create table if not exists contents (path blob primary key, state text, sha256 text)"


def fingerprint(how: str, files: Sequence[tuple[str, Path]], more: Iterable[str] = ()) -> str:
    """Return the hash of how photographs are read, of files by name and content, and of `more`.

    A copy of a data set has its fingerprint, whatever its files' times and wherever it lies.
    """
    digest = hashlib.sha256(f"{VERSION}:{how}".encode())
    found = contents([path for _, path in files])
    for (name, _), content in zip(files, found, strict=True):
        digest.update(_raw(name) + b"\0" + content.encode() + b"\n")
    for each in more:
        digest.update(_raw(each) + b"\n")
    return digest.hexdigest()


def former(how: str, parts: Iterable[str]) -> str:
    """Return the fingerprint that version 0.1.0 gave: names and sizes, and not what is in files."""
    digest = hashlib.sha256(how.encode())
    for part in parts:
        digest.update(_raw(part))
    return digest.hexdigest()


def written_before(files: Iterable[Path], when: float) -> bool:
    """Return whether all files were last written before a time, in seconds of the epoch."""
    return all(path.exists() and path.stat().st_mtime < when for path in files)


def contents(files: Sequence[Path]) -> list[str]:
    """Return the sha256 of each file.

    What was read before is looked up in a table of the user's cache by path, size, inode, and the
    times of the last writing and of the last change of any kind, so no run reads it twice. Where
    there is no place for the table, every run reads all files.
    """
    paths = [os.fsencode(os.path.abspath(path)) for path in files]
    states = [_state(path) for path in files]
    now, found, learnt = time.time_ns(), [], []
    with _table() as table:
        known = _known(table, paths)
        for path, (state, changed) in zip(paths, states, strict=True):
            was, content = known.get(path, ("", UNREAD))
            if was != state:
                content = _content(path)
                if content != UNREAD and now - changed > SETTLED:
                    learnt.append((path, state, content))
            found.append(content)
        _keep(table, learnt)
    return found


def _state(path: Path) -> tuple[str, int]:
    """Return what changes when a file does, and when that was, in nanoseconds of the epoch.

    Of what is not there, as where a link leads nowhere, it is nothing: whoever reads it says so.
    """
    try:
        at = path.stat()
    except OSError:
        return "", time.time_ns()
    state = f"{at.st_size}:{at.st_mtime_ns}:{at.st_ctime_ns}:{at.st_dev}:{at.st_ino}"
    return state, max(at.st_mtime_ns, at.st_ctime_ns)


def _content(path: bytes) -> str:
    """Return the sha256 of a file, and nothing where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return UNREAD
    return digest.hexdigest()


@contextmanager
def _table() -> Iterator[sqlite3.Connection | None]:
    """Lend the table of what is known of files; None where there is no place for it."""
    folder = caches()[-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = sqlite3.connect(folder / _KNOWN, timeout=10)
    except (OSError, sqlite3.Error):
        yield None
        return
    with closing(found):
        try:
            found.execute(_CREATE)
        except sqlite3.Error:  # no table, or a damaged one
            yield None
            return
        yield found


def _known(
    table: sqlite3.Connection | None, paths: Sequence[bytes]
) -> dict[bytes, tuple[str, str]]:
    """Return the state and the content of those of the paths that the table has."""
    found: dict[bytes, tuple[str, str]] = {}
    for at in range(0, len(paths) if table else 0, AT_ONCE):
        some = paths[at : at + AT_ONCE]
        marks = ",".join("?" * len(some))
        try:
            rows = table.execute(  # type: ignore[union-attr]
                f"select path, state, sha256 from contents where path in ({marks})", some
            ).fetchall()
        except sqlite3.Error:  # a damaged table: everything is read again
            return {}
        found |= {bytes(path): (str(state), str(content)) for path, state, content in rows}
    return found


def _keep(table: sqlite3.Connection | None, learnt: Sequence[tuple[bytes, str, str]]) -> None:
    if table is None or not learnt:
        return
    try:
        with table:
            table.executemany("insert or replace into contents values (?, ?, ?)", learnt)
    except sqlite3.Error:  # another process has it, or the disk is full: it is read again
        return


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
