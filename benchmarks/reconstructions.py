#!/usr/bin/env python3
"""What survives of a photograph: held-out photographs encoded and generated again, and what two networks see in them.

    python benchmarks/reconstructions.py PHOTOGRAPHS [--prior objects-fc6] [--number 1000] [--judges NAME …]

Prints the mean absolute error of the image on [0, 1], the squared error of the code after another pass through the
encoder (in standard deviations), the cosine of the two codes, and the share of photographs, and of reconstructions,
whose class the encoder's own network and the judges name. EfficientNet-Lite2 is of a kind with the comparator of the
bundled recipe; resnet18-objects has no part in it.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F

from phosphene import datasets
from phosphene.evaluation import judge_channels, recognised
from phosphene.parameterizations import load_generated, seen_part
from phosphene.probe import probe
from phosphene.subjects import load_subject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs")
    parser.add_argument("--prior", default="objects-fc6")
    parser.add_argument("--judges", nargs="*", default=["efficientnet-lite2", "resnet18-objects"])
    parser.add_argument("--number", type=int, default=1000)
    options = parser.parse_args()
    generated = load_generated(options.prior)
    encoder = load_subject(generated.encoder)
    val = datasets.load(options.photographs, "val")
    chosen = torch.arange(0, len(val), max(1, len(val) // options.number))[: options.number]
    labels = torch.from_numpy(val.labels)[chosen]
    photographs, again, codes, recoded, logits = [], [], [], [], []
    with torch.no_grad(), probe(encoder.network, [generated.layer, encoder.output]) as read:
        for part in chosen.split(100):
            x = torch.from_numpy(val.images[part.numpy()]).permute(0, 3, 1, 2).float() / 255
            x = F.interpolate(x, generated.image_size, mode="bilinear", align_corners=False)
            first = read(encoder.prepare(seen_part(x, generated.seen)))
            y = generated.images(first[generated.layer])
            second = read(encoder.prepare(seen_part(y, generated.seen)))
            photographs.append(x)
            again.append(y)
            codes.append(first[generated.layer])
            recoded.append(second[generated.layer])
            logits.append(torch.stack([first[encoder.output], second[encoder.output]]))
    x, y, named = torch.cat(photographs), torch.cat(again), torch.cat(logits, 1).argmax(2)
    shift = ((torch.cat(recoded) - torch.cat(codes)) / generated.statistics.std.clamp(min=1e-3)).square().mean()
    cosine = F.cosine_similarity(torch.cat(recoded), torch.cat(codes)).mean()
    image = (y - x).abs().mean()
    print(f"{len(chosen)} photographs; image error {image:.3f}; code error {shift:.3f}, cosine {cosine:.3f}")
    print("| named by | photographs top-1 | top-5 | reconstructions top-1 | top-5 |")
    print("| --- | --- | --- | --- | --- |")
    own = [f"{(row == labels).float().mean():.1%} | –" for row in named]
    print(f"| {encoder.name} | {own[0]} | {own[1]} |")
    for name in options.judges:
        judge = load_subject(name)
        channels = judge_channels(judge, encoder.classes)
        seen = [recognised(judge, images, labels, channels).mean(0).tolist() for images in (x, y)]
        print(f"| {name} | " + " | ".join(f"{top1:.1%} | {top5:.1%}" for top1, top5 in seen) + " |")


main()
