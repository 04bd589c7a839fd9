"""Networks of one's own: what is taken as it is, and what is refused with the line that helps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from phosphene.datasets import Stream
from phosphene.errors import BadFile, BadRequest
from phosphene.networks.sources.loading import checked_options
from phosphene.notebook import synthesize
from phosphene.priors import encode
from phosphene.priors.pixels import Pixels
from phosphene.studies.exemplars import find_exemplars
from phosphene.subjects import load_subject, wrap
from phosphene.synthesis import NOT_ABOVE, Climb, PreferredInputs
from phosphene.testing import TinyNet, lively, write_subject

CLIMB = Climb.of(steps=2, optimizer="adam", constraint="none", rate=0.05)


def climbed(network: nn.Module, unit: str, **options: Any) -> PreferredInputs:
    options = {"prior": "pixels", "climb": CLIMB, "size": (14, 14), **options}
    return synthesize(network, unit, **options)


class Middle(nn.Module):
    """Three layers, the way from the first to the second given."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.mid = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc, self.way = nn.Linear(8, 5), way

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.way(self.mid, self.stem(images)).mean((2, 3)))


# ---------------------------------------------------------------- how it looks


def test_one_number_is_a_square_and_a_grey_mean() -> None:
    subject = wrap(lively(TinyNet()), size=14, mean=0.5, std=0.25)
    assert (subject.size, subject.mean, subject.std) == ((14, 14), (0.5,) * 3, (0.25,) * 3)
    images = torch.rand(2, 3, 14, 14)
    torch.testing.assert_close(subject.prepare(images), (images - 0.5) / 0.25)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, r"mean is for values in 0 … 1; got \(123.7, .* by 255\?"),
        (
            {"mean": 127.5},
            r"mean is for values in 0 … 1; got \(127.5, 127.5, 127.5\); divide by 255",
        ),
        ({"std": (58.4, 57.1, 57.4)}, r"std is for values in 0 … 1; .*; divide by 255\?"),
        ({"std": 0}, "std is three numbers above 0, for values in 0 … 1; got 0"),
        ({"mean": (0.5, 0.5)}, "mean is three numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean is three numbers"),
        ({"size": 0}, r"size is \(height, width\) in pixels"),
        ({"size": (14,)}, r"size is \(height, width\) in pixels"),
        ({"classes": "cat"}, "classes is a list of names"),
        ({"classes": ["cat"]}, "has 10 outputs and 1 names of classes"),
    ],
)
def test_values_on_a_wrong_scale_are_refused(options: dict[str, Any], says: str) -> None:
    network = lively(TinyNet())
    with pytest.raises(BadRequest, match=says):
        wrap(network, **{"size": 14, **options})


def test_a_factory_and_a_file_beside_a_network_are_checked_alike() -> None:
    for said in ({"mean": [123, 116, 103]}, {"std": [58, 57, 57]}):
        with pytest.raises(BadRequest, match=r"net\.pt2: .* for values in 0 … 1; .*divide by 255"):
            checked_options("net.pt2", nn.Identity(), said)


def test_ways_of_looking_that_are_rare_but_right_are_taken() -> None:
    caffe = {"mean": [104 / 255, 117 / 255, 123 / 255], "std": [1 / 255] * 3}
    assert checked_options("net", nn.Identity(), caffe)["std"] == (1 / 255,) * 3
    assert checked_options("net", nn.Identity(), {"mean": 0, "std": 1})["mean"] == (0, 0, 0)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_card_on_a_wrong_scale_is_refused(tmp_path: Path, key: str) -> None:
    look = {"size": [14, 14], "mean": [0.5] * 3, "std": [0.25] * 3, key: [123.7, 116.3, 103.5]}
    file = write_subject(tmp_path / "subject.safetensors", preprocessing=look)
    with pytest.raises(BadFile, match=f"{key} is for values in 0 … 1; .*divide by 255"):
        load_subject(file)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (torch.full((3, 16, 16), 200.0), "lies in 0 … 1; got 200 … 200 in torch.float32"),
        (torch.full((3, 16, 16), -1.0), r"\(image \+ 1\) / 2 for -1 … 1"),
        (torch.full((3, 16, 16), 200, dtype=torch.uint8), "got 200 … 200 in torch.uint8"),
        (torch.full((3, 16, 16), float("nan")), "got nan … nan"),
    ],
)
def test_a_start_image_on_a_wrong_scale_is_refused(image: Tensor, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        climbed(lively(TinyNet()), "fc:0", prior=Pixels(16, 14), start=image)


def test_a_start_image_in_double_precision_is_taken() -> None:
    image = torch.rand(3, 16, 16)
    code = encode(Pixels(16, 14), image.double())
    assert torch.equal(code, encode(Pixels(16, 14), image))


def test_a_picture_of_whole_numbers_is_not_looked_at() -> None:
    with pytest.raises(BadRequest, match="divide by 255"):
        wrap(lively(TinyNet()), size=14)(torch.zeros(1, 3, 14, 14, dtype=torch.uint8))


# ---------------------------------------------------------------- what it is made of


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_in_another_precision_climbs(kind: torch.dtype) -> None:
    plain, network = lively(TinyNet()), lively(TinyNet()).to(kind)
    wanted, found = (climbed(each, "fc:3") for each in (plain, network))
    assert found.statuses == ("climbed",)
    assert float(found.scores[0]) == pytest.approx(float(wanted.scores[0]), rel=0.02)
    assert next(network.parameters()).dtype == kind


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda network: torch.compile(network, backend="eager"),
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda network: nn.DataParallel(torch.compile(network, backend="eager")),
    ],
    ids=["compiled", "parallel", "averaged", "both"],
)
def test_a_wrapped_network_is_named_as_the_one_within(
    wrapper: Callable[[nn.Module], nn.Module],
) -> None:
    plain, wrapped = lively(TinyNet()), wrapper(lively(TinyNet()))
    wanted = climbed(plain, "fc:3").images
    for unit in ("fc:3", "module.fc:3", "_orig_mod.fc:3"):
        assert torch.equal(climbed(wrapped, unit).images, wanted)
    assert "fc" in wrap(wrapped, size=14).shapes()


def test_a_part_that_is_compiled_has_layers_that_are_read() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.compile(lively(TinyNet()), backend="eager")

        def forward(self, images: Tensor) -> Tensor:
            return self.body(images)

    network = Whole()
    network(torch.rand(1, 3, 14, 14))  # compiled before anything is read
    wanted = climbed(lively(TinyNet()), "conv:3").images
    assert torch.equal(climbed(network, "body.conv:3").images, wanted)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_scripted_network_is_refused_and_a_scripted_part_is_no_layer() -> None:
    for scripted in (
        torch.jit.script(lively(TinyNet())),
        torch.jit.trace(lively(TinyNet()), torch.rand(1, 3, 14, 14)),
    ):
        with pytest.raises(BadRequest, match=r"is scripted, .* give the module that"):
            wrap(scripted, size=14)
    network = nn.Sequential(torch.jit.script(lively(TinyNet())), nn.Linear(10, 4))
    assert wrap(network, size=14).shapes().keys() == {"1"}


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(392, 4)), "it reads 2 channels.*channels=2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(99, 4)), r"\(network, size=PIXELS\) sets another"),
    ],
    ids=["flat", "size"],
)
def test_a_network_that_cannot_look_says_what_would_help(network: nn.Module, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        wrap(network, size=14)
    assert "\n" not in str(caught.value)


def test_a_network_with_keywords_only_says_what_forward_takes() -> None:
    class Named(nn.Module):
        def forward(self, *, images: Tensor) -> Tensor:
            return images

    with pytest.raises(BadRequest, match="forward must take one tensor of images"):
        wrap(Named(), size=14)


def test_a_network_that_takes_one_image_is_shown_one_at_a_time() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 14), nn.Linear(4, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.conv(images).reshape(1, 4))

    network = lively(One())
    assert wrap(network, size=14).batch == 1
    result = climbed(network, "fc:0-1")
    assert result.statuses == ("climbed", "climbed")
    assert torch.equal(result.images[1:], climbed(network, "fc:1").images)


@pytest.mark.parametrize("kind", ["state", "random"])
def test_a_network_that_answers_differently_the_second_time_is_refused(kind: str) -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.cell = nn.Conv2d(3, 4, 14), nn.GRUCell(4, 4)
            self.state: Tensor | None = None

        def forward(self, images: Tensor) -> Tensor:
            seen = self.stem(images).flatten(1)
            if kind == "random":
                return nn.functional.dropout(seen, 0.5, training=True)
            self.state = self.cell(seen, self.state)
            return self.state

    with pytest.raises(BadRequest, match="another answer when it sees the same images again"):
        wrap(lively(Moody()), size=14)


@pytest.mark.parametrize("precision", ["float16", "float", "bf16"])
def test_a_precision_that_is_none_is_refused(precision: str) -> None:
    with pytest.raises(BadRequest, match=f"no precision '{precision}'; there are: float32, bf"):
        climbed(lively(TinyNet()), "fc:0", precision=precision)


# ---------------------------------------------------------------- gradients


def _without_gradient(mid: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return mid(x)


@pytest.mark.parametrize(
    ("way", "where"),
    [
        (_without_gradient, "in mid"),
        (lambda mid, x: mid(x.detach()), "before mid"),
        (lambda mid, x: mid((4 * x).round()), "before mid"),
        (lambda mid, x: mid(x).sign(), "before fc"),
        (lambda mid, x: checkpoint(mid, x, use_reentrant=True), "in mid"),
    ],
    ids=["no_grad", "detach", "round", "sign", "checkpoint"],
)
def test_a_gradient_that_is_cut_is_told_with_the_place(
    way: Callable[[nn.Module, Tensor], Tensor], where: str
) -> None:
    network = lively(Middle(way))
    with pytest.raises(BadRequest, match=f"no gradient comes .* from fc to .* lost {where} "):
        climbed(network, "fc:3")
    assert climbed(network, "stem:3").statuses == ("climbed",)


@pytest.mark.filterwarnings("ignore")  # torch's own, that its quantization is deprecated
def test_a_quantized_layer_is_named() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 14), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5))
    network = torch.ao.quantization.quantize_dynamic(lively(plain), {nn.Linear})
    with pytest.raises(BadRequest, match=r"lost in 3 \(quantized Linear\)"):
        climbed(network, "3:3")
    assert climbed(network, "0:3").statuses == ("climbed",)


def test_units_that_are_dead_are_dead_and_no_gradient_is_missed() -> None:
    network = lively(Middle(lambda mid, x: (mid(x) - 100).relu()))
    assert climbed(network, "fc:3").statuses == (NOT_ABOVE,)
    alive = lively(Middle(lambda mid, x: checkpoint(mid, x, use_reentrant=False)))
    nn.init.zeros_(alive.fc.weight[3])
    assert climbed(alive, "fc:2-3").statuses == ("climbed", "dead")


# ---------------------------------------------------------------- identity

NETWORK = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
    def forward(self, images):
        return self.fc(ACTIVATION(self.conv(images)).mean((2, 3)))

def net():
    return Own(), dict(OPTIONS)
"""
OPTIONS = "size=14, mean=0.5, std=0.25, classes=['a', 'b', 'c', 'd'], output='fc'"


def written(folder: Path, module: str, activation: str = "torch.relu", options: str = "") -> str:
    text = NETWORK.replace("ACTIVATION", activation).replace("OPTIONS", options or OPTIONS)
    (folder / f"{module}.py").write_text(text)
    sys.modules.pop(module, None)
    return f"python:{module}:net"


@pytest.mark.parametrize(
    ("activation", "options"),
    [
        ("torch.tanh", OPTIONS),
        ("torch.relu", OPTIONS.replace("mean=0.5", "mean=0.4")),
        ("torch.relu", OPTIONS.replace("std=0.25", "std=0.3")),
        ("torch.relu", OPTIONS.replace("size=14", "size=15")),
        ("torch.relu", OPTIONS.replace("['a', 'b'", "['b', 'a'")),
        ("torch.relu", OPTIONS.replace("'fc'", "'conv'").replace("'d'", "'d', 'e', 'f'")),
        ("(lambda x: x.relu() * 1.01)", OPTIONS),
    ],
    ids=["code", "mean", "std", "size", "classes", "output", "factor"],
)
def test_a_factory_s_network_is_known_by_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation: str, options: str
) -> None:
    monkeypatch.chdir(tmp_path)
    was = load_subject(written(tmp_path, "mine_id"))
    again = load_subject(written(tmp_path, "mine_id"))
    now = load_subject(written(tmp_path, "mine_id", activation, options))
    assert was.former_identity == again.former_identity == now.former_identity
    assert was.identity == again.identity != now.identity
    assert was.identity != was.former_identity


def test_an_identity_depends_on_no_thread_and_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subject = load_subject(written(tmp_path, "mine_id2"))
    torch.set_num_threads(2)
    try:
        assert load_subject(written(tmp_path, "mine_id2")).identity == subject.identity
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert next(subject.network.parameters()).dtype == torch.float32


def test_a_network_that_cannot_be_copied_has_an_identity() -> None:
    class Rigid(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.factor = nn.Conv2d(3, 4, 14), factor

        def __deepcopy__(self, memo: object) -> Rigid:
            raise RuntimeError("it holds a file")

        def forward(self, images: Tensor) -> Tensor:
            return self.factor * self.conv(images.float()).flatten(1)

    one, same, other = (wrap(Rigid(factor), size=14) for factor in (1.0, 1.0, 1.5))
    assert one.identity == same.identity != other.identity


def test_a_wrapped_network_and_a_weights_file_have_identities(tmp_path: Path) -> None:
    one, other = lively(TinyNet()), lively(TinyNet())
    nn.init.ones_(other.fc.bias)
    assert wrap(one, size=14).identity == wrap(one, size=14).identity
    assert wrap(one, size=14).identity != wrap(other, size=14).identity
    assert wrap(one, size=14).identity != wrap(one, size=14, mean=0.5).identity
    file = load_subject(write_subject(tmp_path / "subject.safetensors"))
    assert file.identity == file.former_identity == file.card["sha256"]


def test_no_stale_picture_is_shown_after_a_correction(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    climb = ("--prior", "pixels", "--steps", 3, "--device", "cpu", "--precision", "float32")

    def made() -> dict[str, Any]:
        (one,) = phosphene("synthesize", name, "fc:1", *climb, "--out", "p", "--json").json()
        return one  # type: ignore[no-any-return]

    name = written(tmp_path, "mine_id3")
    was = made()
    assert made() == was, "nothing changed, so it is kept"
    written(tmp_path, "mine_id3", "torch.tanh")
    now = made()
    assert now["score"] != was["score"]
    fresh = phosphene("synthesize", name, "fc:1", *climb, "--out", "q", "--json").json()
    assert fresh[0]["score"] == now["score"]


def test_a_record_of_version_0_1_0_is_compared_by_the_weights_alone(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = written(tmp_path, "mine_id4")
    climb = ("--prior", "pixels", "--steps", 3, "--device", "cpu", "--precision", "float32")
    (made,) = phosphene("synthesize", name, "fc:1", *climb, "--out", "p", "--json").json()
    file = Path(made["image"]).with_suffix(".json")
    record = json.loads(file.read_text())
    written(tmp_path, "mine_id4", "torch.tanh")
    said = phosphene("synthesize", name, "--record", file, "--out", "q").refused()
    assert "made with another subject" in said
    written(tmp_path, "mine_id4")
    record["weights"]["subject"] = load_subject(name).former_identity
    file.write_text(json.dumps(record))
    again = phosphene("synthesize", name, "--record", file, "--out", "q", "--json")
    assert again.json()[0]["score"] == made["score"]
    assert again.err == ""


def test_an_index_of_exemplars_is_of_one_network_and_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(6):
        (tmp_path / "data" / "train" / "a").mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "train" / "a" / f"{i}.png")
    data, index = Stream(tmp_path / "data", "all", 14), tmp_path / "index"
    was = load_subject(written(tmp_path, "mine_id5"))
    found = find_exemplars(was, ["conv"], data, index, k=2)
    assert torch.equal(
        find_exemplars(was, ["conv"], data, index, k=2)["conv"].values, found["conv"].values
    )
    now = load_subject(written(tmp_path, "mine_id5", options=OPTIONS.replace("0.5", "0.4")))
    with pytest.raises(BadRequest, match="was made with another subject"):
        find_exemplars(now, ["conv"], data, index, k=2)
    index.unlink()
    former = replace(was, card={"sha256": was.former_identity})  # as version 0.1.0 kept it
    find_exemplars(former, ["conv"], data, index, k=2)
    with pytest.raises(BadRequest, match=r"by version 0\.1\.0, which did not note how"):
        find_exemplars(was, ["conv"], data, index, k=2)
    library = replace(was, card={**was.card, "source": "timm"})
    assert torch.equal(
        find_exemplars(library, ["conv"], data, index, k=2)["conv"].values, found["conv"].values
    )
