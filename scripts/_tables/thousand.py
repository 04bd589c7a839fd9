"""Make the tables of networks of a thousand classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables.markdown import table

FILE = "docs/thousand.json"
JUDGES = {
    "efficientnet-lite2": "Lite2",
    "python:caffe_networks:googlenet": "GoogLeNet",
    "python:caffe_networks:squeezenet": "SqueezeNet 1.1",
}
NAMES = {**JUDGES, "efficientnet-lite0": "EfficientNet-Lite0"}


def named(found: Mapping[str, Any]) -> str:
    """Return how often each judge names each set of pictures."""
    lines = [["pictures", *[f"{name}: first, five" for name in JUDGES.values()]]]
    for what, seen in found["shown"].items():
        lines.append([NAMES.get(what, what), *[cell(seen.get(judge)) for judge in JUDGES]])
    return table(lines)


def cell(seen: Mapping[str, Any] | None) -> str:
    """Return both shares, the first with its interval."""
    if seen is None:
        return "–"
    first = seen["first"]
    interval = f"{first['low']:.0%} to {first['high']:.0%}"
    return f"{first['value']:.0%} ({interval}), {seen['five']['value']:.0%}"


def answered(found: Mapping[str, Any]) -> str:
    """Return units' activations on their pictures over those on photographs."""
    lines = [["network", "over the highest of photographs", "above it", "over its own class"]]
    for what, seen in found["shown"].items():
        if told := seen.get("activation"):
            ratios = [f"{told['over highest']:.2f}", f"{told['above highest']:.0%}"]
            lines.append([NAMES[what], *ratios, f"{told['over class']:.2f}"])
    return table(lines)


TABLES = {"named": named, "answered": answered}
