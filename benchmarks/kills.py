"""Does a run that is killed at random moments end with the same bits as one that is left alone?

python benchmarks/kills.py subject caffenet-objects --data mini-imagenet --kills 10
python benchmarks/kills.py generator from-teacher --images mini-imagenet --layer fc6 --kills 10

It gives a `phosphene train` command twice: left alone, and killed by SIGKILL so many times and
given again. Each moment is drawn from the time that the first step and a fifth of the rest took.
After the first step it is counted from there, so that a busy machine, which starts slowly, does not
have them all before it. Printed is what each kill left behind.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.utils.tensorboard

import phosphene.training.generator
import phosphene.training.subject  # noqa: F401
from phosphene.cli import main


def train(
    run: Path, arguments: list[str], before: float | None = None, after: float | None = None
) -> tuple[float, float, bool]:
    """Train in a process of its own, which is killed `before` seconds after its start.

    Or it is killed `after` seconds after its first step.

    Returns how long it took to its first checkpoint and in all, and whether it ended by itself.
    """
    kept = written(run)
    first, begun, child = 0.0, time.monotonic(), os.fork()
    if child == 0:
        run.mkdir(parents=True, exist_ok=True)
        log = os.open(run / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["phosphene", "train", *arguments, "--run", str(run)]
        try:
            main()
        except SystemExit as error:
            os._exit(int(error.code or 0))
        os._exit(0)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        took = time.monotonic() - begun
        if not first and written(run) != kept:
            first = took
        if ended:
            if status:
                sys.exit((run / "output.txt").read_text())
            return first, took, True
        if (before is not None and took > before) or (
            after is not None and first and took - first > after
        ):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return first, took, False
        time.sleep(0.005)


def checkpoints(run: Path) -> list[Path]:
    """Of the run's stages, a subject's only one among them; the newest is the last."""
    return sorted(run.glob("**/checkpoint.pt"), key=lambda file: file.stat().st_mtime_ns)


def written(run: Path) -> int:
    """When the run's last checkpoint was written, in nanoseconds; 0 before the first."""
    files = checkpoints(run)
    return files[-1].stat().st_mtime_ns if files else 0


def step(run: Path) -> int:
    """The step of the run's last checkpoint."""
    files = checkpoints(run)
    return int(torch.load(files[-1], weights_only=True)["step"]) if files else 0


def stage(run: Path) -> str:
    """Of which stage that is, where the run has several: each counts its steps from one."""
    files = checkpoints(run)
    return f" of {files[-1].parent.name}" if files and files[-1].parent != run else ""


def digest(run: Path) -> str:
    """Of the trained network and its snapshots."""
    whole = hashlib.sha256()
    for file in sorted(run.glob("*.safetensors")):
        whole.update(file.name.encode() + file.read_bytes())
    return whole.hexdigest()


def kills() -> bool:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command", nargs=2, metavar="subject|generator RECIPE", help="and its own options"
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--threads", default="0")
    parser.add_argument("--seed", type=int, default=0)
    options, others = parser.parse_known_args()
    arguments = [*options.command, *others, "--threads", options.threads]
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = Path(folder, "alone"), Path(folder, "killed")
        first, took, _ = train(alone, arguments)
        print(
            f"left alone: {took:.1f} s, {step(alone)} steps, sha256 {digest(alone)[:16]}…",
            flush=True,
        )
        for n in range(options.kills):
            moment = moments.uniform(0, first + (took - first) / 5)
            early = (
                moment < first and n % 2 == 0
            )  # every second run comes to a step at least, however slow the machine
            patience = {"before": moment} if early else {"after": max(0.0, moment - first)}
            _, lived, ended = train(killed, arguments, **patience)
            if ended:
                sys.exit(f"the run ended before kill {n + 1}")
            at = f"step {step(killed)}{stage(killed)}"
            print(f"kill {n + 1}: after {lived:.2f} s, its checkpoint at {at}", flush=True)
        _, took, _ = train(killed, arguments)
        print(
            f"the rest: {took:.1f} s, {step(killed)} steps, sha256 {digest(killed)[:16]}…",
            flush=True,
        )
        same = digest(alone) == digest(killed)
    print("the same bits" if same else "NOT the same bits")
    return same


if __name__ == "__main__":
    sys.exit(0 if kills() else 1)
