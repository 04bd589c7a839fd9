"""Files that are whole or not there, and files from a hub."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from phosphene.errors import OutOfSpace, Unreachable


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Lend a scratch path whose file takes `path`'s place at the end; on any failure `path` stays as it was.

    Makes the folder. A disk that takes no more, or a folder that may not be written, is `OutOfSpace`.
    """
    scratch = (
        path.parent / f".{path.name}.{os.getpid()}.tmp"
    )  # two processes may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        with open(scratch, "rb+") as file:
            os.fsync(file)  # or a power cut might leave the new name with nothing under it
        os.replace(scratch, path)
    except OSError as error:
        reason = error.strerror or error
        raise OutOfSpace(
            f"cannot write {path}: {reason}; what was finished before is kept"
        ) from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextmanager
def told_as_oserror() -> Iterator[None]:
    """What safetensors makes of a full disk, as the system says it."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from None


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    with whole(path) as scratch:
        text = json.dumps(without_nan(value), indent=1, ensure_ascii=False) + "\n"
        scratch.write_text(
            text, encoding="utf-8", errors="backslashreplace"
        )  # half a character is JSON's \udXXX then


def without_nan(value: Any) -> Any:
    """The value with None for every number that JSON has no word for."""
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
    if os.path.isabs(shared := os.environ.get("XDG_CACHE_HOME", "")):
        found.append(Path(shared))
    return [folder / "phosphene" for folder in dict.fromkeys(found)]


def from_hub(repository: str, name: str) -> Path:
    """A file of a repository on the Hugging Face hub, or from the hub's own cache where it is there already."""
    address = f"https://huggingface.co/{repository}/resolve/main/{name}"
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise Unreachable(
            f"huggingface-hub is not installed; pip install 'phosphene[hub]', or give a local copy of {name}"
        ) from None
    try:
        return Path(hf_hub_download(repository, name))
    except (
        Exception
    ) as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        raise Unreachable(
            f"{name} did not come from the hub ({type(error).__name__}); download "
            f"{address} elsewhere and give that file"
        ) from None
