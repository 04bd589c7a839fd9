"""Architectures, by name: pure modules that know nothing of files."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from phosphene.errors import BadFile, UnknownName
from phosphene.networks.caffenet import CaffeNet
from phosphene.networks.enlarger import Enlarger
from phosphene.networks.generator import DirectGenerator, TwoStageGenerator
from phosphene.networks.googlenet import GoogLeNet
from phosphene.networks.resnet import ResNet

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "caffenet": CaffeNet,
    "resnet": ResNet,
    "googlenet": GoogLeNet,
    "two-stage": TwoStageGenerator,
    "direct": DirectGenerator,
    "enlarger": Enlarger,
}


def build(architecture: dict[str, Any]) -> nn.Module:
    """A module from `{"name": …, **arguments}`, as recipes and weights files write it."""
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnknownName(f"no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", UserWarning
            )  # torch only warns of a layer without weights
            return ARCHITECTURES[name](**arguments)
    except (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        RuntimeError,
        UserWarning,
    ) as error:
        raise BadFile(f"architecture {name!r} cannot be built from {arguments}: {error}") from None
