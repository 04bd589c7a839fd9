"""What in a picture matters: the smallest region that keeps a share of the activation.

Pixels are ranked by integrated gradients (Sundararajan et al. 2017) from what replaces them, or by
occlusion (Zeiler and Fergus 2014): what the activation loses where a window is replaced. The region
is then tested by deletion: the rest is replaced, and the activation is measured again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import records
from phosphene.datasets import Stream
from phosphene.errors import BadRequest
from phosphene.forms import Record, StudyTable
from phosphene.objectives import make_objective
from phosphene.parts import check_options, option
from phosphene.pictures import Made, check_code, check_trusted, check_weights
from phosphene.priors import Prior
from phosphene.runtime import Runtime
from phosphene.stimulus import grey_of
from phosphene.studies._folder import read_records
from phosphene.subjects import Subject
from phosphene.tensors import as_images, blurred, center_crop, device_of

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
WAYS = ("gradients", "occlusion")
WINDOW = 0.1
"""Side of the window that occludes, in shorter sides of the picture; windows overlap by half."""


@dataclass(frozen=True)
class Importance:
    """How a region is found: what it keeps, what replaces the rest, how smooth it is."""

    share: float = option(0.8, "Share of the activation that the region keeps.", low=0.01, high=1)
    fill: str = option("mean", "What replaces the rest: the prior's mean or grey.", choices=FILLS)
    smooth: float = option(0.15, "Widest blur of the ranks, in sides.", low=0, high=0.2)
    by: str = option("gradients", "What ranks the pixels: gradients or occlusion.", choices=WAYS)

    def __post_init__(self) -> None:
        check_options(self)

    def region(self, score: Score, image: Tensor, fill: Tensor) -> Tensor:
        """Return the region (height, width) of 0 and 1 that keeps the share of the activation.

        `image` and `fill` are (channels, height, width). Pixels are ranked without blur and under
        blurs of up to `smooth`. Of the regions of highest ranks it is the smallest. For a linear
        unit no smaller region keeps as much. `BadRequest` where ranks need a gradient that is lost.
        """
        added = (_added if self.by == WAYS[0] else _occluded)(score, image, fill)
        wanted = self.share * float(score(image[None])[0])
        if not added.any() and float(score(fill[None])[0]) < wanted:
            raise BadRequest("no gradient comes to the picture, so rank its pixels by occlusion")
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
            if not sizes:  # of a picture of one pixel
                return []
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
            answers = score(between).sum()
            if not answers.requires_grad:
                break
            (gradient,) = torch.autograd.grad(answers, between)
        total += gradient.sum(0)
    return (total * (image - fill)).sum(0) / PATH


@torch.no_grad()
def _occluded(score: Score, image: Tensor, fill: Tensor) -> Tensor:
    """Return what is lost where a window is replaced, (height, width): its mean over windows."""
    height, width = image.shape[1:]
    side = max(1, round(WINDOW * min(height, width)))
    rows, columns = (_places(length, side) for length in (height, width))
    windows = torch.zeros(len(rows) * len(columns), height, width, device=image.device)
    for window, (top, left) in zip(windows, itertools.product(rows, columns), strict=True):
        window[top : top + side, left : left + side] = 1
    whole = score(image[None])[0]
    lost = torch.cat(
        [whole - score(image + some[:, None] * (fill - image)) for some in windows.split(AT_ONCE)]
    )
    return torch.einsum("n,nhw->hw", lost, windows) / windows.sum(0)


def _places(length: int, side: int) -> list[int]:
    """Return where windows of a side begin, so that they cover a length and overlap by half."""
    return sorted({*range(0, length - side, max(1, side // 2)), length - side})


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
    fills: dict[str, Fills] = {}
    for file, record in read_records(place):
        origin = Made.of(record, file)
        request = origin.request
        command = f"phosphene importance {place} --subject {request.subject}"
        check_trusted(request.subject, trusted, file, command)
        climb = request.climb
        check_code([request.prior, climb.optimizer, climb.objective], code, file, record)
        key = json.dumps([request.subject, request.prior, dict(request.prior_options)])
        if key not in known:
            known[key] = request.loaded()
            check_weights(record, *known[key], file)
            known[key][0].network.to(runtime.device)
            fills[key] = _fills(*known[key], images)
        subject, prior = known[key]
        target = origin.member.target
        with subject.reading(target.layers) as read:
            part, options = climb.completed().make("objective")
            objective = make_objective(part, [target], **options)

            def score(
                inputs: Tensor, read: Any = read, objective: Any = objective, own: Any = subject
            ) -> Tensor:
                some = inputs.split(own.at_most(AT_ONCE))
                objectives = (objective.of([0] * len(each)) for each in some)
                pairs = zip(some, objectives, strict=True)
                return torch.cat([part.scores(read(own.prepare(each))) for each, part in pairs])

            row = _row(score, file, record, how, runtime, subject, prior, fills[key])
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
    fills: Fills,
) -> dict[str, Any]:
    """Return what a picture's region keeps; nothing where the picture does not excite the unit."""
    folder = records.Folder(file.parent)
    drawn = pictures.from_pixels(folder.picture(record), prior.channels)
    image = _shown(torch.from_numpy(drawn)[None], subject, prior)[0].to(runtime.device)
    whole = float(score(image[None])[0].detach())
    if whole <= 0:
        return {}
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


Fills = dict[str, Tensor]
"""What may replace the rest of a picture, (n, channels, height, width) by name."""


@torch.no_grad()
def _fills(subject: Subject, prior: Prior, images: Path | None) -> Fills:
    """Return the prior's mean, grey, and photographs that are cut to the subject's proportions."""
    grey = torch.tensor(grey_of(subject))[None, :, None, None]
    fills = {
        "mean": _shown(prior.images(prior.mean()[None]), subject, prior),
        "grey": grey.expand(-1, -1, *subject.size),
    }
    if images is not None:
        count = len(Stream(images, "val", subject.photograph_size))
        spaced = Stream(images, "val", subject.photograph_size, max(1, count // PHOTOGRAPHS))
        read = itertools.islice(spaced.photographs(), PHOTOGRAPHS)
        some = [pixels for _, pixels, _ in read]
        spaced.damage.tell(len(some))
        if not some:
            raise BadRequest(f"{images} holds no photographs of split 'val'")
        fills["photographs"] = subject.fitted(as_images(some))
    device = device_of(subject.network)
    return {name: each.to(device) for name, each in fills.items()}


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
