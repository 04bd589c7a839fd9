"""Where and how long-running work runs: one value in place of many arguments."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from phosphene.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_WAIT = timedelta(hours=12)
"""How long processes wait for one that does something alone, such as encoding all photographs."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after a step with the step, the number of steps, and the figures to show."""


def silent(step: int, steps: int, figures: dict[str, float]) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Processes:
    """This process's `rank` among `size` that train as one, by torch's own distributed package.

    With a size of 1 nothing here changes anything.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this process is the first, which writes files and shows progress."""
        return self.rank == 0

    @property
    def counters(self) -> tuple[int, ...]:
        """Return what makes this process's random numbers its own; nothing when it is alone."""
        return (self.rank,) if self.size > 1 else ()

    def local_batch(self, batch: int) -> int:
        """Return how many of a batch this process takes; `BadRequest` if it cannot be divided."""
        if batch % self.size:
            raise BadRequest(
                f"a batch of {batch} cannot be shared by {self.size} processes; change the recipe's"
            )
        return batch // self.size

    def shard(self, batch: Tensor) -> Tensor:
        """Return this process's equal share of a batch; `BadRequest` if it cannot be divided."""
        self.local_batch(len(batch))
        return batch[self.rank :: self.size]

    def distributed(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients averaged over all processes in its backward pass."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Average the gradients over all processes.

        This is for losses that DistributedDataParallel does not know: those with several backward
        passes in a step, or with gradients of gradients.
        """
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        gradients = [each.grad for each in parameters if each.grad is not None]
        with torch.no_grad():
            together = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(together)
            sizes = [gradient.numel() for gradient in gradients]
            for gradient, mean in zip(gradients, (together / self.size).split(sizes), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def any(self, here: bool) -> bool:
        """Return whether it is so in any process, so that all of them stop at the same step."""
        return bool(-self.minimum(-int(here)))

    def minimum(self, here: int) -> int:
        """Return the smallest of the numbers that the processes have."""
        if self.size == 1:
            return here
        import torch
        import torch.distributed as dist

        number = torch.tensor(here)
        if dist.get_backend() == "nccl":
            number = number.cuda()
        dist.all_reduce(number, dist.ReduceOp.MIN)
        return int(number)


ALONE = Processes()


def chosen(device: str, precision: str) -> tuple[str, str]:
    """Return a device and a precision, each as it is, or the best of this machine for "auto".

    That is an accelerator where there is one, and bfloat16 where the hardware has it.
    """
    import torch

    if device == "auto":
        usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        device = next((name for name, there in usable.items() if there), "cpu")
    if precision == "auto":
        kind = str(device).partition(":")[0]
        fast = kind == "cuda" or (kind == "cpu" and torch.cpu._is_avx512_bf16_supported())
        precision = "bfloat16" if fast else "float32"
    return device, precision


def peak_memory() -> int:
    """Return the most bytes that this process has held; 0 where this is unknown.

    They are those on the accelerator where it holds some there.
    """
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # not a Unix
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def started_processes(device: str) -> Iterator[Processes]:
    """Lend the processes that torchrun started; without torchrun, this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=MAX_WAIT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Runtime:
    """Where work keeps its files, what it runs on, until when, and who hears of its progress.

    `folder` is made where it is missing. `precision` and `threads` are those of climbs; training
    computes in bfloat16. `deadline` is a time of `time.monotonic()`, in seconds. From the `seed`
    come all random choices that no recipe and no climb has a seed for.
    """

    folder: Path
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    seed: int = 0
    processes: Processes = ALONE
    deadline: float = math.inf
    progress: Progress = silent

    @classmethod
    def of(cls, place: Runtime | str | Path) -> Runtime:
        """Return a runtime as it is, or one for a folder."""
        return place if isinstance(place, Runtime) else cls(Path(place))

    def within(self, name: str) -> Runtime:
        """Return the same for a folder inside this one."""
        return replace(self, folder=self.folder / name)

    def is_over(self) -> bool:
        """Return whether the deadline has passed."""
        return time.monotonic() >= self.deadline


def deadline_in(seconds: float | None) -> float:
    """Return the deadline of a time budget that begins now; None is no end."""
    return math.inf if seconds is None else time.monotonic() + seconds
