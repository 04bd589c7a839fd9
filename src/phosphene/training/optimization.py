"""How networks learn: steps down a loss, learning rates, averaged weights, seeds, precision."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from phosphene.runtime import ALONE, Processes

F = TypeVar("F", bound=Callable[..., Any])
N = TypeVar("N", bound=nn.Module)


def descend(
    optimizer: torch.optim.Optimizer, rate: float, loss: Tensor, processes: Processes = ALONE
) -> None:
    """Take a step down the loss's gradient at this learning rate.

    Several `processes` step down the mean of their losses.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    processes.average_gradients(
        each for group in optimizer.param_groups for each in group["params"]
    )
    optimizer.step()


def placed(network: N, device: str) -> N:
    """Return the network on a device, its filters in the layout that is fastest there."""
    return cast("N", cast("Any", network).to(device, memory_format=torch.channels_last))


class Averaged:
    """Keep an exponential moving average of a network's weights and buffers."""

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, steps: int) -> None:
        decay = min(self.decay, (1 + steps) / (10 + steps))
        mine, theirs = [], []
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mine.append(self.state[name])
                theirs.append(value.detach())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    def network(self, fresh: N) -> N:
        """Return a fresh network with the averaged weights, on their device, in eval mode."""
        device = next(iter(self.state.values())).device
        fresh.load_state_dict(self.state)
        return placed(fresh, str(device)).eval()

    def state_dict(self) -> dict[str, Tensor]:
        return self.state

    def load_state_dict(self, state: dict[str, Tensor], /) -> None:
        for name, value in state.items():
            self.state[name].copy_(value)


def one_cycle(fraction: float, warmup: float = 0.1) -> float:
    """Return the learning rate's share of its peak at this fraction of the run.

    It goes up in a line and down in a cosine.
    """
    if fraction < warmup:
        return 0.05 + 0.95 * fraction / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - warmup) / (1 - warmup)))) + 1e-4


def seeded(seed: int, *counters: int) -> torch.Generator:
    """Return a generator that is a pure function of a seed and counters.

    So a run that is resumed needs no random state.
    """
    text = ":".join(str(value) for value in (seed, *counters))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(number)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Return the order in which an epoch sees its n photographs."""
    return torch.randperm(n, generator=seeded(seed, epoch))


def cosine_decay(share: float, progress: float) -> float:
    """Return the rates' share of their full value at this `progress`, from 0 to 1, of a run.

    It is 1, and over the last `share` of the run falls to 0 in a cosine.
    """
    left = (1 - progress) / share if share else 1.0
    return (1 - math.cos(math.pi * min(1.0, max(0.0, left)))) / 2


def mixed_precision(device: str) -> Any:
    """Return a context in which a device computes in bfloat16 where that is enough."""
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def compiled(function: F, device: str) -> F:
    """Return the function with its kernels fused by torch's compiler; on a CPU, as it is."""
    return (
        function
        if torch.device(device).type == "cpu"
        else cast("F", torch.compile(function, dynamic=False))
    )
