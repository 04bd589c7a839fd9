"""What a prior is: codes to images, and where a climb begins."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from phosphene.code_statistics import CodeStatistics
from phosphene.errors import BadRequest
from phosphene.networks.inspection import sha256_of_weights

PLAIN = (bool, int, float, str, tuple)
P = TypeVar("P", bound="Prior")
Encode = Callable[[Tensor], Tensor]
"""From images (n, channels, height, width) in [0, 1] to their codes (n, …)."""


class Prior(ABC):
    """Make images of codes: (batch, …) to (batch, channels, height, width) in [0, 1].

    Images are RGB, unless `channels` says otherwise. A subclass sets `size`, which is (height,
    width), and either `statistics` or its own `start` and `mean`. The subject is shown the central
    `view_size` of an image, which is all of it unless set. Start codes are drawn on the CPU and
    then moved, so one seed means one start on every machine, alone or in a batch. `name` is what
    finds the prior again, and `climb` names the settings that suit it (see `phosphene.CLIMBS`).
    """

    size: tuple[int, int]
    channels: int = 3
    name: str = ""
    climb: str = "default"
    statistics: CodeStatistics | None = None

    def __str__(self) -> str:
        """Return what a record calls a prior without a name."""
        return type(self).__name__

    @abstractmethod
    def images(self, codes: Tensor) -> Tensor:
        """Return the images of a batch of codes."""

    @property
    def identity(self) -> str:
        """Return a hash of the prior's networks, its plain attributes and two of its images.

        Four digits of an image's means do not depend on the machine.
        """
        networks = [each for each in vars(self).values() if isinstance(each, nn.Module)]
        plain = {key: each for key, each in vars(self).items() if isinstance(each, PLAIN)}
        with torch.no_grad():
            images = self.images(torch.stack([self.start(0), self.mean()])).double()
        means = [f"{each:.3e}" for each in images.flatten(2).mean(2).flatten().tolist()]
        content = f"{sha256_of_weights(nn.ModuleList(networks))} {sorted(plain.items())} {means}"
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def view_size(self) -> tuple[int, int]:
        """Return the height and width of the central part that the subject is shown."""
        return self.size

    def start(self, seed: int) -> Tensor:
        """Return the code, without a batch axis, at which the climb with this seed begins."""
        return self._known().drawn(seed)

    def mean(self) -> Tensor:
        """Return the code, without a batch axis, of the most ordinary start."""
        return self._known().mean.clone()

    def encode(self, image: Tensor) -> Tensor:
        """Return the code, without a batch axis, of an image (channels, height, width)."""
        raise BadRequest("this prior has no encoder, so an image has no code in it")

    @contextmanager
    def encoding(self, device: str | torch.device, trusted: str = "") -> Iterator[Encode]:
        """Lend a function from images to their codes.

        `trusted` is the one name of an encoder whose code may run.
        """
        yield lambda images: torch.stack([self.encode(image) for image in images])

    def above_zero(self: P) -> P:
        """Return the same with no code below 0, as version 0.1.0 climbed in every generator."""
        if self.statistics is None:
            return self
        same = copy.copy(self)
        same.statistics = self.statistics.above_zero()
        return same

    def to(self: P, device: str | torch.device) -> P:
        """Return the same prior with its networks, tensors and statistics on another device."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor | nn.Module | CodeStatistics):
                setattr(moved, name, value.to(device))
        return moved

    def _known(self) -> CodeStatistics:
        if self.statistics is None:
            raise NotImplementedError(f"{type(self).__name__} sets no statistics and has no start")
        return self.statistics
