"""Make the tables of the enlarger."""

from __future__ import annotations

from typing import Any

from _tables.markdown import table

FILE = "docs/enlarger.json"
GOOGLENET, SQUEEZENET = "python:caffe_nets:googlenet", "python:caffe_nets:squeezenet"
JUDGES = {"efficientnet-lite2": "Lite2", GOOGLENET: "GoogLeNet", SQUEEZENET: "SqueezeNet 1.1"}
CLIMBS = {
    f"climbs of {GOOGLENET}": "units of GoogLeNet",
    "climbs of efficientnet-lite0": "units of EfficientNet-Lite0",
}
SETS = {
    **CLIMBS,
    "reconstructions": "reconstructions",
    "photographs made small": "photographs made small",
}
WAYS = ("bicubic", "enlarged", "climbed through it")


def cell(judge: str, seen: dict[str, Any] | None) -> str:
    """Return the shares named first and among five, and the KID.

    The KID of SqueezeNet is left out, since it has no scale.
    """
    if seen is None:
        return "–"
    shares = [f"{seen[part]['value']:.0%}" for part in ("first", "five")]
    return ", ".join(shares if judge == SQUEEZENET else [*shares, f"{seen['kid']['value']:.3f}"])


def by_set(found: dict[str, Any]) -> str:
    """Return the table of each set of pictures by each way of enlarging."""
    heads = ["what", "way", "finest detail", *JUDGES.values(), "unit's activation"]
    lines = [heads]
    for key, name in SETS.items():
        for way in filter(found[key].__contains__, WAYS):
            row = found[key][way]
            seen = [cell(judge, row.get(judge)) for judge in JUDGES]
            activation = found[key].get("activation", {}).get(way)
            told = "–" if activation is None else f"{value(activation):.1f}"
            lines.append([name, way, f"{row['detail']:.0%}", *seen, told])
    return table(lines)


def pooled(found: dict[str, Any]) -> str:
    """Return how often pictures of climbs are named, over all pairs of a subject and a judge."""
    lines = [["way", "named first", "named among five"]]
    for way in WAYS:
        seen = [found[key][way][judge] for key in CLIMBS for judge in JUDGES
                if judge in found[key][way]]  # fmt: skip
        shares = [
            sum(each[part]["value"] for each in seen) / len(seen) for part in ("first", "five")
        ]
        lines.append([way, *(f"{share:.0%}" for share in shares)])
    return table(lines)


def activations(found: dict[str, Any]) -> str:
    """Return units' mean activations on the picture climbed through it, and on the small one."""
    lines = [["units of", "activation, climbed through it", "activation on the small picture"]]
    for key, name in CLIMBS.items():
        each = found[key]["activation"]
        numbers = [f"{value(each[way]):.1f}" for way in ("climbed through it", "small")]
        lines.append([name.removeprefix("units of "), *numbers])
    return table(lines)


def value(figure: Any) -> float:
    """Return a figure's value, or a plain number as it is."""
    return float(figure["value"] if isinstance(figure, dict) else figure)


TABLES = {"sets": by_set, "pooled": pooled, "activations": activations}
