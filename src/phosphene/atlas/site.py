"""A site on disk: built beside its place and moved there when it is whole, and shown in a browser."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from phosphene.atlas.cards import Atlas
from phosphene.atlas.collecting import collect
from phosphene.atlas.drawing import draw
from phosphene.atlas.pages import pages
from phosphene.errors import BadRequest, OutOfSpace

MARK = Path("assets", "atlas.css")
"""A folder that has this file is a site, and may be replaced by a new one."""
LIST = Path("assets", "files.txt")
"""The names of a site's files, one a line: what else lies in it is somebody's, and is not taken away."""


def build(runs: Sequence[Path], site: Path, title: str = "") -> Atlas:
    """Make the site of some folders: pages, pictures, records. The same folders give the same bytes.

    An older site in its place goes when the new one is whole; any other folder that is not empty is refused.
    """
    with _in_place_of(site) as scratch:
        atlas = collect(runs, title)
        draw(atlas, scratch)
        with as_file(files("phosphene.atlas") / "static") as static:
            shutil.copytree(static, scratch / "assets")
        for page in pages(atlas):
            (scratch / page.path).write_text(page.text, encoding="utf-8")
        (scratch / LIST).write_text("\n".join(_files(scratch)), encoding="utf-8")
    return atlas


def _files(site: Path) -> list[str]:
    """A site's files but for their list, by their places in it."""
    return sorted(
        file.relative_to(site).as_posix()
        for file in site.rglob("*")
        if not file.is_dir() and file != site / LIST
    )


@contextmanager
def _in_place_of(site: Path) -> Iterator[Path]:
    """Lend a new folder that takes the site's place at the end; on any failure the site stays as it was."""
    if site.exists() and not (site / MARK).is_file() and (not site.is_dir() or any(site.iterdir())):
        raise BadRequest(f"{site} is there and is not an atlas; give a new folder")
    if (site / LIST).is_file() and (
        others := set(_files(site))
        - set((site / LIST).read_text(encoding="utf-8", errors="replace").split("\n"))
    ):
        raise BadRequest(
            f"{site} holds {min(others)}, which no atlas wrote; move it, or give a new folder"
        )
    try:
        site.resolve().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".atlas-", dir=site.resolve().parent) as lent:
            new, old = Path(lent, "new"), Path(lent, "old")
            new.mkdir()
            yield new
            _take_the_place(new, site.resolve(), old)
    except OSError as error:
        raise OutOfSpace(f"cannot write {site}: {error.strerror or error}") from None


def _take_the_place(new: Path, site: Path, old: Path) -> None:
    if site.exists():
        site.rename(old)
    try:
        new.rename(site)
    except BaseException:
        if old.exists():
            old.rename(site)
        raise


@contextmanager
def served(site: Path, port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address under which this machine alone can see a site, and the function that serves it until interrupted."""
    if not (site / MARK).is_file():
        raise BadRequest(f"{site} is not an atlas; make one with phosphene atlas RUN --out {site}")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(site)))
    except OSError as error:
        raise BadRequest(
            f"port {port}: {error.strerror}; give another --port, or 0 for any that is free"
        ) from None
    with server:
        yield f"http://127.0.0.1:{server.server_address[1]}/", server.serve_forever


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass
