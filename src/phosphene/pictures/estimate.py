"""What a run will take: seconds by steps that are timed, bytes by what a pass keeps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from phosphene.pictures.folder import climb
from phosphene.pictures.request import Request
from phosphene.priors import Prior
from phosphene.runtime import peak_memory
from phosphene.subjects import Subject
from phosphene.synthesis import Member

FEW, MANY = 1, 3
"""Steps of the two climbs whose times tell what a step takes, and what all else does."""


@dataclass(frozen=True)
class Estimate:
    """Tell what a run takes of one process.

    `seconds` is the time of all of `pictures` in batches of `batch`, with their `steps`; `bytes` is
    what the process holds at most.
    """

    pictures: int
    steps: int
    batch: int
    seconds: float
    bytes: int

    def of(self, pictures: int) -> Estimate:
        """Return the same for another number of pictures."""
        share = pictures / self.pictures if self.pictures else 0.0
        return replace(self, pictures=pictures, seconds=self.seconds * share)


def estimated(
    request: Request,
    subject: Subject,
    prior: Prior,
    members: Sequence[Member],
    start: str | Tensor,
    batch: int,
    device: str = "",
) -> Estimate:
    """Return what the climb of some members takes, from two short climbs of one batch of them.

    Memory is told before the batch climbs, from passes of one and of two members: it is what the
    process holds, and what a pass keeps for its gradient. Tries of climbs that fail are not
    foreseen.
    """
    chunk = list(members[:batch])

    def seconds(steps: int, some: Sequence[Member]) -> float:
        short = replace(request, climb=replace(request.climb, steps=steps, tries=1))
        began = time.perf_counter()
        climb(short, subject, prior, some, start, 0, False, lambda done: None, device=device)
        return time.perf_counter() - began

    alone = _kept_bytes(lambda: seconds(FEW, chunk[:1]))
    each = max(0, _kept_bytes(lambda: seconds(FEW, (chunk * 2)[:2])) - alone)
    held = peak_memory() + each * (len(chunk) - 1)
    seconds(FEW, chunk)  # the first use of a size prepares kernels
    fixed = seconds(FEW, chunk)
    step = max(0.0, seconds(MANY, chunk) - fixed) / (MANY - FEW)
    one = max(0.0, fixed - FEW * step) + request.climb.steps * step
    total = one * len(members) / len(chunk)
    return Estimate(len(members), request.climb.steps, len(chunk), total, held)


class _Kept:
    """Count the bytes that passes keep for their gradients, each storage once."""

    def __init__(self) -> None:
        self.uses: Counter[int] = Counter()
        self.now = 0
        self.most = 0

    def pack(self, tensor: Tensor) -> _Held:
        return _Held(tensor.detach(), self)

    def unpack(self, held: _Held) -> Tensor:
        return held.tensor


class _Held:
    def __init__(self, tensor: Tensor, kept: _Kept) -> None:
        self.tensor = tensor
        self.kept = kept
        storage = tensor.untyped_storage()
        self.place = storage.data_ptr()
        self.bytes = storage.nbytes()
        if not kept.uses[self.place]:
            kept.now += self.bytes
            kept.most = max(kept.most, kept.now)
        kept.uses[self.place] += 1

    def __del__(self) -> None:
        self.kept.uses[self.place] -= 1
        if not self.kept.uses[self.place]:
            self.kept.now -= self.bytes


def _kept_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that passes of some work keep for their gradients at once."""
    kept = _Kept()
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        work()
    return kept.most
