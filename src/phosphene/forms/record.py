"""The record of a picture: JSON that says how it came to be and can make it again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from phosphene.errors import BadFile
from phosphene.forms.form import Entry, Form

MADE_IN = ("batch", "place", "threads")
"""Parts of a request that decide the last digits of a picture, and are not what is asked for."""


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a picture's request asks for, without the batch that it climbed in.

    A batch of another size, and another number of threads, make the same picture within rounding.
    A set of pictures that were moved apart stays: each of them depends on all.
    """
    own = {name: value for name, value in request.items() if name not in MADE_IN}
    if not request["climb"].get("share"):
        own |= {"members": [request["members"][request["member"]]], "member": 0}
    return own


@dataclass(frozen=True, kw_only=True)
class Record(Form):
    """Everything that `phosphene synthesize --record FILE` needs, and what came out.

    `request` holds the arguments of the call for this one picture, with the size of the batch that
    it climbed in and its place there. Earlier records, and those of a set of pictures that were
    moved apart, hold the whole batch. `weights` the sha256 of each
    file that took part; `score` is the target's activation on the picture, `start_score` on the
    start; `status` is "climbed", "no higher than its start", "dead" or "stopped: …"; `image_sha256`
    is of the picture's 8-bit pixels. `kept_step` is the step of the curve that the picture shows,
    as many as there are steps where that is the last code; `last_score` is the activation on the
    last code's picture. `stimulus` holds the picture's norm, contrast and luminance, and what it
    missed of those that were asked for. `set` tells of pictures that were moved apart how many they
    are, the best score of their climbs and how diverse they are. Version 0.1.0 kept the last one
    and told neither. It wrote format 1, in which a climb has no parts. Formats 1 and 2 told the
    negative of an activation that is to fall.

    `input` is the file of what the subject reads of the picture, in 8 bits. It is the picture
    itself where that has the subject's size and channels. `input_score` is the activation on that
    file. `array` is a file of float32 numbers, as the network reads them after normalisation; they
    give `score`. Both are "" where there is no such file, as in earlier records.
    """

    format: int = 3
    reads: ClassVar[tuple[int, ...]] = (1, 2, 3)
    max_bytes: ClassVar[int] = 16 << 20
    target: str
    label: str
    request: dict[str, Any]
    weights: dict[str, str]
    score: float
    start_score: float
    curve: list[float]
    status: str
    image: str
    image_sha256: str
    command: str
    versions: dict[str, str]
    kept_step: int | None = None
    last_score: float | None = None
    input: str = ""
    input_sha256: str = ""
    input_score: float | None = None
    array: str = ""
    array_sha256: str = ""
    stimulus: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: Entry) -> Record:
        """Return the record that a file's content is; a field that is unknown is refused."""
        needed = {"target", "request", "weights", "image_sha256", "format"}
        if not isinstance(entry.value, dict) or not needed <= entry.value.keys():
            raise BadFile(f"{entry.file} is JSON but not phosphene's record")
        record = super().of(entry)
        if unknown := entry.value.keys() - {each.name for each in fields(cls)}:
            raise BadFile(f"{entry.file} has unknown fields: {', '.join(sorted(unknown))}")
        for name in (record.image, record.input, record.array):
            if Path(name).name != name or not record.image:
                raise BadFile(f"{entry.file}: its picture {name!r} does not lie beside it")
        return record._upright() if record.format < 3 else record

    def _upright(self) -> Record:
        """Return the record of an older format with the scores of a target that is to fall turned.

        Formats 1 and 2 told the negative of its activation.
        """
        try:
            target, _ = self.request["members"][self.request["member"]]
            least = all(weight < 0 for weight, _ in target["terms"])
        except (KeyError, TypeError, ValueError, IndexError):
            return self  # whoever needs the request says what is wrong
        if not least:
            return self
        names = ("score", "start_score", "last_score", "input_score")
        told = {name: getattr(self, name) for name in names}
        turned: dict[str, Any] = {n: None if each is None else -each for n, each in told.items()}
        return replace(self, **turned, curve=[-value for value in self.curve])
