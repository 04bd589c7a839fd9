"""A folder of pictures, measured by a network that took no part.

The pictures are compared with photographs that excite the same units.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from phosphene.datasets import check_apart, places_of, same_names
from phosphene.errors import BadRequest
from phosphene.files import outlet_folder
from phosphene.forms import Evaluation
from phosphene.images import Pixels
from phosphene.metrics import judge_channels, kernel_distance, recognised
from phosphene.statistics import Figure, share
from phosphene.studies._comparison import Comparison, Rows, in_squares
from phosphene.studies._folder import Picture, Run
from phosphene.studies._natural import NaturalImages
from phosphene.studies._sums import with_sums
from phosphene.subjects import Subject, load_subject
from phosphene.texts import file_names, slug


def evaluate(
    folders: Sequence[Path],
    judge: str | Subject,
    images: str | None = None,
    *,
    own: Subject | None = None,
    control: Path | None = None,
    trusted: str = "",
    code: Collection[str] = (),
    photographs: int = 1000,
    every: int = 1,
    index: Path | None = None,
    device: str = "cpu",
    report: Callable[[], None] = lambda: None,
) -> list[list[Evaluation]]:
    """Measure folders made by `synthesize`.

    Of each one the result has an evaluation for each layer, kept in its folder `evidence`. `judge`
    names a network that took no part: it recognises classes, and its features are what distances
    are taken in. With `images` (a folder of photographs with a split to search and one held out;
    one in `every` is read) the pictures are compared with what excites the same units there; with
    `control`, a folder of the same units climbed on the randomised subject, with what the prior
    draws when nobody asks. What excites the units most is kept in `index`. The folders are of one
    subject: photographs beside a unit are read once for all of them. The subject is `own`, or what
    the records name.
    """
    if images:
        kernel_distance()
    runs = [Run.of(folder, trusted, code, own) for folder in folders]
    observer = load_subject(judge) if isinstance(judge, str) else judge
    subject = runs[0].subject
    if other := sorted({run.subject.name for run in runs} - {subject.name}):
        raise BadRequest(
            f"pictures of {subject.name} and of {', '.join(other)}; one subject at a time"
        )
    for run in runs:
        subject, _ = with_sums(subject, run.sums)
    subject.network.to(device)
    observer.network.to(device)
    controls = Run.of(control, trusted, code).layers if control is not None else {}
    _check_control(control, controls, runs)
    index = folders[0] / "evidence" if index is None else index
    layers = list(dict.fromkeys(layer for run in runs for layer in run.layers))
    for each in (index, *(folder / "evidence" for folder in folders)):
        outlet_folder(each)
    natural: NaturalImages | None = None
    comparison: Comparison | None = None
    if images:
        check_apart(index, images)
        natural = NaturalImages.of(subject, layers, images, every, index, device, report)
        comparison = Comparison.of(runs, subject, observer, natural)
    named = _named_layer(observer, subject, natural)
    _check_named(folders, runs, named, natural)
    files = evidence_files(observer, layers)
    found: list[dict[str, Evaluation]] = [{} for _ in runs]
    for layer in layers:
        rows = [_rows(subject, layer, run.layers.get(layer, {})) for run in runs]
        compared: list[dict[str, Figure]] = [{} for _ in runs]
        if comparison:
            compared = comparison(layer, rows, controls.get(layer, {}), report)
        for i, run in enumerate(runs):
            if not rows[i]:
                continue
            figures = compared[i]
            if layer == named:
                figures = _recognition(run, observer, rows[i], natural, photographs) | figures
            form = Evaluation(
                subject=subject.name,
                subject_sha256=subject.identity,
                layer=layer,
                judge=observer.name,
                data=natural.train.name if natural else "",
                figures=figures,
                units=list(rows[i].values()),
            )
            form.write(folders[i] / "evidence" / files[layer])
            found[i][layer] = form
    return [[mine[layer] for layer in run.layers] for run, mine in zip(runs, found, strict=True)]


def evidence_files(judge: Subject, layers: Sequence[str]) -> dict[str, str]:
    """Return the names of the files that keep what a judge measured of layers."""
    names = file_names([slug(layer) for layer in layers])
    files = (f"evaluation-{slug(judge.name)}-{name}.json" for name in names)
    return dict(zip(layers, files, strict=True))


def _named_layer(observer: Subject, subject: Subject, natural: NaturalImages | None) -> str:
    """Return the layer whose units are classes that the judge knows, or ""."""
    try:
        judge_channels(observer, subject.classes)
    except BadRequest as error:
        if natural is not None:
            return ""  # it cannot name them; it compares all the same
        raise BadRequest(
            f"{error}; give a --judge that knows them, or --images to compare with"
        ) from None
    return subject.output if subject.classes else ""


def _check_named(
    folders: Sequence[Path], runs: Sequence[Run], named: str, natural: NaturalImages | None
) -> None:
    """Refuse a folder of which nothing could be measured."""
    for folder, run in zip(folders, runs, strict=True):
        if natural is None and named not in run.layers:
            raise BadRequest(
                f"{folder} holds no picture of a lone output unit, so no class can be recognised; "
                "--images compares hidden units with photographs"
            )


def _check_control(
    control: Path | None, controls: dict[str, dict[int, list[Picture]]], runs: Sequence[Run]
) -> None:
    """Refuse a control that has none of the units, for nothing would be compared with it."""
    own = {(layer, c) for run in runs for layer, units in run.layers.items() for c in units}
    if control is not None and not own & {
        (layer, c) for layer in controls for c in controls[layer]
    }:
        raise BadRequest(f"{control} holds no picture of a unit that is evaluated")


def _recognition(
    run: Run,
    judge: Subject,
    rows: Rows,
    natural: NaturalImages | None,
    photographs: int,
) -> dict[str, Figure]:
    """Measure whether the judge names the class of the pictures, as it does of photographs."""
    pictures = [picture for each in run.layers[run.subject.output].values() for picture in each]
    named = judge_channels(judge, run.subject.classes)
    labels = torch.tensor([picture.unit.channel for picture in pictures])
    hits = recognised(judge, in_squares([picture.pixels for picture in pictures]), labels, named)
    for channel, row in rows.items():
        row["recognised_top1"], row["recognised_top5"] = hits[labels == channel].mean(0).tolist()
    note = f"by {judge.name} among {len(named):,} classes"
    figures = {
        key: share([row[key] for row in rows.values()], note)
        for key in ("recognised_top1", "recognised_top5")
    }
    if natural is not None and same_names(natural.held_out.classes, run.subject.classes):
        pixels, classes = _known(run.subject, natural, photographs)
        if not pixels:
            return figures
        hits = recognised(judge, in_squares(pixels), torch.tensor(classes), named)
        note = f"{note}, photographs held out"
        figures |= {
            f"natural_top{n}": share(hits[:, i].tolist(), note) for i, n in enumerate((1, 5))
        }
    return figures


def _known(subject: Subject, natural: NaturalImages, most: int) -> tuple[list[Pixels], list[int]]:
    """Return held-out photographs drawn at random, and which output unit is of each one's class."""
    known = next(iter(natural.held_out_exemplars.values())).whole
    chosen = np.random.default_rng(0).permutation(len(known))[:most]
    channels = places_of(natural.held_out.classes, subject.classes)
    pictures, found = [], []
    for _, pixels, label in natural.held_out.photographs({known[number] for number in chosen}):
        if label >= 0 and (channel := channels[label]) is not None:
            pictures.append(pixels)
            found.append(channel)
    return pictures, found


def _rows(subject: Subject, layer: str, channels: Iterable[int]) -> Rows:
    """Return a row for each unit, which says what it is."""
    return {
        c: {"unit": f"{layer}:{c}", "label": subject.targets(f"{layer}:{c}")[0].label}
        for c in channels
    }
