"""Make the tables of all output units beside photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from _tables.markdown import table, with_interval

FILE = "docs/outputs.json"
JUDGED = {
    "recognised_top1": ("named first, the pictures", ".1%"),
    "natural_top1": ("named first, 1,000 photographs held out", ".1%"),
    "recognised_top5": ("among the first five, the pictures", ".1%"),
    "natural_top5": ("among the first five, photographs", ".1%"),
    "two_afc_synthetic": ("two-alternative choice by the picture (one)", ".1%"),
    "two_afc_natural": ("… by the nine best photographs", ".1%"),
    "two_afc_none": ("… by nine photographs at random", ".1%"),
    "kid": ("kernel distance of pictures to exemplars", ".3f"),
    "kid_photographs": ("kernel distance of other photographs to exemplars", ".3f"),
    "distance_exemplars": ("distance of a picture to its exemplars", ".3f"),
    "distance_control": ("… to the untrained network's picture", ".3f"),
    "distance_random_codes": ("… to images of random codes", ".3f"),
    "prior_share": ("share that the prior explains (untrained network)", ".1%"),
    "prior_share_random_codes": ("share that the prior explains (random codes)", ".1%"),
}
SUBJECT = {
    "activation_ratio": (
        "activation on the picture over that on the best of 50,000 photographs, median",
        ".2f",
    ),
    "activation_ratio_above_1": (
        "units whose picture excites them more than that photograph",
        ".0%",
    ),
    "selectivity_first": ("units that are the first of their layer on their own picture", ".0%"),
    "exemplar_selectivity_first": (
        "units that are the first of their layer on all nine of their exemplars",
        ".0%",
    ),
}
SHORT = {"efficientnet-lite2": "EfficientNet-Lite2"}


def judged(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what both judges say."""
    lines = [["", *(SHORT.get(each["judge"], f"`{each['judge']}`") for each in found)]]
    for key, (what, form) in JUDGED.items():
        lines.append([what, *(with_interval(each["figures"][key], form) for each in found)])
    return table(lines)


def subject(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what the subject itself answers."""
    figures = found[0]["figures"]
    lines = [["by the subject", "value"]]
    lines += [[what, with_interval(figures[key], form)] for key, (what, form) in SUBJECT.items()]
    return table(lines)


def short(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the short form of the first page: pictures beside photographs, by the first judge."""
    figures = {key: each["value"] for key, each in found[0]["figures"].items()}
    nothing = figures["two_afc_none"]
    return table([
        ["", "pictures", "photographs"],
        ["class named first by another network, EfficientNet-Lite2",
         f"{figures['recognised_top1']:.0%}", f"{figures['natural_top1']:.0%}"],
        ["activation, against the best of 50,000 photographs",
         f"{figures['activation_ratio']:.2f} times", "1"],
        ["an observer that is shown the picture, or the nine best photographs, picks the "
         f"photograph that excites the unit more (nine at random: {nothing:.0%})",
         f"{figures['two_afc_synthetic']:.1%}", f"{figures['two_afc_natural']:.1%}"],
    ])  # fmt: skip


TABLES = {"judged": judged, "subject": subject, "short": short}
