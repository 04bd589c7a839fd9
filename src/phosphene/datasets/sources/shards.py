"""Photographs in parquet shards: `train.parquet`, `train-00-of-02.parquet`, `val.parquet` ….

Columns: `image` (encoded bytes), `label` (an integer), `key` (a string).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phosphene.datasets.meta import licence_of, read_meta
from phosphene.datasets.names import chosen, kind_of, listed, name_of, warn_of_test
from phosphene.datasets.source import UNKNOWN, Row, Source
from phosphene.errors import BadFile, Notice, Unavailable, one_line
from phosphene.files import in_utf8, really_is


def open_split(place: str, split: str, labelled: bool) -> Source:
    """Return a split of a folder of shards, or a shard."""
    folder = Path(place)
    if files := shard_files(folder, split):
        return Shards(folder, files, split, labelled)
    raise BadFile(f"{folder} holds no {split}.parquet (or {split}-00-of-02.parquet and so on)")


class Shards(Source):
    """Read one split of a folder of shards, whose classes `meta.json` names."""

    def __init__(self, folder: Path, files: Sequence[Path], split: str, labelled: bool):
        meta = read_meta(folder)
        self.name = name_of(folder)
        self.split = split
        self.classes = tuple(meta.get("classes", ()))
        self.licence = licence_of(folder, meta)
        self.files = tuple((file.name, file) for file in files)
        self._labelled = labelled
        self._count = sum(int(_metadata(file).num_rows) for file in files)
        self._training = files if split != "val" else shard_files(folder, "train") or files

    def __len__(self) -> int:
        return self._count

    def former_contents(self) -> Iterable[str]:
        return tuple(f"{name}:{file.stat().st_size};" for name, file in self.files)

    def largest_label(self) -> int:
        named = [file for file in self._training if "label" in _column_names(file)]
        found = (label for file in named for label in columns(file, "label")[0])
        return max((label for label in found if isinstance(label, int)), default=UNKNOWN)

    def rows(self, keyed: bool = False) -> Iterator[Row]:
        for _, file in self.files:
            keys = columns(file, "key")[0] if keyed else itertools.repeat("")
            bare = not self._labelled and "label" not in _column_names(file)
            images, *rest = columns(file, "image", *([] if bare else ["label"]))
            labels = rest[0] if rest else itertools.repeat(None)
            for number, (image, label, key) in enumerate(zip(images, labels, keys, strict=False)):
                yield self._row(f"{file}, row {number}", image, label, str(key))

    def _row(self, where: str, image: Any, label: Any, key: str) -> Row:
        raw = (
            image.get("bytes") if isinstance(image, dict) else image
        )  # as the hub's shards have it
        known = isinstance(label, int) or (label is None and not self._labelled)
        if not (raw is None or isinstance(raw, bytes)) or not known:
            raise BadFile(
                f"{where}: image holds encoded bytes, or bytes and a path as the hub's shards do, "
                "and label a whole number"
            )
        return Row(where, UNKNOWN if label is None else label, key, raw or None)


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
    reason = really_is(file) or one_line(error)[:200]  # pyarrow adds whole schemas
    return BadFile(f"{file} is not a readable shard{what}: {reason}")


def _parquet(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise Unavailable(f"{file} needs pyarrow; pip install 'phosphene[data]'") from None
    return pyarrow.parquet, pyarrow
