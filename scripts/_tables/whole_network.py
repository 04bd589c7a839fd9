"""Make the table of an atlas of a whole network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables.markdown import table

FILE = "benchmarks/whole_network.json"


def built(found: Mapping[str, Any]) -> str:
    """Return what the climbs and the pages took."""
    heads = [
        "what",
        "units",
        "time, min",
        "CPU min",
        "MB",
        "MB of a worker",
        "files",
        "GB",
        "on disk",
    ]
    lines = [heads]
    climb, atlas = found["climb"], found["atlas"]
    for name, stage in (("`synthesize`", climb), ("`atlas`", atlas)):
        worker = stage["worker_megabytes"]
        lines.append(
            [
                name,
                f"{climb['pictures']:,}",
                f"{stage['seconds'] / 60:.1f}",
                f"{stage['cpu_seconds'] / 60:.1f}",
                f"{stage['megabytes']:,.0f}",
                f"{worker:,.0f}" if worker else "–",
                f"{stage['files']:,}",
                f"{stage['bytes'] / 1e9:.2f}",
                f"{stage['on_disk'] / 1e9:.2f}",
            ]
        )
    killed = climb["killed"]
    minutes = killed["after_seconds"] / 60
    told = f"{found['workers']} workers; one was killed after {minutes:.1f} minutes, when "
    return f"{table(lines)}\n\n{told}{killed['pictures']:,} pictures were there."


def opened(found: Mapping[str, Any]) -> str:
    """Return how long Chromium takes to open a page."""
    names = {"front": "front page", "layer": f"page of a layer of {found['units']:,} units"}
    lines = [["page", "KB of HTML", "CPU s", "until its pictures are there, s", "median, s"]]
    for key, name in names.items():
        page = found["opened"][key]
        times = [f"{page[each]:.2f}" for each in ("cpu_seconds", "seconds", "median_seconds")]
        lines.append([name, f"{page['bytes'] / 1e3:,.0f}", *times])
    return table(lines)


TABLES = {"built": built, "opened": opened}
