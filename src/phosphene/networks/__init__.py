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


_UNBUILT = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, UserWarning)
"""What torch raises over arguments that fit no network."""


def build(architecture: dict[str, Any]) -> nn.Module:
    """Return the module of `{"name": …, **arguments}`, as recipes and weights files write it."""
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnknownName(f"no architecture {name!r}; there are: {', '.join(ARCHITECTURES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of a layer without weights
            return ARCHITECTURES[name](**arguments)
    except _UNBUILT as error:
        raise BadFile(f"architecture {name!r} cannot be built from {arguments}: {error}") from None
