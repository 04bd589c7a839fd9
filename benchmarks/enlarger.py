#!/usr/bin/env python3
"""Judge an enlarger: pictures of 96 pixels, doubled by it and plainly, as other networks see them.

    python benchmarks/enlarger.py ENLARGER PHOTOGRAPHS --keep FOLDER [--out FILE.json]
        [--prior objects-fc6] [--subjects NAME …] [--judges NAME …] [--every 40] [--number 500]
        [--sets small again] [--through] [--only-climb]
        [--direct FILE] [--autoencoder FOLDER]

ENLARGER is a weights file, PHOTOGRAPHS a folder with photographs of 192 pixels and more, of the
judges' classes, that had no part in its training. Judged are

* preferred inputs of every so many output units of the subjects, climbed once through the prior and
  kept in FOLDER; with --through also climbed through prior and enlarger, which costs a climb more;
* with --direct, climbed through a generator of twice the pixels; with --autoencoder, the small
  picture enlarged, encoded and decoded by TAESD of 🤗 diffusers, whose files are in FOLDER, and
  climbed on from there in its latents, in 50 steps;
* of the `--sets`, "again", the prior's reconstructions of the photographs, and "small", the
  photographs made small.

Each is enlarged bilinearly, bicubically and by the enlarger. Told are the share that each judge
names, first and among five, the kernel distance (KID) of its features from those of the
photographs, how much of a photograph's finest detail there is (mean squared Laplacian over that of
the photographs), and, of the climbs, the activation of the unit itself, which sees the central
part, beside the one that the small picture has. Of photographs also the perceptual distance to the
whole one. Writes JSON and contact sheets, and prints a table for each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene import datasets, weights
from phosphene.code_statistics import CodeStatistics
from phosphene.errors import BadRequest
from phosphene.files import write_json
from phosphene.images import contact_sheet, to_pixels, write_png
from phosphene.metrics import features, judge_channels, recognised
from phosphene.networks import build
from phosphene.networks.enlarger import EnlargedGenerator, Enlarger, enlarged
from phosphene.priors import Generated, Prior, load_generated
from phosphene.statistics import Figure, mean, share
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import CLIMBS, Member, climb_all, climb_batch, joined, settings
from phosphene.tensors import as_images, center_crop, resized

BATCH = 25
SHOWN = 24
ON = 50
"""Steps that a picture is climbed on."""
SETS = ("small", "again")

Way = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Seen:
    """What judges see in photographs: features by judge, and the mean squared Laplacian."""

    pooled: dict[str, Tensor]
    vectors: dict[str, Tensor]
    detail: float


def main() -> None:
    """Climb what is not kept yet, enlarge, judge, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("enlarger", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--prior", default="objects-fc6")
    parser.add_argument("--subjects", nargs="*", default=["efficientnet-lite0", "caffenet-objects"])
    parser.add_argument("--judges", nargs="*", default=["efficientnet-lite2", "resnet18-objects"])
    parser.add_argument("--sets", nargs="*", choices=SETS, default=SETS)
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--through", action="store_true")
    parser.add_argument("--direct", type=Path)
    parser.add_argument("--autoencoder", type=Path)
    parser.add_argument(
        "--only-climb", action="store_true", help="climb through the prior, keep it, and stop"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prior = load_generated(options.prior)
    subjects = [load_subject(name) for name in options.subjects]
    climbs = {s.name: kept_climb(s, prior, options.every, options.keep, "plain") for s in subjects}
    if options.only_climb:
        return
    enlarger = load_enlarger(options.enlarger)
    ways: dict[str, Way] = {"bilinear": linear, "bicubic": bicubic, "enlarged": drawn(enlarger)}
    judges = [load_subject(name) for name in options.judges]
    data = datasets.load(options.photographs, "all", size=2 * prior.image_size)
    chosen = torch.arange(0, len(data), max(1, len(data) // options.number))[: options.number]
    photographs, labels = (
        as_images(data.images[chosen.numpy()]),
        torch.from_numpy(data.labels)[chosen],
    )
    seen = look(judges, photographs)
    found: dict[str, Any] = {
        "enlarger": weights.read(options.enlarger).sha256,
        "prior": prior.card["sha256"],
        "photographs": tell(
            "photographs", judges, {"as they are": photographs}, labels, data.classes, seen
        ),
    }
    small = resized(photographs, (prior.image_size, prior.image_size))
    if "small" in options.sets:
        made = {way: enlarge(small) for way, enlarge in ways.items()}
        name = "photographs made small"
        found[name] = tell(name, judges, made, labels, data.classes, seen, photographs)
        show(options.keep / "small.png", {"photograph": photographs, **made})
    if "again" in options.sets:
        with prior.encoding("cpu") as encoded, torch.no_grad():
            again = torch.cat([prior.images(encoded(part)) for part in small.split(BATCH)])
        made = {way: enlarge(again) for way, enlarge in ways.items()}
        found["reconstructions"] = tell("reconstructions", judges, made, labels, data.classes, seen)
        show(options.keep / "again.png", {"photograph": photographs, **made})
    for subject in subjects:
        images, units = climbs[subject.name]
        made = {way: enlarge(images) for way, enlarge in ways.items()}
        if options.through:
            both = EnlargedGenerator(prior.generator, enlarger)
            double = Generated(both, prior.statistics, prior.encoder, prior.layer)
            through, _ = kept_climb(
                subject, double, options.every, options.keep, f"through-{options.enlarger.stem}"
            )
            made["climbed through it"] = through
        if options.direct:
            larger = load_generated(options.direct)
            made[f"through {options.direct.stem}"], _ = kept_climb(
                subject, larger, options.every, options.keep, options.direct.stem
            )
        if options.autoencoder:
            tiny = Taesd(options.autoencoder, prior)
            start = bicubic(images)
            made["TAESD"] = torch.cat([tiny.images(tiny.encoded(part)) for part in start.split(5)])
            made["climbed on in TAESD"] = climbed_on(subject, tiny, start, units, options.keep)
        others = [judge for judge in judges if judge.name != subject.name]
        found[f"climbs of {subject.name}"] = tell(
            f"climbs of {subject.name}", others, made, units, subject.classes, seen
        ) | {"activation": activations(subject, images, made, units, prior)}
        show(options.keep / f"climbs-{plain(subject.name)}.png", made)
    if options.out:
        write_json(options.out, found)


class Taesd(Prior):
    """Write pictures of twice a generator's pixels as latents of a tiny autoencoder."""

    def __init__(self, folder: Path, prior: Generated):
        from diffusers import AutoencoderTiny

        self.network = AutoencoderTiny.from_pretrained(folder).eval().requires_grad_(False)
        height, width = self.size = (2 * prior.size[0], 2 * prior.size[1])
        self.shown = (2 * prior.view_size[0], 2 * prior.view_size[1])
        self.statistics = CodeStatistics.standard(4, height // 8, width // 8)

    @property
    def view_size(self) -> tuple[int, int]:
        """Return the part that the generator's subjects are shown, doubled."""
        return self.shown

    def images(self, codes: Tensor) -> Tensor:
        """Decode latents (n, 4, h, w)."""
        return (self.network.decode(codes).sample / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encoded(self, images: Tensor) -> Tensor:
        """Encode pictures (n, 3, 8h, 8w)."""
        return self.network.encode(2 * images - 1).latents

    def encode(self, image: Tensor) -> Tensor:
        """Encode one picture, without a batch axis."""
        return self.encoded(image[None])[0]


def climbed_on(subject: Subject, tiny: Taesd, start: Tensor, units: Tensor, folder: Path) -> Tensor:
    """Climb each unit in latents, from its own picture, without a pull to the mean; kept."""
    from safetensors.torch import load_file, save_file

    file = folder / f"{plain(subject.name)}-taesd.safetensors"
    if not file.exists():
        climb = settings("default", tiny, steps=ON, decay=1.0)
        found = []
        for unit, picture in zip(units.tolist(), start, strict=True):
            member = Member(subject.targets(f"{subject.output}:{unit}")[0], 0)
            result = climb_batch(
                subject, [member], tiny, climb, start=picture, precision="bfloat16"
            )
            found.append(result.images)
        save_file({"images": torch.cat(found).contiguous()}, file)
    return load_file(file)["images"]


def load_enlarger(file: Path) -> Enlarger:
    """Load the enlarger that a weights file holds."""
    checked = weights.read(file, "enlarger")
    with torch.device("meta"):
        network = build(checked.card["architecture"])
    return cast("Enlarger", weights.fill(network, checked.part("network"), file.name))


def linear(images: Tensor) -> Tensor:
    """Double the pixels each way, bilinearly."""
    return resized(images, (2 * images.shape[-2], 2 * images.shape[-1]))


def bicubic(images: Tensor) -> Tensor:
    """Double the pixels each way, bicubically, held to [0, 1]."""
    return enlarged(images).clamp(0, 1)


def drawn(enlarger: Enlarger) -> Way:
    """Make a way of enlarging of the enlarger: some images at a time, without gradients."""

    @torch.no_grad()
    def enlarge(images: Tensor) -> Tensor:
        return torch.cat([enlarger(part) for part in images.split(BATCH)])

    return enlarge


def plain(name: str) -> str:
    """Make a subject's name fit to be part of a file's."""
    return name.replace(":", "-").replace("/", "-")


def kept_climb(
    subject: Subject, prior: Generated, every: int, folder: Path, what: str
) -> tuple[Tensor, Tensor]:
    """Climb every so many output units, first seed: (n, 3, size, size), and the channels."""
    from safetensors.torch import load_file, save_file

    file = folder / f"{plain(subject.name)}-{every}-{what}.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        units = torch.arange(0, len(subject.classes), every)
        members = [Member(subject.targets(f"{subject.output}:{i}")[0], 0) for i in units.tolist()]
        climbed = joined(
            list(
                climb_all(subject, members, prior, CLIMBS["default"], precision="bfloat16", batch=8)
            )
        )
        save_file({"images": climbed.images.contiguous(), "units": units}, file)
    kept = load_file(file)
    return kept["images"], kept["units"]


def look(judges: list[Subject], photographs: Tensor) -> Seen:
    """Show photographs (n, 3, h, w) to the judges."""
    found = {judge.name: features(judge, photographs) for judge in judges}
    pooled = {name: both[1] for name, both in found.items()}
    return Seen(pooled, {name: both[0] for name, both in found.items()}, detail(photographs))


def detail(images: Tensor) -> float:
    """Measure the mean squared Laplacian of images (n, 3, h, w)."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).expand(3, 1, 3, 3)
    return float(F.conv2d(images, kernel, groups=3).square().mean())


def tell(
    what: str,
    judges: list[Subject],
    made: dict[str, Tensor],
    labels: Tensor,
    classes: tuple[str, ...],
    seen: Seen,
    whole: Tensor | None = None,
) -> dict[str, Any]:
    """Print a table of pictures by the way that they were made, and return its figures.

    `whole` are the pictures that they should be.
    """
    found: dict[str, Any] = {}
    print(f"\n{what}, {len(labels)}\n")
    heads = [f"{judge.name}: first, among five, KID" for judge in judges]
    print(f"| way | detail | {' | '.join(heads)} |" + (" distance |" if whole is not None else ""))
    print("| --- " * (2 + len(judges) + (whole is not None)) + "|")
    for way, images in made.items():
        row: dict[str, Any] = {"detail": detail(images) / seen.detail}
        cells = [f"{row['detail']:.2f}"]
        distances = []
        for judge in judges:
            told = judged(judge, images, labels, classes, seen.pooled[judge.name])
            row[judge.name] = {name: asdict(figure) for name, figure in told.items()}
            named = [
                f"{told[name].value:.1%}" if name in told else "–" for name in ("first", "five")
            ]
            cells.append(", ".join([*named, f"{told['kid'].value:.4f}"]))
            if whole is not None:
                apart = (features(judge, images)[0] - seen.vectors[judge.name]).square().sum(1)
                row[judge.name]["distance"] = asdict(mean(apart.tolist()))
                distances.append(f"{apart.mean():.3f}")
        if whole is not None:
            cells.append(", ".join(distances))
        found[way] = row
        print(f"| {way} | {' | '.join(cells)} |", flush=True)
    return found


def judged(
    judge: Subject, images: Tensor, labels: Tensor, classes: tuple[str, ...], natural: Tensor
) -> dict[str, Figure]:
    """Measure what a judge names, where it knows the classes, and how far its features are."""
    told = {"kid": kernel_distance(features(judge, images)[1], natural)}
    try:
        channels = judge_channels(judge, classes)
    except BadRequest:  # it does not know all of the classes
        return told
    right = recognised(judge, images, labels, channels)
    return told | {"first": share(right[:, 0].tolist()), "five": share(right[:, 1].tolist())}


def kernel_distance(one: Tensor, other: Tensor) -> Figure:
    """Measure the unbiased KID (Bińkowski et al. 2018) of features (n, d) and (m, d), all at once.

    The interval is that of a jackknife over the n.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x.double() @ y.double().T / x.shape[1] + 1) ** 3

    own, between, theirs = (
        kernel(one, one).fill_diagonal_(0),
        kernel(one, other),
        kernel(other, other),
    )
    n, m = between.shape
    constant = float(theirs.fill_diagonal_(0).sum()) / (m * (m - 1))
    value = float(own.sum()) / (n * (n - 1)) - 2 * float(between.mean()) + constant
    rows, crossed = own.sum(1), between.sum(1)
    without = (own.sum() - 2 * rows) / ((n - 1) * (n - 2)) - 2 * (between.sum() - crossed) / (
        m * (n - 1)
    )
    spread = float(((n - 1) / n * (without - without.mean()).square().sum()).sqrt())
    return Figure(value, value - 1.96 * spread, value + 1.96 * spread, n)


@torch.no_grad()
def activations(
    subject: Subject, small: Tensor, made: dict[str, Tensor], units: Tensor, prior: Generated
) -> dict[str, Any]:
    """Measure the mean activation of units by their pictures, of which they see the middle."""
    part = prior.view_size[0] / prior.image_size
    told = {}
    for way, images in {"small": small, **made}.items():
        middle = center_crop(images, round(part * images.shape[-1]))
        scores = torch.cat([subject(piece) for piece in middle.split(BATCH)]).gather(
            1, units[:, None]
        )[:, 0]
        told[way] = asdict(mean(scores.tolist()))
    print(
        "activation: " + ", ".join(f"{way} {figure['value']:.2f}" for way, figure in told.items())
    )
    return told


def show(file: Path, made: dict[str, Tensor]) -> None:
    """Write a sheet: some pictures, the ways one below the other."""
    n = min(SHOWN, len(next(iter(made.values()))))
    for at in range(0, n, 8):
        rows = [(way, images[at : at + 8]) for way, images in made.items()]
        labels = [way if i == 0 else "" for way, images in rows for i in range(len(images))]
        pictures = [to_pixels(image) for _, images in rows for image in images.numpy()]
        write_png(
            file.with_stem(f"{file.stem}-{at // 8}"),
            contact_sheet(pictures, labels, len(rows[0][1])),
        )


main()
