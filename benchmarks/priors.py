#!/usr/bin/env python3
"""Compare priors on networks of a thousand classes, by pictures of the same units.

    python benchmarks/priors.py RUN… --photographs DATA --code lite0-map --out docs/priors.json
    python benchmarks/priors.py --out docs/priors.json --table

A RUN is a folder that `phosphene synthesize NETWORK OUTPUT:0,100,… --prior PRIOR --out RUN` wrote.
The networks of thousand.py judge each other's pictures. A row of the table is a network and a
prior: of the rates that were climbed with, the one whose pictures excite the units most. Told are
how often all judges name a picture first and among five, out of a thousand classes, with Wilson's
intervals over units and judges; and the median over units of the activation against the baseline.

A second table is of photographs of DATA that were not trained on: each prior makes them again from
its own code. Told are the mean absolute error of the image, and the cosine of the photograph's code
and the picture's, in the one code that --code names.

CAFFE_NETWORKS is the folder of the weights (see caffe_networks.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from thousand import JUDGES, NAMES, read_run

from phosphene import datasets
from phosphene.files import write_json
from phosphene.metrics import recognised
from phosphene.priors import load_generated
from phosphene.statistics import share
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import as_images, resized


def main() -> None:
    """Judge the runs, write, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--baseline", default="objects-fc6")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--code", help="the generator whose code the cosines are of")
    parser.add_argument("--number", type=int, default=200, help="of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        judges = {name: load_subject(name) for name in JUDGES}
        found = [judged(run, judges) for run in options.runs]
        whole: dict[str, Any] = {"baseline": options.baseline, "runs": found}
        if options.photographs:
            names = dict.fromkeys(run["name"] for run in found)
            told = (options.photographs, options.number, options.code)
            whole["reconstructions"] = reconstructions([*names], *told)
        write_json(options.out, whole)
    print(table(json.loads(options.out.read_text())))


def judged(run: Path, judges: Mapping[str, Subject]) -> dict[str, Any]:
    """Return what a run is of, its scores by unit, and which pictures each judge names."""
    pictures, units, records = read_run(run)
    request = records[0]["request"]
    seen = {}
    for name, judge in judges.items():
        if name != request["subject"]:
            right = recognised(judge, pictures, units, range(len(judge.classes)))
            seen[name] = {"first": right[:, 0].tolist(), "five": right[:, 1].tolist()}
    return {
        "subject": request["subject"],
        "prior": Path(request["prior"]).stem,
        "name": request["prior"],
        "prior_sha256": records[0]["weights"]["prior"],
        "steps": request["climb"]["steps"],
        "options": request["climb"]["options"],
        "scores": {record["target"]: record["input_score"] for record in records},
        "named": seen,
    }


@torch.no_grad()
def reconstructions(
    priors: Sequence[str], folder: Path, number: int, code: str
) -> dict[str, dict[str, Any]]:
    """Return how near each prior's reconstructions come to photographs, by the prior's name."""
    common = load_generated(code)
    data = datasets.load(folder, "val", labelled=False)
    chosen = np.linspace(0, len(data) - 1, number).astype(int)
    side = common.image_size
    x = resized(as_images(torch.from_numpy(data.images[chosen])), (side, side))
    with common.encoding("cpu") as encoded:
        codes = encoded(x)
        found = {}
        for name in priors:
            prior = load_generated(name)
            with prior.encoding("cpu") as own:
                made = prior.images(own(x)).clamp(0, 1)
            card = prior.card
            found[Path(name).stem] = {
                "data": data.name,
                "photographs": number,
                "image_error": float((made - x).abs().mean()),
                "cosine": float(F.cosine_similarity(encoded(made), codes).mean()),
                **{each: card[each] for each in ("regression_r2", "steps") if each in card},
            }
    return found


def best(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the run of the highest median score."""
    return max(runs, key=lambda run: float(np.median([*run["scores"].values()])))


def table(found: Mapping[str, Any]) -> str:
    """Return a row for each network and prior."""
    heads = ["network", "prior", "rate", "units", "named first", "among five", "activation"]
    lines = [heads, ["---"] * len(heads)]
    for subject in dict.fromkeys(run["subject"] for run in found["runs"]):
        own = [run for run in found["runs"] if run["subject"] == subject]
        priors = dict.fromkeys(run["prior"] for run in own)
        rows = {prior: best([run for run in own if run["prior"] == prior]) for prior in priors}
        base = rows[found["baseline"]]["scores"]
        lines += [row(subject, prior, run, base) for prior, run in rows.items()]
    tables = [lines, reconstruction_rows(found.get("reconstructions", {}))]
    joined = ["\n".join(f"| {' | '.join(line)} |" for line in rows) for rows in tables if rows]
    return "\n\n".join(joined)


def reconstruction_rows(found: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a row for each prior whose reconstructions were measured."""
    if not found:
        return []
    heads = ["prior", "photographs", "image error", "code cosine", "R² of the regression", "steps"]
    rows = [heads, ["---"] * len(heads)]
    for name, told in found.items():
        r2 = f"{told['regression_r2']:.3f}" if "regression_r2" in told else "–"
        figures = [f"{told['image_error']:.3f}", f"{told['cosine']:.3f}", r2]
        rows.append([f"`{name}`", str(told["photographs"]), *figures, str(told.get("steps", "–"))])
    return rows


def row(subject: str, prior: str, run: Mapping[str, Any], base: Mapping[str, float]) -> list[str]:
    """Return what is told of the best run of a prior."""
    ratio = float(np.median([score / base[unit] for unit, score in run["scores"].items()]))
    named = [shown(run, place) for place in ("first", "five")]
    rate, number = run["options"]["rate"], len(run["scores"])
    return [NAMES[subject], f"`{prior}`", f"{rate:g}", f"{number}", *named, f"{ratio:.2f}"]


def shown(run: Mapping[str, Any], place: str) -> str:
    """Return the share of pictures that judges name, with its interval."""
    told = asdict(share([hit for seen in run["named"].values() for hit in seen[place]]))
    return f"{told['value']:.0%} ({told['low']:.0%} to {told['high']:.0%})"


if __name__ == "__main__":
    main()
