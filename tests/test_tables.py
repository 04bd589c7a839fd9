"""Tables of measured figures are written from JSON, and say how and when they were measured."""

from __future__ import annotations

import json
import re
import runpy
import sys
from datetime import date
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))
TABLES = runpy.run_path(str(ROOT / "scripts" / "tables"))
FIGURES = json.loads((ROOT / "docs" / "figures.json").read_text(encoding="utf-8"))
SETTINGS = ("| line | value |",)
"""Heads of tables on pages of results that hold no measured figures."""


def run(*arguments: object) -> int:
    sys.argv = ["tables", *map(str, arguments)]
    return TABLES["main"]()


def results() -> list[str]:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    pages = next(entry["Results"] for entry in nav if "Results" in entry)
    return [name for page in pages for name in page.values()]


@pytest.fixture(autouse=True)
def arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.parametrize("page", TABLES["PAGES"], ids=lambda page: page.name)
def test_a_page_has_the_figures_that_were_kept(page: Path) -> None:
    assert run("--check", page) == 0, "run scripts/tables"


def test_every_table_says_how_and_when_it_was_measured() -> None:
    shown = {
        name
        for page in TABLES["PAGES"]
        for _, name, _ in TABLES["MARKED"].findall(page.read_text(encoding="utf-8"))
    }
    assert shown == FIGURES.keys()
    for name, known in FIGURES.items():
        assert "command" in known or "note" in known, name
        assert date.fromisoformat(known["date"]) >= date(2026, 11, 23), name
        assert re.fullmatch("[0-9a-f]{7}", known["commit"]), name


@pytest.mark.parametrize("page", results())
def test_no_figure_of_a_page_of_results_is_typed_by_hand(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", TABLES["MARKED"].sub("", text), re.M):
        typed = re.findall(r"\| [+−-]?\d", table)
        assert not typed or table.startswith(SETTINGS), table


def test_a_figure_that_was_changed_by_hand_is_found_and_written_again(tmp_path: Path) -> None:
    page = tmp_path / "climbs-measured.md"
    text = (ROOT / "docs" / page.name).read_text(encoding="utf-8")
    page.write_text(text.replace("| 18.9 |", "| 19.9 |"), encoding="utf-8")
    assert run("--check", page) == 1
    assert run(page) == 0
    assert page.read_text(encoding="utf-8") == text
