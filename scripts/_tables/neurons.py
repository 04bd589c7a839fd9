"""Make the tables of real neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from _tables.markdown import in_percent, table, with_interval
from phosphene.statistics import median, paired_difference, share

FILE = "docs/real-neurons.json"
PRIORS = {"objects-fc6": "generator", "pixels": "pixels"}
JUDGES = {"deep": "linear", "linear": "deep"}
OURS = "surrogate"
POPULATION = 40
"""Pictures of a generation, each shown once."""


def pictures(found: dict[str, Any]) -> str:
    """Return how many times the best photograph's predicted response pictures have."""
    rows = [*found["v4"].values()]
    lines = [["prior", "times the best photograph's", "quartiles", "above it", "RMS contrast"]]
    for prior, name in PRIORS.items():
        ratios = [row[prior]["response"] / row["photograph_response"] for row in rows]
        low, high = np.percentile(ratios, [25, 75])
        above = share([float(ratio > 1) for ratio in ratios])
        contrast = median([row[prior]["contrast"] for row in rows])
        cells = [with_interval(median(ratios)), f"{low:.2f} … {high:.2f}"]
        lines.append([name, *cells, in_percent(above), f"{contrast.value:.2f}"])
    return table(lines)


def recorded(found: dict[str, Any]) -> str:
    """Return the same over the photograph of the largest recorded response."""
    rows = [row for row in found["v4"].values() if "correlation" in row]
    lines = [["of the neurons with recordings", "median"]]
    for prior, name in PRIORS.items():
        ratios = [
            row[prior]["response"] / row["recorded_photograph_response"]
            for row in rows
            if row["recorded_photograph_response"] > 0
        ]
        told = f"{name}: times the predicted response to the recorded best (n = {len(ratios)})"
        lines.append([told, with_interval(median(ratios))])
    kept = median([row["recorded_of_predicted_best"] for row in rows])
    agrees = median([row["correlation"] for row in rows])
    lines.append(["recorded response to the predicted best, of the largest", with_interval(kept)])
    lines.append(["correlation of the model with the recording", with_interval(agrees)])
    return table(lines)


def transfer(found: dict[str, Any]) -> str:
    """Return what another model of the same neurons makes of pictures."""
    lines = [["climbed on", "judge", "prior", "own response", "the judge's", "judge's over own"]]
    for model, judge in JUDGES.items():
        for prior, name in PRIORS.items():
            rates = found["mouse"].get(f"{model}, {prior}")
            if rates:
                shares = [b / a for a, b in zip(rates[model], rates[judge], strict=True)]
                figures = [rates[model], rates[judge], shares]
                lines.append([model, judge, name, *map(with_interval, map(median, figures))])
    return table(lines)


def differences(found: dict[str, Any]) -> str:
    """Return how much more models answer the generator's pictures than those of pixels."""
    lines = [["climbed on", "answers of", "generator less pixels", "neurons with more"]]
    for model, judge in JUDGES.items():
        sets = [found["mouse"].get(f"{model}, {prior}") for prior in PRIORS]
        if not all(sets):
            continue
        kept = [[b / a for a, b in zip(each[model], each[judge], strict=True)] for each in sets]
        compared = {model: [each[model] for each in sets], judge: [each[judge] for each in sets]}
        for told, (ours, theirs) in {**compared, f"{judge} over {model}": kept}.items():
            more = share([float(a > b) for a, b in zip(ours, theirs, strict=True)])
            less = paired_difference(ours, theirs)
            lines.append([model, told, with_interval(less, "+.2f"), in_percent(more)])
    return table(lines)


def noise(found: dict[str, Any]) -> str:
    """Return the mean and the variance of counts, in groups of like means."""
    lines = [["mean count", "variance", "variance over mean", "pictures × neurons"]]
    for row in found["noise"]["groups"]:
        cells = [f"{row[each]:.2f}" for each in ("mean", "variance")]
        lines.append([*cells, f"{row['variance'] / row['mean']:.2f}", f"{row['n']:,}"])
    return table(lines)


def noise_of_neurons(found: dict[str, Any]) -> str:
    """Return what was learned of each neuron's noise."""
    said = found["noise"]
    fano = said["fano_factors"]
    lines = [["of 50 neurons", "median"]]
    lines.append(["variance over mean", with_interval(median(fano))])
    for name, told in (("fano", "variance at a mean of 1"), ("exponent", "power of the mean")):
        lines.append([told, with_interval(median([each[name] for each in said["neurons"]]))])
    over = share([float(each > 1) for each in fano])
    lines.append(["share whose variance is above the mean", in_percent(over)])
    return table(lines)


def searches(found: dict[str, Any]) -> str:
    """Return how long searches need to be better than the best photograph."""
    runs: dict[str, list[Any]] = {}
    for row in found["search"]["runs"]:
        runs.setdefault(row["search"], []).append(row)
    first = {name: {row["neuron"]: reached(row) for row in rows} for name, rows in runs.items()}
    ends = {name: {row["neuron"]: ratio(row) for row in rows} for name, rows in runs.items()}
    heads = ["search", "neurons better", "presentations, median", "at the end", "ours less this"]
    lines = [heads]
    for name in runs:
        times = [*first[name].values()]
        both = sorted(ends[name].keys() & ends[OURS].keys())
        less = paired_difference([ends[OURS][n] for n in both], [ends[name][n] for n in both])
        middle = float(np.median(times))
        lines.append([
            name,
            f"{sum(map(np.isfinite, times))} of {len(times)}",
            f"{middle:,.0f}" if np.isfinite(middle) else "more than 1,200",
            with_interval(median([*ends[name].values()])),
            "–" if name == OURS else with_interval(less, "+.2f"),
        ])  # fmt: skip
    return table(lines)


def reached(row: dict[str, Any]) -> float:
    """Return the presentations until what is handed over is better, and stays so; or infinity."""
    worse = [i for i, response in enumerate(row["handed"]) if response <= row["best"]]
    after = worse[-1] + 1 if worse else 0
    return POPULATION * (after + 1) if after < len(row["handed"]) else float("inf")


def ratio(row: dict[str, Any]) -> float:
    """Return the last picture's response over the best photograph's."""
    return float(row["handed"][-1] / row["best"])


TABLES = {
    "pictures": pictures,
    "recorded": recorded,
    "transfer": transfer,
    "differences": differences,
    "noise": noise,
    "noise-of-neurons": noise_of_neurons,
    "searches": searches,
}
