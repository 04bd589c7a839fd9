"""Networks that a Python factory of one's own returns: `python:package.module:factory`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from phosphene import factories
from phosphene.errors import BadRequest, type_name
from phosphene.networks.inputs import with_inputs
from phosphene.networks.inspection import fitting_layout, ready, sha256_of_weights
from phosphene.networks.sources.loading import LoadedNetwork, checked_options, seeded_by_zero


def load(text: str, inputs: Mapping[str, Any] = MappingProxyType({})) -> LoadedNetwork:
    """Return the network of `package.module:factory`, or with `@random` the same untrained.

    The factory returns an `nn.Module`, or that and a dict with any of `loading.OPTIONS`. `inputs`
    are further inputs of the network's `forward`, or take the place of the factory's. It runs with
    torch's CPU random numbers seeded by 0, and its weights are hashed, so that a record means one
    network.
    """
    name = f"python:{text}"
    with seeded_by_zero():
        made = factories.make(name.removesuffix("@random"))
    network, options = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(network, nn.Module) or not isinstance(options, Mapping):
        given = made if isinstance(network, nn.Module) else network
        raise BadRequest(
            f"{name} returned {type_name(given)}; it must return an nn.Module, or (nn.Module, dict)"
        )
    if text.endswith("@random"):
        with seeded_by_zero():
            _redraw(name, network)
    inner = with_inputs(name, ready(name, network), options, inputs)
    with seeded_by_zero():  # lazy modules draw their weights in their first pass
        options = checked_options(name, inner, options)
    _check_weights(name, inner)
    with factories.users_code(f"{name}: the network"):
        card = {"source": "python", "weights": text, "sha256": sha256_of_weights(network)}
        layout = fitting_layout(inner, options["size"], len(options["mean"]))
        return LoadedNetwork(inner, **options, card=card, layout=layout)


def _check_weights(name: str, network: nn.Module) -> None:
    """Refuse a network with weights that its first pass did not make."""
    for path, value in network.named_parameters():
        if is_lazy(value):
            raise BadRequest(
                f"{name}: {path} has no numbers yet; return a network whose weights are there"
            )


def _redraw(name: str, network: nn.Module) -> None:
    """Draw a network's weights again, each module's by its own `reset_parameters`."""
    for path, module in network.named_modules():
        draw = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))
        where = path or "the network"
        if callable(draw):
            with factories.users_code(f"{name}: reset_parameters() of {where}"):
                draw()
        elif next(module.parameters(recurse=False), None) is not None:
            raise BadRequest(
                f"{name}: {where} ({type(module).__name__}) has weights and no "
                "reset_parameters(), so how they were before training is not known; "
                "give it that method"
            )
