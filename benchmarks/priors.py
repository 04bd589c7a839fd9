#!/usr/bin/env python3
"""Compare priors on networks of a thousand classes, by pictures of the same units.

    python benchmarks/priors.py RUN… --photographs DATA --code lite0-map --out docs/priors.json

A RUN is a folder that `phosphene synthesize NETWORK OUTPUT:0,100,… --prior PRIOR --out RUN` wrote.
The networks of thousand.py judge each other's pictures. Told are how often all judges name a
picture first and among five, out of a thousand classes, with Wilson's intervals over units and
judges, and the activation of each unit. `scripts/tables` shows the run of each prior and network
whose rate excites the units most, and the activation against that of the baseline.

The second part is of photographs of DATA that were not trained on: each prior makes them again from
its own code. Told are the mean absolute error of the image, and the cosine of the photograph's code
and the picture's, in the one code that --code names.

CAFFE_NETWORKS is the folder of the weights (see caffe_networks.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from thousand import JUDGES, read_run

from phosphene import datasets
from phosphene.files import write_json
from phosphene.metrics import recognised
from phosphene.priors import load_generated
from phosphene.statistics import share
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import as_images, resized


def main() -> None:
    """Judge the runs, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--baseline", default="objects-fc6")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--code", help="the generator whose code the cosines are of")
    parser.add_argument("--number", type=int, default=200, help="of photographs")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    judges = {name: load_subject(name) for name in JUDGES}
    found = [judged(run, judges) for run in options.runs]
    whole: dict[str, Any] = {"baseline": options.baseline, "runs": found}
    if options.photographs:
        names = dict.fromkeys(run["name"] for run in found)
        told = (options.photographs, options.number, options.code)
        whole["reconstructions"] = reconstructions([*names], *told)
    write_json(options.out, whole)


def judged(run: Path, judges: Mapping[str, Subject]) -> dict[str, Any]:
    """Return what a run is of, its scores by unit, and which pictures each judge names."""
    pictures, units, records = read_run(run)
    request = records[0]["request"]
    others = [judge for name, judge in judges.items() if name != request["subject"]]
    right = torch.cat(
        [recognised(judge, pictures, units, range(len(judge.classes))) for judge in others]
    )
    return {
        "subject": request["subject"],
        "prior": Path(request["prior"]).stem,
        "name": request["prior"],
        "prior_sha256": records[0]["weights"]["prior"],
        "steps": request["climb"]["steps"],
        "options": request["climb"]["options"],
        "scores": {record["target"]: record["input_score"] for record in records},
        "judges": [judge.name for judge in others],
        "first": asdict(share(right[:, 0].tolist())),
        "five": asdict(share(right[:, 1].tolist())),
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


if __name__ == "__main__":
    main()
