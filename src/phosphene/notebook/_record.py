"""A record that was kept, with its picture."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from phosphene.errors import BadFile, BadRequest, type_name
from phosphene.files import path_of
from phosphene.forms import Record
from phosphene.images import Pixels, contact_sheet
from phosphene.notebook._shared import device_for, names_of, progress
from phosphene.pictures import Made, climb_again, differences
from phosphene.records import Folder
from phosphene.synthesis import PreferredInputs


@dataclass(frozen=True, repr=False)
class SavedPicture:
    """Hold a picture of a folder, and the `record` that made it. A notebook shows the picture."""

    file: Path
    record: Record

    @property
    def target(self) -> str:
        """Return the unit that was climbed for."""
        return self.record.target

    @property
    def score(self) -> float:
        """Return the unit's activation on the picture."""
        return self.record.score

    @property
    def pixels(self) -> Pixels:
        """Return the picture, (height, width, 3) of 8 bits."""
        return Folder(self.file.parent).picture(self.record)

    def __repr__(self) -> str:
        status = "" if self.record.status == "climbed" else f", {self.record.status}"
        return f"<SavedPicture of {self.target}: {self.score:.2f}{status}, {self.file}>"

    def _repr_png_(self) -> bytes:
        shown = Folder(self.file.parent).shown(self.record)
        label = f"{self.record.label}\n{self.score:.2f}"
        buffer = io.BytesIO()
        Image.fromarray(contact_sheet([shown], [label], 1, scale=2)).save(buffer, "png")
        return buffer.getvalue()

    def remake(
        self,
        *,
        device: str | None = None,
        subject: str = "",
        trust: Collection[str] = (),
        quiet: bool | None = None,
    ) -> PreferredInputs:
        """Climb again, and return the picture with its new record. Nothing is written.

        On the same machine the bits are the same: `differences` says what is not. Code that a
        record names, `python:…`, runs only where it is the `subject`, or one of those in `trust`.
        """
        where = None if device is None else device_for(device)
        trusted = names_of(trust, "trust")
        made = Made.of(self.record, self.file)
        steps = made.request.climb.steps * len(made.members)
        with progress(steps, "climbing", "steps", quiet) as advance:
            _, found = climb_again(
                self.file, trusted=subject, code=trusted, device=where, report=advance
            )
        return found

    def differences(self, again: PreferredInputs) -> str:
        """Return what differs of a picture that was made again, "" where the bits are the same."""
        if not isinstance(again, PreferredInputs):
            raise BadRequest(f"a picture made again is a result; got {type_name(again)}")
        if len(again.records) != 1:
            raise BadRequest(
                f"a record is of one picture; got a result of {len(again)}, so take one: result[0]"
            )
        (new,) = again.records
        if new.image_sha256 == self.record.image_sha256:
            return ""
        return differences(self.record, new, str(new.request["device"]))


def load_record(path: str | Path) -> SavedPicture:
    """Return a record that `phosphene.synthesize` or the command line kept, with its picture.

    `path` is a record's JSON or its picture. `BadFile` where it is neither.

    Examples:
        >>> saved = phosphene.load_record("preferred/fc8-27-lion-s0.json")
        >>> saved.differences(saved.remake())
        ''
    """
    file = path_of(path, "a record")
    if file.is_dir():
        records = sorted(each.name for each in file.glob("[!.]*.json"))
        example = f", such as {file / records[0]}" if records else ""
        raise BadFile(f"{file} is a folder; give a record in it{example}")
    if file.suffix in (".png", ".webp"):
        file = file.with_name(f"{file.name.split('.input')[0].removesuffix(file.suffix)}.json")
    return SavedPicture(file, Record.read(file))
