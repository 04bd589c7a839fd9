#!/usr/bin/env python3
"""Is this checkout as fast as another one, such as that of an earlier version?

    python benchmarks/versions.py OTHER_CHECKOUT [WORKLOAD …] [--photographs FOLDER] [--pairs 16]

The same workload runs in two processes, one for each checkout's `src`, on one thread of one core.
They take steps in turns, and each waits while the other one works, so both meet the same load. The
CPU time of a step is compared. A climb is for eight units, in float32 and in bfloat16. A subject,
and a generator in its last stage, are trained by bundled recipes with small batches, on photographs
that have the splits train and val. Loading and the first steps are not counted.

The table has the median time of a step in each checkout, and this checkout's time divided by the
other one's. That ratio is the mean of all pairs of processes, with its bootstrap interval; each
pair counts with the median of its turns. Two processes of the same code differ by 2 %, so the turns
of one pair tell too little. In small batches the fixed costs of a step count for more than in real
training.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

WARM_UP = 2
"""Steps that are not counted."""
UNITS = [f"fc8:{channel}" for channel in range(8)]
ENDLESS = 100_000
"""Steps or epochs, more than any measurement takes."""

AfterStep = Callable[..., None]
"""What a workload calls after each of its steps, with any arguments."""


def main() -> None:
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {options.core})
    print("| workload | pairs × turns | other, ms | this, ms | this / other |")
    print("| --- | --- | --- | --- | --- |")
    for workload in options.workloads:
        pairs = [turns(workload, options, number) for number in range(options.pairs)]
        print(row(workload, pairs), flush=True)


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("workloads", nargs="*", metavar="workload", help=", ".join(WORKLOADS))
    parser.add_argument("--photographs", type=Path, help="what is trained on")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of new processes")
    parser.add_argument("--turns", type=int, default=16, help="steps of each process")
    parser.add_argument("--core", type=int, default=0, help="the core on which all of it runs")
    options = parser.parse_intermixed_args()
    options.workloads = options.workloads or [
        name for name in WORKLOADS if options.photographs or name.startswith("climb")
    ]
    if not (options.other / "src" / "phosphene").is_dir():
        parser.error(f"{options.other} is no checkout: it has no folder src/phosphene")
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"no workload {min(unknown)!r}; there are: {', '.join(WORKLOADS)}")
    if not options.photographs and {"subject", "generator"} & set(options.workloads):
        parser.error("training needs --photographs")
    return options


def row(workload: str, pairs: list[list[tuple[float, float]]]) -> str:
    """Return a line of the table, from the turns of each pair of processes."""
    from phosphene.statistics import mean, median

    every_turn = [turn for pair in pairs for turn in pair]
    other, this = (1000 * median(seconds).value for seconds in zip(*every_turn, strict=True))
    ratio = mean([median([b / a for a, b in pair]).value for pair in pairs])
    found = f"{ratio.value:.3f} ({ratio.low:.3f} … {ratio.high:.3f})"
    return f"| {workload} | {len(pairs)} × {len(pairs[0])} | {other:.1f} | {this:.1f} | {found} |"


def turns(workload: str, options: argparse.Namespace, number: int) -> list[tuple[float, float]]:
    """Return a new pair's turns: the seconds of a step in the other checkout, and in this one.

    This checkout takes the first step in every second pair.
    """
    sources = [options.other / "src", Path(__file__).parents[1] / "src"]
    order = [0, 1] if number % 2 == 0 else [1, 0]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        pair = [
            Process(source.resolve(), workload, options.photographs, folder) for source in sources
        ]
        try:
            for i in order:
                for _ in range(WARM_UP):
                    pair[i].step()
            for _ in range(options.turns):
                seconds = {i: pair[i].step() for i in order}
                found.append((seconds[0], seconds[1]))
        finally:
            for each in pair:
                each.end()
    return found


class Process:
    """A process with the phosphene of one checkout, which takes a step when it is told to."""

    def __init__(self, source: Path, workload: str, photographs: Path | None, folder: str):
        self.log = tempfile.TemporaryFile("w+", dir=folder)  # noqa: SIM115
        code = "import sys, versions; versions.take_steps(*sys.argv[1:])"
        path = os.pathsep.join([str(source), str(Path(__file__).resolve().parent)])
        run = tempfile.mkdtemp(dir=folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, workload, str(source), str(photographs), run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def step(self) -> float:
        """Return the CPU seconds of one step; exit with the log where the process has ended."""
        try:
            print(file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass
        seconds = self.process.stdout.readline()
        if not seconds:
            self.log.seek(0)
            sys.exit(self.log.read())
        return float(seconds)

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()


def take_steps(workload: str, source: str, photographs: str, folder: str) -> None:
    """Take a step whenever a line comes in, and answer with its CPU seconds.

    This is what a `Process` runs. What phosphene prints goes to the log.
    """
    import torch

    import phosphene

    if not Path(phosphene.__file__).is_relative_to(source):
        sys.exit(f"{phosphene.__file__} was imported, which is not in {source}")
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdin.readline()
    begun = time.process_time()

    def after_step(*_: Any) -> None:
        nonlocal begun
        print(time.process_time() - begun, file=answers, flush=True)
        sys.stdin.readline()
        begun = time.process_time()

    WORKLOADS[workload](after_step, Path(photographs), Path(folder))


def climb(after_step: AfterStep, precision: str) -> None:
    """Climb with the default settings, for eight units of the output layer."""
    from phosphene.subjects import load_subject
    from phosphene.synthesis import CLIMBS, Member, climb_batch

    try:
        from phosphene.priors import load_generated
    except ImportError:  # version 0.1.0
        from phosphene.parameterizations import load_generated
    subject = load_subject("caffenet-objects")
    prior = load_generated("objects-fc6")
    members = [Member(subject.targets(unit)[0], 0) for unit in UNITS]
    settings = replace(CLIMBS["default"], steps=ENDLESS)
    climb_batch(subject, members, prior, settings, precision=precision, report=after_step)


def train_subject(after_step: AfterStep, photographs: Path, folder: Path) -> None:
    """Train as the recipe of caffenet-objects does, without measuring the accuracy on the way."""
    recipe = bundled_recipe("caffenet-objects")
    recipe |= {"batch": 16, "epochs": ENDLESS, "evaluate_every": ENDLESS, "snapshots": []}
    train(recipe, after_step, 1, photographs, folder)


def train_generator(after_step: AfterStep, photographs: Path, folder: Path) -> None:
    """Train as the last stage of objects-fc6 does, with the encoder as the comparator."""
    recipe = bundled_recipe("objects-fc6")
    stage = recipe["image"]
    lists = [key for key, value in stage.items() if "_blocks.2" in str(value)]
    stage |= {key: ["conv2"] for key in lists}  # the lists have other names in other versions
    stage |= {"comparator": "", "halvings": [3, 1], "batch": 4, "steps": ENDLESS}
    train(recipe, after_step, 2, photographs, folder, "--init-from", "objects-fc6")


def bundled_recipe(name: str) -> dict[str, Any]:
    """Return a recipe of the checkout's."""
    import phosphene

    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    file = Path(phosphene.__file__).parent / "recipes" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def train(
    recipe: dict[str, Any],
    after_step: AfterStep,
    optimizers: int,
    photographs: Path,
    folder: Path,
    *arguments: str,
) -> None:
    """Train with the command line, which every version has.

    A step ends with that of the last of its `optimizers`.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from phosphene.cli import main

    calls = 0

    def hook(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % optimizers == 0:
            after_step()

    register_optimizer_step_post_hook(hook)
    file = folder / "recipe.toml"
    file.write_text(as_toml(recipe), encoding="utf-8")
    sys.argv = ["phosphene", "train", recipe["kind"], str(file), *arguments]
    sys.argv += ["--images", str(photographs), "--run", str(folder / "run")]
    sys.argv += ["--device", "cpu", "--threads", "1"]
    main()


def as_toml(recipe: dict[str, Any]) -> str:
    """Return a recipe as TOML: its values, then its tables."""
    tables = {name: each for name, each in recipe.items() if isinstance(each, dict)}
    lines = [f"{key} = {json.dumps(recipe[key])}" for key in recipe if key not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(each)}" for key, each in table.items())]
    return "\n".join(lines)


WORKLOADS: dict[str, Callable[[AfterStep, Path, Path], None]] = {
    "climb-float32": lambda after_step, *_: climb(after_step, "float32"),
    "climb-bfloat16": lambda after_step, *_: climb(after_step, "bfloat16"),
    "subject": train_subject,
    "generator": train_generator,
}

if __name__ == "__main__":
    main()
