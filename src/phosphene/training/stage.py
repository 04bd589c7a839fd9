"""A stage of a training is a value; here is what runs each of them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from phosphene.runtime import Runtime
from phosphene.training.gallery import Gallery
from phosphene.training.optimization import Averaged, seeded
from phosphene.training.recipes import Recipe
from phosphene.training.run import TOLD, RunFolder, Stateful

LOGGED = 100
"""Figures are kept in the log once in so many steps."""


class Stage(ABC):
    """Train a network by a table of a recipe, the `settings`.

    The `identity` is a hash of all that the result depends on. In a checkpoint the network is
    called `part`. The random numbers of a step are a function of the seed, the stage's `counter`
    and the step, counted from `before`, the steps of an earlier run.
    """

    counter: ClassVar[int]
    part: ClassVar[str] = "network"
    logged: ClassVar[int] = LOGGED
    """Steps between entries of the log; 0 where the stage makes its own."""
    before: int = 0
    gallery: Gallery | None = None

    settings: Recipe
    seed: int
    steps: int
    identity: str
    runtime: Runtime
    network: nn.Module
    averaged: Averaged
    others: dict[str, Stateful]
    """What else a checkpoint keeps: optimizers, and a discriminator."""

    @property
    def parts(self) -> dict[str, Stateful]:
        """Return all that a checkpoint keeps."""
        return {self.part: self.network, **self.others, "averaged": self.averaged}

    def reading(self) -> AbstractContextManager[None]:
        """Lend the activations of networks that are read, for all steps."""
        return nullcontext()

    @abstractmethod
    def batch(self, step: int, rng: torch.Generator) -> Any:
        """Return what a step learns from: this process's share."""

    @abstractmethod
    def learn(self, step: int, batch: Any, rng: torch.Generator) -> dict[str, Tensor]:
        """Take a step and return its figures, none of which is finite where a loss is not."""

    def trained(self) -> Any:
        """Return the network with averaged weights, in eval mode; the training ends with that."""
        self.network.load_state_dict(self.averaged.state)
        return self.network.eval()

    def after(self, step: int, figures: dict[str, Tensor], folder: RunFolder) -> None:  # noqa: B027
        """Do what is due after a step."""


def run_stage(stage: Stage) -> RunFolder:
    """Train until the stage's end, the deadline or a signal, and return the run's folder.

    A run that was stopped or killed goes on from its checkpoint, to the same bits. Figures are
    fetched from the device only for the steps that are told. The log has none that a clock made.
    """
    runtime, steps = stage.runtime, stage.steps
    folder = RunFolder(runtime, stage.identity)
    waiting = Waiting(runtime.device)
    with stage.reading():
        for step in folder.steps(stage.parts, steps):
            number = stage.before + step
            rng = seeded(stage.seed, stage.counter, number, *runtime.processes.counters)
            with waiting.sample(step % TOLD == 0) as ready:
                batch = stage.batch(step, rng)
                ready()
                figures = stage.learn(step, batch, rng)
                folder.watch(torch.stack([each.detach() for each in figures.values()]).sum())
                stage.averaged.update(stage.network, number + 1)
            if stage.gallery and stage.gallery.due():
                folder.show(stage.gallery.name, step, stage.gallery.sheet())
            if step % TOLD == 0:
                told = {name: value.item() for name, value in figures.items()}
                runtime.progress(step + 1, steps, told | {"waiting": waiting.share})
                if stage.logged and step % stage.logged == 0:
                    folder.log(step=step, **told)
            stage.after(step, figures, folder)
    folder.finished = folder.load(stage.parts) == steps
    return folder


class Waiting:
    """Measure the share of a run's time in which its network waits for a batch, in some steps.

    A sampled step is timed with the device idle before and after each half of it, so few are.
    """

    def __init__(self, device: str):
        self._accelerated = torch.device(device).type != "cpu"
        self._waited = self._total = 0.0

    @contextmanager
    def sample(self, wanted: bool) -> Iterator[Callable[[], None]]:
        """Time one step, if it is wanted.

        The function that is lent is to be called when the step's batch is ready.
        """
        started = self.now() if wanted else 0.0
        ready = [started]

        def mark() -> None:
            ready[0] = self.now() if wanted else 0.0

        yield mark
        if wanted:
            self._waited += ready[0] - started
            self._total += self.now() - started

    @property
    def share(self) -> float:
        """Return the share of the sampled steps' time."""
        return self._waited / self._total if self._total else 0.0

    def now(self) -> float:
        """Return seconds on a clock that waits until the device has nothing left to do."""
        if self._accelerated:
            torch.accelerator.synchronize()
        return time.perf_counter()
