#!/usr/bin/env python3
"""Does a closed loop that is killed at random moments lose a response, or count one twice?

    python benchmarks/loop_kills.py [--kills 1000]

A search by a tiny generator is run twice with the same simulated neuron: left alone, and in
processes that are killed by SIGKILL at random moments until so many were. Responses are told in
pieces of five. Then both logs must have the same pictures, the same order and the same scores, and
each response once.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from phosphene.loops import Loop, Noise
from phosphene.loops.session import Session
from phosphene.loops.simulated import responses
from phosphene.synthesis import Climb
from phosphene.testing import tiny_generated

CLIMB = Climb.of(optimizer="evolution", constraint="none", decay=1.0, steps=400, population=10)


def brightness(images: torch.Tensor) -> Any:
    """Answer how red a picture is."""
    return images.mean((2, 3))[:, :1].double().numpy()


def search(folder: Path, prior: Any) -> None:
    """Run the search from where its log ends."""
    noise = Noise(multiplicative=0.2)
    with Loop(prior, CLIMB, folder, repeats=2) as loop:
        while not loop.is_over:
            generation = loop.ask()
            rows, _ = responses(brightness, generation.wanted, generation.order, noise, 0)
            for at in range(0, len(rows), 5):
                loop.tell(rows[at : at + 5], done=False)


def killed(folder: Path, prior: Any, seconds: float) -> bool:
    """Search in a process of its own, killed after so many seconds; return whether it was."""
    child = os.fork()
    if child == 0:
        search(folder, prior)
        os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                sys.exit(f"the search ended with status {status}")
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def told(folder: Path) -> tuple[list[Any], list[Any]]:
    """Return what a log says of pictures, orders and scores, and all responses that were told."""
    session = Session(folder)
    session.close()
    kept = [
        {key: event[key] for key in event.keys() - {"time"}}
        for event in session.events
        if event["event"] in ("shown", "scored")
    ]
    rows = [tuple(row) for event in session.events for row in event.get("responses", ())]
    return kept, rows


def main() -> None:
    """Run both searches and compare their logs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    prior = tiny_generated()
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        alone, folder = Path(place, "alone"), Path(place, "killed")
        begun = time.monotonic()
        search(alone, prior)
        pace = (time.monotonic() - begun) / options.kills
        kills = 0
        while kills < options.kills:
            before = len(told(folder)[1])
            if not killed(folder, prior, moments.uniform(0, 0.1) + moments.uniform(0, pace)):
                sys.exit(f"the search ended after {kills} kills; give more generations")
            kills += 1
            if len(told(folder)[1]) < before:
                sys.exit(f"kill {kills} lost a response")
        search(folder, prior)
        shown, rows = told(folder)
        same = (shown, sorted(rows)) == (told(alone)[0], sorted(told(alone)[1]))
    twice = len(rows) - len({row[:3] for row in rows})
    print(f"{kills} kills, {len(rows):,} responses, {twice} twice; the logs are "
          + ("the same" if same else "NOT the same"))  # fmt: skip
    sys.exit(0 if same and not twice else 1)


if __name__ == "__main__":
    main()
