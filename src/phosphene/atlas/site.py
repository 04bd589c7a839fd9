"""A site on disk: built aside and put in its place when it is whole, and shown in a browser."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from phosphene.atlas.cards import Atlas
from phosphene.atlas.collecting import collect
from phosphene.atlas.drawing import draw
from phosphene.atlas.maps import made
from phosphene.atlas.pages import pages
from phosphene.errors import BadRequest, OutOfSpace
from phosphene.files import atomic_path, is_scratch, scratch_folder, sweep

MARK = Path("assets", "atlas.css")
"""A folder that has this file is a site, and may be replaced by a new one."""
LIST = Path("assets", "files.txt")
"""The names of a site's files, one a line.

What else lies in it is somebody's, and is not taken away.
"""


STUCK = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says of a folder that cannot be renamed.

Such a folder is a mount point, or lies in a folder of another user.
"""


def build(
    runs: Sequence[Path], site: Path, title: str = "", templates: Path | None = None
) -> Atlas:
    """Make the site of some folders: pages, pictures, records.

    The same folders give the same bytes. An older site in its place goes when the new one is whole;
    any other folder that is not empty is refused. `templates` is a folder of one's own templates
    for studies, NAME.html each. A template is code, so none is taken from the folders themselves.
    """
    if templates is not None and not templates.is_dir():
        raise BadRequest(f"{templates} is not a folder of templates")
    with _in_place_of(site) as scratch:
        atlas = collect(runs, title)
        draw(atlas, scratch)
        with as_file(files("phosphene.atlas") / "static") as static:
            shutil.copytree(static, scratch / "assets")
        maps = {
            (subject.place, layer.place): laid
            for subject in atlas.subjects
            for layer in subject.layers
            if (laid := made(layer, scratch / subject.place / layer.place))
        }
        for page in pages(atlas, templates, maps):
            (scratch / page.path).write_text(page.text, encoding="utf-8")
        (scratch / ".nojekyll").touch()  # or GitHub's pages lack what begins with an underscore
        (scratch / LIST).write_text("\n".join(_files(scratch)), encoding="utf-8")
    return atlas


def _files(site: Path) -> list[str]:
    """Return a site's files but for their list and for scratch, by their places in it."""
    found = (file.relative_to(site) for file in site.rglob("*") if not file.is_dir())
    return sorted(
        file.as_posix()
        for file in found
        if file != LIST and not any(is_scratch(part) for part in file.parts)
    )


def _listed(site: Path) -> set[str]:
    """Return what the list of a site's files says, nothing where there is none."""
    if not (site / LIST).is_file():
        return set()
    return set((site / LIST).read_text(encoding="utf-8", errors="replace").split("\n"))


@contextmanager
def _in_place_of(site: Path) -> Iterator[Path]:
    """Lend a new folder that takes the site's place at the end.

    On any failure the site stays as it was. A folder that cannot be renamed gets
    the new files one by one, each whole, the pages last.
    """
    place = Path(os.path.realpath(site))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _bring_back(place)
        _check(site)
        fixed = place.is_dir() and (
            os.path.ismount(place) or not os.access(place.parent, os.W_OK | os.X_OK)
        )
        with scratch_folder(place if fixed else place.parent, place.name) as new:
            yield new
            if fixed or not _take_the_place(new, place):
                _move_in(new, place)
    except OSError as error:
        raise OutOfSpace(f"cannot write {site}: {error.strerror or error}") from None


def _check(site: Path) -> None:
    """Refuse a place where something lies that no atlas wrote."""
    names = os.listdir(site) if site.is_dir() else [site.name] if site.exists() else []
    if all(name == "lost+found" or is_scratch(name) for name in names):
        return  # a disk that is empty has that folder
    if not (site / MARK).is_file() and not (site / LIST).is_file():
        raise BadRequest(f"{site} is there and is not an atlas; give a new folder")
    listed = _listed(site)
    if listed and (others := {*_files(site)} - listed):
        raise BadRequest(
            f"{site} holds {min(others)}, which no atlas wrote; move it, or give a new folder"
        )


def _take_the_place(new: Path, site: Path) -> bool:
    """Rename the new folder to the site, or say that the site cannot be renamed."""
    aside = site.parent / f".{site.name}.aside-{os.getpid()}"
    try:
        if site.exists():
            shutil.copymode(site, new)
            site.rename(aside)
    except OSError as error:
        if error.errno in STUCK:
            return False
        raise
    try:
        new.rename(site)
    except BaseException:
        if aside.exists():
            aside.rename(site)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _bring_back(site: Path) -> None:
    """Undo what a killed process left between two renames: the older site lies aside."""
    for aside in sorted(site.parent.glob(f".{glob.escape(site.name)}.aside-*")):
        if (aside / MARK).is_file() and not site.exists():
            aside.rename(site)
        elif (aside / MARK).is_file():
            shutil.rmtree(aside, ignore_errors=True)


def _move_in(new: Path, site: Path) -> None:
    """Write the new files over a site's, and remove the files that only the older one had.

    The list says both until then: a killed process leaves a site that the next one completes.
    """
    for folder in (each for each in site.rglob("*") if each.is_dir() and new not in each.parents):
        sweep(folder)
    wanted, older = _files(new), _listed(site) & {*_files(site)}
    _write(site / LIST, "\n".join(sorted({*wanted, *older})))
    for name in sorted(wanted, key=lambda name: (name.endswith(".html"), name)):
        with atomic_path(site / name) as scratch:
            shutil.copyfile(new / name, scratch)
    for name in older - {*wanted}:
        (site / name).unlink()
        _remove_empty(site, name)
    _write(site / LIST, "\n".join(wanted))


def _remove_empty(site: Path, name: str) -> None:
    """Remove the folders in which a removed file was the last one."""
    with suppress(OSError):
        for folder in [*Path(name).parents][:-1]:
            (site / folder).rmdir()


def _write(file: Path, text: str) -> None:
    with atomic_path(file) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextmanager
def served(site: Path, port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Lend the address under which this machine alone can see a site, and what serves it.

    The latter is a function that serves until it is interrupted.
    """
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
    """Serve files and say nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass
