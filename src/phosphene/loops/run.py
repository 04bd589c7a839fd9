"""A closed loop in the computer: a simulated neuron answers until the search is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from phosphene.errors import BadRequest
from phosphene.files import read_json, write_json
from phosphene.images import to_pixels, write_png
from phosphene.loops.loop import Loop
from phosphene.loops.readout import Readout
from phosphene.loops.simulated import Neuron, Noise, Rates, responses
from phosphene.priors import Prior
from phosphene.statistics import mean

SUMMARY = "summary.json"

Report = Callable[[int], None]
"""Called with the number of generations that became complete."""


@dataclass
class Outcome:
    """What a search came to, in clean responses, which only a simulation knows."""

    preferred: float = math.nan
    """Of the picture that the search hands over."""
    best: float = -math.inf
    """Of the best picture that was shown."""
    first: float = math.nan
    """Of the first generation, on average."""
    pictures: int = 0
    """Presentations, references and blanks among them."""
    generations: int = 0
    mean_scores: Sequence[float] = ()
    """Of the generations, as they were told."""


def simulate(
    loop: Loop,
    neuron: Neuron,
    noise: Noise,
    report: Report = lambda generations: None,
) -> Outcome:
    """Run a loop to its end with a simulated neuron, whose noise is drawn from the loop's seed.

    After each generation, what it came to is written into `summary.json` beside the log.
    """
    outcome = _read_outcome(loop.folder)
    while not loop.is_over:
        generation = loop.ask()
        told, clean = responses(neuron, generation.wanted, generation.order, noise, loop.seed)
        rates = [loop.readout(_named(row)) for name, row in clean.items() if name in loop.own_ids]
        if generation.number >= outcome.generations:  # or it was counted before a kill
            outcome.best = max([outcome.best, *rates])
            outcome.pictures += len(generation.order)
            outcome.first = mean(rates).value if generation.number == 0 else outcome.first
        before = loop.number
        if all(math.isnan(each.value) for each in told):
            raise BadRequest("the simulated neuron answers each picture with NaN")
        loop.tell(told)
        report(loop.number - before)
        _write_outcome(loop, outcome)
    _, image = loop.preferred()
    outcome.preferred = loop.readout(_named(neuron(image[None])[0]))
    _write_outcome(loop, outcome)
    return outcome


def check_channels(neuron: Neuron, readout: Readout, prior: Prior) -> None:
    """Refuse a readout of channels that a simulated neuron lacks, which is shown one grey picture.

    A real rig names its channels itself, and `Loop.tell` says which are awaited.
    """
    grey = torch.full((1, prior.channels, *prior.view_size), 0.5)
    channels = [*_named(neuron(grey)[0])]
    if lacking := [name for name in readout.weights if name not in channels]:
        raise BadRequest(
            f"the neuron has no channel {lacking[0]}; there are: {', '.join(channels[:8])}"
            + (f" … {channels[-1]}" if len(channels) > 8 else "")
        )


def _named(row: Rates) -> dict[str, float]:
    return {str(channel): float(value) for channel, value in enumerate(row)}


def _read_outcome(folder: Path) -> Outcome:
    file = folder / SUMMARY
    if not file.exists():
        return Outcome()
    known = {name: value for name, value in read_json(file).items() if value is not None}
    return Outcome(
        **{each.name: known[each.name] for each in fields(Outcome) if each.name in known}
    )


def _write_outcome(loop: Loop, outcome: Outcome) -> None:
    outcome.generations = loop.number
    outcome.mean_scores = loop.means
    write_json(loop.folder / SUMMARY, asdict(outcome))


def write_preferred(loop: Loop) -> Path:
    """Write the picture that the search hands over beside its log; return its file."""
    _, image = loop.preferred()
    picture = loop.folder / "preferred.png"
    write_png(picture, to_pixels(image.numpy()))
    return picture
