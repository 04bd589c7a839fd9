"""The notebooks run from their first cell to their last, and their pages show the same cells."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import conftest
import pytest
from test_docs import write_photographs

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "notebooks"))

BEFORE = """
import torch

torch.set_num_threads(1)
"""
DECLARED = """
library = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
"""For torchvision of CUDA beside torch without it, as `conftest` declares it for this process."""


def read(file: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return notebook


def code(notebook: dict[str, Any]) -> list[str]:
    cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    return ["".join(cell["source"]) for cell in cells]


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file: Path, tmp_path: Path) -> None:
    """Run all cells in an empty folder, which has photographs where the notebook reads them."""
    nbformat = pytest.importorskip("nbformat")
    if any('"photos"' in cell for cell in code(read(file))):
        write_photographs(tmp_path / "photos")
    notebook = nbformat.read(file, as_version=4)
    ran = SCRIPT["run"](notebook, tmp_path, BEFORE + DECLARED * bool(conftest._operators))
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]
    errors = [each for cell in cells for each in cell.outputs if each.output_type == "error"]
    assert not errors
    shown = [each for cell in cells for each in cell.outputs if SCRIPT["shown"](each)]
    assert any("image/png" in each.get("data", {}) for each in shown), "it shows pictures"
    assert len(shown) > 5


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    cells = [cell for cell in read(file)["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_page_of_a_notebook_shows_its_cells(file: Path) -> None:
    """Whoever changes a notebook runs scripts/notebooks."""
    text = file.with_suffix(".md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)\n```$", text, re.M | re.S)
    assert [each.strip() for each in shown] == [each.strip() for each in code(read(file))]
    pictures = re.findall(r"\]\(([\w-]+\.webp)\)", text)
    assert sorted(pictures) == sorted(each.name for each in FOLDER.glob(f"{file.stem}-*.webp"))
    assert pictures


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_links_of_a_notebook_resolve(file: Path) -> None:
    for page in (file.with_suffix(".md").read_text(encoding="utf-8"), json.dumps(read(file))):
        targets = re.findall(r"\]\(([^)#\s]+)", page)
        missing = [t for t in targets if "://" not in t and not (FOLDER / t).exists()]
        assert not missing, missing
