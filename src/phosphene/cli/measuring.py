"""Commands that measure: exemplars, pictures and priors, detectors of objects, any study."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from phosphene.cli import progress
from phosphene.cli.options import given_settings, settings_of
from phosphene.cli.shell import (
    AsJson,
    Device,
    Fit,
    Inputs,
    Threads,
    Trust,
    choose_machine,
    err,
    is_given,
    named_subject,
    out,
    print_json,
    print_table,
    refuse_options,
    tell_figures,
    warn,
)
from phosphene.errors import BadRequest
from phosphene.forms import StudyTable
from phosphene.forms.exemplars import UnitExemplars
from phosphene.forms.figures import measures_of


def exemplars(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="As for synthesize.")],
    images_folder: Annotated[Path, typer.Option("--images", help="Photographs, as for train.")],
    units: Annotated[
        list[str] | None,
        typer.Argument(
            help="Channels, as for synthesize; none for all channels of all layers.",
            show_default=False,
        ),
    ] = None,
    out_folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the index and the contact sheet.")
    ] = Path("exemplars"),
    fit: Fit = "",
    inputs: Inputs = None,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Find the photographs that excite a unit most, and the spread of its activation.

    The photographs are cut to what the unit sees of them. One pass finds them for every channel of
    the layers asked for. After an interruption, the same command goes on. The index is kept, so
    other channels of these layers need no other pass.
    """
    from phosphene.datasets import Stream, check_apart
    from phosphene.files import outlet, outlet_folder
    from phosphene.studies import asked_of
    from phosphene.studies.exemplars import Exemplars, describe, find_exemplars
    from phosphene.subjects import outer_layers

    where = choose_machine(device, "float32", threads)["device"]
    network = named_subject(subject, fit, inputs)
    network, named = asked_of(network, units or [])
    layers = list(dict.fromkeys(unit.layer for unit in named))
    layers = layers or [name for name, shape in outer_layers(network.shapes()).items() if shape]
    check_apart(out_folder, images_folder)
    file = out_folder / "exemplars.safetensors"
    for each in (file, file.with_suffix(".json"), file.with_suffix(".png")):
        outlet(each, subject)
    outlet_folder(out_folder / "tiles")
    asked = Exemplars(**given_settings(context))
    data = Stream(images_folder, asked.split, network.photograph_size)
    read: list[int] = []
    with progress.bar(None, "looking") as advance:

        def report(done: int) -> None:
            advance(done - (read[-1] if read else 0))
            read.append(done)

        found = find_exemplars(
            network, layers, data, file, k=asked.k, batch=asked.batch, device=where, report=report
        )
    total = next(iter(found.values())).n_images
    if not read:
        err.print(
            f"phosphene: kept the pass of an earlier run over {total:,} photographs in {file}",
            soft_wrap=True,
        )
    with progress.status("cutting them out"):
        form = describe(network, named, found, data, out_folder) if named else None
    if form:
        form.write(file.with_suffix(".json"))
    if as_json:
        print_json([asdict(row) for row in form.units] if form else [])
        return
    if form:
        signed = [layer for layer, each in found.items() if (each.sample < 0).any()]
        _tell_exemplars(form.units, signed)
        out.print(f"contact sheet: {out_folder / 'exemplars.png'}", soft_wrap=True)
    out.print(f"{file}: {len(found)} layers, {total:,} photographs", soft_wrap=True)


def _tell_exemplars(rows: Sequence[UnitExemplars], signed: Collection[str]) -> None:
    """Print a row for each unit; in `signed` layers, which go below 0, no unit is silent."""
    table = Table("unit", "channel of", "largest", "99 %", "median", "silent", "photographs")
    for row in rows:
        numbers = ", ".join(map(str, row.photographs))
        table.add_row(
            row.unit,
            row.label,
            f"{row.values[0]:.2f}",
            f"{row.quantiles['0.99']:.2f}",
            f"{row.quantiles['0.5']:.2f}",
            "–" if row.unit.rpartition(":")[0] in signed else f"{row.silent or 0:.1%}",
            numbers,
        )
    print_table(table)


def evaluate(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(help="A folder made by synthesize, or a generator's name or file.")
    ],
    images: Annotated[
        str | None,
        typer.Option(
            help="Photographs to compare with, as for train: a split to look through and one "
            "held out."
        ),
    ] = None,
    judge: Annotated[str, typer.Option(help="A network that took no part.")] = "efficientnet-lite2",
    control: Annotated[
        Path | None,
        typer.Option(
            help="The same units climbed on SUBJECT@random: what the prior draws by itself."
        ),
    ] = None,
    photographs: Annotated[int, typer.Option(help="Natural photographs to judge.", min=1)] = 1000,
    subject: Annotated[
        str, typer.Option(help="The run's subject, where that is code: python:…")
    ] = "",
    trust: Trust = None,
    encoder: Annotated[
        str, typer.Option(help="A generator's encoder, where that is code: python:…")
    ] = "",
    index: Annotated[
        Path | None,
        typer.Option(
            "--exemplars",
            help="Folder of the exemplars' index, to share it.",
            show_default="RUN/evidence",
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Measure pictures: does an independent network see the class; do they excite the unit as
    photographs do?

    Of a generator: what survives of photographs, and what it makes of random codes. Each figure
    comes with its 95 % interval. What is measured of a folder is kept in its folder evidence.
    """
    from phosphene.studies.compare import evaluate as measure

    if not Path(run).is_dir():
        refuse_options(
            context, ("control", "subject", "trust", "index"), f"a generator, as {run} is"
        )
        _evaluate_generator(run, images, judge, photographs, encoder, device, threads, as_json)
        return
    refuse_options(context, ("encoder",), f"a folder of pictures, as {run} is")
    if images is None:
        without = "pictures without photographs (--images DATA)"
        refuse_options(context, ("control", "photographs", "index"), without)
    with progress.bar(None, "looking") as advance:
        (found,) = measure(
            [Path(run)],
            judge,
            images,
            control=control,
            trusted=subject,
            code=trust or (),
            photographs=photographs,
            index=index,
            device=choose_machine(device, "float32", threads)["device"],
            report=lambda: advance(1),
        )
    named = any("natural_top1" in each.figures for each in found)
    if is_given(context, "photographs") and not named:
        warn("--photographs did not apply: no classes were recognised that the photographs have")
    if as_json:
        print_json([each.as_json() for each in found])
        return
    for each in found:
        title = f"{each.subject} {each.layer}, judge {each.judge}"
        tell_figures(title, each.as_json()["figures"])


def _evaluate_generator(
    name: str,
    images: str | None,
    judge: str,
    photographs: int,
    encoder: str,
    device: str,
    threads: int,
    as_json: bool,
) -> None:
    """Measure a generator, and print its figures."""
    from phosphene.priors import load_generated
    from phosphene.studies.generator import Observer, measure_prior

    where = choose_machine(device, "float32", threads)["device"]
    if images is None:
        raise BadRequest(
            f"{name} is no folder of pictures; "
            "a generator is measured on photographs: --images DATA"
        )
    with progress.status("looking at photographs"):
        generated = load_generated(name)
        generated.check_encoder(encoder)
        size = generated.image_size
        observer = Observer(judge, images, size, photographs=photographs, device=where)
        found = asdict(measure_prior(generated, observer, encoder))
    if as_json:
        print_json(found)
    else:
        tell_figures(f"{found['prior']}, judge {found['judge']}", found["figures"])


def dissect(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="As for synthesize.")],
    layer: Annotated[str, typer.Argument(help="A layer with a map.")],
    images: Annotated[Path, typer.Option(help="Shards of photographs with outlined objects.")],
    out_folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for dissection.json.")
    ] = Path("dissection"),
    fit: Fit = "",
    inputs: Inputs = None,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Find the object that each channel detects, by network dissection.

    It compares where the channel answers with where objects are.
    """
    from phosphene.datasets import Outlined, check_apart
    from phosphene.files import outlet
    from phosphene.studies import dissection

    where = choose_machine(device, "float32", threads)["device"]
    check_apart(out_folder, images)
    outlet(out_folder / "dissection.json", subject)
    network = named_subject(subject, fit, inputs)
    asked = dissection.Dissection(**given_settings(context))
    data = Outlined(images, asked.split, network.photograph_size)
    options = {"quantile": asked.quantile, "batch": asked.batch, "device": where}
    with progress.bar(2 * len(data), "looking") as advance:
        overlaps = dissection.dissect(network, layer, data, report=advance, **options)
    found = overlaps.form(network, data)
    found.write(out_folder / "dissection.json")
    if as_json:
        print_json(found.as_json())
        return
    detectors = [row for row in found.units if row.iou > found.detector_above]
    objects = {row.object for row in detectors}
    title = f"{len(detectors)} detectors of {len(objects)} objects"
    table = Table("unit", "object", "IoU", "others", title=title)
    for row in sorted(detectors, key=lambda row: -row.iou):
        others = ", ".join(f"{name} {iou:.3f}" for name, iou in row.others)
        table.add_row(row.unit, row.object, f"{row.iou:.3f}", others)
    print_table(table)
    out.print(
        f"{out_folder / 'dissection.json'}: {len(found.units):,} units, "
        f"{found.photographs:,} photographs, a detector above {found.detector_above}",
        soft_wrap=True,
    )


def study(
    name: Annotated[str, typer.Argument(help="exemplars, dissection or python:module:factory.")],
    subject: Annotated[str, typer.Argument(help="As for synthesize.")],
    units: Annotated[list[str], typer.Argument(help="Channels, as for synthesize.")],
    images: Annotated[Path, typer.Option(help="Photographs, as the study takes them.")],
    assigned: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE: an option of the study.")
    ] = None,
    out_folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for STUDY.json and its pictures.")
    ] = Path("study"),
    fit: Fit = "",
    inputs: Inputs = None,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Put a question to units, perhaps one of your own; the atlas shows the answers.

    A study of your own is a class that is a phosphene.studies.Study, in a module that lies here.
    """
    from phosphene.datasets import check_apart
    from phosphene.factories import is_factory, users_code
    from phosphene.files import outlet_folder
    from phosphene.runtime import Runtime
    from phosphene.studies import asked_of, load_study

    where = choose_machine(device, "float32", threads)["device"]
    asked = load_study(name, settings_of(assigned or []))
    check_apart(out_folder, images)
    outlet_folder(out_folder)
    network = named_subject(subject, fit, inputs)
    network, channels = asked_of(network, units)
    with progress.bar(None, "looking") as advance:
        runtime = Runtime(out_folder, where, progress=progress.stepwise(advance))
        with users_code(f"{name}: run()") if is_factory(name) else nullcontext():
            found = asked.run(network, channels, images, runtime)
    file = out_folder / found.file_name
    found.write(file)
    if as_json:
        print_json(found.as_json())
        return
    if isinstance(found, StudyTable):
        tell_rows(found)
    out.print(f"{file}", soft_wrap=True)


def tell_rows(found: StudyTable) -> None:
    """Print a study's numbers, a row for each unit."""
    keys = list(dict.fromkeys(key for row in found.units for key in measures_of(row)))
    table = Table("unit", *keys)
    for row in found.units:
        table.add_row(row["unit"], *(_cell(row.get(key, "")) for key in keys))
    print_table(table)


def _cell(told: Any) -> str:
    value = getattr(told, "value", told)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
