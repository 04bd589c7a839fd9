"""A classifier of a few classes that learns from photographs and is then shown pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from phosphene.statistics import Figure, share
from phosphene.subjects import Subject, outer_layers
from phosphene.tensors import device_of

RIDGE, STEPS = 1e-2, 200


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Logistic regression on the mean and spread of a bystander's maps, of all layers with one."""

    bystander: Subject
    logits: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, bystander: Subject, images: Tensor, labels: Tensor) -> LinearProbe:
        """Fit a probe to images (n, 3, h, w) in [0, 1] and labels (n,) from 0 on."""
        x = summary(bystander, images)
        mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
        weight = torch.zeros(x.shape[1] + 1, int(labels.max()) + 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=STEPS, line_search_fn="strong_wolfe")

        def logits(features: Tensor) -> Tensor:
            return (features - mean) / std @ weight[:-1] + weight[-1]

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = cross_entropy(logits(x), labels) + RIDGE * weight[:-1].square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return cls(bystander, lambda features: logits(features).detach())

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        return self.logits(summary(self.bystander, images))

    def right(self, images: Tensor, labels: Tensor) -> Figure:
        """Return how often it is right."""
        hits = (self(images).argmax(1) == labels).float().tolist()
        return share(hits, note=f"{len(hits):,} photographs that it did not learn from")


def summary(network: Subject, images: Tensor) -> Tensor:
    """Mean and spread over positions of each channel of each layer with a map, (n, d)."""
    layers = [name for name, shape in outer_layers(network.shapes()).items() if len(shape) == 3]
    device, found = device_of(network.network), []
    with network.reading(layers) as read, torch.no_grad():
        for part in images.split(network.at_most(50)):
            maps = [
                each.float().flatten(2) for each in read(network.prepare(part.to(device))).values()
            ]
            found.append(
                torch.cat(
                    [torch.cat([each.mean(2), each.std(2, correction=0)], 1) for each in maps], 1
                ).cpu()
            )
    return torch.cat(found)
