"""Folders → an atlas: what several folders say of one subject, and of one unit, is put together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from phosphene.atlas.cards import (
    Answer,
    Atlas,
    Card,
    Combination,
    Dissection,
    Evaluation,
    Exemplars,
    Layer,
    Picture,
    Subject,
)
from phosphene.atlas.findings import Finding, look_into
from phosphene.forms.form import short
from phosphene.texts import file_names
from phosphene.units import Unit

T = TypeVar("T")
K = TypeVar("K")

TAKEN = ("index", "search", "unit", "guess", "reading", "assets")
"""Names beside the networks' folders."""


def collect(runs: Sequence[Path], title: str = "") -> Atlas:
    """Return the atlas of some folders; `BadFile` says what is wrong with one of them."""
    found = [finding for run in runs for finding in look_into(run)]
    networks = _grouped(found, lambda finding: finding.sha256 or finding.subject)
    names = [findings[0].subject for findings in networks.values()]
    places = file_names(_told_apart(names, [each[0].sha256 for each in networks.values()]), TAKEN)
    subjects = [
        _subject(name, place, findings)
        for name, place, findings in zip(names, places, networks.values(), strict=True)
    ]
    return Atlas(short(title) or "Unit atlas", tuple(subjects))


def _told_apart(names: list[str], hashes: list[str]) -> list[str]:
    """Return names with a part of the network's hash from the second of a name on.

    So a network keeps its address whatever other networks an atlas has.
    """
    return [
        f"{name}-{sha256[:8]}" if name in names[:i] else name
        for i, (name, sha256) in enumerate(zip(names, hashes, strict=True))
    ]


def _subject(name: str, place: str, found: list[Finding]) -> Subject:
    units = [finding for finding in found if isinstance(finding.about, Unit)]
    others = [finding for finding in found if isinstance(finding.about, str)]
    sums = _grouped(others, lambda finding: str(finding.about))
    sums = {target: pieces for target, pieces in sums.items() if _of(Picture, pieces)}
    by_layer = _grouped(
        units, lambda finding: finding.about.layer if isinstance(finding.about, Unit) else ""
    )
    layers = sorted(by_layer, key=_natural)
    files = zip(layers, file_names(layers, taken=["combinations"]), strict=True)
    made = tuple(_layer(layer, file, by_layer[layer]) for layer, file in files)
    places = zip(sums, file_names([*sums]), strict=True)
    combinations = tuple(_combination(target, file, sums[target]) for target, file in places)
    judged = _judged(found, by_layer)
    return Subject(name, found[0].sha256, place, made, combinations, judged)


def _judged(found: list[Finding], by_layer: dict[str, list[Finding]]) -> tuple[Evaluation, ...]:
    """Return what was measured of a subject's layers, each with the pictures that it is of."""
    layers = _grouped(
        [finding for finding in found if finding.about is None],
        lambda finding: finding.piece.layer if isinstance(finding.piece, Evaluation) else "",
    )
    named: list[Evaluation] = []
    for layer, pieces in layers.items():
        pictures = _of(Picture, by_layer.get(layer, []))
        named += named_sources(_of(Evaluation, pieces), pictures)
    return tuple(named)


def named_sources(
    evaluations: Sequence[Evaluation], pictures: Sequence[Picture]
) -> tuple[Evaluation, ...]:
    """Return the evaluations with the pictures that each is of, where there are others.

    Pictures are told by their prior, or by their folder where two have the same.
    """
    places = [each.folder for each in pictures] + [each.folder for each in evaluations]
    folders = dict.fromkeys(places, "")
    if len(folders) < 2:
        return tuple(evaluations)
    for folder in folders:
        priors = {picture.prior: None for picture in pictures if picture.folder == folder}
        folders[folder] = ", ".join(priors) or short(folder.name)
    names = [*folders.values()]
    return tuple(
        replace(each, of=name if names.count(name) == 1 else f"{name}, {short(each.folder.name)}")
        for each in evaluations
        for name in [folders[each.folder]]
    )


def _layer(name: str, place: str, found: list[Finding]) -> Layer:
    units = _grouped(found, lambda finding: finding.about)
    cards = [_card(unit, pieces) for unit, pieces in units.items() if isinstance(unit, Unit)]
    return Layer(name, place, tuple(sorted(cards, key=lambda card: card.unit.channel)))


def _card(unit: Unit, found: list[Finding]) -> Card:
    pictures = _pictures(found, str(unit))
    own = (finding.name for finding in found if not finding.name.startswith(f"{unit.layer}:"))
    return Card(
        unit,
        next(filter(None, own), ""),
        pictures,
        named_sources(_of(Evaluation, found), pictures),
        _of(Exemplars, found),
        _of(Dissection, found),
        _of(Answer, found),
    )


def _combination(target: str, place: str, found: list[Finding]) -> Combination:
    pictures = _pictures(found, target)
    return Combination(target, pictures[0].label, place, pictures, _of(Evaluation, found))


def _pictures(found: list[Finding], target: str) -> tuple[Picture, ...]:
    """Return the pictures of this very target first, by seed, then in the order of their folders.

    The same one from several folders comes once, filmed if it can be.
    """
    distinct: dict[tuple[str, int, str], Picture] = {}
    for picture in _of(Picture, found):
        key = (picture.target, picture.seed, picture.image_sha256)
        if key not in distinct or (picture.animation and not distinct[key].animation):
            distinct[key] = picture
    return tuple(
        sorted(distinct.values(), key=lambda picture: (picture.target != target, picture.seed))
    )


def _of(kind: type[T], found: Iterable[Finding]) -> tuple[T, ...]:
    return tuple(finding.piece for finding in found if isinstance(finding.piece, kind))


def _grouped(found: Iterable[Finding], key: Callable[[Finding], K]) -> dict[K, list[Finding]]:
    groups = defaultdict(list)
    for finding in found:
        groups[key(finding)].append(finding)
    return dict(groups)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key under which conv2 comes before conv10."""
    return [(int(piece or 0), rest) for piece, rest in re.findall(r"(\d*)(\D*)", name)]
