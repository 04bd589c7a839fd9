"""Photographs, mostly labelled, from the files of `sources/` or from a `Source` of your own.

This is the only room that reads data sets. Every split is numbered by the class names of the
training split. A `meta.json` in a folder may name the classes and the licence.
"""

from phosphene.datasets.names import SPLITS, places_of, same_names
from phosphene.datasets.outlined import Outlined
from phosphene.datasets.photographs import (
    Photographs,
    joined,
    load,
    load_joined,
    renumbered,
)
from phosphene.datasets.source import Row, Source
from phosphene.datasets.sources.folder import check_apart
from phosphene.datasets.stream import Stream, batched

__all__ = [
    "SPLITS",
    "Outlined",
    "Photographs",
    "Row",
    "Source",
    "Stream",
    "batched",
    "check_apart",
    "joined",
    "load",
    "load_joined",
    "places_of",
    "renumbered",
    "same_names",
]
