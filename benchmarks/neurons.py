#!/usr/bin/env python3
"""Measure preferred inputs of models of real neurons.

    python benchmarks/neurons.py v4 --data FOLDER --keep V4 --out FILE.json
    python benchmarks/neurons.py mouse --keep MOUSE --out FILE.json
    python benchmarks/neurons.py noise --data FOLDER --keep V4 --out FILE.json
    python benchmarks/neurons.py search --data FOLDER --keep V4 --out FILE.json --neurons 12

Run it in the folder of docs/real-neurons.md, with the factories of the page, of docs/neurons.md and
the files of the models. `--data` has the recordings. What is finished is kept, so the command can
be stopped and given again. `scripts/tables` writes the tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import phosphene
from phosphene.datasets import Stream
from phosphene.files import write_json
from phosphene.forms import Record
from phosphene.images import contact_sheet, write_webp
from phosphene.loops import Loop
from phosphene.loops.simulated import Neuron, Noise, neuron_of, responses
from phosphene.priors import Prior, load_generated, load_prior
from phosphene.records import Folder
from phosphene.runtime import Runtime
from phosphene.studies.exemplars import Exemplars, find_exemplars
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import Climb, settings
from phosphene.units import Unit

V4 = "python:population:neurons"
LAYER = "responses"
RECORDED = "190923"
SINGLE = "210325"
NORM = 25
GENERATIONS = 30
"""Of 40 pictures: as many presentations as showing the 1,200 photographs once."""
SEARCHES: dict[str, dict[str, Any]] = {
    "surrogate": {"optimizer": "surrogate"},
    "evolution": {"optimizer": "evolution"},
    "genetic": {"optimizer": "genetic"},
    "cholesky": {"optimizer": "cholesky"},
    "sphere": {"optimizer": "sphere"},
    "cma-es": {"optimizer": "cma-es", "covariance": "diagonal"},
}
CLIMBS: dict[str, dict[str, Any]] = {
    "objects-fc6": {"steps": 40, "precision": "bfloat16"},
    "pixels": {"steps": 96, "rate": 0.3, "precision": "float32"},
}
"""Priors with fewer steps than usual; the rate of pixels makes up for it."""
MOUSE_CLIMBS: dict[str, dict[str, Any]] = {
    "pixels": {"steps": 96, "rate": 0.15, "precision": "float32"},
    "objects-fc6": {"steps": 60, "precision": "bfloat16"},
}


class Alone(nn.Module):
    """Compute one neuron of a population at its place; the others are silent and cost no time."""

    def __init__(self, neuron: nn.Module, place: int, neurons: int):
        super().__init__()
        self.neuron = neuron
        self.place = place
        self.neurons = neurons
        self.responses = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (batch, neurons)."""
        own = self.neuron(images)
        return self.responses(F.pad(own, (self.place, self.neurons - 1 - self.place)))


def alone(population: Subject, place: int) -> Subject:
    """Return the population as a subject that computes one neuron only.

    Its records name the whole population, which makes their pictures again.
    """
    neurons = population.network.neurons
    card = {**population.card, "source": "population", "sha256": population.identity}
    return replace(population, network=Alone(neurons[place], place, len(neurons)), card=card)


class Folded(nn.Module):
    """Compute the same neuron several times as fast, its batch norms folded into convolutions.

    Responses differ by rounding. No record is made of it.
    """

    def __init__(self, neuron: nn.Module):
        super().__init__()
        self.t = neuron.t
        self.maps = [self.fold(0, "conv"), *(self.fold(i, "conv_point") for i in range(1, 5))]

    def fold(self, i: int, name: str) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias of a convolution and the batch norm behind it."""
        mean, variance, gain, bias = (
            self.t[f"layer{i}_bn_{each}"]
            for each in ("running_mean", "running_var", "weight", "bias")
        )
        gain = gain / (variance + 1e-5).sqrt()
        weight = self.t[f"layer{i}_{name}_weight"] * gain[:, None, None, None]
        weight = weight.contiguous(memory_format=torch.channels_last)
        return weight, (self.t[f"layer{i}_{name}_bias"] - mean) * gain + bias

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (batch, 1)."""
        x = F.conv2d(images, *self.maps[0], padding=2).relu_()
        for i in range(1, 5):
            depth = self.t[f"layer{i}_conv_depth_weight"]
            if i < 3:  # as many zeros on either side, and one output more
                x = F.conv2d(x, depth, stride=2, padding=3, groups=len(depth))[..., 1:, 1:]
            else:
                x = F.conv2d(x, depth, padding=2, groups=len(depth))
            weight, bias = self.maps[i]
            points = F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias)
            x = points.relu_().permute(0, 3, 1, 2)
        flat = x.permute(0, 2, 3, 1).flatten(1)
        return F.linear(flat, self.t["Beta_weight"], self.t["Beta_bias"])


def folded(population: Subject) -> Subject:
    """Return the population with all neurons folded; it keeps its identity."""
    network = type(population.network)([Folded(each) for each in population.network.neurons])
    card = {**population.card, "source": "population", "sha256": population.identity}
    return replace(population, network=network.eval().requires_grad_(False), card=card)


def kept(file: Path, part: str) -> dict[str, Any]:
    """Return all that a file of results holds, with one part to fill."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    found.setdefault(part, {})
    return found


def keys() -> list[str]:
    """Return the names of the V4 neurons, in the order of the population."""
    from population import keys as named

    return list(named())


# ------------------------------------------------------------------ V4: pictures and photographs


def v4(options: argparse.Namespace) -> None:
    """Climb all neurons with each prior, find their best photographs, and build the atlas."""
    population = load_subject(V4)
    found = kept(options.out, "v4")
    for name, how in CLIMBS.items():
        prior = load_prior(name, population)
        for place, key in enumerate(keys()):
            row = found["v4"].setdefault(key, {})
            if name not in row:
                row[name] = climbed(alone(population, place), place, prior, options.keep, how)
                write_json(options.out, found)
                print(key, name, row[name], flush=True)
    for name in CLIMBS:
        write_sheet(options.keep, name)
    photographs = options.keep / "photographs"
    write_photographs(options.data / "images.parquet", photographs)
    fast = folded(population)
    folder = options.keep / "exemplars"
    (folder / "tiles").mkdir(parents=True, exist_ok=True)
    units = [Unit(LAYER, place) for place in range(len(keys()))]
    form = Exemplars(batch=4).run(fast, units, photographs, Runtime(folder))
    form.write(folder / "exemplars.json")
    index = responses_to_photographs(fast, options.keep)
    for place, (key, row) in enumerate(found["v4"].items()):
        row |= best_photograph(index[:, place])
        if key.startswith(RECORDED):
            row |= recorded(index[:, place], recordings(options.data)[int(key.split(".")[1])])
    write_json(options.out, found)
    folders = [str(options.keep / name) for name in (*CLIMBS, "exemplars")]
    command("atlas", *folders, "--out", str(options.keep / "site"))


def climbed(
    subject: Subject, place: int, prior: Prior, keep: Path, how: Mapping[str, Any]
) -> dict[str, float]:
    """Return the response in float32 to the 8 bits that the neuron reads, and their contrast."""
    unit = f"{LAYER}:{place}"
    folder = keep / str(prior.name)
    result = phosphene.synthesize(subject, unit, prior=prior, out=folder, quiet=True, **how)
    shown = result.inputs
    rate = neuron_of(subject, subject.targets(unit))(shown)[0, 0]
    return {"response": round(float(rate), 4), "contrast": round(contrast(shown[0]), 4)}


def contrast(image: Tensor) -> float:
    """Return the deviation of the mean of an image's channels, in 0 … 1."""
    return float(image.mean(0).std(correction=0))


def write_sheet(keep: Path, name: str) -> None:
    """Write the pictures of twenty neurons, evenly spaced, as a contact sheet."""
    folder = Folder(keep / name)
    named = keys()
    places = evenly(len(named), 20)
    records = [Record.read(folder.path / f"{LAYER}-{place}-s0.json") for place in places]
    labels = [f"{named[i]}\n{each.score:.1f}" for i, each in zip(places, records, strict=True)]
    tiles = [folder.shown(each) for each in records]
    write_webp(keep / f"{name}.webp", contact_sheet(tiles, labels, columns=10))


def write_photographs(parquet: Path, folder: Path) -> None:
    """Write the recorded session's photographs as files, in their order."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for row in pq.read_table(parquet).to_pylist():
        (folder / f"{row['index']:04}.jpg").write_bytes(row["image"])


def command(*arguments: str) -> None:
    """Run the program; its failure ends the benchmark."""
    done = subprocess.run([sys.executable, "-m", "phosphene", *arguments])
    if done.returncode:
        sys.exit(done.returncode)


def responses_to_photographs(population: Subject, keep: Path) -> Any:
    """Return every neuron's response to every photograph, (photographs, neurons).

    They lie in the index of the exemplars, so nothing is computed again.
    """
    data = Stream(keep / "photographs", "train", population.photograph_size)
    found = find_exemplars(population, [LAYER], data, keep / "exemplars" / "exemplars.safetensors")
    return found[LAYER].sample.numpy()


def best_photograph(responses: Any) -> dict[str, Any]:
    """Return the photograph of the largest predicted response."""
    best = int(responses.argmax())
    return {"photograph": best, "photograph_response": round(float(responses[best]), 4)}


def recordings(data: Path) -> Any:
    """Return mean recorded responses (neurons, photographs) of the session with photographs."""
    from safetensors.numpy import load_file

    return load_file(data / "responses.safetensors")[f"{RECORDED}.mean"]


def recorded(responses: Any, measured: Any) -> dict[str, Any]:
    """Return the photograph of the largest recorded response, and how the model agrees."""
    best = int(measured.argmax())
    return {
        "recorded_photograph": best,
        "recorded_photograph_response": round(float(responses[best]), 4),
        "correlation": round(float(np.corrcoef(responses, measured)[0, 1]), 4),
        "recorded_of_predicted_best": round(
            float(measured[responses.argmax()] / measured.max()), 4
        ),
    }


# ------------------------------------------------------------------ mouse: from model to model


def mouse(options: argparse.Namespace) -> None:
    """Climb neurons on each of two models, and let both judge the pictures."""
    models = {name: load_subject(f"python:mouse:{name}") for name in ("deep", "linear")}
    places = evenly(models["deep"].shapes()["rates"][0], options.neurons)
    units = f"rates:{','.join(map(str, places))}"
    found = kept(options.out, "mouse")
    found["mouse"]["neurons"] = places
    for name, subject in models.items():
        for prior, how in MOUSE_CLIMBS.items():
            if f"{name}, {prior}" in found["mouse"]:
                continue
            out = options.keep / f"{name}-{prior}"
            result = phosphene.synthesize(
                subject, units, prior=prior, norm=NORM, out=out, batch=10, quiet=True, **how
            )
            found["mouse"][f"{name}, {prior}"] = {
                judge: rates_of(model, result.inputs, places) for judge, model in models.items()
            }
            write_json(options.out, found)
            print(name, prior, flush=True)


def evenly(among: int, n: int) -> list[int]:
    """Return n numbers below `among`, evenly spaced; nothing is chosen."""
    return [(2 * i + 1) * among // (2 * n) for i in range(n)]


@torch.no_grad()
def rates_of(model: Subject, images: Tensor, places: list[int]) -> list[float]:
    """Return the response of each picture's own neuron."""
    rates = model(images)[range(len(places)), places]
    return [round(float(rate), 4) for rate in rates]


# ------------------------------------------------------------------ the noise of trials


def noise(options: argparse.Namespace) -> None:
    """Learn the noise of single trials, of each neuron and of all together."""
    trials = single_trials(options.data)
    found = kept(options.out, "noise")
    found["noise"]["neurons"] = [asdict(Noise.of_trials(each)) for each in trials]
    found["noise"]["fano_factors"] = [fano_factor(each) for each in trials]
    found["noise"]["all"] = asdict(Noise.of_trials(trials))
    found["noise"]["groups"] = groups(trials)
    write_json(options.out, found)


def single_trials(data: Path) -> Any:
    """Return counts of spikes (neurons, pictures, trials), NaN where there was no trial."""
    from safetensors.numpy import load_file

    return load_file(data / "responses.safetensors")[f"{SINGLE}.trials"].astype(float)


def fano_factor(trials: Any) -> float:
    """Return the variance over the mean of (pictures, trials), both averaged over pictures."""
    trials = trials[np.isfinite(trials).sum(1) >= 2]
    return round(float(np.nanvar(trials, 1, ddof=1).mean() / np.nanmean(trials)), 4)


def groups(trials: Any, n: int = 8) -> list[dict[str, float]]:
    """Return mean and variance in groups of like means.

    Every other trial says which group a picture is in, and the rest its mean and variance there.
    """
    flat = trials.reshape(-1, trials.shape[-1])
    halves = flat[:, ::2], flat[:, 1::2]
    flat = flat[np.all([np.isfinite(half).sum(1) >= 2 for half in halves], 0)]
    order = np.argsort(np.nanmean(flat[:, ::2], 1), kind="stable")
    rows = []
    for some in np.array_split(order, n):
        rest = flat[some, 1::2]
        mean = float(np.nanmean(rest, 1).mean())
        variance = float(np.nanvar(rest, 1, ddof=1).mean())
        rows.append({"mean": round(mean, 4), "variance": round(variance, 4), "n": len(some)})
    return rows


# ------------------------------------------------------------------ searches under that noise


def search(options: argparse.Namespace) -> None:
    """Let each search look for what V4 neurons prefer, as long as photographs would take."""
    population = folded(load_subject(V4))
    index = responses_to_photographs(population, options.keep)
    measured = recordings(options.data)
    noisy = Noise.of_trials(single_trials(options.data))
    prior = load_generated("objects-fc6")
    found = kept(options.out, "search")
    found["search"].setdefault("runs", [])
    done = {(row["neuron"], row["search"]) for row in found["search"]["runs"]}
    for place in evenly(len(measured), options.neurons):
        line = np.polyfit(index[:, place], measured[place], 1)
        spikes = in_spikes(alone(population, place), place, line)
        best = float(np.polyval(line, index[:, place]).max())
        for name, how in SEARCHES.items():
            if (place, name) not in done:
                climb = settings("evolution", prior, steps=GENERATIONS, **how)
                row = searched(prior, climb, spikes, noisy)
                found["search"]["runs"].append(
                    {"neuron": place, "search": name, "best": best, **row}
                )
                write_json(options.out, found)
                print(place, name, best, row["handed"][-1], row["seconds"], flush=True)


def in_spikes(subject: Subject, place: int, line: Any) -> Neuron:
    """Return a neuron that answers in spikes, by a line through what was recorded."""
    neuron = neuron_of(subject, subject.targets(f"{LAYER}:{place}"))
    return lambda images: np.polyval(line, neuron(images)).clip(0)


def searched(prior: Prior, climb: Climb, neuron: Neuron, noise: Noise) -> dict[str, Any]:
    """Return the clean response to what would be handed over after each generation."""
    begun = time.process_time()
    handed = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Loop(prior, climb, Path(folder), precision="bfloat16") as loop,
    ):
        while not loop.is_over:
            generation = loop.ask()
            told, _ = responses(neuron, generation.wanted, generation.order, noise, loop.seed)
            loop.tell(told)
            _, image = loop.preferred()
            handed.append(round(float(neuron(image[None])[0, 0]), 4))
    return {"handed": handed, "seconds": round(time.process_time() - begun, 1)}


def main() -> None:
    """Run a part."""
    parts = {"v4": v4, "mouse": mouse, "noise": noise, "search": search}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=parts)
    parser.add_argument("--data", type=Path, help="the folder of the recordings")
    parser.add_argument("--keep", type=Path, required=True, help="the folder of the pictures")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of the results")
    parser.add_argument("--neurons", type=int, default=50, help="how many, evenly spaced")
    options = parser.parse_args()
    sys.path.insert(0, "")
    torch.set_num_threads(1)
    parts[options.part](options)


if __name__ == "__main__":
    main()
