"""LayerExemplars against a plain search, however the pass is cut up."""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CI_SAMPLE, Run
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from phosphene import forms, weights
from phosphene.atlas import build
from phosphene.datasets import Stream
from phosphene.errors import BadFile, BadRequest, Notice
from phosphene.images import read_png
from phosphene.probe import probe
from phosphene.studies import _index, exemplars
from phosphene.studies.exemplars import SMALLEST, LayerExemplars, describe, find_exemplars
from phosphene.subjects import Subject
from phosphene.testing import TinyNet, lively
from phosphene.units import Unit

N, SIDE, K = 23, 14, 4
LAYERS = ["conv", "fc"]


@pytest.fixture
def data(tmp_path: Path) -> Stream:
    """Noise, the last picture a copy of the first."""
    for n in range(N):
        pixels = np.random.default_rng(n % (N - 1)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        file = tmp_path / "data" / f"class{n // 10}" / f"{n:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return Stream(tmp_path / "data", "all", SIDE)


@pytest.fixture
def subject() -> Subject:
    return Subject("tiny", lively(TinyNet()), (SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)


def activations(subject: Subject, data: Stream) -> dict[str, Tensor]:
    images = torch.from_numpy(np.stack([pixels for _, pixels, _ in data.photographs()]))
    with torch.no_grad(), probe(subject.network, LAYERS) as read:
        return read(subject.prepare(images.permute(0, 3, 1, 2).float() / 255))


def same(one: dict[str, LayerExemplars], other: dict[str, LayerExemplars]) -> bool:
    parts = ("values", "photographs", "positions", "sample", "silent")
    return one.keys() == other.keys() and all(
        torch.equal(getattr(one[layer], part), getattr(other[layer], part))
        for layer in one
        for part in parts
    )


def test_one_photograph_in_so_many_is_another_data_set(data: Stream, tmp_path: Path) -> None:
    third = Stream(tmp_path / "data", "all", SIDE, 3)
    every, found = list(data.photographs()), list(third.photographs())
    assert [number for number, _, _ in found] == list(range(-(-N // 3)))
    assert all(
        np.array_equal(a[1], b[1]) and a[2] == b[2] for a, b in zip(found, every[::3], strict=True)
    )
    assert (
        third.fingerprint
        != data.fingerprint
        == Stream(tmp_path / "data", "all", SIDE, 1).fingerprint
    )


def test_they_are_what_a_plain_search_finds(subject: Subject, data: Stream, tmp_path: Path) -> None:
    found = find_exemplars(subject, LAYERS, data, tmp_path / "index", k=K, batch=5)
    for layer, values in activations(subject, data).items():
        peaks = values.flatten(2).amax(2) if values.ndim == 4 else values
        for channel in range(values.shape[1]):
            best = sorted(range(N), key=lambda n: (-round(float(peaks[n, channel]), 4), n))[:K]
            assert found[layer].photographs[channel].tolist() == best, (
                "the earlier one first among equals"
            )
            torch.testing.assert_close(found[layer].values[channel], peaks[best, channel])
            if values.ndim == 4:
                for n, (row, column) in zip(
                    best, found[layer].positions[channel].tolist(), strict=True
                ):
                    torch.testing.assert_close(values[n, channel, row, column], peaks[n, channel])
        assert torch.equal(found[layer].silent, (peaks <= 0).sum(0))
        for channel in range(values.shape[1]):
            wanted = peaks[:, channel].quantile(torch.tensor([0.1, 0.5]))
            torch.testing.assert_close(found[layer].quantiles(channel, [0.1, 0.5]), wanted)
        assert found[layer].n_images == N


def test_fewer_photographs_than_exemplars(subject: Subject, data: Stream, tmp_path: Path) -> None:
    found = find_exemplars(subject, ["fc"], data, tmp_path / "index", k=30)["fc"]
    assert (found.photographs[:, :N] >= 0).all()
    assert (found.photographs[:, N:] == -1).all()
    describe(subject, [Unit("fc", 0)], {"fc": found}, data, tmp_path)


def test_an_interrupted_pass_goes_on_and_a_finished_one_is_read(
    subject: Subject, data: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_exemplars(subject, LAYERS, data, tmp_path / "whole", k=K, batch=5)

    class Interrupted(Exception):
        pass

    def stop(seen: int) -> None:
        if seen >= 10:
            raise Interrupted

    file = tmp_path / "index"
    with pytest.raises(Interrupted):
        find_exemplars(subject, LAYERS, data, file, k=K, batch=5, every=-1, report=stop)
    looked: list[int] = []
    again = find_exemplars(subject, LAYERS, data, file, k=K, batch=5, report=looked.append)
    assert looked == [10, 15, 20, 23], "what was safe is not looked at again"
    assert same(again, whole)
    monkeypatch.setattr(_index, "_batches", None)
    assert same(find_exemplars(subject, ["fc"], data, file, k=K), whole)


def test_other_layers_are_added(subject: Subject, data: Stream, tmp_path: Path) -> None:
    find_exemplars(subject, ["fc"], data, tmp_path / "index", k=K)
    both = find_exemplars(subject, ["conv"], data, tmp_path / "index", k=K)
    assert same(both, {**find_exemplars(subject, ["conv", "fc"], data, tmp_path / "other", k=K)})


def test_an_index_of_something_else_and_a_damaged_one_are_refused(
    subject: Subject, data: Stream, tmp_path: Path
) -> None:
    file = tmp_path / "index"
    find_exemplars(subject, ["fc"], data, file, k=K)
    with pytest.raises(
        BadRequest, match=f"holds {K} exemplars of each unit, fewer than {K + 1}; ask"
    ):
        find_exemplars(subject, ["fc"], data, file, k=K + 1)
    with pytest.raises(BadRequest, match="another data"):
        find_exemplars(subject, ["fc"], Stream(tmp_path / "data", "all", SIDE + 1), file, k=K)
    other = replace(subject, mean=(0.1, 0.1, 0.1))  # the same weights, looked through otherwise
    with pytest.raises(BadRequest, match="another subject"):
        find_exemplars(other, ["fc"], data, file, k=K)
    raw = file.read_bytes()
    flipped = raw[:-9] + bytes([raw[-9] ^ 64]) + raw[-8:]
    for damaged in (
        b"",
        b"not an index",
        raw[: len(raw) // 2],
        flipped,
        raw.replace(b'\\"k\\": 4', b'\\"k\\": 9'),
    ):
        file.write_bytes(damaged)
        with pytest.raises((BadFile, BadRequest)) as refused:
            find_exemplars(subject, ["fc"], data, file, k=K)
        assert "\n" not in str(refused.value)


def test_memory_does_not_grow_with_the_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "MAX_SAMPLED", 16)
    found, values = (
        LayerExemplars.none_yet(3, 2),
        torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)),
    )
    for part in values.split(7):
        found.take(part)
    assert len(found.sample) <= 16
    assert torch.equal(found.sample, values[:: found.every]), "evenly spaced, from the first on"


def test_what_is_no_number_is_nobodys_exemplar() -> None:
    found = LayerExemplars.none_yet(1, 2)
    found.take(torch.tensor([[float("nan")], [1.0], [2.0]]))
    assert found.photographs.tolist() == [[2, 1]]


def test_a_tile_is_what_the_unit_sees(subject: Subject, data: Stream, tmp_path: Path) -> None:
    """Each tile of a 3×3 convolution is a corner of the photograph, not more than is seen of it."""
    found = find_exemplars(subject, ["conv"], data, tmp_path / "index", k=1)
    (number,), ((row, column),) = (
        found["conv"].photographs[0].tolist(),
        found["conv"].positions[0].tolist(),
    )
    pixels = next(pixels for n, pixels, _ in data.photographs({number}))
    seen = pixels[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
    describe(subject, [Unit("conv", 0)], found, data, tmp_path)
    side = SMALLEST // SIDE * SIDE
    tile = read_png(tmp_path / "exemplars.png")[6 : 6 + side, 6 : 6 + side]
    middle = tile[side // 2, side // 2].astype(int)
    nearest = seen[len(seen) // 2, seen.shape[1] // 2].astype(int)
    assert np.abs(middle - nearest).max() < 60


def test_units_that_answer_alike_are_near() -> None:
    """A copy of a channel is its nearest, its mirror image the farthest.

    A silent channel is near to none.
    """
    found, one = (
        LayerExemplars.none_yet(4, 2),
        torch.rand(50, generator=torch.Generator().manual_seed(0)),
    )
    found.take(torch.stack([one, -one, 2 * one + 1, torch.zeros(50)], 1))
    assert found.nearest(0) == [(2, 1.0), (1, -1.0)]
    assert found.nearest(3) == []


def test_what_is_told_of_a_unit_lies_beside_its_tiles(
    subject: Subject, data: Stream, tmp_path: Path
) -> None:
    found = find_exemplars(subject, ["conv"], data, tmp_path / "index", k=K)
    form = describe(subject, [Unit("conv", 1)], found, data, tmp_path)
    form.write(tmp_path / "exemplars.json")
    assert forms.Exemplars.read(tmp_path / "exemplars.json") == form
    assert (form.seen, form.k, form.tile, form.split) == (N, K, SIDE, "all")
    (row,) = form.units
    labels = {number: label for number, _, label in data.photographs()}
    assert list(row.classes) == [labels[number] for number in row.photographs]
    files = sorted((tmp_path / "data").glob("*/*"))
    assert list(row.files) == [str(files[number]) for number in row.photographs]
    assert read_png(tmp_path / row.whole).shape == (SIDE, K * SIDE, 3)
    (row_, column), (top, left, bottom, right) = row.positions[0], row.boxes[0]
    assert (top * SIDE, left * SIDE) == (max(0, row_ - 1), max(0, column - 1))
    assert (bottom * SIDE, right * SIDE) == (min(SIDE, row_ + 2), min(SIDE, column + 2))


def test_fewer_exemplars_come_out_of_an_index_that_has_more(
    subject: Subject, data: Stream, tmp_path: Path
) -> None:
    """Of one that is whole, and of one that was interrupted, which goes on with all of its own."""
    few = find_exemplars(subject, LAYERS, data, tmp_path / "few", k=2, batch=5)
    find_exemplars(subject, LAYERS, data, tmp_path / "more", k=K, batch=5)
    looked: list[int] = []
    found = find_exemplars(subject, LAYERS, data, tmp_path / "more", k=2, report=looked.append)
    assert same(found, few)
    assert looked == []

    def stop(seen: int) -> None:
        if seen > 10:
            raise KeyboardInterrupt

    half = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        find_exemplars(subject, LAYERS, data, half, k=K, batch=5, every=-1, report=stop)
    assert same(find_exemplars(subject, LAYERS, data, half, k=2, batch=5), few)
    whole = find_exemplars(subject, LAYERS, data, tmp_path / "more", k=K)
    assert same(find_exemplars(subject, LAYERS, data, half, k=K), whole)


def test_a_layer_that_is_added_keeps_what_the_index_has(
    subject: Subject, data: Stream, tmp_path: Path
) -> None:
    find_exemplars(subject, ["fc"], data, tmp_path / "index", k=K)
    find_exemplars(subject, ["conv"], data, tmp_path / "index", k=1)
    both = find_exemplars(subject, LAYERS, data, tmp_path / "index", k=K)
    assert same(both, find_exemplars(subject, LAYERS, data, tmp_path / "other", k=K))


@pytest.mark.parametrize(
    ("size", "side", "pixels", "wanted"),
    [
        ((14, 14), 2048, 100, (10, 10)),
        ((2500, 2500), 2048, 16_000_000, (2048, 2048)),
        ((36, 64), 2048, 16_000_000, (36, 64)),
        ((30, 60), 20, 16_000_000, (10, 20)),
        ((60, 30), 2048, 200, (20, 10)),
        ((1, 5000), 2048, 16_000_000, (1, 2048)),
    ],
)
def test_a_tile_keeps_the_proportions_of_the_photographs(
    size: tuple[int, int], side: int, pixels: int, wanted: tuple[int, int]
) -> None:
    assert exemplars._within(size, side, pixels) == wanted


def test_what_a_unit_sees_of_a_wide_photograph_is_cut_along_both_sides() -> None:
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[5:, 10:] = 255
    assert (exemplars.cut_out(picture, (0.5, 0.5, 1, 1)) == 255).all()
    assert (exemplars.cut_out(picture, (0, 0, 0.5, 1))[3:7] == 0).all()
    assert exemplars.cut_out(picture, (0, 0, 1, 0.25)).shape == (10, 20, 3)


def test_a_strip_that_no_line_of_webp_holds_has_several(subject: Subject, tmp_path: Path) -> None:
    """And the atlas finds each photograph in it."""
    n, side = 1300, SIDE
    folder = tmp_path / "data" / "ant"
    folder.mkdir(parents=True)
    for i in range(n):
        grey = Image.fromarray(np.full((side, side, 3), 255 * i // n, np.uint8))
        grey.save(folder / f"{i:04}.png")
    data = Stream(tmp_path / "data", "all", side)
    found = find_exemplars(subject, ["fc"], data, tmp_path / "index", k=n)
    form = describe(subject, [Unit("fc", 1)], found, data, tmp_path / "run")
    form.write(tmp_path / "run" / "exemplars.json")
    (row,) = form.units
    strip = read_png(tmp_path / "run" / row.whole).astype(int)
    columns = 16_383 // side
    assert strip.shape == (2 * side, columns * side, 3)
    for place in (0, 1, columns - 1, columns, n - 1):
        line, column = divmod(place, columns)
        tile = strip[line * side :, column * side :][2 : side - 2, 2 : side - 2]
        assert np.abs(tile - 255 * row.photographs[place] // n).max() < 6, place
    build([tmp_path / "run"], tmp_path / "site")
    page = (tmp_path / "site" / "tiny" / "fc" / "1.html").read_text()
    assert f'viewBox="0.0 {side}.0 {side}.0 {side}.0"' in page  # the first of the second line
    assert f'width="{columns * side}" height="{2 * side}"' in page


def test_a_thousand_large_photographs_make_a_strip_that_can_be_read(
    subject: Subject, data: Stream, tmp_path: Path
) -> None:
    pictures = [np.full((300, 300, 3), n % 256, np.uint8) for n in range(1000)]
    tall = exemplars._strip(pictures, (126, 126))
    assert max(tall.shape) <= 16_383
    assert tall.shape[0] * tall.shape[1] <= exemplars.MAX_STRIP + 126 * 16_383
    large = Stream(tmp_path / "data", "all", 2500)
    found = find_exemplars(subject, ["fc"], data, tmp_path / "index", k=3)
    form = describe(subject, [Unit("fc", 1)], found, large, tmp_path / "run")
    form.write(tmp_path / "run" / "exemplars.json")
    assert form.tile == 2048  # the largest that an atlas takes
    build([tmp_path / "run"], tmp_path / "site")


def test_photographs_are_read_in_parts_that_fit_into_memory(
    subject: Subject, data: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_exemplars(subject, ["conv"], data, tmp_path / "index", k=K)
    units = [Unit("conv", channel) for channel in range(6)]
    form = describe(subject, units, found, data, tmp_path / "whole")
    monkeypatch.setattr(exemplars, "MAX_HELD", 3 * SIDE**2 * (K + 1))
    assert describe(subject, units, found, data, tmp_path / "parts") == form
    for name in ("exemplars.png", *(row.whole for row in form.units)):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_layers_that_are_named_nearly_alike_have_their_own_strips(
    data: Stream, tmp_path: Path
) -> None:
    one, other = torch.nn.Conv2d(3, 2, 3), torch.nn.Conv2d(2, 2, 3)
    network = torch.nn.Sequential(OrderedDict([("a_b", one), ("A-b", other)]))
    subject = Subject("alike", lively(network), (SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)
    found = find_exemplars(subject, ["a_b", "A-b"], data, tmp_path / "index", k=1)
    rows = describe(subject, [Unit("a_b", 0), Unit("A-b", 0)], found, data, tmp_path).units
    assert len({row.whole.lower() for row in rows}) == 2


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_by_command(phosphene: Run, tmp_path: Path) -> None:
    """On real photographs and the bundled network; what cannot be is told in one line."""
    words = (
        "exemplars",
        "caffenet-objects",
        "--images",
        CI_SAMPLE,
        "--out",
        tmp_path / "e",
        "--device",
        "cpu",
    )
    rows = phosphene(*words, "conv5:3", "fc8:5", "--split", "val", "--json").json()
    assert [row["unit"] for row in rows] == ["conv5:3", "fc8:5"]
    assert all(
        row["seen"] == 100 and row["values"] == sorted(row["values"], reverse=True) for row in rows
    )
    assert (tmp_path / "e" / "exemplars.png").exists()
    assert "of one channel each" in phosphene(*words, "conv5:3@2,2").refused()
    assert "another data" in phosphene(*words, "fc8:3", "--split", "train").refused()


# ---------------------------------------------------------------- photographs as they are


def test_a_damaged_photograph_changes_nothing_of_the_others(
    subject: Subject, data: Stream, tmp_path: Path
) -> None:
    whole = find_exemplars(subject, LAYERS, data, tmp_path / "whole", k=N)
    damaged = {3, 10, N - 1}
    for number, place in data.places(damaged).items():
        Path(place).write_bytes(b"none")
    again = Stream(tmp_path / "data", "all", SIDE)
    file = tmp_path / "index"

    class Interrupted(Exception):
        pass

    def stop(seen: int) -> None:
        if seen > 10:
            raise Interrupted

    with pytest.raises(Interrupted):
        find_exemplars(subject, LAYERS, again, file, k=N, batch=3, every=-1, report=stop)
    for _ in range(2):  # what is left of the pass, and the index read
        again = Stream(tmp_path / "data", "all", SIDE)
        with pytest.warns(Notice, match=f"3 of {N} photographs cannot be read.*03.png"):
            found = find_exemplars(subject, LAYERS, again, file, k=N, batch=3)
    for layer in LAYERS:
        one, other = whole[layer], found[layer]
        assert (other.n_images, other.after) == (N - 3, N)
        assert other.numbers.tolist() == other.whole == sorted({*range(N)} - damaged)
        torch.testing.assert_close(other.sample, one.sample[other.numbers])
        for channel in range(len(one.silent)):
            kept = [n for n in one.best(channel) if n not in damaged]
            assert other.best(channel) == kept
    form = describe(subject, [Unit("fc", 0)], found, again, tmp_path)
    assert form.units[0].seen == N - 3
    with pytest.raises(Interrupted):  # other layers: a new pass, which knows the damage of the old
        find_exemplars(subject, ["block.0"], again, file, k=N, batch=3, every=-1, report=stop)
    both = find_exemplars(subject, ["block.0", *LAYERS], again, file, k=N, batch=3)
    assert all(same({layer: both[layer]}, {layer: found[layer]}) for layer in LAYERS)
    assert len(form.left_out) == 3
    assert "03.png" in form.left_out[0]


def test_where_no_photograph_can_be_read_that_is_said(
    subject: Subject, data: Stream, tmp_path: Path
) -> None:
    for place in data.places(range(N)).values():
        Path(place).write_bytes(b"none")
    with pytest.raises(BadFile, match=f"none of {N} photographs can be read"):
        find_exemplars(subject, ["fc"], data, tmp_path / "index", k=K)


def test_a_photograph_that_changes_within_its_size_is_noticed(
    subject: Subject, tmp_path: Path
) -> None:
    for i, level in enumerate((10, 200)):
        file = tmp_path / "data" / f"{i}.bmp"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (level,) * 3).save(file)
    index = tmp_path / "index"
    find_exemplars(subject, ["fc"], Stream(tmp_path / "data", "all", SIDE), index, k=1)
    size = file.stat().st_size
    Image.new("RGB", (SIDE, SIDE), (90,) * 3).save(file)
    assert file.stat().st_size == size
    with pytest.raises(BadRequest, match="another data"):
        find_exemplars(subject, ["fc"], Stream(tmp_path / "data", "all", SIDE), index, k=1)


def former_index(subject: Subject, data: Stream, file: Path, tmp_path: Path) -> None:
    """Write the index as version 0.1.0 wrote it.

    It is told by names and sizes, and does not say whose the sample is.
    """
    found = find_exemplars(subject, LAYERS, data, file, k=K)
    parts = [Path(place) for place in data.places(range(N)).values()]
    sizes = "".join(f"{'/'.join(part.parts[-2:])}:{part.stat().st_size};" for part in parts)
    print_of = hashlib.sha256(f"all:{SIDE}:None{sizes}".encode()).hexdigest()
    with safe_open(file, "pt") as kept:
        said = json.loads(kept.metadata()["phosphene"])
        names = {*kept.keys()} - {f"{layer}.numbers" for layer in LAYERS}
        tensors = {name: kept.get_tensor(name) for name in names}
    del said["damaged"], said["digest"]
    flat = {**said.pop("identity"), "format": 1, "finished": True, "data": print_of}
    text = json.dumps({**said, **flat})
    save_file(tensors, file, {"phosphene": text, "digest": weights.digest_of(tensors, text)})
    assert found["fc"].numbers.tolist() == list(range(N))


def test_an_index_of_version_0_1_0_opens_where_its_photographs_are_the_same(
    subject: Subject, data: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "index"
    former_index(subject, data, file, tmp_path)
    whole = find_exemplars(subject, LAYERS, data, tmp_path / "new", k=K)
    with monkeypatch.context() as patch:
        patch.setattr(_index, "_batches", None)
        with pytest.warns(Notice, match="none was written since"):
            found = find_exemplars(subject, LAYERS, data, file, k=K)
    assert same(found, whole)
    assert torch.equal(found["fc"].numbers, whole["fc"].numbers)
    place = Path(data.places({0})[0])
    os.utime(place)  # as a copy has it
    with pytest.warns(Notice, match=r"version 0\.1\.0.*they give what it says.*delete it"):
        assert same(find_exemplars(subject, LAYERS, data, file, k=K), whole)
    size = place.stat().st_size
    raw = b"".join(Path(data.places({1})[1]).read_bytes() for _ in range(2))[:size]
    place.write_bytes(raw.ljust(size, b"\0"))
    changed = Stream(tmp_path / "data", "all", SIDE)
    with pytest.raises(BadRequest, match=r"written after it: delete it, or give another --out"):
        find_exemplars(subject, LAYERS, changed, file, k=K)


@pytest.mark.parametrize("flat", ["", "one/two"])
def test_photographs_without_classes_by_command(
    phosphene: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: str
) -> None:
    for n in range(4):
        file = tmp_path / "photos" / (flat and f"{flat}/{n % 2}") / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(file)
    monkeypatch.chdir(tmp_path / "photos")
    options = ("--images", ".", "--k", 2, "--out", tmp_path / "out", "--device", "cpu")
    said = phosphene("exemplars", zoo / "subject.safetensors", "fc8:0", *options, "--json")
    assert len(said.json()[0]["photographs"]) == 2
    assert said.err == ""
    assert json.loads((tmp_path / "out" / "exemplars.json").read_text())["data"] == "photos"
    (tmp_path / "photos" / "x.heic").write_bytes(b"a phone's")
    again = phosphene("exemplars", zoo / "subject.safetensors", "fc8:0", *options)
    assert again.fine()
    assert again.err.count("left out") == 1
    assert "1 .heic; the first is x.heic" in again.err
    assert "kept the pass of an earlier run over 4 photographs" in again.err


def test_names_that_are_not_utf_8_by_command(phosphene: Run, zoo: Path, tmp_path: Path) -> None:
    folder, out = (tmp_path / os.fsdecode(name) for name in (b"s\xe9t", b"out\xe9"))
    for n in range(3):
        file = folder / "train" / os.fsdecode(b"caf\xe9") / os.fsdecode(b"photo\xe9%d.png" % n)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (80 * n,) * 3).save(file, "PNG")
    command = ("exemplars", zoo / "subject.safetensors", "fc8:0", "--images", folder, "--k", 3)
    for _ in range(2):
        rows = phosphene(*command, "--out", out, "--device", "cpu", "--json").json()
        assert {Path(place) for place in rows[0]["files"]} == {*(folder / "train").glob("*/*")}
    said = json.loads((out / "exemplars.json").read_text())
    assert (said["data"], said["classes"]) == (r"s\xe9t", [r"caf\xe9"])
    assert phosphene("atlas", out, "--out", tmp_path / os.fsdecode(b"site\xe9")).fine()


def test_a_logit_below_zero_is_not_called_silent(
    phosphene: Run, zoo: Path, data: Stream, tmp_path: Path
) -> None:
    """A channel behind a ReLU is, where it answers with 0."""
    words = ("exemplars", zoo / "subject.safetensors", "--images", tmp_path / "data")
    lines = phosphene(*words, "fc8:1", "conv5:1", "--out", tmp_path / "out").fine().splitlines()
    (logit,) = (line for line in lines if "fc8:1" in line)
    (channel,) = (line for line in lines if "conv5:1" in line)
    assert "%" not in logit
    assert "%" in channel
