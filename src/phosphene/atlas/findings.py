"""What lies in a folder: pictures with their records, and the forms of studies.

All of it comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.atlas import cards
from phosphene.atlas.cards import Figure, Picture
from phosphene.errors import BadFile, BadRequest
from phosphene.forms import (
    Dissection,
    Evaluation,
    Exemplars,
    Record,
    StudyForm,
    StudyTable,
    form_of,
)
from phosphene.forms.dissection import UnitOverlap
from phosphene.forms.exemplars import UnitExemplars
from phosphene.forms.figures import Told, in_words, measures_of, unit_of
from phosphene.forms.form import Entry, Form, read_entry, short
from phosphene.texts import clean
from phosphene.units import Target, Unit, is_token

Piece = Picture | cards.Evaluation | cards.Exemplars | cards.Dissection | cards.Answer


@dataclass(frozen=True)
class Finding:
    """A piece of knowledge.

    It is about a unit, about a combination (by its target), or about the whole subject (None).
    """

    subject: str
    sha256: str
    about: Unit | str | None
    name: str
    piece: Piece


def look_into(folder: Path) -> list[Finding]:
    """Return all that a folder and its `evidence` hold.

    `BadFile` says where that is nothing, or not of its form.
    """
    if not folder.is_dir():
        raise BadFile(f"{folder} is not a folder")
    found: list[Finding] = []
    for place in (folder, folder / "evidence"):
        for file in sorted(place.glob("[!.]*.json")):
            found += _findings(file)
    if not found:
        raise BadFile(
            f"{folder} holds no records and no evidence; make some with phosphene synthesize"
        )
    return found


def _findings(file: Path) -> Iterator[Finding]:
    entry = read_entry(file)
    kind = form_of(entry)
    return _PIECES[kind](kind.of(entry), file)


def beside(folder: Path, name: str, source: Path) -> Path:
    """Return a file that another one names; `BadFile` unless it is there and lies in the folder."""
    file = folder / name
    try:
        inside = file.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # not there; a NUL in the name; a circle of links
        raise BadFile(f"{source}: its picture {clean(name)!r} is not there") from None
    if not inside:
        raise BadFile(f"{source}: its picture {clean(name)!r} lies outside of {folder}")
    return file


def _picture(record: Record, file: Path) -> Iterator[Finding]:
    request = Entry(file, record.request, "request")
    target, seed = _member(record, file)
    climb = request.get("climb")
    animation = file.with_suffix(".webp")
    objective = climb.get("objective") if climb else None
    piece = Picture(
        subject=shown_name(request["subject"].shown()),
        target=short(str(target)),
        label=short(target.label or str(target)),
        seed=seed,
        score=record.score,
        start_score=record.start_score,
        curve=tuple(record.curve),
        objective=objective.shown() if objective else "activation",
        status=short(record.status),
        prior=shown_name(request["prior"].shown()),
        facts=tuple(_facts(record, climb.members() if climb else {})),
        image=beside(file.parent, record.image, file),
        image_sha256=record.image_sha256,
        animation=beside(file.parent, animation.name, file) if animation.exists() else None,
        record=file,
        input=_input(record, file),
        input_sha256=record.input_sha256,
        least=target.least,
    )
    sha256 = short(str(record.weights.get("subject", "")))
    yield Finding(piece.subject, sha256, _about(target), piece.label, piece)


def _input(record: Record, file: Path) -> Path | None:
    """Return the file of what the subject reads, where that is not the picture itself."""
    if record.input in ("", record.image):
        return None
    return beside(file.parent, record.input, file)


def _member(record: Record, file: Path) -> tuple[Target, int]:
    """Return what the picture was climbed for, and from which seed."""
    try:
        target, seed = record.request["members"][record.request["member"]]
        return Target.from_json(target), int(seed)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, BadRequest) as error:
        raise BadFile(f"{file}: its request is not whole: {clean(str(error))[:200]}") from None


def _about(target: Target) -> Unit | str:
    """Return the lone channel that a target excites, at whatever position, or else its own text.

    A class token and its like share a channel's number with the patches, but no meaning.
    """
    unit = target.lone
    if unit is None or is_token(unit.position):
        return short(str(target))
    return Unit(short(unit.layer), unit.channel)


def _facts(record: Record, climb: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a reader may want to know of how a picture was made."""
    start = record.request.get("start")
    yield "start", "a photograph" if isinstance(start, dict) else short(str(start))
    yield from ((short(str(key)), short(in_words(value))) for key, value in climb.items())
    for key in ("device", "precision", "threads"):
        yield key, short(str(record.request.get(key)))
    yield from (
        (f"{short(str(part))} sha256", short(str(value))) for part, value in record.weights.items()
    )
    if record.kept_step is not None:
        last = record.kept_step >= len(record.curve)
        yield "code kept", "the last" if last else f"the best, of step {record.kept_step}"
    if record.last_score is not None:
        yield "score of the last code", f"{record.last_score:.4g}"
    if record.input_score is not None:
        yield "score of the input in 8 bits", f"{record.input_score:.4g}"
    for name in ("norm", "contrast", "luminance"):
        if name in record.stimulus:
            yield f"{name} of the picture", f"{record.stimulus[name]:.4g}"
    for name, value in record.versions.items():
        program = "" if name in MACHINE else " version"
        yield f"{short(str(name))}{program}", short(str(value))


MACHINE = ("machine", "cpu", "cpu_capability", "gpu")
"""What a record tells beside its programs' versions."""


def _evaluation(form: Evaluation, file: Path) -> Iterator[Finding]:
    folder = file.parent.parent if file.parent.name == "evidence" else file.parent

    def piece(figures: Mapping[str, Told]) -> cards.Evaluation:
        own = tuple(Figure.of(name, told) for name, told in figures.items())
        return cards.Evaluation(form.judge, form.data, form.layer, own, folder)

    yield Finding(*_subject(form), None, "", piece(form.figures))
    for row in form.units:
        about = unit_of(row["unit"]) or row["unit"]
        yield Finding(*_subject(form), about, row.get("label", ""), piece(measures_of(row)))


def _exemplars(form: Exemplars, file: Path) -> Iterator[Finding]:
    for row in form.units:
        strip = beside(file.parent, row.whole, file)
        yield _of_unit(form, row, cards.Exemplars(form, row, strip))


def _dissection(form: Dissection, file: Path) -> Iterator[Finding]:
    for row in form.units:
        if row.object:  # or no object is ever there where the unit is active
            yield _of_unit(form, row, cards.Dissection(form, row))


def _table(form: StudyTable, file: Path) -> Iterator[Finding]:
    for row in form.units:
        figures = tuple(Figure.of(name, told) for name, told in measures_of(row).items())
        pictures = tuple(beside(file.parent, name, file) for name in row.get("pictures", ()))
        about = unit_of(row["unit"]) or row["unit"]
        piece = cards.Answer(form, figures, pictures)
        yield Finding(*_subject(form), about, row.get("label", ""), piece)


def _of_unit(form: StudyForm, row: UnitExemplars | UnitOverlap, piece: Piece) -> Finding:
    return Finding(*_subject(form), unit_of(row.unit), row.label, piece)


def _subject(form: StudyForm) -> tuple[str, str]:
    return shown_name(form.subject), form.subject_sha256


def shown_name(name: str) -> str:
    """Return a network's name; of one that was given as a file, that without its folder."""
    return Path(name).name if name.endswith((".safetensors", ".pt2", ".onnx")) else name


_PIECES: dict[type[Form], Callable[[Any, Path], Iterator[Finding]]] = {
    Record: _picture,
    Evaluation: _evaluation,
    Exemplars: _exemplars,
    Dissection: _dissection,
    StudyTable: _table,
}
"""What each form says of units."""
