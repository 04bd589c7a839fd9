"""What a card says of held-out photographs, measured again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phosphene import datasets
from phosphene.datasets import Photographs
from phosphene.priors import load_generated
from phosphene.statistics import wilson
from phosphene.subjects import load_subject
from phosphene.training.generator import held_out_errors
from phosphene.training.modified import with_modified
from phosphene.training.subject import accuracy


def held_out(folders: Mapping[str, Path], name: str) -> Photographs | None:
    """Return the val split of the data that a card names, one set or "one + other".

    None where one of them is not given.
    """
    parts = name.split(" + ")
    if not folders.keys() >= set(parts):
        return None
    return datasets.load_joined([folders[part] for part in parts], "val", labelled=False)


def measured(
    name: str, card: Mapping[str, Any], val: Photographs, device: str = "cpu"
) -> dict[str, Any]:
    """Measure what the card of a file should say of these photographs under "measured"."""
    if card["kind"] == "subject":
        extra = card["recipe"].get("extra", [])
        own = sum(len(part["classes"]) for part in extra)
        subject = load_subject(name)
        val = datasets.renumbered(val, subject.classes[: len(subject.classes) - own], name)
        val = with_modified(val, extra)
        top1, top5 = accuracy(subject.network.to(device), val, subject.size[0])
        return {
            "top1": top1,
            "top5": top5,
            "photographs": len(val),
            "top1_interval": wilson(top1, len(val)),
        }
    generated = load_generated(name).to(device)
    generator: Any = generated.generator
    layer, size = generated.layer, generator.view_size
    return held_out_errors(layer, size, generated.load_encoder(), val, generator)
