"""The call for Python.

Every slip is one clear line, results can be cut and kept, and a stopped call goes on.
"""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import phosphene
from phosphene.cli.shell import choose_machine
from phosphene.errors import BadRequest, PhospheneError, UnknownName
from phosphene.forms import Evaluation, Record
from phosphene.images import read_png, write_png
from phosphene.pictures import folder as pictures_folder
from phosphene.plain import Plain
from phosphene.priors import Generated
from phosphene.priors.pixels import Pixels
from phosphene.progress import shown
from phosphene.subjects import Subject
from phosphene.tables import Table
from phosphene.testing import VIEW, TinyNet, hook_count, lively, tiny_photographs
from phosphene.units import Direction, Target, Unit

FEW: dict[str, Any] = {"prior": "pixels", "size": (VIEW, VIEW), "steps": 3}


def network() -> nn.Module:
    return lively(TinyNet())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": "0-3"}, "seeds are whole numbers such as 3 or [0, 1]; got '0-3'"),
        ({"seeds": 0.5}, "seeds are whole numbers such as 3 or [0, 1]; got 0.5"),
        ({"seeds": []}, "no seeds given; for example 0 or [0, 1]"),
        ({"seeds": -1}, "seeds lie in 0 … 9,007,199,254,740,992; got -1"),
        ({"batch": 0}, "batch must be a whole number in 1 … 4,096; got 0"),
        ({"batch": 2.5}, "batch must be a whole number in 1 … 4,096; got 2.5"),
        ({"device": "gpu"}, "device 'gpu' is not here; there are: cpu"),
        ({"precision": "float16"}, "no precision 'float16'; there are: float32, bfloat16"),
        ({"stepps": 3}, "a climb has no setting 'stepps'; near: steps"),
        ({"steps": -3}, "steps must be a whole number in 0 … 100,000; got -3"),
        ({"decay": 0.0}, "decay must be a number in 1e-06 … 1; got 0.0"),
        ({"blur": 99.0}, "blur 99 is too wide for the 14 pixels that are seen"),
        ({"climb": 3}, "a climb is a name or a phosphene.Climb; got 3"),
        ({"climb": "paper"}, "for pixels and fourier use climb default"),
        ({"prior": 3}, "a prior is a generator's name or file, pixels or fourier; got 3"),
        ({"start": 3}, "a start is random, mean, or an image as a tensor; got 3"),
        ({"every_frame": -1}, "every_frame must be a whole number from 0 on; got -1"),
        ({"units": 3}, "units are texts such as 'conv5:7'; got 3"),
        ({"units": [0, 1]}, "a unit is a text such as 'fc:0'; got 0"),
        ({"units": [None]}, "a unit is a text such as 'fc:0'; got None"),
    ],
    ids=str,
)
def test_a_slip_is_one_line_without_options(given: dict[str, Any], said: str) -> None:
    units = given.pop("units", "fc:0")
    with pytest.raises(PhospheneError) as caught:
        phosphene.synthesize(network(), units, **{**FEW, **given})
    assert said in str(caught.value)
    assert "--" not in str(caught.value)
    given["units"] = units


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_one_line() -> None:
    for device in ("cuda", "cuda:1"):
        with pytest.raises(BadRequest, match=f"device '{device}' is not here; there are: cpu"):
            phosphene.synthesize(network(), "fc:0", device=device, **FEW)


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, *, pixel_values: Tensor) -> Tensor:
        return self.conv(pixel_values)


def test_a_network_that_takes_no_images_is_one_line() -> None:
    with pytest.raises(BadRequest, match="its forward must take one tensor of images"):
        phosphene.synthesize(ByKeyword(), "conv:0", **FEW)


@pytest.mark.parametrize("seeds", [3, np.int64(3), (3,), range(3, 4), np.array([3])])
def test_a_seed_may_be_a_number_or_several(seeds: Any) -> None:
    (only,) = phosphene.synthesize(network(), "fc:0", seeds=seeds, **FEW).members
    assert only.seed == 3


@pytest.mark.parametrize(
    "unit",
    ["conv:1", Unit("conv", 1), Target(((1.0, Unit("conv", 1)),)), [Unit("conv", 1)]],
    ids=["text", "unit", "target", "list"],
)
def test_a_unit_may_be_a_text_or_a_value(unit: Any) -> None:
    result = phosphene.synthesize(network(), unit, **FEW)
    assert [str(member.target) for member in result.members] == ["conv:1"]
    along = Direction("conv", (0.0, 1.0, 0.0, 0.0, 0.0, 0.0), "centre", "second")
    same = phosphene.synthesize(network(), along, **FEW)
    torch.testing.assert_close(same.scores, result.scores)


def test_settings_of_the_climb_change_the_one_that_suits_the_prior() -> None:
    result = phosphene.synthesize(network(), "fc:0", tv=0.25, **FEW)
    climb = phosphene.CLIMBS["pixels"]
    assert result.curves.shape == (1, 3)
    assert result.records[0].request["climb"]["tv"] == 0.25
    assert result.records[0].request["climb"]["options"] == climb.options


def test_python_takes_the_machine_as_the_command_line_does() -> None:
    request = phosphene.synthesize(network(), "fc:0", **FEW).records[0].request
    machine = choose_machine("auto", "auto", 0)
    assert {name: request[name] for name in machine} == machine


# ---------------------------------------------------------------- results


def test_a_result_is_short_and_can_be_cut(generated: Generated, subject: Subject) -> None:
    result = phosphene.synthesize(
        subject, "fc:0-4", prior=generated, steps=4, seeds=[0, 1], every_frame=2
    )
    assert re.fullmatch(r"<PreferredInputs: (fc:\d -?[\d.]+, ){4}and 6 more>", repr(result))
    assert len(repr(result[:2])) < 60
    part = result[2:5]
    assert part.members == result.members[2:5]
    assert part.records == result.records[2:5]
    for name in ("images", "codes", "scores", "start_scores", "curves", "kept", "last_scores"):
        assert torch.equal(getattr(part, name), getattr(result, name)[2:5])
    assert torch.equal(part.frames, result.frames[:, 2:5])
    assert [len(each) for each in result] == [1] * 10
    assert torch.equal(result[-1].images, result.images[9:])
    with pytest.raises(IndexError):
        result[10]


def test_a_result_saves_what_the_command_line_remakes(
    phosphene: Any, zoo: Path, tmp_path: Path
) -> None:
    from phosphene.notebook import synthesize

    subject, prior = str(zoo / "subject.safetensors"), str(zoo / "generator.safetensors")
    result = synthesize(subject, "fc8:0-1", prior=prior, steps=3, seeds=2)
    folder = result.save(tmp_path / "saved")
    names = sorted(file.name for file in folder.iterdir())
    assert names == sorted(
        ["contact-sheet.png", *(name for r in result.records for name in (r.image, r.input))]
        + [Path(r.image).with_suffix(".json").name for r in result.records]
    )
    assert result.save(folder) == folder, "the same pictures may be saved again"
    other = synthesize(subject, "fc8:0", prior=prior, steps=4, seeds=2)
    with pytest.raises(BadRequest, match="is a picture of another run"):
        other.save(folder)
    file = folder / Path(result.records[0].image).with_suffix(".json")
    assert Record.read(file) == result.records[0]
    said = phosphene("synthesize", "--record", file, "--out", tmp_path / "again")
    said.fine()
    assert "not the same bits" not in said.err


def test_a_climb_of_ones_own_has_no_records_to_save(
    subject: Subject, generated: Generated, tmp_path: Path
) -> None:
    from phosphene.synthesis import Climb, Member, climb_batch

    result = climb_batch(
        subject, [Member(Target(((1.0, Unit("fc", 0)),)), 0)], generated, Climb.of(steps=1)
    )
    with pytest.raises(BadRequest, match=r"only what phosphene\.synthesize returned"):
        result.save(tmp_path / "none")


# ---------------------------------------------------------------- kept as it goes


def test_a_call_that_was_stopped_goes_on(
    subject: Subject, generated: Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = phosphene.synthesize(subject, "fc:0-5", prior=generated, steps=3, batch=2)
    call: dict[str, Any] = {"prior": generated, "steps": 3, "batch": 2, "out": tmp_path / "kept"}
    climb, left = pictures_folder.climb_batch, [2]

    def stopped(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return climb(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pictures_folder, "climb_batch", stopped)
        with pytest.raises(KeyboardInterrupt):
            phosphene.synthesize(subject, "fc:0-5", **call)
    assert hook_count(subject.network) == 0
    assert len(list((tmp_path / "kept").glob("*.json"))) == 4
    with monkeypatch.context() as patch:
        left[0] = 1
        patch.setattr(pictures_folder, "climb_batch", stopped)
        result = phosphene.synthesize(subject, "fc:0-5", **call)
    assert result.members == whole.members
    assert result.statuses == whole.statuses
    torch.testing.assert_close(result.images, whole.images)
    torch.testing.assert_close(result.scores, whole.scores)
    torch.testing.assert_close(result.curves, whole.curves, rtol=0, atol=1e-5)
    assert torch.equal(result.kept, whole.kept)
    assert result.codes[:4].isnan().all(), "a folder holds no codes"
    assert torch.equal(result.codes[4:], whole.codes[4:])
    for record in result.records:
        assert np.array_equal(
            read_png(tmp_path / "kept" / record.image), result.picture(result.records.index(record))
        )
    with pytest.raises(BadRequest, match=r"was made with another climb \(steps 3, now 4\)") as told:
        phosphene.synthesize(subject, "fc:0", **{**call, "steps": 4})
    assert "--" not in str(told.value)


def test_another_network_of_the_same_name_is_not_taken_for_the_same(tmp_path: Path) -> None:
    first, second = network(), network()
    second.fc.weight.data *= 2
    made = phosphene.synthesize(first, "fc:0", out=tmp_path, **FEW)
    other = phosphene.synthesize(second, "fc:0", out=tmp_path, **FEW)
    assert other.scores[0] != made.scores[0]
    assert not other.codes.isnan().any(), "it was climbed"


def test_progress_is_shown_where_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("phosphene.progress.EVERY", -1.0)
    phosphene.synthesize(network(), "fc:0-1", **FEW)
    assert capsys.readouterr().err == "", "neither a terminal nor a notebook"
    phosphene.synthesize(network(), "fc:0-1", quiet=False, **FEW)
    assert "climbing: 6 of 6 steps" in capsys.readouterr().err


def test_priors_that_lie_in_memory_are_told_apart(subject: Subject) -> None:
    names = [
        phosphene.synthesize(subject, "fc:0", prior=prior, steps=1).records[0].request["prior"]
        for prior in ("pixels", Pixels(16, 14), Pixels(18, 14))
    ]
    assert names == ["pixels", "Pixels(16, 14) given in Python", "Pixels(18, 14) given in Python"]


def test_a_result_says_which_unit_did_not_climb() -> None:
    shut = network()
    nn.init.zeros_(shut.fc.weight[1])
    result = phosphene.synthesize(shut, ["fc:0", "fc:1"], **FEW)
    assert "(" not in repr(result[0])
    assert repr(result[1]).endswith("(no higher than its start)>")
    with pytest.raises(phosphene.PhospheneError, match="no picture in this part"):
        result[2:].save("nowhere")


def test_what_is_given_is_told_shortly() -> None:
    image = np.zeros((3, 73, 73), "float32")
    for slip in ({"start": image}, {"seeds": image + 0.5}):
        with pytest.raises(phosphene.PhospheneError, match=r"got array\(.{,40}$"):
            phosphene.synthesize(network(), "fc:0", **{**FEW, **slip})


# ---------------------------------------------------------------- what the other commands do


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders of eight photographs to search in, and eight that are held out."""
    for split in ("train", "val"):
        for number, image in enumerate(tiny_photographs(8).images):
            file = tmp_path / "photos" / split / f"class{number % 2}" / f"{number}.png"
            write_png(file, image)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s, p: phosphene.layers("caffenet-objectz"), "near: caffenet-objects"),
        (lambda s, p: phosphene.layers(s)["fc9"], "has no layer 'fc9'; near: fc"),
        (lambda s, p: phosphene.layers(s, fit="pad"), "a Subject has its own fit"),
        (lambda s, p: phosphene.exemplars(s, "fc9:0", p), "has no layer 'fc9'; near: fc"),
        (lambda s, p: phosphene.exemplars(s, "fc:99", p), "fc has 10 channels, 0 … 9; got 99"),
        (lambda s, p: phosphene.exemplars(s, [], p), "no units given; for example 'conv5:7'"),
        (lambda s, p: phosphene.exemplars(s, 3, p), "units are texts such as 'conv5:7'; got 3"),
        (lambda s, p: phosphene.exemplars(s, "fc:0", "nowhere"), "nowhere is not a folder"),
        (lambda s, p: phosphene.exemplars(s, "fc:0", p, k=0), "k must be a whole number in 1"),
        (lambda s, p: phosphene.exemplars(s, "fc:0", p, split="test"), "no split 'test'"),
        (lambda s, p: phosphene.exemplars(s, "fc:0", p, device="gpu"), "device 'gpu' is not here"),
        (lambda s, p: phosphene.dissect(s, "conv", p), "has no outlined objects"),
        (lambda s, p: phosphene.exemplars(s, "fc:0", 3), "images is a path; got an int"),
        (lambda s, p: phosphene.dissect(s, "conv", 3), "images is a path; got an int"),
        (lambda s, p: phosphene.evaluate(3), "run is a path; got an int"),
        (lambda s, p: phosphene.evaluate(p, p, photographs=0), "from 1 on; got 0"),
        (lambda s, p: phosphene.reconstruct(torch.zeros(3, 0, 0)), "got [3, 0, 0]"),
        (lambda s, p: phosphene.load_record(3), "a record is a path; got an int"),
        (lambda s, p: phosphene.Loop("objects-fc6", "evolution", p), "a loop's prior is a Prior"),
        (lambda s, p: phosphene.evaluate("nowhere"), "nowhere is no folder of pictures"),
        (lambda s, p: phosphene.evaluate("nowhere", p), "no weights 'nowhere'"),
        (lambda s, p: phosphene.evaluate(p, p), "holds no records"),
        (lambda s, p: phosphene.evaluate(p, p, encoder="x"), "encoder is of a generator"),
        (lambda s, p: phosphene.evaluate(p, p, out="x"), "keeps its own evidence"),
        (lambda s, p: phosphene.evaluate("objects-fc6", p, control=p), "says nothing of a gener"),
        (lambda s, p: phosphene.reconstruct("nowhere.jpg"), "nowhere.jpg does not exist"),
        (lambda s, p: phosphene.reconstruct(3), "an image is a file, a picture or a tensor"),
        (lambda s, p: phosphene.reconstruct(torch.full((3, 9, 9), 2.0)), "of floats in 0 … 1"),
        (lambda s, p: phosphene.reconstruct("x.jpg", out="x.xyz"), "no picture is written as"),
        (lambda s, p: phosphene.load_record(p), "is a folder; give a record in it"),
        (lambda s, p: phosphene.load_record("nowhere.json"), "nowhere.json cannot be read"),
        (lambda s, p: phosphene.atlas("nowhere"), "nowhere is not a folder"),
        (lambda s, p: phosphene.atlas([]), "no folder or result given"),
        (lambda s, p: phosphene.atlas([3]), "pages are of folders and of results; got an int"),
        (lambda s, p: phosphene.atlas(p, out=3), "out is a path; got an int"),
        (lambda s, p: phosphene.atlas(p, title=3), "a title is a text; got an int"),
        (lambda s, p: phosphene.synthesize(s, "fc:0", out=3), "out is a path; got an int"),
        (lambda s, p: phosphene.exemplars(s, "fc:0", p, out=3), "out is a path; got an int"),
        (lambda s, p: phosphene.reconstruct("x.jpg", out=3), "out is a path; got an int"),
        (lambda s, p: phosphene.evaluate(p, p, trust=3), "trust is a name or several; got 3"),
        (lambda s, p: phosphene.layers("caffenet-objects", inputs=[1]), "inputs are a dict of"),
        (lambda s, p: phosphene.layers("mine.safetensors"), "mine.safetensors does not exist"),
        (lambda s, p: phosphene.layers(str(p)), "is a folder; give a .safetensors file"),
        (lambda s, p: phosphene.layers(s)[None], "has no layer None; near: "),
        (lambda s, p: phosphene.layers(s).save(3), "file is a path; got an int"),
    ],
)
def test_a_slip_of_any_call_is_one_line(
    call: Any, said: str, subject: Subject, photos: Path
) -> None:
    with pytest.raises(PhospheneError) as caught:
        call(subject, photos)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hook_count(subject.network) == 0


def test_the_table_of_layers_is_that_of_the_command_line(
    phosphene: Any, zoo: Path, tmp_path: Path
) -> None:
    from phosphene.notebook import layers

    name = str(zoo / "subject.safetensors")
    found = layers(name)
    assert found.as_json() == phosphene("layers", name, "--json").json()
    printed = phosphene("layers", name).fine()
    assert all(cell in printed for layer in found for cell in layer.cells())
    assert found["fc8"] == found[-1] == found[np.int64(len(found) - 1)]
    assert json.loads(found.save(tmp_path / "layers.json").read_text()) == found.as_json()
    assert [layer.name for layer in found] == [found[i].name for i in range(len(found))]
    assert len(repr(found)) < 300
    assert "<th>receptive field</th>" in found._repr_html_()


def test_exemplars_are_those_of_the_command_line(
    phosphene: Any, zoo: Path, photos: Path, tmp_path: Path
) -> None:
    from phosphene.notebook import exemplars

    name = str(zoo / "subject.safetensors")
    found = exemplars(name, ["fc8:0", "conv1:1"], photos, k=3)
    phosphene(
        "exemplars", name, "fc8:0", "conv1:1", "--images", photos, "--k", 3, "--out", tmp_path / "c"
    ).fine()
    kept = found.save(tmp_path / "p")
    names = sorted(str(each.relative_to(kept)) for each in kept.rglob("*") if each.is_file())
    there = tmp_path / "c"
    assert names == sorted(str(f.relative_to(there)) for f in there.rglob("*") if f.is_file())
    assert (kept / "exemplars.json").read_bytes() == (there / "exemplars.json").read_bytes()
    assert [row.unit for row in found] == ["fc8:0", "conv1:1"]
    assert found["conv1:1"] == found[1]
    (best, *others) = found.photographs("conv1:1")
    assert len(others) == 2
    assert best.shape == (found.form.tile_height or found.form.tile, found.form.tile, 3)
    assert repr(found) == "<ExemplarResult of 2 units: fc8:0, conv1:1>"
    assert found._repr_png_() == (kept / "exemplars.png").read_bytes()
    with pytest.raises(UnknownName, match="no unit 'conv1:2' in this result; near: conv1:1"):
        found["conv1:2"]


def test_files_without_a_folder_go_with_their_result(subject: Subject, photos: Path) -> None:
    found = phosphene.exemplars(subject, "fc:0", photos, k=2)
    folder = found.folder
    assert folder.is_dir()
    del found
    gc.collect()
    assert not folder.exists()


def test_pictures_in_memory_are_evaluated_beside_photographs(
    subject: Subject, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torchmetrics")
    made = phosphene.synthesize(subject, ["fc:0", "conv:1"], seeds=[0, 1], prior="pixels", steps=2)
    with pytest.raises(BadRequest, match="no name finds 'tiny' again; give the network itself"):
        phosphene.evaluate(made, photos, judge=subject)
    found = phosphene.evaluate(made, photos, judge=subject, subject=subject, out=tmp_path / "kept")
    assert [*found.layers] == ["conv", "fc"]
    assert found["fc:0"] == found["fc"].units[0]
    assert found["conv"].figures["activation_ratio"].n == 1
    with pytest.raises(BadRequest, match="there are figures of conv, fc; take"):
        _ = found.figures
    with pytest.raises(UnknownName, match="no layer or unit 'fc:3' here; near: fc"):
        found["fc:3"]
    assert all((tmp_path / "kept" / name).is_file() for name in found.files)
    saved = found.save(tmp_path / "saved")
    assert Evaluation.read(saved / found.files[0]).units == found["conv"].units
    assert "activation_ratio" in str(found)
    assert "<table>" in found._repr_html_()


def test_a_record_is_loaded_and_makes_its_picture_again(zoo: Path, tmp_path: Path) -> None:
    names = {"subject": "subject", "prior": "generator"}
    files = {part: str(zoo / f"{name}.safetensors") for part, name in names.items()}
    made = phosphene.synthesize(**files, units="fc8:0-1", steps=3, out=tmp_path / "kept")
    file = tmp_path / "kept" / made.records[1].image
    saved = phosphene.load_record(file)
    assert saved.record == made.records[1]
    assert saved.file == file.with_suffix(".json")
    assert np.array_equal(saved.pixels, made.picture(1))
    again = saved.remake()
    assert saved.differences(again) == ""
    assert torch.equal(again.images, made[1].images)
    other = phosphene.synthesize(**files, units="fc8:1", steps=4, seeds=1)
    assert saved.differences(other)
    with pytest.raises(BadRequest, match=r"a result of 2, so take one: result\[0\]"):
        saved.differences(made)
    assert saved._repr_png_().startswith(b"\x89PNG")


def test_pages_are_made_of_results(subject: Subject, photos: Path, tmp_path: Path) -> None:
    made = phosphene.synthesize(subject, ["fc:0", "conv:1"], prior="pixels", steps=2)
    found = phosphene.exemplars(subject, "fc:0", photos, k=2)
    pages = phosphene.atlas([made, found], out=tmp_path / "pages", title="Two units")
    assert sorted(pages) == ["conv:1", "fc:0"]
    assert "Two units" in pages.index.read_text(encoding="utf-8")
    assert "exemplars" in pages["fc:0"].read_text(encoding="utf-8").lower()
    with pytest.raises(UnknownName, match="no page of 'fc:1'; near: fc:0"):
        pages["fc:1"]


def test_a_photograph_is_reconstructed_from_a_file_a_picture_and_a_tensor(
    zoo: Path, tmp_path: Path
) -> None:
    prior = str(zoo / "generator.safetensors")
    picture = Image.radial_gradient("L").convert("RGB")
    picture.save(tmp_path / "photo.png")
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    found = [
        phosphene.reconstruct(given, prior=prior)
        for given in (tmp_path / "photo.png", picture, tensor)
    ]
    assert all(torch.equal(each.image, found[0].image) for each in found)
    assert found[0].error == float((found[0].image - found[0].photograph).abs().mean()) > 0
    assert read_png(found[0].save(tmp_path / "r.png")).shape == found[0].sheet().shape


def test_a_result_is_indexed_by_unit() -> None:
    made = phosphene.synthesize(network(), ["fc:0", "conv:1"], seeds=[0, 1], **FEW)
    assert made["fc:0"].members == made.members[:2]
    assert torch.equal(made["conv:1"].images, made[2:].images)
    with pytest.raises(UnknownName, match="no unit 'fc:1' in this result; near: fc:0"):
        made["fc:1"]


def test_a_table_is_text_and_html_of_which_nothing_acts() -> None:
    table = Table(("unit", "n"), [("<b>\x1b[31m", "1")], "a & b", ("note",))
    assert repr(table).splitlines() == ["a & b", "unit      n", "<b>�[31m  1", "note"]
    assert "&lt;b&gt;�[31m" in table._repr_html_()


class Shell:
    """Stand for IPython's display in a notebook."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, data: dict[str, str], **options: Any) -> Shell:
        self.shown.append(data)
        return self

    def update(self, data: dict[str, str], **options: Any) -> None:
        self.shown.append(data)


def test_progress_in_a_notebook_needs_no_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shell = Shell()
    monkeypatch.setattr(display, "display", shell.display)
    monkeypatch.setattr("phosphene.progress.NOTEBOOK_EVERY", -1.0)
    with shown(Plain(force_jupyter=True), 4, "<climbing>", "steps") as advance:
        advance(1)
        advance(3)
    first, second, last, end = shell.shown
    assert '<progress value="1" max="4">' in second["text/html"]
    assert "&lt;climbing&gt;: 4 of 4 steps" in last["text/html"]
    assert first["text/plain"].startswith("<climbing>: 0 of 4 steps")
    assert end == {"text/plain": ""}
