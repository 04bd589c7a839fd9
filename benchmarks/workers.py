#!/usr/bin/env python3
"""Measure how many pictures one worker and two workers climb, and how exact an estimate is.

    python benchmarks/workers.py

Workers of this machine climb units of `caffenet-objects` with one thread each. The time counts from
the moment when each worker has climbed a first batch. The estimate is that of `--dry-run`, beside
the time and the largest memory of a process that then climbs what was estimated. The figures are
kept in `benchmarks/workers.json`, and `scripts/tables` writes them into `docs/throughput.md`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from phosphene.pictures import Request, climb_into, estimated
from phosphene.pictures.workers import started
from phosphene.priors import load_prior
from phosphene.records import Folder
from phosphene.runtime import peak_memory
from phosphene.subjects import load_subject
from phosphene.synthesis import Member, settings

KEPT = Path(__file__).with_suffix(".json")
SUBJECT, PRIOR, UNITS = "caffenet-objects", "objects-fc6", "fc8:0-95"
BATCH = 8
STEPS = 8


def asked() -> tuple[Request, Any, Any, list[Member]]:
    torch.set_num_threads(1)
    subject = load_subject(SUBJECT)
    prior = load_prior(PRIOR, subject)
    climb = settings("default", prior, steps=STEPS, tries=1)
    request = Request(SUBJECT, PRIOR, climb, precision="bfloat16", reading=3, fit=subject.fit)
    return request, subject, prior, [Member(each, 0) for each in subject.targets(UNITS)]


def pictures_a_second(count: int) -> float:
    """Return how many pictures so many workers climb in a second of the clock."""
    request, subject, prior, members = asked()
    with started(str(count)) as workers, tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place))

        def climb(some: Sequence[Member]) -> None:
            climb_into(folder, request, subject, prior, some, batch=BATCH, climber=workers)

        climb(members[: 2 * count * BATCH])
        begun = time.perf_counter()
        climb(members)
        return (len(members) - 2 * count * BATCH) / (time.perf_counter() - begun)


def foreseen(told: Any) -> None:
    """Tell what one process was expected to take for some pictures, and what it took."""
    request, subject, prior, members = asked()
    some = members[: 4 * BATCH]
    estimate = estimated(request, subject, prior, some, "random", BATCH)
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        climb_into(Folder(Path(place)), request, subject, prior, some, batch=BATCH)
        seconds = time.perf_counter() - begun
    bytes_ = {"foreseen": estimate.bytes, "taken": peak_memory()}
    told.send({"seconds": {"foreseen": estimate.seconds, "taken": seconds}, "bytes": bytes_})


def main() -> None:
    """Measure, and keep the figures."""
    os.environ["OMP_NUM_THREADS"] = "1"
    rates = {count: pictures_a_second(count) for count in (1, 2)}
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=foreseen, args=(there,))
    process.start()
    figures = {"rates": rates, "batch": BATCH, "steps": STEPS, "estimate": here.recv()}
    process.join()
    KEPT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
