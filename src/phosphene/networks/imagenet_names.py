"""The names of the 1,000 ImageNet-1k (ILSVRC 2012) classes, in the order of all classifiers."""

from __future__ import annotations

from pathlib import Path

_TEXT = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")

IMAGENET_NAMES: tuple[str, ...] = tuple(" ".join(name.split()) for name in _TEXT.split(";"))
"""WordNet's first synonym of each class.

The two cranes and the two maillots have the names by which torchvision tells them apart.
"""
