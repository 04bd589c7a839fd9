"""The files that the program writes and reads, each as one dataclass. Nothing here knows torch."""

from __future__ import annotations

import re
from pathlib import Path

from phosphene.forms.dissection import Dissection
from phosphene.forms.evaluation import Evaluation
from phosphene.forms.exemplars import Exemplars
from phosphene.forms.figures import Figure
from phosphene.forms.form import Entry, StudyForm, read_entry
from phosphene.forms.study import StudyTable

STUDIES: dict[str, type[StudyForm]] = {
    "exemplars": Exemplars,
    "dissection": Dissection,
    "evaluation": Evaluation,
}
"""The forms of studies that are more than a table, by the name that a file declares."""


def form_of(entry: Entry) -> type[StudyForm] | None:
    """Return the form that a file of a study declares; None where it is of no study.

    Version 0.1.0 declared nothing: its files are told by their names.
    """
    name = entry.file.name
    if isinstance(entry.value, dict) and "study" in entry.value:
        return STUDIES.get(entry["study"].text(), StudyTable)
    if name in ("exemplars.json", "dissection.json"):
        return STUDIES[entry.file.stem]
    return Evaluation if re.fullmatch(r"evaluation(-.*)?\.json", name) else None


def is_study(file: Path) -> bool:
    """Return whether a file is of a study, whatever else is in it."""
    return form_of(read_entry(file)) is not None


__all__ = [
    "Dissection",
    "Evaluation",
    "Exemplars",
    "Figure",
    "StudyForm",
    "StudyTable",
    "form_of",
    "is_study",
]
