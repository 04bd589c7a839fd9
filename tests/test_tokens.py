"""Layers of three axes.

Patches lie in rows and columns, tokens ahead of them have names, sequences stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import Run
from PIL import Image
from torch import Tensor, nn

from phosphene.axes import Tokens, at_token
from phosphene.datasets import Stream
from phosphene.errors import BadRequest, UnknownName
from phosphene.images import read_png
from phosphene.notebook import synthesize
from phosphene.objectives.activation import Activation
from phosphene.probe import layer_shapes, probe
from phosphene.receptive_fields import receptive_fields
from phosphene.studies.exemplars import find_exemplars, find_peaks
from phosphene.subjects import READINGS, Subject, load_subject, wrap
from phosphene.tensors import as_images
from phosphene.testing import lively
from phosphene.units import Direction, Target, Unit

WIDTH, PATCH = 5, 4
VIT = """
import torch
from torch import nn

class Patches(nn.Module):
    '''Patches of 4 pixels, row by row, behind so many tokens.'''
    def __init__(self, prefix):
        super().__init__()
        self.proj = nn.Conv2d(3, 5, 4, 4)
        self.ahead = nn.Parameter(torch.randn(1, prefix, 5))
    def forward(self, images):
        patches = self.proj(images).flatten(2).transpose(1, 2)
        return torch.cat([self.ahead.expand(len(images), -1, -1), patches], 1)

class Vit(nn.Module):
    def __init__(self, prefix):
        super().__init__()
        self.embed, self.block = Patches(prefix), nn.Linear(5, 5)
        self.attend = nn.MultiheadAttention(5, 1, batch_first=True)
        self.fc = nn.Linear(5, 4)
    def forward(self, images):
        tokens = torch.tanh(self.block(self.embed(images)))
        return self.fc((tokens + self.attend(tokens, tokens, tokens)[0])[:, 0])

def net():
    return Vit(1).eval().requires_grad_(False), dict(size=32, mean=0.5, std=0.25)
def registers():
    return Vit(5).eval().requires_grad_(False), dict(size=(16, 24))
"""


@pytest.fixture(scope="module")
def made() -> dict[str, Callable[[], tuple[nn.Module, dict[str, object]]]]:
    namespace: dict[str, Callable[[], tuple[nn.Module, dict[str, object]]]] = {}
    exec(VIT, namespace)
    return namespace


@pytest.fixture
def vit(made: dict[str, Callable[[], tuple[nn.Module, dict[str, object]]]]) -> Subject:
    torch.manual_seed(0)
    network, _ = made["net"]()
    return wrap(network, size=32, mean=0.5, std=0.25)


# ---------------------------------------------------------------- patches


@pytest.mark.parametrize(
    ("names", "count", "size", "split"),
    [
        (None, 197, (224, 224), (("class",), 14, 14)),
        (None, 196, (224, 224), ((), 14, 14)),
        (None, 198, (224, 224), (("class", "register0"), 14, 14)),
        (None, 201, (224, 224), (("class", *(f"register{i}" for i in range(4))), 14, 14)),
        (None, 1370, (518, 518), (("class",), 37, 37)),
        (None, 15, (28, 56), None),
        (None, 19, (24, 48), (("class",), 3, 6)),
        (None, 77, (224, 224), None),
        (None, 2, (224, 224), None),
        (None, 1, (224, 224), ((), 1, 1)),
        (("class", "distillation"), 198, (224, 224), (("class", "distillation"), 14, 14)),
        (("class",), 196, (224, 224), ((), 14, 14)),
        ((), 197, (224, 224), None),
        (("class",), 201, (224, 224), None),
        (tuple("abcdefghijklmnop"), 16 + 4, (16, 16), (tuple("abcdefghijklmnop"), 2, 2)),
    ],
)
def test_tokens_are_split_into_names_and_a_map(
    names: tuple[str, ...] | None,
    count: int,
    size: tuple[int, int],
    split: tuple[tuple[str, ...], int, int] | None,
) -> None:
    assert Tokens(names).split(count, size) == split


def test_a_patch_is_where_it_is_in_the_image(vit: Subject) -> None:
    assert vit.shapes()["embed"] == (WIDTH, 8, 8)
    images = torch.rand(2, 3, 32, 32)
    whole = vit.network.embed.proj(images)
    with vit.reading(["embed"]) as read:
        found = read(images)
    torch.testing.assert_close(found["embed"], whole)
    ahead = vit.network.embed.ahead[:, 0].expand(2, -1)
    torch.testing.assert_close(found[at_token("embed", "class")], ahead)


def test_an_image_that_is_no_square_has_rows_and_columns(
    made: dict[str, Callable[[], tuple[nn.Module, dict[str, object]]]],
) -> None:
    subject = wrap(made["registers"]()[0], size=(16, 24))
    assert subject.shapes()["embed"] == (WIDTH, 4, 6)
    assert subject.token_names("embed") == ("class", *(f"register{i}" for i in range(4)))


def score(subject: Subject, text: str, images: Tensor) -> float:
    (target,) = subject.targets(text)
    objective = Activation([target])
    with torch.no_grad(), subject.reading(objective.layers) as read:
        return float(objective.scores(read(images))[0])


def test_units_of_patches_and_tokens_have_names(vit: Subject) -> None:
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        tokens = vit.network.block(vit.network.embed(images))[0]  # (65, channels)
    ahead, patches = tokens[0], tokens[1:].view(8, 8, WIDTH)
    for channel in range(WIDTH):
        unit = f"block:{channel}"
        assert score(vit, unit, images) == patches[4, 4, channel]
        assert score(vit, f"{unit}@6,2", images) == patches[6, 2, channel]
        assert score(vit, f"{unit}@max", images) == patches[..., channel].max()
        assert score(vit, f"{unit}@mean", images) == pytest.approx(
            float(patches[..., channel].mean())
        )
        assert score(vit, f"{unit}@class", images) == ahead[channel]
    assert [str(target) for target in vit.targets("block:0-1@class")] == [
        "block:0@class",
        "block:1@class",
    ]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("block:0@8,0", BadRequest, "8 rows and 8 columns"),
        ("block:0@register0", UnknownName, "no token @register0 .* there is: @class"),
        ("embed.proj:0@class", UnknownName, "no token @class .* there is: none"),
        ("block:0@clas", BadRequest, "neither @ROW,COLUMN nor @centre, @max, @mean, @class"),
    ],
)
def test_a_token_that_is_not_there_is_refused(
    vit: Subject, text: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        vit.targets(text)


def test_a_unit_whose_token_is_not_there_is_refused_at_the_climb(vit: Subject) -> None:
    for unit in (Unit("block", 0, "register7"), Direction("embed.proj", (1.0,) * 5, "class")):
        with pytest.raises(UnknownName, match="the layer has no token"):
            synthesize(vit, [Target(((1.0, unit),))], prior="pixels")


def test_the_centre_of_patches_is_the_image_s_centre(vit: Subject) -> None:
    fields = receptive_fields(vit.network, (32, 32), ["embed"], 8, Tokens())
    box = fields["embed"].centre
    assert (box.top, box.left, box.bottom, box.right) == (16, 16, 20, 20)


def test_peaks_are_those_of_patches_and_no_class_token_is_one(vit: Subject) -> None:
    vit.network.embed.ahead.fill_(100)  # it would beat every patch
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad(), vit.reading(["embed"]) as read:
        peaks, places = find_peaks(read(images)["embed"])
        whole = vit.network.embed.proj(images)
    torch.testing.assert_close(peaks, whole.flatten(2).amax(2))
    for image, channel in ((0, 0), (2, 4)):
        row, column = places[image, channel].tolist()
        assert whole[image, channel, row, column] == whole[image, channel].max()


def test_an_index_is_of_one_reading(vit: Subject, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "train" / "a"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (32, 32), (80 * i, 40, 0)).save(folder / f"{i}.png")
    data = Stream(tmp_path / "data", "all", 32)
    former = vit.as_read_by(1)
    for first, then in ((former, vit), (vit, former)):
        index = tmp_path / f"index-{first.reading_version()}"
        find_exemplars(first, ["block"], data, index, k=2)
        with pytest.raises(BadRequest, match="another reading"):
            find_exemplars(then, ["block"], data, index, k=2)


# ---------------------------------------------------------------- sequences


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv1d(6, 6, 3, padding=1), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.conv(x))


class Sequence(nn.Module):
    """(batch, 6, 16) for images of 16 pixels; then tokens again."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Conv2d(3, 6, (1, 16))
        self.conv, self.norm, self.act = nn.Conv1d(6, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU()
        self.block, self.pool = nn.Sequential(Residual(), nn.Dropout()), nn.MaxPool1d(2)
        self.mix, self.later = nn.Linear(6, 7), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(self.rows(images)[..., 0])))
        x = self.pool(self.block(x))
        return self.later(self.mix(x.transpose(1, 2))).mean(1)


def test_sequences_keep_channels_and_positions() -> None:
    subject = wrap(lively(Sequence()), size=16)
    shapes = subject.shapes()
    for layer in ("conv", "norm", "act", "block.0.conv", "block.0.act", "block.0", "block"):
        assert shapes[layer] == (6, 16), layer
    assert shapes["pool"] == (6, 8)
    assert shapes["mix"] == shapes["later"] == (7, 8), "tokens, as a linear layer makes them"
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        wanted = subject.network.conv(subject.network.rows(images)[..., 0])
    for layers in (["conv"], ["conv", "block"]):
        with torch.no_grad(), subject.reading(layers) as read:
            assert torch.equal(read(images)["conv"], wanted)
    assert score(subject, "conv:5", images) == wanted[0, 5, 8]


def test_steps_of_a_recurrent_network_are_in_one_line_and_no_patches() -> None:
    """Sixteen rows of an image are not four rows of patches."""
    subject = load_subject("python:networks:rows")
    assert (subject.shapes()["lstm"], subject.shapes()["steps"]) == ((8, 16), (6, 16))
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        prepared = subject.prepare(images)
        wanted, _ = subject.network.lstm(prepared.transpose(1, 2).flatten(2))
        with subject.reading(["lstm"]) as read:
            assert torch.equal(read(prepared)["lstm"], wanted.transpose(1, 2))
    assert score(subject, "lstm:5", prepared) == wanted[0, 8, 5]
    assert subject.reading_version() == READINGS[0]


def test_steps_have_receptive_fields_and_exemplars(phosphene: Run, tmp_path: Path) -> None:
    """A step of a recurrent network sees its own row of the image and those ahead of it."""
    subject = load_subject("python:networks:rows")
    fields = receptive_fields(subject.network, subject.size, ["lstm"], tokens=subject.tokens)
    assert fields["lstm"].rows == tuple((0, row + 1) for row in range(16))
    assert fields["lstm"].columns == ((0, 16),)
    for number in range(12):
        picture = Image.fromarray((255 * torch.rand(20, 20, 3)).byte().numpy())
        (tmp_path / "photos").mkdir(exist_ok=True)
        picture.save(tmp_path / "photos" / f"{number}.png")
    options = (
        "--images",
        tmp_path / "photos",
        "--split",
        "all",
        "--out",
        tmp_path / "found",
        "--json",
    )
    (row,) = phosphene("exemplars", "python:networks:rows", "lstm:5", *options).json()
    assert row["unit"] == "lstm:5"


class Last(nn.Module):
    """Maps with their channels last, as of a Swin transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs, self.fewer = nn.Conv2d(3, 5, 2, 2), nn.Conv2d(5, 6, 4, 4, 1)
        self.norms = nn.ModuleList([nn.LayerNorm(5), nn.LayerNorm(6)])

    def forward(self, images: Tensor) -> Tensor:
        maps = self.norms[0](self.pairs(images).permute(0, 2, 3, 1))
        maps = self.norms[1](self.fewer(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return maps.mean((1, 2))


@pytest.mark.parametrize("size", [(16, 36), (36, 16), (24, 24)])
def test_channels_that_come_last_are_read_first(size: tuple[int, int]) -> None:
    subject = wrap(lively(Last()), size=size)
    shapes = subject.shapes()
    assert shapes["pairs"] == shapes["norms.0"] == (5, size[0] // 2, size[1] // 2)
    assert shapes["fewer"] == shapes["norms.1"]
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        wanted = subject.network.norms[0](subject.network.pairs(images).permute(0, 2, 3, 1))
        with subject.reading(["norms.0"]) as read:
            assert torch.equal(read(images)["norms.0"], wanted.permute(0, 3, 1, 2))
    former = subject.as_read_by(1).shapes()["norms.0"]  # version 0.1.0 knew those of squares
    assert former == (shapes["norms.0"] if size[0] == size[1] else tuple(wanted.shape[1:]))


def test_a_flatten_of_positions_keeps_its_channels() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(2), nn.ReLU())
    shapes = layer_shapes(network, torch.rand(2, 3, 8, 8), Tokens())
    assert shapes["1"] == shapes["2"] == (6, 36)


# ---------------------------------------------------------------- as version 0.1.0 read them


def test_the_former_reading_is_as_it_was(vit: Subject) -> None:
    images = torch.rand(2, 3, 32, 32)
    former = vit.as_read_by(1)
    assert former.shapes()["block"] == (WIDTH, 65)
    with torch.no_grad():
        tokens = vit.network.block(vit.network.embed(images))
    for reading in (former.reading(["block"]), probe(vit.network, ["block"])):
        with torch.no_grad(), reading as read:
            assert torch.equal(read(images)["block"], tokens.transpose(1, 2))
    units = [Target(((1.0, Unit("block", 2)),)), Target(((1.0, Unit("block", 2, "max")),))]
    with torch.no_grad(), former.reading(["block"]) as read:
        scores = Activation(units).scores(read(images))
    assert scores.tolist() == [tokens[0, 32, 2], tokens[1, :, 2].max()]


def test_only_a_reading_that_differs_is_noted(vit: Subject) -> None:
    assert vit.reading_version() == 2
    assert wrap(lively(Sequence()), size=16).reading_version() == 2
    maps = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 2))
    assert wrap(maps, size=8).reading_version() == 1


def test_a_record_without_a_reading_is_made_as_before(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_vit.py").write_text(VIT)
    monkeypatch.chdir(tmp_path)
    name = "python:mine_vit:net"
    climb = ("--prior", "pixels", "--steps", 3, "--device", "cpu", "--precision", "float32")
    (made,) = phosphene("synthesize", name, "block:1", *climb, "--out", "new", "--json").json()
    file = Path(made["image"]).with_suffix(".json")
    record = json.loads(file.read_text())
    assert record["request"]["reading"] == 2
    again = phosphene("synthesize", name, "--record", file, "--out", "again", "--json")
    assert again.json()[0]["score"] == made["score"]
    assert again.err == ""
    del record["request"]["reading"]
    record["weights"]["subject"] = load_subject(name).former_identity
    file.write_text(json.dumps(record))
    (before,) = phosphene("synthesize", name, "--record", file, "--out", "old", "--json").json()
    assert before["score"] != made["score"]
    subject = load_subject(name)
    former = replace(subject, tokens=None)
    image = Path(before["image"])
    seen = as_images([read_png(image)])[..., 2:-2, 2:-2]
    with torch.no_grad(), former.reading(["block"]) as read:
        middle = read(former.prepare(seen))["block"][0, 1, 32]
    assert before["score"] == pytest.approx(float(middle), abs=1e-5)
    record["request"]["reading"] = 9
    file.write_text(json.dumps(record))
    said = phosphene("synthesize", name, "--record", file, "--out", "x").refused()
    assert "reading is one of (1, 2, 3); got 9; update phosphene" in said


def test_a_class_token_climbs_and_is_listed_by_command(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_vit2.py").write_text(VIT)
    monkeypatch.chdir(tmp_path)
    name = "python:mine_vit2:net"
    rows = {row["layer"]: row for row in phosphene("layers", name, "--json").json()["layers"]}
    assert (rows["block"]["shape"], rows["block"]["tokens"]) == ([WIDTH, 8, 8], ["class"])
    assert rows["embed"]["receptive_field"] == {"top": 16, "left": 16, "bottom": 20, "right": 20}
    assert "@class" in phosphene("layers", name).fine()
    climb = ("--prior", "pixels", "--steps", 5, "--device", "cpu", "--precision", "float32")
    units = ("attend:1@class", "attend:1@2,3", "attend:1")
    made = phosphene("synthesize", name, *units, *climb, "--out", "new", "--json").json()
    assert [each["target"] for each in made] == list(units)
    assert all(each["score"] > each["start_score"] for each in made)
    assert phosphene("atlas", "new", "--out", "site").fine()
    said = phosphene("exemplars", name, "attend:1@class", "--images", "new").refused()
    assert "of one channel each" in said


# ---------------------------------------------------------------- what libraries tell


@pytest.mark.parametrize(
    ("name", "layer", "shape", "tokens"),
    [
        ("timm:test_vit@random", "blocks.1", (64, 10, 10), ("class",)),
        ("timm:test_vit_relpos@random", "blocks.1", (96, 10, 10), ()),
        (
            "timm:deit_tiny_distilled_patch16_224@random",
            "blocks.1",
            (192, 14, 14),
            ("class", "distillation"),
        ),
        (
            "timm:vit_little_patch16_reg1_gap_256@random",
            "blocks.1",
            (320, 16, 16),
            ("register0",),
        ),
        ("timm:cait_xxs24_224@random", "blocks.1", (192, 14, 14), ()),
    ],
)
def test_timm_tells_the_tokens(
    timm: ModuleType, name: str, layer: str, shape: tuple[int, ...], tokens: tuple[str, ...]
) -> None:
    subject = load_subject(name)
    assert subject.shapes()[layer] == shape
    assert subject.token_names(layer) == tokens


def test_a_transformer_of_a_library_tells_them_inside_one_s_own_network(timm: ModuleType) -> None:
    small = {"embed_dim": 8, "depth": 1, "num_heads": 2, "num_classes": 3}
    five = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=28, **small)
    subject = wrap(nn.Sequential(five, nn.ReLU()), size=28)
    assert subject.shapes()["0.blocks.0"] == (8, 2, 2)
    assert subject.token_names("0.blocks.0") == ("class", *(f"register{i}" for i in range(4)))
    two = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, **small)
    assert wrap(two, size=32).token_names("blocks.0") == ("class", "distillation")


def test_torchvision_tells_the_class_token(torchvision: ModuleType) -> None:
    subject = load_subject("torchvision:vit_b_32@random")
    assert subject.tokens == Tokens(("class",))
    assert subject.shapes()["encoder.layers.encoder_layer_3"] == (768, 7, 7)
