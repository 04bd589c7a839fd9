"""Neurons that are simulated, and the noise of their trials."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from phosphene.errors import BadFile, BadRequest, Unavailable
from phosphene.factories import is_factory, load_factory, users_code
from phosphene.images import to_pixels, write_png
from phosphene.loops.generation import Response
from phosphene.objectives import load_objective, make_objective
from phosphene.parts import check_options, option
from phosphene.subjects import Subject
from phosphene.tensors import cropped_to_shape, recoloured, resized
from phosphene.units import Target

Rates = npt.NDArray[np.float64]
"""Responses without noise, (images, channels)."""

Neuron = Callable[[Tensor], Rates]
"""From images (n, channels, height, width) in [0, 1] to responses (n, channels)."""

COMMAND = "command:"
SECONDS = 600.0
"""A program has so long for the pictures of a block."""
ONNX = "onnx:"


def neuron_of(
    subject: Subject, targets: Sequence[Target], precision: str = "float32", batch: int = 64
) -> Neuron:
    """Return the responses of a network's units, a channel for each target."""
    activation = load_objective("activation")

    @torch.no_grad()
    def respond(images: Tensor) -> Rates:
        parts = []
        takes_half = precision == "bfloat16" and subject.takes_autocast
        half = torch.autocast(images.device.type, torch.bfloat16, takes_half)
        for part in images.split(subject.at_most(batch)):
            columns = []
            for target in targets:
                objective = make_objective(activation, [target] * len(part))
                with subject.reading(objective.layers) as read, half:
                    columns.append(objective.scores(read(subject.prepare(part))))
            parts.append(torch.stack(columns, 1))
        return torch.cat(parts).double().numpy()

    return respond


def load_neuron(name: str, seconds: float = SECONDS) -> Neuron:
    """Return a black box by its name.

    `python:module:function` is called with the images, an array (n, height, width, channels) of 8
    bits, and returns (n,) or (n, channels) numbers. `command:PROGRAM` gets the paths of PNG files
    as arguments, and prints a line of numbers for each, within so many `seconds`. `onnx:FILE`
    is a network that reads (n, channels, height, width) in [0, 1]; its first output is what the
    channels answer.
    """
    if is_factory(name):
        function = load_factory(name)
        return lambda images: _checked(_called(function, name, images), len(images), name)
    if name.startswith(COMMAND):
        command = _words(name)
        return lambda images: _checked(_run(command, images, seconds), len(images), name)
    if name.startswith(ONNX):
        return _onnx(name)
    raise BadRequest(f"{name} is none of python:module:function, command:PROGRAM, onnx:FILE")


def _onnx(name: str) -> Neuron:
    """Return an ONNX file as a black box; it is run as it is, without a conversion."""
    try:
        import onnxruntime
    except ImportError:
        raise Unavailable(f"{name} needs onnxruntime: pip install 'phosphene[onnx]'") from None
    try:
        session = onnxruntime.InferenceSession(
            name.removeprefix(ONNX), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has no common error of its own
        raise BadFile(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    reads = session.get_inputs()[0]
    sides = reads.shape[1:]
    if len(sides) != 3 or not all(isinstance(side, int) for side in sides):
        raise BadRequest(f"{name} must read (n, channels, height, width); it reads {reads.shape}")

    def respond(images: Tensor) -> Rates:
        fitted = cropped_to_shape(recoloured(images, sides[0]), (sides[1], sides[2]))
        batch = resized(fitted, (sides[1], sides[2])).numpy()
        parts = np.split(batch, len(batch)) if reads.shape[0] == 1 else [batch]
        rows = [session.run(None, {reads.name: part})[0] for part in parts]
        return _checked(np.concatenate(rows).reshape(len(batch), -1), len(batch), name)

    return respond


def _called(function: Callable[..., Any], name: str, images: Tensor) -> Any:
    with users_code(name):
        return function(np.stack([to_pixels(image.numpy()) for image in images]))


def _words(name: str) -> list[str]:
    try:
        words = shlex.split(name.removeprefix(COMMAND))
    except ValueError as error:
        raise BadRequest(f"{name} cannot be read: {error}") from None
    if not words:
        raise BadRequest(f"{name} names no program: command:PROGRAM")
    return words


def _run(command: Sequence[str], images: Tensor, seconds: float) -> list[list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i:03}.png") for i in range(len(images))]
        for file, image in zip(files, images, strict=True):
            write_png(file, to_pixels(image.numpy()))
        code, printed, said = _ended([*command, *map(str, files)], seconds)
    if code:
        told = said.strip().splitlines() or ["it said nothing"]
        raise BadRequest(f"{command[0]} ended with code {code}: {told[-1]}")
    try:
        rows = [[*map(float, line.replace(",", " ").split())] for line in printed.splitlines()]
    except ValueError as error:
        raise BadRequest(f"{command[0]} prints numbers; {error}") from None
    if len({len(row) for row in rows}) > 1:
        raise BadRequest(f"{command[0]} prints as many numbers in each line; got {rows[:3]}")
    return rows


def _ended(command: Sequence[str], seconds: float) -> tuple[int, str, str]:
    """Run a program to its end; return its exit code, and what it printed and said.

    `Unavailable` where it takes longer. It is ended then, with all that it started.
    """
    try:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise BadRequest(f"cannot run {command[0]}: {error.strerror}") from None
    try:
        printed, said = program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"{command[0]} has not answered within {seconds:g} seconds; mend it, or give it more "
            "by --time-limit; the same command goes on from here"
        ) from None
    finally:
        if program.returncode is None:
            _end_all(program)
    return program.returncode, printed, said


def _end_all(program: subprocess.Popen[str]) -> None:
    """End a program and what it started."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()
    program.wait()
    for stream in (program.stdout, program.stderr):
        if stream:
            stream.close()


def _checked(given: Any, images: int, name: str) -> Rates:
    try:
        rates = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadRequest(f"{name} returns numbers; got {type(given).__name__}") from None
    if rates.ndim not in (1, 2) or len(rates) != images:
        raise BadRequest(
            f"{name} returns a row of numbers for each of {images} pictures; "
            f"got the shape {list(rates.shape)}"
        )
    return rates.reshape(images, -1)


GROUPS = 20
"""Groups of pictures from which the noise of trials is learned."""


@dataclass(frozen=True)
class Noise:
    """The noise of single trials, drawn from a seed.

    `multiplicative` σ: response × max(0, 1 + σ·N(0, 1)), as Wang & Ponce (2022) use. `fano` and
    `exponent`: a variance of fano × response^exponent about responses that are rates of spikes;
    counts are drawn from a negative binomial, or from Poisson's where the variance is no larger.
    """

    multiplicative: float = option(0.0, "Noise in shares of the response.", low=0, high=100)
    fano: float = option(0.0, "Variance over the mean, at a mean of 1.", low=0, high=1000)
    exponent: float = option(1.0, "Power of the mean in the variance.", low=0, high=4)

    def __post_init__(self) -> None:
        check_options(self)

    @classmethod
    def of_trials(cls, trials: npt.NDArray[np.floating[Any]]) -> Noise:
        """Return the noise that single trials (…, trials) show; NaN where there was none.

        The variance is fano × mean^exponent: a line through their logarithms, over twenty groups of
        pictures of like means. Every other trial says which group a picture is in, and the rest its
        mean and variance there, so that neither is chosen for its noise. `BadRequest` where fewer
        than 40 pictures have four trials.
        """
        flat = trials.reshape(-1, trials.shape[-1]).astype(float)
        halves = (flat[:, ::2], flat[:, 1::2])
        flat = flat[np.all([np.isfinite(half).sum(1) >= 2 for half in halves], 0)]
        if len(flat) < 2 * GROUPS:
            raise BadRequest(f"noise is learned from {2 * GROUPS} pictures of four trials and more")
        order = np.argsort(np.nanmean(flat[:, ::2], 1), kind="stable")
        groups = [flat[some, 1::2] for some in np.array_split(order, GROUPS)]
        means = np.array([np.nanmean(each, 1).mean() for each in groups])
        variances = np.array([np.nanvar(each, 1, ddof=1).mean() for each in groups])
        there = (means > 0) & (variances > 0)
        exponent, constant = np.polyfit(np.log(means[there]), np.log(variances[there]), 1)
        return cls(fano=float(np.exp(constant)), exponent=float(exponent))

    def __call__(self, rates: Rates, rng: np.random.Generator) -> Rates:
        """Return responses (n, channels) of one trial each."""
        noisy = rates
        if self.fano:
            mean = rates.clip(0)
            variance = self.fano * mean**self.exponent
            over = variance > mean * (1 + 1e-9)
            n = np.where(over, mean**2 / np.where(over, variance - mean, 1), 1)
            p = np.where(over, mean / np.where(over, variance, 1), 1)
            counts = rng.negative_binomial(n.clip(1e-9), p.clip(1e-12, 1))
            noisy = np.where(over, counts, rng.poisson(mean)).astype(float)
        if self.multiplicative:
            factor = 1 + self.multiplicative * rng.standard_normal(rates.shape)
            noisy = noisy * factor.clip(0)
        return noisy


def read_trials(file: Path) -> npt.NDArray[np.float64]:
    """Return single trials (…, trials) of a .npy file; `BadFile` where it is none."""
    try:
        found = np.load(file, allow_pickle=False)
        numbers = np.asarray(found, dtype=np.float64)
    except Exception as error:  # numpy has no common error of its own
        raise BadFile(f"{file} is not a .npy array of numbers: {error}") from None
    if numbers.ndim < 2:
        raise BadFile(f"{file} has the shape {list(numbers.shape)}; it must be (…, trials)")
    return numbers


def responses(
    neuron: Neuron,
    images: Mapping[str, Tensor],
    order: Sequence[tuple[str, int]],
    noise: Noise,
    seed: int,
) -> tuple[list[Response], dict[str, Rates]]:
    """Return a response of each channel to each presentation, and the clean ones by picture.

    `images` are (channels, height, width) in [0, 1] by id, `order` the pictures and trials. The
    noise is a function of the seed, the picture's id and the trial alone.
    """
    rates = dict(zip(images, neuron(torch.stack([*images.values()])), strict=True))
    found = []
    for picture, trial in order:
        rng = np.random.default_rng([seed, trial, *picture.encode()])
        row = noise(rates[picture][None], rng)[0]
        found += [Response(picture, trial, str(i), float(each)) for i, each in enumerate(row)]
    return found, rates
