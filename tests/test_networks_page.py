"""The page of networks that are taken and refused: all its commands run and print what it says."""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from pathlib import Path

import pytest
from conftest import Run

DOCS = Path(__file__).parent.parent / "docs"
ROW = re.compile(
    r"^\| [^|]+ \| `phosphene (?P<command>[^`|]+)` \| ?(?:`(?P<line>[^`]+)`)?.*$", re.M
)
ROWS = list(ROW.finditer((DOCS / "networks.md").read_text(encoding="utf-8")))


def kind(row: re.Match[str]) -> str:
    return row["command"].split()[1].rpartition(":")[2]


@pytest.mark.parametrize("row", ROWS, ids=kind)
def test_a_command_of_the_page_ends_as_it_says(
    row: re.Match[str], phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells that its quantization moves elsewhere
        said = phosphene(*shlex.split(row["command"]))
    assert said.code == (2 if row["line"] else 0), said.err
    if row["line"]:
        *_, line = said.err.strip().splitlines()
        parts = map(re.escape, f"phosphene: {row['line']}".split(": …)"))
        assert re.fullmatch(r": .*\)".join(parts), line), line


def test_each_factory_has_a_row() -> None:
    tree = ast.parse((DOCS / "networks.py").read_text(encoding="utf-8"))
    functions = [each.name for each in tree.body if isinstance(each, ast.FunctionDef)]
    assert sorted(map(kind, ROWS)) == sorted(set(functions) - {"layers"})
