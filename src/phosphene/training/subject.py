"""Training a subject: a classifier of photographs, from a recipe, resumable at any step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.datasets import Photographs
from phosphene.errors import BadRequest
from phosphene.evaluation import wilson
from phosphene.networks import build
from phosphene.training.augment import jitter_colours, mixed, random_crops
from phosphene.training.crew import Crew
from phosphene.training.run import (
    Averaged,
    Recipe,
    Report,
    RunFolder,
    Stateful,
    epoch_order,
    one_cycle,
    placed,
    recipe_hash,
    seeded,
    silent,
)

MEAN, STD = (0.47, 0.45, 0.40), (0.28, 0.27, 0.28)
"""Mean and standard deviation of mini-imagenet's pixels, by channel, on [0, 1]."""


def train_subject(
    recipe: Recipe,
    train: Photographs,
    val: Photographs,
    run: str | Path,
    *,
    crew: Crew | None = None,
    device: str = "cpu",
    time_budget: float | None = None,
    report: Report = silent,
) -> tuple[nn.Module, RunFolder, bool]:
    """Train until the recipe's end, the budget's (seconds), or a signal.

    After the main epochs comes a `cooldown` on milder crops, since photographs are tested whole (Touvron et al. 2019).
    Returns the network with averaged weights, the run (with its history), and whether the recipe's end was
    reached. The data order, crops and dropout are functions of the recipe's seed and the step, so a resumed
    run takes the same steps. A `crew` of processes shares each batch.
    """
    crew = crew or Crew()
    folder = RunFolder(Path(run), recipe_hash(recipe, train.fingerprint), crew=crew)
    torch.manual_seed(recipe["seed"])
    network = placed(build(recipe["architecture"]), device)
    optimizer = torch.optim.SGD(_groups(network, recipe["weight_decay"]), lr=0.0, momentum=0.9, nesterov=True)
    averaged = Averaged(network, recipe["ema"])
    images, labels = torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device)
    batch = recipe["batch"]
    steps_an_epoch, most = len(train) // batch, int(labels.max())
    if not steps_an_epoch:
        raise BadRequest(f"{train.name} has {len(train)} photographs for training, fewer than one batch of {batch}")
    main, cooldown = steps_an_epoch * recipe["epochs"], recipe["cooldown"]
    steps = main + steps_an_epoch * cooldown["epochs"]
    parts: dict[str, Stateful] = {"network": network, "optimizer": optimizer, "averaged": averaged}
    joined, step = crew.joined(network), -1
    for step in folder.steps(parts, steps, time_budget=time_budget):
        epoch, place = divmod(step, steps_an_epoch)
        generator = seeded(recipe["seed"], 1, step, *crew.counters)
        chosen = epoch_order(len(train), recipe["seed"], epoch)[place * batch : (place + 1) * batch]
        chosen = crew.share(chosen).to(device)
        x = images[chosen].permute(0, 3, 1, 2).float() / 255
        crop = recipe["crop"] if step < main else cooldown["crop"]
        x = random_crops(x, _size(recipe, step / main), generator, scale=tuple(crop))
        x = normalise(jitter_colours(x, recipe["jitter"], generator))
        x, other, share = mixed(x, labels[chosen], recipe["mixup"], generator)
        for group in optimizer.param_groups:
            group["lr"] = recipe["lr"] * one_cycle(step / main) if step < main else cooldown["lr"] * (1 - step / steps)
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))  # dropout's
        network.train()
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = joined(x.contiguous(memory_format=torch.channels_last))
        if most >= logits.shape[1]:
            raise BadRequest(f"{train.name} has {most + 1} classes, the recipe's architecture {logits.shape[1]}")
        loss = share * _loss(logits, labels[chosen], recipe) + (1 - share) * _loss(logits, other, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        averaged.update(network, step + 1)
        if step % 20 == 0:
            report(step + 1, steps, {"loss": loss.item()})
        if crew.leads and ((step + 1) % (steps_an_epoch * recipe["evaluate_every"]) == 0 or step + 1 == steps):
            top1, top5 = accuracy(averaged.network(build(recipe["architecture"])), val, _size(recipe, 1.0))
            folder.log(step=step + 1, epoch=epoch + 1, loss=loss.item(), top1=top1, top5=top5)
            report(step + 1, steps, {"top1": top1, "top5": top5})
    done = folder.load(parts) if crew.leads else step + 1
    return averaged.network(build(recipe["architecture"])), folder, done == steps


def accuracy(network: nn.Module, photographs: Photographs, size: int, batch: int = 250) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of a network in float32 on whole photographs at `size` pixels, as shares."""
    device = next(network.parameters()).device
    network.eval()
    hits = torch.zeros(2)
    with torch.no_grad():
        for at in range(0, len(photographs), batch):
            x = torch.from_numpy(photographs.images[at : at + batch]).permute(0, 3, 1, 2).float().to(device) / 255
            if x.shape[-2:] != (size, size):
                x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
            logits = network(normalise(x).contiguous(memory_format=torch.channels_last))
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
    return next(size for start, size in reversed(recipe["sizes"]) if fraction >= start)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def subject_card(
    name: str, recipe: Recipe, train: Photographs, val: Photographs, network: nn.Module, folder: RunFolder
) -> dict[str, Any]:
    """What the weights file says of the subject, its accuracy with a 95 % interval among it."""
    size = _size(recipe, 1.0)
    top1, top5 = accuracy(network, val, size)
    return {
        "name": name,
        "kind": "subject",
        "architecture": recipe["architecture"],
        "recipe": recipe,
        "preprocessing": {"size": [size, size], "mean": MEAN, "std": STD},
        "classes": list(train.classes),
        "output": [layer for layer, module in network.named_modules() if isinstance(module, nn.Linear)][-1],
        "data": {
            "name": train.name,
            "photographs": len(train),
            "fingerprint": train.fingerprint,
            "licence": train.licence,
        },
        "measured": {"top1": top1, "top5": top5, "photographs": len(val), "top1_interval": wilson(top1, len(val))},
        "history": folder.history,
    }
