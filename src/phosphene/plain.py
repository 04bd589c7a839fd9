"""The console on which all texts appear as they are."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from phosphene.texts import clean


class Plain(Console):
    """Print each text as it is: names of units, files and classes are no markup and no emoji."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text for a line or for a cell, without the characters that act."""
        return super().render_str(clean(text), **options)
