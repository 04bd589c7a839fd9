"""The call for Python that makes the pages: `phosphene.atlas(runs)`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from html import escape
from pathlib import Path
from typing import Protocol

from phosphene.atlas.cards import Atlas
from phosphene.atlas.site import build
from phosphene.errors import BadFile, BadRequest, UnknownName, near, type_name
from phosphene.files import path_of


class Saved(Protocol):
    """Require of another call's result that it can be kept in a folder."""

    def save(self, folder: str | Path) -> Path:
        """Write the result's files into a folder."""


class AtlasPages:
    """List pages of units in a folder. `pages["conv5:7"]` is the file of a unit's page.

    A loop over the pages yields the names of units. `index` is the first page.
    """

    def __init__(self, atlas: Atlas, folder: Path) -> None:
        self.folder = folder
        self.title = atlas.title
        self._files: dict[str, Path] = {}
        for subject in atlas.subjects:
            for layer in subject.layers:
                place = folder / subject.place / layer.place
                files = {str(card.unit): f"{card.unit.channel}.html" for card in layer.cards}
                self._files |= {
                    name if name not in self._files else f"{subject.name} {name}": place / file
                    for name, file in files.items()
                }

    @property
    def index(self) -> Path:
        """Return the file of the first page."""
        return self.folder / "index.html"

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __getitem__(self, unit: str) -> Path:
        """Return the file of a unit's page; `UnknownName` where the unit has none."""
        if unit not in self._files:
            raise UnknownName(f"no page of {unit!r}; near: {near(unit, self._files)}")
        return self._files[unit]

    def __repr__(self) -> str:
        return f"<AtlasPages of {len(self):,} units: {self.index}>"

    def _repr_html_(self) -> str:
        links = [(self.index, self.title), *((self[name], name) for name in [*self][:20])]
        return " · ".join(
            f'<a href="{escape(file.as_posix(), quote=True)}" target="_blank">{escape(name)}</a>'
            for file, name in links
        )


def atlas(
    runs: str | Path | Saved | Sequence[str | Path | Saved],
    out: str | Path = "atlas",
    *,
    title: str = "Unit atlas",
    templates: str | Path | None = None,
) -> AtlasPages:
    """Make pages of all that results and folders say of units, as `phosphene atlas` does.

    Args:
        runs: what other calls returned, or folders that the command line made; one or several.
        out: the folder of the pages. An older atlas in it is replaced.
        title: what stands above the front page.
        templates: a folder of templates for studies of your own, NAME.html each.

    Examples:
        >>> preferred = phosphene.synthesize("caffenet-objects", ["class:lion", "conv5:7"])
        >>> phosphene.atlas(preferred, out="pages").index
    """
    site = path_of(out, "out")
    place = None if templates is None else path_of(templates, "templates")
    if not isinstance(title, str):
        raise BadRequest(f"a title is a text; got {type_name(title)}")
    one = isinstance(runs, (str, Path)) or hasattr(runs, "save")
    given = [runs] if one else runs
    if not isinstance(given, (list, tuple)) or not given:
        raise BadRequest("no folder or result given; for example atlas(preferred, out='atlas')")
    with ExitStack() as scratch:
        folders = []
        for run in given:
            if isinstance(run, (str, Path)):
                folders.append(_there(Path(run)))
            elif hasattr(run, "save"):
                folders.append(_saved(run, scratch))
            else:
                raise BadRequest(f"pages are of folders and of results; got {type_name(run)}")
        return AtlasPages(build(folders, site, title, place), site)


def _there(folder: Path) -> Path:
    if not folder.is_dir():
        raise BadFile(f"{folder} is not a folder; make one with phosphene.synthesize(…, out=…)")
    return folder


def _saved(run: Saved, scratch: ExitStack) -> Path:
    """Return a folder with a result's files, which is there until the pages are made."""
    folder = scratch.enter_context(tempfile.TemporaryDirectory(prefix="phosphene-"))
    return run.save(Path(folder))
