#!/usr/bin/env python3
"""How fast does a recipe train, and how much of the machine does it use?

    python benchmarks/training.py PHOTOGRAPHS [RECIPE …] [--device cpu] [--threads 0] [--seconds 60]

It measures each subject's recipe at each size of its crops, and the last stage of a generator's.
Printed are photographs a second, and the arithmetic that this is, as a share of what the machine's
matrix multiplication reaches in bfloat16 (measured first, on the same threads). The last number is
the share of the time in which the network waits for a batch.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from phosphene import datasets
from phosphene.networks import build
from phosphene.priors import load_generated
from phosphene.runtime import Runtime, deadline_in
from phosphene.subjects import load_subject
from phosphene.training.generator import train_generator
from phosphene.training.optimization import placed
from phosphene.training.recipes import RECIPES, read_recipe
from phosphene.training.stage import Waiting
from phosphene.training.subject import train_subject

BUNDLED = sorted(file.stem for file in RECIPES.glob("*.toml"))
"""Those that begin from another generator's weights have the same last stage as others."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs")
    parser.add_argument(
        "recipes",
        nargs="*",
        default=[name for name in BUNDLED if "init_from" not in read_recipe(name)],
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    train = datasets.load(options.photographs, "train", limit=4000)
    peak = matrix_multiplication(options.device)
    print(
        f"matrix multiplication: {peak / 1e9:,.0f} GFLOP/s in bfloat16 "
        f"({torch.get_num_threads()} threads)\n"
    )
    print("| recipe | pixels | images/s | GFLOP an image | share of the peak | waiting |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.recipes:
        recipe = read_recipe(name)
        kind = subject_rows if recipe["kind"] == "subject" else generator_rows
        for pixels, speed, work, waiting in kind(recipe, train, options):
            share = speed * work / peak
            print(
                f"| {name} | {pixels} | {speed:,.0f} | {work / 1e9:.2f} | {share:.0%} "
                f"| {waiting:.1%} |",
                flush=True,
            )


def matrix_multiplication(device: str, side: int = 4096, seconds: float = 3.0) -> float:
    """FLOP/s of the best of many products of two square bfloat16 matrices."""
    a, clock = torch.randn(side, side, device=device, dtype=torch.bfloat16), Waiting(device)
    times, begun = [], time.monotonic()
    while time.monotonic() - begun < seconds or len(times) < 3:
        at = clock.now()
        a @ a
        times.append(clock.now() - at)
    return 2 * side**3 / min(times)


def subject_rows(recipe: Any, train: datasets.Photographs, options: Any) -> Any:
    for size in dict.fromkeys(size for _, size in recipe["sizes"]):
        at_size = {
            **copy.deepcopy(recipe),
            "sizes": [[0.0, size]],
            "evaluate_every": 10**9,
            "extra": [],
        }
        network = placed(build(recipe["architecture"]), options.device)
        x = torch.zeros(2, 3, size, size, device=options.device)
        with FlopCounterMode(display=False) as counter:
            network(x).sum().backward()
        run = partial(train_subject, at_size, train, train)
        speed, waiting = rate(run, recipe["batch"], options)
        yield size, speed, counter.get_total_flops() / 2, waiting


def generator_rows(recipe: Any, train: datasets.Photographs, options: Any) -> Any:
    """Yield the rates of a generator's last stage.

    Arithmetic is counted without R1, where the counter cannot follow. So the share is a little low.
    """
    encoder, init_from = load_subject("caffenet-objects"), load_generated("objects-fc6")

    few = {**copy.deepcopy(recipe), "image": {**recipe["image"], "steps": 2, "r1": 0.0}}
    with FlopCounterMode(display=False) as counter, tempfile.TemporaryDirectory() as folder:
        train_generator(
            few, encoder, train, Runtime(Path(folder), options.device), init_from=init_from
        )
    run = partial(train_generator, init_from=init_from)
    speed, waiting = rate(partial(run, recipe, encoder, train), recipe["image"]["batch"], options)
    images = recipe["image"]["batch"] * few["image"]["steps"]
    yield recipe["architecture"]["size"], speed, counter.get_total_flops() / images, waiting


def rate(run: Any, batch: int, options: Any) -> tuple[float, float]:
    """Return a run's photographs a second, and its last share of waiting.

    The time is that between its first and its last report.
    """
    told: list[tuple[float, int, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        deadline = deadline_in(options.seconds)
        report = lambda step, steps, figures: told.append(  # noqa: E731
            (time.monotonic(), step, figures)
        )
        run(run=Runtime(Path(folder), options.device, deadline=deadline, progress=report))
    told = [each for each in told if "loss" in each[2]]
    if len(told) < 2:
        raise SystemExit("too slow for two reports, of every twentieth step; give more --seconds")
    (begun, first, _), (ended, last, figures) = told[0], told[-1]
    return batch * (last - first) / (ended - begun), figures["waiting"]


main()
