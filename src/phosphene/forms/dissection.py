"""Which objects channels detect, as `phosphene dissect` writes it."""

from __future__ import annotations

from dataclasses import dataclass

from phosphene.forms.figures import UnitName
from phosphene.forms.form import Share, Shown, StudyForm


@dataclass(frozen=True, kw_only=True)
class UnitOverlap:
    """The object that a channel's answer covers best, "" where it covers none, and others."""

    unit: UnitName
    label: Shown = ""
    object: Shown = ""
    iou: Share = 0.0
    others: tuple[tuple[Shown, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dissection(StudyForm):
    """The content of `dissection.json`.

    A channel answers where it exceeds all but the share `quantile` of its activations. It is called
    the detector of an object whose overlap (intersection over union) is above `detector_above`.
    """

    study: str = "dissection"
    layer: Shown = ""
    data: Shown
    licence: Shown = ""
    quantile: Share
    detector_above: Share
    photographs: int
    units: tuple[UnitOverlap, ...]
