"""What pictures are worth beside photographs, and what a generator keeps of photographs."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, SupportsIndex

from phosphene.errors import BadRequest, UnknownName, near
from phosphene.factories import ALIASES, NETWORKS
from phosphene.files import path_of, write_json
from phosphene.forms import Evaluation, Figure
from phosphene.notebook._results import StudyResult, find_row, listed
from phosphene.notebook._shared import Place, device_for, lent, names_of, progress
from phosphene.priors import load_generated
from phosphene.studies import compare
from phosphene.studies.generator import Fidelity, Observer, measure_prior
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import PreferredInputs
from phosphene.tables import Table, figures_table, rows_table
from phosphene.weights import check_name

JUDGE = "efficientnet-lite2"
"""The network that looks at pictures where none is named."""


class EvaluationResult(StudyResult[dict[str, Any]]):
    """Hold what was measured of a folder's pictures. A notebook shows the figures of each layer.

    `layers` are the evaluations by layer, as their JSON says. `result["fc8"]` is the one of a
    layer, and `result["fc8:27"]` the row of a unit.
    """

    def __init__(self, found: Sequence[Evaluation], judge: Subject, place: Place) -> None:
        self.layers = {each.layer: each for each in found}
        self.rows = [row for each in found for row in each.units]
        self.folder = place.folder
        names = compare.evidence_files(judge, [*self.layers])
        self.files = tuple(f"evidence/{name}" for name in names.values())
        self._place = place  # the folder lives as long as it

    @property
    def figures(self) -> dict[str, Figure]:
        """Return the figures of the only layer; `BadRequest` where there are several."""
        if len(self.layers) > 1:
            layers = list(self.layers)
            example = f"result[{layers[0]!r}].figures"
            raise BadRequest(f"there are figures of {', '.join(layers)}; take {example}")
        (only,) = self.layers.values()
        return only.figures

    @property
    def table(self) -> Table:
        """Return a row for each unit, with what was measured of it."""
        return rows_table(self.rows)

    def __getitem__(self, which: SupportsIndex | str) -> Any:
        """Return a layer's evaluation, or the row of a unit; `UnknownName` where there is none."""
        if isinstance(which, SupportsIndex):
            return self.rows[operator.index(which)]
        if which in self.layers:
            return self.layers[which]
        if which not in self._labels():
            names = [*self.layers, *self._labels()]
            raise UnknownName(f"no layer or unit {which!r} here; near: {near(which, names)}")
        return find_row(self.rows, which, "result")

    def _labels(self) -> list[str]:
        rows = self.rows
        names = [name for row in rows for name in (row["unit"], row.get("label", "")) if name]
        return [*names, *(f"class:{row['label']}" for row in rows if row.get("label"))]

    def __repr__(self) -> str:
        told = [f"{layer} ({len(each.units):,} units)" for layer, each in self.layers.items()]
        judge = next(iter(self.layers.values())).judge
        return f"<EvaluationResult of {listed(told)}, judge {judge}>"

    def __str__(self) -> str:
        return "\n\n".join(map(repr, self._figures()))

    def _repr_html_(self) -> str:
        return "\n".join(table._repr_html_() for table in self._figures())

    def _figures(self) -> Iterator[Table]:
        """Yield a layer's figures as `phosphene evaluate` prints them."""
        for each in self.layers.values():
            title = f"{each.subject} {each.layer}, judge {each.judge}"
            yield figures_table(title, each.as_json()["figures"])


class GeneratorResult:
    """Hold what was measured of a generator. A notebook shows the figures.

    `fidelity` has all of it, and `result["image_error"]` is one figure.
    """

    def __init__(self, fidelity: Fidelity) -> None:
        self.fidelity = fidelity

    @property
    def figures(self) -> dict[str, Figure]:
        """Return the figures by their names."""
        return self.fidelity.figures

    @property
    def table(self) -> Table:
        """Return the table that `phosphene evaluate` prints."""
        title = f"{self.fidelity.prior}, judge {self.fidelity.judge}"
        return figures_table(title, asdict(self.fidelity)["figures"])

    def __len__(self) -> int:
        return len(self.figures)

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __getitem__(self, name: str) -> Figure:
        """Return a figure; `UnknownName` where nothing of that name was measured."""
        if name not in self.figures:
            raise UnknownName(f"no figure {name!r}; near: {near(name, self.figures)}")
        return self.figures[name]

    def __repr__(self) -> str:
        return f"<GeneratorResult of {self.fidelity.prior}: {listed([*self.figures])}>"

    def __str__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def save(self, file: str | Path) -> Path:
        """Write what `phosphene evaluate --json` prints of the generator."""
        place = path_of(file, "file")
        write_json(place, asdict(self.fidelity))
        return place


def evaluate(
    run: PreferredInputs | str | Path,
    images: str | Path | None = None,
    *,
    judge: str | Subject = JUDGE,
    control: PreferredInputs | str | Path | None = None,
    photographs: int = 1000,
    subject: str | Subject = "",
    trust: Collection[str] = (),
    encoder: str = "",
    index: str | Path | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    quiet: bool | None = None,
) -> EvaluationResult | GeneratorResult:
    """Measure pictures beside photographs, or a generator, as `phosphene evaluate` does.

    Args:
        run: what `phosphene.synthesize` returned, a folder of pictures, or a generator's name.
        images: a folder of photographs with `train` and `val`; without it, only classes are judged.
        judge: a network that took no part: a name, or a `Subject`.
        control: the same units, climbed on the subject without its training (`NAME@random`).
        photographs: natural photographs to judge.
        subject: the pictures' subject where no name finds it: a `Subject`, or `python:…`.
        trust: code of a record's prior, `python:…`, that may run.
        encoder: a generator's encoder, where that is code.
        index: a folder for the exemplars' index, to share it.
        device: "auto" takes an accelerator where there is one.
        out: a folder for the pictures and the evidence of a result. A folder of pictures keeps its
            own evidence.
        quiet: no progress; unless told, it is shown on a terminal and in a notebook.

    Examples:
        >>> preferred = phosphene.synthesize("caffenet-objects", ["class:lion", "class:dome"])
        >>> phosphene.evaluate(preferred, "photos").figures["activation_ratio"].value
    """
    where = device_for(device)
    trusted = names_of(trust, "trust")
    _check_photographs(photographs)
    for path in (images, index):
        if path is not None:
            path_of(path, "what evaluate reads")
    if isinstance(run, (str, Path)) and not Path(run).is_dir():
        _refuse_of_generator(run, images, control=control, subject=subject, index=index, out=out)
        with progress(None, "looking at photographs", "photographs", quiet):
            return _generator(str(run), str(images), judge, photographs, encoder, where)
    if encoder:
        raise BadRequest("encoder is of a generator, and run is pictures; leave it out")
    if not isinstance(run, PreferredInputs) and out is not None:
        raise BadRequest(f"{run} keeps its own evidence; leave out out={str(out)!r}")
    if subject == "":
        _check_named(run)
    place = _kept(run, out)
    beside = None if control is None else _kept(control, None)
    observer = load_subject(judge) if isinstance(judge, str) else judge
    given = isinstance(subject, Subject)
    lending: Any = lent(subject, "", {}) if given else nullcontext()
    showing = progress(None, "looking", "photographs", quiet)
    with lending as own, lent(observer, "", {}) as looking, showing as advance:
        (found,) = compare.evaluate(
            [place.folder],
            looking,
            None if images is None else str(images),
            own=own,
            control=None if beside is None else beside.folder,
            trusted="" if given else str(subject),
            code=trusted,
            photographs=photographs,
            index=None if index is None else Path(index),
            device=where,
            report=lambda: advance(1),
        )
    return EvaluationResult(found, observer, place)


def _check_photographs(photographs: object) -> None:
    """Refuse a number of photographs that is none."""
    if not isinstance(photographs, int) or photographs < 1:
        raise BadRequest(f"photographs is a whole number from 1 on; got {photographs!r}")


def _kept(run: PreferredInputs | str | Path, out: str | Path | None) -> Place:
    """Return the folder of a run, or one that gets a result's pictures."""
    if not isinstance(run, PreferredInputs):
        if not path_of(run, "run").is_dir():
            raise BadRequest(f"{run} is no folder of pictures")
        return Place(run)
    place = Place(out)
    run.save(place.folder)
    return place


def _check_named(run: PreferredInputs | str | Path) -> None:
    """Refuse a result whose subject no name finds again."""
    if isinstance(run, PreferredInputs) and run.records:
        name = str(run.records[0].request["subject"])
        try:
            check_name(name, (*NETWORKS, *ALIASES))
        except UnknownName:
            raise BadRequest(
                f"no name finds {name!r} again; give the network itself: "
                "evaluate(…, subject=phosphene.wrap(network, …))"
            ) from None


def _refuse_of_generator(run: str | Path, images: str | Path | None, **given: Any) -> None:
    """Refuse a name with which nothing can be measured, and what says nothing of a generator."""
    if images is None:
        raise BadRequest(
            f"{run} is no folder of pictures; a generator is measured on photographs: images=DATA"
        )
    if wrong := [name for name, value in given.items() if value not in (None, "")]:
        raise BadRequest(f"{wrong[0]} says nothing of a generator, as {run} is; leave it out")


def _generator(
    name: str, images: str, judge: str | Subject, photographs: int, encoder: str, device: str
) -> GeneratorResult:
    """Measure a generator."""
    generated = load_generated(name)
    generated.check_encoder(encoder)
    size = generated.image_size
    observer = Observer(judge, images, size, photographs=photographs, device=device)
    return GeneratorResult(measure_prior(generated, observer, encoder))
