"""What any study finds of a network's units."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from phosphene.forms.figures import Figures, Rows
from phosphene.forms.form import Shown, StudyForm


@dataclass(frozen=True, kw_only=True)
class StudyTable(StudyForm):
    """A table with a row for each unit, and figures over all of them.

    `title` and `says` are the heading and the first sentence on a unit's page.
    """

    title: Shown = ""
    says: Shown = ""
    data: Shown = ""
    figures: Figures = field(default_factory=dict)
    units: Rows

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.study) or len(self.study) > 60:
            raise ValueError(f"has a study {self.study[:60]!r}; its name is of a-z, 0-9 and dashes")
