"""The command that shows what in a picture matters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phosphene.cli import progress
from phosphene.cli.measuring import tell_rows
from phosphene.cli.shell import AsJson, Device, Threads, Trust, choose_machine, out, print_json


def importance(
    pictures: Annotated[Path, typer.Argument(help="A folder made by synthesize, or a record.")],
    share: Annotated[float, typer.Option(help="Share of the activation to keep.")] = 0.8,
    fill: Annotated[str, typer.Option(help="What replaces the rest: mean or grey.")] = "mean",
    smooth: Annotated[
        float, typer.Option(help="Widest blur of the pixels' ranks, in shares of the side.")
    ] = 0.15,
    by: Annotated[
        str, typer.Option(help="What ranks the pixels: gradients or occlusion.")
    ] = "gradients",
    images: Annotated[
        Path | None, typer.Option(help="Photographs that replace the rest as well.")
    ] = None,
    subject: Annotated[
        str, typer.Option(help="The pictures' subject, where that is code: python:…")
    ] = "",
    trust: Trust = None,
    out_folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for importance.json and the masks.")
    ] = Path("importance"),
    device: Device = "auto",
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Find the smallest region of each picture that keeps 80 % of the activation.

    The rest is replaced by the mean image of the prior, by grey and by photographs, and what the
    unit still answers is told. The atlas shows the region on the unit's page.
    """
    from phosphene.files import outlet_folder
    from phosphene.runtime import Runtime
    from phosphene.studies.importance import Importance, importance_of

    how = Importance(share, fill, smooth, by)
    where = choose_machine(device, "float32", threads)["device"]
    outlet_folder(out_folder)
    out_folder.mkdir(parents=True, exist_ok=True)
    with progress.bar(None, "looking", "pictures") as advance:
        runtime = Runtime(out_folder, where, progress=progress.stepwise(advance))
        found = importance_of(
            pictures, how, runtime, images=images, trusted=subject, code=trust or []
        )
    file = out_folder / found.file_name
    found.write(file)
    if as_json:
        print_json(found.as_json())
        return
    tell_rows(found)
    out.print(f"{file}", soft_wrap=True)
