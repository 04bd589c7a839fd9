#!/usr/bin/env python3
"""Measure what each part of a generator's training gives, by changing one thing at a time.

    python benchmarks/ablation.py PHOTOGRAPHS [VARIANT …] [--run FOLDER] [--steps 240]
        [--number 500] [--every 2]

All variants train for the same time. Each variant of the recipe `from-teacher` begins from the same
weights and sees the same photographs, for fc6 of caffenet-objects. Those that look at more or
larger pictures in a step have fewer steps. Printed are, of held-out photographs, the image error on
[0, 1], and the squared error and the cosine of the code of the picture. The share of classes that
both judges name is printed for the reconstructions, and for the preferred inputs of every second
output unit. `resnet18-objects` has no part in the training, EfficientNet-Lite2 is of a kind with
the comparator. A run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from phosphene import datasets
from phosphene.code_statistics import CodeStatistics
from phosphene.metrics import judge_channels, recognised
from phosphene.priors import Generated
from phosphene.runtime import Runtime
from phosphene.studies.generator import reconstructed
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import CLIMBS, Member, climb_all, joined
from phosphene.tensors import as_images
from phosphene.training.image import ImageStage
from phosphene.training.initialization import initialized
from phosphene.training.inversion import Inversion, with_code
from phosphene.training.recipes import Recipe, read_recipe
from phosphene.training.stage import run_stage

SUBJECT, LAYER = "caffenet-objects", "fc6"
JUDGES = ["efficientnet-lite2", "resnet18-objects"]
OWN = ["conv1", "conv2", "conv3", "conv5"]
ASKED = {
    "comparator_size": 160,
    "comparator_layers": ["_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15", "_fc"],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no discriminator": {"adversarial": 0.0},
    "features of the encoder, not of the comparator": {"comparator_layers": [], "layers": OWN},
    "features of both": {"layers": OWN},
    "no features": {"feature": 0.0},
    "no error of the image": {"image": 0.0},
    "no code again": {"cycle": 0.0},
    "a twentieth of it": {"cycle": 0.2},
    "codes beyond": {"extrapolated": 0.25},
    "falling rates": {"cosine_decay": 0.7},
    "the comparator shown 160 pixels": {"comparator_size": 160},
    "and asked for its last layers and its classes": {**ASKED, "class_kl": 0.4},
    "and for its classes ten times as much": {**ASKED, "class_kl": 4.0},
    "paper's layout, from nothing": {},
}
"""Changes of the table [image]; the last is the recipe `deepsim-layout` instead."""
LARGER = 0.7
"""How much longer a step takes where the comparator is shown 160 pixels and not 96."""
COLUMNS = [
    "image error",
    "code error",
    "cosine",
    *(f"{kind}, {judge}" for kind in ("again", "climb") for judge in JUDGES),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs")
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    parser.add_argument(
        "--run", type=Path, help="keep the runs here; a temporary folder if not given"
    )
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    encoder = load_subject(SUBJECT)
    judges = [load_subject(name) for name in JUDGES]
    train, val = (datasets.load(options.photographs, split) for split in ("train", "val"))
    print("| variant | steps | minutes |", " | ".join(COLUMNS), "|")
    print("| --- " * (3 + len(COLUMNS)) + "|")
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or Path(scratch)
        for name in options.variants:
            recipe = recipe_of(name, encoder, options.steps)
            begun = time.monotonic()
            generated = trained(recipe, encoder, train, run, name)
            minutes = (time.monotonic() - begun) / 60
            figures = measured(generated, encoder, judges, val, options)
            print(
                f"| {name} | {recipe['image']['steps']} | {minutes:.1f} |",
                " | ".join(figures),
                "|",
                flush=True,
            )


def recipe_of(name: str, encoder: Subject, steps: int) -> Recipe:
    """Return the variant's recipe.

    It has fewer steps where there is more to do in a step, with more pictures or larger ones.
    """
    recipe = with_code(
        read_recipe("deepsim-layout" if name.startswith("paper") else "from-teacher", "generator"),
        encoder,
        LAYER,
    )
    changes = VARIANTS[name]
    work = 1 + changes.get("extrapolated", 0.0) + LARGER * ("comparator_size" in changes)
    recipe["image"] |= {"steps": round(steps / work), **changes}
    return recipe


def trained(
    recipe: Recipe, encoder: Subject, photographs: datasets.Photographs, run: Path, name: str
) -> Generated:
    """The variant's generator; the beginning is found once for all that share it."""
    inversion = Inversion(recipe, encoder, photographs, Runtime(run / "begin"))
    generator, statistics, begun = initialized(inversion)
    folder = run / name.replace(" ", "-").replace(",", "").replace("'", "")
    stage = ImageStage(replace(inversion, runtime=Runtime(folder)), generator, begun=begun)
    run_stage(stage)
    return Generated(stage.trained(), CodeStatistics.of(statistics), SUBJECT, LAYER)


def measured(
    generated: Generated,
    encoder: Subject,
    judges: list[Subject],
    val: datasets.Photographs,
    options: Any,
) -> list[str]:
    chosen = np.linspace(0, len(val) - 1, options.number).round().astype(np.int64)
    x = F.interpolate(
        as_images(val.images[chosen]), generated.image_size, mode="bilinear", align_corners=False
    )
    labels = torch.from_numpy(val.labels[chosen])
    again = reconstructed(generated, encoder, x, labels)
    figures = [
        f"{again.figures[name].mean():.3f}" for name in ("image_error", "code_error", "code_cosine")
    ]
    classes = torch.arange(0, len(encoder.classes), options.every)
    members = [Member(encoder.targets(f"fc8:{i}")[0], 0) for i in classes.tolist()]
    climbed = joined(
        list(climb_all(encoder, members, generated, CLIMBS["default"], precision="bfloat16"))
    )
    for images, wanted in ((again.reconstructions, labels), (climbed.images, classes)):
        for judge in judges:
            hits = recognised(judge, images, wanted, judge_channels(judge, encoder.classes))
            figures.append(f"{hits[:, 0].mean():.0%}")
    return figures


main()
