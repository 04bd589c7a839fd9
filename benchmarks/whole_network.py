#!/usr/bin/env python3
"""Build an atlas of every channel of a ResNet-50 with two workers, one of which is killed.

    python benchmarks/whole_network.py FOLDER [LAYER …] [--workers 2]

The network is `torchvision:resnet50@random` for images of 32 pixels, which keep its weights as they
are. The layers are all convolutions of its main path, 22,720 channels, unless some are named. When
half of the pictures are there, the worker with the most memory is killed by SIGKILL. What counts is
the time of the clock and of the CPU, the largest memory of each process, the size of the pages, and
how long Chromium takes to open two of them. The figures are kept in
`benchmarks/whole_network.json`, and `scripts/tables` writes them into `docs/many-machines.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
KEPT = Path(__file__).with_suffix(".json")
PHOSPHENE = [sys.executable, "-m", "phosphene"]
SUBJECT = "python:whole_network:resnet50"
CLIMB = ["--prior", "pixels", "--steps", "2", "--tries", "1", "--batch", "128"]
CPU = ["--device", "cpu", "--precision", "bfloat16"]
BLOCKS = (3, 4, 6, 3)
PAUSE = 2
"""Seconds between looks at a command, which take CPU time as well."""
TURNS = 20
"""How often Chromium opens each page."""


def resnet50() -> tuple[Any, dict[str, Any]]:
    """Return the network, untrained, and how it reads images."""
    from torchvision.models import resnet50

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return resnet50(weights=None), {"size": 32, "mean": mean, "std": std, "output": "fc"}


def convolutions() -> list[str]:
    """Return the names of all convolutions but those of shortcuts."""
    places = [(i + 1, j) for i, count in enumerate(BLOCKS) for j in range(count)]
    return ["conv1", *(f"layer{i}.{j}.conv{k}" for i, j in places for k in (1, 2, 3))]


class Watched:
    """Run a command, and tell what it and the processes that it starts take."""

    def __init__(self, command: Sequence[str], folder: Path):
        paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=folder, env=environment)
        self.of: dict[int, dict[str, float]] = {}

    def running(self) -> bool:
        """Look at all processes; return whether the command still runs."""
        for each in self.processes():
            try:
                spent = each.cpu_times()
                memory = each.memory_info().rss / 1e6
            except psutil.Error:
                continue
            most = max(memory, self.of.get(each.pid, {}).get("megabytes", 0.0))
            self.of[each.pid] = {"cpu_seconds": spent.user + spent.system, "megabytes": most}
        return self.process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Return the command's process, then the others."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *own.children(recursive=True)]
        except psutil.Error:
            return []

    def told(self) -> dict[str, Any]:
        """Return what the command took; leave with a line where it failed."""
        if self.process.returncode:
            sys.exit(f"{self.process.args} failed with exit code {self.process.returncode}")
        own, *others = (self.of[pid] for pid in self.of)
        return {
            "seconds": time.perf_counter() - self.begun,
            "cpu_seconds": sum(each["cpu_seconds"] for each in self.of.values()),
            "megabytes": own["megabytes"],
            "worker_megabytes": max((each["megabytes"] for each in others), default=0.0),
        }


def climbed(folder: Path, units: Sequence[str], workers: int) -> dict[str, Any]:
    """Climb with workers, of which one is killed in the middle; return what that took."""
    run = folder / "run"
    count = sum(channels(each) for each in units)
    asked = [f"{layer}:all" for layer in units]
    more = ["--workers", str(workers), "--out", str(run)]
    watched = Watched([*PHOSPHENE, "synthesize", SUBJECT, *asked, *CLIMB, *CPU, *more], folder)
    killed: dict[str, Any] = {}
    while watched.running():
        if not killed and len(list(run.glob("*.json"))) >= count // 2:
            worker = max(watched.processes()[1:], key=lambda each: each.memory_info().rss)
            os.kill(worker.pid, signal.SIGKILL)
            killed = {"after_seconds": time.perf_counter() - watched.begun}
            killed["pictures"] = len(list(run.glob("*.json")))
        time.sleep(PAUSE)
    there = len(list(run.glob("*.json")))
    if not killed or there != count:
        sys.exit(f"killed: {killed}; {there} of {count} pictures are there")
    return {**watched.told(), "pictures": there, "killed": killed, **size_of(run)}


def channels(layer: str) -> int:
    """Return how many channels a convolution has."""
    stage = int(layer[5]) if layer.startswith("layer") else 1
    return 64 * 2 ** (stage - 1) * (4 if layer.endswith("conv3") else 1)


def built(folder: Path) -> dict[str, Any]:
    """Make the pages; return what that took and how large they are."""
    command = [*PHOSPHENE, "atlas", "run", "--out", "site", "--title", "ResNet-50, untrained"]
    watched = Watched(command, folder)
    while watched.running():
        time.sleep(PAUSE)
    return {**watched.told(), **size_of(folder / "site")}


def size_of(folder: Path) -> dict[str, Any]:
    """Return the number of files and their bytes, as they are and as the disk keeps them."""
    stats = [file.stat() for file in folder.rglob("*") if file.is_file()]
    found = {"bytes": sum(each.st_size for each in stats)}
    return {**found, "files": len(stats), "on_disk": sum(each.st_blocks * 512 for each in stats)}


SEEN = """() => [...document.images]
    .filter((image) => {
        const box = image.getBoundingClientRect();
        return box.bottom > 0 && box.top < innerHeight && box.width > 0;
    })
    .every((image) => image.complete && image.naturalWidth > 0)"""
"""Whether each picture in the window is there."""


def opened(page: Path) -> dict[str, Any]:
    """Return the seconds until a page is loaded and shows its pictures, in a new window each.

    The fastest window counts, since other programs only slow it. `cpu_seconds` are those of the
    page's main thread, the median.
    """
    from playwright.sync_api import sync_playwright

    seconds, spent = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(TURNS + 1):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            window = context.new_page()
            session = context.new_cdp_session(window)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            begun = time.perf_counter()
            window.goto(page.resolve().as_uri())
            window.wait_for_function(SEEN)
            seconds.append(time.perf_counter() - begun)
            metrics = session.send("Performance.getMetrics")["metrics"]
            spent += [each["value"] for each in metrics if each["name"] == "TaskDuration"]
            context.close()
        browser.close()
    found = {"seconds": min(seconds[1:]), "median_seconds": statistics.median(seconds[1:])}
    return found | {"cpu_seconds": statistics.median(spent[1:]), "bytes": page.stat().st_size}


def opened_pages(folder: Path, units: Sequence[str]) -> dict[str, Any]:
    """Return how long the front page takes to open, and that of the largest layer."""
    (page,) = (folder / "site").glob(f"*/{max(units, key=channels)}.html")
    return {"front": opened(folder / "site" / "index.html"), "layer": opened(page)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="an empty folder for pictures and pages")
    parser.add_argument("layers", nargs="*", metavar="layer", default=convolutions())
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stages", default="climb,atlas,opened", help="do only these again")
    options = parser.parse_intermixed_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stages = {
        "climb": lambda: climbed(folder, options.layers, options.workers),
        "atlas": lambda: built(folder),
        "opened": lambda: opened_pages(folder, options.layers),
    }
    found = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    found |= {"workers": options.workers, "layers": len(options.layers)}
    found["units"] = max(map(channels, options.layers))
    for name in options.stages.split(","):
        found[name] = stages[name]()
        KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
