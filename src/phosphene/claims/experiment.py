"""What every experiment works with: networks, photographs, judges, and a folder of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import records
from phosphene.datasets import Photographs, Stream, load, renumbered
from phosphene.errors import BadRequest
from phosphene.forms import Evaluation
from phosphene.images import contact_sheet, read_png, to_pixels, write_webp
from phosphene.metrics import features, judge_channels, recognised
from phosphene.pictures import Request, climb_into, start_request
from phosphene.priors import load_prior
from phosphene.runtime import Runtime
from phosphene.studies.compare import evaluate
from phosphene.studies.exemplars import find_exemplars
from phosphene.subjects import Subject, load_subject, outer_layers
from phosphene.synthesis import Member, settings
from phosphene.tensors import as_images, resized
from phosphene.texts import slug

TENTH = 10
"""A quick run takes one unit, and one photograph, in so many."""
ENOUGH = 1000
"""Photographs that stand for a split."""
SPLITS = {"objects": "val", "scenes": "val", "outlined": "all", "textures": "all"}
"""A split of each of a experiment's sets of photographs, by which it is known."""
SHOWN = 12
"""Units in a row of pictures."""


@dataclass(frozen=True, eq=False)
class Shots:
    """Finished pictures of a folder, in the order of their members.

    `images` (n, 3, size, size) in [0, 1], `scores` (n,), `channels` (n,) of the first unit of each
    target, `seeds` (n,).
    """

    folder: Path
    subject: str
    images: Tensor
    scores: list[float]
    channels: list[int]
    seeds: list[int]

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Experiment:
    """Subjects are loaded once; a picture that was climbed once is never climbed again.

    `objects` and `scenes` are folders of photographs (see `phosphene.datasets`), `subject` and
    `judges` names of networks. With `quick` a tenth of units and photographs is taken, and half of
    the settings that are tried. The runtime's seed decides which units and photographs are drawn,
    and where climbs begin.
    """

    runtime: Runtime
    objects: str = ""
    scenes: str = ""
    outlined: str = ""
    textures: str = ""
    subject: str = "caffenet-objects"
    judges: tuple[str, ...] = ("efficientnet-lite2", "resnet18-objects")
    prior: str = "objects-fc6"
    quick: bool = False
    batch: int = 32
    report: Callable[[str], None] = lambda text: None
    _subjects: dict[str, Subject] = field(default_factory=dict)
    _photographs: dict[tuple[str, str], Photographs] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """Return the folder of all results."""
        return self.runtime.folder

    @property
    def device(self) -> str:
        """Return what the networks run on."""
        return self.runtime.device

    @property
    def seed(self) -> int:
        """Return the seed of all that is drawn."""
        return self.runtime.seed

    def every(self, folder: str, split: str) -> int:
        """Return which share of photographs a quick run reads: a tenth where 1,000 are left."""
        return max(1, min(TENTH, len(Stream(folder, split, 1)) // ENOUGH)) if self.quick else 1

    @property
    def runs(self) -> Path:
        """Return the folder of pictures; each quick run and each seed has its own."""
        return self.out / "runs" / f"{'quick-' if self.quick else ''}seed-{self.seed}"

    @property
    def named(self) -> str:
        """Return the subject's output layer, whose units have classes."""
        network = self.network(self.subject)
        if not network.output or not network.classes:
            raise BadRequest(
                f"{self.subject} has no class names, so nobody can name its output units' pictures"
            )
        return network.output

    def network(self, name: str) -> Subject:
        """Return a subject by name, on the device."""
        if name not in self._subjects:
            self._subjects[name] = load_subject(name)
            self._subjects[name].network.to(self.device)
        return self._subjects[name]

    def photographs(self, folder: str, split: str) -> Photographs:
        """Return a split in memory."""
        key = (folder, split)
        if key not in self._photographs:
            self._photographs[key] = load(folder, split, cache=self.out / "cache")
        return self._photographs[key]

    def some(self, of: int, n: int, counter: int = 0) -> list[int]:
        """Draw `n` numbers below `of` without replacement, in order; a tenth in a quick run."""
        n = min(of, max(2, math.ceil(n / TENTH)) if self.quick else n)
        return sorted(np.random.default_rng((self.seed, counter)).permutation(of)[:n].tolist())

    def few(self, settings: Sequence[Any]) -> Sequence[Any]:
        """Return the settings among which something is tuned, every second one in a quick run."""
        return settings[::2] if self.quick else settings

    def drawn(
        self,
        folder: str,
        split: str,
        n: int,
        size: int,
        counter: int = 0,
        classes: Sequence[str] = (),
    ) -> tuple[Tensor, Tensor]:
        """Return photographs at random: images (n, 3, size, size) in [0, 1] and labels (n,).

        Labels are places in `classes`, where they are given, and else in those of the data.
        """
        data = self.photographs(folder, split)
        if classes:
            data = renumbered(data, classes, "the subject")
        chosen = np.array(self.some(len(data), n, counter))
        return resized(as_images(data.images[chosen]), (size, size)), torch.from_numpy(
            data.labels[chosen]
        )

    def climbed(
        self,
        name: str,
        units: Sequence[str],
        *,
        subject: str = "",
        prior: str = "",
        seeds: Sequence[int] | None = None,
        start: str = "random",
        **changes: Any,
    ) -> Shots:
        """Return pictures of units, kept in OUT/runs/…/`name`; those that are there are read.

        `changes` are those of the climb.
        """
        subject, prior = subject or self.subject, prior or self.prior
        network = self.network(subject)
        loaded = load_prior(prior, network)
        seeds = [self.seed] if seeds is None else seeds
        members = [
            Member(target, seed)
            for text in units
            for target in network.targets(text)
            for seed in seeds
        ]
        how = settings("default", loaded, **changes)
        request = Request(
            subject,
            prior,
            how,
            start_request(start),
            device=self.device,
            precision=self.runtime.precision,
            threads=self.runtime.threads,
            reading=network.reading_version(),
            fit=network.fit,
            inputs=network.inputs,
        )
        folder = records.Folder(self.runs / name)
        self.report(f"{name}: {len(members)} pictures")
        found = climb_into(folder, request, network, loaded, members, batch=self.batch)
        images = as_images([read_png(folder.path / record.image) for record in found])
        channels = [getattr(member.target.terms[0][1], "channel", -1) for member in members]
        scores = [record.score for record in found]
        seeds = [member.seed for member in members]
        return Shots(folder.path, subject, images, scores, channels, seeds)

    def named_by(
        self, judge: str, images: Tensor, labels: Sequence[int], classes: Sequence[str]
    ) -> Tensor:
        """Return (n, 2) of 0 and 1: whether the judge names the class first, and among five."""
        observer = self.network(judge)
        return recognised(
            observer, images, torch.tensor(list(labels)), judge_channels(observer, classes)
        )

    def features(self, judge: str, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the judge's perceptual vectors and pooled features (see `metrics`)."""
        return features(self.network(judge), images)

    def evaluated(self, *made: Shots, control: Shots | None = None) -> list[dict[str, Evaluation]]:
        """Return the evaluation of each folder beside object photographs, by layer.

        All folders are of one subject.
        """
        index = self.indexed(made[0].subject)
        self.report(f"{', '.join(shots.folder.name for shots in made)}: beside photographs")
        found = evaluate(
            [shots.folder for shots in made],
            self.judges[0],
            self.objects,
            control=control.folder if control else None,
            trusted=made[0].subject,
            photographs=ENOUGH // TENTH if self.quick else ENOUGH,
            every=self.every(self.objects, "val"),
            index=index,
            device=self.device,
        )
        return [{each.layer: each for each in own} for own in found]

    def indexed(self, subject: str) -> Path:
        """Return the folder with the exemplars of all channels, found once for all claims."""
        network, every = self.network(subject), self.every(self.objects, "val")
        folder = self.out / "exemplars" / f"{slug(subject)}-{every}"
        layers = [name for name, shape in outer_layers(network.shapes()).items() if shape]
        for split, name in (("train", "exemplars"), ("val", "held-out")):
            data = Stream(self.objects, split, network.photograph_size, every)
            self.report(f"{subject}: looking through {data.name}, {split}")
            find_exemplars(
                network, layers, data, folder / f"{name}.safetensors", device=self.device
            )
        return folder

    def row(self, name: str, sets: Sequence[tuple[str, Tensor]], columns: int = SHOWN) -> Path:
        """Write a sheet in OUT/pictures: a row of first pictures for each named set of images."""
        columns = min(columns, *(len(images) for _, images in sets))
        side = max(images.shape[-1] for _, images in sets)
        tiles, labels = [], []
        for label, images in sets:
            tiles += [to_pixels(image.numpy()) for image in resized(images[:columns], (side, side))]
            labels += [label] + [""] * (columns - 1)
        file = self.out / "pictures" / f"{name}.webp"
        write_webp(file, contact_sheet(tiles, labels, columns))
        return file

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return what the numbers depend on, apart from the machine and the photographs."""
        chosen = {
            name: getattr(self, name) for name in ("subject", "judges", "prior", "quick", "seed")
        }
        networks = {name: self.network(name).identity for name in (self.subject, *self.judges)}
        networks[self.prior] = load_prior(self.prior, self.network(self.subject)).identity
        return {**chosen, "judges": list(self.judges), "networks": networks}

    def fingerprints(self, names: Sequence[str]) -> dict[str, str]:
        """Return the fingerprints of some of the experiment's photographs, by name.

        `BadRequest` where they were not given.
        """
        if missing := [f"--{name} DATA" for name in names if not getattr(self, name)]:
            raise BadRequest(f"photographs are needed: {', '.join(missing)}")
        return {name: Stream(getattr(self, name), SPLITS[name], 1).fingerprint for name in names}
