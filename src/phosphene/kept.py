"""Finished results in files: what is there and whole is read, and everything else is made."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.files import (
    atomic_path,
    in_utf8,
    read_json,
    really_is,
    told_as_oserror,
    write_json,
)
from phosphene.runtime import ALONE, Processes

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
"""Of all that is kept. Before, each kind of file had a form of its own, which is still read."""
HEAD = ("format", "identity", "finished", "digest")
Content = dict[str, Any]
"""Tensors, and what JSON can hold, by name."""


@dataclass(frozen=True)
class Kept:
    """The `content` of a file, what it is of, and whether it is `finished`.

    The caches of version 0.1.0 do not tell their identity: their names have its hash.
    """

    path: Path
    content: Content
    identity: Mapping[str, Any] | None
    finished: bool = True
    format: int = FORMAT

    def check(self, identity: Mapping[str, Any]) -> Kept:
        """Return this; `BadRequest` where it is of something else."""
        wanted = json.loads(json.dumps(identity))
        ours = wanted if self.identity is None else self.identity
        if wrong := [name for name in wanted if ours.get(name) != wanted[name]]:
            raise BadRequest(
                f"{self.path} was made with another {wrong[0]}; give another folder for it, "
                "or what it was made with"
            )
        return self


def kept(
    path: Path,
    identity: Mapping[str, Any],
    make: Callable[[], Content],
    processes: Processes = ALONE,
) -> Content:
    """Return what a file keeps of this identity; make and write it where there is none.

    A damaged file is made again, with a line that says so. The main process makes it, and the
    others wait and read. `BadRequest` where the file is of something else.
    """
    found = intact(path) if processes.is_main else None
    if processes.is_main and found is None:
        found = Kept(path, make(), identity)
        write(path, identity, found.content)
    processes.wait()
    return (found or _opened(path)).check(identity).content


def intact(path: Path) -> Kept | None:
    """Return what a file keeps, or None where there is none, or a damaged one, which is told."""
    try:
        return _opened(path) if path.exists() else None
    except BadFile as error:
        warnings.warn(f"{error}; it is made again", Notice, stacklevel=3)
        return None


def read(path: Path) -> Kept | None:
    """Return what a file keeps, or None where there is none; `BadFile` where it is damaged."""
    try:
        return _opened(path) if path.exists() else None
    except BadFile as error:
        raise BadFile(f"{error}; delete it, and the same command makes it again") from None


def write(path: Path, identity: Any, content: Content, finished: bool = True) -> None:
    """Keep content, whole or not at all, in the form that the suffix of the file's name says.

    `.json` is JSON and `.pt` torch's own form, which keeps the layout of tensors in memory. All
    other files are safetensors.
    """
    head = {"format": FORMAT, "identity": identity, **({} if finished else {"finished": False})}
    if path.suffix == ".json":
        write_json(path, {**head, **content})
    elif path.suffix == ".pt":
        _write_torch(path, {**head, **content})
    else:
        _write_tensors(path, head, content)


def _opened(path: Path) -> Kept:
    """Read a file; `BadFile` where it cannot be."""
    try:
        readers = {".json": read_json, ".pt": _read_torch}
        found = readers.get(path.suffix, _read_tensors)(path)
        head = {name: found.pop(name) for name in HEAD if name in found}
        form = int(head.get("format", 1))
    except Exception as error:  # torch and safetensors have no common error of their own
        why = really_is(path) or str(error).partition("\n")[0] or type(error).__name__
        raise BadFile(f"{path} is damaged ({why})") from None
    if form > FORMAT:
        raise BadFile(f"{path} has format {form}, and this version reads {FORMAT}")
    identity = head.get("identity", {})
    identity = {"recipe or other data": identity} if isinstance(identity, str) else identity
    return Kept(path, found, identity, bool(head.get("finished", True)), form)


def _read_torch(path: Path) -> Content:
    import torch

    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _write_torch(path: Path, content: Content) -> None:
    import torch

    with atomic_path(path) as scratch:
        try:
            torch.save(content, scratch)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(str(error)) from None


def _read_tensors(path: Path) -> Content:
    from safetensors import safe_open

    with in_utf8(path) as place, safe_open(place, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    text = metadata.get("phosphene", '{"identity": null}')
    about = json.loads(text)
    digest = about.pop("digest", None)
    if digest is not None:
        text = json.dumps(about)
    # version 0.1.0 kept the digest of the text as it was beside it
    digest = digest or metadata.get("digest")
    if digest is not None and digest_of(tensors, text) != digest:
        raise ValueError("its digest is another")
    return {**about, **tensors}


def _write_tensors(path: Path, head: Content, content: Content) -> None:
    from safetensors.torch import save_file
    from torch import Tensor

    tensors = {k: v.contiguous() for k, v in content.items() if isinstance(v, Tensor)}
    about = {**head, **{k: v for k, v in content.items() if k not in tensors}}
    whole = {**about, "digest": digest_of(tensors, json.dumps(about))}
    with atomic_path(path) as scratch, told_as_oserror():
        # one entry only: safetensors writes several in an order that changes from file to file
        save_file(tensors, scratch, {"phosphene": json.dumps(whole)})


def digest_of(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return one hash of tensors (names, types, shapes, numbers) and of the text beside them."""
    from torch import uint8

    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}:{value.dtype}:{list(value.shape)}".encode())
        digest.update(value.contiguous().view(-1).view(uint8).numpy().data)
    return digest.hexdigest()
