#!/usr/bin/env python3
"""Measure what survives of photographs that are encoded and generated again.

    python benchmarks/reconstructions.py PHOTOGRAPHS [--prior objects-fc6] [--number 1000]
        [--split val] [--judges NAME …] [--beside]

The photographs are held out unless you ask otherwise. Printed are the mean absolute error of the
image on [0, 1], the squared error of the code after another pass through the encoder (in standard
deviations), and the cosine of the two codes. The share whose class the encoder's own network and
the judges name is printed for photographs and for reconstructions. EfficientNet-Lite2 is of a kind
with the comparator of the bundled recipe; resnet18-objects has no part in it.

With `--beside`, it also prints how near others come:

* the photograph in its mirror, and with half the pixels each way;
* the training photograph (of every second one) with the nearest code, by the cosine;
* the mean of photograph and reconstruction;
* the generator, where each code was moved by half of what its image's code lacks, and where it was
  moved for 50 steps of Adam until its image gives the wanted code.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from phosphene import datasets
from phosphene.metrics import judge_channels, recognised
from phosphene.priors import load_generated
from phosphene.probe import probe
from phosphene.subjects import load_subject
from phosphene.tensors import as_images, center_crop, resized


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs")
    parser.add_argument("--prior", default="objects-fc6")
    parser.add_argument("--judges", nargs="*", default=["efficientnet-lite2", "resnet18-objects"])
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--split", choices=("train", "val"), default="val")
    parser.add_argument("--beside", action="store_true")
    options = parser.parse_args()
    generated = load_generated(options.prior)
    encoder = load_subject(generated.encoder)
    data = datasets.load(options.photographs, options.split)
    chosen = torch.arange(0, len(data), max(1, len(data) // options.number))[: options.number]
    labels = torch.from_numpy(data.labels)[chosen]
    judges = [load_subject(name) for name in options.judges]

    with probe(encoder.network, [generated.layer, encoder.output]) as read:

        def seen(images: Tensor) -> tuple[Tensor, Tensor]:
            """The codes and the logits of images."""
            maps = [
                read(encoder.prepare(center_crop(part, generated.view_size)))
                for part in images.split(100)
            ]
            return torch.cat([m[generated.layer] for m in maps]), torch.cat(
                [m[encoder.output] for m in maps]
            )

        @torch.no_grad()
        def drawn(codes: Tensor) -> Tensor:
            return torch.cat([generated.images(part) for part in codes.split(100)])

        def tell(images: Tensor, what: str) -> None:
            with torch.no_grad():
                again, logits = seen(images)
            shift = ((again - codes) / std).square().mean()
            cosine = F.cosine_similarity(again, codes).mean()
            row = [f"{(images - x).abs().mean():.3f}", f"{shift:.3f}, {cosine:.3f}"]
            row.append(f"{(logits.argmax(1) == labels).float().mean():.1%}")
            for judge in judges:
                named = (
                    recognised(judge, images, labels, judge_channels(judge, encoder.classes))
                    .mean(0)
                    .tolist()
                )
                row.append(", ".join(f"{share:.1%}" for share in named))
            print(f"| {what} | " + " | ".join(row) + " |", flush=True)

        std = generated.statistics.std.clamp(min=1e-3)
        with torch.no_grad():
            x = sized(data, chosen, generated.image_size)
            codes, _ = seen(x)
            y = drawn(codes)
        print(
            "| what | image error | code error, cosine | "
            + " | ".join([encoder.name, *options.judges])
            + " |"
        )
        print("| --- " * (4 + len(judges)) + "|")
        tell(x, "photographs")
        tell(y, "reconstructions")
        if not options.beside:
            return
        tell(x.flip(3), "photographs in the mirror")
        side = x.shape[-1]
        halved = resized(resized(x, (side // 2, side // 2)), (side, side))
        tell(halved, "photographs with half the pixels each way")
        train = datasets.load(options.photographs, "train")
        some = torch.arange(0, len(train), 2)
        with torch.no_grad():
            known = torch.cat(
                [seen(sized(train, part, generated.image_size))[0] for part in some.split(100)]
            )
        nearest = (F.normalize(codes) @ F.normalize(known).T).argmax(1)
        tell(
            sized(train, some[nearest], generated.image_size),
            "the training photograph of the nearest code",
        )
        tell((x + y) / 2, "half photograph, half reconstruction")
        with torch.no_grad():
            corrected = torch.maximum(codes + (codes - seen(y)[0]) / 2, codes.amin(0))
        tell(drawn(corrected), "reconstructions of codes corrected once")
        moved = []
        for wanted in codes.split(100):
            moving = wanted.clone().requires_grad_()
            adam = torch.optim.Adam([moving], lr=0.05)
            for _ in range(50):
                away = ((seen(generated.images(moving))[0] - wanted) / std).square().mean(1).sum()
                adam.zero_grad()
                away.backward()
                adam.step()
            moved.append(generated.images(moving.detach()))
        tell(torch.cat(moved), "reconstructions of codes moved 50 steps")


def sized(photographs: datasets.Photographs, chosen: Tensor, size: int) -> Tensor:
    """The chosen photographs in [0, 1], (n, 3, size, size)."""
    return resized(as_images(photographs.images[chosen.numpy()]), (size, size))


main()
