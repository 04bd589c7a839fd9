"""The zoo: the files of weights that have names, where they lie, and what was measured of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from phosphene.errors import Unavailable, UnknownName, near
from phosphene.files import caches, from_hub

CLONE = Path(__file__).parents[3] / "weights"
"""The folder of weights in a clone of the repository."""
_PLAIN = re.compile(r"[\w-]+")
"""Names without the marks of a file, a source, a dictionary or a share of the data."""


def locate(name: str | Path, others: Iterable[str] = ()) -> tuple[Path, str | None]:
    """Return where a weights file lies and the hash it must have, None for one of your own.

    `others` are names that would have worked too where this one was looked for.
    """
    listed = manifest()
    if str(name) in listed:
        return _found(str(name), listed[str(name)]), listed[str(name)]["sha256"]
    path = Path(name)
    if path.is_file():
        return path, None
    raise _unknown(str(name), [*listed, *others])


def check_name(name: str, others: Iterable[str]) -> None:
    """Refuse a plain word that names neither weights, nor a file, nor one of `others`.

    It opens no weights and needs no torch. A word that it lets pass may still name nothing.
    """
    known = [*manifest(), *others]
    plain = name.removesuffix("@random")
    if _PLAIN.fullmatch(plain) and plain not in known and not Path(name).exists():
        raise _unknown(name, known)


def _unknown(name: str, known: Iterable[str]) -> UnknownName:
    path = Path(name)
    if path.is_dir():
        return UnknownName(f"{name!r} is a folder; give a .safetensors file, or a bundled name")
    if path.suffix == ".safetensors":
        return UnknownName(f"{name} does not exist; phosphene zoo list prints the bundled names")
    there = near(name, known)
    return UnknownName(f"no weights {name!r}; near: {there}; or give a .safetensors file")


def places() -> list[Path]:
    """Return the folders where the zoo's files may lie: the package, a clone, the user's caches."""
    return [zoo_folder(), CLONE, *caches()]


def _found(name: str, entry: Mapping[str, Any]) -> Path:
    """Return the path of a file of the zoo, in the first place that has it, else from the hub.

    Its reader checks what it holds.
    """
    for folder in places():
        if (folder / entry["file"]).is_file():
            return folder / str(entry["file"])
    if hub := os.environ.get("PHOSPHENE_HUB"):
        return from_hub(hub, entry["file"])
    raise Unavailable(
        f"the weights of {name} ({entry['bytes'] / 1e6:.0f} MB) are not on this machine; "
        f"put {entry['file']} into {places()[-1]}, or set PHOSPHENE_HUB to a repository OWNER/NAME "
        "of the Hugging Face hub that has it"
    )


def manifest() -> dict[str, dict[str, Any]]:
    """Return the zoo: name → {file, sha256, bytes, kind, summary}.

    The files that the package lacks are among them.
    """
    entries: dict[str, dict[str, Any]] = _listed("manifest.json")
    return entries


def listed_figures() -> dict[str, list[dict[str, Any]]]:
    """Return what was measured of the zoo's generators: name → one entry for each judge.

    An entry is of whatever weights had the name.
    """
    known: dict[str, list[dict[str, Any]]] = _listed("figures.json")
    return known


def _listed(name: str) -> Any:
    file = zoo_folder() / name
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def zoo_folder() -> Path:
    """Return the folder of bundled weights inside the package."""
    return Path(__file__).parents[1] / "zoo"


def advice(path: Path) -> str:
    """Return what brings back a file of the zoo, which depends on where it lies."""
    if path.parent == zoo_folder():
        return "reinstall phosphene"
    if path.parent == CLONE:
        return f"git checkout {path.name} (or git lfs pull) brings it back"
    hub = os.environ.get("PHOSPHENE_HUB")
    then = "give the command again" if hub else f"put a whole {path.name} there"
    return f"delete {path.resolve()} and {then}"
