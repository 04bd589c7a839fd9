#!/usr/bin/env python3
"""Measure what this checkout no longer spends, beside another one, such as an earlier commit.

    python benchmarks/waste.py OTHER_CHECKOUT [CASE …] [--turns 5] [--photographs FOLDER]

The same case runs in a new process of each checkout, in turns, on one thread. What counts is the
CPU time of the process, user and system, and its largest memory. A case that prints a number says
itself how many CPU seconds count, without those of loading. The figures are kept in
`benchmarks/waste.json`, and `scripts/tables` writes them into `docs/throughput.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CLONE = Path(__file__).parents[1]
KEPT = CLONE / "benchmarks" / "waste.json"
PHOSPHENE = "from phosphene.cli import main; main()"
TIMED = """
import time, torch
{before}
begun = time.process_time()
{work}
print(time.process_time() - begun)
"""

UNITS = """
import contextlib, io, sys
from phosphene.cli import main
sys.argv[1:] = "synthesize caffenet-objects conv5:0-63 --steps 0 --tries 1 --batch 4".split()
def run():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()
"""

CLIMB = """
from phosphene.priors import load_generated
from phosphene.subjects import load_subject
from phosphene.synthesis import CLIMBS, Member, climb_batch
torch.set_num_threads(1)
subject = load_subject("caffenet-objects")
prior = load_generated("objects-fc6")
members = [Member(each, 0) for each in subject.targets("fc8:7")]
def run(steps):
    climb = CLIMBS["default"].changed(steps=steps, tries=1)
    climb_batch(subject, members, prior, climb, precision="bfloat16")
run(3)
"""

CASES: dict[str, Sequence[str]] = {
    "`phosphene zoo list`": (PHOSPHENE, "zoo", "list"),
    "a wrong name: `phosphene layers caffenet-objectz`": (PHOSPHENE, "layers", "caffenet-objectz"),
    "loading the generator `objects-fc6`": (
        TIMED.format(
            before="from phosphene.priors import load_generated",
            work="load_generated('objects-fc6')",
        ),
    ),
    "one unit, one step: `synthesize caffenet-objects fc8:0 --steps 1`": (
        PHOSPHENE,
        "synthesize",
        "caffenet-objects",
        "fc8:0",
        "--steps",
        "1",
    ),
    "64 finished pictures in 16 batches: the same `synthesize` again": (
        TIMED.format(before=UNITS + "run()", work="run()"),
    ),
    "a climb of one unit, 50 steps in bfloat16, without loading": (
        TIMED.format(before=CLIMB, work="run(50)"),
    ),
}
"""What each process runs: Python's source, and its arguments."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("cases", nargs="*", metavar="case", help="words of the cases' names")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--photographs", type=Path, help="for the cases that look at some")
    options = parser.parse_intermixed_args()
    found = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    for name in chosen(options.cases):
        found[name] = compared(name, options)
        KEPT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(name, found[name], flush=True)


def chosen(words: Sequence[str]) -> list[str]:
    """Return the cases whose name holds one of some words; all without any."""
    return [name for name in CASES if not words or any(word in name for word in words)]


def compared(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return a case's medians in both checkouts, and the mean ratio of its turns."""
    turns = []
    for _ in range(options.turns):
        turns.append([measured(CASES[name], each, options) for each in (options.other, CLONE)])
    before, now = ([turn[i] for turn in turns] for i in range(2))
    ratios = [other[0] / own[0] for other, own in turns]
    return {
        "before": commit_of(options.other),
        "turns": options.turns,
        "seconds": [statistics.median(each[0] for each in side) for side in (before, now)],
        "megabytes": [statistics.median(each[1] for each in side) for side in (before, now)],
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def measured(
    case: Sequence[str], checkout: Path, options: argparse.Namespace
) -> tuple[float, float]:
    """Return the CPU seconds and the megabytes of a process that runs a case."""
    code, *arguments = case
    path = str((checkout / "src").resolve())
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        arguments = [each.format(photographs=options.photographs) for each in arguments]
        command = [sys.executable, "-c", code, *arguments]
        output = Path(folder, "output")
        with output.open("w") as out:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=out, stderr=subprocess.DEVNULL
            )
            _, _, usage = os.wait4(process.pid, 0)
        last = output.read_text(encoding="utf-8").strip().rpartition("\n")[2]
    try:
        seconds = float(last)
    except ValueError:
        seconds = usage.ru_utime + usage.ru_stime
    return seconds, usage.ru_maxrss / 1024


def commit_of(checkout: Path) -> str:
    """Return the abbreviated commit of a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
