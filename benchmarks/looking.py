#!/usr/bin/env python3
"""Measure how long a judge looks at a picture, by how many it is shown at once.

    python benchmarks/looking.py efficientnet-lite2 [JUDGE …] [--images 48] [--rounds 3]
        [--threads 1]

The time is a share of that for all of them at once. Pictures are noise of 96 pixels, the time is
the processor's, and the fastest round counts. The last number is of as many at once as phosphene
shows.
"""

from __future__ import annotations

import argparse
import time

import torch

from phosphene import metrics
from phosphene.subjects import Subject, load_subject


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("judges", nargs="+")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    images = torch.rand(asked.images, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    usual = metrics.PIXELS
    for name in asked.judges:
        judge = load_subject(name)
        height, width = judge.size
        all_at_once = 0.0
        for at_once in (asked.images, 16, 8, 4, 2, 1, 0):
            metrics.PIXELS = at_once * height * width or usual
            seconds = min(seconds_of(judge, images) for _ in range(asked.rounds))
            all_at_once = all_at_once or seconds
            print(f"{name:20} {at_once or 'as usual':>8} {seconds / all_at_once:.2f}", flush=True)


def seconds_of(judge: Subject, images: torch.Tensor) -> float:
    begun = time.process_time()
    metrics.features(judge, images)
    return time.process_time() - begun


if __name__ == "__main__":
    main()
