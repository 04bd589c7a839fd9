"""Make the table of what commands no longer spend."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from _tables.markdown import table

FILE = "benchmarks/waste.json"


def spent(found: Mapping[str, Any]) -> str:
    """Return time and memory of each case, before and now."""
    heads = ["what", "before, CPU s", "now, CPU s", "before ÷ now", "before, MB", "now, MB"]
    lines = [heads]
    for name, case in found.items():
        seconds = [f"{each:.2f}" for each in case["seconds"]]
        megabytes = [f"{each:,.0f}" for each in case["megabytes"]]
        lines.append([name, *seconds, f"{statistics.median(case['ratios']):.2f}", *megabytes])
    return table(lines)


TABLES = {"spent": spent}
