"""The site builds without a warning, every link of it leads somewhere, and no page is left out."""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import phosphene
from phosphene.forms import Record
from phosphene.training.recipes import RECIPES

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "scripts"))
SITE = runpy.run_path(str(ROOT / "scripts" / "site"))
RECIPE_KEYS = importlib.import_module("_pages.recipe_keys")
KEYS = RECIPE_KEYS.KEYS


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a site that was built with warnings as errors."""
    if not find_spec("zensical"):
        pytest.skip("the extra docs is not installed, or Python is older than 3.11.5")
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, ROOT / "scripts" / "site", "--build", "--out", out]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return out / "site"


def anchors(page: Path) -> set[str]:
    return set(SITE["Page"](page).anchors)


def test_the_site_has_every_public_name(site: Path) -> None:
    missing = {f"phosphene.{name}" for name in phosphene.__all__} - anchors(site / "python.html")
    assert not missing, missing


def test_the_site_has_every_name_of_the_modules_that_it_documents(site: Path) -> None:
    for page in ("python-parts", "python-blocks"):
        found = anchors(site / f"{page}.html")
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for module in re.findall(r"^::: (\S+)\n(?! +options:)", text, re.M):
            names = getattr(importlib.import_module(module), "__all__", [])
            missing = {f"{module}.{name}" for name in names} - found
            assert module in found, module
            assert not missing, f"give each a docstring: {missing}"


def test_every_page_is_in_the_navigation() -> None:
    """Whoever adds a page says in zensical.toml what it is for."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    named = set(re.findall(r"[\w-]+\.md", str(nav)))
    written = {name for _, name in SITE["sources"]() if name.endswith(".md")}
    assert named == written | {*SITE["GENERATED"]}


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        ('<a href="b.html#here">', False),
        ('<a href="b.html#there">', True),
        ('<a href="c.html">', True),
        ('<img src="picture.webp">', True),
        ('<a href="https://example.org">', False),
        ('<script src="https://example.org/a.js">', True),
        ('<link rel="stylesheet" href="//example.org/a.css">', True),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, tag: str, found: bool) -> None:
    (tmp_path / "a.html").write_text(tag, encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="here">', encoding="utf-8")
    assert bool(list(SITE["broken"](tmp_path))) == found


def test_the_site_says_what_it_has_to_a_program(site: Path) -> None:
    """Each line of llms.txt names a page in Markdown that is there."""
    text = (site / "llms.txt").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\): \S", text)
    assert len(links) > 20
    assert all((site / link).exists() for link in links)
    assert ".ipynb" not in text


def test_each_metric_is_defined_in_full() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    metrics = [each for each in page.split("\n## ")[1:] if "| definition |" in each]
    assert len(metrics) == page.count("\n| | |\n") > 10
    for metric in metrics:
        rows = re.findall(r"^\| (\w+) \|", metric, re.M)
        wanted = ["key", "definition", "range", "better", "interval", "source"]
        assert [row.removesuffix("s") for row in rows][:6] == wanted, metric.split("\n")[0]


def tables_of(recipe: dict[str, Any]) -> Iterator[tuple[str, set[str]]]:
    """Yield the tables of a recipe with their keys, that at the top as ""."""
    inner = {key: each for key, each in recipe.items() if isinstance(each, dict)}
    yield "", (recipe.keys() - inner.keys()) | ({"architecture"} & recipe.keys())
    for key, each in inner.items():
        if key != "architecture":
            yield key, set(each)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_key_of_a_recipe_is_explained(file: Path) -> None:
    recipe = tomllib.loads(file.read_text(encoding="utf-8"))
    for table, keys in tables_of(recipe):
        assert keys <= KEYS[recipe["kind"]][table].keys(), table


def test_the_explained_keys_of_recipes_are_those_that_training_reads() -> None:
    """Whoever reads a new key of a recipe explains it in scripts/_pages/recipe_keys.py."""
    files = [*(ROOT / "src" / "phosphene" / "training").glob("*.py")]
    files.append(ROOT / "scripts" / "train-enlarger")
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    place = r"(?:stage|recipe|settings)(?:\[\"\w+\"\])*(?:\[|\.get\()\"(\w+)\""
    read = set(re.findall(place, source))
    explained = {
        key for tables in KEYS.values() for table, keys in tables.items() for key in {*keys, table}
    }
    assert len(read) > 50
    assert read <= explained | RECIPE_KEYS.ARGUMENTS.keys()
    assert all(key in source for key in explained)


def test_the_page_of_formats_has_every_key_of_a_record() -> None:
    page = SITE["GENERATED"]["formats.md"]()
    assert all(f"| `{each.name}` |" in page for each in fields(Record) if each.name != "format")
    assert "[" not in re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`]*`|\*\*", "", page.split("## JSON")[1])


def test_an_equation_is_mathml(tmp_path: Path) -> None:
    pytest.importorskip("latex2mathml")
    (tmp_path / "pages").mkdir()
    SITE["lay_out"](tmp_path / "pages")
    page = (tmp_path / "pages" / "method.md").read_text(encoding="utf-8")
    assert page.count('display="block"') == 4
    assert "```math" not in page
    assert "\\operatorname" not in page
