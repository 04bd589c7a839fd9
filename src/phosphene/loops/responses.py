"""Response files of a rig: CSV, JSON, MATLAB and HDF5.

All have the same four columns: `picture` (its id), `trial` (0 unless given), `channel` (0 unless
given) and `value`. A value that is empty, NA or NaN is a trial that failed.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any

from phosphene.errors import BadFile, BadRequest
from phosphene.files import read_text
from phosphene.loops.generation import Response, checked_response

SUFFIXES = (".csv", ".json", ".mat", ".h5")
COLUMNS = ("picture", "trial", "channel", "value")
MAX_BYTES = 256 << 20
"""Bytes; a longer file is not read."""

FAILED = ("", "NA")
"""How programs write a value that is not there; R writes NA."""

Row = Mapping[str, Any]


def read_responses(file: Path, *, whole: bool = False) -> list[Response]:
    """Return the responses of a file; `BadFile` where it is none, or not whole.

    The last line of a CSV file counts when it has its end, because it may still be written. With
    `whole`, the rig has said that the file is finished, and the last line counts as it is.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        **{".csv": partial(_csv, whole=whole), ".json": _json},
        **{".mat": _matlab, ".h5": _hdf5},
    }
    if file.suffix not in readers:
        raise BadFile(f"{file} is no response file; there are: {', '.join(readers)}")
    try:
        status = file.stat()
        if not S_ISREG(status.st_mode):
            raise BadFile(f"{file} is no plain file")
        if status.st_size > MAX_BYTES:
            raise BadFile(f"{file} has more than {MAX_BYTES:,} bytes")
        return [response_of(row) for row in readers[file.suffix](file)]
    except BadFile:
        raise
    except ImportError as error:
        raise BadRequest(
            f"{file}: the library {error.name} reads such files: pip install {error.name}"
        ) from None
    except Exception as error:  # four libraries have no common error of their own
        raise BadFile(f"{file} cannot be read: {str(error) or type(error).__name__}") from None


def response_of(row: Row) -> Response:
    """Return the response of a row.

    `ValueError` where a column is missing or is no number, `BadRequest` where a number cannot be.
    """
    if missing := [name for name in ("picture", "value") if row.get(name) is None]:
        raise ValueError(f"a row has no {missing[0]}; the columns are {', '.join(COLUMNS)}")
    text = str(row["value"]).strip()
    value = math.nan if text in FAILED else float(text)
    trial = float(row.get("trial") or 0)
    if not trial.is_integer():
        raise ValueError(f"trial {trial:g} is no whole number")
    picture = str(row["picture"]).strip()
    return checked_response(Response(picture, int(trial), _name(row.get("channel")), value))


def _name(channel: Any) -> str:
    """Return a channel's name: a number that is whole is written as one, also in a text."""
    if channel is None or channel == "":
        return "0"
    text = str(channel).strip()  # MATLAB fills texts of one column up to one length
    return re.sub(r"^(-?\d+)\.0*$", r"\1", text)


def _csv(file: Path, whole: bool) -> Iterator[Row]:
    """Yield the rows; commas, semicolons or tabs are between the columns."""
    text = read_text(file).replace("\r", "\n")
    if not whole:
        text, _, _ = text.rpartition("\n")
    first, _, _ = text.partition("\n")
    between = max(",;\t", key=first.count)
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True, delimiter=between)
    names = [name.strip() for name in reader.fieldnames or ()]
    if names and not {"picture", "value"} <= {*names}:
        raise ValueError(f"its columns are {', '.join(names)}, not {', '.join(COLUMNS)}")
    reader.fieldnames = names
    for row in reader:
        if None in row.values() or None in row:
            raise ValueError(f"line {reader.line_num} has another number of columns")
        if between != ",":  # where numbers have a comma for their point
            row["value"] = row["value"].replace(",", ".")
        yield {name: value.strip() for name, value in row.items()}


def _json(file: Path) -> Iterator[Row]:
    content = json.loads(read_text(file))
    rows = content.get("responses") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            "it holds no list of objects, such as "
            '[{"picture": "0000-000", "trial": 0, "channel": 0, "value": 1.5}]'
        )
    for row in rows:
        failed = "value" in row and row["value"] is None
        yield {**row, "value": math.nan} if failed else row


def _matlab(file: Path) -> Iterator[Row]:
    from scipy.io import loadmat, whosmat

    try:
        for name, shape, _ in whosmat(file):
            if name in COLUMNS and math.prod(shape) > MAX_BYTES // 8:
                raise ValueError(f"{name} has {math.prod(shape):,} numbers")
        content = loadmat(file, simplify_cells=True, variable_names=COLUMNS)
    except NotImplementedError:  # version 7.3 is HDF5
        return _hdf5(file)
    return _of_columns({name: content[name] for name in COLUMNS if name in content})


def _hdf5(file: Path) -> Iterator[Row]:
    import h5py

    def texts(column: Any) -> Any:
        """Return a column; MATLAB keeps each text of a cell apart, as codes of its letters."""
        if column.size > MAX_BYTES // 8:
            raise ValueError(f"{column.name} has {column.size:,} numbers")
        values = column[()]
        if h5py.check_dtype(ref=column.dtype) is None:
            return values
        return ["".join(map(chr, content[each][()].ravel())) for each in values.ravel()]

    with h5py.File(file, "r") as content:
        names = [name for name in COLUMNS if isinstance(content.get(name), h5py.Dataset)]
        columns = {name: texts(content[name]) for name in names}
    return _of_columns(columns)


def _of_columns(columns: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of columns of equal length.

    `ValueError` where two rows say the same presentation and channel: a column is not there yet.
    """
    import numpy as np

    if missing := [name for name in ("picture", "value") if name not in columns]:
        raise ValueError(f"it has no {missing[0]}; the columns are {', '.join(COLUMNS)}")
    lists = {name: [*map(_decoded, np.ravel(each).tolist())] for name, each in columns.items()}
    if len({len(each) for each in lists.values()}) > 1:
        lengths = ", ".join(f"{len(each):,} of {name}" for name, each in lists.items())
        raise ValueError(f"its columns differ in length: {lengths}")
    keys = [*zip(*(each for name, each in lists.items() if name != "value"), strict=True)]
    if twice := [key for key, count in Counter(keys).items() if count > 1]:
        raise ValueError(f"it has two values for {', '.join(map(str, twice[0]))}")
    for values in zip(*lists.values(), strict=True):
        yield dict(zip(lists, values, strict=True))


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
