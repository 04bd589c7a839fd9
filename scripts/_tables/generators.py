"""Make the tables of what was measured of the zoo's generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables.markdown import table, with_interval

FILE = "src/phosphene/zoo/figures.json"
JUDGE, OBJECTS = "efficientnet-lite2", "mini-imagenet"
COLUMNS = {
    "image error": ("image_error", ".3f"),
    "code error": ("code_error", ".3f"),
    "cosine": ("code_cosine", ".3f"),
    "class kept": ("class_kept", ".1%"),
    "named": ("recognised_top1", ".1%"),
    "distance": ("perceptual_distance", ".3f"),
    "KID": ("kid", ".3f"),
    "KID, random codes": ("kid_random_codes", ".3f"),
    "nearest, random codes": ("nearest_random_codes", ".3f"),
}
ORDER = ("objects-fc6", "objects-fc6-equal", "objects-fc7", "objects-pool5", "objects-conv3",
         "all-fc6", "resnet18-pool", "lite0-pool")  # fmt: skip


def objects(found: Mapping[str, Any]) -> str:
    """Return what was measured on photographs of objects."""
    lines = [["generator", *COLUMNS]]
    for name in ORDER:
        figures = of(found, name, JUDGE, OBJECTS)
        cells = [
            f"{figures[key]['value']:{form}}" if key in figures else "–"
            for key, form in COLUMNS.values()
        ]
        lines.append([f"`{name}`", *cells])
    return table(lines)


def photographs(found: Mapping[str, Any]) -> str:
    """Return the same two measures of held-out photographs."""
    figures = of(found, "objects-fc6", JUDGE, OBJECTS)
    named, nearest = figures["natural_top1"], figures["nearest_photographs"]
    return table([
        ["of the held-out photographs themselves", "value"],
        ["share whose class the judge names", with_interval(named, ".1%")],
        ["distance to the nearest of 2,000 training photographs", with_interval(nearest, ".3f")],
    ])  # fmt: skip


def scenes(found: Mapping[str, Any]) -> str:
    """Return what was measured of the generator of scenes."""
    figures = of(found, "scenes-fc6", "resnet18-scenes", "miniplaces-96")
    lines = [["what", "`scenes-fc6`"]]
    kept = {"image error": "image_error", "class kept": "class_kept"}
    for what, key in kept.items():
        form = ".1%" if key == "class_kept" else ".3f"
        lines.append([what, with_interval(figures[key], form)])
    named = with_interval(figures["recognised_top1"], ".1%")
    return table([*lines, ["named by `resnet18-scenes`", named]])


def of(found: Mapping[str, Any], name: str, judge: str, data: str) -> Mapping[str, Any]:
    """Return the figures of a generator that one judge gave on one set of photographs."""
    return next(
        each["figures"] for each in found[name] if (each["judge"], each["data"]) == (judge, data)
    )


TABLES = {"objects": objects, "photographs": photographs, "scenes": scenes}
