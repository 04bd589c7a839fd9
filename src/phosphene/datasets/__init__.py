"""Photographs, mostly labelled, from folders and parquet shards.

This is the only room that reads data sets.

Columns of a shard: `image` (encoded bytes), `label` (an integer), `key` (a string). A folder of
such shards has `train.parquet`, or `train-00-of-02.parquet` and so on, `val.parquet`, and a
`meta.json` with `classes`. A folder of class folders (`train/<class>/*.jpg`, or `<class>/*.jpg`) is
read the same way, and so is `hf:NAME`, a data set of Hugging Face's hub or of a folder that its
library saved. Every split is numbered by the class names of the training split.
"""

from phosphene.datasets.names import SPLITS, places_of, same_names
from phosphene.datasets.outlined import Outlined
from phosphene.datasets.photographs import (
    Photographs,
    Stream,
    joined,
    load,
    load_joined,
    renumbered,
)
from phosphene.datasets.sources import check_apart

__all__ = [
    "SPLITS",
    "Outlined",
    "Photographs",
    "Stream",
    "check_apart",
    "joined",
    "load",
    "load_joined",
    "places_of",
    "renumbered",
    "same_names",
]
