"""Training a subject: a classifier of photographs, from a recipe, resumable at any step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.datasets import Photographs
from phosphene.errors import BadRequest
from phosphene.networks import build
from phosphene.runtime import Runtime
from phosphene.statistics import wilson
from phosphene.subjects import Subject, check_card
from phosphene.tensors import as_images, device_of, resized
from phosphene.training.augment import jitter_colours, mixed, random_crops
from phosphene.training.inversion import data_card
from phosphene.training.optimization import (
    Averaged,
    descend,
    epoch_order,
    mixed_precision,
    one_cycle,
    placed,
)
from phosphene.training.recipes import Recipe, recipe_hash
from phosphene.training.run import RunFolder
from phosphene.training.stage import Stage, run_stage
from phosphene.weights import rehearse

T = TypeVar("T")
Snapshot = Callable[[float, nn.Module], None]

MEAN, STD = (0.47, 0.45, 0.40), (0.28, 0.27, 0.28)
"""Mean and standard deviation of mini-imagenet's pixels, by channel, on [0, 1]."""


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]]], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0, fused=True),
}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "one-cycle": one_cycle,
    "cosine": partial(one_cycle, warmup=0.0),
}


@dataclass(frozen=True)
class _Batch:
    """Augmented photographs, normalised, (batch, 3, size, size).

    They show `labels` by `share`, and `other` by the rest.
    """

    x: Tensor
    labels: Tensor
    other: Tensor
    share: float


def train_subject(
    recipe: Recipe,
    train: Photographs,
    val: Photographs,
    run: Runtime | str | Path,
    *,
    init_from: Subject | None = None,
    snapshot: Snapshot | None = None,
) -> tuple[nn.Module, RunFolder, bool]:
    """Train until the recipe's end, the deadline, or a signal.

    The result is the network with averaged weights, the run with its history, and whether the
    recipe's end was reached. The processes share each batch. `snapshot` gets the averaged network
    after each share of the steps that the recipe's `snapshots` lists. The training begins with the
    weights of `init_from`, if it is given.
    """
    stage = SubjectStage(recipe, train, val, Runtime.of(run), init_from, snapshot)
    folder = run_stage(stage)
    return stage.trained(), folder, folder.finished


class SubjectStage(Stage):
    """Train a classifier to name photographs.

    After the main epochs comes a `cooldown` on milder crops, since photographs are tested whole
    (Touvron et al. 2019). The data order, crops and dropout are functions of the recipe's seed and
    the step, so a resumed run takes the same steps.
    """

    counter = 1
    logged = 0

    def __init__(
        self,
        recipe: Recipe,
        train: Photographs,
        val: Photographs,
        runtime: Runtime,
        init_from: Subject | None = None,
        snapshot: Snapshot | None = None,
    ):
        self.settings, self.seed, self.runtime = recipe, recipe["seed"], runtime
        self.val, self.snapshot = val, snapshot
        parent = {"begun": init_from.card["sha256"]} if init_from else {}
        self.identity = recipe_hash({**recipe, **parent}, train.fingerprint)
        torch.manual_seed(self.seed)
        self.network = placed(_fresh(recipe, init_from), runtime.device)
        optimizer = _choice(recipe, "optimizer", OPTIMIZERS, "sgd")
        self.optimizer = optimizer(_groups(self.network, recipe["weight_decay"]))
        self.schedule = _choice(recipe, "schedule", SCHEDULES, "one-cycle")
        self.others = {"optimizer": self.optimizer}
        self.averaged = Averaged(self.network, recipe["ema"])
        _check_classes(self.network, train)
        _check_card(recipe, train, self.network, init_from)
        self.epoch = _steps_of_epoch(recipe, train)
        self.main = self.epoch * recipe["epochs"]
        self.steps = self.main + self.epoch * recipe["cooldown"]["epochs"]
        shares = recipe.get("snapshots", [])
        self.snapshots = {max(1, round(share * self.steps)): share for share in shares}
        self.images = torch.from_numpy(train.images).to(runtime.device)
        self.labels = torch.from_numpy(train.labels).to(runtime.device)
        self.distributed = runtime.processes.distributed(self.network)

    def batch(self, step: int, rng: torch.Generator) -> _Batch:
        """Return this process's share of a step's photographs, cropped, coloured and mixed."""
        recipe, images = self.settings, self.images
        epoch, place = divmod(step, self.epoch)
        order = epoch_order(len(images), self.seed, epoch)
        chosen = order[place * recipe["batch"] : (place + 1) * recipe["batch"]]
        chosen = self.runtime.processes.shard(chosen).to(images.device)
        crop = recipe["crop"] if step < self.main else recipe["cooldown"]["crop"]
        size = _size(recipe, step / self.main)
        x = random_crops(as_images(images[chosen]), size, rng, scale=tuple(crop))
        x = normalise(jitter_colours(x, recipe["jitter"], rng))
        labels = self.labels[chosen]
        x, other, share = mixed(x, labels, recipe["mixup"], rng)
        return _Batch(x.contiguous(memory_format=torch.channels_last), labels, other, share)

    def learn(self, step: int, batch: _Batch, rng: torch.Generator) -> dict[str, Tensor]:
        recipe = self.settings
        if step < self.main:
            rate = recipe["lr"] * self.schedule(step / self.main)
        else:
            rate = recipe["cooldown"]["lr"] * (1 - step / self.steps)
        torch.manual_seed(int(torch.randint(2**31, (), generator=rng)))  # dropout's
        self.network.train()
        with mixed_precision(self.runtime.device):
            logits = self.distributed(batch.x)
        loss = batch.share * _loss(logits, batch.labels, recipe)
        loss = loss + (1 - batch.share) * _loss(logits, batch.other, recipe)
        descend(self.optimizer, rate, loss)
        return {"loss": loss}

    def after(self, step: int, figures: dict[str, Tensor], folder: RunFolder) -> None:
        """Give a snapshot, and measure the accuracy, where it is time."""
        if not self.runtime.processes.is_main:
            return
        step += 1
        if self.snapshot is not None and step in self.snapshots:
            self.snapshot(self.snapshots[step], self.trained())
        if step % (self.epoch * self.settings["evaluate_every"]) == 0 or step == self.steps:
            top1, top5 = accuracy(self.trained(), self.val, _size(self.settings, 1.0))
            loss = figures["loss"].item()
            folder.log(step=step, epoch=step / self.epoch, loss=loss, top1=top1, top5=top5)
            self.runtime.progress(step, self.steps, {"top1": top1, "top5": top5})

    def trained(self) -> nn.Module:
        """Return a network with averaged weights."""
        return self.averaged.network(build(self.settings["architecture"]))


def _body(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an architecture says of its layers below the classes."""
    return {k: v for k, v in architecture.items() if k not in ("classes", "dropout")}


def _fresh(recipe: Recipe, init_from: Subject | None) -> nn.Module:
    """Return the recipe's network, untrained or with a trained one's weights.

    Where the classes are others, the last layer is untrained.
    """
    network = build(recipe["architecture"])
    if init_from is None:
        return network
    theirs = init_from.card.get("architecture", {})
    if _body(theirs) != _body(recipe["architecture"]):
        raise BadRequest(
            f"{init_from.name} is of another architecture than the recipe's: {theirs}, "
            f"not {dict(recipe['architecture'])}"
        )
    ours = network.state_dict()
    trained = init_from.network.state_dict().items()
    fits = {name: each for name, each in trained if each.shape == ours[name].shape}
    network.load_state_dict({**ours, **fits})
    return network


def _choice(recipe: Recipe, key: str, known: Mapping[str, T], default: str) -> T:
    """Return what a recipe names, or the default; `BadRequest` where it is not known."""
    name = recipe.get(key, default)
    if name not in known:
        raise BadRequest(f"the recipe's {key} is {name!r}; there are: {', '.join(known)}")
    return known[name]


def _check_classes(network: nn.Module, train: Photographs) -> None:
    """Refuse photographs of more classes than the network has outputs, with `BadRequest`."""
    outputs = [each.out_features for each in network.modules() if isinstance(each, nn.Linear)][-1]
    if (most := int(train.labels.max())) >= outputs:
        raise BadRequest(
            f"{train.name} has {most + 1} classes, the recipe's architecture {outputs}"
        )


def _steps_of_epoch(recipe: Recipe, train: Photographs) -> int:
    """Return the number of whole batches; `BadRequest` where there is none."""
    steps = len(train) // recipe["batch"]
    if not steps:
        raise BadRequest(
            f"{train.name} has {len(train)} photographs for training, fewer than one batch of "
            f"{recipe['batch']}"
        )
    return int(steps)


def accuracy(
    network: nn.Module, photographs: Photographs, size: int, batch: int = 250
) -> tuple[float, float]:
    """Return top-1 and top-5 accuracy of a network, as shares.

    It is in float32, on whole photographs at `size` pixels.
    """
    device = device_of(network)
    network.eval()
    hits = torch.zeros(2)
    with torch.no_grad():
        for at in range(0, len(photographs), batch):
            x = as_images(photographs.images[at : at + batch]).to(device)
            logits = network(
                normalise(resized(x, (size, size))).contiguous(memory_format=torch.channels_last)
            )
            top = logits.topk(min(5, logits.shape[1])).indices.cpu()
            right = top == torch.from_numpy(photographs.labels[at : at + batch])[:, None]
            hits += torch.stack([right[:, 0].sum(), right.sum()])
    return float(hits[0]) / len(photographs), float(hits[1]) / len(photographs)


def normalise(images: Tensor) -> Tensor:
    """Return what our own subjects read of images in [0, 1]."""
    return (images - images.new_tensor(MEAN)[:, None, None]) / images.new_tensor(STD)[:, None, None]


def _loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Return the mean cross entropy."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=recipe["label_smoothing"])


def _size(recipe: Recipe, fraction: float) -> int:
    """Return the pixels of crops at this fraction of a run: they grow during training.

    `sizes` lists [from this share of the run, pixels].
    """
    return next(int(size) for start, size in reversed(recipe["sizes"]) if fraction >= start)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return groups of parameters: vectors do not decay."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def subject_card(
    name: str,
    recipe: Recipe,
    train: Photographs,
    val: Photographs,
    network: nn.Module,
    *,
    history: list[dict[str, float]],
    init_from: Subject | None = None,
) -> dict[str, Any]:
    """Return what the weights file says of the subject, its accuracy with a 95 % interval."""
    top1, top5 = accuracy(network, val, _size(recipe, 1.0))
    return {
        **_planned_card(name, recipe, train, network, init_from),
        "measured": {
            "top1": top1,
            "top5": top5,
            "photographs": len(val),
            "top1_interval": wilson(top1, len(val)),
        },
        "history": history,
    }


def _planned_card(
    name: str, recipe: Recipe, train: Photographs, network: nn.Module, init_from: Subject | None
) -> dict[str, Any]:
    """Return what the weights file will say that is known before the first step."""
    size = _size(recipe, 1.0)
    return {
        "name": name,
        "kind": "subject",
        "architecture": recipe["architecture"],
        "recipe": recipe,
        "preprocessing": {"size": [size, size], "mean": MEAN, "std": STD},
        "classes": list(train.classes),
        "output": [n for n, each in network.named_modules() if isinstance(each, nn.Linear)][-1],
        "data": data_card(train),
        "init_from": [init_from.card["sha256"]] if init_from else [],
    }


def _check_card(
    recipe: Recipe, train: Photographs, network: nn.Module, init_from: Subject | None
) -> None:
    """Check that the file that the run would write could be opened.

    `BadFile` or `BadRequest` where it could not.
    """
    source = f"a subject of {train.name}"
    planned = _planned_card(train.name, recipe, train, network, init_from)
    check_card(rehearse(planned, network, source), network, source)
