"""Where a split lies: its photographs one after the other, from class folders or parquet shards."""

from __future__ import annotations

import io
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from phosphene.datasets.names import (
    WORDS,
    check_split,
    chosen,
    kind_of,
    laid,
    listed,
    name_of,
    places_of,
    plain,
)
from phosphene.errors import BadFile, BadRequest, Notice, Unavailable
from phosphene.files import in_utf8, read_json, really_is
from phosphene.images import suffixes

UNKNOWN = -1
"""The label of a photograph that has none; data sets write it where they hide labels."""
MAX_CLASSES = 100_000
"""Where nothing names them."""
FORMERLY = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
"""Suffixes of photographs in version 0.1.0."""
FOLDERS = {word for words in WORDS.values() for word in words} - {"dev", "all", "samples"}
"""What folders of splits are called, in lower case; a class may have one of the other words."""
MADE = {"exemplars.safetensors", "exemplars.json", "dissection.json", "checkpoint.pt"}
"""Files in folders that commands make, which may lie beside the photographs."""


@dataclass(frozen=True)
class Row:
    """One photograph where it lies, encoded or in a file of its own; `label` may be `UNKNOWN`."""

    where: str
    label: int
    key: str
    encoded: bytes | Path | None

    def file(self) -> Path | IO[bytes]:
        """Return what an image is opened from; `BadFile` where there is none."""
        if self.encoded is None:
            raise BadFile(f"{self.where} has no image")
        return self.encoded if isinstance(self.encoded, Path) else io.BytesIO(self.encoded)


@dataclass(frozen=True)
class Source:
    """One split where it lies. `rows` gives its photographs and, asked, their keys.

    Labels are places in `classes`, which begin as those of the training split. `files` are what
    the photographs are read from, by name within the data set; `more` tells what files do not, and
    `formerly` is what told the data set from others in version 0.1.0.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    licence: str
    files: tuple[tuple[str, Path], ...]
    formerly: Callable[[], tuple[str, ...]]
    count: int
    rows: Callable[[bool], Iterator[Row]]
    more: tuple[str, ...] = ()
    largest: Callable[[], int] = lambda: UNKNOWN
    """The largest label of the training split, where nothing names classes."""


def folder_source(folder: Path, split: str, labelled: bool) -> Source:
    """Return a split of a folder, or a shard; where it is not to be `labelled`, of any folder."""
    check_split(split)
    if folder.is_file() and split == "val":
        raise _nothing_held_out(folder)
    if not folder.exists() or not (folder.is_dir() or folder.is_file()):
        raise BadFile(
            f"{folder} is not a folder; give a folder of parquet shards or of class folders"
        )
    files = shard_files(folder, split)
    return (
        _shards_source(folder, files, split, labelled)
        if files
        else _folders_source(folder, split, labelled)
    )


def check_apart(made: Path, folder: str | Path) -> None:
    """Refuse a folder for what is made that lies where photographs are read.

    Its pictures would be read as photographs of another class the next time. Beside `train` and
    `val` there is room.
    """
    data, place = Path(os.path.realpath(folder)), Path(os.path.realpath(made))
    if str(folder).startswith("hf:") or not data.is_dir() or not place.is_relative_to(data):
        return
    inner = place.relative_to(data).parts
    apart = bool(_split_folders(data, "all")) or any(data.glob("*.parquet"))
    if not inner or not apart or inner[0].lower() in FOLDERS:
        raise BadRequest(
            f"{made} lies among the photographs of {folder}, where its pictures would be read as "
            "photographs; give another folder for what is made"
        )


# ---------------------------------------------------------------- shards


def shard_files(folder: Path, split: str) -> list[Path]:
    """Return the shards of a split, in order; the file itself where it is one."""
    if folder.is_file():
        return [folder]
    stems = {file.stem: file for file in sorted(folder.glob("*.parquet"))}
    found = [stems[stem] for stem in chosen(stems, split)]
    if strange := [file.name for stem, file in stems.items() if kind_of(stem) is None]:
        if found:
            warnings.warn(
                f"{folder}: {listed(strange)} left out, since no split is called so; shards are "
                "train.parquet, train-00-of-02.parquet, val.parquet …",
                Notice,
                stacklevel=2,
            )
    if split == "val" and found and kind_of(found[0].stem) == "test":
        warn_of_test(str(folder))
    return found


def warn_of_test(name: str) -> None:
    """Say that photographs for testing stand for those for validation."""
    warnings.warn(f"{name} has no validation split; its test split is used", Notice, stacklevel=2)


def _shards_source(folder: Path, files: list[Path], split: str, labelled: bool) -> Source:
    meta = read_meta(folder)
    known = files if split != "val" else shard_files(folder, "train") or files
    return Source(
        name_of(folder),
        split,
        tuple(meta.get("classes", ())),
        _licence(folder, meta),
        tuple((file.name, file) for file in files),
        lambda: tuple(f"{file.name}:{file.stat().st_size};" for file in files),
        sum(map(_length, files)),
        partial(_shard_rows, files, labelled),
        largest=partial(_largest_label, known),
    )


def _shard_rows(files: list[Path], labelled: bool, keyed: bool) -> Iterator[Row]:
    for file in files:
        keys = columns(file, "key")[0] if keyed else itertools.repeat("")
        bare = not labelled and "label" not in _column_names(file)
        images, *rest = columns(file, "image", *([] if bare else ["label"]))
        labels = rest[0] if rest else itertools.repeat(None)
        for number, (image, label, key) in enumerate(zip(images, labels, keys, strict=False)):
            raw = (
                image.get("bytes") if isinstance(image, dict) else image
            )  # as the hub's shards have it
            known = isinstance(label, int) or (label is None and not labelled)
            if not (raw is None or isinstance(raw, bytes)) or not known:
                raise BadFile(
                    f"{file}, row {number}: image holds encoded bytes, or bytes and a path as the "
                    "hub's shards do, and label a whole number"
                )
            yield Row(
                f"{file}, row {number}", UNKNOWN if label is None else label, str(key), raw or None
            )


def _largest_label(files: list[Path]) -> int:
    named = [file for file in files if "label" in _column_names(file)]
    found = (label for file in named for label in columns(file, "label")[0])
    return max((label for label in found if isinstance(label, int)), default=UNKNOWN)


def columns(file: Path, *names: str) -> list[Iterator[Any]]:
    """Return the values of some columns of a shard, as Python's own."""
    parquet, pyarrow = _parquet(file)
    try:
        with in_utf8(file) as path:
            table = parquet.read_table(path, columns=list(names))
        found = [table[name] for name in names]
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise _no_shard(file, f" with columns {', '.join(names)}", error) from None
    return [_values(file, name, column) for name, column in zip(names, found, strict=True)]


def _values(file: Path, name: str, column: Any) -> Iterator[Any]:
    try:
        for value in column:
            yield value.as_py()
    except UnicodeDecodeError as error:
        raise BadFile(f"{file}: column {name} holds what is no text: {error}") from None


def _length(file: Path) -> int:
    return int(_metadata(file).num_rows)


def _column_names(file: Path) -> list[str]:
    return list(_metadata(file).schema.to_arrow_schema().names)


def _metadata(file: Path) -> Any:
    parquet, pyarrow = _parquet(file)
    try:
        with in_utf8(file) as path:
            return parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise _no_shard(file, "", error) from None


def _no_shard(file: Path, what: str, error: Exception) -> BadFile:
    reason = really_is(file) or " ".join(str(error).split())[:200]  # pyarrow adds whole schemas
    return BadFile(f"{file} is not a readable shard{what}: {reason}")


def _parquet(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise Unavailable(f"{file} needs pyarrow; pip install 'phosphene[data]'") from None
    return pyarrow.parquet, pyarrow


# ---------------------------------------------------------------- class folders


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


def _folders_source(folder: Path, split: str, labelled: bool) -> Source:
    places = _split_folders(folder, split)
    others = [] if places else _split_folders(folder, "all")
    tree = _tree(places or ([] if others else [folder]))
    if split == "val" and not places and (others or tree.pictures):
        raise _nothing_held_out(folder)
    if not tree.pictures:
        raise _nothing_there(folder, split, tree)
    _warn_of_others(folder, places, tree)
    if labelled:
        tree = _in_class_folders(folder, split, tree)
    own = list(dict.fromkeys(map(plain, tree.names)))
    names = own if split != "val" else _training_names(folder, own, labelled)
    meta = read_meta(folder)
    classes = _shown_names(folder, meta, names)
    # two folders may be one name, as one of them was made on a Mac
    numbers = {raw: names.index(plain(raw)) for raw in tree.names} | {"": UNKNOWN}
    files = [(file, numbers[name]) for file, name in tree.pictures]
    return Source(
        name_of(folder),
        split,
        classes,
        _licence(folder, meta),
        tuple((f"{name}/{file.name}", file) for file, name in tree.pictures),
        lambda: tuple(_formerly(file) for file, _ in files),
        len(files),
        partial(_file_rows, files),
    )


def _file_rows(files: Sequence[tuple[Path, int]], keyed: bool) -> Iterator[Row]:
    return (Row(str(file), label, file.stem, file) for file, label in files)


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


# ---------------------------------------------------------------- what is said of a folder


def read_meta(folder: Path) -> dict[str, Any]:
    """Return what `meta.json` says, or nothing; `BadFile` where it makes no sense."""
    file = (folder if folder.is_dir() else folder.parent) / "meta.json"
    if not file.exists():
        return {}
    try:
        meta = read_json(file)
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"{file} is not JSON: {error}") from None
    meta = meta if isinstance(meta, dict) else {}
    classes = meta.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise BadFile(f"{file}: classes is a list of names")
    return meta


def _licence(folder: Path, meta: dict[str, Any]) -> str:
    """Return the licence that a data set states.

    It is what `meta.json` says, or the line of the data's README that begins with "Licence:".
    """
    if stated := meta.get("licence", meta.get("license")):
        return str(stated)
    readme = folder / "README.md"
    if readme.is_file():
        for line in readme.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lstrip("-* ").lower().startswith(("licence:", "license:")):
                return line.partition(":")[2].strip()
    return "not stated"
