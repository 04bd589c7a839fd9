"""What in a picture matters, against units of which it is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image, ImageDraw
from torch import Tensor, nn

import phosphene
from phosphene.atlas.site import build
from phosphene.errors import BadRequest
from phosphene.priors import load_prior
from phosphene.studies.importance import Importance, _fills, _occluded, _places

FILL = torch.full((1, 6, 8), 0.5)


def linear(weight: Tensor):  # type: ignore[no-untyped-def]
    """Return the score of a linear unit about grey."""
    return lambda inputs: ((inputs - FILL) * weight).flatten(1).sum(1)


@pytest.mark.parametrize("by", ["gradients", "occlusion"])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.99])
def test_of_a_linear_unit_it_is_the_fewest_pixels_that_add_the_share(share: float, by: str) -> None:
    """A window of a picture so small is one pixel."""
    weight = torch.randn(1, 6, 8)
    image = (FILL + 0.5 * torch.rand(1, 6, 8) * weight.sign()).clamp(0, 1)
    added = (weight * (image - FILL)).flatten().sort(descending=True).values
    fewest = int((added.cumsum(0) < share * added.sum()).sum()) + 1
    mask = Importance(share=share, by=by).region(linear(weight), image, FILL)
    assert int(mask.sum()) == fewest
    kept = linear(weight)((FILL + mask * (image - FILL))[None])
    assert float(kept) >= share * float(added.sum()) - 1e-5


def test_it_lies_within_the_receptive_field_of_a_unit_that_is_not_linear() -> None:
    torch.manual_seed(3)
    field = torch.zeros(1, 6, 8)
    field[:, 1:4, 2:6] = 1
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 9), nn.Softplus(), nn.Linear(9, 1))
    network.requires_grad_(False)

    def score(inputs: Tensor) -> Tensor:
        return network((inputs - FILL) * field)[:, 0] - network(torch.zeros(1, 1, 6, 8))[:, 0]

    image = torch.rand(1, 6, 8)
    signed = float(score(image[None])[0])
    upright = score if signed > 0 else lambda inputs: -score(inputs)
    for smooth in (0.0, 0.2):
        mask = Importance(smooth=smooth).region(upright, image, FILL)
        assert 0 < mask.sum() < field.sum()
        assert (mask[field[0] == 0] == 0).all()


class Corner(nn.Module):
    """A unit that sees the upper left quarter of 12 × 12 pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 1)
        self.fc.weight.data = torch.linspace(0.5, 1.5, 36)[None]
        self.fc.bias.data = torch.zeros(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images[:, :, :6, :6].flatten(1))


FACTORY = """
from test_importance import Corner

def corner():
    return Corner(), {"size": (12, 12), "channels": 1, "mean": 0.5, "std": 0.25}
"""


def test_the_command_writes_masks_and_the_atlas_has_a_switch(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    Path("corner_factory.py").write_text(FACTORY)
    name = "python:corner_factory:corner"
    climb = ("--prior", "pixels", "--steps", 60, "--precision", "float32", "--device", "cpu")
    phosphene("synthesize", name, "fc:0", *climb, "--out", "run").fine()
    said = phosphene("importance", "run", "--out", "important").refused()
    assert "is code" in said
    assert said.endswith(f"--subject {name}")
    write_photographs(tmp_path / "photos")
    options = ("--subject", name, "--fill", "grey", "--images", "photos", "--device", "cpu")
    phosphene("importance", "run", "--out", "important", *options).fine()
    (row,) = json.loads(Path("important/importance.json").read_text())["units"]
    mask = np.asarray(Image.open(f"important/{row['pictures'][2]}").convert("L")) > 0
    assert mask.shape == (12, 12)
    assert row["area"] == pytest.approx(mask.mean())
    assert not mask[6:].any()
    assert not mask[:, 6:].any()
    assert 0.8 <= row["kept_grey"] < 0.9
    assert row["kept_grey"] + row["without_region"] == pytest.approx(1, abs=1e-3), "it is linear"
    assert row["kept_photographs"] != row["kept_grey"]
    build([Path("run"), Path("important")], Path("site"))
    (page,) = Path("site").glob("*/fc/0.html")
    assert "Show the region alone" in page.read_text()


@pytest.mark.parametrize("side", [4, 7])
def test_windows_cover_every_pixel_and_tell_what_they_hide(side: int) -> None:
    """A unit that adds up one block loses all of it under a window that hides the block."""
    weight = torch.zeros(1, 10 * side, 20 * side)
    weight[:, 3 * side : 4 * side, 15 * side : 16 * side] = 1
    image = torch.ones_like(weight)
    score = lambda inputs: (inputs * weight).flatten(1).sum(1)  # noqa: E731
    lost = _occluded(score, image, torch.zeros_like(image))
    assert _places(20 * side, side)[0] == 0
    assert _places(20 * side, side)[-1] == 19 * side
    assert lost[weight[0] == 0].max() < lost[weight[0] == 1].min()
    far = torch.ones_like(weight[0])
    far[2 * side : 5 * side, 14 * side : 17 * side] = 0
    assert (lost[far > 0] == 0).all()


class Rounded(Corner):
    """Takes one image at a time, and gives no gradient."""

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) == 1
        return super().forward((images * 64).round() / 64)


def test_a_network_without_a_gradient_is_looked_at_by_occlusion() -> None:
    subject = phosphene.wrap(Rounded(), size=(12, 12), channels=1, mean=0.5, std=0.25)
    image = torch.full((1, 12, 12), 0.9)
    fill = torch.full_like(image, 0.5)

    def score(inputs: Tensor) -> Tensor:
        with subject.reading(["fc"]) as read:
            each = [read(subject.prepare(one[None]))["fc"] for one in inputs]
        return torch.cat(each)[:, 0]

    with pytest.raises(BadRequest, match="rank its pixels by occlusion"):
        Importance().region(score, image, fill)
    mask = Importance(by="occlusion").region(score, image, fill)
    assert 0 < mask.sum() <= 36
    assert not mask[7:].any()
    assert not mask[:, 7:].any()


def test_photographs_that_replace_the_rest_are_cut_to_the_subject_s_shape(tmp_path: Path) -> None:
    """A disc stays a disc, and photographs need no classes."""
    (tmp_path / "val").mkdir(parents=True)
    picture = Image.new("RGB", (120, 40))
    ImageDraw.Draw(picture).ellipse((50, 10, 70, 30), fill="white")
    picture.save(tmp_path / "val" / "disc.png")
    subject = phosphene.wrap(nn.Conv2d(3, 2, 3), size=(20, 60))
    found = _fills(subject, load_prior("pixels", subject), tmp_path)["photographs"]
    assert found.shape == (1, 3, 20, 60)
    rows, columns = (found[0, 0] > 0.5).nonzero(as_tuple=True)
    assert abs(int(rows.max() - rows.min()) - int(columns.max() - columns.min())) <= 1


def write_photographs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split / "noise").mkdir(parents=True)
        for n in range(3):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / split / "noise" / f"{n}.png")


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(BadRequest, match="share must be"):
        Importance(share=2.0)
