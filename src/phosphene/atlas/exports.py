"""What the pages show, as JSON to take away. All pages have one form, `forms.AtlasPage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phosphene.atlas.cards import (
    Answer,
    Atlas,
    Card,
    Combination,
    Dissection,
    Evaluation,
    Exemplars,
    Figure,
    Layer,
    Picture,
    Subject,
)
from phosphene.atlas.maps import Map
from phosphene.atlas.measures import columns
from phosphene.files import without_nan
from phosphene.forms import AtlasPage


def front(atlas: Atlas) -> AtlasPage:
    """Return the front page: every layer, and what was measured of them."""
    layers = [
        {
            "subject": subject.name,
            "subject_sha256": subject.sha256,
            "layer": layer.name,
            "page": f"{subject.place}/{layer.place}.html",
            "json": f"{subject.place}/{layer.place}.json",
            "units": len(layer.cards),
        }
        for subject in atlas.subjects
        for layer in subject.layers
    ]
    evaluations = [
        {"subject": subject.name, "subject_sha256": subject.sha256, **_evaluation(each)}
        for subject in atlas.subjects
        for each in subject.evaluations
    ]
    page = AtlasPage(kind="front", atlas=atlas.title, page="index.html")
    return _filled(page, layers=layers, evaluations=evaluations)


def layer_page(atlas: Atlas, subject: Subject, layer: Layer) -> AtlasPage:
    """Return the page of a layer: a short entry of each unit."""
    page = _of_layer(atlas, subject, layer, "layer", f"{layer.place}.html")
    evaluations = [_evaluation(each) for each in subject.judged(layer)]
    return _filled(page, units=_short(layer, f"{layer.place}/"), evaluations=evaluations)


def map_page(atlas: Atlas, subject: Subject, layer: Layer, laid: Map) -> AtlasPage:
    """Return the map of a layer: a short entry of each unit with its places."""
    units = _short(layer, "")
    for unit, place, cell in zip(units, laid.places, laid.cells, strict=True):
        unit |= {"place": place, "cell": cell}
    return _filled(_of_layer(atlas, subject, layer, "map", "map.html"), units=units)


def unit_page(
    atlas: Atlas, subject: Subject, layer: Layer, card: Card, near: Sequence[tuple[Card, float]]
) -> AtlasPage:
    """Return the page of a unit: all that is known of it."""
    stem = str(card.unit.channel)
    unit = {
        **_entry(card, ""),
        "pictures": _pictures(card.pictures, stem, f"{layer.place}-{stem}"),
        "exemplars": [
            _exemplars(each, f"{stem}-exemplars-{i}.webp") for i, each in enumerate(card.exemplars)
        ],
        "dissections": [_dissection(each) for each in card.dissections],
        "evaluations": [_evaluation(each) for each in card.evaluations],
        "studies": [_answer(each, card.files(each)) for each in card.answers],
        "nearest": [{"unit": str(each.unit), "correlation": r} for each, r in near],
    }
    return _filled(_of_layer(atlas, subject, layer, "unit", f"{stem}.html"), units=[unit])


def combinations_page(atlas: Atlas, subject: Subject) -> AtlasPage:
    """Return the page of what was climbed for more than a lone unit."""
    page = AtlasPage(
        kind="combinations",
        atlas=atlas.title,
        page="combinations.html",
        subject=subject.name,
        subject_sha256=subject.sha256,
    )
    return _filled(page, combinations=[_combination(each) for each in subject.combinations])


def _of_layer(atlas: Atlas, subject: Subject, layer: Layer, kind: str, page: str) -> AtlasPage:
    return AtlasPage(
        kind=kind,
        atlas=atlas.title,
        page=page,
        subject=subject.name,
        subject_sha256=subject.sha256,
        layer=layer.name,
    )


def _filled(page: AtlasPage, **lists: list[dict[str, Any]]) -> AtlasPage:
    return AtlasPage(**{**vars(page), **without_nan(lists)})


def _short(layer: Layer, folder: str) -> list[dict[str, Any]]:
    found = columns(layer)
    rows = [_entry(card, folder) for card in layer.cards]
    for i, row in enumerate(rows):
        values = {column.key: column.values[i] for column in found if column.key != "score"}
        row["measures"] = {key: value for key, value in values.items() if value is not None}
    return rows


def _entry(card: Card, folder: str) -> dict[str, Any]:
    return {
        "unit": str(card.unit),
        "name": card.name,
        "page": f"{folder}{card.unit.channel}.html",
        "json": f"{folder}{card.unit.channel}.json",
        "score": card.score,
        "object": card.object.object if card.object else "",
    }


def _pictures(pictures: Sequence[Picture], stem: str, record: str) -> list[dict[str, Any]]:
    """Return what is known of pictures; the score's curve is in the record."""
    return [
        {
            "image": f"{stem}-{i}.webp",
            "record": f"{record}-{i}.json",
            "animation": f"{stem}-{i}-climb.webp" if each.animation else "",
            "target": each.target,
            "seed": each.seed,
            "prior": each.prior,
            "status": each.status,
            "score": each.score,
            "start_score": each.start_score,
            "image_sha256": each.image_sha256,
        }
        for i, each in enumerate(pictures)
    ]


def _exemplars(exemplars: Exemplars, strip: str) -> dict[str, Any]:
    return {
        "data": exemplars.of.data,
        "split": exemplars.of.split,
        "seen": exemplars.of.seen,
        "strip": strip,
        "columns": exemplars.columns,
        "tile": exemplars.tile,
        "photographs": [vars(each) for each in exemplars.shown],
        "quantiles": dict(exemplars.row.quantiles),
        "silent": exemplars.row.silent,
    }


def _dissection(dissection: Dissection) -> dict[str, Any]:
    return {
        "data": dissection.of.data,
        "photographs": dissection.of.photographs,
        "detector_above": dissection.of.detector_above,
        "detects": dissection.detects,
        "objects": [{"object": name, "iou": iou} for name, iou in dissection.objects],
    }


def _evaluation(each: Evaluation) -> dict[str, Any]:
    found = {"judge": each.judge, "data": each.data, "pictures": each.of, "layer": each.layer}
    return {**found, "figures": _figures(each.figures)}


def _answer(answer: Answer, files: list[str]) -> dict[str, Any]:
    found = {"study": answer.of.study, "data": answer.of.data, "images": files}
    return {**found, "figures": _figures(answer.figures)}


def _figures(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    return [vars(each) for each in figures]


def _combination(each: Combination) -> dict[str, Any]:
    stem = f"combinations/{each.place}"
    return {
        "target": each.target,
        "name": each.name,
        "page": f"combinations.html#{each.place}",
        "pictures": _pictures(each.pictures, stem, f"combinations/combinations-{each.place}"),
        "evaluations": [_evaluation(own) for own in each.evaluations],
    }
