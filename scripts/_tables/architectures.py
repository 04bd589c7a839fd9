"""Make the tables of C4 on networks of other architectures, from the results of its command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from _tables.markdown import in_percent, table, with_interval
from _tables.thousand import NAMES
from phosphene.claims.formatting import undecided

FILE = "docs/architectures.json"


def expected(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what was found of each subject, with the verdict."""
    lines = [["subject", "prior", "encoder's pictures less the subject's", "verdict"]]
    for claim in found:
        (each,) = claim["expected"]
        verdict = each["verdict"]
        if more := undecided(each):
            verdict += f"; {more}, not {each['found']['n']:,}"
        prior = f"`{claim['identity']['prior']}`"
        lines.append([subject(claim), prior, with_interval(each["found"]), verdict])
    return table(lines)


def named(found: Sequence[Mapping[str, Any]]) -> str:
    """Return how often each judge names the pictures first: the encoder's, and the subject's."""
    lines = [["subject", "judge", "its encoder's pictures", "the subject's", "photographs"]]
    for claim in found:
        for judge in claim["identity"]["judges"]:
            shares = [in_percent(row[f"top1, {judge}"]) for row in claim["rows"]]
            lines.append([subject(claim), NAMES[judge], *shares])
    return table(lines)


def subject(claim: Mapping[str, Any]) -> str:
    """Return the name of the network that a result is of."""
    return NAMES[claim["identity"]["subject"].partition(":160")[0]]


TABLES = {"expected": expected, "named": named}
