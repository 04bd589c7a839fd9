"""Subjects that do not read RGB squares: grey, two channels, other proportions, other ranges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from torch import Tensor, nn

import phosphene
from phosphene import images
from phosphene.atlas import build
from phosphene.datasets import Stream
from phosphene.datasets.fingerprints import fingerprint
from phosphene.errors import BadRequest
from phosphene.priors import load_prior
from phosphene.records import Folder
from phosphene.studies import _comparison
from phosphene.studies._folder import shown_pixels
from phosphene.studies.exemplars import describe, field_box, find_exemplars
from phosphene.subjects import READINGS
from phosphene.tensors import LUMINANCE, as_images, cropped_to_shape, recoloured
from phosphene.testing import lively, tiny_generated
from phosphene.units import Unit

HEIGHT, WIDTH = 12, 28


class Linear(nn.Module):
    """One unit whose preferred input is known: its weights (channels, height, width)."""

    def __init__(self, weights: Tensor):
        super().__init__()
        self.conv = nn.Conv2d(len(weights), 1, weights.shape[1:])
        self.conv.weight.data = weights[None]

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).flatten(1)


def gabor(channels: int = 1) -> Tensor:
    """Return waves at 45° under a Gaussian, (channels, HEIGHT, WIDTH), upright in pixels."""
    rows = torch.arange(HEIGHT)[:, None] - HEIGHT / 2
    columns = torch.arange(WIDTH)[None] - WIDTH / 2
    wave = torch.cos((rows + columns) * 1.2) * torch.exp(-(rows**2 + columns**2) / 30)
    return torch.stack([wave * (c + 1) for c in range(channels)])


def climbed(channels: int, prior: str, **changes: Any) -> Any:
    subject = phosphene.wrap(lively_linear(channels), size=(HEIGHT, WIDTH), mean=0.5, std=0.25)
    how = {"tv": 0.0, "blur": 0.0, "shift": 0, "steps": 60, **changes}
    how = how if prior == "pixels" else {key: how[key] for key in ("steps", "shift")}
    return phosphene.synthesize(subject, "conv:0", prior=prior, **how)


def lively_linear(channels: int) -> nn.Module:
    return Linear(gabor(channels)).eval().requires_grad_(False)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("prior", ["pixels", "fourier"])
def test_a_linear_unit_prefers_its_own_weights_in_its_own_shape(channels: int, prior: str) -> None:
    result = climbed(channels, prior)
    assert result.images.shape == (1, channels, HEIGHT + HEIGHT // 7, WIDTH + WIDTH // 7)
    found = result.images[0, :, :HEIGHT, 2 : 2 + WIDTH]
    weights = gabor(channels)
    agreeing = (found.sub(0.5).sign() * weights).sum() / weights.abs().sum()
    least = 0.95 if prior == "pixels" else 0.6  # 1 / f has little of such fine waves
    assert agreeing > least, "each pixel goes the way of its weight"


def test_the_channels_are_found_where_the_network_takes_no_rgb() -> None:
    assert phosphene.wrap(lively_linear(1), size=(HEIGHT, WIDTH)).channels == 1
    assert phosphene.wrap(lively_linear(2), size=(HEIGHT, WIDTH)).mean == (0, 0)
    assert phosphene.wrap(lively_linear(3), size=(HEIGHT, WIDTH)).mean[0] == 0.485


def test_a_range_says_which_values_the_mean_is_of() -> None:
    image = torch.rand(1, 1, HEIGHT, WIDTH)
    for low, high in ((0.0, 255.0), (-1.0, 1.0)):
        values = low + (high - low) * image
        plain = phosphene.wrap(lively_linear(1), size=(HEIGHT, WIDTH), range=(low, high))
        torch.testing.assert_close(plain.prepare(image), values)
        scaled = phosphene.wrap(
            lively_linear(1), size=(HEIGHT, WIDTH), range=(low, high), mean=low + 1, std=2
        )
        torch.testing.assert_close(scaled.prepare(image), (values - low - 1) / 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"range": (255, 0)}, "range is"),
        ({"range": 255}, "range is"),
        ({"channels": 100}, "channels is a number in 1 … 64"),
        ({"channels": 2}, "does not take an image"),
        ({"mean": (0.1, 0.2)}, "mean is 1 number"),
    ],
)
def test_other_values_are_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        phosphene.wrap(lively_linear(1), size=(HEIGHT, WIDTH), **given)


def test_grey_is_the_luminance_of_rgb_and_rgb_of_grey_is_grey() -> None:
    rgb = torch.rand(2, 3, 4, 5)
    wanted = sum(share * rgb[:, i] for i, share in enumerate(LUMINANCE))
    torch.testing.assert_close(recoloured(rgb, 1)[:, 0], wanted)
    assert torch.equal(recoloured(rgb[:, :1], 3), rgb[:, :1].repeat(1, 3, 1, 1))
    with pytest.raises(BadRequest, match="3 channels is no input of 2"):
        recoloured(rgb, 2)


def test_an_image_is_cut_to_the_proportions_and_not_stretched() -> None:
    square = torch.arange(24 * 24.0).view(1, 1, 24, 24)
    assert torch.equal(cropped_to_shape(square, (12, 24)), square[..., 6:18, :])
    assert torch.equal(cropped_to_shape(square, (24, 12)), square[..., 6:18])
    assert cropped_to_shape(square, (7, 7)) is square


def test_a_generator_of_rgb_serves_a_grey_subject() -> None:
    subject = phosphene.wrap(lively_linear(1), size=(HEIGHT, WIDTH), mean=0.5, std=0.25)
    result = phosphene.synthesize(subject, "conv:0", prior=tiny_generated(), steps=30)
    assert result.images.shape[1] == 3
    assert result.scores[0] > result.start_scores[0]


def test_boxes_lie_in_the_part_of_a_photograph_that_is_shown() -> None:
    wide = phosphene.Subject("wide", nn.Identity(), (12, 24), (0.5,), (0.25,))
    assert wide.photograph_size == (12, 24)
    assert wide.as_read_by(READINGS[1]).photograph_size == (24, 24)
    assert field_box(None, (0, 0), wide) == (0, 0, 1, 1)
    assert field_box(None, (0, 0), wide.as_read_by(READINGS[1])) == (0, 0, 1, 1)


def wide_photographs(folder: Path) -> Path:
    """Write wide photographs, the left edge red and the right one blue; return their folder."""
    for n in range(3):
        pixels = np.full((24, 56, 3), 40 * n, np.uint8)
        pixels[:, :4] = 255, 0, 0
        pixels[:, -4:] = 0, 0, 255
        file = folder / "data" / f"{n}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder / "data"


def has_both_edges(pixels: Any) -> bool:
    red, blue = (pixels[:, place].astype(int).mean(0) for place in (0, -1))
    return bool(red[0] - red[2] > 200 and blue[2] - blue[0] > 200)


def test_a_wide_network_is_shown_both_edges_of_a_wide_photograph(tmp_path: Path) -> None:
    subject = phosphene.wrap(lively_linear(3), size=(HEIGHT, WIDTH))
    data = Stream(wide_photographs(tmp_path), "all", subject.photograph_size)
    photographs = [pixels for _, pixels, _ in data.photographs()]
    assert all(has_both_edges(pixels) for pixels in photographs)
    images_of = as_images(photographs)
    assert torch.equal(subject.fitted(images_of), images_of), "nothing is cut or resized again"
    found = find_exemplars(subject, ["conv"], data, tmp_path / "index", k=2)
    form = describe(subject, [Unit("conv", 0)], found, data, tmp_path / "run")
    form.write(tmp_path / "run" / "exemplars.json")
    (row,) = form.units
    assert (form.tile_height, form.tile, row.boxes) == (HEIGHT, WIDTH, ((0, 0, 1, 1),) * 2)
    strip = images.read_png(tmp_path / "run" / row.whole)
    assert strip.shape == (HEIGHT, 2 * WIDTH, 3)
    build([tmp_path / "run"], tmp_path / "site")
    page = next((tmp_path / "site").glob("*/conv/0.html"))
    assert f'viewBox="{WIDTH}.0 0.0 {WIDTH}.0 {HEIGHT}.0"' in page.read_text()
    with Image.open(page.with_suffix(".webp")) as tile:
        assert tile.size == (96, 96 * HEIGHT // WIDTH)


def test_where_images_are_not_cut_photographs_are_squares(tmp_path: Path) -> None:
    folder = wide_photographs(tmp_path)
    for fit in ("stretch", "pad"):
        subject = phosphene.wrap(lively_linear(3), size=(HEIGHT, WIDTH), fit=fit)
        data = Stream(folder, "all", subject.photograph_size)
        assert data.size == (WIDTH, WIDTH)
        assert data.fingerprint == Stream(folder, "all", WIDTH).fingerprint


def test_squares_keep_their_fingerprint_and_an_index_of_them_says_what_to_do(
    tmp_path: Path,
) -> None:
    subject = phosphene.wrap(lively_linear(3), size=(HEIGHT, WIDTH))
    folder = wide_photographs(tmp_path)
    squares = Stream(folder, "all", WIDTH)
    source = squares._source
    of_before = fingerprint(f"all:{WIDTH}:1", source.files, source.contents())
    assert squares.fingerprint == of_before
    find_exemplars(subject, ["conv"], squares, tmp_path / "index", k=1)
    data = Stream(folder, "all", subject.photograph_size)
    with pytest.raises(BadRequest, match=r"central squares of data, .* 12 × 28 pixels; delete it"):
        find_exemplars(subject, ["conv"], data, tmp_path / "index", k=1)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_a_picture_beside_photographs_gives_the_subject_what_it_gave_alone(fit: str) -> None:
    subject = phosphene.wrap(lively_linear(3), size=(HEIGHT, WIDTH), fit=fit)
    rows = torch.linspace(0, 1, WIDTH)[:, None].expand(3, WIDTH, WIDTH)
    for image in (rows, rows.mT, subject.fitted(rows[None])[0]):
        picture = images.to_pixels(image.numpy())
        beside = _comparison._resized(picture, subject.photograph_size, fit)
        assert beside.shape[:2] == subject.photograph_size
        alone, other = (subject.fitted(as_images([each])) for each in (picture, beside))
        torch.testing.assert_close(other, alone, atol=0.03, rtol=0)


def test_a_judge_is_shown_both_edges_of_what_a_wide_network_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a white square, for a judge cuts a wide picture to its own proportions."""
    shown: list[Tensor] = []

    def kept(judge: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
        shown.append(pictures)
        return pictures, pictures

    monkeypatch.setattr(_comparison, "features", kept)
    subject = phosphene.wrap(lively_linear(3), size=(HEIGHT, WIDTH))
    data = Stream(wide_photographs(tmp_path), "all", subject.photograph_size)
    photographs = [pixels for _, pixels, _ in data.photographs()]
    _, peaks = _comparison._UnitFeatures(subject, subject, "conv", 0, None)(photographs)
    with torch.no_grad():
        torch.testing.assert_close(peaks, subject(as_images(photographs)))
    (pictures,) = shown
    assert pictures.shape == (3, 3, WIDTH, WIDTH)
    top = (WIDTH - HEIGHT) // 2
    for picture in pictures:
        pixels = images.to_pixels(picture.numpy())
        assert has_both_edges(pixels[top : top + HEIGHT])
        assert (pixels[:top] == 255).all()
    square = [np.full((8, 8, 3), 7, np.uint8)]
    assert torch.equal(_comparison.in_squares(square), as_images(square))


GREY = """
from torch import nn
import torch


def net():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 8 * 24, 3))
    return network, {"size": (12, 28), "mean": 0.5, "std": 0.25, "output": "3"}
"""


def test_a_grey_network_has_grey_files_and_records_of_the_same_bits(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_grey.py").write_text(GREY)
    name = "python:own_grey:net"
    told = phosphene("layers", name, "--json").json()
    assert (told["input"], told["channels"]) == ([12, 28], 1)
    climb = ("synthesize", name, "3:0-1", "--prior", "pixels", "--steps", 5, "--out", "out")
    made = phosphene(*climb, "--precision", "float32", "--json").json()
    file = Path(made[0]["image"])
    with Image.open(file) as picture:
        assert (picture.mode, picture.size) == ("L", (32, 13))
    record = file.with_suffix(".json")
    assert json.loads(record.read_text())["request"]["reading"] == READINGS[-1]
    again = phosphene("synthesize", name, "--record", record, "--out", "again")
    assert again.fine()
    assert again.err == "", "the same bits"
    kept = phosphene(*climb, "--precision", "float32")
    assert "kept 2 pictures" in kept.err


def test_pictures_of_other_channels_are_grey_side_by_side_and_come_back() -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 5)).astype(np.float32) / 255
    pixels = images.to_pixels(image)
    assert pixels.shape == (4, 10, 3)
    np.testing.assert_allclose(images.from_pixels(pixels, 2), image, atol=1e-6)
    np.testing.assert_allclose(images.from_pixels(images.to_pixels(image[:1]), 1), image[:1])


def test_records_of_before_had_square_pictures_for_any_proportions() -> None:
    subject = phosphene.wrap(lively_linear(3), size=(HEIGHT, WIDTH))
    assert subject.reading_version() == READINGS[-1]
    before = load_prior("pixels", subject.as_read_by(READINGS[0]))
    assert before.size == (WIDTH + WIDTH // 7, WIDTH + WIDTH // 7)
    square = phosphene.wrap(lively(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())), size=12)
    assert square.reading_version() == READINGS[0]


def own_input(file: Path, channels: int) -> Tensor:
    """Return the image (1, channels, height, width) that a file of a subject's input holds."""
    return torch.from_numpy(images.from_pixels(images.read_png(file), channels))[None]


def answer(subject: Any, image: Tensor) -> float:
    with subject.reading(["conv"]) as read, torch.no_grad():
        return float(read(subject.prepare(image))["conv"].flatten()[0])


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_what_is_written_is_what_was_scored(channels: int, tmp_path: Path) -> None:
    subject = phosphene.wrap(lively_linear(channels), size=(HEIGHT, WIDTH), mean=0.5, std=0.25)
    how = {"prior": "pixels", "steps": 5, "arrays": True, "out": tmp_path}
    (record,) = phosphene.synthesize(subject, "conv:0", **how).records
    assert (record.input, record.input_score) == (f"{record.image[:-4]}.input.png", record.score)
    image = own_input(tmp_path / record.input, channels)
    assert image.shape == (1, channels, HEIGHT, WIDTH)
    assert answer(subject, image) == pytest.approx(record.score, abs=1e-5)
    numbers = np.load(tmp_path / record.array)
    assert numbers.dtype == np.float32
    np.testing.assert_allclose(numbers, (image[0] - 0.5) / 0.25, atol=1e-6)
    kept = phosphene.synthesize(subject, "conv:0", **how)
    assert torch.equal(kept.inputs, image)
    assert kept.input_scores.tolist() == [record.score]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_made_of_a_larger_picture_has_a_score_of_its_own(
    channels: int, tmp_path: Path
) -> None:
    subject = phosphene.wrap(lively_linear(channels), size=(HEIGHT, WIDTH), mean=0.5, std=0.25)
    result = phosphene.synthesize(
        subject, "conv:0", prior=tiny_generated(), steps=5, arrays=True, out=tmp_path
    )
    (record,) = result.records
    image = own_input(tmp_path / record.input, channels)
    assert answer(subject, image) == pytest.approx(record.input_score, abs=1e-5)
    rounding = float(gabor(channels).abs().sum()) / 0.25 / 255 / 2
    assert record.input_score != record.score
    assert abs(record.input_score - record.score) < rounding, "half a level in each pixel at most"
    numbers = torch.from_numpy(np.load(tmp_path / record.array))[None]
    read = subject.network(numbers)
    assert float(read[0, 0]) == pytest.approx(record.score, abs=1e-5)


def test_an_input_that_is_lost_or_changed_is_made_again(tmp_path: Path) -> None:
    subject = phosphene.wrap(lively_linear(1), size=(HEIGHT, WIDTH), mean=0.5, std=0.25)
    how = {"prior": "pixels", "steps": 2, "out": tmp_path}
    (record,) = phosphene.synthesize(subject, "conv:0", **how).records
    assert not record.array
    file = tmp_path / record.input
    bits = file.read_bytes()
    for harm in (file.unlink, lambda: images.write_png(file, np.zeros((12, 28, 3), np.uint8))):
        harm()
        phosphene.synthesize(subject, "conv:0", **how)
        assert file.read_bytes() == bits
    with_array = phosphene.synthesize(subject, "conv:0", arrays=True, **how)
    array = tmp_path / with_array.records[0].array
    assert array.exists()
    file.unlink()
    phosphene.synthesize(subject, "conv:0", **how)
    assert not array.exists(), "it was of the climb before"
    array.write_bytes(b"somebody's own")
    file.unlink()
    phosphene.synthesize(subject, "conv:0", **how)
    assert array.read_bytes() == b"somebody's own"


def test_a_folder_of_before_has_no_inputs_and_still_opens(tmp_path: Path) -> None:
    subject = phosphene.wrap(lively_linear(1), size=(HEIGHT, WIDTH), mean=0.5, std=0.25)
    how = {"prior": "pixels", "steps": 2, "out": tmp_path}
    (record,) = phosphene.synthesize(subject, "conv:0", **how).records
    file = (tmp_path / record.image).with_suffix(".json")
    told = json.loads(file.read_text())
    later = ("input", "input_sha256", "input_score", "array", "array_sha256")
    file.write_text(json.dumps({key: told[key] for key in told.keys() - {*later}}))
    (tmp_path / record.input).unlink()
    kept = phosphene.synthesize(subject, "conv:0", **how)
    assert kept.records[0].input == ""
    assert kept.inputs.shape == (1, 1, HEIGHT, WIDTH)
    assert not (tmp_path / record.input).exists(), "the picture was kept, not climbed again"


def test_exemplars_of_a_grey_network_are_shown_in_grey_and_in_its_shape(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_grey.py").write_text(GREY)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for n in range(12):
        pixels = rng.integers(0, 256, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{n}.png")
    name = "python:own_grey:net"
    found = ("exemplars", name, "3:0", "--images", "photos", "--k", 2, "--split", "all")
    (row,) = phosphene(*found, "--out", "out", "--json").json()
    assert row["boxes"] == [[0, 0, 1, 1]] * 2, "photographs are cut to 12 × 28 pixels"
    with Image.open(tmp_path / "out" / row["whole"]) as strip:
        assert strip.size == (2 * 28, 12)
        channels = np.asarray(strip.convert("RGB")).astype(int)
    assert np.abs(channels - channels[..., :1]).max() <= 3, "grey, but for the loss of WebP"


def test_what_is_evaluated_of_a_wide_picture_has_no_margin(tmp_path: Path) -> None:
    subject = phosphene.wrap(lively_linear(1), size=(HEIGHT, WIDTH), mean=0.5, std=0.25)
    how = {"prior": "pixels", "steps": 2, "out": tmp_path}
    (record,) = phosphene.synthesize(subject, "conv:0", **how).records
    pixels = shown_pixels(Folder(tmp_path), record)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert answer(subject, torch.from_numpy(images.from_pixels(pixels, 1))[None]) == pytest.approx(
        record.score, abs=1e-5
    )
