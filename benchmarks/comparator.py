#!/usr/bin/env python3
"""Measure what a comparator still names of photographs at each size, and what that costs.

    python benchmarks/comparator.py PHOTOGRAPHS [--comparator efficientnet-lite0] [--pixels 96]
        [--sizes 96 128 160 224]

Held-out photographs of the generator's size in `--pixels` are resized to each size. Printed are the
shares whose class the comparator names among those of the photographs (top-1, top-5) and among all
of its own, and milliseconds for each.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
import torch.nn.functional as F

from phosphene import datasets
from phosphene.metrics import judge_channels
from phosphene.subjects import load_subject
from phosphene.tensors import as_images
from phosphene.training.optimization import mixed_precision


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs")
    parser.add_argument("--comparator", default="efficientnet-lite0")
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128, 160, 224])
    parser.add_argument("--number", type=int, default=1000)
    options = parser.parse_args()
    comparator = load_subject(options.comparator)
    val = datasets.load(options.photographs, "val", limit=options.number)
    channels = torch.tensor(judge_channels(comparator, val.classes))
    own = channels[torch.from_numpy(val.labels)]
    x = F.interpolate(as_images(val.images), options.pixels, mode="bilinear", align_corners=False)
    print(
        "| pixels | top-1 | top-5 | top-1 of all | milliseconds |\n| --- | --- | --- | --- | --- |"
    )
    for size in options.sizes:
        shown = replace(comparator, size=(size, size))
        with torch.no_grad(), mixed_precision("cpu"):
            comparator.network(shown.prepare(x[:20]))  # the first time takes longer
            begun = time.monotonic()
            logits = torch.cat(
                [comparator.network(shown.prepare(part)).float() for part in x.split(20)]
            )
        took = (time.monotonic() - begun) / len(x)
        named = channels[logits[:, channels].topk(5).indices] == own[:, None]
        shares = [named[:, 0], named.any(1), logits.argmax(1) == own]
        row = " | ".join(f"{share.float().mean():.1%}" for share in shares)
        print(f"| {size} | {row} | {1000 * took:.1f} |", flush=True)


main()
