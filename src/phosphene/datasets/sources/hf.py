"""Data sets of Hugging Face's hub, or of a folder of its library's `save_to_disk`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phosphene.datasets.names import chosen, kind_of, laid, name_of, places_of, warn_of_test
from phosphene.datasets.source import UNKNOWN, Row, Source
from phosphene.errors import BadFile, Unavailable, one_line


def open_split(place: str, split: str, labelled: bool) -> Source:
    """Return a split of a data set that has a column of images and one of class labels.

    Where it is not to be `labelled`, it may have no such labels.
    """
    splits = _opened(place)
    found = chosen(splits, split)
    if not found:
        raise BadFile(f"hf:{place} has no split {split!r}; it has: {', '.join(splits)}")
    if split == "val" and kind_of(found[0]) == "test":
        warn_of_test(f"hf:{place}")
    tables = [splits[each] for each in (found if split == "all" else found[:1])]
    base = splits[(chosen(splits, "train") or found)[0]]
    return Tables(place, split, labelled, tables, base)


class Tables(Source):
    """Read one split of a data set of the hub, whose classes are numbered by its training split."""

    def __init__(self, place: str, split: str, labelled: bool, tables: Sequence[Any], base: Any):
        self._place = place
        self._tables = tables
        self._image, self._label = _columns(place, tables[0], labelled)
        self.classes, self._numbers = _numbering(place, [base, *tables], self._label, labelled)
        folder = Path(place)
        self.name = name_of(folder) if folder.is_dir() else place.strip("/").rpartition("/")[2]
        self.split = split
        self.licence = tables[0].info.license or "not stated"
        self.files = _files(tables, self._image)

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def contents(self) -> Iterable[str]:
        return () if self.files else tuple(table._fingerprint for table in self._tables)

    def former_contents(self) -> Iterable[str]:
        return tuple(f"{table._fingerprint};" for table in self._tables)

    def largest_label(self) -> int:
        return UNKNOWN

    def rows(self, keyed: bool = False) -> Iterator[Row]:
        import datasets

        if keyed and "key" not in self._tables[0].features:
            there = ", ".join(self._tables[0].features)
            raise BadFile(
                f"hf:{self._place} has no column of keys, so none can be left out; it has: {there}"
            )
        encoded = datasets.Image(decode=False)
        for table, numbers in zip(self._tables, self._numbers, strict=True):
            for row, values in enumerate(table.cast_column(self._image, encoded)):
                found = values[self._label] if self._label else None
                number = UNKNOWN if found is None else int(found)
                yield Row(
                    f"hf:{self._place}, row {row}",
                    numbers[number] if 0 <= number < len(numbers) else UNKNOWN,
                    str(values.get("key", "")),
                    _encoded(values[self._image]),
                )


def _opened(name: str) -> dict[str, Any]:
    """Return the tables of a data set by their names; one without a name is its training split."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise Unavailable(f"hf:{name} needs datasets; pip install 'phosphene[datasets]'") from None
    try:
        found = (
            datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name)
        )
    except Exception as error:  # the library has no common error of its own
        reason = one_line(error)[:200]
        raise Unavailable(
            f"hf:{name} cannot be read: {reason}; give OWNER/NAME or a folder of save_to_disk"
        ) from None
    return dict(found) if isinstance(found, dict) else {"train": found}


def _columns(name: str, table: Any, labelled: bool) -> tuple[str, str | None]:
    """Return the names of a table's columns of images and of labels."""
    import datasets

    features = table.features
    images = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if not images or (labelled and not labels):
        wanted = "a column of images and one of class labels" if labelled else "a column of images"
        raise BadFile(f"hf:{name} needs {wanted}; it has: {dict(features)}")
    return images[0], labels[0] if labels else None


def _numbering(
    name: str, tables: Sequence[Any], label: str | None, labelled: bool
) -> tuple[tuple[str, ...], list[list[int]]]:
    """Return the class names, the first table's first.

    Beside them, return for each other table the numbers that its labels have among them.
    """
    if label is None:
        return (), [[] for _ in tables[1:]]
    named = [getattr(table.features.get(label), "names", None) or [] for table in tables]
    names = list(named[0] or named[1])
    for own in named[1:]:
        if labelled:
            laid(own, names, f"hf:{name}", "its training split")
        places = places_of(own, names)
        names += [each for each, at in zip(own, places, strict=True) if at is None]
    numbers = [[at for at in places_of(own, names) if at is not None] for own in named[1:]]
    return tuple(names), numbers


def _encoded(value: Any) -> bytes | Path | None:
    if value is None:
        return None
    return value["bytes"] or (Path(value["path"]) if value["path"] else None)


def _files(tables: Sequence[Any], image: str) -> tuple[tuple[str, Path], ...]:
    """Return the files that the tables are read from, and the photographs that lie beside them.

    None where a table is not all of its files: it was made of others in memory.
    """
    import datasets

    if any(not table.cache_files or table._indices is not None for table in tables):
        return ()
    found = [Path(each["filename"]) for table in tables for each in table.cache_files]
    for table in tables:
        column = table.cast_column(image, datasets.Image(decode=False)).data.column(image)
        for chunk in column.chunks:
            raw, paths = chunk.field("bytes"), chunk.field("path")
            outside = paths.filter(raw.is_null()) if raw.null_count else []
            found += [Path(path.as_py()) for path in outside if path.as_py()]
    return tuple((path.name, path) for path in found)
