"""Make the tables of the paper's claims from the report's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from _tables.markdown import in_percent, table, with_interval
from phosphene.claims.formatting import undecided

FILE = "evidence/claims.json"
LITE2, RESNET = "efficientnet-lite2", "resnet18-objects"
MARKS = {"holds": "✓ holds", "fails": "✗ fails", "open": "○ open"}


def verdicts(found: Sequence[Mapping[str, Any]]) -> str:
    """Return each claim's verdict, and how many of its expectations hold."""
    lines = [["claim", "expectations that hold", "verdict"]]
    for claim in found:
        held = sum(each["verdict"] == "holds" for each in claim["expected"])
        name = f"{claim['claim']} {claim['title']}"
        lines.append([name, f"{held} of {len(claim['expected'])}", MARKS[claim["verdict"]]])
    return table(lines)


def expectations(name: str) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    """Return what makes the table of a claim's expectations."""

    def make(found: Sequence[Mapping[str, Any]]) -> str:
        """Return what was expected of a claim, and what was found."""
        lines = [["number", "what should lie above 0", "found", "verdict"]]
        for each in of(found, name)["expected"]:
            number = with_interval(each["found"], ".3f")
            verdict = each["verdict"]
            if more := undecided(each):
                verdict += f"; {more}, not {each['found']['n']:,}"
            lines.append([f"`{each['number']}`", each["says"], number, verdict])
        return table(lines)

    return make


def rows(
    name: str, columns: Mapping[str, tuple[str, str]], keep: Callable[[Any], bool] = bool
) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    """Return what makes a table of a claim's rows: the key and form of each column."""

    def make(found: Sequence[Mapping[str, Any]]) -> str:
        """Return some columns of a claim's rows."""
        lines = [[*columns]]
        for row in filter(keep, of(found, name)["rows"]):
            lines.append([cell(row.get(key), form) for key, form in columns.values()])
        return table(lines)

    return make


def cell(value: Any, form: str) -> str:
    """Return a number with its form, a name as code, and a dash for what was not measured."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return f"`{value}`" if form == "code" else value
    if isinstance(value, Mapping):
        return in_percent(value) if form == "%" else with_interval(value, form)
    return f"{value:{'.0%' if form == '%' else form}}"


def architectures(found: Sequence[Mapping[str, Any]]) -> str:
    """Return C4's shares named among five, by subject and prior."""
    priors = ("objects-fc6-equal", "resnet18-pool", "lite0-pool")
    lines = [["subject", *(f"`{prior}`" for prior in priors)]]
    for row in of(found, "C4")["rows"]:
        shares = [in_percent(row[f"top5, {prior}"]) for prior in priors]
        lines.append([f"`{row['subject']}`", *shares])
    return table(lines)


def detectors(found: Sequence[Mapping[str, Any]]) -> str:
    """Return C6's figures."""
    claim = of(found, "C6")
    numbers = claim["numbers"]
    channels = [len([unit for unit in claim["units"] if unit[key]])
                for key in ("detector", "detector_untrained")]  # fmt: skip
    copies = sum(row["object"].replace("_", " ") == "sea water" for row in claim["rows"])
    lines = [["figure", "value"]]
    lines.append([f"channels of {len(claim['units'])} that detect an object", str(channels[0])])
    lines.append(["… of the same network untrained", str(channels[1])])
    lines.append(["… that detect sea water", str(copies)])
    told = {
        "pictures": "detectors' pictures in which a classifier of crops sees the object",
        "exemplars": "… of their exemplars",
        "chance": "… by chance",
        "classifier": "crops about which this classifier is right",
    }
    lines += [[what, in_percent(numbers[key])] for key, what in told.items()]
    lines.append(["pictures less chance, by object", with_interval(numbers["by object"])])
    return table(lines)


def modified(found: Sequence[Mapping[str, Any]]) -> str:
    """Return C7's figures of each kind of modified twins."""
    lines = [["twins", "AUC of the linear probe", "what was measured", "found"]]
    for row in of(found, "C7")["rows"]:
        if "modification" in row:
            auc = with_interval(row["AUC of the reader on pictures"])
            lines.append([row["modification"], auc, row["measure"], with_interval(row["found"])])
    return table(lines)


def uses(found: Sequence[Mapping[str, Any]]) -> str:
    """Return C8's shares, use by use."""
    lines = [["use", "share", "value"]]
    for row in of(found, "C8")["rows"]:
        use = ", ".join(f"`{row[key]}`" if key == "subject" else row[key]
                        for key in ("use", "subject") if key in row)  # fmt: skip
        for key, value in row.items():
            if key in ("use", "subject"):
                continue
            shown = in_percent(value) if isinstance(value, Mapping) else f"{value:.0%}"
            if key.startswith("moved"):
                shown = with_interval(value) if isinstance(value, Mapping) else f"{value:.2f}"
            lines.append([use, SAID.get(key, key), shown])
    return table(lines)


SAID = {
    "goal_before": "judges that name the goal, before",
    "goal_after": "judges that name the goal, after",
    "moved": "distance to the photograph, climbed from there",
    "moved_from_random": "distance to the photograph, climbed from a random code",
    "a reader is right on photographs": "a linear probe is right on photographs",
    "and on pictures": "a linear probe is right on pictures",
}


def of(found: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Return the claim of a name."""
    return next(claim for claim in found if claim["claim"] == name)


TABLES = {
    "verdicts": verdicts,
    **{f"expected-C{i}": expectations(f"C{i}") for i in range(1, 9)},
    "C1": rows(
        "C1",
        {
            "pictures": ("prior", ""),
            "named first by Lite2": (f"top1, {LITE2}", "%"),
            "by `resnet18-objects`": (f"top1, {RESNET}", "%"),
            "kernel distance to photographs, Lite2": (f"KID, {LITE2}", ".3f"),
            "activation": ("activation", ".1f"),
        },
    ),
    "C2": rows(
        "C2",
        {
            "code": ("code", "code"),
            "image error": ("image error", ".3f"),
            "its climbs, named first by Lite2": (f"top1, {LITE2}", "%"),
            "by `resnet18-objects`": (f"top1, {RESNET}", "%"),
            "repetition": ("repetition", ".3f"),
        },
        lambda row: row["code"] != "photographs",
    ),
    "C3-objects": rows(
        "C3",
        {
            "prior": ("prior", "code"),
            "named first by Lite2": (f"top1, {LITE2}", "%"),
            "by `resnet18-objects`": (f"top1, {RESNET}", "%"),
        },
        lambda row: row["subject"] == "caffenet-objects",
    ),
    "C3-scenes": rows(
        "C3",
        {
            "prior": ("prior", "code"),
            "named first by `resnet18-scenes`": ("top1, resnet18-scenes", "%"),
            "among its first five": ("top5, resnet18-scenes", "%"),
        },
        lambda row: row["subject"] == "caffenet-scenes",
    ),
    "C4": architectures,
    "C5": rows(
        "C5",
        {
            "layer": ("layer", "code"),
            "right by the picture": ("choice, generator", "%"),
            "by Fourier's picture": ("choice, Fourier", "%"),
            "by the best photographs": ("choice, photographs", "%"),
            "by photographs at random": ("choice, nothing", "%"),
            "activation over the best photograph's": (
                "activation over the best photograph's, generator",
                ".2f",
            ),
        },
    ),
    "C6": detectors,
    "C7": modified,
    "C8": uses,
}
