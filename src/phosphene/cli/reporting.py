"""Commands that end in pages: the atlas of units, and the paper's claims with their report."""

from __future__ import annotations

import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from phosphene.cli import progress
from phosphene.cli.shell import (
    AsJson,
    Device,
    Interrupted,
    Precision,
    Threads,
    choose_machine,
    err,
    out,
    print_json,
    print_table,
    refuse_options,
    styled,
    warn,
)
from phosphene.errors import BadRequest, PhospheneError, UnknownName
from phosphene.texts import clean

if TYPE_CHECKING:
    from phosphene.atlas.publishing import Destination
    from phosphene.claims import Claim, Experiment


def atlas(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders made by synthesize, exemplars, evaluate, dissect or study.",
            show_default=False,
        ),
    ] = None,
    site: Annotated[Path, typer.Option("--out", "-o", help="Folder of the pages.")] = Path("atlas"),
    title: Annotated[str, typer.Option(help="What stands above the front page.")] = "Unit atlas",
    templates: Annotated[
        Path | None,
        typer.Option(help="Folder of templates for studies of your own: STUDY.html each."),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Open the pages in the browser; only this machine sees them."),
    ] = False,
    port: Annotated[
        int, typer.Option(help="For --serve; 0 takes any that is free.", min=0, max=65535)
    ] = 8016,
    publish: Annotated[
        str,
        typer.Option(
            metavar="BRANCH",
            help="Commit the pages to this branch of the remote, such as gh-pages, and push it.",
        ),
    ] = "",
    remote: Annotated[
        str,
        typer.Option(
            help="For --publish; a remote of this folder's git repository.",
            show_default="origin, or the only one",
        ),
    ] = "",
) -> None:
    """Make pages of all that some folders say of units: pictures, exemplars, figures, records.

    They work from a file, with no server and no network. Without RUN, --serve and --publish take
    what was made before.
    """
    from phosphene.atlas import build, destination, served

    if not serve:
        refuse_options(context, ("port",), "pages that nobody opens; --serve opens them")
    if not publish:
        refuse_options(context, ("remote",), "pages that stay here; --publish gh-pages pushes them")
    if not (runs or serve or publish):
        raise BadRequest("no folder given; for example: phosphene atlas preferred --out atlas")
    to = destination(publish, remote) if publish else None
    if not runs:
        refuse_options(
            context, ("title", "templates"), "pages that are there; give the folders they are of"
        )
    if runs:
        with progress.status(f"writing {site}"):
            made = build(runs, site, title, templates)
        layers = [layer for subject in made.subjects for layer in subject.layers]
        units = sum(len(layer.cards) for layer in layers)
        out.print(
            f"{site / 'index.html'}: {_number(units, 'unit')} of {_number(len(layers), 'layer')}",
            soft_wrap=True,
        )
    if to:
        _publish(site, to)
    if serve:
        with served(site, port) as (address, forever), suppress(Interrupted):
            out.print(f"{address} until Ctrl-C", soft_wrap=True)
            webbrowser.open(address)
            forever()


def _number(number: int, noun: str) -> str:
    """Return a number with its noun, in the singular for one."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _publish(site: Path, to: Destination) -> None:
    """Publish a site, and tell what the branch holds."""
    from phosphene.atlas import publish

    with progress.status(f"publishing {site}"):
        done = publish(site, to)
    what = f"{_number(done.files, 'file')}, commit {done.commit[:12]}"
    out.print(f"{to}: {what if done.changed else 'nothing has changed'}", soft_wrap=True)
    if others := done.others:
        more = f" and {len(others) - 5:,} more" if len(others) > 5 else ""
        out.print(f"kept there: {', '.join(map(clean, others[:5]))}{more}", soft_wrap=True)
    if done.address:
        out.print(f"GitHub Pages serves it at {done.address}, where the repository says so")


def _data(help: str) -> Any:
    """Return an option that names photographs."""
    return typer.Option(help=help, rich_help_panel="Data")


def claims(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="C1 … C8, or all.", show_default="all")
    ] = None,
    objects: Annotated[str, _data("Photographs of objects, as for train.")] = "",
    scenes: Annotated[str, _data("Photographs of scenes.")] = "",
    outlined: Annotated[str, _data("Photographs with outlined objects, as for dissect.")] = "",
    textures: Annotated[str, _data("Photographs of textures.")] = "",
    images: Annotated[
        str, _data("Photographs for a network of your own; the same as --objects.")
    ] = "",
    out_folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of results, pictures, the report.")
    ] = Path("claims"),
    subject: Annotated[
        str, typer.Option(help="The network to measure, as for synthesize.")
    ] = "caffenet-objects",
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="A network that took no part; several may be given.",
            show_default="efficientnet-lite2, resnet18-objects",
        ),
    ] = None,
    prior: Annotated[str, typer.Option(help="A generator's name or file.")] = "objects-fc6",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="One unit in ten, half the settings: to see that all works."),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Decides which units are drawn and where climbs begin.", min=0)
    ] = 0,
    anew: Annotated[
        bool, typer.Option("--anew", help="Measure again what another version's code measured.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Measure what the paper claims: expectations written down before, verdicts that follow from
    intervals.

    What was measured once is read again; stopped, the same command goes on. OUT/report.html shows
    it all.

    What another version's code measured is shown with a note that says so, or with --anew measured
    again.

    Of a network of your own, C1, C4, C5 and C7's control can be measured.
    """
    from phosphene.claims import Experiment
    from phosphene.claims.report import ready
    from phosphene.runtime import Runtime

    chosen = _chosen(names or ["all"], subject == Experiment.subject)
    objects = _objects(objects, images)
    unused = {"scenes", "outlined", "textures"} - {each for one in chosen for each in one.data}
    refuse_options(context, sorted(unused), f"the claims {', '.join(one.name for one in chosen)}")
    _check_outlet(out_folder, [objects, scenes, outlined, textures])
    ready()
    machine = choose_machine(device, precision, threads)
    experiment = Experiment(
        Runtime(out_folder, **machine, seed=seed),
        objects,
        scenes,
        outlined,
        textures,
        subject=subject,
        judges=tuple(judge or Experiment.judges),
        prior=prior,
        quick=quick,
    )
    _report_claims(chosen, experiment, anew, as_json)


def _objects(objects: str, images: str) -> str:
    """Return the photographs of objects, which have two names."""
    if images and objects:
        raise BadRequest("--images and --objects are the same photographs; give one of them")
    if not (images or objects):
        raise BadRequest(
            "photographs are needed: --objects DATA, or --images DATA for a network of your own"
        )
    return images or objects


def _check_outlet(folder: Path, data: Sequence[str]) -> None:
    """Refuse a folder that may not be written, or that lies among the photographs."""
    from phosphene.datasets import check_apart
    from phosphene.files import outlet_folder

    outlet_folder(folder)
    for each in filter(None, data):
        check_apart(folder, each)


def _report_claims(
    chosen: Sequence[Claim], experiment: Experiment, anew: bool, as_json: bool
) -> None:
    """Measure claims, write their report, and print what was found; exit with 2 if one failed."""
    from phosphene.claims.report import write_report

    done = list(_measured(chosen, experiment, anew))
    report = write_report(done, experiment.out) if done else None
    if as_json:
        print_json(done)
    elif report:
        _tell_claims(done)
        for result in done:
            if note := result.get("note"):
                out.print(f"{result['claim']}: {note}", soft_wrap=True)
        out.print(f"report: {report}", soft_wrap=True)
    if len(done) < len(chosen):
        raise typer.Exit(2)


def _measured(
    chosen: Sequence[Claim], experiment: Experiment, anew: bool
) -> Iterator[dict[str, Any]]:
    """Yield the results of those claims that can be measured; of the others, tell why not."""
    from phosphene.claims import run

    with progress.claims_bar(len(chosen)) as (told, advance):
        # what is not there is said before any work
        told(f"reading {', '.join(experiment.identity['networks'])}")
        experiment.report = told
        for claim in chosen:
            try:
                for measured in run([claim], experiment, not anew):
                    yield measured.as_json()
                    if measured.kept:
                        err.print(f"phosphene: {claim.name}: kept what an earlier run measured")
            except PhospheneError as error:
                warn(f"{claim.name}: {error}")
            advance()


def _chosen(names: Sequence[str], default: bool) -> list[Claim]:
    """Return claims by name, each once and in their order.

    Of another subject than the default they are those for any network.
    """
    from difflib import get_close_matches

    from phosphene.claims import ANY_NETWORK, CLAIMS

    there = CLAIMS if default else ANY_NETWORK
    for name in names:
        if name in CLAIMS and name not in there:
            raise BadRequest(
                f"{name} is not for a network of one's own; "
                f"{', '.join(there)} can be measured of any"
            )
        if name not in (*CLAIMS, "all"):
            near = get_close_matches(name.upper(), there, n=3) or there
            raise UnknownName(f"no claim {name!r}; near: {', '.join(near)}; or all")
    return [claim for name, claim in there.items() if name in names or "all" in names]


def _tell_claims(results: Sequence[dict[str, Any]]) -> None:
    """Print results, as JSON has them: each claim, and below it each of its expectations."""
    from phosphene.claims.formatting import SIGNS, formatted, undecided
    from phosphene.files import without_nan

    table = Table("claim", "verdict", "found", title="The paper's claims")
    for result in without_nan(list(results)):
        word = result["verdict"]
        table.add_section()
        table.add_row(
            styled(f"{result['claim']} {result['title']}", "bold"),
            styled(f"{SIGNS[word]} {word}", "bold"),
            "",
        )
        for each in result["expected"]:
            word = each["verdict"]
            found = "; ".join(filter(None, [formatted(each["found"]), undecided(each)]))
            table.add_row(f"  {each['number']}", f"{SIGNS[word]} {word}", found)
    print_table(table)
