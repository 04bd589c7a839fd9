"""A claim's expectations as one drawing: for each a point, an interval, and its limit."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phosphene.claims.formatting import formatted
from phosphene.errors import Unavailable
from phosphene.files import atomic_path

Expected = Mapping[str, Any]
"""An expectation with what was found of it, as in `Result.as_json()["expected"]`."""

INK, PAPER = ("#1d1b18", "#ece7dd"), ("#fbfaf6", "#141312")
"""On light and on dark pages."""
COLOURS = {
    "holds": ("#009E73", "#009E73"),
    "fails": ("#D55E00", "#D55E00"),
    "open": ("#0072B2", "#56B4E9"),
}
"""Of verdicts (Okabe and Ito 2008); their signs differ too."""
WIDTH, ROW, FOOT = 7.2, 0.5, 0.35
"""Inches: the drawing, an expectation in it, the axis below."""
APART = 20.0
"""Where one interval reaches so many times further than another, each has an axis of its own."""


def draw(expected: Sequence[Expected], file: Path, dark: bool = False) -> None:
    """Write a drawing as SVG; the same numbers give the same bytes.

    `Unavailable` without matplotlib.
    """
    style, new_figure = matplotlib_figure()
    colours = dict.fromkeys(("text.color", "axes.edgecolor", "xtick.color"), INK[dark])
    fixed = {
        "svg.hashsalt": "phosphene",
        "svg.fonttype": "path",
        "text.parse_math": False,
        "font.size": 9,
    }
    together = shared_axis(expected)
    foot = FOOT if together else 0.9 * ROW
    height = (ROW if together else 2 * ROW) * len(expected) + FOOT
    edges = {
        "left": 0.3,
        "right": 0.68,
        "top": 1,
        "bottom": foot / height,
        "hspace": 0 if together else 1,
    }
    with style.context(["default", {**colours, **fixed}]), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a letter that the font lacks is a box; the page has the text
        figure = new_figure((WIDTH, height), facecolor="none")
        rows = figure.subplots(len(expected), sharex=together, squeeze=False, gridspec_kw=edges)[
            :, 0
        ]
        for axis, each in zip(rows, expected, strict=True):
            _row(axis, each, dark)
        for axis in rows[:-1] if together else ():
            axis.tick_params(bottom=False, labelbottom=False)
            axis.spines["bottom"].set_visible(False)
        with atomic_path(file) as scratch:
            figure.savefig(scratch, format="svg", metadata={"Date": None})


def matplotlib_figure() -> tuple[Any, Any]:
    """Return matplotlib's styles and its figure, which needs no window.

    `Unavailable` where it is not installed.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError:
        raise Unavailable("matplotlib is not installed; pip install 'phosphene[claims]'") from None
    return style, Figure


def _row(axis: Any, each: Expected, dark: bool) -> None:
    """Draw one expectation: its name on the left, what was found on the right."""
    verdict, least = each["verdict"], each["least"]
    value, low, high = (each["found"][part] for part in ("value", "low", "high"))
    colour, text = (
        COLOURS[verdict][dark],
        formatted(each["found"]) if value is not None else "not measured",
    )
    axis.set(facecolor="none", ylim=(-1, 1), yticks=[])
    axis.margins(x=0.08)
    axis.locator_params(axis="x", nbins=5)  # so that no two numbers touch
    axis.spines[["top", "left", "right"]].set_visible(False)
    axis.axvline(least, color=INK[dark], linewidth=1, linestyle=(0, (3, 2)), zorder=0)
    if None not in (value, low, high):
        filled = PAPER[dark] if verdict == "open" else colour
        axis.plot([low, high], [0, 0], color=colour, linewidth=2, solid_capstyle="butt")
        marker = {
            "marker": "X" if verdict == "fails" else "o",
            "markersize": 8,
            "markerfacecolor": filled,
        }
        axis.plot([value], [0], color=colour, markeredgewidth=1.5, **marker)
    name = textwrap.fill(each["number"], 28, max_lines=2, placeholder=" …")
    beside = {"transform": axis.transAxes, "va": "center", "linespacing": 1.4}
    axis.text(-0.04, 0.5, name, ha="right", **beside)
    axis.text(1.04, 0.5, f"{text}\n{verdict}", ha="left", **beside)


def shared_axis(expected: Sequence[Expected]) -> bool:
    """Return whether all have the same limit and reach about as far from it: one axis serves."""
    reach = [
        max(abs(each["found"][end] - each["least"]) for end in ("low", "high"))
        for each in expected
        if None not in (each["found"]["low"], each["found"]["high"])
    ]
    same = len({each["least"] for each in expected}) == 1
    return same and (not reach or max(reach) <= APART * min(reach))
