"""Make the pictures of records again and print what came out, one JSON object a line.

    python remake.py FOLDER NAME…

FOLDER is a copy of this file's folder that may be written in; NAME begins the records' names.
The first line is the machine's probe.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from machine import probe
from tiny_networks import write_deepsim

from phosphene.errors import PhospheneError
from phosphene.files import without_nan
from phosphene.records import Folder

try:
    from phosphene.pictures import remake
except ImportError:  # version 0.1.0
    from phosphene.runs import remake


def main(folder: Path, names: list[str]) -> None:
    """Remake each record; an error is reported as its record's `error`."""
    print(json.dumps({"probe": probe()}), flush=True)
    if any(name.startswith("deepsim") for name in names):
        write_deepsim(folder)
    for name in names:
        file = folder / "records" / f"{name}.json"
        subject = json.loads(file.read_text())["request"]["subject"]
        try:
            _, new = remake(file, Folder(folder / "remade" / name), trusted=subject)
            found = asdict(new)
        except PhospheneError as error:
            found = {"error": str(error)}
        print(json.dumps({"name": name, **without_nan(found)}), flush=True)


if __name__ == "__main__":
    main(Path.cwd(), sys.argv[1:])
