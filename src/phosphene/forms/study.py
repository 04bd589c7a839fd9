"""What any study finds of a network's units."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

from phosphene.forms.figures import Figures, Rows
from phosphene.forms.form import Entry, Form, Shown


def name_in(entry: Entry) -> str:
    """Return the name of a study, which is a file's name too."""
    name = entry.text()
    if not is_name(name):
        entry.wrong("is not the name of a study: letters, digits and dashes")
    return name


def is_name(text: str) -> bool:
    """Return whether a text can name a study."""
    return re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) is not None and len(text) <= 60


@dataclass(frozen=True, kw_only=True)
class StudyTable(Form):
    """A table with a row for each unit, and figures over all of them.

    `title` and `says` are the heading and the first sentence on a unit's page.
    """

    study: Annotated[str, name_in]
    title: Shown = ""
    says: Shown = ""
    subject: Shown
    subject_sha256: Shown = ""
    data: Shown = ""
    figures: Figures = field(default_factory=dict)
    units: Rows
