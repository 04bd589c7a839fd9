"""Weights files: one safetensors file is one whole network, and a damaged one is refused."""

from phosphene.kept import digest_of
from phosphene.weights.file import (
    FORMAT,
    MAX_BYTES,
    Weights,
    figures,
    fill,
    read,
    rehearse,
    write,
)
from phosphene.weights.zoo import check_name, listed_figures, locate, manifest, places, zoo_folder

__all__ = [
    "FORMAT",
    "MAX_BYTES",
    "Weights",
    "check_name",
    "digest_of",
    "figures",
    "fill",
    "listed_figures",
    "locate",
    "manifest",
    "places",
    "read",
    "rehearse",
    "write",
    "zoo_folder",
]
