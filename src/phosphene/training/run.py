"""What every training run shares: a folder that survives being killed, a clock, averaged weights."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from phosphene import kept
from phosphene.errors import BadFile, BadRequest
from phosphene.files import atomic_path, read_text, without_nan
from phosphene.images import write_png
from phosphene.runtime import ALONE, Processes, Runtime

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[import-not-found,no-redef]

Recipe = dict[str, Any]
N = TypeVar("N", bound=nn.Module)

RECIPES = Path(__file__).parent.parent / "recipes"
MODELS = {"subject": "caffenet-objects", "generator": "objects-fc6"}
"""The bundled recipe that shows what values a recipe of this kind takes."""
OPTIONAL = {"snapshots"}
"""Keys of the bundled recipe of a subject that another one may lack."""
NUMBERS = {int: "whole number from 0 on", float: "number from 0 on"}
TOLD = 20
"""Figures are fetched from the device once in so many steps."""
FORMER = {"generator_optimizer": "climber", "discriminator_optimizer": "judge"}
"""Names of parts in checkpoints of version 0.1.0."""
NEVER = torch.iinfo(torch.int64).max
"""Stands for the first step whose loss was not finite, as long as there was none."""


def _shares(pair: Any) -> bool:
    return not isinstance(pair, list) or (len(pair) == 2 and 0 < pair[0] <= pair[1] <= 1)


def _in_order(sizes: Any) -> bool:
    if not sizes or any(len(each) != 2 for each in sizes):
        return False
    begun = [share for share, _ in sizes]
    return (
        begun[0] == 0
        and begun == sorted(begun)
        and all(pixels >= 1 and pixels % 1 == 0 for _, pixels in sizes)
    )


BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("batch", "epochs", "evaluate_every", "r1_every"), (lambda n: n >= 1, "1 or more")
    ),
    **dict.fromkeys(("crop", "scale"), (_shares, "two shares of the area, the smaller first")),
    "sizes": (_in_order, "[share of the run, pixels] in order, from share 0 on"),
    "seed": (lambda n: n < 2**63, "less than 2⁶³"),
    "label_smoothing": (lambda share: share <= 1, "a share"),
}
"""What values of a recipe have to be, beside their kind."""


class _Settings(dict[str, Any]):
    """A table of a recipe; what it lacks is the recipe's mistake."""

    def __missing__(self, key: str) -> Any:
        raise BadRequest(f"the recipe lacks {key!r}; phosphene's own are in {RECIPES}")


def _settings(value: Any) -> Any:
    return (
        _Settings({key: _settings(each) for key, each in value.items()})
        if isinstance(value, dict)
        else value
    )


def read_recipe(name: str | Path, kind: str | None = None) -> Recipe:
    """A recipe by its bundled name or as a TOML file of one's own; `kind` is what it must make."""
    file = Path(name)  # a folder of that name is not a recipe
    if not file.is_file():
        file = RECIPES / f"{name}.toml"
        if not file.is_file():
            known = ", ".join(sorted(f.stem for f in RECIPES.glob("*.toml")))
            raise BadRequest(f"no recipe {str(name)!r}; bundled: {known}; or give a TOML file")
    try:
        recipe: Recipe = _settings(tomllib.loads(read_text(file)))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(f"recipe {file} is not TOML: {error}") from None
    _check_json(recipe, f"recipe {file}:")
    if kind is not None and recipe["kind"] != kind:
        raise BadRequest(f"recipe {file} makes a {recipe['kind']}, not a {kind}")
    model = RECIPES / f"{MODELS.get(recipe['kind'], '')}.toml"
    if model.is_file() and file != model:
        _check_values(recipe, tomllib.loads(model.read_text(encoding="utf-8")), f"recipe {file}:")
    return recipe


def check_complete(recipe: Recipe) -> None:
    """Refuse a subject's recipe that lacks what training needs, with `BadRequest`."""
    model = RECIPES / f"{MODELS['subject']}.toml"
    _check_whole(recipe, tomllib.loads(model.read_text(encoding="utf-8")), "the recipe")


def _check_whole(given: Recipe, model: Recipe, where: str) -> None:
    """Refuse a recipe that lacks what the bundled one has and training needs.

    `BadRequest` names what is lacking and gives an example.
    """
    for key in sorted(model.keys() - OPTIONAL):
        if key not in given:
            raise BadRequest(f"{where} lacks {key!r}, such as {key} = {model[key]!r}")
        if isinstance(model[key], dict) and key != "architecture":
            _check_whole(given[key], model[key], f"{where}, {key},")


def _check_json(value: Any, where: str) -> None:
    """Refuse a value that JSON has no word for, with `BadRequest`: a card holds its recipe."""
    if isinstance(value, dict):
        for key, each in value.items():
            _check_json(each, f"{where} {key}")
    elif isinstance(value, list):
        for each in value:
            _check_json(each, where)
    elif not isinstance(value, str | int | float) or without_nan(value) is None:
        raise BadRequest(f"{where} is {value}; it should be a text, a finite number, true or false")


def _check_values(given: Any, model: Any, where: str) -> None:
    """`BadRequest` where a value is not of the kind that it is in a bundled recipe. Architectures check their own."""
    if isinstance(model, dict) and isinstance(given, dict):
        for key in sorted(given.keys() & model.keys() - {"architecture"}):
            _check_values(given[key], model[key], f"{where} {key}")
            fine, what = BOUNDS.get(key, (None, ""))
            if fine is not None and not fine(given[key]):
                raise BadRequest(
                    f"{where} {key} is {given[key]!r}; it should be {what}, such as {model[key]!r}"
                )
    elif isinstance(model, list) and isinstance(given, list):
        for value in given:
            _check_values(value, model[0], where)
    elif isinstance(model, str | dict | list):
        if not isinstance(given, type(model)):
            raise BadRequest(f"{where} is {given!r}; it should be such as {model!r}")
    elif (
        isinstance(given, bool)
        or not isinstance(given, (int, type(model)))
        or not 0 <= given < math.inf
    ):
        raise BadRequest(
            f"{where} is {given!r}; it should be a {NUMBERS[type(model)]} such as {model!r}"
        )


def recipe_hash(recipe: Recipe, data: str) -> str:
    """One hash for the recipe and the fingerprint of the data it is run on."""
    return hashlib.sha256(json.dumps([recipe, data], sort_keys=True).encode()).hexdigest()


class Stateful(Protocol):
    """What a checkpoint can keep: a network, an optimizer, averaged weights."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass
class RunFolder:
    """A folder with one checkpoint, replaced whole or not at all, and a log of one JSON object a line.

    A checkpoint carries the hash of its recipe and data; another recipe is refused, not mixed in.
    The main process writes and all of them read.
    """

    runtime: Runtime
    identity: str
    history: list[dict[str, float]] = field(default_factory=list)
    _board: Any = None
    _step: int = 0
    _diverged: Tensor | None = None

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        return self.runtime.folder

    @property
    def processes(self) -> Processes:
        return self.runtime.processes

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    def load(self, parts: Mapping[str, Stateful]) -> int:
        """Put the last checkpoint into the parts and return its step; 0 on a fresh run."""
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
        return int(state["step"])

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
                f"at step {step} the weights are no longer numbers: the rates are too high for this recipe; what was "
                f"saved before is kept in {self.checkpoint}"
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

        A checkpoint is written after the first step, so that a disk without space is told of at once, at the end,
        and in between every `every` seconds, or sooner where writing takes less than a hundredth of the time.
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
                if (begun := time.monotonic()) > due:
                    self.save(parts, step)
                    saved, now = step, time.monotonic()
                    due = now + min(every, 100 * (now - begun))
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
    """A list that is empty until Ctrl-C or a polite kill; the loop ends at the next step and saves."""
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


class Waiting:
    """The share of a run's time in which its network waits for a batch, from a sample of its steps.

    A sampled step is timed with the device idle before and after each half of it, so few are.
    """

    def __init__(self, device: str):
        self._accelerated = torch.device(device).type != "cpu"
        self._waited = self._total = 0.0

    @contextmanager
    def sample(self, wanted: bool) -> Iterator[Callable[[], None]]:
        """Time one step, if it is wanted; the function lent is to be called when its batch is ready."""
        begun, ready = self.now() if wanted else 0.0, [0.0]

        def mark() -> None:
            ready[0] = self.now() if wanted else 0.0

        yield mark
        if wanted:
            self._waited += ready[0] - begun
            self._total += self.now() - begun

    @property
    def share(self) -> float:
        return self._waited / self._total if self._total else 0.0

    def now(self) -> float:
        """Seconds on a clock that only says when the device has nothing left to do."""
        if self._accelerated:
            torch.accelerator.synchronize()
        return time.perf_counter()


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
    """The network on a device, with its convolutions' weights in the layout that is fastest there."""
    return cast("N", cast("Any", network).to(device, memory_format=torch.channels_last))


class Averaged:
    """An exponential moving average of a network's weights and buffers."""

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
        """A network of the same architecture with the averaged weights, in eval mode, where they are."""
        device = next(iter(self.state.values())).device
        fresh.load_state_dict(self.state)
        return placed(fresh, str(device)).eval()

    def state_dict(self) -> dict[str, Tensor]:
        return self.state

    def load_state_dict(self, state: dict[str, Tensor], /) -> None:
        for name, value in state.items():
            self.state[name].copy_(value)


def one_cycle(fraction: float, warmup: float = 0.1) -> float:
    """The learning rate's share of its peak at this fraction of the run: up in a line, down in a cosine."""
    if fraction < warmup:
        return 0.05 + 0.95 * fraction / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - warmup) / (1 - warmup)))) + 1e-4


def seeded(seed: int, *counters: int) -> torch.Generator:
    """A generator that is a pure function of a seed and counters, so that a resumed run needs no random state."""
    text = ":".join(str(value) for value in (seed, *counters))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(number)


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch sees its n photographs."""
    return torch.randperm(n, generator=seeded(seed, epoch))
