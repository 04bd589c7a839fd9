"""Networks from other packages, hubs and files: one file for each source, listed in a table.

A library is imported, and weights are fetched, only inside the loader that a name asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from phosphene.errors import BadRequest, UnknownName
from phosphene.networks.sources import (
    exported,
    huggingface,
    lite,
    onnx_file,
    python_factory,
    timm_models,
    torchvision_models,
)
from phosphene.networks.sources.loading import LoadedNetwork


def is_source(name: str) -> bool:
    """Return whether a name is one for `load_network`, whatever is then wrong with its rest."""
    return name.partition(":")[0] in SOURCES or Path(name).suffix.lower() in SUFFIXES


def load_network(name: str, inputs: Mapping[str, Any] = MappingProxyType({})) -> LoadedNetwork:
    """Return the network that `SOURCE:NAME`, `efficientnet-lite0|1|2` or a file names.

    `inputs` are what it reads beside images; only code of one's own says how they are read.
    """
    if inputs and name.startswith("python:"):
        return python_factory.load(name.removeprefix("python:"), inputs)
    if inputs:
        raise BadRequest(
            f"{name} reads images alone; further inputs are for python:MODULE:FACTORY and "
            f"phosphene.wrap; got {', '.join(inputs)}"
        )
    suffix = Path(name).suffix.lower()
    if suffix in SUFFIXES:
        return SUFFIXES[suffix](Path(name))
    source, _, rest = name.partition(":")
    if source not in SOURCES:
        raise UnknownName(f"no source of networks {source!r}; there are: {', '.join(SOURCES)}")
    return SOURCES[source](rest)


SOURCES: dict[str, Callable[[str], LoadedNetwork]] = {
    "torchvision": torchvision_models.load,
    "timm": timm_models.load,
    "hf": huggingface.load,
    "python": python_factory.load,
    **{name: partial(lite.load, name) for name in lite.FILES},
}
"""Loaders by what stands before the colon; each takes what stands after it."""

SUFFIXES: dict[str, Callable[[Path], LoadedNetwork]] = {
    ".pt2": exported.load,
    ".onnx": onnx_file.load,
}
"""Loaders of files that are a whole network."""
