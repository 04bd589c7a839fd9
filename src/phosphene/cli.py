"""The command line: the only room that reads arguments, prints, exits, and picks a device or a seed."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from phosphene import __version__
from phosphene.errors import BadFile, BadRequest, PhospheneError, UnknownName, Unreachable

if TYPE_CHECKING:
    from phosphene.claims import Claim
    from phosphene.datasets import Photographs
    from phosphene.subjects import Subject
    from phosphene.units import Target

app = typer.Typer(
    name="phosphene",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Show what the neurons of a vision network want to see.",
)
train_app = typer.Typer(no_args_is_help=True, help="Train a subject or a generator from a recipe.")
zoo_app = typer.Typer(no_args_is_help=True, help="List, show and verify the bundled weights.")
app.add_typer(train_app, name="train")
app.add_typer(zoo_app, name="zoo")

out, err = Console(), Console(stderr=True)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel="Machine")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel="Machine")]
Threads = Annotated[
    int, typer.Option(help="CPU threads; 0 leaves the choice to torch.", min=0, max=1024, rich_help_panel="Machine")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


PARTS = ("value", "low", "high")
"""What a figure in JSON has of numbers; null where it could not be measured."""

_UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""What the command-line library raises for arguments that it cannot use."""


_NO_MEMORY = ("can't allocate memory", "out of memory")
"""What torch says on a CPU, and on an accelerator."""


class _Interrupted(BaseException):
    """Ctrl-C. Not KeyboardInterrupt, which the command-line library would turn into an exit of its own."""


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, Ctrl-C one line and 130."""

    def interrupt(number: int, frame: object) -> None:
        raise _Interrupted

    signal.signal(signal.SIGINT, interrupt)
    try:
        sys.exit(app(standalone_mode=False))
    except PhospheneError as error:
        _refuse(str(error))
    except _UsageError as error:
        _refuse(error.format_message())
    except _Interrupted:
        err.print("phosphene: stopped; what is finished is kept")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)):
            raise
        asked = re.search(r"allocate ([\d.]+ \w+)", str(error))
        _refuse(
            f"too little memory{f', {asked[1]} more were asked for' if asked else ''}; what was finished is kept; take "
            "a smaller --batch, or for training a smaller batch in the recipe"
        )
    except OSError as error:  # what no room foresaw: a full disk, a folder that may not be written
        try:
            sys.stdout.flush()
        except OSError:  # stdout itself: nothing more can go there
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    _warn(message)
    sys.exit(2)


def _warn(message: str) -> None:
    if line := " ".join(message.split()):  # empty where the help was shown instead
        err.print(f"[bold red]phosphene:[/] {escape(line)}", highlight=False, soft_wrap=True)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"phosphene {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Show what the neurons of a vision network want to see."""


@app.command(rich_help_panel="Main")
def synthesize(
    subject: Annotated[
        str,
        typer.Argument(
            help="caffenet-objects, a weights file, torchvision:NAME, timm:NAME, hf:OWNER/NAME, net.pt2, net.onnx, "
            "python:module:factory or efficientnet-lite0.",
            show_default=False,
        ),
    ] = "",
    units: Annotated[
        list[str] | None,
        typer.Argument(
            help="class:lion, conv5:151, conv5:0-31, conv5:all, conv5:7@2,3, conv5:7@max, 'fc8:3 + 0.5*fc8:7', "
            "'fc8:3 - fc8:7'.",
            show_default=False,
        ),
    ] = None,
    out_folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for pictures, records, the contact sheet.")
    ] = Path("preferred"),
    seeds: Annotated[str, typer.Option(help="Seeds of the starts: 0, 0-3 or 1,5.")] = "0",
    start: Annotated[str, typer.Option(help="random, mean, or a photograph's file.")] = "random",
    least: Annotated[bool, typer.Option("--least", help="Climb down: the least preferred input.")] = False,
    direction: Annotated[
        list[str] | None, typer.Option(help="LAYER=FILE.npy: a direction in a layer's channels.")
    ] = None,
    prior: Annotated[
        str, typer.Option(help="A generator's name or file, deepsim:fc6, pixels or fourier.", rich_help_panel="Climb")
    ] = "objects-fc6",
    prior_file: Annotated[
        Path | None, typer.Option(help="Local weights for deepsim:LAYER.", rich_help_panel="Climb")
    ] = None,
    bounds: Annotated[
        Path | None, typer.Option(help="Upper bounds for deepsim:LAYER, one number a unit.", rich_help_panel="Climb")
    ] = None,
    climb: Annotated[str, typer.Option(help="default or paper.", rich_help_panel="Climb")] = "default",
    objective: Annotated[
        str | None, typer.Option(help="activation or probability.", rich_help_panel="Climb", show_default="the climb's")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps.", rich_help_panel="Climb", show_default="the climb's")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="First step size.", rich_help_panel="Climb", show_default="the climb's")
    ] = None,
    decay: Annotated[
        float | None,
        typer.Option(help="Shrinking of the code at each step.", rich_help_panel="Climb", show_default="the climb's"),
    ] = None,
    tv: Annotated[
        float | None,
        typer.Option(help="Weight of total variation.", rich_help_panel="Climb", show_default="the climb's"),
    ] = None,
    blur: Annotated[
        float | None,
        typer.Option(
            help="Blur of what the subject sees, in pixels.", rich_help_panel="Climb", show_default="the climb's"
        ),
    ] = None,
    shift: Annotated[
        int | None,
        typer.Option(
            help="Largest random shift of the crop, in pixels.", rich_help_panel="Climb", show_default="the climb's"
        ),
    ] = None,
    animate: Annotated[bool, typer.Option("--animate", help="Also write the climb as an animated WebP.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--anew", help="Keep what the folder holds already, or climb all again.")
    ] = True,
    record: Annotated[Path | None, typer.Option(help="Make this record's picture again.")] = None,
    batch: Annotated[
        int, typer.Option(help="Pictures climbed at once.", min=1, max=4096, rich_help_panel="Machine")
    ] = 32,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Climb to the input that each unit prefers, and write it with its record.

    Finished pictures are kept when the run is stopped, and are not climbed again by the same command.
    """
    if record is not None:
        _remake(record, subject, out_folder, device, as_json)
        return
    if not subject:
        raise BadRequest("no subject given; for example: phosphene synthesize caffenet-objects class:lion")
    from phosphene.records import Folder
    from phosphene.runs import Request, climb_into, open_parameterization, start_request
    from phosphene.synthesis import Member, check, settings

    machine = _machine(device, precision, threads)
    seen = _subject(subject)
    targets = [t for text in units or [] for t in seen.targets(text)]
    targets += [_direction(seen, text) for text in direction or []]
    targets = [target.negative() for target in targets] if least else targets
    members = [Member(target, seed) for target in targets for seed in _seeds(seeds)]
    check(members)
    own_file, own_bounds = str(prior_file or ""), str(bounds or "")
    parameterization = open_parameterization(prior, seen, own_file, own_bounds)
    changes = {"steps": steps, "rate": rate, "decay": decay, "tv": tv, "blur": blur, "shift": shift}
    how = settings(climb, parameterization, objective=_one_of(objective, ("activation", "probability")), **changes)
    request = Request(subject, prior, how, start_request(start), own_file, own_bounds, **machine)
    with _bar(len(members) * how.steps, "climbing") as advance:
        finished = climb_into(
            Folder(out_folder),
            request,
            seen,
            parameterization,
            members,
            batch=min(batch, seen.batch or batch),
            animate=animate,
            resume=resume,
            report=advance,
        )
        records = list(finished)
    _tell(out_folder, records, as_json)


@app.command(rich_help_panel="Main")
def layers(
    subject: Annotated[str, typer.Argument(help="As for synthesize.")],
    as_json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="Also the layers inside of layers.")] = False,
) -> None:
    """A table of a subject's layers: shape, units, receptive field."""
    from phosphene.receptive_fields import receptive_fields
    from phosphene.subjects import outer_layers

    network = _subject(subject)
    shapes = {name: shape for name, shape in network.shapes().items() if shape}
    shapes = shapes if every else outer_layers(shapes)
    with _status(f"receptive fields of {len(shapes)} layers"):
        boxes = receptive_fields(network.network, network.size, list(shapes), network.batch or 32)
    rows: list[dict[str, Any]] = [
        {
            "layer": name,
            "kind": _kind(network.network.get_submodule(name)),
            "shape": list(shape),
            "channels": shape[0],
            "units": _product(shape),
            "receptive_field": asdict(boxes[name].centre) if name in boxes else None,
        }
        for name, shape in shapes.items()
    ]
    if as_json:
        _print_json({"subject": subject, "input": list(network.size), "output": network.output, "layers": rows})
        return
    table = Table(
        "layer",
        "kind",
        "shape",
        "channels",
        "units",
        "receptive field",
        title=f"{subject}: {network.size[0]} × {network.size[1]} pixels",
        caption=f"assumed: {network.card['assumed']}" if "assumed" in network.card else None,
    )
    for row in rows:
        table.add_row(
            row["layer"],
            row["kind"],
            " × ".join(map(str, row["shape"])),
            f"{row['channels']:,}",
            f"{row['units']:,}",
            str(boxes[row["layer"]].centre) if row["layer"] in boxes else "–",
        )
    out.print(table)


@app.command(rich_help_panel="Main")
def reconstruct(
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    prior: Annotated[str, typer.Option(help="A generator's name or file.")] = "objects-fc6",
    out_file: Annotated[Path, typer.Option("--out", "-o", help="PNG: the photograph beside G(E(photograph)).")] = Path(
        "reconstruction.png"
    ),
    as_json: AsJson = False,
) -> None:
    """Encode a photograph and generate it again: what the prior can show of it."""
    import torch

    from phosphene import images
    from phosphene.evaluation import as_images
    from phosphene.parameterizations import load_generated
    from phosphene.synthesis import encode

    generated = load_generated(prior)
    pixels = images.read_image(image, generated.image_size)
    photograph = as_images([pixels])[0]
    with torch.no_grad():
        again = generated.images(encode(generated, photograph)[None])[0].clamp(0, 1)
    error = float((again - photograph).abs().mean())
    images.write_png(
        out_file,
        images.contact_sheet([pixels, images.to_pixels(again.numpy())], ["photograph", f"{prior}"], 2, scale=2),
    )
    if as_json:
        _print_json({"image": str(image), "prior": prior, "out": str(out_file), "mean_absolute_error": error})
    else:
        out.print(f"{out_file}: mean absolute error {error:.3f} of the range 0 … 1", soft_wrap=True)


@app.command(rich_help_panel="Main")
def exemplars(
    subject: Annotated[str, typer.Argument(help="As for synthesize.")],
    images_folder: Annotated[Path, typer.Option("--images", help="Photographs, as for train.")],
    units: Annotated[
        list[str] | None,
        typer.Argument(help="Channels, as for synthesize; none for all channels of all layers.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or all of them.")] = "train",
    k: Annotated[int, typer.Option(help="Exemplars of each unit.", min=1, max=1000)] = 9,
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="Folder of the index and the contact sheet.")] = Path(
        "exemplars"
    ),
    batch: Annotated[int, typer.Option(help="Photographs looked at once.", min=1, max=4096)] = 64,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """The photographs that excite a unit most, cut to what it sees of them, and the spread of its activation.

    One pass finds them for every channel of the layers asked for; interrupted, the same command goes on. The index is
    kept, so other channels of these layers need no other pass.
    """
    from phosphene.datasets import Stream
    from phosphene.exemplars import describe, find_exemplars
    from phosphene.subjects import outer_layers
    from phosphene.units import Unit

    where = _machine(device, "float32", threads)["device"]
    network = _subject(subject)
    targets = [target for text in units or [] for target in network.targets(text)]
    named = [unit for target in targets for _, unit in target.terms if isinstance(unit, Unit)]
    fixed = [unit for unit in named if isinstance(unit.position, tuple)]
    if wrong := [*(target for target in targets if len(target.terms) > 1), *fixed]:
        raise BadRequest(f"{wrong[0]}: exemplars are of one channel each, wherever it peaks; write LAYER:CHANNEL")
    layers = list(dict.fromkeys(unit.layer for unit in named))
    layers = layers or [name for name, shape in outer_layers(network.shapes()).items() if shape]
    data = Stream(images_folder, split, max(network.size))
    with _bar(None, "looking") as advance:
        seen = 0

        def report(now: int) -> None:
            nonlocal seen
            advance(now - seen)
            seen = now

        file = out_folder / "exemplars.safetensors"
        found = find_exemplars(network, layers, data, file, k=k, batch=batch, device=where, report=report)
    with _status("cutting them out"):
        rows = describe(network, named, found, data, out_folder) if named else []
    if as_json:
        _print_json(rows)
        return
    table = Table("unit", "channel of", "largest", "99 %", "median", "silent", "photographs")
    for row in rows:
        numbers = ", ".join(map(str, row["photographs"]))
        table.add_row(
            row["unit"],
            escape(row["label"]),
            f"{row['values'][0]:.2f}",
            f"{row['quantiles']['0.99']:.2f}",
            f"{row['quantiles']['0.5']:.2f}",
            f"{row['silent']:.1%}",
            numbers,
        )
    if named:
        out.print(table)
        out.print(f"contact sheet: {out_folder / 'exemplars.png'}", soft_wrap=True, highlight=False)
    total = next(iter(found.values())).seen
    out.print(f"{file}: {len(found)} layers, {total:,} photographs", soft_wrap=True, highlight=False)


@app.command(rich_help_panel="Main")
def evaluate(
    run: Annotated[str, typer.Argument(help="A folder made by synthesize, or a generator's name or file.")],
    images: Annotated[
        str | None,
        typer.Option(help="Photographs to compare with, as for train: a split to look through and one held out."),
    ] = None,
    judge: Annotated[str, typer.Option(help="A network that took no part.")] = "efficientnet-lite2",
    control: Annotated[
        Path | None, typer.Option(help="The same units climbed on SUBJECT@random: what the prior draws by itself.")
    ] = None,
    photographs: Annotated[int, typer.Option(help="Natural photographs to judge.", min=1)] = 1000,
    subject: Annotated[str, typer.Option(help="The run's subject, where that is code: python:…")] = "",
    index: Annotated[
        Path | None,
        typer.Option("--exemplars", help="Folder of the exemplars' index, to share it.", show_default="RUN/evidence"),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Measure pictures: does an independent network see the class; do they excite the unit as photographs do?

    Of a generator: what survives of photographs, and what it makes of random codes. Each figure comes with its 95 %
    interval. What is measured of a folder is kept in its folder evidence.
    """
    from phosphene import evidence, fidelity
    from phosphene.parameterizations import load_generated

    where = _machine(device, "float32", threads)["device"]
    if not Path(run).is_dir():
        if images is None:
            raise BadRequest(f"{run} is no folder of pictures; a generator is measured on photographs: --images DATA")
        with _status("looking at photographs"):
            prior = fidelity.measure_prior(load_generated(run), images, judge, photographs=photographs, device=where)
        if as_json:
            _print_json(asdict(prior))
        else:
            _tell_figures(f"{prior.prior}, judge {prior.judge}", asdict(prior)["figures"])
        return
    with _bar(None, "looking") as advance:
        found = evidence.evaluate(
            Path(run),
            judge,
            images,
            control=control,
            trusted=subject,
            photographs=photographs,
            index=index,
            device=where,
            report=lambda: advance(1),
        )
    if as_json:
        _print_json([asdict(each) for each in found])
        return
    for each in found:
        _tell_figures(f"{each.subject} {each.layer}, judge {each.judge}", asdict(each)["figures"])


def _tell_figures(title: str, figures: dict[str, dict[str, Any]]) -> None:
    """A table of figures, as JSON has them, with their intervals."""
    from phosphene.files import without_nan

    table = Table(Column("figure", no_wrap=True), "", Column("95 % interval", no_wrap=True), "n", "", title=title)
    for name, figure in without_nan(figures).items():
        value, low, high = ("–" if number is None else f"{number:.3g}" for number in map(figure.get, PARTS))
        table.add_row(name, value, f"{low} … {high}", f"{figure['n']:,}", escape(figure["note"]))
    out.print(table)


@app.command(rich_help_panel="Main")
def dissect(
    subject: Annotated[str, typer.Argument(help="As for synthesize.")],
    layer: Annotated[str, typer.Argument(help="A layer with a map.")],
    images: Annotated[Path, typer.Option(help="Shards of photographs with outlined objects.")],
    split: Annotated[str, typer.Option(help="train, val or all of them.")] = "all",
    quantile: Annotated[float, typer.Option(help="Share of a channel's activations that are its answer.")] = 0.005,
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for dissection.json.")] = Path("dissection"),
    batch: Annotated[int, typer.Option(help="Photographs looked at once.", min=1, max=4096)] = 16,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Which object does each channel detect? Network dissection: where it answers against where objects are."""
    from phosphene import dissection
    from phosphene.datasets import Outlined
    from phosphene.files import write_json

    where = _machine(device, "float32", threads)["device"]
    network = _subject(subject)
    data = Outlined(images, split, max(network.size))
    with _bar(2 * len(data), "looking") as advance:
        found = dissection.dissect(
            network, layer, data, quantile=quantile, batch=batch, device=where, report=advance
        ).as_json(network, data)
    write_json(out_folder / "dissection.json", found)
    if as_json:
        _print_json(found)
        return
    detectors = [row for row in found["units"] if row["iou"] > dissection.DETECTOR]
    objects = {row["object"] for row in detectors}
    table = Table("unit", "object", "IoU", "others", title=f"{len(detectors)} detectors of {len(objects)} objects")
    for row in sorted(detectors, key=lambda row: -row["iou"]):
        others = ", ".join(f"{name} {iou:.3f}" for name, iou in row["others"])
        table.add_row(row["unit"], escape(row["object"]), f"{row['iou']:.3f}", escape(others))
    out.print(table)
    units, photographs = len(found["units"]), found["photographs"]
    out.print(
        f"{out_folder / 'dissection.json'}: {units:,} units, {photographs:,} photographs, a detector above "
        f"{dissection.DETECTOR}",
        soft_wrap=True,
        highlight=False,
    )


@app.command(rich_help_panel="Main")
def atlas(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders made by synthesize, exemplars, evaluate or dissect.", show_default=False),
    ] = None,
    site: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pages.")] = Path("atlas"),
    title: Annotated[str, typer.Option(help="What stands above the front page.")] = "Unit atlas",
    serve: Annotated[
        bool, typer.Option("--serve", help="Open the pages in the browser; only this machine sees them.")
    ] = False,
    port: Annotated[int, typer.Option(help="For --serve; 0 takes any that is free.", min=0, max=65535)] = 8016,
) -> None:
    """Make pages of all that some folders say of units: pictures, exemplars, figures, records.

    They work from a file, with no server and no network. Without RUN, --serve shows what was made before.
    """
    from phosphene.atlas import build, served

    if runs:
        with _status(f"writing {site}"):
            made = build(runs, site, title)
        layers = [layer for subject in made.subjects for layer in subject.layers]
        units = sum(len(layer.cards) for layer in layers)
        out.print(f"{site / 'index.html'}: {units:,} units of {len(layers):,} layers", soft_wrap=True, highlight=False)
    elif not serve:
        raise BadRequest("no folder given; for example: phosphene atlas preferred --out atlas")
    if serve:
        with served(site, port) as (address, forever), suppress(_Interrupted):
            out.print(f"{address} until Ctrl-C", soft_wrap=True, highlight=False)
            webbrowser.open(address)
            forever()


@app.command(rich_help_panel="Main")
def claims(
    names: Annotated[list[str] | None, typer.Argument(help="C1 … C8, or all.", show_default="all")] = None,
    objects: Annotated[str, typer.Option(help="Photographs of objects, as for train.", rich_help_panel="Data")] = "",
    scenes: Annotated[str, typer.Option(help="Photographs of scenes.", rich_help_panel="Data")] = "",
    outlined: Annotated[
        str, typer.Option(help="Photographs with outlined objects, as for dissect.", rich_help_panel="Data")
    ] = "",
    textures: Annotated[str, typer.Option(help="Photographs of textures.", rich_help_panel="Data")] = "",
    images: Annotated[
        str, typer.Option(help="Photographs for a network of your own; the same as --objects.", rich_help_panel="Data")
    ] = "",
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="Folder of results, pictures, the report.")] = Path(
        "claims"
    ),
    subject: Annotated[str, typer.Option(help="The network to measure, as for synthesize.")] = "caffenet-objects",
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="A network that took no part; several may be given.",
            show_default="efficientnet-lite2, resnet18-objects",
        ),
    ] = None,
    prior: Annotated[str, typer.Option(help="A generator's name or file.")] = "objects-fc6",
    quick: Annotated[bool, typer.Option("--quick", help="One unit in ten: to see that all works.")] = False,
    seed: Annotated[int, typer.Option(help="Decides which units are drawn and where climbs begin.", min=0)] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what the paper claims: expectations written down before, verdicts that follow from intervals.

    What was measured once is read again; stopped, the same command goes on. OUT/report.html shows it all.

    Of a network of your own, C1, C5 and C7's control can be measured.
    """
    from phosphene.claims import Lab, run
    from phosphene.claims.report import ready, write_report

    chosen = _claims(names or ["all"], subject == Lab.subject)
    if images and objects:
        raise BadRequest("--images and --objects are the same photographs; give one of them")
    if not (objects := images or objects):
        raise BadRequest("photographs are needed: --objects DATA, or --images DATA for a network of your own")
    ready()
    lab = Lab(
        out_folder,
        objects,
        scenes,
        outlined,
        textures,
        subject=subject,
        judges=tuple(judge or Lab.judges),
        prior=prior,
        quick=quick,
        seed=seed,
        machine=_machine(device, precision, threads),
    )
    done, missing = [], 0
    with _measuring(len(chosen)) as (told, advance):
        told(f"reading {', '.join(lab.identity['networks'])}")  # what is not there is said before any work
        lab.report = told
        for claim in chosen:
            try:
                done += [result.as_json() for result in run([claim], lab)]
            except PhospheneError as error:
                missing += 1
                _warn(f"{claim.name}: {error}")
            advance()
    report = write_report(done, out_folder) if done else None
    if as_json:
        _print_json(done)
    elif report:
        _tell_claims(done)
        out.print(f"report: {report}", soft_wrap=True, highlight=False)
    if missing:
        raise typer.Exit(2)


def _claims(names: Sequence[str], default: bool) -> list[Claim]:
    """Claims by name, each once and in their order; of another subject than the default, those for any network."""
    from difflib import get_close_matches

    from phosphene.claims import CLAIMS, OWN

    there = CLAIMS if default else OWN
    for name in names:
        if name in CLAIMS and name not in there:
            raise BadRequest(f"{name} is not for a network of one's own; {', '.join(there)} can be measured of any")
        if name not in (*CLAIMS, "all"):
            near = get_close_matches(name.upper(), there, n=3) or there
            raise UnknownName(f"no claim {name!r}; near: {', '.join(near)}; or all")
    return [claim for name, claim in there.items() if name in names or "all" in names]


def _tell_claims(results: Sequence[dict[str, Any]]) -> None:
    """A table of results, as JSON has them: each claim, and below it each of its expectations."""
    from phosphene.claims.words import SIGNS, told
    from phosphene.files import without_nan

    table = Table("claim", "verdict", "found", title="The paper's claims")
    for result in without_nan(list(results)):
        word = result["verdict"]
        table.add_section()
        table.add_row(f"[bold]{escape(result['claim'])} {escape(result['title'])}", f"[bold]{SIGNS[word]} {word}", "")
        for each in result["expected"]:
            word = each["verdict"]
            table.add_row(f"  {escape(each['number'])}", f"{SIGNS[word]} {word}", told(each["found"]))
    out.print(table)


@zoo_app.command("list")
def zoo_list(as_json: AsJson = False) -> None:
    """The bundled weights."""
    from phosphene import weights

    entries = weights.manifest()
    if as_json:
        _print_json(entries)
        return
    table = Table("name", "kind", "MB", "summary")
    for name, entry in entries.items():
        table.add_row(name, entry["kind"], f"{entry['bytes'] / 1e6:.1f}", entry["summary"])
    out.print(table)


@zoo_app.command("show")
def zoo_show(
    name: Annotated[str, typer.Argument(help="A bundled name or a weights file.")], as_json: AsJson = False
) -> None:
    """A weights file's card."""
    from phosphene import weights

    file = weights.read(name)
    card = {
        **file.card,
        "sha256": file.sha256,
        "parameters": sum(t.numel() for n, t in file.tensors.items() if n.startswith("network.")),
    }
    measured = weights.figures(file)
    if as_json:
        _print_json({**card, **({"figures": measured} if measured else {})})
        return
    for key, value in card.items():
        if key == "classes" and value:
            value = f"{len(value)}: {value[0]} … {value[-1]}"
        elif key == "history":
            value = value[-1] if value else "none"
        out.print(
            f"[bold]{key}[/]: {escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}",
            highlight=False,
            soft_wrap=True,
        )
    for found in measured:
        _tell_figures(f"on {found['data']}, judge {found['judge']}", found["figures"])


@zoo_app.command("verify")
def zoo_verify(
    data: Annotated[
        Path | None,
        typer.Option("--accuracy", help="Photographs: also measure again what the cards say of their val split."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Check every file of the zoo against the manifest, and its contents against its own digest.

    With --accuracy, a figure that is more than half a point from its card's is a failure.
    """
    from phosphene import datasets, weights

    where = _machine(device, "float32", threads)["device"]
    val, wrong = datasets.load(data, "val") if data else None, []
    for name in weights.manifest():
        try:
            card = weights.read(name).card
        except Unreachable:
            out.print(f"{name}: not on this machine")
            continue
        out.print(f"{name}: whole")
        if val is None or card.get("data", {}).get("name") != val.name or card["kind"] == "training":
            continue
        with _status(f"measuring {name}"):
            found = _measured(name, card, val, where)
        for figure, value in found.items():
            said = card["measured"][figure]
            fits = abs(value - said) <= 0.005
            wrong += [] if fits else [f"{name}: {figure} is {value:.4f}, its card says {said:.4f}"]
            out.print(f"{name}: {figure} {value:.4f}, card {said:.4f}", highlight=False)
    if wrong:
        raise BadFile("; ".join(wrong))


def _measured(name: str, card: dict[str, Any], val: Photographs, device: str) -> dict[str, float]:
    """What a card says of held-out photographs, measured again."""
    from phosphene.parameterizations import load_generated
    from phosphene.subjects import load_subject
    from phosphene.training.generator import held_out_errors
    from phosphene.training.modified import with_modified
    from phosphene.training.subject import accuracy

    if card["kind"] == "subject":
        val = with_modified(val, card["recipe"].get("extra", []))
        subject = load_subject(name)
        return dict(zip(("top1", "top5"), accuracy(subject.network.to(device), val, subject.size[0]), strict=True))
    generator: Any = load_generated(name).generator.to(device)
    encoder = load_subject(card["encoder"])
    errors = held_out_errors(card["recipe"], encoder, val, generator)
    return {figure: errors[figure] for figure in ("image_error", "class_kept") if figure in errors}


@train_app.command("subject")
def train_subject(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name or a TOML file.")],
    data: Annotated[Path, typer.Option(help="Parquet shards or class folders, with train and val, or hf:NAME.")],
    run: Annotated[Path, typer.Option(help="Folder of the run; an interrupted one goes on.")],
    without: Annotated[Path | None, typer.Option(help="Folder of shards whose keys are left out of training.")] = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", help="A trained subject to begin from, whatever its classes, by name or file."),
    ] = None,
    out_file: Annotated[Path | None, typer.Option("--out", "-o", help="Weights file to write.")] = None,
    time_budget: Annotated[float | None, typer.Option(help="Minutes after which to stop cleanly.", min=0)] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a classifier to be looked into.

    Several processes share each batch: torchrun --nproc-per-node 2 --no-python -- phosphene train subject …
    """
    from phosphene import datasets
    from phosphene.training.crew import crew
    from phosphene.training.modified import with_modified
    from phosphene.training.run import read_recipe
    from phosphene.training.subject import subject_card, train_subject

    where = _machine(device, "bfloat16", threads)["device"]
    steps = read_recipe(recipe, "subject")
    begun = _subject(begin) if begin else None
    with _status("decoding photographs"):
        train = datasets.load(data, "train", without=without, cache=run / "cache")
        val = datasets.load(data, "val", cache=run / "cache")
        train, val = (with_modified(split, steps.get("extra", [])) for split in (train, val))
    name = Path(recipe).stem

    def snapshot(share: float, network: Any) -> None:
        tag = f"{name}@{100 * share:g}%"
        card = subject_card(tag, steps, train, val, network, history=[], begin=begun)
        _publish(run / f"{tag}.safetensors", {"network": network}, card, False, told=False)

    with crew(where) as together, _training(together.leads) as report:
        network, folder, finished = train_subject(
            steps,
            train,
            val,
            run,
            begin=begun,
            crew=together,
            device=where,
            time_budget=_seconds(time_budget),
            report=report,
            snapshot=snapshot,
        )
    if not together.leads:
        return
    _publish(
        out_file or run / f"{name}.safetensors",
        {"network": network},
        subject_card(name, steps, train, val, network, history=folder.history, begin=begun),
        finished,
    )


@train_app.command("generator")
def train_generator(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe's name or a TOML file.")],
    data: Annotated[
        list[Path],
        typer.Option("--images", help="Parquet shards or class folders, with train and val, or hf:NAME; or several."),
    ],
    run: Annotated[Path, typer.Option(help="Folder of the run; an interrupted one goes on.")],
    encoder: Annotated[str, typer.Option(help="The subject to invert.")] = "caffenet-objects",
    layer: Annotated[str | None, typer.Option(help="Its code layer.", show_default="the recipe's")] = None,
    begin: Annotated[
        str | None, typer.Option("--from", help="A trained generator, by name or file, to run only the last stage on.")
    ] = None,
    discriminator: Annotated[
        Path | None, typer.Option(help="What was trained beside it: its NAME-training.safetensors.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="the recipe's name")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", "-o", help="Weights file to write.")] = None,
    time_budget: Annotated[float | None, typer.Option(help="Minutes after which to stop cleanly.", min=0)] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Train a generator that inverts a layer of an encoder.

    Every few minutes the last stage leaves in RUN/image/pictures what it makes of some held-out photographs.
    """
    from phosphene import weights
    from phosphene.parameterizations import load_generated
    from phosphene.training.generator import generator_card, train_generator, with_code
    from phosphene.training.run import read_recipe

    where = _machine(device, "bfloat16", threads)["device"]
    network = _subject(encoder)
    steps = with_code(read_recipe(recipe, "generator"), network, layer)
    if discriminator and not begin:
        raise BadRequest("--discriminator goes with --from: it is what was trained beside that generator")
    if "WORLD_SIZE" in os.environ and os.environ["WORLD_SIZE"] != "1":
        raise BadRequest("a generator is trained by one process; torchrun is for train subject")
    begun = load_generated(begin) if begin else None
    judge = weights.read(discriminator, "training") if discriminator else None
    with _status("decoding photographs"):
        train, val = (_joined(data, split, run / "cache") for split in ("train", "val"))
    with _training() as report:
        trained = train_generator(
            steps,
            network,
            train,
            run,
            begin=begun,
            discriminator=judge,
            held_out=val,
            device=where,
            time_budget=_seconds(time_budget),
            report=report,
        )
    name = name or Path(recipe).stem
    with _status("held-out error"):
        card = generator_card(name, steps, network, train, val, trained)
    _publish(
        out_file or run / f"{name}.safetensors",
        {"network": trained.generator, "code": trained.statistics},
        card,
        trained.finished,
    )
    _publish(
        run / f"{name}-training.safetensors",
        trained.helpers,
        {**card, "name": f"{name}-training", "kind": "training"},
        trained.finished,
    )


def _joined(folders: Sequence[Path], split: str, cache: Path) -> Photographs:
    """One split of several data sets, all at the first one's size."""
    from phosphene import datasets

    first = datasets.load(folders[0], split, cache=cache)
    size = first.images.shape[1]
    return datasets.joined([first, *(datasets.load(each, split, size=size, cache=cache) for each in folders[1:])])


def _remake(file: Path, trusted: str, out_folder: Path, device: str, as_json: bool) -> None:
    from phosphene.records import Folder
    from phosphene.runs import remake

    where = None if device == "auto" else str(_machine(device, "float32", 0)["device"])
    with _bar(None, "climbing") as advance:
        old, new = remake(file, Folder(out_folder), trusted=trusted, device=where, report=advance)
    if new.image_sha256 != old.image_sha256:
        was, now = (", ".join(f"{name} {version}" for name, version in r.versions.items()) for r in (old, new))
        err.print(f"phosphene: not the same bits; the record was made with {was}, this is {now}", soft_wrap=True)
    _tell(out_folder, [new], as_json)


def _tell(folder: Path, finished: Sequence[Any], as_json: bool) -> None:
    from phosphene.runs import MOST_TILES

    for record in finished:
        if record.status != "climbed":
            err.print(
                f"phosphene: {record.target}: {record.status}"
                + ("; no start gave it a gradient" if record.status == "dead" else ""),
                soft_wrap=True,
            )
    if as_json:
        _print_json(
            [
                {
                    "target": r.target,
                    "label": r.label,
                    "score": r.score,
                    "start_score": r.start_score,
                    "status": r.status,
                    "image": str(folder / r.image),
                }
                for r in finished
            ]
        )
        return
    table = Table("unit", "prefers", "score", "at the start", "picture")
    for r in finished[:MOST_TILES]:
        table.add_row(escape(r.target), escape(r.label), f"{r.score:.2f}", f"{r.start_score:.2f}", r.image)
    out.print(table)
    sheet = folder / "contact-sheet.png"
    if sheet.exists():
        more = f" (its first {MOST_TILES} pictures)" if len(finished) > MOST_TILES else ""
        out.print(f"contact sheet: {sheet}{more}", soft_wrap=True, highlight=False)


def _subject(name: str) -> Subject:
    from phosphene.subjects import load_subject

    return load_subject(name)


def _direction(subject: Subject, text: str) -> Target:
    """A target from LAYER=FILE.npy."""
    import numpy as np

    from phosphene.units import Direction, Target

    layer, _, file = text.partition("=")
    if not file:
        raise BadRequest(f"--direction takes LAYER=FILE.npy; got {text!r}")
    (probe_target,) = subject.targets(f"{layer}:0")
    channels = subject.shapes()[layer][0]
    try:
        vector = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadFile(f"{file} is not a .npy array: {error}") from None
    if not isinstance(vector, np.ndarray) or vector.shape != (channels,) or vector.dtype.kind not in "iuf":
        raise BadFile(
            f"{file} holds {getattr(vector, 'shape', 'no array')}; {layer} needs a vector of {channels} numbers"
        )
    if not np.isfinite(vector).all() or not np.any(vector):
        raise BadFile(f"{file}: a direction needs finite numbers, not all zero")
    return Target(
        ((1.0, Direction(layer, tuple(map(float, vector)), probe_target.terms[0][1].position, Path(file).stem)),),
        Path(file).stem,
    )


def _seeds(text: str) -> list[int]:
    from phosphene.units import channel_range

    seeds = channel_range(text.strip())
    if seeds is None:
        raise BadRequest(f"--seeds takes numbers such as 0, 0-3 or 1,5; got {text!r}")
    return seeds


def _machine(device: str, precision: str, threads: int) -> dict[str, Any]:
    """Where and how to compute; "auto" takes the accelerator, and bfloat16 where the hardware has it."""
    import torch

    _one_of(device, ("auto", "cpu", "cuda", "mps"))
    _one_of(precision, ("auto", "float32", "bfloat16"))
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, there in has.items() if there)
    if not has[device]:
        raise BadRequest(f"--device {device}: there is none here; use auto or cpu")
    if threads:
        torch.set_num_threads(threads)
    if precision == "auto":
        fast = device == "cuda" or (device == "cpu" and torch.cpu._is_avx512_bf16_supported())
        precision = "bfloat16" if fast else "float32"
    return {"device": device, "precision": precision, "threads": torch.get_num_threads()}


def _told(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _kind(module: Any) -> str:
    """A module's class, or that which it had before it was exported."""
    exported = module.type_name() if hasattr(module, "type_name") else None
    return (exported or type(module).__name__).rpartition(".")[2]


def _publish(path: Path, parts: dict[str, Any], card: dict[str, Any], finished: bool, told: bool = True) -> None:
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


def _one_of(value: str | None, allowed: Sequence[str]) -> str | None:
    if value is not None and value not in allowed:
        raise BadRequest(f"{value!r} is none of: {', '.join(allowed)}")
    return value


def _seconds(minutes: float | None) -> float | None:
    return None if minutes is None else 60 * minutes


def _product(shape: Sequence[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _print_json(value: Any) -> None:
    from phosphene.files import without_nan

    typer.echo(json.dumps(without_nan(value), indent=1, ensure_ascii=False))


@contextmanager
def _status(text: str) -> Iterator[None]:
    with err.status(text):
        yield


@contextmanager
def _bar(total: int | None, text: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr with rate and time left; lends the function that advances it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(text, total=total, rate="")

        def advance(count: int) -> None:
            speed = progress.tasks[task].speed
            progress.update(task, advance=count, rate=f"{speed:,.0f} steps/s" if speed else "")

        yield advance


@contextmanager
def _measuring(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A progress bar over claims with what is done just now; off a terminal, a line every half minute at most.

    Lends the function that says what is done, and the one that advances.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task, before = progress.add_task("", total=total), time.monotonic()

        def told(text: str) -> None:
            nonlocal before
            progress.update(task, description=escape(text))
            if not err.is_terminal and time.monotonic() - before > 30:
                before = time.monotonic()
                err.print(escape(text), highlight=False, soft_wrap=True)

        yield told, lambda: progress.advance(task)


@contextmanager
def _training(told_here: bool = True) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A progress bar with a run's figures, rate and time left; off a terminal, a line every half minute."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=False, disable=not told_here) as progress:
        task, total_before, told = progress.add_task("training", total=None, figures="", rate=""), 0, 0.0

        def report(step: int, steps: int, figures: dict[str, float]) -> None:
            nonlocal total_before, told
            if steps != total_before:
                progress.reset(task, total=steps, completed=step)
                total_before = steps
            speed, text = progress.tasks[task].speed, " ".join(f"{name} {value:.3f}" for name, value in figures.items())
            progress.update(task, completed=step, figures=text, rate=f"{speed:.1f} steps/s" if speed else "")
            if told_here and not err.is_terminal and time.monotonic() - told > 30:
                told = time.monotonic()
                err.print(f"step {step:,} of {steps:,}: {text}", highlight=False, soft_wrap=True)

        yield report
