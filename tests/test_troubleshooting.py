"""Each error line that the page on troubleshooting quotes is still in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def quoted() -> list[str]:
    """Return the first column of the tables of lines."""
    tables = re.findall(r"^\| line \| .*\n\| --- .*\n((?:\|.*\n)+)", PAGE, re.M)
    return [line for table in tables for line in re.findall(r"^\| `([^`]+)` \|", table, re.M)]


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a file that are no docstrings, with … for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
            yield "".join(map(str, parts))
        elif not isinstance(node, ast.Expr):
            for each in ast.iter_child_nodes(node):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def test_every_line_of_the_page_is_in_the_source() -> None:
    files = (ROOT / "src").rglob("*.py")
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    source = "\n".join(text for tree in trees for text in texts(tree))
    lines = quoted()
    assert len(lines) >= 80
    assert len({*lines}) == len(lines)
    missing = [
        line
        for line in lines
        if not re.search(".*".join(re.escape(part.strip()) for part in line.split("…")), source)
    ]
    assert not missing, "\n".join(missing)
