#!/usr/bin/env python3
"""Compare priors on networks of a thousand classes, by pictures of the same units.

    python benchmarks/priors.py RUN… --out docs/priors.json

A RUN is a folder that `phosphene synthesize NETWORK OUTPUT:0,100,… --prior PRIOR --out RUN` wrote.
The networks of thousand.py judge each other's pictures. Told are how often all judges name a
picture first and among five, out of a thousand classes, with Wilson's intervals over units and
judges, and the activation of each unit. `scripts/tables` shows the run of each prior and network
whose rate excites the units most, and the activation against that of the baseline.

CAFFE_NETWORKS is the folder of the weights (see caffe_networks.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from thousand import JUDGES, read_run

from phosphene.files import write_json
from phosphene.metrics import recognised
from phosphene.statistics import share
from phosphene.subjects import Subject, load_subject


def main() -> None:
    """Judge the runs, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--baseline", default="objects-fc6")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    judges = {name: load_subject(name) for name in JUDGES}
    found = [judged(run, judges) for run in options.runs]
    whole: dict[str, Any] = {"baseline": options.baseline, "runs": found}
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
        "prior_sha256": records[0]["weights"]["prior"],
        "steps": request["climb"]["steps"],
        "options": request["climb"]["options"],
        "scores": {record["target"]: record["input_score"] for record in records},
        "judges": [judge.name for judge in others],
        "first": asdict(share(right[:, 0].tolist())),
        "five": asdict(share(right[:, 1].tolist())),
    }


if __name__ == "__main__":
    main()
