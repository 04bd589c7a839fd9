"""Programs in files: the network that was exported; whatever a file holds, none of it runs."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CI_SAMPLE, Run, climbs_remakes_and_judges, samples, wide
from torch import Tensor, nn

from phosphene.errors import BadFile, BadRequest, UnknownName
from phosphene.notebook import synthesize
from phosphene.probe import probe
from phosphene.subjects import load_subject
from phosphene.synthesis import CLIMBS
from phosphene.testing import CLASSES, lively

SIDE = 32


class Small(nn.Module):
    """Convolutions with BatchNorm, nested blocks, a ReLU in place, a `view` of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        )
        self.blocks = nn.ModuleList([nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)])
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        images = self.stem(images)
        for block in self.blocks:
            images = torch.tanh(block(images))
        return self.fc(self.drop(self.pool(images).view(images.shape[0], -1)))


def small() -> nn.Module:
    network = lively(Small())
    norm = network.stem[1]  # type: ignore[index, union-attr]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return network


def export(network: nn.Module, path: Path, *inputs: Tensor, dynamic: object = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, over its own deprecations
        torch.export.save(torch.export.export(network, inputs, dynamic_shapes=dynamic), path)
    return path


ANY_BATCH = ({0: torch.export.Dim.DYNAMIC},)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`any.pt2` for any number of images, `one.pt2` for one at a time; not to be written in."""
    folder = tmp_path_factory.mktemp("programs")
    export(small(), folder / "any.pt2", torch.rand(2, 3, SIDE, SIDE), dynamic=ANY_BATCH)
    export(small(), folder / "one.pt2", torch.rand(1, 3, SIDE, SIDE))
    (folder / "any.json").write_text(
        json.dumps({"classes": CLASSES, "mean": [0.5] * 3, "std": [0.25] * 3})
    )
    return folder


class Ending(nn.Module):
    """A classifier whose head ends in a function of its logits."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, SIDE), nn.Module()
        self.head.add_module("fc", nn.Linear(4, 5))
        self.end = end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(self.head.fc(self.body(images).flatten(1)))  # type: ignore[operator]


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 5)

    def forward(self, features: Tensor) -> Tensor:
        return (self.fc(features) / 0.5).softmax(-1)


# what was exported


def test_a_size_that_no_file_says_is_told_as_assumed(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    sides = (
        {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},
    )
    file = export(lively(network), tmp_path / "net.pt2", torch.rand(2, 3, 40, 48), dynamic=sides)
    subject = load_subject(file)
    assert subject.size == (224, 224)
    assert subject.card["assumed"].startswith("ImageNet's mean and std, 224 × 224 pixels; net.json")
    (tmp_path / "net.json").write_text(json.dumps({"size": 64, "mean": 0.5, "std": 0.5}))
    subject = load_subject(file)
    assert (subject.size, "assumed" in subject.card) == ((64, 64), False)


class Noisy(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images + torch.rand_like(images)).mean((2, 3))


def test_a_program_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    images = torch.rand(2, 3, SIDE, SIDE)
    file = export(Noisy(), tmp_path / "net.pt2", images, dynamic=ANY_BATCH)
    with pytest.raises(BadRequest, match="another answer when it sees the same images again"):
        load_subject(file)


def test_of_several_answers_the_first_is_taken(tmp_path: Path) -> None:
    images, network = torch.rand(2, 3, SIDE, SIDE), lively(Ending(nn.Identity()))
    for number, kind in enumerate((lambda x: {"logits": x, "more": -x}, lambda x: (x, -x))):
        several = lively(Ending(kind))
        several.load_state_dict(network.state_dict())
        subject = load_subject(
            export(several, tmp_path / f"{number}.pt2", images, dynamic=ANY_BATCH)
        )
        assert subject.output == "head.fc"
        (target,) = subject.targets("head.fc:1")
        assert synthesize(subject, [target], prior="pixels", steps=8).statuses == ("climbed",)
        torch.testing.assert_close(subject(images), network(subject.prepare(images)))


@pytest.mark.parametrize(
    ("network", "output"),
    [
        (Ending(nn.Softmax(1)), "head.fc"),
        (Ending(lambda logits: logits.softmax(1)), "head.fc"),
        (Ending(lambda logits: nn.functional.log_softmax(logits, 1)), "head.fc"),
        (Ending(lambda logits: logits.softmax(1).log().reshape(-1, 5)), "head.fc"),
        (Ending(nn.Sigmoid()), "head.fc"),
        (Ending(nn.Identity()), "head.fc"),
        (nn.Sequential(nn.Conv2d(3, 4, SIDE), nn.Flatten(), Head()), "2.fc"),
        (nn.Sequential(nn.Conv2d(3, 5, SIDE), nn.Flatten(), nn.Softmax(1)), "1"),
    ],
    ids=["module", "function", "log", "log of it", "sigmoid", "none", "in a head", "of a flatten"],
)
def test_a_class_is_climbed_by_its_logit(network: nn.Module, output: str, tmp_path: Path) -> None:
    network = lively(network)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= 30  # so large that every softmax is saturated
    file = export(network, tmp_path / "net.pt2", torch.rand(2, 3, SIDE, SIDE), dynamic=ANY_BATCH)
    (tmp_path / "net.json").write_text(json.dumps({"classes": list(CLASSES[:5])}))
    subject = load_subject(file)
    assert subject.output == output
    (target,) = subject.targets("class:English springer")
    assert str(target) == f"{output}:1"
    climb = CLIMBS["pixels"].changed(steps=8)
    result = synthesize(subject, "class:English springer", prior="pixels", climb=climb)
    assert float(result.scores[0] - result.start_scores[0]) > 0.1


def test_a_program_is_the_network_that_was_exported_in_every_layer(programs: Path) -> None:
    subject, network = load_subject(programs / "any.pt2"), small()
    assert {path for path, _ in subject.network.named_modules()} == {
        path for path, _ in network.named_modules()
    }
    images = torch.rand(3, 3, SIDE, SIDE, requires_grad=True)
    for layer in ("stem.0", "stem.1", "stem", "blocks.1", "pool", "fc"):
        with probe(subject.network, [layer]) as read, probe(network, [layer]) as read_original:
            ours, theirs = read(images)[layer], read_original(images)[layer]
        torch.testing.assert_close(ours, theirs)
        gradients = [
            torch.autograd.grad(values.square().sum(), images)[0] for values in (ours, theirs)
        ]
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().sum() > 0


def test_a_program_says_its_size_and_output_and_a_file_beside_it_the_rest(
    phosphene: Run, programs: Path, tmp_path: Path
) -> None:
    subject = load_subject(programs / "any.pt2")
    assert (subject.size, subject.output, subject.batch) == ((SIDE, SIDE), "fc", 0)
    assert (subject.mean, subject.std, subject.classes) == ((0.5,) * 3, (0.25,) * 3, CLASSES)
    assert "assumed" not in subject.card
    alone = Path(shutil.copy(programs / "any.pt2", tmp_path))
    bare = load_subject(alone)
    assert (bare.mean, bare.classes) == ((0.485, 0.456, 0.406), ())
    assert bare.card["assumed"] == "ImageNet's mean and std; any.json beside it may say others"
    assert bare.card["sha256"] != subject.card["sha256"]
    assert "assumed: ImageNet's mean and std" in phosphene("layers", alone).fine()
    assert "assumed" not in phosphene("layers", programs / "any.pt2").fine()


def test_a_program_of_any_size_reads_what_the_file_beside_it_says(tmp_path: Path) -> None:
    sides = (
        {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},
    )
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    path = export(lively(network), tmp_path / "net.pt2", torch.rand(2, 3, 40, 48), dynamic=sides)
    assert load_subject(path).size == (224, 224)
    (tmp_path / "net.json").write_text('{"size": [24, 36]}')
    assert load_subject(path).size == (24, 36)


def test_a_unit_climbs_and_its_record_makes_it_again(
    phosphene: Run, programs: Path, tmp_path: Path
) -> None:
    found = phosphene("layers", programs / "any.pt2", "--json").json()
    rows = {row["layer"]: (row["kind"], row["shape"]) for row in found["layers"]}
    assert rows["blocks.1"] == ("Conv2d", [8, 8, 8])
    assert found["output"] == "fc"
    climbs_remakes_and_judges(
        phosphene, programs / "any.pt2", ("blocks.1:3", "class:tench"), tmp_path
    )


def test_a_program_for_one_image_climbs_one_after_the_other(
    phosphene: Run, programs: Path, tmp_path: Path
) -> None:
    climb = (
        "--prior",
        "pixels",
        "--steps",
        4,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--json",
    )
    made = phosphene("synthesize", programs / "one.pt2", "fc:0-2", *climb, "--out", tmp_path).json()
    assert [each["status"] for each in made] == ["climbed"] * 3
    subject = load_subject(programs / "one.pt2")
    with pytest.raises(BadRequest, match=r"one\.pt2 takes 1 image at a time; got 2"):
        subject(torch.rand(2, 3, SIDE, SIDE))
    assert (
        len(
            synthesize(
                subject, "fc:0-1", prior="pixels", climb=CLIMBS["pixels"].changed(steps=2)
            ).images
        )
        == 2
    )


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_a_program_for_one_image_is_measured_beside_photographs(
    phosphene: Run, programs: Path, tmp_path: Path
) -> None:
    climb = ("--prior", "pixels", "--steps", 4, "--device", "cpu", "--precision", "float32")
    phosphene(
        "synthesize", programs / "one.pt2", "fc:0-1", *climb, "--out", tmp_path / "run"
    ).fine()
    words = (
        "evaluate",
        tmp_path / "run",
        "--images",
        CI_SAMPLE,
        "--judge",
        "resnet18-objects",
        "--device",
        "cpu",
    )
    (found,) = phosphene(*words, "--json").json()
    assert len(found["units"]) == 2


def test_photographs_give_the_logits_of_the_exported_network(programs: Path) -> None:
    images, _ = samples(range(0, 40, 10))
    subject = load_subject(programs / "any.pt2")
    pixels = (nn.functional.interpolate(images, SIDE, mode="bilinear", antialias=True) - 0.5) / 0.25
    torch.testing.assert_close(subject(images), small()(pixels.contiguous()))


# what is refused


def changed(programs: Path, folder: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """The program with its archive's entries edited."""
    with zipfile.ZipFile(programs / "any.pt2") as old:
        entries = {entry.filename.partition("/")[2]: old.read(entry) for entry in old.infolist()}
    edit(entries)
    with zipfile.ZipFile(folder / "bad.pt2", "w") as new:
        for name, raw in entries.items():
            new.writestr(f"any/{name}", raw)
    return folder / "bad.pt2"


def with_program(edit: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def within(entries: dict[str, bytes]) -> None:
        program = json.loads(entries["models/model.json"])
        edit(program)
        entries["models/model.json"] = json.dumps(program).encode()

    return within


class Malicious:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_the_pictures_that_a_program_was_traced_with_are_never_unpickled(
    programs: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "run"
    torch.save((Malicious(mark),), tmp_path / "inputs")

    def edit(entries: dict[str, bytes]) -> None:
        entries["data/sample_inputs/model.pt"] = (tmp_path / "inputs").read_bytes()

    path = changed(programs, tmp_path, edit)
    assert load_subject(path).output == "fc"
    assert not mark.exists()
    with suppress(Exception):
        torch.export.load(path)
    assert mark.exists()  # so the file was a dangerous one


def set_node(**changes: object) -> Callable[[Any], None]:
    return lambda program: program["graph_module"]["graph"]["nodes"][1].update(changes)


def argument(**value: object) -> Callable[[Any], None]:
    return lambda program: program["graph_module"]["graph"]["nodes"][1]["inputs"][0].update(
        arg=value
    )


def expression(text: str) -> Callable[[Any], None]:
    def edit(program: Any) -> None:
        for value in program["graph_module"]["graph"]["sym_int_values"].values():
            value["as_expr"]["expr_str"] = text

    return edit


def returns(spec: dict[str, object]) -> Callable[[Any], None]:
    def edit(program: Any) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(
            [1, spec]
        )

    return edit


ENUM = {"__enum__": True, "fqn": "antigravity:X", "name": "Y"}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (set_node(target="torch.os.system"), r"calls 'torch\.os\.system'"),
        (set_node(target="torch.ops.aten.from_file.default"), "calls 'torch.ops.aten.from_file"),
        (set_node(target="torch.ops.higher_order.cond"), "calls 'torch.ops.higher_order.cond'"),
        (set_node(target="_operator.methodcaller"), "calls '_operator.methodcaller'"),
        (set_node(target="#mine:run"), "calls '#mine:run'"),
        (set_node(name="x = 1\n    import os"), "holds 'x = 1"),
        (set_node(metadata={"nn_module_stack": "a,b'),c"}), "holds \"a,b'"),
        (argument(as_operator="torch.os.system"), "holds 'as_operator'"),
        (argument(as_custom_obj={"name": "x"}), "holds 'as_custom_obj'"),
        (expression("__import__('os').system('true')"), "holds .__import__"),
        (expression("9**9**9**9"), r"holds '9\*\*9"),
        (expression("Symbol('s0').func"), "holds .Symbol"),
        (
            returns({"type": "mine.Output", "context": "null", "children_spec": []}),
            "returns 'mine.Output'; ",
        ),
        (
            returns({"type": "builtins.dict", "context": json.dumps([ENUM]), "children_spec": []}),
            "'builtins.dict'",
        ),
        (lambda program: program.pop("graph_module"), "cannot be read .KeyError: 'graph_module'"),
    ],
)  # fmt: skip
def test_no_code_runs_from_a_program(
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Any], None],
    says: str,
) -> None:
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("torch read the file"))
    with pytest.raises(BadFile, match=says) as caught:
        load_subject(changed(programs, tmp_path, with_program(edit)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/weights/model.pt",
        "data/aotinductor/model/a.so",
        "models/other.json",
        "data/weights/../weight_0",
    ],
)
def test_what_needs_more_than_tensors_is_refused_by_its_name(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("torch read the file"))
    path = changed(programs, tmp_path, lambda entries: entries.update({name: pickle.dumps(None)}))
    with pytest.raises(
        BadFile, match=rf"holds '{re.escape(name)}', which is not read since it may run code"
    ):
        load_subject(path)


def test_a_pickled_tensor_is_refused(programs: Path, tmp_path: Path) -> None:
    def edit(entries: dict[str, bytes]) -> None:
        config = json.loads(entries["data/weights/model_weights_config.json"])
        config["config"]["fc.weight"]["use_pickle"] = True
        entries["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    with pytest.raises(BadFile, match=r"keeps 'fc\.weight' as a pickle"):
        load_subject(changed(programs, tmp_path, edit))


@pytest.mark.parametrize("where", [0.1, 0.3, 0.5, 0.9])
def test_a_flipped_byte_is_refused(programs: Path, tmp_path: Path, where: float) -> None:
    raw = bytearray((programs / "any.pt2").read_bytes())
    with zipfile.ZipFile(programs / "any.pt2") as archive:
        entries = [
            e
            for e in archive.infolist()
            if "weight_" in e.filename or e.filename.endswith("model.json")
        ]
    entry = entries[int(where * len(entries))]
    raw[raw.index(entry.filename.encode()) + 200 + len(entry.filename)] ^= 1
    (tmp_path / "bad.pt2").write_bytes(raw)
    with pytest.raises(BadFile, match=r"bad\.pt2"):
        load_subject(tmp_path / "bad.pt2")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not a whole archive"),
        (b"PK\x03\x04", "not a whole archive"),
        (None, "not a whole archive"),
    ],
)
def test_a_file_that_is_no_archive_is_one_line(
    programs: Path, tmp_path: Path, raw: bytes | None, says: str
) -> None:
    (tmp_path / "bad.pt2").write_bytes(
        (programs / "any.pt2").read_bytes()[:5000] if raw is None else raw
    )
    with pytest.raises(BadFile, match=says) as caught:
        load_subject(tmp_path / "bad.pt2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_program_of_other_channels_and_shape_is_climbed_in_them(
    tmp_path: Path, channels: int
) -> None:
    network = wide(channels)
    images = torch.rand(2, channels, 12, 28)
    subject = load_subject(export(network, tmp_path / "net.pt2", images, dynamic=ANY_BATCH))
    assert (subject.channels, subject.size) == (channels, (12, 28))
    assert "values in 0 … 1 as they are" in subject.card["assumed"]
    torch.testing.assert_close(subject(images), network(images))
    result = synthesize(subject, "4:1", prior="pixels", steps=5)
    assert result.inputs.shape == (1, channels, 12, 28)
    assert result.scores[0] > result.start_scores[0]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: (small(), torch.rand(4, 3, 32, 32)),
            BadRequest,
            r"for 4 images at a time; for any number: torch",
        ),
        (
            lambda: (small().train(), torch.rand(1, 3, 32, 32)),
            BadRequest,
            r"while training; export model\.eval\(\)",
        ),
        (
            lambda: (nn.Conv1d(3, 1, 1), torch.rand(1, 3, 8)),
            BadRequest,
            r"reads \(1, 3, 8\); a network",
        ),
        (
            lambda: (nn.Conv2d(3, 1, 1), torch.rand(1, 3, 8, 8)),
            BadRequest,
            r"makes \(1, 1, 8, 8\) of one image",
        ),
    ],
)  # fmt: skip
def test_a_program_that_is_no_classifier_of_images_is_one_line(
    tmp_path: Path, make: Callable[[], tuple[nn.Module, Tensor]], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        load_subject(export(*make()[:1], tmp_path / "net.pt2", *make()[1:]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("beside", "error", "says"),
    [
        ('{"size": 48}', BadRequest, r"exported for 32 × 32 pixels; its JSON file says 48"),
        (
            '{"colour": 1}',
            BadRequest,
            "option 'colour'; there are: size, channels, mean, std, range",
        ),
        ('{"classes": ["a", "b"]}', BadRequest, "has 10 outputs and 2 names of classes"),
        ('{"output": "fd"}', UnknownName, "no layer 'fd' for its output; near: fc"),
        ("[1]", BadFile, r"is no JSON object; write for example \{"),
        ("{", BadFile, r"any\.json, which should state the preprocessing of any\.pt2, is not JSON"),
    ],
)
def test_a_wrong_file_beside_a_program_is_one_line(
    programs: Path, tmp_path: Path, beside: str, error: type[Exception], says: str
) -> None:
    path = Path(shutil.copy(programs / "any.pt2", tmp_path))
    (tmp_path / "any.json").write_text(beside)
    with pytest.raises(error, match=says) as caught:
        load_subject(path)
    assert "\n" not in str(caught.value)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(UnknownName, match=r"no file 'nowhere\.pt2'"):
        load_subject("nowhere.pt2")
