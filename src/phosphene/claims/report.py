"""Results → one page that works from a file: a table of claims, then each with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from phosphene import __version__
from phosphene.atlas.pages import templates_of
from phosphene.claims import forest_plot
from phosphene.claims.claim import MIN_VALUES
from phosphene.claims.formatting import (
    SIGNS,
    duration,
    figure,
    formatted,
    is_figure,
    percent,
    undecided,
)
from phosphene.files import atomic_path, without_nan, write_json
from phosphene.texts import slug

if TYPE_CHECKING:
    from jinja2 import Environment


def ready() -> None:
    """Raise `Unavailable` where a report's package is missing, before hours of measuring."""
    forest_plot.matplotlib_figure()
    environment()


def write_report(results: Sequence[dict[str, Any]], out: Path) -> Path:
    """Write OUT/report.html, its drawings and OUT/claims.json, from results of some claims.

    Pictures are looked for in OUT/pictures. The same results give the same bytes.
    """
    results = [without_nan(result) for result in results]
    drawings = [_drawn(result, out / "figures") for result in results]
    claims = list(zip(results, drawings, strict=True))
    page = (
        environment()
        .get_template("report.html")
        .render(claims=claims, about=_about(results), version=__version__)
    )
    write_json(out / "claims.json", results)
    with atomic_path(out / "report.html") as scratch:
        scratch.write_text(page, encoding="utf-8")
    return out / "report.html"


def environment() -> Environment:
    """Return the template's environment, with the functions that it calls."""
    made = templates_of("phosphene.claims", "claims")
    for called in (formatted, percent, duration, figure, columns, others, address, undecided):
        made.filters[called.__name__] = called
    made.tests["figure"] = is_figure
    made.globals |= {"signs": SIGNS, "fewest": MIN_VALUES}
    return made


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all rows, each once, in the order in which they come."""
    return list(dict.fromkeys(key for row in rows for key in row))


def others(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of which nothing was expected."""
    expected = {each["number"] for each in result["expected"]}
    return {name: found for name, found in result["numbers"].items() if name not in expected}


def address(name: str) -> str:
    """Return a picture's address beside the report; it never leads out of its folder."""
    return "pictures/" + quote(Path(name).name)


def _drawn(result: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return a claim's drawing for light and for dark pages, by address, and its text."""
    name, expected = slug(result["claim"]) or "claim", result["expected"]
    files = {"light": f"{name}.svg", "dark": f"{name}-dark.svg"}
    for page, file in files.items():
        forest_plot.draw(expected, folder / file, dark=page == "dark")
    words = "; ".join(
        f"{each['number']} {formatted(each['found'])}, {each['verdict']}" for each in expected
    )
    return {**{page: f"figures/{file}" for page, file in files.items()}, "words": words}


def _about(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report's head: of which networks, with which seeds, and whether it was quick."""
    identities = [result["identity"] for result in results]
    found = {
        part: list(dict.fromkeys(formatted(each.get(part)) for each in identities))
        for part in ("subject", "seed")
    }
    return {**found, "quick": any(each.get("quick") for each in identities)}
