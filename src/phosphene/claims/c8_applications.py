"""C8: what else the method is good for.

Its uses are two units at once, real starts, features as they develop, and another task.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import weights
from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.experiment import Experiment
from phosphene.claims.linear_probe import LinearProbe
from phosphene.datasets import Photographs
from phosphene.images import to_pixels, write_png
from phosphene.priors import load_generated
from phosphene.runtime import Runtime
from phosphene.statistics import Figure, bootstrap, mean, paired_difference, share
from phosphene.tensors import as_images
from phosphene.texts import slug
from phosphene.training.recipes import read_recipe, recipe_hash
from phosphene.training.subject import subject_card, train_subject

PAIRS, STARTS, TEXTURE_SEEDS = 25, 30, 5
START_STEPS = 50
"""Steps of climbs from a photograph.

Of what a code began with, the default climb leaves 2 % after 200 steps, and 36 % after 50.
"""
TRAINED = "caffenet-objects"
SNAPSHOTS = (f"{TRAINED}@1%", f"{TRAINED}@10%")
"""The same recipe after these shares of its steps."""
TEXTURES = {
    "epochs": 15,
    "batch": 50,
    "sizes": [[0.0, 84]],
    "lr": 0.02,
    "snapshots": [],
    "cooldown": {"epochs": 1, "crop": [0.65, 1.0], "lr": 0.005},
}
"""How the recipe is changed for some hundred photographs of textures."""
QUICK_EPOCHS = 5


def measure(experiment: Experiment) -> Findings:
    """Measure the four uses, one after the other."""
    units: list[dict[str, Any]] = []
    pictures = []
    rows: list[dict[str, Any]] = []
    for part in (two_at_once, real_starts, while_training, another_task):
        found, table, sheet = part(experiment)
        units += found
        rows += table
        pictures.append(sheet)
    return Findings(numbers(units, CLAIM.level), rows, units, pictures)


Part = tuple[list[dict[str, Any]], list[dict[str, Any]], tuple[str, Any]]


def two_at_once(experiment: Experiment) -> Part:
    """Climb two output units at once, by the product of their probabilities.

    It is measured whether a judge finds both classes among its first five.
    """
    layer, classes = experiment.named, experiment.network(experiment.subject).classes
    order = np.random.default_rng((experiment.seed, 80)).permutation(len(classes))[
        : 2 * min(PAIRS, len(classes) // 2)
    ]
    pairs = [order.reshape(-1, 2)[i].tolist() for i in experiment.some(len(order) // 2, PAIRS, 81)]
    sums = [f"{layer}:{a} + {layer}:{b}" for a, b in pairs]
    made = {
        "both": experiment.climbed("C8-two", sums, objective="probability"),
        "sum": experiment.climbed("C8-sum", sums),
        "alone": experiment.climbed("C8-alone", [f"{layer}:{a}" for a, _ in pairs]),
    }
    found = {
        name: _among_five(experiment, shots.images, pairs).prod(2).mean(1)
        for name, shots in made.items()
    }
    units: list[dict[str, Any]] = [
        {
            "use": "two",
            "unit": unit,
            "label": f"{classes[a]} + {classes[b]}",
            **{k: float(v[i]) for k, v in found.items()},
        }
        for i, (unit, (a, b)) in enumerate(zip(sums, pairs, strict=True))
    ]
    told = {
        "both": "two by their probabilities",
        "sum": "the sum of their activations",
        "alone": "the first alone",
    }
    row: dict[str, Any] = {"use": "two units at once"}
    row |= {
        f"both named, {name}": share([unit[key] for unit in units]) for key, name in told.items()
    }
    caption = "Two units at once: " + "; ".join(unit["label"] for unit in units[:12])
    sheet = experiment.row("C8-two", [(name, made[key].images) for key, name in told.items()])
    return units, [row], (caption, sheet)


def real_starts(experiment: Experiment) -> Part:
    """Climb from photographs of another class.

    It is measured whether the goal is named at the end, and how near the pictures stay.
    """
    layer, classes = experiment.named, experiment.network(experiment.subject).classes
    size = load_generated(experiment.prior).image_size
    photographs, labels = experiment.drawn(experiment.objects, "val", STARTS, size, 82, classes)
    goals = [
        (int(label) + 1 + i % (len(classes) - 1)) % len(classes) for i, label in enumerate(labels)
    ]
    targets = [f"{layer}:{goal}" for goal in goals]
    begun, units = [], []
    for i, (photograph, target) in enumerate(zip(photographs, targets, strict=True)):
        file = experiment.runs / "C8-starts" / f"{i}.png"
        write_png(file, to_pixels(photograph.numpy()))
        shots = experiment.climbed(f"C8-start-{i}", [target], start=str(file), steps=START_STEPS)
        begun.append(shots.images[0])
    free = experiment.climbed("C8-goals", list(dict.fromkeys(targets)), steps=START_STEPS)
    at = {channel: i for i, channel in enumerate(free.channels)}
    random, real = free.images[[at[goal] for goal in goals]], torch.stack(begun)
    judge = experiment.judges[0]
    seen = [experiment.features(judge, images)[0] for images in (photographs, real, random)]
    near, far = ((seen[0] - other).square().sum(1).tolist() for other in seen[1:])
    named = [_share_named(experiment, images, goals) for images in (photographs, real)]
    for i, goal in enumerate(goals):
        units.append(
            {
                "use": "start",
                "unit": targets[i],
                "label": f"{classes[int(labels[i])]} → {classes[goal]}",
                "goal_before": named[0][i],
                "goal_after": named[1][i],
                "moved": near[i],
                "moved_from_random": far[i],
            }
        )
    row: dict[str, Any] = {"use": "from a photograph"}
    for key in ("goal_before", "goal_after", "moved", "moved_from_random"):
        row[key] = mean([unit[key] for unit in units])
    names = ("start", "climbed from there", "climbed from a random code")
    sets = list(zip(names, (photographs, real, random), strict=True))
    caption = "; ".join(unit["label"] for unit in units[:12])
    return units, [row], (caption, experiment.row("C8-starts", sets))


def while_training(experiment: Experiment) -> Part:
    """Climb the same output units in snapshots of the training and in the finished network."""
    network = experiment.network(TRAINED)
    channels = experiment.some(len(network.classes), 50, 83)
    names = [f"{network.output}:{channel}" for channel in channels]
    units: list[dict[str, Any]] = [{"use": "training", "unit": name, "named": {}} for name in names]
    rows, shown = [], []
    for subject in (*SNAPSHOTS, TRAINED):
        shots = experiment.climbed(f"C8-{slug(subject)}", names, subject=subject)
        named = _share_named(experiment, shots.images, channels)
        for unit, value in zip(units, named, strict=True):
            unit["named"][subject] = value
        measured = experiment.network(subject).card["measured"]["top1"]
        row = {"use": "while training", "subject": subject, "is right": measured}
        rows.append({**row, "named among five": share(named)})
        shown.append((subject, shots.images))
    sheet = experiment.row("C8-training", shown)
    return units, rows, ("The same output units as training goes on.", sheet)


def another_task(experiment: Experiment) -> Part:
    """Train the subject on to name textures, and climb its output units.

    It is measured whether a linear probe that learned textures names these pictures.
    """
    data = experiment.photographs(experiment.textures, "all")
    train, val = (_every_second(data, i) for i in range(2))
    recipe = {**read_recipe(TRAINED, "subject"), **TEXTURES}
    recipe["epochs"] = QUICK_EPOCHS if experiment.quick else recipe["epochs"]
    recipe["architecture"] = {**recipe["architecture"], "classes": len(data.classes)}
    place = experiment.runs / f"C8-textures-{recipe_hash(recipe, train.fingerprint)[:16]}"
    file = place / "textures.safetensors"
    if not file.exists():
        experiment.report("C8: training on textures")
        runtime = Runtime(place, experiment.device)
        begun = experiment.network(TRAINED)
        network, run, finished = train_subject(recipe, train, val, runtime, init_from=begun)
        if not finished:
            signal.raise_signal(signal.SIGINT)  # which training took for its own
        card = subject_card(
            "textures", recipe, train, val, network, history=run.history, init_from=begun
        )
        tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
        weights.write(file, tensors, card)
    subject = experiment.network(str(file))
    seeds = [experiment.seed + i for i in range(1 if experiment.quick else TEXTURE_SEEDS)]
    shots = experiment.climbed(
        "C8-textures", [f"{subject.output}:all"], subject=str(file), seeds=seeds
    )
    classifier = LinearProbe.of(
        experiment.network(experiment.judges[-1]),
        as_images(train.images),
        torch.from_numpy(train.labels),
    )
    hits = (classifier(shots.images).argmax(1) == torch.tensor(shots.channels)).float()
    units: list[dict[str, Any]] = [
        {
            "use": "textures",
            "unit": f"{subject.output}:{c}",
            "label": name,
            "right": hits[torch.tensor(shots.channels) == c].mean().item(),
        }
        for c, name in enumerate(data.classes)
    ]
    row = {
        "use": "another task: textures",
        "the network is right": subject.card["measured"]["top1"],
        "a reader is right on photographs": classifier.right(
            as_images(val.images), torch.from_numpy(val.labels)
        ),
        "and on pictures": share([unit["right"] for unit in units]),
    }
    caption = "Units of a network trained on textures, the first seed: " + ", ".join(data.classes)
    sheet = experiment.row("C8-textures", [("textures", shots.images[:: len(seeds)])])
    return units, [row], (caption, sheet)


def numbers(units: Sequence[Mapping[str, Any]], level: float) -> dict[str, Figure]:
    """Return the claim's figures of its units.

    Each unit has `use` and what that use measures; see the parts.
    """
    use = {
        name: [unit for unit in units if unit["use"] == name]
        for name in ("two", "start", "training", "textures")
    }
    shares = list(use["training"][0]["named"]) if use["training"] else ["", ""]
    later, earlier = (
        [unit["named"][at] for unit in use["training"]] for at in (shares[-1], shares[0])
    )
    chance = 1 / max(1, len(use["textures"]))
    after, before = (
        [unit[f"goal_{when}"] for unit in use["start"]] for when in ("after", "before")
    )
    far, near = ([unit[key] for unit in use["start"]] for key in ("moved_from_random", "moved"))
    note = "share of judges that name {} among five, {}"
    return {
        "two at once": paired_difference(
            [unit["both"] for unit in use["two"]],
            [unit["alone"] for unit in use["two"]],
            level,
            note.format("both classes", "less that of one unit's picture"),
        ),
        "class changes": paired_difference(
            after, before, level, note.format("the goal", "after less before")
        ),
        "stays near": paired_difference(
            far, near, level, "distance to the photograph from a random start, less from there"
        ),
        "develops": paired_difference(
            later, earlier, level, note.format("the class", "at the end less at the first snapshot")
        ),
        "textures": bootstrap(
            [unit["right"] - chance for unit in use["textures"]],
            "share that a reader names first, less chance",
            level,
        ),
    }


def _among_five(experiment: Experiment, images: Tensor, goals: Sequence[Sequence[int]]) -> Tensor:
    """Return whether each of an image's goals is among a judge's first five.

    The shape is (n, judges, goals), the values are 0 and 1.
    """
    classes = experiment.network(experiment.subject).classes
    sides = [[goal[i] for goal in goals] for i in range(len(goals[0]))]
    found = [
        torch.stack([experiment.named_by(judge, images, side, classes)[:, 1] for side in sides], 1)
        for judge in experiment.judges
    ]
    return torch.stack(found, 1)


def _share_named(experiment: Experiment, images: Tensor, channels: Sequence[int]) -> list[float]:
    """Return for each image the share of judges that have its class among their first five."""
    goals = [[channel] for channel in channels]
    found: list[float] = _among_five(experiment, images, goals)[:, :, 0].mean(1).tolist()
    return found


def _every_second(data: Photographs, first: int) -> Photographs:
    return replace(
        data,
        images=data.images[first::2],
        labels=data.labels[first::2],
        fingerprint=f"{data.fingerprint}:{first}",
    )


CLAIM = Claim(
    "C8",
    "What it is good for",
    "Two units at once, a real image to begin with, features as they develop in training, "
    "other tasks.",
    (
        Expectation(
            "two at once",
            "the picture of two units shows both classes, more often than that of one of them",
        ),
        Expectation(
            "class changes",
            "a climb from a photograph of another class ends at a picture of the goal",
        ),
        Expectation(
            "stays near", "and nearer to the photograph than a climb from a random code does"
        ),
        Expectation(
            "develops",
            "pictures can be named more often when training has ended than after its first "
            "hundredth",
        ),
        Expectation(
            "textures",
            "units of a network trained on textures yield pictures that a texture reader names",
        ),
    ),
    measure,
    SNAPSHOTS,
    ("objects", "textures"),
)
