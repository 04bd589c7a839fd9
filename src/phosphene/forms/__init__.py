"""The files that the program writes and reads, each as one dataclass. Nothing here knows torch."""

from __future__ import annotations

import re

from phosphene.forms.dissection import Dissection
from phosphene.forms.evaluation import Evaluation
from phosphene.forms.exemplars import Exemplars
from phosphene.forms.figures import Figure
from phosphene.forms.form import Entry, Form, StudyForm
from phosphene.forms.page import AtlasPage
from phosphene.forms.record import Record, asked
from phosphene.forms.study import StudyTable

STUDIES: dict[str, type[StudyForm]] = {
    "exemplars": Exemplars,
    "dissection": Dissection,
    "evaluation": Evaluation,
}
"""The forms of studies that are more than a table, by the name that a file declares."""


def form_of(entry: Entry) -> type[Form]:
    """Return the form that a file of a study declares; a file that declares none is a record.

    Version 0.1.0 declared nothing: its files are told by their names.
    """
    name = entry.file.name
    if isinstance(entry.value, dict) and "study" in entry.value:
        return STUDIES.get(entry["study"].text(), StudyTable)
    if name in ("exemplars.json", "dissection.json"):
        return STUDIES[entry.file.stem]
    return Evaluation if re.fullmatch(r"evaluation(-.*)?\.json", name) else Record


__all__ = [
    "AtlasPage",
    "Dissection",
    "Evaluation",
    "Exemplars",
    "Figure",
    "Record",
    "StudyForm",
    "StudyTable",
    "asked",
    "form_of",
]
