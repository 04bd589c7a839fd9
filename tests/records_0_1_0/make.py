#!/usr/bin/env python3
"""Make the records beside this file. They were made by version 0.1.0 and are not to be made again.

    PYTHONPATH=SOURCE_OF_0.1.0 python make.py

Every record's picture was climbed with the processor's common instructions alone (`PORTABLE`).
The machine then decides no more than last digits of sums and roots: machine.py says why.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from machine import PORTABLE

HERE = Path(__file__).parent

if any(os.environ.get(name) != value for name, value in PORTABLE.items()):
    os.execve(sys.executable, [sys.executable, __file__], {**os.environ, **PORTABLE})

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

from phosphene import cli, weights  # noqa: E402
from phosphene.networks import build  # noqa: E402
from phosphene.parameterizations import load_generated  # noqa: E402
from phosphene.priors import CodeStatistics  # noqa: E402
from phosphene.records import Folder  # noqa: E402
from phosphene.runs import Request, climb_into  # noqa: E402
from phosphene.subjects import load_subject  # noqa: E402
from phosphene.synthesis import Climb, Member  # noqa: E402

sys.path.insert(0, str(HERE))
from tiny_networks import drawn, write_deepsim  # noqa: E402

SUBJECT = {"name": "resnet", "classes": 10, "width": 4, "blocks": [1, 1, 1, 1]}
CLASSES = ["tench, Tinca tinca", "golden retriever", "church", "French horn", "gas pump"]
CLASSES += ["golf ball", "parachute", "chain saw, chainsaw", "cassette player", "garbage truck"]
TWO_STAGE = {
    "name": "two-stage",
    "code": 32,
    "hidden": 16,
    "grid": 1,
    "seed_channels": 4,
    "widths": [8, 8],
    "blocks": [1, 1],
    "rank": 4,
    "latent": 4,
    "decoder": [8, 8, 8],
    "decoder_blocks": [1, 0, 1],
    "size": 16,
    "seen": 14,
}
GENERATORS = {
    "vector": (TWO_STAGE, "pool"),
    "map": ({**TWO_STAGE, "code": [8, 7, 7]}, "layer2"),
    "direct": (
        {"name": "direct", "code": 32, "hidden": 16, "widths": [8, 8], "size": 16, "seen": 12},
        "pool",
    ),
}


def write_networks() -> None:
    """Write the tiny subject and the three tiny generators."""
    network = drawn(build(SUBJECT), 10)
    card = {
        "name": "tiny-objects",
        "kind": "subject",
        "architecture": SUBJECT,
        "preprocessing": {"size": [56, 56], "mean": [0.5] * 3, "std": [0.25] * 3},
        "classes": CLASSES,
        "output": "fc",
    }
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    weights.write(HERE / "subject.safetensors", tensors, card)
    for number, (name, (architecture, layer)) in enumerate(GENERATORS.items()):
        generator = build(architecture)
        assert isinstance(generator, nn.Module)
        drawn(generator, 20 + number)
        shape = tuple(generator.code_shape)  # type: ignore[arg-type]
        statistics = code_statistics(shape, 30 + number)
        generator.code_mean.copy_(statistics.mean)
        generator.code_std.copy_(statistics.std)
        tensors = {f"network.{each}": value for each, value in generator.state_dict().items()}
        fields = CodeStatistics.__annotations__
        tensors |= {f"code.{each}": getattr(statistics, each) for each in fields}
        card = {"name": f"tiny-{name}", "kind": "generator", "architecture": architecture}
        encoder = {"code_layer": layer, "encoder": "subject.safetensors"}
        weights.write(HERE / f"{name}.safetensors", tensors, {**card, **encoder})


def code_statistics(shape: tuple[int, ...], seed: int) -> CodeStatistics:
    """Compute the statistics of codes drawn like a ReLU layer's."""
    drawn_codes = np.random.default_rng(seed).standard_normal((300, *shape)).clip(0)
    codes = torch.from_numpy(
        drawn_codes * np.linspace(0.5, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    )
    values, vectors = torch.linalg.eigh(torch.cov(codes.flatten(1).T))
    rest = values[:-4].mean()
    parts = (codes.mean(0), codes.std(0), codes.amax(0), vectors[:, -4:].T, values[-4:], rest)
    return CodeStatistics(*(part.float().contiguous() for part in parts))


def write_photographs() -> None:
    """Write three classes of plain photographs for an index of exemplars."""
    numbers = np.random.default_rng(60)
    for name in ("ant", "bee", "cat"):
        folder = HERE / "photographs" / "train" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(4):
            pixels = numbers.integers(0, 255, (4, 4, 3), np.uint8).repeat(6, 0).repeat(6, 1)
            Image.fromarray(pixels).save(folder / f"{number}.png")


def write_inputs() -> None:
    """Write a photograph to begin from, and two directions."""
    rows, columns = np.mgrid[:40, :40] / 39
    rgb = np.stack([rows, columns, (rows + columns) / 2], 2)
    Image.fromarray((255 * rgb).round().astype(np.uint8)).save(HERE / "start.png")
    numbers = np.random.default_rng(50)
    np.save(HERE / "pool.npy", numbers.standard_normal(32).astype(np.float32))
    np.save(HERE / "layer4.npy", numbers.standard_normal(32).astype(np.float32))


TINY = ["subject.safetensors", "--prior", "vector.safetensors", "--steps", "12"]
BUNDLED = ["caffenet-objects", "--steps", "3"]
COMMANDS = {
    # forms of a target
    "class": [*TINY, "class:church"],
    "output": [*TINY, "fc:3"],
    "quoted": [*TINY, 'fc:"golden retriever"'],
    "centre": [*TINY, "layer4:2"],
    "position": [*TINY, "layer2:5@2,1"],
    "max": [*TINY, "layer1:1@max"],
    "mean": [*TINY, "layer3:6@mean"],
    "range": [*TINY, "pool:0-2"],
    "sum": [*TINY, "fc:3 + 0.5*fc:7"],
    "difference": [*TINY, "class:church - class:golf ball"],
    "layers": [*TINY, "2*layer1:1@max - conv1:3@1,1 + fc:0"],
    "least": [*TINY, "fc:1", "--least"],
    "direction": [*TINY, "--direction", "pool=pool.npy", "--direction", "layer4=layer4.npy"],
    # starts
    "seeds": [*TINY, "fc:4", "--seeds", "3,9000"],
    "mean-start": [*TINY, "fc:4", "--start", "mean"],
    "photograph": [*TINY, "fc:4", "--start", "start.png"],
    # options
    "rate": [*TINY, "fc:5", "--rate", "0.5"],
    "decay": [*TINY, "fc:5", "--decay", "0.9"],
    "probability": [*TINY, "fc:5", "layer4:1@max", "--objective", "probability"],
    "animated": [*TINY, "fc:6", "--animate"],
    "batches": [*TINY, "pool:0-4", "--batch", "2"],
    "bfloat16": [*TINY, "fc:8", "--precision", "bfloat16"],
    "no-steps": [*TINY[:-1], "0", "fc:8"],
    # climbs and priors
    "paper": [*TINY, "fc:2", "--climb", "paper"],
    "map": [*TINY[:1], "--prior", "map.safetensors", "--steps", "8", "fc:2", "layer3:3"],
    "map-paper": [
        *TINY[:1],
        "--prior",
        "map.safetensors",
        "--climb",
        "paper",
        "--steps",
        "8",
        "fc:2",
    ],
    "direct": [*TINY[:1], "--prior", "direct.safetensors", "--steps", "8", "fc:2"],
    "deepsim": [
        *TINY[:1],
        "--prior",
        "deepsim:norm1",
        "--prior-file",
        "norm1.safetensors",
        "--bounds",
        "norm1.npy",
        "--steps",
        "2",
        "fc:2",
    ],
    "deepsim-paper": [
        *TINY[:1],
        "--prior",
        "deepsim:norm1",
        "--prior-file",
        "norm1.safetensors",
        "--bounds",
        "norm1.npy",
        "--climb",
        "paper",
        "--steps",
        "2",
        "layer4:3",
    ],
    "pixels": [*TINY[:1], "--prior", "pixels", "--steps", "20", "fc:0", "layer4:4"],
    "pixels-options": [
        *TINY[:1],
        "--prior",
        "pixels",
        "--steps",
        "10",
        "--tv",
        "2",
        "--blur",
        "1",
        "--shift",
        "1",
        "fc:0",
    ],
    "pixels-photograph": [
        *TINY[:1],
        "--prior",
        "pixels",
        "--steps",
        "5",
        "--start",
        "start.png",
        "fc:0",
    ],
    "fourier": [*TINY[:1], "--prior", "fourier", "--steps", "20", "fc:0", "layer2:1@mean"],
    "fourier-mean": [*TINY[:1], "--prior", "fourier", "--steps", "5", "--start", "mean", "fc:0"],
    # networks of one's own
    "own": [
        "python:tiny_networks:plain",
        "--prior",
        "vector.safetensors",
        "--steps",
        "12",
        "class:cat",
        "block:3",
    ],
    "own-untrained": [
        "python:tiny_networks:plain",
        "--prior",
        "fourier",
        "--steps",
        "5",
        "relu:0-1",
    ],
    "own-residual": [
        "python:tiny_networks:residual",
        "--prior",
        "vector.safetensors",
        "--steps",
        "12",
        "class:eel",
    ],
    "own-shut": [
        "python:tiny_networks:shut",
        "--prior",
        "vector.safetensors",
        "--steps",
        "12",
        "block:0-11",
    ],
    "own-shut-pixels": [
        "python:tiny_networks:shut",
        "--prior",
        "pixels",
        "--steps",
        "8",
        "block:0-3@max",
    ],
    "own-tokens": [
        "python:tiny_networks:tokens",
        "--prior",
        "vector.safetensors",
        "--steps",
        "12",
        "mix:2",
        "mix:3@max",
        "mix:4@mean",
        "class:dog",
    ],
    # bundled networks
    "bundled": [*BUNDLED, "class:lion", "conv5:7", "conv2:3@max", "fc7:11"],
    "bundled-paper": [*BUNDLED, "class:dome", "--climb", "paper"],
    "bundled-photograph": [*BUNDLED, "class:lion", "--start", "start.png"],
    "bundled-bfloat16": [*BUNDLED, "class:carousel", "--precision", "bfloat16"],
    "bundled-pixels": [*BUNDLED, "class:lion", "--prior", "pixels"],
    "bundled-random": ["caffenet-objects@random", "--steps", "3", "fc8:5"],
    "bundled-alias": ["caffenet-random", "--steps", "2", "fc8:5"],
}
"""What `phosphene synthesize` was given, by the beginning of the records' names."""

IN_PYTHON = {
    "box": Climb(steps=12, prior="box", sigmas=2.0),
    "no-constraint": Climb(steps=12, prior="none", decay=1.0),
    "no-constraint-decay": Climb(steps=12, prior="none", decay=0.9),
    "adam": Climb(steps=12, rule="adam", rate=0.1, prior="box"),
    "mean-rule-gaussian": Climb(steps=12, rule="mean", rate=2.0, last_rate=0.5),
    "normal-start": Climb(steps=12, start="normal"),
    "cycle": Climb(steps=8, cycle=0.3),
    "shift": Climb(steps=12, shift=1, blur=0.7, tv=0.1),
}
"""Settings that only Python reaches."""


def climb_by_command(name: str, arguments: list[str]) -> None:
    """Run `phosphene synthesize` and keep its records under this name."""
    folder = HERE / "made" / name
    precision = [] if "--precision" in arguments else ["--precision", "float32"]
    machine = [*precision, "--device", "cpu", "--threads", "1"]
    run("synthesize", *arguments, *machine, "--out", str(folder))
    keep(name, folder)


def climb_in_python(name: str, climb: Climb) -> None:
    """Climb with settings that the command line does not offer."""
    subject = load_subject("subject.safetensors")
    prior = load_generated("vector.safetensors")
    folder = HERE / "made" / name
    request = Request("subject.safetensors", "vector.safetensors", climb, threads=1)
    members = [Member(target, 1) for target in subject.targets("fc:1,6")]
    list(climb_into(Folder(folder), request, subject, prior, members))
    keep(name, folder)


def index_exemplars() -> None:
    """Write the index of exemplars of one layer and what is told of three of its units."""
    shutil.rmtree("exemplars", ignore_errors=True)
    run(
        "exemplars",
        "subject.safetensors",
        "layer4:0-2",
        "--images",
        "photographs",
        "--split",
        "train",
        "--out",
        "exemplars",
    )


def run(*arguments: str) -> None:
    """Run a command of phosphene."""
    sys.argv = ["phosphene", *arguments]
    try:
        cli.main()
    except SystemExit as left:
        if left.code:
            raise


def keep(name: str, folder: Path) -> None:
    """Keep the records of a folder, with a path that is any reader's in place of this machine's."""
    for number, file in enumerate(sorted(folder.glob("*.json"))):
        text = file.read_text().replace(str(HERE), "@HERE@")
        (HERE / "records" / f"{name}-{number}.json").write_text(text)


def main() -> None:
    """Write the networks, climb, and keep the records."""
    os.chdir(HERE)
    torch.set_num_threads(1)
    write_networks()
    write_deepsim(HERE)
    write_inputs()
    write_photographs()
    shutil.rmtree("records", ignore_errors=True)
    Path("records").mkdir()
    for name, arguments in COMMANDS.items():
        climb_by_command(name, arguments)
    for name, climb in IN_PYTHON.items():
        climb_in_python(name, climb)
    index_exemplars()
    statuses = [json.loads(file.read_text())["status"] for file in Path("records").glob("*.json")]
    print(len(statuses), {status: statuses.count(status) for status in set(statuses)})
    shutil.rmtree("made")
    Path("norm1.safetensors").unlink()
    Path("norm1.npy").unlink()


if __name__ == "__main__":
    main()
