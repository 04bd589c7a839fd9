"""Files that are whole or not there, and files from a hub."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from phosphene.errors import BadRequest, OutOfSpace, Unavailable, type_name

FORGOTTEN = 86_400
"""Seconds after which scratch of another machine or container counts as left behind."""
WAITING = 8
"""Threads that wait for a disk."""
_OURS = re.compile(r"\..+\.phosphene-([0-9a-f]{8})-(\d+)\.tmp")
_OLDER = re.compile(
    r"\..+\.(?:png|webp|json|jsonl|safetensors|npz|pt|html|svg)\.(\d+)\.tmp|\.atlas-[a-z0-9_]{8}"
)
"""What version 0.1.0 called its scratch."""
_lent: set[str] = set()
_swept: set[str] = set()


def path_of(given: object, what: str) -> Path:
    """Return a path; `BadRequest` where something else is given as `what`."""
    if not isinstance(given, (str, Path)):
        raise BadRequest(f"{what} is a path; got {type_name(given)}")
    return Path(given)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Lend a scratch path whose file takes `path`'s place at the end.

    On any failure `path` stays as it was. Makes the folder. A link stays, and the file that it
    leads to is written; of several hard links only this name is. What `outlet` refuses is refused.
    A disk that takes no more, or a folder that may not be written, is `OutOfSpace`.
    """
    place = outlet(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(place.parent, place.name) as scratch:
            yield scratch
            _on_disk(scratch)
            _take_the_place(scratch, place)
    except OSError as error:
        raise _out_of_space(path, error) from None


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files, each whole or not at all, and put them in their places in this order.

    None takes its place before all are on the disk. Several threads wait for the disk, which
    confirms many files sooner at once than one by one. Otherwise as `atomic_path`.
    """
    path = next(iter(files), Path())
    try:
        with ExitStack() as lent:
            places = {}
            for path, content in files.items():
                place = outlet(path)
                place.parent.mkdir(parents=True, exist_ok=True)
                scratch = lent.enter_context(_scratch(place.parent, place.name))
                scratch.write_bytes(content)
                places[scratch] = place
            with ThreadPoolExecutor(WAITING) as threads:
                list(threads.map(_on_disk, places))
            for scratch, place in places.items():
                _take_the_place(scratch, place)
    except OSError as error:
        raise _out_of_space(path, error) from None


def _on_disk(path: Path) -> None:
    """Wait until a file is on the disk, or a power cut might leave its new name with nothing."""
    with open(path, "rb+") as file:
        os.fsync(file)


def _out_of_space(path: Path, error: OSError) -> OutOfSpace:
    reason = error.strerror or error
    return OutOfSpace(f"cannot write {path}: {reason}; what was finished before is kept")


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Lend a new folder in `parent` that is removed at the end, or by the next run after a kill."""
    with _scratch(parent, name) as folder:
        folder.mkdir()
        yield folder


@contextmanager
def _scratch(parent: Path, name: str) -> Iterator[Path]:
    sweep(parent)
    if len(os.fsencode(name)) > 150:  # a file's name has at most 255 bytes
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    scratch = parent / f".{name}.phosphene-{_here()}-{os.getpid()}.tmp"
    _lent.add(str(scratch))
    try:
        yield scratch
    finally:
        _remove(scratch)
        _lent.discard(str(scratch))


def _take_the_place(scratch: Path, place: Path) -> None:
    if place.exists():
        shutil.copymode(place, scratch)
    else:
        scratch.chmod(0o666 & ~_umask())  # libraries make files that their maker alone may read
    try:
        os.replace(scratch, place)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(scratch, place)  # a file that is a mount point cannot be replaced


@lru_cache
def _umask() -> int:
    """Return the permissions that this process withholds from new files."""
    found = os.umask(0o077)
    os.umask(found)
    return found


def sweep(folder: Path) -> None:
    """Remove from a folder, once in a process, the scratch of processes that are gone.

    What this machine cannot judge (another host's, another container's, an older version's) goes
    after a day without a change. What a living process writes is never touched.
    """
    if (key := os.path.realpath(folder)) in _swept:
        return
    _swept.add(key)
    with suppress(PermissionError):  # a folder that takes files and shows none
        for each in [*os.scandir(folder)]:
            if each.name.startswith(".") and _left_behind(each):
                _remove(Path(each.path))


def is_scratch(name: str) -> bool:
    """Return whether a file or folder of this name is what some process writes, or wrote."""
    return bool(_OURS.fullmatch(name))


def _left_behind(entry: os.DirEntry[str]) -> bool:
    ours = _OURS.fullmatch(entry.name)
    if ours and ours[1] == _here():
        return entry.path not in _lent and (int(ours[2]) == os.getpid() or not _alive(int(ours[2])))
    if not ours and not _OLDER.fullmatch(entry.name):
        return False
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > FORGOTTEN
    except OSError:  # another process has just removed it
        return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@lru_cache
def _here() -> str:
    """Return a name for the place in which a process's number has a meaning."""
    parts = [platform.node()]
    with suppress(OSError):  # where there is no /proc
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


def outlet(path: Path, *inputs: str | Path) -> Path:
    """Return where a file is written: what `path` leads to through its links.

    For a check before the work. What is there and is no regular file is refused, and so is a file
    that is one of the `inputs`, under whatever name. Inputs that are names of something else are
    passed over. What may not be written is `OutOfSpace`.
    """
    place = Path(os.path.realpath(path))
    try:
        kind = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        _check_parent(place.parent, path)
        return place
    except OSError as error:  # a circle of links
        raise OutOfSpace(f"cannot write {path}: {error.strerror}") from None
    if stat.S_ISDIR(kind):
        raise OutOfSpace(f"cannot write {path}: it is a folder; give the name of a file")
    if not stat.S_ISREG(kind):
        raise BadRequest(
            f"{path} is a pipe, a device or a socket, which no file replaces; give another name"
        )
    if not os.access(place, os.W_OK):
        raise OutOfSpace(f"cannot write {path}: it is there and may not be written")
    read = [each for each in inputs if os.path.exists(each) and os.path.samefile(each, place)]
    if read:
        raise BadRequest(f"{path} is {read[0]}, which is read; give another name for what is made")
    return place


def outlet_folder(path: Path, *inputs: str | Path) -> Path:
    """Check before the work that files can be written into a folder, there or not yet.

    It is refused where it is one of the `inputs`. Returns the path as it was given.
    """
    if path.is_dir():
        if not os.access(path, os.W_OK | os.X_OK):
            raise OutOfSpace(f"cannot write into the folder {path}: it may not be written")
    elif os.path.lexists(path):
        raise OutOfSpace(f"cannot make the folder {path}: a file has that name")
    else:
        _check_parent(Path(os.path.realpath(path)).parent, path)
    folders = [each for each in inputs if os.path.isdir(each) and path.exists()]
    read = [each for each in folders if os.path.samefile(each, path)]
    if read:
        raise BadRequest(
            f"{path} is {read[0]}, which is read; give another folder for what is made"
        )
    return path


def _check_parent(parent: Path, path: Path) -> None:
    there = next(each for each in (parent, *parent.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise OutOfSpace(f"cannot write {path}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutOfSpace(f"cannot write {path}: the folder {there} may not be written")


@contextmanager
def in_utf8(path: Path) -> Iterator[Path]:
    """Lend a path in UTF-8 to a file, for readers that take no other.

    It is a link where the file's own path is not in UTF-8.
    """
    if os.fsencode(path).decode(errors="ignore") == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "link").with_suffix(path.suffix)
        link.symlink_to(os.path.abspath(path))
        yield link


@contextmanager
def told_as_oserror() -> Iterator[None]:
    """Raise what safetensors makes of a full disk as the `OSError` that the system gives."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from None


POINTERS = {
    b"version https://git-lfs.github.com/spec/": "a pointer of Git LFS; `git lfs pull` fetches the "
    "file itself",
    b"/annex/objects/": "a pointer of git-annex; `git annex get` fetches the file itself",
}
"""What lies in place of a file that was not fetched yet, by its first bytes."""
KINDS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them",
    b"\x1f\x8b": "a file compressed by gzip; unpack it first",
    **{
        bytes([0x80, version]): "a pickle, which may run code when it is opened"
        for version in (2, 3, 4, 5)
    },
}
"""Other files that people have, by their first bytes."""
PROGRAM = "a program of torch.export, whose name should end in .pt2"
FIRST = 1024
"""Bytes that tell what a file is."""


def really(content: bytes) -> str:
    """Return what the beginning of a file that cannot be read shows it to be, or ""."""
    start = content[:FIRST]
    if not start:
        return "an empty file"
    if pointer := pointer_of(start):
        return pointer
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype html", b"<html")):
        return "a web page; download the file itself"
    if start.startswith(b"PK\x03\x04"):
        return _really_zipped(start)
    return next((kind for mark, kind in KINDS.items() if start.startswith(mark)), "")


def _really_zipped(start: bytes) -> str:
    if b"/archive_format" in start or b"/data/weights/" in start:
        return PROGRAM
    if b"/data.pkl" in start:
        return "a pickle of PyTorch, which may run code when it is opened"
    return "a zip archive"


def really_is(path: Path) -> str:
    """Return what a file that cannot be read is by its first bytes, or ""."""
    try:
        with open(path, "rb") as file:
            return really(file.read(FIRST))
    except OSError:  # the reader's own error says so
        return ""


def pointer_of(content: bytes) -> str:
    """Return what kind of pointer stands in place of a file, or "" for any other content."""
    return next((kind for mark, kind in POINTERS.items() if content.startswith(mark)), "")


def read_text(path: Path) -> str:
    """Return a file's text without its byte order mark.

    It is read as UTF-8, or as UTF-16 where the mark says so. `OSError` where the file cannot be
    read, `ValueError` where it is no text.
    """
    raw = path.read_bytes()
    if kind := pointer_of(raw):
        raise ValueError(f"it is {kind}")
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; errors as those of `read_text`, or `RecursionError`."""
    return json.loads(read_text(path))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    with atomic_path(path) as scratch:
        scratch.write_bytes(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return what a file of JSON holds."""
    text = json.dumps(without_nan(value), indent=1, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # half a character becomes JSON's \udXXX


def without_nan(value: Any) -> Any:
    """Return the value with None for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def home() -> Path:
    """Return the user's home folder, or a folder under TMPDIR where nothing says which that is.

    A container may run as a number that has neither HOME nor an entry in passwd.
    """
    found = os.path.expanduser("~")
    if os.path.isabs(found):
        return Path(found)
    return Path(tempfile.gettempdir()) / f"phosphene-{os.getuid()}"


def caches() -> list[Path]:
    """Return the folders where the user may keep files for the program, the one to name last."""
    if own := os.environ.get("PHOSPHENE_CACHE"):
        return [Path(own)]
    found = [home() / ".cache"]
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):
        found.append(Path(shared))
    return [folder / "phosphene" for folder in dict.fromkeys(found)]


def from_hub(repository: str, name: str) -> Path:
    """Fetch a file of a repository on the Hugging Face hub.

    The hub's own cache gives it where it is there already.
    """
    address = f"https://huggingface.co/{repository}/resolve/main/{name}"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise Unavailable(
            "huggingface-hub is not installed; pip install 'phosphene[hub]', "
            f"or give a local copy of {name}"
        ) from None
    try:
        return Path(hf_hub_download(repository, name))
    # The hub's client raises its own errors, its HTTP library's and the system's.
    except Exception as error:
        raise Unavailable(
            f"{name} did not come from the hub ({type(error).__name__}); download "
            f"{address} elsewhere and give that file"
        ) from None
