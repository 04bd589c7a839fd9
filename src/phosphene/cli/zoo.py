"""The commands of `phosphene zoo`: the bundled weights, listed, shown and verified."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from phosphene.cli import progress
from phosphene.cli.shell import (
    AsJson,
    Device,
    Threads,
    choose_machine,
    out,
    print_json,
    print_table,
    refuse_options,
    styled,
    tell_figures,
)
from phosphene.errors import BadFile, BadRequest, Unavailable, UnknownName

COMPARED = ("top1", "top5", "image_error", "class_kept")
"""The figures of a card that `verify --accuracy` measures again."""

app = typer.Typer(no_args_is_help=True, help="List, show and verify the bundled weights.")


@app.command("list")
def zoo_list(as_json: AsJson = False) -> None:
    """List the bundled weights."""
    from phosphene import weights

    entries = weights.manifest()
    if as_json:
        print_json(entries)
        return
    table = Table("name", "kind", "MB", "summary")
    for name, entry in entries.items():
        table.add_row(name, entry["kind"], f"{entry['bytes'] / 1e6:.1f}", entry["summary"])
    print_table(table)


@app.command("show")
def zoo_show(
    name: Annotated[str, typer.Argument(help="A bundled name or a weights file.")],
    as_json: AsJson = False,
) -> None:
    """Show a weights file's card."""
    from phosphene import weights

    file = weights.read(name)
    card = {
        **file.card,
        "sha256": file.sha256,
        "parameters": sum(t.numel() for n, t in file.tensors.items() if n.startswith("network.")),
    }
    measured = weights.figures(file)
    if as_json:
        print_json({**card, **({"figures": measured} if measured else {})})
        return
    for key, value in card.items():
        if key == "classes" and value and isinstance(value, list):
            value = f"{len(value)}: {value[0]} … {value[-1]}"
        elif key == "history" and isinstance(value, list):
            value = value[-1] if value else "none"
        told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        out.print(styled(key, "bold"), f": {told}", sep="", soft_wrap=True)
    for found in measured:
        tell_figures(f"on {found['data']}, judge {found['judge']}", found["figures"])


@app.command("verify")
def zoo_verify(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Some of them; all if none.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--accuracy",
            help="Photographs, once or more: also measure again what the cards say of their val "
            "splits.",
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Check the zoo's files against the manifest, and their contents against their own digests.

    With --accuracy, a figure that is more than half a point from its card's is a failure.
    """
    from phosphene import weights

    known = weights.manifest()
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UnknownName(f"the zoo has no {', '.join(unknown)}; it has {', '.join(known)}")
    if not data:
        refuse_options(context, ("device", "threads"), "files that are not run without --accuracy")
    from phosphene import datasets
    from phosphene.training.verify import held_out, measured

    where = choose_machine(device, "float32", threads)["device"]
    folders: dict[str, Path] = {}
    for folder in data or ():
        name = datasets.Stream(folder, "val", 1).name
        if name in folders:
            raise BadRequest(f"{folders[name]} and {folder} are both called {name}; rename one")
        folders[name] = folder
    val = functools.cache(functools.partial(held_out, folders))
    wrong: list[str] = []
    for name in names or known:
        try:
            card = weights.read(name).card
        except Unavailable:
            out.print(f"{name}: not on this machine", soft_wrap=True)
            continue
        out.print(f"{name}: whole", soft_wrap=True)
        if not folders or card["kind"] == "training":
            continue
        trained_on = card["data"]["name"]
        photographs = val(trained_on)
        if photographs is None:
            out.print(f"{name}: not measured, it was trained on {trained_on}", soft_wrap=True)
            continue
        with progress.status(f"measuring {name}"):
            found = measured(name, card, photographs, where)
        for figure in (each for each in COMPARED if each in found and each in card["measured"]):
            value = found[figure]
            said = card["measured"][figure]
            said = math.nan if said is None else said  # what JSON has no word for
            fits = abs(value - said) <= 0.005
            wrong += [] if fits else [f"{name}: {figure} is {value:.4f}, its card says {said:.4f}"]
            out.print(f"{name}: {figure} {value:.4f}, card {said:.4f}", soft_wrap=True)
    if wrong:
        raise BadFile("; ".join(wrong))
