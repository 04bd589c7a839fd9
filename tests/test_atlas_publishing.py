"""The atlas in a branch of a remote: only ever a bare repository on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from atlas_runs import lone, write_picture
from conftest import Run

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="no git here")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git know no settings and no repository but those of the test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for whose in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{whose}_NAME", "A. Uthor")
        monkeypatch.setenv(f"GIT_{whose}_EMAIL", "a@example.org")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a bare repository with work that is not finished, and two runs to show."""
    git(tmp_path, "init", "--quiet", "--bare", "-b", "main", "bare.git")
    git(tmp_path, "clone", "--quiet", "bare.git", "work")
    work = tmp_path / "work"
    (work / "paper.tex").write_text("first")
    (work / ".gitignore").write_text("*.webp\nsite\n")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "Begin")
    git(work, "push", "--quiet", "origin", "HEAD:main")
    (work / "paper.tex").write_text("second")
    git(work, "add", "paper.tex")
    (work / "paper.tex").write_text("third")
    (work / "notes").write_text("mine")
    write_picture(tmp_path / "one", "a", lone("old:0"))
    write_picture(tmp_path / "two", "a", lone("new:0"))
    monkeypatch.chdir(work)
    return work


def state(work: Path) -> tuple[str, ...]:
    """What a user would miss: what git says of the work tree, the index, and local branches."""
    asked = ("status --porcelain", "diff", "diff --cached", "branch -v", "stash list")
    return tuple(git(work, *words.split()) for words in asked)


def in_branch(work: Path, branch: str = "gh-pages") -> set[str]:
    bare = work.parent / "bare.git"
    return {*git(bare, "ls-tree", "-r", "--name-only", branch).splitlines()}


def test_a_branch_holds_the_site_and_the_work_stays_as_it_was(phosphene: Run, work: Path) -> None:
    before = state(work)
    site = work.parent / "site"
    said = phosphene("atlas", "../one", "--out", site, "--publish", "gh-pages").out
    files = {file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()}
    assert in_branch(work) == files
    assert f"gh-pages of origin: {len(files)} files, commit " in said
    bare = work.parent / "bare.git"
    shown = subprocess.check_output(["git", "show", "gh-pages:tiny-objects/old/0-0.webp"], cwd=bare)
    assert shown == (site / "tiny-objects" / "old" / "0-0.webp").read_bytes()
    first = git(bare, "rev-parse", "gh-pages")
    again = phosphene("atlas", "--out", site, "--publish", "gh-pages").out
    assert again == "gh-pages of origin: nothing has changed\n"
    assert git(bare, "rev-parse", "gh-pages") == first
    phosphene("atlas", "../two", "--out", site, "--publish", "gh-pages")
    names = in_branch(work)
    assert "tiny-objects/new/0.html" in names
    assert "tiny-objects/old/0.html" not in names
    assert git(bare, "rev-parse", "gh-pages~1") == first, "history is kept"
    assert state(work) == before
    assert git(bare, "rev-parse", "main") == git(work, "rev-parse", "HEAD")


def put(work: Path, branch: str, name: str) -> None:
    """Commit a file to a branch of the bare repository, as somebody else would."""
    other = work.parent / f"other-{branch}-{name.replace('/', '-')}"
    git(work.parent, "clone", "--quiet", "bare.git", str(other))
    there = f"origin/{branch}" in git(other, "branch", "--remotes").split()
    git(other, "checkout", "--quiet", *(() if there else ("--orphan",)), branch)
    if not there:
        git(other, "rm", "--quiet", "-rf", ".")
    (other / name).write_text("theirs")
    git(other, "add", name)
    git(other, "commit", "--quiet", "-m", "Other")
    git(other, "push", "--quiet", "origin", f"HEAD:{branch}")


def test_what_no_atlas_wrote_is_kept_and_told_or_refused(phosphene: Run, work: Path) -> None:
    put(work, "gh-pages", "CNAME")
    words = ("atlas", "../one", "--out", "../site", "--publish")
    assert phosphene(*words, "gh-pages").out.endswith("kept there: CNAME\n")
    phosphene(*words, "gh-pages")
    assert {"CNAME", "index.html"} < in_branch(work)
    put(work, "docs", "index.html")
    line = phosphene(*words, "docs").refused()
    assert "docs of origin holds index.html, which no atlas wrote; give a branch of its" in line
    assert in_branch(work, "docs") == {"index.html"}
    line = phosphene(*words, "main").refused()
    assert "main is the branch that you work on" in line
    assert in_branch(work, "main") == {"paper.tex", ".gitignore"}


def test_a_branch_that_changed_meanwhile_is_not_overwritten(
    work: Path,
) -> None:
    from phosphene.atlas import build, destination, publish
    from phosphene.errors import Unavailable

    build([Path("../one")], Path("../site"))
    put(work, "gh-pages", "CNAME")
    to = destination("gh-pages")
    put(work, "gh-pages", "later")
    with pytest.raises(Unavailable, match=r"gh-pages of origin was not written.* run the command"):
        publish(Path("../site"), to)
    assert in_branch(work) == {"CNAME", "later"}


def refused(phosphene: Run, *words: str) -> str:
    return phosphene("atlas", "../one", "--out", "../site", "--publish", *words).refused()


def test_what_is_missing_is_one_line_before_any_work(
    phosphene: Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "'-x' is no name of a branch" in refused(phosphene, "-x")
    line = refused(phosphene, "gh-pages", "--remote", "upstream")
    assert "no remote 'upstream'; --remote takes origin" in line
    git(work, "remote", "rename", "origin", "mine")
    git(work, "remote", "add", "theirs", "https://user:secret@example.invalid/x.git")
    assert "several remotes" in refused(phosphene, "gh-pages")
    line = refused(phosphene, "gh-pages", "--remote", "theirs")
    assert "the remote theirs cannot be read" in line
    assert "secret" not in line
    git(work, "remote", "remove", "theirs")
    shutil.move("../bare.git", "../away.git")
    assert "the remote mine cannot be read" in refused(phosphene, "gh-pages")
    git(work, "remote", "remove", "mine")
    assert "has no remote; git remote add" in refused(phosphene, "gh-pages")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{name}_NAME")
        monkeypatch.delenv(f"GIT_{name}_EMAIL")
    git(work, "remote", "add", "origin", "../away.git")
    git(work, "config", "user.useConfigOnly", "true")
    assert "git does not know who commits" in refused(phosphene, "gh-pages")
    monkeypatch.chdir("..")
    line = phosphene("atlas", "one", "--out", "site", "--publish", "gh-pages").refused()
    assert "lies in no git repository" in line
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    line = phosphene("atlas", "one", "--out", "site", "--publish", "gh-pages").refused()
    assert "git is not installed" in line
    assert not Path("site").exists()
    line = phosphene("atlas", "one", "--out", "site", "--remote", "origin").refused()
    assert "--publish gh-pages pushes them" in line


def test_only_an_atlas_is_published(phosphene: Run, work: Path) -> None:
    line = phosphene("atlas", "--out", work, "--publish", "gh-pages").refused()
    assert "is not an atlas" in line


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("git@github.com:Owner/name.git", "https://owner.github.io/name/"),
        ("https://github.com/owner/owner.github.io", "https://owner.github.io/"),
        ("../bare.git", ""),
    ],
)
def test_the_address_of_the_pages_is_told(work: Path, url: str, address: str) -> None:
    from phosphene.atlas.publishing import Destination, _address

    git(work, "remote", "set-url", "origin", url)
    assert _address(Destination(work / ".git", "origin", "gh-pages")) == address
