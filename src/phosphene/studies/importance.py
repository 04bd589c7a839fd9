"""What in a picture matters: the smallest region that keeps a share of the activation.

Pixels are ranked by integrated gradients (Sundararajan et al. 2017) from what replaces them. The
region is then tested by deletion: the rest is replaced, and the activation is measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import records
from phosphene.datasets import load
from phosphene.errors import BadRequest
from phosphene.forms import Record, StudyTable
from phosphene.objectives import make_objective
from phosphene.parts import check_options, option
from phosphene.pictures import Request, check_code, check_trusted, check_weights
from phosphene.priors import Prior
from phosphene.runtime import Runtime
from phosphene.stimulus import grey_of
from phosphene.studies._folder import read_records
from phosphene.subjects import Subject
from phosphene.tensors import as_images, blurred, center_crop

Score = Callable[[Tensor], Tensor]
"""From a subject's inputs (batch, channels, height, width) in [0, 1] to activations (batch,)."""

PATH = 32
"""Images on the way from what replaces a picture to the picture, at which gradients are taken."""

LEVELS = 64
"""Sizes of a region that are tried before the size is found to the pixel."""

SCALES = (0.0, 0.25, 0.5, 1.0)
"""Blurs of the ranks, in shares of the widest; the smallest region of all is taken."""

AT_ONCE = 32
PHOTOGRAPHS = 20
FILLS = ("mean", "grey")


@dataclass(frozen=True)
class Importance:
    """How a region is found: what it keeps, what replaces the rest, how smooth it is."""

    share: float = option(0.8, "Share of the activation that the region keeps.", low=0.01, high=1)
    fill: str = option("mean", "What replaces the rest: the prior's mean or grey.", choices=FILLS)
    smooth: float = option(0.15, "Widest blur of the ranks, in sides.", low=0, high=0.2)

    def __post_init__(self) -> None:
        check_options(self)

    def region(self, score: Score, image: Tensor, fill: Tensor) -> Tensor:
        """Return the region (height, width) of 0 and 1 that keeps the share of the activation.

        `image` and `fill` are (channels, height, width). Pixels are ranked without blur and under
        blurs of up to `smooth`. Of the regions of highest ranks it is the smallest. For a linear
        unit no smaller region keeps as much.
        """
        added = _added(score, image, fill)
        wanted = self.share * float(score(image[None])[0])
        widths = [self.smooth * min(added.shape) * part for part in SCALES]
        regions = [
            self._smallest(score, image, fill, _ranks(added, width), wanted) for width in widths
        ]
        return min(regions, key=lambda region: float(region.sum()))

    def _smallest(
        self, score: Score, image: Tensor, fill: Tensor, ranks: Tensor, wanted: float
    ) -> Tensor:
        """Return the fewest pixels of highest rank on which the score is what is wanted."""
        order = ranks.flatten().argsort(descending=True, stable=True)
        places = order.argsort().view(ranks.shape)

        def keeps(sizes: Sequence[int]) -> list[bool]:
            masks = torch.stack([places < size for size in sizes])
            shown = fill + masks[:, None] * (image - fill)
            return [bool(each >= wanted) for each in _all(score, shown)]

        pixels = len(order)
        sizes = sorted({round(pixels ** (i / LEVELS)) for i in range(LEVELS)} | {pixels})
        first = [*keeps(sizes[:-1]), True].index(True)
        low = sizes[first - 1] if first else 0
        high = sizes[first]
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if keeps([middle])[0] else (middle, high)
        return (places < high).to(image)


def _added(score: Score, image: Tensor, fill: Tensor) -> Tensor:
    """Return what each pixel adds to the activation, (height, width): integrated gradients."""
    shares = (torch.arange(PATH, device=image.device) + 0.5) / PATH
    total = torch.zeros_like(image)
    for some in shares.split(AT_ONCE):
        between = fill + some[:, None, None, None] * (image - fill)
        between.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(between).sum(), between)
        total += gradient.sum(0)
    return (total * (image - fill)).sum(0) / PATH


def _ranks(added: Tensor, width: float) -> Tensor:
    """Return what pixels add under a blur of so many pixels.

    A pixel that no gradient reaches is never ahead of one that counts, however near it lies.
    """
    smooth = blurred(added[None, None], width)[0, 0]
    return torch.where(added == 0, smooth.min() - 1, smooth)


def importance_of(
    place: Path,
    how: Importance,
    runtime: Runtime,
    *,
    images: Path | None = None,
    trusted: str = "",
    code: Collection[str] = (),
) -> StudyTable:
    """Return what matters in the pictures of a folder, or of one record.

    Masks and pictures are written into `runtime.folder`. `images` are photographs that replace the
    rest as well. A subject or a prior that is code runs only where it is `trusted` or in `code`.
    `BadRequest` where no picture excites its unit.
    """
    rows: list[dict[str, Any]] = []
    known: dict[str, tuple[Subject, Prior]] = {}
    for file, record in read_records(place):
        request, members, number = Request.from_record(record, file)
        check_trusted(request.subject, trusted, file, f"phosphene importance {file} --subject …")
        climb = request.climb
        check_code([request.prior, climb.optimizer, climb.objective], code, file, record)
        key = json.dumps([request.subject, request.prior, dict(request.prior_options)])
        if key not in known:
            known[key] = request.loaded()
            check_weights(record, *known[key], file)
        subject, prior = known[key]
        target = members[number].target
        with subject.reading(target.layers) as read:
            part, options = climb.completed().make("objective")
            objective = make_objective(part, [target], **options)

            def score(
                inputs: Tensor, read: Any = read, objective: Any = objective, own: Any = subject
            ) -> Tensor:
                return objective.of([0] * len(inputs)).scores(read(own.prepare(inputs)))

            row = _row(score, file, record, how, runtime, subject, prior, images)
        rows += [row] if row else []
        runtime.progress(len(rows), 0, {})
    if not rows:
        raise BadRequest(f"{place} holds no picture that excites its unit")
    return _table(rows, subject, how)


def _row(
    score: Score,
    file: Path,
    record: Record,
    how: Importance,
    runtime: Runtime,
    subject: Subject,
    prior: Prior,
    images: Path | None,
) -> dict[str, Any]:
    """Return what a picture's region keeps; nothing where the picture does not excite the unit."""
    folder = records.Folder(file.parent)
    drawn = pictures.from_pixels(folder.picture(record), prior.channels)
    image = _shown(torch.from_numpy(drawn)[None], subject, prior)[0]
    whole = float(score(image[None])[0].detach())
    if whole <= 0:
        return {}
    fills = _fills(subject, prior, images)
    with torch.no_grad():
        mask = how.region(score, image, fills[how.fill][0])
        row: dict[str, Any] = {
            "unit": record.target,
            "label": record.label,
            "area": float(mask.mean()),
            "activation": whole,
        }
        for name, others in fills.items():
            kept = _all(score, others + mask * (image - others)).mean() / whole
            row[f"kept_{name}"] = float(kept)
        lost = fills[how.fill] + (1 - mask) * (image - fills[how.fill])
        row["without_region"] = float(score(lost)[0]) / whole
    stem = Path(record.image).stem
    kept_image = fills[how.fill][0] + mask * (image - fills[how.fill][0])
    names = {"whole": image, "kept": kept_image, "mask": mask.expand(3, -1, -1)}
    for name, each in names.items():
        pictures.write_png(
            runtime.folder / f"{stem}.{name}.png", pictures.to_pixels(each.cpu().numpy())
        )
    return row | {"pictures": [f"{stem}.{name}.png" for name in names]}


def _shown(images: Tensor, subject: Subject, prior: Prior) -> Tensor:
    return subject.fitted(center_crop(images, prior.view_size))


@torch.no_grad()
def _fills(subject: Subject, prior: Prior, images: Path | None) -> dict[str, Tensor]:
    """Return what may replace the rest, (n, channels, height, width) by name."""
    grey = torch.tensor(grey_of(subject))[None, :, None, None]
    fills = {
        "mean": _shown(prior.images(prior.mean()[None]), subject, prior),
        "grey": grey.expand(-1, -1, *subject.size),
    }
    if images is not None:
        photographs = load(images, "val").images
        some = photographs[:: max(1, len(photographs) // PHOTOGRAPHS)][:PHOTOGRAPHS]
        fills["photographs"] = subject.fitted(as_images(some))
    return fills


def _all(score: Score, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([score(some) for some in images.split(AT_ONCE)])


def _table(rows: list[dict[str, Any]], subject: Subject, how: Importance) -> StudyTable:
    return StudyTable(
        study="importance",
        title="What in the picture matters",
        says=f"The smallest region found that keeps {how.share:.0%} of the activation, where the "
        f"rest is replaced by {'grey' if how.fill == 'grey' else 'the mean image of the prior'}.",
        subject=subject.name,
        subject_sha256=subject.identity,
        units=rows,
    )
