#!/usr/bin/env python3
"""Compare searches without gradients under the noise of trials.

    python benchmarks/evolution.py [OPTIMIZER …] --out evolution.json [--units 10] [--seeds 5]

The units are evenly spaced channels of seven layers of caffenet-objects. Each search shows 3,000
pictures in generations of 40. A trial's response is score × max(0, 1 + σ·N(0, 1)), for σ = 0, 0.2
and 0.5 (Wang & Ponce 2022). Two clean scores are kept: (a) the best of all pictures that were
shown, (b) that of the picture which the search hands over. Both are divided by the best score of
the gradient climb from eight seeds, which does not move with the set of searches. Finished runs are
kept in the file, so the command can be stopped and given again. Searches take turns.
`scripts/tables` writes the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phosphene.files import write_json
from phosphene.loops.simulated import Noise, neuron_of
from phosphene.priors import Prior, load_generated
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import Climb, Member, climb_batch, settings
from phosphene.tensors import center_crop

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc8")
SIGMAS = (0.0, 0.2, 0.5)
SEARCHES: dict[str, dict[str, Any]] = {
    "surrogate": {"features": "resnet18-objects"},
    "evolution": {},
    "genetic": {},
    "cholesky": {},
    "diagonal CMA-ES": {"optimizer": "cma-es", "covariance": "diagonal"},
    "full CMA-ES": {"optimizer": "cma-es", "covariance": "full"},
    "noisy CMA-ES": {"optimizer": "cma-es", "covariance": "noisy"},
    "sphere": {},
}


def jobs(
    subject: Subject, units: int, seeds: int, searches: list[str], sigmas: list[float]
) -> Iterator[dict[str, Any]]:
    """Yield the runs, so that every part of the table grows at once."""
    shapes = subject.shapes()
    for seed in range(seeds):
        for place in range(units):
            for layer in LAYERS:
                channel = (2 * place + 1) * shapes[layer][0] // (2 * units)
                for sigma in sigmas:
                    for search in searches:
                        unit = f"{layer}:{channel}"
                        yield {"search": search, "unit": unit, "sigma": sigma, "seed": seed}


@torch.no_grad()
def run(subject: Subject, prior: Prior, job: Mapping[str, Any], generations: int) -> dict[str, Any]:
    """Return the clean scores that a search came to, and its seconds of the processor."""
    changes = {"optimizer": job["search"], **SEARCHES[job["search"]]}
    climb = settings("evolution", prior, steps=generations, **changes)
    optimizer = climb.make_optimizer()
    neuron = neuron_of(subject, subject.targets(job["unit"]), "bfloat16")
    noise = Noise(multiplicative=job["sigma"])
    rng = np.random.default_rng([job["seed"], round(100 * job["sigma"])])

    def clean(codes: torch.Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            images = prior.images(codes).float()
        return neuron(center_crop(images, prior.view_size).clamp(0, 1))

    begun = time.process_time()
    best = -float("inf")
    optimizer.begin(prior.start(job["seed"])[None], prior, generations, [job["seed"]])
    for _ in range(generations):
        codes = optimizer.ask()
        scores = clean(codes[0])
        best = max(best, float(scores.max()))
        told = torch.from_numpy(noise(scores, rng)[:, 0])[None]
        optimizer.tell(codes, told.float(), no_gradient)
    preferred = float(clean(optimizer.current())[0, 0])
    seconds = time.process_time() - begun
    return {**job, "best": best, "preferred": preferred, "seconds": seconds}


def no_gradient() -> torch.Tensor:
    """Refuse: none of the searches may ask for a gradient."""
    sys.exit("a search asked for a gradient")


def ceiling(subject: Subject, prior: Prior, unit: str) -> float:
    """Return the best score of the default gradient climb from eight seeds."""
    members = [Member(subject.targets(unit)[0], seed) for seed in range(8)]
    climb: Climb = settings("default", prior)
    found = climb_batch(subject, members, prior, climb, precision="bfloat16")
    return float(found.scores.max())


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("search", "unit", "sigma", "seed"))


def main() -> None:
    """Run what the file lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("searches", nargs="*", default=[*SEARCHES])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--units", type=int, default=10, help="of each layer")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sigmas", type=float, nargs="*", default=[*SIGMAS])
    parser.add_argument("--generations", type=int, default=75)
    options = parser.parse_args()
    found = {"runs": [], "ceilings": {}}
    if options.out.exists():
        found = json.loads(options.out.read_text())
    if unknown := set(options.searches) - SEARCHES.keys():
        sys.exit(f"no search {unknown.pop()!r}; there are: {', '.join(SEARCHES)}")
    subject = load_subject("caffenet-objects")
    prior = load_generated("objects-fc6")
    done = {key(row) for row in found["runs"]}
    for job in jobs(subject, options.units, options.seeds, options.searches, options.sigmas):
        if key(job) in done:
            continue
        if job["unit"] not in found["ceilings"]:
            found["ceilings"][job["unit"]] = ceiling(subject, prior, job["unit"])
        found["runs"].append(run(subject, prior, job, options.generations))
        write_json(options.out, found)
        print(found["runs"][-1], flush=True)


if __name__ == "__main__":
    main()
