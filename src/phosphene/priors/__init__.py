"""Priors: ways to write an image as a code that can be climbed. One file holds one kind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene.errors import BadRequest
from phosphene.factories import is_factory, load_factory, make
from phosphene.parts import Option, built_in, checked_options, options_of
from phosphene.priors._check import check_gradient, check_prior
from phosphene.priors._prior import Encode, Prior
from phosphene.priors.generated import Generated, check_generator
from phosphene.subjects import Subject

__all__ = [
    "Encode",
    "Generated",
    "Prior",
    "check_generator",
    "check_gradient",
    "encode",
    "load_generated",
    "load_prior",
]


def load_prior(
    name: str | Path | Prior, subject: Subject | None, options: Mapping[str, Any] | None = None
) -> Prior:
    """Return a prior by its name, for a subject, which one from outside is not shown.

    The name is that of a file of this folder ("pixels", "fourier", "deepsim:LAYER"), of a generator
    or its weights file, or `python:package.module:factory`, which returns a `Prior`. `options` are
    those that the prior declares: as parameters of its `load`, or of the factory.
    """
    if isinstance(name, Prior):
        return check_prior(name)
    if isinstance(name, type) and issubclass(name, Prior):
        raise BadRequest(f"a prior is an object, not its class; write {name.__name__}()")
    if not isinstance(name, (str, Path)):
        raise BadRequest(f"a prior is a generator's name or file, pixels or fourier; got {name!r}")
    given = dict(options or {})
    if is_factory(str(name)):
        checked = checked_options(load_factory(str(name)), given, f"prior {name}")
        return _named(make(str(name), **checked), str(name))
    part, rest = _part(str(name))
    if subject is None and signature(part.load).parameters["subject"].default is Parameter.empty:
        raise BadRequest(
            f"prior {name} has the size of a network, and there is none; take a generator, or a "
            "prior of your own size: python:MODULE:FACTORY"
        )
    return part.load(rest, subject, **checked_options(part.load, given, f"prior {name}"))


def load_generated(name: str | Path) -> Generated:
    """Return a generator with its statistics, by its name or weights file, or `deepsim:LAYER`."""
    part, rest = _part(str(name))
    if not issubclass(part, Generated):
        raise BadRequest(f"{name} is no generator, which has a code and an encoder")
    return part.load(rest)


def prior_options(name: str) -> dict[str, Option]:
    """Return the options that a prior declares, without loading its network."""
    return options_of(load_factory(name) if is_factory(name) else _part(name)[0].load)


def encode(prior: Prior, image: Tensor, trusted: str = "") -> Tensor:
    """Return the code, without a batch axis, of a real image (channels, height, width) in
    [0, 1].

    `BadRequest` where its values lie outside of that range, but for what a resize may overshoot.
    """
    slack = 0.01
    inside = ((image >= -slack) & (image <= 1 + slack)).all()
    if not image.is_floating_point() or not bool(inside):
        low, high = float(image.min()), float(image.max())
        raise BadRequest(
            f"an image lies in 0 … 1; got {low:g} … {high:g} in {image.dtype}; "
            "write image / 255 for 0 … 255, (image + 1) / 2 for -1 … 1"
        )
    image = image.float()
    with prior.encoding(image.device, trusted) as encoded:
        return encoded(image[None])[0]


def _part(name: str) -> tuple[type[Any], str]:
    """Return the class that a prior's name means, and what the class is to load."""
    kind, _, rest = name.partition(":")
    known = built_in(__name__)
    if kind not in known or kind == "generated":
        return Generated, name
    return getattr(import_module(known[kind]), kind.title()), rest


def _named(prior: object, name: str) -> Prior:
    if not isinstance(prior, Prior):
        raise BadRequest(
            f"{name} returned {type(prior).__name__}; it must return a phosphene Prior"
        )
    prior.name = name
    return check_prior(prior)
