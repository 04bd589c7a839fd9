"""Photographs in class folders (`train/<class>/*.jpg`, `<class>/*.jpg`), or a folder of shards."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.datasets.meta import licence_of, read_meta
from phosphene.datasets.names import (
    WORDS,
    chosen,
    kind_of,
    laid,
    listed,
    name_of,
    places_of,
    plain,
    warn_of_test,
)
from phosphene.datasets.source import UNKNOWN, Row, Source
from phosphene.datasets.sources.shards import Shards, shard_files
from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.images import suffixes

FOLDERS = {word for words in WORDS.values() for word in words} - {"dev", "all", "samples"}
"""What folders of splits are called, in lower case; a class may have one of the other words."""
MADE = {"exemplars.safetensors", "exemplars.json", "dissection.json", "checkpoint.pt"}
"""Files in folders that commands make, which may lie beside the photographs."""


def open_split(place: str, split: str, labelled: bool) -> Source:
    """Return a split of a folder, or a shard; where it is not to be `labelled`, of any folder."""
    folder = Path(place)
    if folder.is_file() and split == "val":
        raise _nothing_held_out(folder)
    if not folder.is_dir() and not folder.is_file():
        raise BadFile(
            f"{folder} is not a folder; give a folder of parquet shards or of class folders"
        )
    if files := shard_files(folder, split):
        return Shards(folder, files, split, labelled)
    return ClassFolders(folder, split, labelled)


def check_apart(made: Path, folder: str | Path) -> None:
    """Refuse a folder for what is made that lies where photographs are read.

    Its pictures would be read as photographs of another class the next time. Beside `train` and
    `val` there is room.
    """
    data, place = Path(os.path.realpath(folder)), Path(os.path.realpath(made))
    if not data.is_dir() or not place.is_relative_to(data):
        return
    inner = place.relative_to(data).parts
    apart = bool(_split_folders(data, "all")) or any(data.glob("*.parquet"))
    if not inner or not apart or inner[0].lower() in FOLDERS:
        raise BadRequest(
            f"{made} lies among the photographs of {folder}, where its pictures would be read as "
            "photographs; give another folder for what is made"
        )


class ClassFolders(Source):
    """Read one split of a folder of class folders, or of pictures without a class."""

    def __init__(self, folder: Path, split: str, labelled: bool):
        tree = _pictures(folder, split, labelled)
        own = list(dict.fromkeys(map(plain, tree.names)))
        names = own if split != "val" else _training_names(folder, own, labelled)
        # two folders may be one name, as one of them was made on a Mac
        numbers = {raw: names.index(plain(raw)) for raw in tree.names} | {"": UNKNOWN}
        meta = read_meta(folder)
        self.name = name_of(folder)
        self.split = split
        self.classes = _shown_names(folder, meta, names)
        self.licence = licence_of(folder, meta)
        self.files = tuple((f"{name}/{file.name}", file) for file, name in tree.pictures)
        self._labels = [numbers[name] for _, name in tree.pictures]

    def __len__(self) -> int:
        return len(self.files)

    def former_contents(self) -> Iterable[str]:
        return tuple(_formerly(file) for _, file in self.files)

    def rows(self, keyed: bool = False) -> Iterator[Row]:
        for (_, file), label in zip(self.files, self._labels, strict=True):
            yield Row(str(file), label, file.stem, file)


def _pictures(folder: Path, split: str, labelled: bool) -> _Tree:
    """Return the pictures of a split; `BadFile` where there are none, or not as they should be."""
    places = _split_folders(folder, split)
    others = [] if places else _split_folders(folder, "all")
    tree = _tree(places or ([] if others else [folder]))
    if split == "val" and not places and (others or tree.pictures):
        raise _nothing_held_out(folder)
    if not tree.pictures:
        raise _nothing_there(folder, split, tree)
    _warn_of_others(folder, places, tree)
    return _in_class_folders(folder, split, tree) if labelled else tree


@dataclass(frozen=True)
class _Tree:
    """What lies in the folders of a split: each picture with the folder that it is in, or ""."""

    pictures: list[tuple[Path, str]]
    others: list[Path]
    folders: list[str]

    @property
    def names(self) -> list[str]:
        """Return the folders that have pictures, in order."""
        return sorted({folder for _, folder in self.pictures} - {""})


def _split_folders(folder: Path, split: str) -> list[Path]:
    """Return the folders of a split: train, val, … in whatever case, without a number."""
    names = [each.name for each in _subfolders(folder) if each.name.lower() in FOLDERS]
    found = [folder / name for name in chosen(names, split)]
    if split == "val" and found and kind_of(found[0].name) == "test":
        warn_of_test(str(folder))
    return found


def _tree(places: Sequence[Path]) -> _Tree:
    """Return what lies in some folders, at any depth, in order."""
    known, found = suffixes(), _Tree([], [], [])
    for place in places:
        found.folders.extend(each.name for each in _subfolders(place))
        for root, files in _walk(place):
            first = os.path.relpath(root, place).split(os.sep)[0].removeprefix(".")
            for name in files:
                if os.path.splitext(name)[1].lower() in known:
                    found.pictures.append((Path(root, name), first))
                else:
                    found.others.append(Path(root, name))
    found.pictures.sort(key=lambda picture: str(picture[0]).split(os.sep))
    found.others.sort()
    return found


def _made_here(files: Iterable[str]) -> bool:
    """Return whether a folder with these files is one of this program's, and holds its pictures."""
    return not MADE.isdisjoint(files)


def _walk(place: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below a folder with its files' names.

    What is hidden is none of them, and a link may lead in a circle.
    """

    def refuse(error: OSError) -> None:
        raise BadFile(f"{error.filename} cannot be read: {error.strerror}") from None

    seen = set()
    for root, folders, files in os.walk(place, onerror=refuse, followlinks=True):
        at = os.stat(root)
        if (at.st_dev, at.st_ino) in seen:
            folders.clear()
            continue
        seen.add((at.st_dev, at.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if _made_here(files):
            folders.clear()
            continue
        yield root, [name for name in files if not name.startswith(".")]


def _subfolders(place: Path) -> list[Path]:
    found = sorted(each for each in place.glob("[!.]*") if each.is_dir())
    return [each for each in found if not _made_here(os.listdir(each))]


def _has_pictures(folder: Path) -> bool:
    known = suffixes()
    names = (name for _, files in _walk(folder) for name in files)
    return any(os.path.splitext(name)[1].lower() in known for name in names)


def _in_class_folders(folder: Path, split: str, tree: _Tree) -> _Tree:
    """Return the pictures that have a class; `BadFile` where a class folder, or all, give none."""
    loose = [file for file, name in tree.pictures if not name]
    if not tree.names:
        raise BadFile(
            f"{folder}: the photographs of split {split!r} lie in no class folders, so they have "
            "no classes; put them into <class>/*.jpg"
        )
    if loose:
        _warn_left_out(folder, loose, "lie in no class folder")
    for name in sorted({*tree.folders} - {*tree.names}):
        there = Counter(file.suffix for file in tree.others if name in file.parts)
        kinds = ", ".join(f"{n:,} {suffix or 'without suffix'}" for suffix, n in there.items())
        raise BadFile(
            f"{folder}: class folder {name!r} of split {split!r} holds no picture that can be read"
            f"{f' ({kinds})' if kinds else ''}; convert what is in it, or take it out"
        )
    return _Tree([each for each in tree.pictures if each[1]], tree.others, tree.folders)


def _training_names(folder: Path, own: list[str], labelled: bool) -> list[str]:
    """Return the names by which `own` are numbered: those of the training split, then others."""
    places = _split_folders(folder, "train")
    raw = {each.name for place in places for each in _subfolders(place) if _has_pictures(each)}
    names = list(dict.fromkeys(map(plain, sorted(raw))))
    if not names:
        return own
    if labelled:
        laid(own, names, f"{folder}: split 'val'", "train")
    return names + [n for n, at in zip(own, places_of(own, names), strict=True) if at is None]


def _shown_names(folder: Path, meta: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return what classes are called: as `meta.json` says, folder by folder, or as the folders."""
    given = meta.get("classes")
    if given is None:
        return tuple(names)
    if len(given) < len(names):
        raise BadFile(f"{folder}: meta.json names {len(given)} classes, there are {len(names)}")
    return tuple(given)


def _warn_of_others(folder: Path, places: Sequence[Path], tree: _Tree) -> None:
    """Say which files are no pictures, and which folders with pictures are of no split."""
    if tree.others:
        _warn_left_out(folder, tree.others, "are not read as pictures")
    beside = [each for each in _subfolders(folder) if each.name.lower() not in FOLDERS]
    if places and (strange := [each for each in beside if _has_pictures(each)]):
        names = listed([each.name for each in strange])
        warnings.warn(f"{folder}: {names} left out, being of no split", Notice, stacklevel=2)


def _warn_left_out(folder: Path, files: Sequence[Path], why: str) -> None:
    kinds = Counter(file.suffix or "without suffix" for file in files)
    counts = listed([f"{count:,} {kind}" for kind, count in kinds.most_common()])
    first = os.path.relpath(files[0], folder)
    warnings.warn(
        f"{folder}: left out, since they {why}: {counts}; the first is {first}",
        Notice,
        stacklevel=2,
    )


def _formerly(file: Path) -> str:
    size = file.stat().st_size if file.exists() else UNKNOWN
    return f"{'/'.join(file.parts[-2:])}:{size};"


def _nothing_held_out(folder: Path) -> BadFile:
    return BadFile(
        f"{folder} holds out no photographs: give a folder with train and val, as folders or as "
        "shards"
    )


def _nothing_there(folder: Path, split: str, tree: _Tree) -> BadFile:
    kinds = Counter(file.suffix or "without suffix" for file in tree.others)
    there = listed([f"{count:,} {kind}" for kind, count in kinds.most_common()])
    first = "train" if split != "val" else "val"
    return BadFile(
        f"{folder} holds neither {first}.parquet (or {first}-00-of-02.parquet and so on) nor "
        f"<class>/*.jpg for split {split!r}{f'; it has {there}' if there else ''}"
    )
