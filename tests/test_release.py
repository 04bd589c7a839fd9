"""The release script refuses what would be a mistake, and names the version everywhere."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phosphene import __version__

ROOT = Path(__file__).parent.parent
FILES = ("pyproject.toml", "src/phosphene/__init__.py", "CITATION.cff", "scripts/release")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a small repository with the files that a release changes."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n* Something.\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "All")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def refused(folder: Path, version: str) -> str:
    command = [sys.executable, folder / "scripts" / "release", version]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    return run.stderr


def test_a_tree_with_changes_is_not_released(clone: Path) -> None:
    (clone / "CITATION.cff").write_text("changed")
    assert "the tree has changes" in refused(clone, "9.0.0")


def test_what_is_no_version_is_refused(clone: Path) -> None:
    assert "'v9' is not a version" in refused(clone, "v9")


def test_a_version_without_a_place_in_the_changelog_is_refused(clone: Path) -> None:
    changelog = clone / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("Unreleased", "8.0.0"))
    git(clone, "commit", "--quiet", "--all", "--message", "Name another version")
    assert "the changelog begins with 8.0.0" in refused(clone, "9.0.0")


def test_a_version_that_is_tagged_is_refused(clone: Path) -> None:
    git(clone, "tag", "v9.0.0")
    assert "there is a tag v9.0.0 already" in refused(clone, "9.0.0")


def test_a_release_that_fails_gives_the_files_back(clone: Path) -> None:
    (clone / "CITATION.cff").write_text("cff-version: 1.2.0\n")
    git(clone, "commit", "--quiet", "--all", "--message", "Lose the version")
    assert "CITATION.cff has no version" in refused(clone, "9.0.0")
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "tag") == ""


def test_what_a_shell_adds_to_the_path_is_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    run = runpy.run_path(str(ROOT / "scripts" / "release"))["run"]
    told = run([sys.executable, "-c", "import os; print(os.environ.get('PYTHONPATH'))"])
    assert told == "None\n"


def test_the_version_is_the_same_everywhere() -> None:
    for name in FILES[:3]:
        assert __version__ in (ROOT / name).read_text(encoding="utf-8"), name
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.split("\n## ")[1].startswith((__version__, "Unreleased"))
