"""Several processes that train as one, by torch's own distributed package, started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from phosphene.errors import BadRequest

LONGEST = timedelta(hours=12)
"""How long processes wait for one of them, which may do something alone: encode all photographs, for example."""


@dataclass(frozen=True)
class Crew:
    """This process's `rank` among `size`; alone, everything here changes nothing."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """The first writes files and tells of progress."""
        return self.rank == 0

    @property
    def counters(self) -> tuple[int, ...]:
        """What makes this process's random numbers its own; nothing when it is alone."""
        return (self.rank,) if self.size > 1 else ()

    def part(self, batch: int) -> int:
        """How many of a batch this process takes, as many as each; `BadRequest` where it cannot be divided."""
        if batch % self.size:
            raise BadRequest(
                f"a batch of {batch} cannot be shared by {self.size} processes; change the recipe's"
            )
        return batch // self.size

    def share(self, batch: Tensor) -> Tensor:
        """This process's equal share of a batch; `BadRequest` where it cannot be divided."""
        self.part(len(batch))
        return batch[self.rank :: self.size]

    def joined(self, network: nn.Module) -> nn.Module:
        """The network with gradients averaged over all processes in its backward pass."""
        return nn.parallel.DistributedDataParallel(network) if self.size > 1 else network

    @torch.no_grad()
    def agree(self, parameters: Iterable[Tensor]) -> None:
        """Average the gradients over all processes: for losses that DistributedDataParallel does not know, those with
        several backward passes in a step or gradients of gradients among them."""
        if self.size == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, (together / self.size).split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def any(self, here: bool) -> bool:
        """Whether it is so in any process, so that all of them stop at the same step."""
        if self.size == 1:
            return here
        return bool(-self.least(-int(here)))

    def least(self, here: int) -> int:
        """Return the least of the numbers that the processes have."""
        if self.size == 1:
            return here
        number = torch.tensor(here)
        if dist.get_backend() == "nccl":
            number = number.cuda()
        dist.all_reduce(number, dist.ReduceOp.MIN)
        return int(number)


ALONE = Crew()


@contextmanager
def crew(device: str) -> Iterator[Crew]:
    """The processes that torchrun started, for the length of a run; without torchrun, this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=LONGEST)
    try:
        yield Crew(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
