"""The published generators of Dosovitskiy & Brox (2016, arXiv 1602.02644), as published."""

from phosphene.networks.deepsim.file import HUB, load_deepsim, read_bounds
from phosphene.networks.deepsim.network import (
    LAYOUTS,
    LICENCE,
    MEAN_BGR,
    STATISTICS,
    DeePSiM,
    approximate_statistics,
)

__all__ = [
    "HUB",
    "LAYOUTS",
    "LICENCE",
    "MEAN_BGR",
    "STATISTICS",
    "DeePSiM",
    "approximate_statistics",
    "load_deepsim",
    "read_bounds",
]
