"""What was measured of a folder's pictures, as `phosphene evaluate` writes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from phosphene.forms.figures import Figures, Rows
from phosphene.forms.form import Shown, StudyForm


@dataclass(frozen=True, kw_only=True)
class Evaluation(StudyForm):
    """What was measured of one layer's pictures: figures over its units, and a row for each.

    `judge` is the network that looked at them, `data` names the photographs beside them.
    """

    study: str = "evaluation"
    layer: Shown = ""
    judge: Shown
    data: Shown = ""
    figures: Figures = field(default_factory=dict)
    units: Rows
