#!/usr/bin/env python3
"""Compare variants of the default climb, one thing changed at a time.

    python benchmarks/climbs.py [--every 5] [--decay 0.98] [--judge resnet18-objects] [VARIANT …]

They climb on every fifth class of caffenet-objects. Printed are the unit's activation, the
subject's own probability of the class, how many pictures a second network names, and how far the
codes lie from the mean, in standard deviations. The second network is not the one that the docs'
figures are judged by.
"""

from __future__ import annotations

import argparse
import time

import torch

from phosphene.metrics import judge_channels, recognised
from phosphene.priors import load_generated
from phosphene.subjects import load_subject
from phosphene.synthesis import CLIMBS, Climb, Member, climb_all, joined
from phosphene.tensors import center_crop

DEFAULT = CLIMBS["default"]
VARIANTS: dict[str, Climb] = {
    "paper": CLIMBS["paper"],
    "default": DEFAULT,
    "short": CLIMBS["short"],
    "rate 0.1": DEFAULT.changed(rate=0.1),
    "rate 0.4": DEFAULT.changed(rate=0.4),
    "decay 0.96": DEFAULT.changed(decay=0.96),
    "decay 0.99": DEFAULT.changed(decay=0.99),
    "decay 0.995": DEFAULT.changed(decay=0.995),
    "probability": DEFAULT.changed(objective="probability"),
    "shift 4": DEFAULT.changed(shift=4),
    "cycle 0.05": DEFAULT.changed(cycle=0.05),
    "cycle 0.2": DEFAULT.changed(cycle=0.2),
    "100 steps": DEFAULT.changed(steps=100),
    "box": DEFAULT.changed(constraint="box"),
    "mean rule": DEFAULT.changed(optimizer="mean", rate=2.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--prior", default="objects-fc6")
    parser.add_argument("--judge", default="resnet18-objects")
    parser.add_argument(
        "--decay",
        type=float,
        default=DEFAULT.options["decay"],
        help="of the base that the variants change",
    )
    parser.add_argument("--precision", default="bfloat16")
    options = parser.parse_args()
    subject, generated = load_subject("caffenet-objects"), load_generated(options.prior)
    judge = load_subject(options.judge)
    channels = judge_channels(judge, subject.classes)
    classes = torch.arange(0, len(subject.classes), options.every)
    members = [Member(subject.targets(f"fc8:{i}")[0], 0) for i in classes.tolist()]
    mean, std = generated.statistics.mean, generated.statistics.std
    print("| climb | activation | probability | top-1 | top-5 | code | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in options.variants:
        begun, climb = time.monotonic(), VARIANTS[name]
        if climb.options["decay"] == DEFAULT.options["decay"]:
            climb = climb.changed(decay=options.decay)
        climbed = joined(
            list(climb_all(subject, members, generated, climb, precision=options.precision))
        )
        seconds = time.monotonic() - begun
        with torch.no_grad():
            sure = subject(center_crop(climbed.images, generated.view_size)).softmax(1)[
                torch.arange(len(classes)), classes
            ]
        top1, top5 = recognised(judge, climbed.images, classes, channels).mean(0).tolist()
        far = ((climbed.codes - mean) / std).square().mean().sqrt()
        figures = (
            f"{climbed.scores.mean():.1f} | {sure.mean():.2f} | {top1:.0%} | {top5:.0%} | {far:.2f}"
        )
        print(f"| {name} | {figures} | {seconds:.0f} |", flush=True)


main()
