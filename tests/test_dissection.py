"""Dissection against planted detectors, and outlines that are none."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import DATA, Run
from PIL import Image
from torch import nn

from phosphene.datasets import Outlined
from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.forms.dissection import UnitOverlap
from phosphene.studies import dissection
from phosphene.studies.dissection import dissect
from phosphene.subjects import Subject

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SIDE, N, SQUARE = 20, 12, 4
OBJECTS = ["nothing here", "red", "green", "ground"]


def outline(number: int, left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    """A rectangle, its last column and row included; outlines count pixels from 1."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return {"c": number, "p": [[x + 1, y + 1] for x, y in corners]}


def write(folder: Path, *, grounded: bool = True, stray: bool = False) -> Path:
    """Dark pictures with a red and a green square.

    With `stray`, they have a brighter red line that no outline covers.
    """
    images, objects = [], []
    for n in range(N):
        random = np.random.default_rng(n)
        pixels = random.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
        (x, y), z = random.integers(0, 6, 2), int(random.integers(10, SIDE - SQUARE))
        pixels[y : y + SQUARE, x : x + SQUARE, 0] = random.integers(100, 200, (SQUARE, SQUARE))
        pixels[z : z + SQUARE, z : z + SQUARE, 1] = random.integers(100, 200, (SQUARE, SQUARE))
        if stray:
            pixels[-1, :8, 0] = 250
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        images.append(file.getvalue())
        found = [
            outline(1, x, y, x + SQUARE - 1, y + SQUARE - 1),
            outline(2, z, z, z + SQUARE - 1, z + SQUARE - 1),
            outline(3, 0, 0, SIDE - 1, SIDE - 2 if stray else SIDE - 1),
        ]
        objects.append(json.dumps(found if grounded else found[:2], default=int))
    folder.mkdir(exist_ok=True)
    table = {
        "image": images,
        "label": [0] * N,
        "key": [str(n) for n in range(N)],
        "objects": objects,
    }
    parquet.write_table(pyarrow.table(table), folder / "train.parquet")
    (folder / "meta.json").write_text(json.dumps({"object_classes": OBJECTS}))
    return folder


@pytest.fixture
def subject() -> Subject:
    """Its channels are red, green, and red where there is much green."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convolution = network[0]
    convolution.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 1, 0]])[:, :, None, None]
    convolution.bias.data.zero_()
    return Subject("planted", network.eval(), (SIDE, SIDE), (0.0,) * 3, (1.0,) * 3)


def test_one_outlined_photograph_in_so_many(tmp_path: Path) -> None:
    whole, part = (Outlined(write(tmp_path / "data"), "all", SIDE, every) for every in (1, 3))
    every, found = list(whole.photographs()), list(part.photographs())
    assert len(part) == len(found) == -(-len(whole) // 3)
    assert all(
        np.array_equal(a[0], b[0]) and a[1].keys() == b[1].keys()
        for a, b in zip(found, every[::3], strict=True)
    )


def test_a_damaged_photograph_is_left_out_of_the_count(subject: Subject, tmp_path: Path) -> None:
    file = write(tmp_path / "data") / "train.parquet"
    table = parquet.read_table(file).to_pydict()
    fewer = {name: [*column[:4], *column[5:]] for name, column in table.items()}
    table["image"][4] = b"none"
    parquet.write_table(pyarrow.table(table), file)
    other = write(tmp_path / "other")
    parquet.write_table(pyarrow.table(fewer), other / "train.parquet")
    with pytest.warns(Notice, match=f"1 of {N} photographs cannot be read.*row 4"):
        found = dissect(subject, "1", Outlined(tmp_path / "data", "all", SIDE))
    wanted = dissect(subject, "1", Outlined(other, "all", SIDE))
    assert torch.equal(found.iou, wanted.iou)
    assert torch.equal(found.thresholds, wanted.thresholds)
    assert found.photographs == wanted.photographs == N - 1
    table["image"] = [b"none"] * N
    parquet.write_table(pyarrow.table(table), file)
    with pytest.raises(BadFile, match=f"none of {N} photographs can be read"):
        dissect(subject, "1", Outlined(tmp_path / "data", "all", SIDE))


def test_a_planted_detector_covers_its_object_and_no_other(
    subject: Subject, tmp_path: Path
) -> None:
    data = Outlined(write(tmp_path / "data"), "all", SIDE)
    found = dissect(subject, "1", data, quantile=SQUARE**2 / SIDE**2)
    assert found.best(0)[0] == ("red", 1.0)
    assert found.best(1)[0] == ("green", 1.0)
    assert found.iou[0, 2] == 0
    assert found.iou[0, 3] == pytest.approx(SQUARE**2 / SIDE**2), (
        "red lies on ground, and covers this share of it"
    )
    assert found.best(2)[0][0] == "green"
    assert 0.5 < found.best(2)[0][1] < 1
    assert (found.iou[:, 0] == 0).all()


def test_pixels_in_no_outline_are_unknown_and_not_background(
    subject: Subject, tmp_path: Path
) -> None:
    """The stray red line takes nothing from the detector where nobody said what it is."""
    share = (SQUARE**2 + 8) / SIDE**2
    unknown = dissect(
        subject, "1", Outlined(write(tmp_path / "a", stray=True), "all", SIDE), quantile=share
    )
    assert unknown.best(0)[0] == ("red", 1.0)
    known = dissect(subject, "1", Outlined(write(tmp_path / "b"), "all", SIDE), quantile=share)
    assert 0.6 < known.best(0)[0][1] < 0.8, "where all is known, 24 pixels are not 16"


@pytest.mark.parametrize("quantile", [0.005, 0.04, 0.3])
def test_a_threshold_is_what_the_quantile_exceeds(
    subject: Subject, tmp_path: Path, quantile: float
) -> None:
    data = Outlined(write(tmp_path / "data"), "all", SIDE)
    red = (
        torch.from_numpy(np.stack([pixels[..., 0] for pixels, _ in data.photographs()])).float()
        / 255
    )
    found = dissect(subject, "1", data, quantile=quantile, batch=5)
    values = red.flatten().sort(descending=True).values
    assert found.thresholds[0] == pytest.approx(float(values[int(quantile * len(values))]))
    assert (red > found.thresholds[0]).sum() <= quantile * len(values)


def test_no_measure_depends_on_the_batch_size(subject: Subject, tmp_path: Path) -> None:
    data = Outlined(write(tmp_path / "data"), "all", SIDE)
    one, other = (dissect(subject, "1", data, quantile=0.02, batch=batch) for batch in (12, 5))
    assert torch.equal(one.thresholds, other.thresholds)
    torch.testing.assert_close(one.iou, other.iou)


def test_an_object_in_few_photographs_is_not_counted(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Outlined(write(tmp_path / "data"), "all", SIDE)
    monkeypatch.setattr(dissection, "MIN_PHOTOGRAPHS", N + 1)
    assert (dissect(subject, "1", data).iou == 0).all()


def test_a_silent_channel_detects_nothing(subject: Subject, tmp_path: Path) -> None:
    subject.network[0].weight.data[0] = -1
    data = Outlined(write(tmp_path / "data"), "all", SIDE)
    found = dissect(subject, "1", data)
    assert found.best(0) == []
    assert found.form(subject, data).units[0] == UnitOverlap(unit="1:0")


def test_masks_are_of_the_central_square_at_any_size(tmp_path: Path) -> None:
    """The outline of a wide picture moves with the crop and shrinks with the size."""
    file = io.BytesIO()
    Image.new("RGB", (40, 20)).save(file, "png")
    objects = json.dumps([outline(1, 10, 0, 19, 19), outline(1, 0, 0, 4, 4)])
    table = {"image": [file.getvalue()], "label": [0], "key": ["0"], "objects": [objects]}
    parquet.write_table(pyarrow.table(table), tmp_path / "train.parquet")
    (tmp_path / "meta.json").write_text(json.dumps({"object_classes": OBJECTS}))
    ((_, masks),) = Outlined(tmp_path, "all", 10).photographs()
    assert masks.keys() == {1}
    assert masks[1][:, :5].all()
    assert not masks[1][:, 6:].any()


def test_outlines_of_a_wide_cut_lie_where_its_pixels_do(tmp_path: Path) -> None:
    """A square of a tall picture, cut to twice as wide as high and shrunk to a half."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[12:20, 24:40] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    objects = json.dumps([outline(1, 24, 12, 39, 19), outline(2, 0, 0, 39, 5)])
    table = {"image": [file.getvalue()], "label": [0], "key": ["0"], "objects": [objects]}
    parquet.write_table(pyarrow.table(table), tmp_path / "train.parquet")
    (tmp_path / "meta.json").write_text(json.dumps({"object_classes": OBJECTS}))
    ((shown, masks),) = Outlined(tmp_path, "all", (10, 20)).photographs()
    assert shown.shape == (10, 20, 3)
    assert (masks[1] == (shown[..., 0] > 127)).all()
    assert masks[1].sum() == 4 * 8
    assert not masks[2].any(), "it was cut off"


@pytest.mark.parametrize(
    "objects",
    [
        "[",
        "3",
        '[{"c": 9, "p": []}]',
        '[{"c": 1}]',
        '[{"c": 1, "p": [[1, 1e999], [1, 2], [2, 2]]}]',
        "[" * 9999,
    ],
)
def test_what_is_no_outline_is_refused(tmp_path: Path, objects: str) -> None:
    write(tmp_path / "data")
    file = tmp_path / "data" / "train.parquet"
    table = parquet.read_table(file)
    parquet.write_table(table.set_column(3, "objects", [[objects] * N]), file)
    with pytest.raises(BadFile, match="row 0: objects is not a list of outlines"):
        list(Outlined(tmp_path / "data", "all", SIDE).photographs())


def test_what_cannot_be_dissected_is_told(subject: Subject, tmp_path: Path) -> None:
    data = Outlined(write(tmp_path / "data"), "all", SIDE)
    with pytest.raises(BadRequest, match="has no map"):
        dissect(subject, "3", data)
    with pytest.raises(BadRequest, match="between 0 and 1"):
        dissect(subject, "1", data, quantile=1)
    (tmp_path / "data" / "meta.json").write_text("{}")
    with pytest.raises(BadFile, match="no outlined objects"):
        Outlined(tmp_path / "data", "all", SIDE)


@pytest.mark.skipif(not (DATA / "miniplaces-objects").exists(), reason="no ../shared/data here")
def test_by_command(phosphene: Run, tmp_path: Path) -> None:
    """A trained network has more detectors of real objects than the same one untrained."""
    words = (
        "--images",
        DATA / "miniplaces-objects",
        "--split",
        "val",
        "--device",
        "cpu",
        "--out",
        tmp_path / "d",
    )

    def detectors(subject: str) -> int:
        found = phosphene("dissect", subject, "conv5", *words, "--json").json()
        assert json.loads((tmp_path / "d" / "dissection.json").read_text()) == found
        return sum(row["iou"] > found["detector_above"] for row in found["units"])

    assert detectors("caffenet-objects") > detectors("caffenet-objects@random")
    assert "no map" in phosphene("dissect", "caffenet-objects", "fc8", *words).refused()
