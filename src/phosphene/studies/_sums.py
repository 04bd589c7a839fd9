"""Sums, differences and directions as units of a layer of their own, so that studies take them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from phosphene.dictionaries import Dictionary, Encoder
from phosphene.errors import BadRequest
from phosphene.subjects import Subject
from phosphene.units import Direction, Target, Unit, is_token


def is_sum(target: Target) -> bool:
    """Return whether a target is a direction, or a sum of several units or directions."""
    return len(target.terms) > 1 or isinstance(target.terms[0][1], Direction)


def problem_of(target: Target) -> str:
    """Return why a sum is no direction in one layer's channels, wherever it peaks; "" if it is."""
    layers = sorted(target.layers)
    if len(layers) > 1:
        return f"{target} is of {' and '.join(layers)}; studies take sums of one layer's channels"
    positions = [unit.position for _, unit in target.terms]
    if any(isinstance(each, tuple) or is_token(each) for each in positions):
        return f"{target}: studies take a sum wherever it peaks, at no position"
    return ""


def with_sums(subject: Subject, targets: Iterable[Target]) -> tuple[Subject, dict[Target, Unit]]:
    """Return the subject with a layer of one channel for each sum, and the sums as its units.

    The layer's name tells one sum from another, so the subject keeps its identity.
    """
    units: dict[Target, Unit] = {}
    for target in targets:
        if problem := problem_of(target):
            raise BadRequest(problem)
        name = _name(target)
        (layer,) = target.layers
        if not subject.shape(name):
            vector = _vector(target, len(subject.targets(f"{layer}:all")))
            encoder = Encoder(
                vector[:, None], torch.zeros(1), torch.zeros(len(vector)), activation="linear"
            )
            subject = subject.with_layer(name, layer, Dictionary(encoder), (str(target),))
        units[target] = Unit(name, 0)
    return subject, units


def _name(target: Target) -> str:
    told = json.dumps(Target(target.terms).as_json(), sort_keys=True)
    return f"sum_{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _vector(target: Target, channels: int) -> Tensor:
    """Return the direction (channels,) with which the product is the target's value."""
    vector = torch.zeros(channels)
    for weight, unit in target.terms:
        if isinstance(unit, Direction):
            own = torch.tensor(unit.vector)
            if len(own) != channels:
                raise BadRequest(f"{unit} has {len(own)} numbers, its layer {channels} channels")
            vector += weight * own / own.norm()
        elif unit.channel < channels:
            vector[unit.channel] += weight
        else:
            raise BadRequest(f"{unit}: its layer has {channels} channels, from 0 on")
    return vector


def asked_of(subject: Subject, texts: Sequence[str]) -> tuple[Subject, list[Unit]]:
    """Return what texts name as channels of the subject, each once, with those of sums added.

    A study takes a channel or a sum wherever it peaks, so none at a position.
    """
    targets = [target for text in texts for target in subject.targets(text)]
    subject, sums = with_sums(subject, filter(is_sum, targets))
    named = [sums.get(target, target.terms[0][1]) for target in targets]
    units = [unit for unit in named if isinstance(unit, Unit)]
    for unit in units:
        if isinstance(unit.position, tuple) or is_token(unit.position):
            raise BadRequest(
                f"{unit}: studies are of one channel each, wherever it peaks; write LAYER:CHANNEL"
            )
    return subject, list({(unit.layer, unit.channel): unit for unit in units}.values())
