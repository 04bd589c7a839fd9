#!/usr/bin/env python3
"""Judge pictures of networks of a thousand classes, beside photographs.

    python benchmarks/thousand.py PHOTOGRAPHS RUN… --out docs/thousand.json

A RUN is a folder that `phosphene synthesize NETWORK OUTPUT:0,20,… --out RUN` wrote, of every
twentieth output unit. PHOTOGRAPHS is a folder with a val split, of ImageNet's classes. The networks
judge each other's pictures; EfficientNet-Lite2 judges all. A judge sees what the subject read, in 8
bits. It sees photographs at their full size, and made as small as the prior's pictures. Told are
the shares that are named first and among five, out of a thousand classes, with Wilson's intervals;
and the activation against that of the photographs: the highest of all, and the median of those of
the unit's class. A file that is there keeps what it says of other runs. CAFFE_NETWORKS is the
folder of the weights (see caffe_networks.py).
`scripts/tables` writes the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import datasets
from phosphene.files import write_json
from phosphene.images import contact_sheet, from_pixels, read_png, to_pixels, write_webp
from phosphene.metrics import recognised
from phosphene.statistics import share
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import as_images, resized

JUDGES = {
    "efficientnet-lite2": "Lite2",
    "python:caffe_networks:googlenet": "GoogLeNet",
    "python:caffe_networks:squeezenet": "SqueezeNet 1.1",
}
NAMES = {**JUDGES, "efficientnet-lite0": "EfficientNet-Lite0"}
BUNDLED = "objects-fc6"
SMALL = 84
"""Pixels a side of what a subject sees of the prior's pictures."""
TILE = 120
"""Pixels a side of a picture on a contact sheet."""
LARGE = 260
"""Pixels a side at which photographs are read, the most that a judge reads."""


def main() -> None:
    """Judge the runs and the photographs, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sheets", type=Path, help="folder for a contact sheet of each run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = judged(options.photographs, options.runs)
    if options.out.exists():
        found["shown"] = json.loads(options.out.read_text())["shown"] | found["shown"]
    write_json(options.out, found)
    if options.sheets:
        for run in options.runs:
            sheet(run, options.sheets)


def judged(photographs: str, runs: Sequence[Path]) -> dict[str, Any]:
    """Return what all judges say of all runs and of the photographs."""
    judges = {name: load_subject(name) for name in JUDGES}
    data = datasets.load(photographs, "val", size=LARGE)
    images = as_images(data.images)
    labels = torch.from_numpy(data.labels).long()
    small = resized(images, (SMALL, SMALL))
    sets = {f"photographs of {LARGE} pixels": images, f"photographs of {SMALL} pixels": small}
    found: dict[str, Any] = {"photographs": data.name, "number": len(data), "shown": {}}
    for what, shown in sets.items():
        found["shown"][what] = {n: named(judge, shown, labels) for n, judge in judges.items()}
    for run in runs:
        pictures, units, records = read_run(run)
        subject = load_subject(records[0]["request"]["subject"])
        seen = {
            name: named(judge, pictures, units)
            for name, judge in judges.items()
            if name != subject.name
        }
        seen["activation"] = activations(subject, images, labels, records)
        found["shown"][set_name(subject.name, records[0]["request"]["prior"])] = seen
    return found


def set_name(subject: str, prior: str) -> str:
    """Return what a run's pictures are called: their subject, and the prior if it is another."""
    return subject if prior == BUNDLED else f"{subject} through {prior}"


def read_run(run: Path) -> tuple[Tensor, Tensor, list[dict[str, Any]]]:
    """Return a run's pictures as the subject read them (n, 3, h, w), their units and records."""
    records = [json.loads(path.read_text()) for path in sorted(run.glob("*-s0.json"))]
    records.sort(key=lambda record: channel(record))
    pictures = [from_pixels(read_png(run / record["input"]), 3) for record in records]
    units = torch.tensor([channel(record) for record in records])
    return torch.from_numpy(np.stack(pictures)), units, records


def channel(record: Mapping[str, Any]) -> int:
    return int(record["target"].split(":")[1])


def named(judge: Subject, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the shares that a judge names first and among five, with intervals."""
    right = recognised(judge, images, labels, range(len(judge.classes)))
    return {
        "first": asdict(share(right[:, 0].tolist())),
        "five": asdict(share(right[:, 1].tolist())),
    }


@torch.no_grad()
def activations(
    subject: Subject, images: Tensor, labels: Tensor, records: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return the pictures' median activation over that of photographs, unit by unit."""
    answers = torch.cat([subject(part) for part in images.split(32)])
    scores = torch.tensor([record["input_score"] for record in records])
    units = torch.tensor([channel(record) for record in records])
    highest = answers[:, units].amax(0)
    own = [answers[labels == unit, unit] for unit in units.tolist()]
    of_class = [float(s / o.median()) for s, o in zip(scores, own, strict=True) if len(o)]
    return {
        "over highest": float((scores / highest).median()),
        "above highest": float((scores > highest).float().mean()),
        "over class": float(np.median(of_class)),
        "classes": len(of_class),
    }


def sheet(run: Path, folder: Path) -> None:
    """Write a contact sheet of a run's pictures."""
    pictures, _, records = read_run(run)
    tiles = [to_pixels(image.numpy()) for image in resized(pictures, (TILE, TILE))]
    titles = [record["label"] for record in records]
    write_webp(folder / f"thousand-{run.name}.webp", contact_sheet(tiles, titles, columns=10))


if __name__ == "__main__":
    main()
