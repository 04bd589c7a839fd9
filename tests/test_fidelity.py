"""A generator that loses nothing measures as one, and one that copies is found out."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CI_SAMPLE, Run
from PIL import Image
from torch import Tensor, nn

from phosphene.metrics import nearest
from phosphene.priors import Generated
from phosphene.studies.generator import reconstructed
from phosphene.subjects import Subject
from phosphene.testing import statistics_of, write_generator

SIDE = 8


class Unflattened(nn.Module):
    """The exact inverse of a flattening, with a share of the picture left out."""

    def __init__(self, lost: float):
        super().__init__()
        self.image_size = self.view_size = SIDE
        self.code_shape, self.lost = (3 * SIDE * SIDE,), lost

    def forward(self, codes: Tensor) -> Tensor:
        return (1 - self.lost) * codes.view(-1, 3, SIDE, SIDE)


def measured(lost: float) -> dict[str, Tensor]:
    torch.manual_seed(0)
    photographs = torch.rand(70, 3, SIDE, SIDE)
    network = nn.Sequential(OrderedDict(code=nn.Flatten(), fc=nn.Linear(3 * SIDE * SIDE, 10)))
    encoder = Subject("flat", network.eval(), (SIDE, SIDE), (0.0,) * 3, (1.0,) * 3, output="fc")
    with torch.no_grad():
        labels = encoder(photographs).argmax(1)
    generated = Generated(Unflattened(lost), statistics_of(photographs.flatten(1)), "flat", "code")
    return reconstructed(generated, encoder, photographs, labels, batch=33).figures


def test_a_generator_that_loses_nothing() -> None:
    found = measured(0)
    assert found["image_error"].eq(0).all()
    assert found["code_error"].eq(0).all()
    assert found["class_kept"].eq(1).all()
    torch.testing.assert_close(found["code_cosine"], torch.ones(70))


def test_errors_grow_with_what_is_lost() -> None:
    some, more = measured(0.1), measured(0.5)
    torch.testing.assert_close(5 * some["image_error"], more["image_error"])
    torch.testing.assert_close(25 * some["code_error"], more["code_error"])
    torch.testing.assert_close(more["code_cosine"], torch.ones(70))


def test_what_is_copied_is_at_no_distance() -> None:
    references = torch.rand(20, 6)
    assert max(nearest(3 * references[:5], references)) == pytest.approx(0, abs=1e-6)
    assert min(nearest(-references[:5], references)) > 1


def test_photographs_without_classes_are_compared_and_not_named(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    """One file's name is in Latin-1, and one is damaged."""
    for split in ("train", "val"):
        for n in range(14):
            file = tmp_path / "photos" / split / os.fsdecode(b"photo\xe9%d.png" % n)
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(n).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).save(file, "PNG")
    file.write_bytes(b"damaged")
    judge = ("--judge", zoo / "subject.safetensors", "--images", tmp_path / "photos")
    said = phosphene("evaluate", zoo / "generator.safetensors", *judge, "--device", "cpu", "--json")
    figures = said.json()["figures"]
    assert "1 of 14 photographs cannot be read" in said.err
    assert figures["image_error"]["n"] == 13
    assert not {name for name in figures if "top" in name or name == "class_kept"}


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_by_command(phosphene: Run, zoo: Path, tmp_path: Path) -> None:
    words = (
        "evaluate",
        zoo / "generator.safetensors",
        "--judge",
        zoo / "subject.safetensors",
        "--device",
        "cpu",
    )
    found = phosphene(*words, "--images", CI_SAMPLE, "--photographs", 30, "--json").json()
    figures = found["figures"]
    assert found["layer"] == "fc6"
    assert figures["image_error"]["n"] == 30
    assert figures["nearest_random_codes"]["n"] == 200
    assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in figures.values())
    assert (
        "nearest_photographs"
        in phosphene(*words, "--images", CI_SAMPLE, "--photographs", 30).fine()
    )
    lite = phosphene(
        *words[:3], "efficientnet-lite0:64", "--images", CI_SAMPLE, "--photographs", 30, "--json"
    ).json()
    named = {f"{who}_top{n}" for who in ("recognised", "natural") for n in (1, 5)}
    assert lite["figures"].keys() - figures.keys() == named, (
        "a judge that knows the photographs' classes names them"
    )
    assert lite["figures"]["recognised_top5"]["n"] == 30
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert not {name for name in lite["figures"] if f"`{name}`" not in page}
    assert "measured on photographs" in phosphene(*words).refused()
    assert (
        "no weights" in phosphene("evaluate", tmp_path / "nowhere", "--images", CI_SAMPLE).refused()
    )
    alone = write_generator(tmp_path / "alone.safetensors")
    assert (
        "does not say which encoder"
        in phosphene("evaluate", alone, "--images", CI_SAMPLE).refused()
    )
