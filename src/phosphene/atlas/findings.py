"""What lies in a folder: pictures with their records, evaluations, exemplars, a dissection; all of it from outside."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.atlas.cards import Dissection, Evaluation, Exemplar, Exemplars, Figure, Picture
from phosphene.atlas.forms import Entry, read_form, short
from phosphene.errors import BadFile, BadRequest
from phosphene.records import Record, read
from phosphene.texts import clean
from phosphene.units import Direction, Target, Unit, is_token

Piece = Picture | Evaluation | Exemplars | Dissection


@dataclass(frozen=True)
class Finding:
    """A piece of knowledge about a unit, about a combination (by its target), or about the whole subject (None)."""

    subject: str
    sha256: str
    about: Unit | str | None
    name: str
    piece: Piece


def look_into(folder: Path) -> list[Finding]:
    """All that a folder and its `evidence` hold; `BadFile` where that is nothing or not of its form."""
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
    if file.name == "exemplars.json":
        return _exemplars(read_form(file))
    if file.name == "dissection.json":
        return _dissection(read_form(file))
    if re.fullmatch(r"evaluation(-.*)?\.json", file.name):
        return _evaluation(read_form(file))
    return iter([_picture(file)])


def beside(folder: Path, name: str, source: Path) -> Path:
    """A file that another one names; `BadFile` unless it is there and lies in the folder."""
    file = folder / name
    try:
        inside = file.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # not there; a NUL in the name; a circle of links
        raise BadFile(f"{source}: its picture {clean(name)!r} is not there") from None
    if not inside:
        raise BadFile(f"{source}: its picture {clean(name)!r} lies outside of {folder}")
    return file


def _picture(file: Path) -> Finding:
    record = read(file)
    request = Entry(file, record.request, "request")
    target, seed = _member(record, file)
    climb = request.get("climb")
    animation = file.with_suffix(".webp")
    numbers = Entry(file, record.curve, "curve").elements()
    objective = climb.get("objective") if climb else None
    piece = Picture(
        subject=shown_name(request["subject"].text()),
        target=short(str(target)),
        label=short(target.label or str(target)),
        seed=seed,
        score=record.score,
        start_score=record.start_score,
        curve=tuple(_or_nan(each) for each in numbers),
        objective=objective.text() if objective else "activation",
        status=short(record.status),
        prior=shown_name(request["prior"].text()),
        facts=tuple(_facts(record, climb.members() if climb else {})),
        image=beside(file.parent, record.image, file),
        image_sha256=record.image_sha256,
        animation=beside(file.parent, animation.name, file) if animation.exists() else None,
        record=file,
    )
    sha256 = short(str(record.weights.get("subject", "")))
    return Finding(piece.subject, sha256, _about(target), piece.label, piece)


def _member(record: Record, file: Path) -> tuple[Target, int]:
    """What the picture was climbed for, and from which seed."""
    try:
        target, seed = record.request["members"][record.request["member"]]
        return Target.from_json(target), int(seed)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, BadRequest) as error:
        raise BadFile(f"{file}: its request is not whole: {clean(str(error))[:200]}") from None


def _about(target: Target) -> Unit | str:
    """Return the lone channel that a target excites, at whatever position, or else its own text.

    A class token and its like share a channel's number with the patches, but no meaning.
    """
    (weight, unit), *others = target.terms
    if others or weight != 1 or isinstance(unit, Direction) or is_token(unit.position):
        return short(str(target))
    return Unit(short(unit.layer), unit.channel)


def _facts(record: Record, climb: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a reader may want to know of how a picture was made."""
    start = record.request.get("start")
    yield "start", "a photograph" if isinstance(start, dict) else short(str(start))
    yield from ((short(str(key)), short(_told(value))) for key, value in climb.items())
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
    for name, value in record.versions.items():
        program = "" if name in MACHINE else " version"
        yield f"{short(str(name))}{program}", short(str(value))


MACHINE = ("machine", "cpu", "cpu_capability", "gpu")
"""What a record tells beside its programs' versions."""


def _evaluation(form: Entry) -> Iterator[Finding]:
    by = form["judge"].text(), _text(form, "data"), _text(form, "layer")
    folder = form.file.parent
    folder = folder.parent if folder.name == "evidence" else folder
    figures = tuple(_figures(form.get("figures")))
    yield Finding(*_subject(form), None, "", Evaluation(*by, figures, folder))
    for row in form["units"].elements():
        of_unit = {
            key: value for key, value in row.members().items() if key not in ("unit", "label")
        }
        figures = tuple(_figures(Entry(row.file, of_unit, row.place)))
        piece = Evaluation(*by, figures, folder)
        yield Finding(*_subject(form), _unit_or_text(row["unit"]), _text(row, "label"), piece)


def _figures(entries: Entry | None) -> Iterator[Figure]:
    for name, entry in entries.items() if entries else ():
        if isinstance(entry.value, dict) and "value" in entry.value:
            low, high, n = entry.get("low"), entry.get("high"), entry.get("n")
            if (value := entry.get("value")) is not None:
                yield Figure(
                    name,
                    _value(value),
                    low=low.number() if low and high else None,
                    high=high.number() if low and high else None,
                    n=n.whole() if n else None,
                    note=_text(entry, "note"),
                )
        else:
            yield Figure(name, _value(entry))


def _value(entry: Entry) -> float | str:
    """A number, or in words whatever else a later version may write."""
    plain = isinstance(entry.value, int | float) and not isinstance(entry.value, bool)
    return entry.number() if plain else short(_told(entry.value))


def _exemplars(form: Entry) -> Iterator[Finding]:
    classes = [each.text() for each in form["classes"].elements()]
    seen, tile = form["seen"].whole(), form["tile"].whole(2048)
    line = form.get("columns")  # the strips of version 0.1.0 have one line
    for row in form["units"].elements():
        unit, shown = _lone(row["unit"]), tuple(_shown(row, classes))
        silent, quantiles, nearest = row.get("silent"), row.get("quantiles"), row.get("nearest")
        yield Finding(
            *_subject(form),
            unit,
            _text(row, "label"),
            Exemplars(
                data=form["data"].text(),
                split=_text(form, "split"),
                licence=_text(form, "licence"),
                seen=seen,
                silent=silent.number(0, 1) if silent else None,
                quantiles=tuple(sorted(_quantile(*pair) for pair in quantiles.items()))
                if quantiles
                else (),
                shown=shown,
                strip=beside(form.file.parent, row["whole"].text(), form.file),
                tile=tile,
                columns=max(1, line.whole() if line else len(shown)),
                flat=_flat(row, shown),
                nearest=tuple(_near(each) for each in nearest.elements()) if nearest else (),
            ),
        )


def _quantile(share: str, value: Entry) -> tuple[float, float]:
    try:
        return float(share), value.number()
    except ValueError:
        value.wrong("is not the quantile of a share")


def _shown(row: Entry, classes: list[str]) -> Iterator[Exemplar]:
    columns = [row[key].elements() for key in ("values", "photographs", "boxes")]
    labels = row.get("classes")
    columns.append(
        labels.elements() if labels else [Entry(row.file, len(classes))] * len(columns[0])
    )
    if len({len(column) for column in columns}) > 1 or not columns[0]:
        row.wrong("does not have a value, a photograph, a box and a class for each exemplar")
    for value, photograph, box, label in zip(*columns, strict=True):
        name = classes[label.whole()].split(",")[0] if label.whole() < len(classes) else ""
        yield Exemplar(value.number(), photograph.whole(), name, _box(box))


def _flat(row: Entry, shown: Sequence[Exemplar]) -> bool:
    """Whether all peaks lie in the one place of a unit without a map, which sees the whole photograph."""
    positions = row.get("positions")
    found = [each.numbers() for each in positions.elements()] if positions else []
    return (
        bool(found)
        and all(not any(place) for place in found)
        and all(each.box == (0, 0, 1, 1) for each in shown)
    )


def _box(entry: Entry) -> tuple[float, float, float, float]:
    edges = [min(max(edge, 0.0), 1.0) for edge in entry.numbers()]
    if len(edges) != 4 or edges[0] >= edges[2] or edges[1] >= edges[3]:
        entry.wrong("is not a box: top, left, bottom, right")
    return edges[0], edges[1], edges[2], edges[3]


def _near(pair: Entry) -> tuple[Unit, float]:
    if len(pair.elements()) != 2:
        pair.wrong("is not a unit with a correlation")
    unit, correlation = pair.elements()
    return _lone(unit), correlation.number(-1.01, 1.01)


def _dissection(form: Entry) -> Iterator[Finding]:
    for row in form["units"].elements():
        others = row.get("others")
        if not _text(row, "object"):  # no object is ever there where the unit is active
            continue
        yield Finding(
            *_subject(form),
            _lone(row["unit"]),
            _text(row, "label"),
            Dissection(
                data=form["data"].text(),
                quantile=form["quantile"].number(0, 1),
                detector_above=form["detector_above"].number(0, 1),
                photographs=form["photographs"].whole(),
                object=_object(row["object"]),
                iou=row["iou"].number(0, 1),
                others=tuple(
                    (_object(pair.elements()[0]), pair.elements()[1].number())
                    for pair in _pairs(others)
                ),
            ),
        )


def _object(entry: Entry) -> str:
    """An object's name as people write it; data sets have an underscore for a space."""
    return entry.text().replace("_", " ")


def _pairs(entries: Entry | None) -> Iterator[Entry]:
    for pair in entries.elements() if entries else ():
        if len(pair.elements()) != 2:
            pair.wrong("is not an object with its overlap")
        yield pair


def _subject(form: Entry) -> tuple[str, str]:
    return shown_name(form["subject"].text()), _text(form, "subject_sha256")


def _lone(entry: Entry) -> Unit:
    about = _unit_or_text(entry)
    return about if isinstance(about, Unit) else entry.wrong("is not of the form LAYER:CHANNEL")


def _unit_or_text(entry: Entry) -> Unit | str:
    match = re.fullmatch(r"([^\s:@*\"]+):([0-9]{1,9})(@\S+)?", entry.text())
    return Unit(match[1], int(match[2])) if match else entry.text()


def _text(form: Entry, key: str) -> str:
    found = form.get(key)
    return found.text() if found else ""


def _or_nan(entry: Entry) -> float:
    return (
        math.nan if isinstance(entry.value, float) and math.isnan(entry.value) else entry.number()
    )


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def shown_name(name: str) -> str:
    """A network by its name; one that was given as a file by the file's own, not by where it lay."""
    return Path(name).name if name.endswith((".safetensors", ".pt2", ".onnx")) else name
