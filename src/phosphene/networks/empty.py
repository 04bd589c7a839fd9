"""Networks without weights, for weights that a file has: only shapes are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DRAWS = ("normal_", "trunc_normal_", "uniform_")
"""What fills a tensor with random numbers.

On the meta device torch has these functions in Python, and importing that costs a second.
"""


@contextmanager
def without_weights() -> Iterator[None]:
    """Build modules on the meta device, and draw no first weights for them."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leave tensors as they are where random numbers would be drawn into them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or MappingProxyType({})
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
