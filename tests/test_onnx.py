"""Networks in ONNX files: converted to torch where that is possible, else a judge."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import Run, climbs_remakes_and_judges, samples, wide
from torch import Tensor, nn

from phosphene.errors import BadFile, BadRequest, Unavailable
from phosphene.notebook import synthesize
from phosphene.probe import probe
from phosphene.subjects import load_subject
from phosphene.synthesis import Climb
from phosphene.testing import CLASSES, lively

SIDE = 32


@pytest.fixture
def onnx(torchvision: ModuleType) -> ModuleType:
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


@pytest.fixture
def converter(onnx: ModuleType) -> ModuleType:
    return pytest.importorskip("onnx2pytorch")


def small() -> nn.Module:
    """With BatchNorm after and before a convolution, so that one is folded away and one is not."""
    torch.manual_seed(0)
    return lively(
        nn.Sequential(
            *(
                nn.BatchNorm2d(3),
                nn.Conv2d(3, 6, 3, 2, 1),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Conv2d(6, 8, 3, 2, 1),
            ),
            *(nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)),
        )
    )


def export(network: nn.Module, path: Path, images: Tensor, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch's own, over its older exporter, which needs no package more
        torch.onnx.export(
            network,
            (images,),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            **options,
        )
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`any.onnx` for any number of images, `one.onnx` for one at a time; not to be written in."""
    pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("onnx")
    images = torch.rand(1, 3, SIDE, SIDE)
    export(
        small(),
        path / "any.onnx",
        images,
        dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
    )
    export(small(), path / "one.onnx", images)
    (path / "any.json").write_text(
        json.dumps({"classes": CLASSES, "mean": [0.5] * 3, "std": [0.25] * 3})
    )
    return path


def test_a_converted_network_is_the_one_that_was_exported(
    converter: ModuleType, folder: Path
) -> None:
    subject, network = load_subject(folder / "any.onnx"), small()
    assert (subject.size, subject.output, subject.batch) == ((SIDE, SIDE), "logits", 0)
    images = torch.rand(3, 3, SIDE, SIDE, requires_grad=True)
    convolution = next(
        path
        for path, module in subject.network.named_modules()
        if getattr(module, "in_channels", 0) == 6
    )
    wanted = {convolution: network[:5](images), "logits": network(images)}  # type: ignore[index]
    for layer, theirs in wanted.items():
        with probe(subject.network, [layer]) as read:
            ours = read(images)[layer]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        gradients = [
            torch.autograd.grad(values.square().sum(), images)[0] for values in (ours, theirs)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_class_is_climbed_by_its_logit(
    converter: ModuleType, tmp_path: Path, end: nn.Module, bias: bool
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, SIDE), nn.Flatten(), nn.Linear(4, 5, bias), end)
    lively(network)[2].weight.data *= 30  # type: ignore[index, operator, union-attr]
    file = export(network, tmp_path / "net.onnx", torch.rand(1, 3, SIDE, SIDE))
    (tmp_path / "net.json").write_text(json.dumps({"classes": list(CLASSES[:5])}))
    subject = load_subject(file)
    assert subject.targets("class:English springer")[0].terms[0][1].layer != "logits"
    images = torch.rand(1, 3, SIDE, SIDE)
    with probe(subject.network, [subject.output]) as read:
        torch.testing.assert_close(read(images)[subject.output], network[:3](images))


def test_a_batch_of_one_within_a_dynamic_one_is_shown_one_at_a_time(
    converter: ModuleType, tmp_path: Path
) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, SIDE), nn.Linear(4, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.conv(images).reshape(1, 4))

    axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
    images = torch.rand(1, 3, SIDE, SIDE)
    file = export(lively(One()), tmp_path / "net.onnx", images, dynamic_axes=axes)
    subject = load_subject(file)
    assert subject.batch == 1
    climb = Climb.of(steps=2, optimizer="adam", constraint="none", rate=0.05)
    found = synthesize(subject, f"{subject.output}:0-1", prior="pixels", climb=climb)
    assert found.statuses == ("climbed", "climbed")


def test_photographs_give_the_logits_of_the_exported_network(
    converter: ModuleType, folder: Path
) -> None:
    images, _ = samples(range(0, 40, 10))
    pixels = (nn.functional.interpolate(images, SIDE, mode="bilinear", antialias=True) - 0.5) / 0.25
    torch.testing.assert_close(
        load_subject(folder / "any.onnx")(images), small()(pixels), rtol=1e-4, atol=1e-5
    )


def test_a_unit_climbs_and_its_record_makes_it_again(
    converter: ModuleType, phosphene: Run, folder: Path, tmp_path: Path
) -> None:
    found = phosphene("layers", folder / "any.onnx", "--json").json()
    assert found["layers"][-1]["layer"] == found["output"] == "logits"
    convolution = [row["layer"] for row in found["layers"] if row["kind"] == "Conv2d"][-1]
    climbs_remakes_and_judges(
        phosphene, folder / "any.onnx", (f"{convolution}:3", "class:tench"), tmp_path
    )


def test_a_network_for_one_image_climbs_one_after_the_other(
    converter: ModuleType, phosphene: Run, folder: Path, tmp_path: Path
) -> None:
    climb = (
        "--prior",
        "pixels",
        "--steps",
        40,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--json",
    )
    made = phosphene(
        "synthesize", folder / "one.onnx", "logits:0-2", *climb, "--out", tmp_path
    ).json()
    assert [each["status"] for each in made] == ["climbed"] * 3


# only to be asked


def foreign(onnx: ModuleType, path: Path) -> Path:
    """A network with an operator that ONNX Runtime alone has."""
    make = onnx.helper
    image = make.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    logits = make.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 10])
    weight = onnx.numpy_helper.from_array(torch.randn(10, 48).numpy(), "weight")
    nodes = [
        make.make_node("QuickGelu", ["images"], ["bent"], domain="com.microsoft"),
        make.make_node("Flatten", ["bent"], ["flat"]),
        make.make_node("Gemm", ["flat", "weight"], ["logits"], transB=1),
    ]
    graph = make.make_graph(nodes, "net", [image], [logits], [weight])
    opsets = [make.make_opsetid("", 17), make.make_opsetid("com.microsoft", 1)]
    onnx.save(make.make_model(graph, opset_imports=opsets, ir_version=9), path)
    path.with_suffix(".json").write_text(
        json.dumps({"classes": CLASSES, "mean": [0, 0, 0], "std": [1, 1, 1]})
    )
    return path


def test_what_cannot_be_converted_still_judges_and_says_why_it_does_not_climb(
    onnx: ModuleType, phosphene: Run, folder: Path, tmp_path: Path
) -> None:
    asked = foreign(onnx, tmp_path / "net.onnx")
    images = torch.rand(5, 3, 4, 4)
    weight = torch.from_numpy(
        onnx.numpy_helper.to_array(onnx.load(asked).graph.initializer[0]).copy()
    )
    expected = (images * torch.sigmoid(1.702 * images)).flatten(1) @ weight.T
    torch.testing.assert_close(load_subject(asked)(images), expected, rtol=1e-4, atol=1e-5)
    (row,) = phosphene("layers", asked, "--json").json()["layers"]
    assert (row["layer"], row["shape"], row["receptive_field"]["bottom"]) == ("logits", [10], 4)
    climb = ("--prior", "pixels", "--steps", 2, "--device", "cpu", "--out", tmp_path / "a")
    refused = phosphene("synthesize", asked, "class:tench", *climb).refused()
    assert "net.onnx cannot be climbed: it cannot be converted to torch (" in refused
    assert "it can judge, by phosphene evaluate --judge" in refused
    if pytest.importorskip("onnx2pytorch"):
        phosphene("synthesize", folder / "any.onnx", "class:tench", *climb).fine()
        judged = phosphene("evaluate", tmp_path / "a", "--judge", asked, "--json").json()
        assert judged[0]["figures"]["recognised_top1"]["n"] == 1


def test_without_the_converter_a_network_is_only_asked(
    onnx: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx2pytorch", None)
    subject = load_subject(folder / "any.onnx")
    images = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(subject.network(images), small()(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(
        BadRequest, match=r"cannot be climbed: onnx2pytorch is not installed; pip install 'ph"
    ):
        subject(images.requires_grad_())


def test_a_conversion_that_is_wrong_is_not_climbed(
    converter: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = converter.ConvertModel.forward
    monkeypatch.setattr(
        converter.ConvertModel, "forward", lambda self, images: 1.01 * forward(self, images)
    )
    with pytest.raises(
        BadRequest, match="converted to torch it gives another answer than ONNX Runtime's"
    ):
        load_subject(folder / "any.onnx")(torch.rand(1, 3, SIDE, SIDE, requires_grad=True))


# files from outside


def outside(
    onnx: ModuleType, folder: Path, into: Path, location: str = "any.data", **entries: str
) -> Path:
    """The network with its largest tensor in another file; `entries` replace its address."""
    model = onnx.load(folder / "any.onnx")
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    raw = tensor.raw_data
    said = {"location": location, "offset": "0", "length": str(len(raw)), **entries}
    (into / "any.data").write_bytes(raw)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    (into / "net.onnx").write_bytes(model.SerializeToString())
    return into / "net.onnx"


def test_tensors_beside_the_file_are_read_and_counted(
    onnx: ModuleType, folder: Path, tmp_path: Path
) -> None:
    path = outside(onnx, folder, tmp_path)
    images = torch.rand(1, 3, SIDE, SIDE)
    before = load_subject(path)
    torch.testing.assert_close(before.network(images), small()(images), rtol=1e-4, atol=1e-5)
    raw = bytearray((tmp_path / "any.data").read_bytes())
    raw[0] ^= 1
    (tmp_path / "any.data").write_bytes(raw)
    assert load_subject(path).card["sha256"] != before.card["sha256"]


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "../secret.data"}, "which is no file beside it"),
        ({"location": "/etc/passwd"}, "keeps tensors in '/etc/passwd', which is no file beside it"),
        ({"location": "link.data"}, "which is no file beside it"),
        ({"location": "gone.data"}, "which is no file beside it"),
        ({"length": str(1 << 40)}, "more than 2,147,483,647 is not read"),
        ({"length": "9000000"}, "cannot be read"),
        ({"offset": "9000000"}, "cannot be read"),
        ({"length": "-5"}, "cannot be read"),
        ({"length": "many"}, "cannot be read"),
    ],
)
def test_tensors_elsewhere_are_not_read(
    onnx: ModuleType, folder: Path, tmp_path: Path, entries: dict[str, str], says: str
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.data").write_bytes(b"\0" * 100_000)
    (inner / "link.data").symlink_to(tmp_path / "secret.data")
    with pytest.raises(BadFile, match=says) as caught:
        load_subject(outside(onnx, folder, inner, **entries))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda raw: raw[:1000], lambda raw: b"", lambda raw: b"\xff" * 99),
        *(lambda raw: b"{}" + raw, lambda raw: raw[:-40]),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(
    onnx: ModuleType, folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "net.onnx").write_bytes(damage((folder / "any.onnx").read_bytes()))
    with pytest.raises(BadFile, match=r"net\.onnx cannot be read \(") as caught:
        load_subject(tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)


def test_a_network_of_grey_wide_images_is_climbed_in_its_own_shape(
    onnx: ModuleType, tmp_path: Path
) -> None:
    network = wide(1)
    images = torch.rand(1, 1, 12, 28)
    subject = load_subject(export(network, tmp_path / "net.onnx", images))
    assert (subject.channels, subject.size) == (1, (12, 28))
    torch.testing.assert_close(subject(images), network(images), atol=1e-5, rtol=1e-4)
    result = synthesize(subject, f"{subject.output}:1", prior="pixels", steps=5)
    assert result.scores[0] > result.start_scores[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: (small(), torch.rand(4, 3, 32, 32)),
            "for 4 images at a time; for any number: torch.onnx.export",
        ),
        (
            lambda: (nn.Conv1d(3, 1, 1), torch.rand(1, 3, 8)),
            r"reads tensor\(float\) of \[1, 3, 8\]; a network of",
        ),
        (
            lambda: (nn.Conv2d(3, 1, 1), torch.rand(1, 3, 8, 8)),
            r"makes \(1, 1, 8, 8\) of one image",
        ),
    ],
)
def test_a_network_that_is_no_classifier_of_images_is_one_line(
    onnx: ModuleType, tmp_path: Path, make: Callable[[], tuple[nn.Module, Tensor]], says: str
) -> None:
    network, images = make()
    with pytest.raises(BadRequest, match=says) as caught:
        load_subject(export(network, tmp_path / "net.onnx", images))
    assert "\n" not in str(caught.value)


def test_a_missing_extra_says_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(
            Unavailable, match=rf"^{module} is not installed; pip install 'phosphene\[onnx\]'$"
        ):
            load_subject(folder / "any.onnx")
