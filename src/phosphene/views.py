"""Layers that a network does not have as modules: what a layer reads, an attention head, features.

Such a layer is a view of another layer's values. `probe` reads it like any other:

    blocks.3.mlp.fc2.in      what a layer reads: here, the hidden neurons of an MLP
    blocks.3.attn.head5      the output of one attention head, ahead of the projection
    sae                      the features of a dictionary on a layer (see `dictionaries`)
    principal_components     those of a whole map (see `networks.components`)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

READ = ".in"
"""What the name of what a layer reads ends in."""

_PROJECTIONS = ("proj", "out_proj", "o_proj", "output.dense")
"""Where the projection of an attention's heads lies, in its module or in the one around it."""


@dataclass(frozen=True)
class View:
    """Make a layer of another layer's values, mostly position by position.

    `values` takes the values of `layer`, (batch, channels, …), and returns (batch, `channels`, …).
    `opened` returns those from before a closing activation with a flat part; None where there is
    no such activation. `kind` is what a table calls it. A view of the `whole` layer takes all
    positions at once and returns (batch, `channels`).
    """

    layer: str
    channels: int
    kind: str
    values: Callable[[Tensor], Tensor]
    opened: Callable[[Tensor], Tensor] | None = None
    whole: bool = False


class Extended(nn.Module):
    """Add views to a network under names of their own; it computes what the network computes.

    Its modules have the paths that they have in the network.
    """

    def __init__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], layers: Mapping[str, str]
    ):
        super().__init__()
        self.network = network
        self.parts = nn.ModuleDict(parts)
        self.layers = dict(layers)

    def forward(self, *inputs: object, **named: object) -> object:
        return self.network(*inputs, **named)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield the network's modules by their own paths, and the added ones by their names."""
        yield prefix, self
        for path, module in self.network.named_modules(memo, prefix, remove_duplicate):
            if module is not self.network:
                yield path, module
        start = f"{prefix}." if prefix else ""
        yield from ((start + name, part) for name, part in self.parts.items())

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module by its path in the network, or an added one by its name."""
        if not target:
            return self
        return self.parts[target] if target in self.parts else self.network.get_submodule(target)


def extended(network: nn.Module, name: str, layer: str, part: nn.Module) -> Extended:
    """Return a network with a further layer, `part`, which reads the values of another one."""
    if isinstance(network, Extended):
        layers = {**network.layers, name: layer}
        return Extended(network.network, {**network.parts, name: part}, layers)
    return Extended(network, {name: part}, {name: layer})


def plain(network: nn.Module) -> nn.Module:
    """Return a network without the layers that were added to it."""
    return network.network if isinstance(network, Extended) else network


def views_of(network: nn.Module) -> dict[str, View]:
    """Return the views that a network has, by name: its attention heads, and what was added."""
    views = dict(_heads(network))
    if isinstance(network, Extended):
        views |= {name: _added(network, name) for name in network.parts}
    return views


def _added(network: Extended, name: str) -> View:
    part = network.parts[name]
    opened: Any = getattr(part, "opened", None)
    channels: Any = part.channels
    whole = bool(getattr(part, "whole", False))
    return View(network.layers[name], channels, type(part).__name__, part, opened, whole)


def _heads(network: nn.Module) -> Iterator[tuple[str, View]]:
    """Yield the heads of each attention whose projection is a module that is called."""
    modules = dict(network.named_modules())
    for path, module in modules.items():
        count = getattr(module, "num_attention_heads", getattr(module, "num_heads", None))
        if not isinstance(count, int) or isinstance(module, nn.MultiheadAttention):
            continue
        above = path.rpartition(".")[0]
        for place in (path, above):
            start = f"{place}." if place else ""
            projections = [start + each for each in _PROJECTIONS]
            found = [each for each in projections if _is_projection(modules.get(each), count)]
            if found:
                width = modules[found[0]].in_features // count  # type: ignore[operator]
                for head in range(count):
                    yield f"{start}head{head}", _head(found[0], head, width)
                break


def _is_projection(module: nn.Module | None, heads: int) -> bool:
    return isinstance(module, nn.Linear) and heads > 0 and module.in_features % heads == 0


def _head(projection: str, head: int, width: int) -> View:
    """Return the view of one head: its share of what the projection reads."""
    own = slice(head * width, (head + 1) * width)
    return View(projection + READ, width, "attention head", lambda values: values[:, own])
