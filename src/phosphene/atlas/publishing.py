"""A site in a branch of a git repository, from which GitHub Pages and others serve it.

Nothing of the user's is touched: not the work tree, not the index, not a local branch. Nothing is
forced on the remote.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from phosphene.atlas.site import LIST, MARK
from phosphene.errors import BadRequest, Unavailable
from phosphene.texts import clean

MESSAGE = "Publish the unit atlas"
"""The subject of each commit."""


@dataclass(frozen=True)
class Destination:
    """Name a branch of a remote and the repository that knows it; hold what is on the branch."""

    repository: Path
    """Hold the path of the folder that git keeps the repository in."""
    remote: str
    branch: str
    tip: str = ""
    """The commit that the branch is at, or ""."""
    older: frozenset[str] = frozenset()
    """The files of an older site."""
    others: tuple[str, ...] = ()
    """The files that no atlas wrote."""

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"

    def __str__(self) -> str:
        return f"{self.branch} of {self.remote}"


@dataclass(frozen=True)
class Published:
    """Tell what became of a branch: its commit, its files of the site, and its other files."""

    commit: str
    files: int
    others: tuple[str, ...]
    changed: bool
    address: str


def git(*words: str, environment: Mapping[str, str] | None = None, given: str = "") -> str:
    """Return what git prints; `BadRequest` has what it complains of on one line."""
    try:
        done = subprocess.run(
            ["git", "-c", "core.autocrlf=false", "-c", "core.safecrlf=false", *words],
            input=given.encode(),
            capture_output=True,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            check=False,
        )
    except FileNotFoundError:
        raise Unavailable("git is not installed; --publish commits and pushes with it") from None
    if done.returncode:
        raise BadRequest(f"git {words[0]}: {_complaint(done.stderr)}")
    return done.stdout.decode(errors="surrogateescape")


def _complaint(errors: bytes) -> str:
    """Return the last line that git complains in, without what opens a door."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if re.match("fatal:|error:| ! ", line)] or lines or ["failed"]
    return clean(re.sub(r"//[^/@\s]*@", "//", told[0].strip().removeprefix("fatal: ")))[:300]


def destination(branch: str, remote: str = "") -> Destination:
    """Return where a site of this folder's repository is to go, after a look at all it needs.

    Without a name, the remote is `origin`, or the only one.
    """
    repository = _repository()
    try:
        git("check-ref-format", "--branch", branch)
    except BadRequest:
        raise BadRequest(f"{clean(branch)!r} is no name of a branch; try gh-pages") from None
    found = Destination(repository, _remote(remote), branch)
    for whom in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
        try:
            git("var", whom)
        except BadRequest:
            raise BadRequest(
                "git does not know who commits; git config user.name NAME, and user.email ADDRESS"
            ) from None
    return _looked_at(found)


def _looked_at(to: Destination) -> Destination:
    """Bring the remote's branch here, and return the destination with what lies in it."""
    if not (tip := _tip(to)):
        return to
    git(
        "fetch",
        "--quiet",
        "--no-tags",
        to.remote,
        f"+{to.ref}:refs/remotes/{to.remote}/{to.branch}",
    )
    there = {*git("ls-tree", "-r", "-z", "--name-only", tip).split("\0")[:-1]}
    older: set[str] = set()
    if LIST.as_posix() in there:
        older = {LIST.as_posix(), *git("show", f"{tip}:{LIST.as_posix()}").split("\n")}
    found = replace(
        to, tip=tip, older=frozenset(older & there), others=tuple(sorted(there - older))
    )
    _refuse_losses(found, {"index.html"})
    if found.others and git("branch", "--show-current").strip() == to.branch:
        raise BadRequest(f"{to.branch} is the branch that you work on; give one of its own")
    return found


def _refuse_losses(to: Destination, wanted: set[str]) -> None:
    """Refuse to write over what no atlas wrote."""
    if lost := [name for name in to.others if name in wanted]:
        raise BadRequest(
            f"{to} holds {clean(lost[0])}, which no atlas wrote; give a branch of its own"
        )


def _repository() -> Path:
    try:
        return Path(git("rev-parse", "--absolute-git-dir").strip())
    except BadRequest as error:
        if "not a git repository" not in str(error):
            raise
        raise BadRequest(
            f"{Path.cwd()} lies in no git repository; go into one that has a remote, "
            "or make one with git clone"
        ) from None


def _remote(name: str) -> str:
    known = git("remote").split()
    if not known:
        raise BadRequest("the repository has no remote; git remote add origin ADDRESS")
    if name in known:
        return name
    if not name and ("origin" in known or len(known) == 1):
        return "origin" if "origin" in known else known[0]
    what = f"no remote {clean(name)!r}" if name else "several remotes and none is called origin"
    raise BadRequest(f"the repository has {what}; --remote takes {', '.join(known)}")


def _tip(to: Destination) -> str:
    """Return the commit that the remote's branch is at, or ""."""
    try:
        found = git("ls-remote", "--heads", to.remote, to.ref)
    except BadRequest as error:
        raise Unavailable(f"the remote {to.remote} cannot be read: {error}") from None
    return found.split()[0] if found.strip() else ""


def publish(site: Path, to: Destination) -> Published:
    """Commit a site's files to the remote's branch.

    An older site's files go. What no atlas wrote stays, and is told. It is refused where the new
    site would write over it.
    """
    if not (site / MARK).is_file() or not (site / LIST).is_file():
        raise BadRequest(f"{site} is not an atlas; make one with phosphene atlas RUN --out {site}")
    wanted = [LIST.as_posix(), *(site / LIST).read_text(encoding="utf-8").split("\n")]
    _refuse_losses(to, {*wanted})
    tree = _tree(site, to, wanted)
    changed = not to.tip or git("rev-parse", f"{to.tip}^{{tree}}").strip() != tree
    commit = _pushed(to, tree) if changed else to.tip
    return Published(commit, len(wanted), to.others, changed, _address(to))


def _tree(site: Path, to: Destination, wanted: list[str]) -> str:
    """Return the tree of a site's files and of those that stay, made in an index of its own."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"GIT_INDEX_FILE": str(Path(folder, "index")), "GIT_DIR": str(to.repository)}
        own["GIT_WORK_TREE"] = str(site.resolve())
        if to.tip:
            git("read-tree", to.tip, environment=own)
        for words, names in (("--force-remove", to.older), ("--add", wanted)):
            lines = "".join(f"{name}\0" for name in sorted(names))
            git("update-index", words, "-z", "--stdin", environment=own, given=lines)
        return git("write-tree", environment=own).strip()


def _pushed(to: Destination, tree: str) -> str:
    parents = ["-p", to.tip] if to.tip else []
    commit = git("commit-tree", tree, *parents, "-m", MESSAGE).strip()
    try:
        git("push", "--quiet", to.remote, f"{commit}:{to.ref}")
    except BadRequest as error:
        again = "rejected" in str(error) or "fetch first" in str(error)
        why = "it changed meanwhile, so run the command again" if again else str(error)
        raise Unavailable(f"{to} was not written, and nothing has changed there: {why}") from None
    return commit


def _address(to: Destination) -> str:
    """Return where GitHub serves the pages of a branch, or ""."""
    url = git("remote", "get-url", to.remote).strip()
    found = re.search(r"github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?$", url)
    if not found:
        return ""
    owner, name = found[1].lower(), found[2]
    return f"https://{owner}.github.io/" + (
        "" if name.lower() == f"{owner}.github.io" else f"{name}/"
    )
