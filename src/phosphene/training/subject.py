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
from phosphene.runtime import Processes, Runtime
from phosphene.statistics import wilson
from phosphene.subjects import Subject, check_card
from phosphene.tensors import as_images, device_of, resized
from phosphene.training.augment import jitter_colours, mixed, random_crops
from phosphene.training.run import (
    TOLD,
    Averaged,
    Recipe,
    RunFolder,
    Stateful,
    Waiting,
    descend,
    epoch_order,
    one_cycle,
    placed,
    recipe_hash,
    seeded,
)
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
    """Augmented photographs, normalised, (batch, 3, size, size), that show `labels` by `share` and else `other`."""

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

    After the main epochs comes a `cooldown` on milder crops, since photographs are tested whole
    (Touvron et al. 2019). The result is the network with averaged weights, the run with its
    history, and whether the recipe's end was reached. The data order, crops and dropout are
    functions of the recipe's seed and the step, so a resumed run takes the same steps. The
    processes share each batch. `snapshot` gets the averaged network after
    each share of the steps that the recipe's `snapshots` lists. The training begins with the
    weights of `init_from`, if it is given.
    """
    runtime = Runtime.of(run)
    device, processes = runtime.device, runtime.processes
    begun = {"begun": init_from.card["sha256"]} if init_from else {}
    folder = RunFolder(runtime, recipe_hash({**recipe, **begun}, train.fingerprint))
    torch.manual_seed(recipe["seed"])
    network = placed(_fresh(recipe, init_from), device)
    optimizer = _choice(recipe, "optimizer", OPTIMIZERS, "sgd")(
        _groups(network, recipe["weight_decay"])
    )
    schedule = _choice(recipe, "schedule", SCHEDULES, "one-cycle")
    averaged = Averaged(network, recipe["ema"])
    _check_classes(network, train)
    _check_card(recipe, train, network, init_from)
    main, steps, an_epoch = _lengths(recipe, train)
    taken = {max(1, round(share * steps)): share for share in recipe.get("snapshots", [])}
    data = torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device)
    parts: dict[str, Stateful] = {"network": network, "optimizer": optimizer, "averaged": averaged}
    joined, step, waiting = processes.distributed(network), -1, Waiting(device)
    whole = lambda: averaged.network(build(recipe["architecture"]))  # noqa: E731
    for step in folder.steps(parts, steps):
        rng, told = seeded(recipe["seed"], 1, step, *processes.counters), step % TOLD == 0
        with waiting.sample(told) as ready:
            batch = _batch(recipe, data, step, main, an_epoch, rng, processes)
            ready()
            rate = (
                recipe["lr"] * schedule(step / main)
                if step < main
                else recipe["cooldown"]["lr"] * (1 - step / steps)
            )
            torch.manual_seed(int(torch.randint(2**31, (), generator=rng)))  # dropout's
            network.train()
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                logits = joined(batch.x)
            loss = batch.share * _loss(logits, batch.labels, recipe)
            loss = loss + (1 - batch.share) * _loss(logits, batch.other, recipe)
            folder.watch(loss)
            descend(optimizer, rate, loss)
            averaged.update(network, step + 1)
        if told:
            runtime.progress(step + 1, steps, {"loss": loss.item(), "waiting": waiting.share})
        if processes.is_main and snapshot is not None and step + 1 in taken:
            snapshot(taken[step + 1], whole())
        if processes.is_main and (
            (step + 1) % (an_epoch * recipe["evaluate_every"]) == 0 or step + 1 == steps
        ):
            top1, top5 = accuracy(whole(), val, _size(recipe, 1.0))
            folder.log(
                step=step + 1, epoch=(step + 1) / an_epoch, loss=loss.item(), top1=top1, top5=top5
            )
            runtime.progress(step + 1, steps, {"top1": top1, "top5": top5})
    done = folder.load(parts) if processes.is_main else step + 1
    return whole(), folder, done == steps


def _body(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an architecture says of its layers below the classes."""
    return {k: v for k, v in architecture.items() if k not in ("classes", "dropout")}


def _fresh(recipe: Recipe, init_from: Subject | None) -> nn.Module:
    """The recipe's network, untrained or with a trained one's weights; other classes get an untrained last layer."""
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
    network.load_state_dict(
        {
            n: v if v.shape == ours[n].shape else ours[n]
            for n, v in init_from.network.state_dict().items()
        }
    )
    return network


def _choice(recipe: Recipe, key: str, known: Mapping[str, T], default: str) -> T:
    """What a recipe names, or the default; `BadRequest` where it names what is not known."""
    name = recipe.get(key, default)
    if name not in known:
        raise BadRequest(f"the recipe's {key} is {name!r}; there are: {', '.join(known)}")
    return known[name]


def _check_classes(network: nn.Module, train: Photographs) -> None:
    outputs = [
        module.out_features for module in network.modules() if isinstance(module, nn.Linear)
    ][-1]
    if (most := int(train.labels.max())) >= outputs:
        raise BadRequest(
            f"{train.name} has {most + 1} classes, the recipe's architecture {outputs}"
        )


def _lengths(recipe: Recipe, train: Photographs) -> tuple[int, int, int]:
    """Steps of the main epochs, of the whole run, and of one epoch."""
    an_epoch = len(train) // recipe["batch"]
    if not an_epoch:
        raise BadRequest(
            f"{train.name} has {len(train)} photographs for training, fewer than one batch of {recipe['batch']}"
        )
    main = an_epoch * recipe["epochs"]
    return main, main + an_epoch * recipe["cooldown"]["epochs"], an_epoch


def _batch(
    recipe: Recipe,
    data: tuple[Tensor, Tensor],
    step: int,
    main: int,
    an_epoch: int,
    rng: torch.Generator,
    processes: Processes,
) -> _Batch:
    """This process's share of a step's photographs, cropped, coloured and mixed where the network is."""
    images, labels = data
    epoch, place = divmod(step, an_epoch)
    chosen = epoch_order(len(images), recipe["seed"], epoch)[
        place * recipe["batch"] : (place + 1) * recipe["batch"]
    ]
    chosen = processes.shard(chosen).to(images.device)
    x = as_images(images[chosen])
    crop = recipe["crop"] if step < main else recipe["cooldown"]["crop"]
    x = random_crops(x, _size(recipe, step / main), rng, scale=tuple(crop))
    x = normalise(jitter_colours(x, recipe["jitter"], rng))
    x, other, share = mixed(x, labels[chosen], recipe["mixup"], rng)
    return _Batch(x.contiguous(memory_format=torch.channels_last), labels[chosen], other, share)


def accuracy(
    network: nn.Module, photographs: Photographs, size: int, batch: int = 250
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of a network in float32 on whole photographs at `size` pixels, as shares."""
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
    """Images in [0, 1] to what our own subjects read."""
    return (images - images.new_tensor(MEAN)[:, None, None]) / images.new_tensor(STD)[:, None, None]


def _loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    return F.cross_entropy(logits.float(), labels, label_smoothing=recipe["label_smoothing"])


def _size(recipe: Recipe, fraction: float) -> int:
    """Crops grow during training: `sizes` lists [from this share of the run, pixels]."""
    return next(int(size) for start, size in reversed(recipe["sizes"]) if fraction >= start)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
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
    """What the weights file says of the subject, its accuracy with a 95 % interval among it."""
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
        "output": [
            layer for layer, module in network.named_modules() if isinstance(module, nn.Linear)
        ][-1],
        "data": {
            "name": train.name,
            "photographs": len(train),
            "fingerprint": train.fingerprint,
            "licence": train.licence,
        },
        "begun_from": [init_from.card["sha256"]] if init_from else [],
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
