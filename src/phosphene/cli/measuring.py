"""Commands that measure: exemplars, pictures and priors, detectors of objects, any study."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

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
    refuse_options,
    tell_figures,
    tell_table,
    warn,
)
from phosphene.errors import BadRequest
from phosphene.forms import StudyTable


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
    from phosphene.studies.exemplars import Exemplars, Search, signed_layers
    from phosphene.tables import exemplars_table

    where = choose_machine(device, "float32", threads)["device"]
    network = named_subject(subject, fit, inputs)
    how = Exemplars(**given_settings(context))
    search = Search.of(network, units or [], images_folder, out_folder, how, subject)
    read: list[int] = []
    with progress.bar(None, "looking") as advance:

        def report(done: int) -> None:
            advance(done - (read[-1] if read else 0))
            read.append(done)

        found = search.look(where, report)
    total = next(iter(found.values())).n_images
    if not read:
        err.print(
            f"phosphene: kept the pass of an earlier run over {total:,} photographs in "
            f"{search.file}",
            soft_wrap=True,
        )
    with progress.status("cutting them out"):
        form = search.describe(found) if search.units else None
    if as_json:
        print_json([asdict(row) for row in form.units] if form else [])
        return
    if form:
        tell_table(exemplars_table(form.units, signed_layers(found)))
        out.print(f"contact sheet: {out_folder / 'exemplars.png'}", soft_wrap=True)
    out.print(f"{search.file}: {len(found)} layers, {total:,} photographs", soft_wrap=True)


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
    from phosphene.studies.dissection import Dissection, Search
    from phosphene.tables import detectors_table

    where = choose_machine(device, "float32", threads)["device"]
    network = named_subject(subject, fit, inputs)
    how = Dissection(**given_settings(context))
    search = Search.of(network, layer, images, out_folder, how, subject)
    with progress.bar(search.photographs, "looking") as advance:
        found = search.look(where, advance)
    if as_json:
        print_json(found.as_json())
        return
    tell_table(detectors_table(found))
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
    from phosphene.tables import study_table

    tell_table(study_table(found))
