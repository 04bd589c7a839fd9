"""What a folder of photographs says of itself: its `meta.json`, and the licence in its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phosphene.errors import BadFile
from phosphene.files import read_json


def read_meta(folder: Path) -> dict[str, Any]:
    """Return what `meta.json` says, or nothing; `BadFile` where it makes no sense."""
    file = (folder if folder.is_dir() else folder.parent) / "meta.json"
    if not file.exists():
        return {}
    try:
        meta = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{file} is not JSON: {error}") from None
    meta = meta if isinstance(meta, dict) else {}
    classes = meta.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise BadFile(f"{file}: classes is a list of names")
    return meta


def licence_of(folder: Path, meta: dict[str, Any]) -> str:
    """Return the licence that a data set states.

    It is what `meta.json` says, or the line of the data's README that begins with "Licence:".
    """
    if stated := meta.get("licence", meta.get("license")):
        return str(stated)
    readme = folder / "README.md"
    if readme.is_file():
        for line in readme.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lstrip("-* ").lower().startswith(("licence:", "license:")):
                return line.partition(":")[2].strip()
    return "not stated"
