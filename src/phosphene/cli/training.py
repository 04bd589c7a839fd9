"""The commands of `phosphene train`: a recipe and photographs become a subject or a generator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phosphene.cli import progress
from phosphene.cli.shell import Device, Interrupted, Threads, choose_machine, out
from phosphene.errors import BadFile, BadRequest

if TYPE_CHECKING:
    from phosphene.runtime import Runtime

Run = Annotated[Path, typer.Option(help="Folder of the run; an interrupted one goes on.")]
OutFile = Annotated[Path | None, typer.Option("--out", "-o", help="Weights file to write.")]
Layer = Annotated[str | None, typer.Option(help="Its code layer.", show_default="the recipe's")]
Recipe = Annotated[str, typer.Argument(help="A bundled recipe's name or a TOML file.")]
TimeBudget = Annotated[
    float | None, typer.Option(help="Minutes after which to stop cleanly.", min=0)
]

app = typer.Typer(no_args_is_help=True, help="Train a subject or a generator from a recipe.")


@app.command("subject")
def train_subject(
    recipe: Recipe,
    data: Annotated[
        Path,
        typer.Option(
            "--images",
            "--data",
            help="Parquet shards or class folders, with train and val, hf:NAME, "
            "or python:module:factory.",
        ),
    ],
    run: Run,
    without: Annotated[
        Path | None, typer.Option(help="Folder of shards whose keys are left out of training.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            "--from",
            help="A trained subject to begin from, whatever its classes, by name or file.",
        ),
    ] = None,
    out_file: OutFile = None,
    time_budget: TimeBudget = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a classifier to be looked into.

    Several processes share each batch:
    torchrun --nproc-per-node 2 --no-python -- phosphene train subject …
    """
    from phosphene import datasets
    from phosphene.subjects import load_subject
    from phosphene.training.modified import with_modified
    from phosphene.training.recipes import check_complete, read_recipe
    from phosphene.training.subject import subject_card, train_subject

    where = choose_machine(device, "bfloat16", threads)["device"]
    _check_places(run, out_file, [data], recipe, init_from)
    steps = read_recipe(recipe, "subject")
    check_complete(steps)
    initial = load_subject(init_from) if init_from else None
    with progress.status("decoding photographs"):
        train = datasets.load(data, "train", without=without, cache=run / "cache")
        val = datasets.load(data, "val", cache=run / "cache")
        train, val = (with_modified(split, steps.get("extra", [])) for split in (train, val))
    name = Path(recipe).stem

    def snapshot(share: float, network: Any) -> None:
        tag = f"{name}@{100 * share:g}%"
        card = subject_card(tag, steps, train, val, network, history=[], init_from=initial)
        _publish(run / f"{tag}.safetensors", {"network": network}, card, False, told=False)

    with _runtime(run, where, time_budget) as runtime:
        network, folder, finished = train_subject(
            steps, train, val, runtime, init_from=initial, snapshot=snapshot
        )
    if not runtime.processes.is_main:
        return
    history = folder.history
    card = subject_card(name, steps, train, val, network, history=history, init_from=initial)
    _publish(out_file or run / f"{name}.safetensors", {"network": network}, card, finished)
    _end(finished, time_budget)


@app.command("generator")
def train_generator(
    recipe: Recipe,
    data: Annotated[
        list[Path],
        typer.Option(
            "--images",
            help="Parquet shards or class folders, with train and val, hf:NAME, "
            "or python:module:factory; or several.",
        ),
    ],
    run: Run,
    encoder: Annotated[str, typer.Option(help="The subject to invert.")] = "caffenet-objects",
    layer: Layer = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            "--from",
            help="A trained generator, by name or file, to run only the last stage on.",
        ),
    ] = None,
    discriminator: Annotated[
        Path | None,
        typer.Option(
            help="What was trained beside it: its NAME-training.safetensors, "
            "or its own file where that holds it."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call it.", show_default="the recipe's name")
    ] = None,
    out_file: OutFile = None,
    time_budget: TimeBudget = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a generator that inverts a layer of an encoder.

    Every few minutes the last stage leaves in RUN/image/pictures what it makes of some held-out
    photographs.

    Several processes share each batch:
    torchrun --nproc-per-node 2 --no-python -- phosphene train generator …
    """
    from phosphene import datasets, weights
    from phosphene.priors import load_generated
    from phosphene.subjects import load_subject
    from phosphene.training.generator import generator_card, train_generator
    from phosphene.training.inversion import with_code
    from phosphene.training.recipes import read_recipe

    asked = read_recipe(recipe, "generator")
    if discriminator and not init_from and asked.get("init_from", {}).get("regress") != "codes":
        raise BadRequest(
            "--discriminator goes with --init-from: it is what was trained beside that generator"
        )
    where = choose_machine(device, "bfloat16", threads)["device"]
    _check_places(run, out_file, data, recipe, init_from, encoder, discriminator)
    network = load_subject(encoder)
    steps = with_code(asked, network, layer)
    initial = load_generated(init_from) if init_from else None
    beside = weights.read(discriminator) if discriminator else None
    if beside and not beside.part("image_discriminator"):
        raise BadFile(f"{beside.path} is a {beside.card['kind']} that holds no discriminator")
    with progress.status("decoding photographs"):
        train = datasets.load_joined(data, "train", run / "cache", labelled=False)
        val = datasets.load_joined(data, "val", run / "cache", labelled=False)
    with _runtime(run, where, time_budget) as runtime:
        trained = train_generator(
            steps,
            network,
            train,
            runtime,
            init_from=initial,
            discriminator=beside,
            held_out=val,
        )
    if not runtime.processes.is_main:
        return
    name = name or Path(recipe).stem
    with progress.status("held-out error"):
        card = generator_card(name, steps, network, train, val, trained)
    parts = {"network": trained.generator, "code": trained.statistics}
    parts |= {"components": trained.components} if trained.components else {}
    _publish(out_file or run / f"{name}.safetensors", parts, card, trained.finished)
    other = {**card, "name": f"{name}-training", "kind": "training"}
    _publish(run / f"{name}-training.safetensors", trained.helpers, other, trained.finished)
    _end(trained.finished, time_budget)


def _check_places(
    run: Path, out_file: Path | None, data: Sequence[Path], *inputs: str | Path | None
) -> None:
    """Refuse a run's folder or a weights file that cannot or must not be written.

    This is checked before any work.
    """
    from phosphene.datasets import check_apart
    from phosphene.files import outlet, outlet_folder

    outlet_folder(run)
    for each in data:
        check_apart(run, each)
    if out_file is not None and out_file.suffix != ".safetensors":
        raise BadRequest(f"--out {out_file}: weights are written as .safetensors")
    if out_file is not None:
        outlet(out_file, *(each for each in inputs if each))


@contextmanager
def _runtime(run: Path, device: str, time_budget: float | None) -> Iterator[Runtime]:
    """Lend the runtime of a training, whose main process shows a bar."""
    from phosphene.runtime import Runtime, deadline_in, started_processes

    with started_processes(device) as processes, progress.training_bar(processes.is_main) as bar:
        deadline = deadline_in(_seconds(time_budget))
        yield Runtime(run, device, processes=processes, deadline=deadline, progress=bar)


def _end(finished: bool, time_budget: float | None) -> None:
    """Exit with a signal's code where neither the recipe nor a budget ended the run."""
    if not finished and time_budget is None:
        raise Interrupted


def _publish(
    path: Path, parts: dict[str, Any], card: dict[str, Any], finished: bool, told: bool = True
) -> None:
    """Write a weights file, and say so."""
    from phosphene import weights

    tensors = {
        f"{part}.{name}": value
        for part, content in parts.items()
        for name, value in (content if isinstance(content, dict) else content.state_dict()).items()
    }
    weights.write(path, tensors, {**card, "finished": finished})
    if told:
        out.print(
            f"{path}: {path.stat().st_size / 1e6:.1f} MB"
            + ("" if finished else "; stopped before the recipe's end, the same command goes on"),
            soft_wrap=True,
        )


def _seconds(minutes: float | None) -> float | None:
    """Return a budget in seconds; `BadRequest` where it is no number."""
    if minutes is not None and not math.isfinite(minutes):
        raise BadRequest(f"--time-budget takes minutes; got {minutes}")
    return None if minutes is None else 60 * minutes
