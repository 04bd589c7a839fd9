"""Make the tables of networks of a thousand classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import Any

from _tables.markdown import table

FILE = "docs/thousand.json"
JUDGES = {
    "efficientnet-lite2": "Lite2",
    "python:caffe_networks:googlenet": "GoogLeNet",
    "python:caffe_networks:squeezenet": "SqueezeNet 1.1",
}
BUNDLED = "objects-fc6"
THROUGH = " through "
NAMES = {**JUDGES, "efficientnet-lite0": "EfficientNet-Lite0"}


def named(found: Mapping[str, Any]) -> str:
    """Return how often each judge names each set of pictures."""
    lines = [["pictures", *[f"{name}: first, five" for name in JUDGES.values()]]]
    for what, seen in bundled(found).items():
        lines.append([NAMES.get(what, what), *[cell(seen.get(judge)) for judge in JUDGES]])
    return table(lines)


def bundled(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is shown but for pictures through other priors than the bundled one."""
    return {what: seen for what, seen in found["shown"].items() if THROUGH not in what}


def priors(found: Mapping[str, Any]) -> str:
    """Return how often pictures of the same units are named through each prior."""
    lines = [["network", "prior", *[f"{name}: first, five" for name in JUDGES.values()], "answer"]]
    for what in [name for name in found["shown"] if THROUGH in name]:
        subject, prior = split(what)
        for name, seen in ((BUNDLED, found["shown"][subject]), (prior, found["shown"][what])):
            judged = [cell(seen.get(judge)) for judge in JUDGES]
            ratio = f"{seen['activation']['over highest']:.2f}"
            lines.append([NAMES[subject], f"`{name}`", *judged, ratio])
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
    for what, seen in bundled(found).items():
        if told := seen.get("activation"):
            ratios = [f"{told['over highest']:.2f}", f"{told['above highest']:.0%}"]
            lines.append([NAMES[what], *ratios, f"{told['over class']:.2f}"])
    return table(lines)


def split(name: str) -> tuple[str, str]:
    """Return the network and the prior of a set of pictures."""
    network, _, prior = name.partition(THROUGH)
    return network, prior


def shares(seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return both shares of several sets of one size, joined, with one standard error."""
    found = []
    for top in ("first", "five"):
        share = fmean(each[top]["value"] for each in seen)
        error = sqrt(share * (1 - share) / sum(each[top]["n"] for each in seen))
        found.append(f"{share:.0%} ± {error:.1%}")
    return found


def joined(found: Mapping[str, Any]) -> str:
    """Return how often pictures through each prior are named, of all networks and judges."""
    through = [name for name in found["shown"] if THROUGH in name]
    names = {prior: [n for n in through if n.endswith(prior)] for _, prior in map(split, through)}
    lines = [["prior", "verdicts", "named first", "among five"]]
    for prior, sets in names.items():
        for name, own in ((BUNDLED, [split(each)[0] for each in sets]), (prior, sets)):
            seen = [told[j] for told in map(found["shown"].get, own) for j in JUDGES if j in told]
            lines.append([f"`{name}`", f"{sum(s['first']['n'] for s in seen):,}", *shares(seen)])
    return table(lines)


TABLES = {"named": named, "answered": answered, "priors": priors, "joined": joined}
