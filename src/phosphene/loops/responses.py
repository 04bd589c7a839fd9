"""Response files of a rig: CSV, JSON, MATLAB and HDF5.

All have the same four columns: `picture` (its id), `trial` (0 unless given), `channel` (0 unless
given) and `value`. A value that is empty or NaN is a trial that failed.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phosphene.errors import BadFile, BadRequest
from phosphene.loops.generation import Response

SUFFIXES = (".csv", ".json", ".mat", ".h5")
COLUMNS = ("picture", "trial", "channel", "value")
MAX_BYTES = 256 << 20
"""Bytes; a longer file is not read."""

Row = Mapping[str, Any]


def read_responses(file: Path) -> list[Response]:
    """Return the responses of a file; `BadFile` where it is none, or not whole."""
    readers = {".csv": _csv, ".json": _json, ".mat": _matlab, ".h5": _hdf5}
    if file.suffix not in readers:
        raise BadFile(f"{file} is no response file; there are: {', '.join(readers)}")
    if file.stat().st_size > MAX_BYTES:
        raise BadFile(f"{file} has more than {MAX_BYTES:,} bytes")
    try:
        return [_response(row) for row in readers[file.suffix](file)]
    except BadFile:
        raise
    except ImportError as error:
        raise BadRequest(
            f"{file}: the library {error.name} reads such files: pip install {error.name}"
        ) from None
    except Exception as error:  # four libraries have no common error of their own
        raise BadFile(f"{file} cannot be read: {str(error) or type(error).__name__}") from None


def _response(row: Row) -> Response:
    """Return the response of a row; `ValueError` where a column is missing or is no number."""
    if missing := [name for name in ("picture", "value") if row.get(name) is None]:
        raise ValueError(f"a row has no {missing[0]}; the columns are {', '.join(COLUMNS)}")
    text = str(row["value"]).strip()
    value = float(text) if text else math.nan
    trial = float(row.get("trial") or 0)
    if trial != int(trial):
        raise ValueError(f"trial {trial:g} is no whole number")
    return Response(str(row["picture"]).strip(), int(trial), _name(row.get("channel")), value)


def _name(channel: Any) -> str:
    """Return a channel's name: a number that is whole is written as one."""
    if channel is None or channel == "":
        return "0"
    if isinstance(channel, float) and channel == int(channel):
        return str(int(channel))
    return str(channel).strip()  # MATLAB fills texts of one column up to one length


def _csv(file: Path) -> Iterator[Row]:
    text = file.read_text(encoding="utf-8-sig")
    whole, _, _ = text.rpartition("\n")  # a last line without an end is still being written
    reader = csv.DictReader(whole.splitlines(), skipinitialspace=True)
    if reader.fieldnames and not {"picture", "value"} <= set(reader.fieldnames):
        raise ValueError(f"its columns are {reader.fieldnames}, not {', '.join(COLUMNS)}")
    for row in reader:
        if None not in row.values() and None not in row:
            yield {name.strip(): value.strip() for name, value in row.items()}
        else:
            raise ValueError(f"line {reader.line_num} has another number of columns")


def _json(file: Path) -> Iterator[Row]:
    content = json.loads(file.read_text(encoding="utf-8"))
    rows = content.get("responses") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            "it holds no list of objects, such as "
            '[{"picture": "0000-000", "trial": 0, "channel": 0, "value": 1.5}]'
        )
    for row in rows:
        yield {**row, "value": math.nan if row.get("value") is None else row["value"]}


def _matlab(file: Path) -> Iterator[Row]:
    from scipy.io import loadmat

    content = loadmat(file, simplify_cells=True)
    return _of_columns({name: content[name] for name in COLUMNS if name in content})


def _hdf5(file: Path) -> Iterator[Row]:
    import h5py

    with h5py.File(file, "r") as content:
        columns = {name: content[name][()] for name in COLUMNS if name in content}
    return _of_columns(columns)


def _of_columns(columns: Mapping[str, Iterable[Any]]) -> Iterator[Row]:
    """Yield the rows of columns of equal length."""
    import numpy as np

    lists = {name: np.atleast_1d(np.asarray(each)).tolist() for name, each in columns.items()}
    for values in zip(*lists.values(), strict=True):
        row = dict(zip(lists, values, strict=True))
        yield {k: v.decode() if isinstance(v, bytes) else v for k, v in row.items()}
