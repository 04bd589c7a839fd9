"""Data sets of Hugging Face's hub, or from where its library's `save_to_disk` put them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phosphene.datasets.names import check_split, chosen, kind_of, laid, name_of, places_of
from phosphene.datasets.sources import UNKNOWN, Row, Source, warn_of_test
from phosphene.errors import BadFile, Unavailable


def hub_source(name: str, split: str, labelled: bool) -> Source:
    """Return a split of a data set that has a column of images and one of class labels.

    Where it is not to be `labelled`, it may have no such labels.
    """
    check_split(split)
    splits = _opened(name)
    found = chosen(splits, split)
    if not found:
        raise BadFile(f"hf:{name} has no split {split!r}; it has: {', '.join(splits)}")
    found = found if split == "all" else found[:1]
    if split == "val" and kind_of(found[0]) == "test":
        warn_of_test(f"hf:{name}")
    tables = [splits[each] for each in found]
    image, label = _columns(name, tables[0], labelled)
    base = splits[(chosen(splits, "train") or found)[0]]
    classes, numbers = _numbering(name, [base, *tables], label, labelled)
    files = _files(tables, image)
    return Source(
        name_of(Path(name)) if Path(name).is_dir() else name.strip("/").rpartition("/")[2],
        split,
        classes,
        tables[0].info.license or "not stated",
        files,
        lambda: tuple(f"{table._fingerprint};" for table in tables),
        sum(map(len, tables)),
        lambda keyed: _rows(name, tables, (image, label), numbers, keyed),
        more=() if files else tuple(table._fingerprint for table in tables),
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
        reason = " ".join(str(error).split())[:200]
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


def _rows(
    name: str,
    tables: Sequence[Any],
    named: tuple[str, str | None],
    numbers: Sequence[Sequence[int]],
    keyed: bool,
) -> Iterator[Row]:
    import datasets

    image, label = named
    if keyed and "key" not in tables[0].features:
        there = ", ".join(tables[0].features)
        raise BadFile(f"hf:{name} has no column of keys, so none can be left out; it has: {there}")
    for table, own in zip(tables, numbers, strict=True):
        for row, values in enumerate(table.cast_column(image, datasets.Image(decode=False))):
            found = values[label] if label else None
            number = UNKNOWN if found is None else int(found)
            yield Row(
                f"hf:{name}, row {row}",
                own[number] if 0 <= number < len(own) else UNKNOWN,
                str(values.get("key", "")),
                _encoded(values[image]),
            )


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
