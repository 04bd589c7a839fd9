"""What a page of the atlas shows, as a file beside it: PAGE.json for PAGE.html."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from phosphene.forms.form import Form, Shown


@dataclass(frozen=True, kw_only=True)
class AtlasPage(Form):
    """Hold the content of a page.

    `kind` is front, layer, map, unit or combinations. A page of one network names it, and so on
    down to the layer. Paths are relative to the file. `units` has one entry on a unit's page, and
    short entries on the page and the map of a layer. `layers` is of the front page.
    """

    kind: str
    atlas: Shown
    page: str
    subject: Shown = ""
    subject_sha256: Shown = ""
    layer: Shown = ""
    units: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    combinations: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
