#!/usr/bin/env python3
"""How long is it from a generation's responses to the next pictures on the disk?

    python benchmarks/loop_latency.py [--generations 30] [--precision bfloat16] [OPTIMIZER …]

Of each generation of 40 pictures the time of the whole way is taken: responses into the log, the
search, the generator, PNG files and the manifest. In turns with it the generator alone draws the
same codes. Printed are both medians in milliseconds, the median ratio, and the median of the
processor's time for the whole way, which other programs on the machine change less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from phosphene.loops import Loop
from phosphene.loops.folder import write_block
from phosphene.priors import load_generated
from phosphene.synthesis import settings

OPTIMIZERS = ("evolution", "sphere", "genetic", "cholesky", "cma-es")


@torch.no_grad()
def measure(
    optimizer: str, generations: int, precision: str
) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of each generation: the whole way, the generator alone, the processor."""
    prior = load_generated("objects-fc6")
    climb = settings("evolution", prior, optimizer=optimizer, steps=generations + 1)
    whole = []
    alone = []
    worked = []
    with (
        tempfile.TemporaryDirectory() as place,
        Loop(prior, climb, Path(place), precision=precision) as loop,
    ):
        generation = loop.ask()
        while not loop.is_over:
            responses = generation.images.mean((1, 2, 3)).numpy()
            wanted = [generation.ids.index(each.picture) for each in generation.order]
            begun = time.perf_counter()
            at_work = time.process_time()
            loop.tell(responses[wanted])
            if loop.is_over:
                break
            generation = loop.ask()
            name = f"{generation.number:04}-00"
            write_block(Path(place, f"block-{name}"), generation, name, [loop.begun])
            whole.append(time.perf_counter() - begun)
            worked.append(time.process_time() - at_work)
            begun = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
                prior.images(generation.codes)
            alone.append(time.perf_counter() - begun)
    return whole, alone, worked


def main() -> None:
    """Print a row for each optimizer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("optimizers", nargs="*", default=OPTIMIZERS)
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--precision", default="bfloat16")
    options = parser.parse_args()
    print("| optimizer | whole way, ms | generator alone, ms | processor, ms | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for optimizer in options.optimizers:
        whole, alone, worked = measure(optimizer, options.generations, options.precision)
        ratio = statistics.median([one / other for one, other in zip(whole, alone, strict=True)])
        times = [f"{1000 * statistics.median(each):.0f}" for each in (whole, alone, worked)]
        print(f"| {optimizer} | {' | '.join(times)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
