#!/usr/bin/env python3
"""Compare the climb with other tools, on the same network, units and seed, in turns.

    python benchmarks/peers.py PHOTOGRAPHS [TOOL …] [--units 0,25] [--judge efficientnet-lite2]

It runs the tools that are there: torch-lucent, Horama's MACO, and a transcription of the loop of
2016. Nothing is installed. The network is `caffenet-objects`, and each tool has its defaults, but
for images in 0 … 1 and the network's own preprocessing. Each tool climbs in float32 and in
bfloat16 (`torch.autocast`), one unit after another; ours climbs all units in one batch too. What
counts is the CPU time of one thread, without loading.

On the way some pictures are kept. Each is measured afterwards as 8 bits, through the same network.
Of MACO's large pictures the better one counts of the whole and its middle quarter, since MACO looks
at crops. The figures are kept in `benchmarks/peers.json`, and `scripts/tables` writes them into
`docs/throughput.md`.

MACO reads a spectrum of photographs from a server; here it is made of PHOTOGRAPHS instead.
Where torchvision lacks its operators, MACO's `roi_align` is `grid_sample`, which is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from phosphene import datasets
from phosphene.metrics import judge_channels, recognised
from phosphene.priors import Generated, load_generated
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import CLIMBS, Member, climb_batch
from phosphene.tensors import as_images, center_crop, in_8_bits

KEPT = Path(__file__).with_suffix(".json")
SUBJECT, PRIOR = "caffenet-objects", "objects-fc6"
LAYER = "fc8"
LOOKS = 20
"""Pictures that are kept on the way of a climb."""
PRECISIONS = ("float32", "bfloat16")
FEW, MANY = 8, 16
"""Steps of two climbs whose operations tell those of a step."""
MATRIX = 1536
"""Rows of the matrices whose product tells the machine's peak."""


@dataclass(frozen=True, eq=False)
class Setting:
    """Hold what all tools climb with."""

    subject: Subject
    prior: Generated
    precision: str
    seed: int = 0

    def network(self) -> Prepared:
        """Return the network for images in 0 … 1, which the other tools see."""
        return Prepared(self.subject, self.precision)


class Prepared(nn.Module):
    """Prepare images as the subject does, then run its network in a precision."""

    def __init__(self, subject: Subject, precision: str):
        super().__init__()
        self.subject = subject
        self.network = subject.network
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        """Return the subject's output for images in 0 … 1."""
        with computing(self.precision):
            answers: Tensor = self.network(self.subject.prepare(images))
        return answers.float()


def computing(precision: str) -> torch.autocast:
    """Return the context of networks that compute in a precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


Looks = list[tuple[int, Tensor]]
"""Pictures (units, channels, height, width) in 0 … 1, each with the steps before it."""


def ours(climb: str, setting: Setting, units: Sequence[int], steps: int) -> Looks:
    """Climb as `phosphene synthesize` does."""
    subject = setting.subject
    members = [Member(subject.targets(f"{LAYER}:{unit}")[0], setting.seed) for unit in units]
    every = max(1, steps // LOOKS)
    once = {"tries": 1} if steps <= MANY else {}  # or a short climb might try again
    result = climb_batch(
        subject,
        members,
        setting.prior,
        CLIMBS[climb].changed(steps=steps, **once),
        precision=setting.precision,
        every_frame=every,
    )
    frames = [] if result.frames is None else list(result.frames)
    looks = [
        (i * every + 1, center_crop(each, setting.prior.view_size)) for i, each in enumerate(frames)
    ]
    return [*looks, (steps, center_crop(result.images, setting.prior.view_size))]


def loop_of_2016(setting: Setting, units: Sequence[int], steps: int) -> Looks:
    """Climb as act_max.py does, for one unit: two passes and two gradients in each step.

    It is the transcription of `tests/test_synthesis.py`, for any size.
    """
    (unit,) = units
    prior = setting.prior
    statistics = prior.statistics
    scale = statistics.std.mean() / 3.74
    rng = torch.Generator().manual_seed(setting.seed)
    y = scale * torch.randn(statistics.mean.shape, generator=rng)
    network = setting.network()
    looks: Looks = []
    for i in range(steps):
        step_size = 8 + (1e-10 - 8) * i / steps
        y.requires_grad_()
        with computing(setting.precision):
            x0 = prior.images(y[None])
        cropped = center_crop(x0, prior.view_size).detach().requires_grad_()
        (g,) = torch.autograd.grad(network(cropped)[0, unit], cropped)
        moved = (step_size * g / g.abs().mean()).to(x0.dtype)
        margins = [a - b for a, b in zip(x0.shape[2:], cropped.shape[2:], strict=True)]
        top, left = (each // 2 for each in margins)
        pads = (left, margins[1] - left, top, margins[0] - top)
        (gc,) = torch.autograd.grad(x0, y, grad_outputs=F.pad(moved, pads))
        y = y.detach() + scale * step_size * gc / gc.abs().mean()
        y = torch.minimum(
            torch.maximum(y, torch.zeros_like(y)), statistics.mean + 3 * statistics.std
        )
        y = 0.99 * y
        if i % max(1, steps // LOOKS) == 0:
            looks.append((i + 1, cropped.detach().float()))
    with torch.no_grad():
        last = center_crop(prior.images(y[None]), prior.view_size)
    return [*looks, (steps, last.float())]


def lucent(setting: Setting, units: Sequence[int], steps: int) -> Looks:
    """Climb with torch-lucent's `render_vis`, at its defaults: an image of 128 pixels, Fourier."""
    from lucent.optvis import render

    (unit,) = units
    torch.manual_seed(setting.seed)
    np.random.seed(setting.seed)
    network = setting.network().eval()
    thresholds = sorted({*range(1, steps, max(1, steps // LOOKS)), steps})
    side = setting.subject.size[0]
    try:
        images = render.render_vis(
            network,
            f"network_{LAYER}:{unit}",
            thresholds=thresholds,
            preprocess=False,  # the network has its own
            progress=False,
            show_image=False,
            fixed_image_size=side,
        )
    finally:
        for each in network.modules():
            each._forward_hooks.clear()  # lucent leaves them, and is slower each time
    shown = [torch.from_numpy(each).permute(0, 3, 1, 2).float() for each in images]
    return list(zip(thresholds, shown, strict=True))


def maco(setting: Setting, units: Sequence[int], steps: int) -> Looks:
    """Climb with Horama's `maco`, at its defaults: 1,280 pixels, six crops a step."""
    import horama
    import horama.maco_fv as horama_maco

    (unit,) = units
    torch.manual_seed(setting.seed)
    network = setting.network()
    looks: Looks = []
    every = max(1, steps // LOOKS)
    made = horama_maco.maco_preconditioner
    calls = 0

    def watched(*arguments: Any) -> Tensor:
        nonlocal calls
        image = made(*arguments)
        if calls % every == 0 and calls:
            looks.append((calls, image.detach()[None].clone()))
        calls += 1
        return image

    with contextlib.ExitStack() as changed:
        changed.callback(setattr, horama_maco, "maco_preconditioner", made)
        horama_maco.maco_preconditioner = watched
        image, _ = horama.maco(
            lambda images: network(images)[:, unit].mean(),
            total_steps=steps,
            model_input_size=setting.subject.size[0],
            values_range=(0.0, 1.0),
            device="cpu",
        )
    return [*[each for each in looks if each[0] < steps], (steps, image.detach()[None])]


@dataclass(frozen=True)
class Tool:
    """Hold a tool, what it needs, its default steps, and how many of them are run."""

    climb: Callable[[Setting, Sequence[int], int], Looks]
    steps: int
    module: str = ""
    together: bool = False
    most: int = 0
    """Steps that are run of a longer climb; the time of all is reckoned from them. 0 for all."""


def _ours(climb: str) -> Callable[[Setting, Sequence[int], int], Looks]:
    return lambda *given: ours(climb, *given)


TOOLS = {
    "phosphene": Tool(_ours("default"), CLIMBS["default"].steps, together=True),
    "phosphene, one unit at a time": Tool(_ours("default"), CLIMBS["default"].steps),
    "phosphene `--climb short`": Tool(_ours("short"), CLIMBS["short"].steps, together=True),
    "the loop of 2016": Tool(loop_of_2016, 200),
    "torch-lucent": Tool(lucent, 512, "lucent"),
    "Horama, MACO": Tool(maco, 1000, "horama", most=50),
}


def is_there(tool: Tool) -> bool:
    """Return whether a tool can be imported."""
    try:
        if tool.module:
            __import__(tool.module)
    except ImportError as error:
        print(f"left out: {error}", flush=True)
        return False
    return True


def peaks() -> dict[str, float]:
    """Return the FLOP a second of a matrix product in each precision, the best of some."""
    found = {}
    for name in PRECISIONS:
        one, other = (torch.randn(MATRIX, MATRIX).to(getattr(torch, name)) for _ in range(2))
        times = []
        for _ in range(5):
            begun = time.process_time()
            one @ other
            times.append(time.process_time() - begun)
        found[name] = 2 * MATRIX**3 / min(times)
    return found


class Counter(TorchDispatchMode):
    """Count the operations of convolutions and matrix products that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        found = func(*args, **given)
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **given, out_val=found)
        return found


def flop_of_a_step(tool: Tool, setting: Setting, units: Sequence[int]) -> float:
    """Return the operations of a step in convolutions and matrix products, all units together."""

    def counted(steps: int) -> int:
        with Counter() as counter:
            tool.climb(setting, units, steps)
        return counter.total

    return (counted(MANY) - counted(FEW)) / (MANY - FEW)


def scores(subject: Subject, images: Tensor, units: Sequence[int]) -> Tensor:
    """Return the units' activations on pictures in 8 bits; of large ones also on the middle."""
    found = []
    parts = [images]
    if images.shape[2] >= 8 * subject.size[0]:
        parts.append(center_crop(images, (images.shape[2] // 4, images.shape[3] // 4)))
    for part in parts:
        with torch.no_grad():
            answers = subject(in_8_bits(subject.fitted(part)))
        found.append(answers[torch.arange(len(units)), torch.tensor(list(units))])
    return torch.stack(found).max(0).values


def best_of(subject: Subject, photographs: str, units: Sequence[int]) -> tuple[list[float], int]:
    """Return each unit's highest activation over held-out photographs, and how many there are."""
    data = datasets.load(photographs, "val", size=max(subject.size), limit=10_000)
    best = torch.full((len(units),), -torch.inf)
    for at in range(0, len(data), 64):
        with torch.no_grad():
            answers = subject(as_images(data.images[at : at + 64]))
        best = torch.maximum(best, answers[:, list(units)].max(0).values)
    return best.tolist(), len(data)


def stand_in_spectrum(photographs: str) -> None:
    """Write the spectrum that MACO reads, of photographs, since its own lies on a server."""
    from horama.common import get_color_correlation_svd_sqrt
    from horama.maco_fv import MACO_SPECTRUM_FILENAME

    data = datasets.load(photographs, "val", size=224, limit=500)
    inverse = torch.linalg.inv(get_color_correlation_svd_sqrt("cpu"))
    images = torch.cat([as_images(data.images[at : at + 50]) for at in range(0, len(data), 50)])
    planes = torch.logit(images, 1e-2).permute(0, 2, 3, 1) @ inverse
    spectrum = torch.fft.rfft2(planes.permute(0, 3, 1, 2)).abs().mean(0)
    np.save(MACO_SPECTRUM_FILENAME, spectrum.numpy())


def sampled(image: Tensor, boxes: Tensor, output_size: tuple[int, int], **_: Any) -> Tensor:
    """Return what `roi_align` does with one sample in each bin, by `grid_sample`."""
    high, wide = output_size
    rows = (torch.arange(high) + 0.5) / high
    columns = (torch.arange(wide) + 0.5) / wide
    x = boxes[:, 1, None] + (boxes[:, 3] - boxes[:, 1])[:, None] * columns
    y = boxes[:, 2, None] + (boxes[:, 4] - boxes[:, 2])[:, None] * rows
    x = 2 * x / (image.shape[3] - 1) - 1
    y = 2 * y / (image.shape[2] - 1) - 1
    grid = torch.stack(
        [x[:, None].expand(-1, high, -1), y[:, :, None].expand(-1, -1, wide)], dim=-1
    )
    several = image.expand(len(boxes), -1, -1, -1)
    return F.grid_sample(several, grid, align_corners=True, padding_mode="border")


def prepare_maco(photographs: str) -> None:
    """Let MACO run without the network, and without torchvision's compiled operators."""
    import horama.common
    from torchvision import extension

    stand_in_spectrum(photographs)
    if not extension._has_ops():
        horama.common.roi_align = sampled


def run(tool: Tool, setting: Setting, units: Sequence[int]) -> dict[str, Any]:
    """Climb; return the CPU seconds of a picture, and its scores on the way by shares of steps."""
    steps = min(tool.steps, tool.most or tool.steps)
    begun = time.process_time()
    looks = tool.climb(setting, units, steps)
    seconds = (time.process_time() - begun) / len(units) * tool.steps / steps
    images = [setting.subject.fitted(each.float().clamp(0, 1)) for _, each in looks[-1:]]
    curve = [
        (at / tool.steps, scores(setting.subject, each.float().clamp(0, 1), units).tolist())
        for at, each in looks
    ]
    return {"seconds": seconds, "curve": curve, "units": list(units), "images": images[0]}


def told(
    turns: Sequence[dict[str, Any]], best: dict[int, float], flop: float, peak: float
) -> dict[str, Any]:
    """Return a tool's figures from its turns: medians over units.

    `flop` are the operations of a picture, `peak` those of the machine in a second.
    """
    seconds = [turn["seconds"] for turn in turns for _ in turn["units"]]
    near, above, last = [], [], []
    for turn in turns:
        for place, unit in enumerate(turn["units"]):
            curve = [(share, values[place]) for share, values in turn["curve"]]
            end = curve[-1][1]
            last.append(end)
            near.append(reached(curve, 0.95 * end) * turn["seconds"])
            share = reached(curve, best[unit])
            above.append(share * turn["seconds"] if share < np.inf else None)
    return {
        "seconds": float(np.median(seconds)),
        "seconds_to_95": float(np.median(near)),
        "seconds_to_best": [None if each is None else round(each, 3) for each in above],
        "activation": float(np.mean(last)),
        "flop": flop,
        "share_of_peak": flop / float(np.median(seconds)) / peak,
    }


def reached(curve: Sequence[tuple[float, float]], goal: float) -> float:
    """Return the share of a climb after which a score is reached, infinite where it is not."""
    return next((share for share, value in curve if value >= goal), float("inf"))


Turns = dict[tuple[str, str], list[dict[str, Any]]]
"""What `run` found, by tool and precision."""


def in_turns(
    tools: Mapping[str, Tool], settings: Mapping[str, Setting], units: Sequence[int]
) -> tuple[Turns, dict[str, float]]:
    """Climb with all tools in turns; return what they found, and the peak of each precision."""
    turns: Turns = {}
    peak = dict.fromkeys(PRECISIONS, 0.0)
    for unit in units:
        for name, tool in tools.items():
            if tool.together and unit != units[0]:
                continue
            for precision, setting in settings.items():
                found = run(tool, setting, units if tool.together else [unit])
                turns.setdefault((name, precision), []).append(found)
                print(name, precision, unit, round(found["seconds"], 2), flush=True)
        peak = {name: max(peak[name], each) for name, each in peaks().items()}
    return turns, peak


def named(judge: Subject, classes: Sequence[str], own: Sequence[dict[str, Any]]) -> float:
    """Return the share of pictures whose class the judge names first."""
    images = torch.cat([each["images"] for each in own])
    labels = torch.tensor([unit for each in own for unit in each["units"]])
    return float(recognised(judge, images, labels, judge_channels(judge, classes))[:, 0].mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", help="with a val split, on which the network never trained")
    parser.add_argument("tools", nargs="*", default=list(TOOLS))
    parser.add_argument("--units", default="0,25")
    parser.add_argument("--judge", default="efficientnet-lite2")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    units = [int(each) for each in options.units.split(",")]
    subject = load_subject(SUBJECT)
    judge = load_subject(options.judge)
    settings = {name: Setting(subject, load_generated(PRIOR), name) for name in PRECISIONS}
    tools = {name: TOOLS[name] for name in options.tools if is_there(TOOLS[name])}
    photographs = os.path.abspath(options.photographs)
    best, seen = best_of(subject, photographs, units)
    kept: dict[str, Any] = {"units": units, "photographs": seen, "judge": options.judge}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as place:
        place.callback(os.chdir, os.getcwd())
        os.chdir(scratch)
        if any(tool.module == "horama" for tool in tools.values()):
            prepare_maco(photographs)
        turns, peak = in_turns(tools, settings, units)
        kept |= {"peak": peak, "tools": {}}
        for (name, precision), own in turns.items():
            tool = tools[name]
            some = own[0]["units"]
            flop = flop_of_a_step(tool, settings[precision], some) * tool.steps / len(some)
            figures = told(own, dict(zip(units, best, strict=True)), flop, peak[precision])
            figures |= {"steps": tool.steps, "steps_run": min(tool.steps, tool.most or tool.steps)}
            figures |= {} if tool.most else {"named": named(judge, subject.classes, own)}
            kept["tools"].setdefault(name, {})[precision] = figures
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
