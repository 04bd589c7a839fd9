"""The principal components of a layer: a linear code of a whole map, or of any other layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from phosphene.errors import BadFile

NAME = "principal_components"
"""What the layer is called that reads them."""


class Components(nn.Module):
    """Project a layer's units, at all positions at once, on their principal components.

    It reads (batch, channels, …) and gives (batch, components): the product of what differs from
    the `mean` (units,) with the `axes` (components, units).
    """

    whole = True
    axes: Tensor
    mean: Tensor

    def __init__(self, axes: Tensor, mean: Tensor):
        super().__init__()
        self.channels, self.units = axes.shape
        self.register_buffer("axes", axes)
        self.register_buffer("mean", mean)

    def forward(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            return (values.flatten(1).to(self.axes.dtype) - self.mean) @ self.axes.T


def read_components(
    tensors: Mapping[str, Tensor], code_shape: tuple[int, ...], source: str
) -> Components | None:
    """Return the components of the `components.` part of a weights file, None where it has none.

    `BadFile` where they are not finite numbers, or make no code of this shape.
    """
    if not tensors:
        return None
    axes, mean = tensors.get("axes"), tensors.get("mean")
    if axes is None or mean is None:
        raise BadFile(f"{source}: components have axes and a mean; found {', '.join(tensors)}")
    if axes.ndim != 2 or axes.shape[:1] != code_shape or mean.shape != axes.shape[1:]:
        raise BadFile(
            f"{source}: components.axes is {list(axes.shape)} and components.mean "
            f"{list(mean.shape)}; expected {[*code_shape, 'units']} and ['units']"
        )
    for name, value in (("axes", axes), ("mean", mean)):
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise BadFile(f"{source}: components.{name} is not of finite numbers")
    return Components(axes, mean)
