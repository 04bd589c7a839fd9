"""A run's folder: a checkpoint, a log and pictures, which survive that the run is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from phosphene import kept
from phosphene.errors import BadRequest
from phosphene.files import atomic_path, without_nan
from phosphene.images import write_png
from phosphene.runtime import Processes, Runtime

TOLD = 20
"""Figures are fetched from the device once in so many steps."""
FORMER = {
    "generator_optimizer": "climber",
    "discriminator_optimizer": "judge",
    "code_regressor": "reader",
}
"""Names of parts in checkpoints of version 0.1.0."""
NEVER = torch.iinfo(torch.int64).max
"""Stands for the first step whose loss was not finite, as long as there was none."""


class Stateful(Protocol):
    """What a checkpoint can keep: a network, an optimizer, averaged weights."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass
class RunFolder:
    """A folder with one checkpoint, replaced whole or not at all, and a log, a JSON object a line.

    A checkpoint carries the hash of its recipe and data; another recipe is refused, not mixed in.
    The main process writes and all of them read.
    """

    runtime: Runtime
    identity: str
    history: list[dict[str, float]] = field(default_factory=list)
    done: int = 0
    """Steps of the last checkpoint."""
    finished: bool = False
    """Whether the end of the recipe was reached."""
    _board: Any = None
    _step: int = 0
    _diverged: Tensor | None = None

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """Return the folder itself."""
        return self.runtime.folder

    @property
    def processes(self) -> Processes:
        """Return the processes that share the run."""
        return self.runtime.processes

    @property
    def checkpoint(self) -> Path:
        """Return the checkpoint's file."""
        return self.path / "checkpoint.pt"

    def load(self, parts: Mapping[str, Stateful]) -> int:
        """Put the last checkpoint into the parts and return its steps; 0 on a fresh run."""
        found = kept.read(self.checkpoint)
        if found is None:
            return 0
        state = found.check({"recipe or other data": self.identity}).content
        self.history = state["history"]
        if self.processes.is_main:  # what a killed run logged after it will be logged again
            with atomic_path(self.path / "log.jsonl") as scratch:
                scratch.write_text("".join(map(_line, self.history)), encoding="utf-8")
        for name, part in parts.items():
            part.load_state_dict(state[name] if name in state else state[FORMER[name]])
        self.done = int(state["step"])
        return self.done

    def save(self, parts: Mapping[str, Stateful], step: int) -> None:
        """Replace the checkpoint; `BadRequest` where a loss or a weight was not finite."""
        if self.processes.size == 1:
            self.refuse_diverged()
        if not self.processes.is_main:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        numbers = (
            v
            for own in state.values()
            for v in own.values()
            if isinstance(v, Tensor) and v.is_floating_point()
        )
        if not all(bool(value.isfinite().all()) for value in numbers):
            raise BadRequest(
                f"at step {step} the weights are no longer numbers: the rates are too high for "
                f"this recipe; what was saved before is kept in {self.checkpoint}"
            )
        more = {"step": step, "history": self.history}
        kept.write(self.checkpoint, self.identity, {**state, **more})

    def log(self, **values: float) -> None:
        """Keep the values of a `step` in the history, in log.jsonl and for TensorBoard.

        TensorBoard gets them where it is installed.
        `BadRequest` where a loss was not finite. In log.jsonl, null stands for any other NaN.
        """
        if self.processes.size == 1:  # several find out together, in `steps`
            self.refuse_diverged()
        self.history.append(values)
        if not self.processes.is_main:
            return
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(_line(values))
        for name, value in values.items():
            if name != "step" and (board := self._tensorboard()):
                board.add_scalar(name, value, values["step"])

    def watch(self, loss: Tensor) -> None:
        """Note whether the loss of the present step is finite.

        On a CPU, `BadRequest` at once where it is not. Nothing waits for an accelerator: it keeps
        the first such step, which `refuse_diverged` reads.
        """
        now = torch.where(loss.detach().isfinite(), NEVER, self._step)
        self._diverged = now if self._diverged is None else torch.minimum(self._diverged, now)
        if self.processes.size == 1 and loss.device.type == "cpu":
            self.refuse_diverged()

    def refuse_diverged(self) -> None:
        """Raise `BadRequest` with the first step whose loss was not finite, in any process."""
        here = NEVER if self._diverged is None else int(self._diverged)
        if (first := self.processes.minimum(here)) == NEVER:
            return
        saved = (
            f"what was saved before is kept in {self.checkpoint}"
            if self.checkpoint.exists()
            else "nothing was saved before"
        )
        raise BadRequest(
            f"at step {first + 1} the loss is no longer a finite number: "
            f"the rates are too high for this recipe; {saved}"
        )

    def show(self, name: str, step: int, pixels: npt.NDArray[np.uint8]) -> None:
        """Keep a picture (height, width, 3) of this step, as NAME-STEP.png and for TensorBoard."""
        if not self.processes.is_main:
            return
        write_png(self.path / "pictures" / f"{name}-{step:06}.png", pixels)
        if board := self._tensorboard():
            board.add_image(name, pixels, step, dataformats="HWC")

    def _tensorboard(self) -> Any:
        """Return what writes TensorBoard's logs; None where it is not installed, or cannot.

        It names files in UTF-8 only, and a folder's name may be none.
        """
        named = os.fsencode(self.path).decode(errors="ignore") == str(self.path)
        if self._board is None and named and importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path / "tensorboard"))
        return self._board

    def steps(
        self,
        parts: Mapping[str, Stateful],
        total: int,
        *,
        every: float = 180.0,
    ) -> Iterator[int]:
        """Yield the steps that are to be done, from the last checkpoint to the end.

        A deadline or a signal ends them earlier.
        A checkpoint is written after the first step, so that a disk without space is told of at
        once, and at the end. In between it is written every `every` seconds, or sooner where
        writing takes less than a hundredth of the time.
        """
        step, due = self.load(parts), 0.0
        saved = step if self.checkpoint.exists() else -1
        with stop_signal() as stopped, self._closing_board():
            while step < total and not self.processes.any(self.runtime.is_over() or bool(stopped)):
                self._step = step
                yield step
                if self.processes.size > 1 or step % TOLD == 0:
                    self.refuse_diverged()
                step += 1
                if (started := time.monotonic()) > due:
                    self.save(parts, step)
                    saved, now = step, time.monotonic()
                    due = now + min(every, 100 * (now - started))
            if step != saved:
                self.save(parts, step)
            self.processes.wait()  # what the first has written is read by all

    @contextmanager
    def _closing_board(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._board is not None:
                self._board.close()
                self._board = None


def _line(values: dict[str, float]) -> str:
    """Return values as a line of JSON, which has no word for NaN."""
    return json.dumps(without_nan(values), allow_nan=False) + "\n"


@contextmanager
def stop_signal() -> Iterator[list[str]]:
    """Lend a list that is empty until Ctrl-C or a polite kill.

    The loop then ends at the next step and saves.
    """
    stopped: list[str] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(signal.Signals(number).name)

    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
