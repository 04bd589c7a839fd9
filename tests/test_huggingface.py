"""Classifiers of 🤗 transformers: as the library itself reads a photograph; no code of a folder."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import Run, samples
from PIL import Image

import phosphene
from phosphene.errors import BadFile, BadRequest, Unavailable, UnknownName
from phosphene.subjects import load_subject

NAMES = ("tench", "English springer", "church")
SIDE = 64


@pytest.fixture
def transformers(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transformers")


@pytest.fixture
def folder(transformers: ModuleType, folders: Path, request: pytest.FixtureRequest) -> Path:
    """A small network as `save_pretrained` writes it, with its image processor; read only."""
    kind = getattr(request, "param", "resnet")
    path = folders / kind
    if not path.exists():
        config, processor = small(transformers, kind)
        torch.manual_seed(0)
        network = transformers.AutoModelForImageClassification.from_config(config).eval()
        for module in (
            network.modules()
        ):  # or the numbers are too small to tell one preprocessing from another
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        network.save_pretrained(path)
        processor.save_pretrained(path)
    return path


def small(library: ModuleType, kind: str) -> tuple[Any, Any]:
    """Configuration and image processor of a small network of each kind."""
    names = {
        "id2label": dict(enumerate(NAMES)),
        "label2id": {name: i for i, name in enumerate(NAMES)},
    }
    if kind == "resnet":
        config = library.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **names
        )
        return config, library.ConvNextImageProcessor(
            size={"shortest_edge": SIDE},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
            crop_pct=1.0,
        )
    if kind == "vit":
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
        config = library.ViTConfig(image_size=SIDE, patch_size=16, **sizes, **names)
        return config, library.ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    config = library.MobileNetV1Config(depth_multiplier=0.25, image_size=SIDE, **names)
    look = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    # MobileViT's own order of colours: blue first
    return config, library.MobileViTImageProcessor(**look)


every_kind = pytest.mark.parametrize("folder", ["resnet", "vit", "mobilenet"], indirect=True)


@every_kind
def test_logits_are_those_of_transformers_on_a_photograph(
    transformers: ModuleType, folder: Path
) -> None:
    images, _ = samples(range(0, 40, 10))
    # of the size that the network reads, so that only colours can differ: each library resizes
    pictures = [
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).resize((SIDE, SIDE))
        for image in images
    ]
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        theirs = network(**processor(pictures, return_tensors="pt")).logits
    subject = load_subject(f"hf:{folder}")
    pixels = torch.stack(
        [torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in pictures]
    )
    with torch.no_grad():
        ours = subject(pixels.view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert theirs.std(0).min() > 0.01  # photographs differ, so the agreement says something
    assert (subject.size, subject.classes) == ((SIDE, SIDE), NAMES)


@pytest.mark.parametrize(
    ("folder", "unit", "output"),
    [
        ("resnet", "resnet.encoder.stages.1.layers.0.layer.0.convolution:3", "classifier.1"),
        ("vit", "class:church", "classifier"),
    ],
    indirect=["folder"],
)
def test_a_unit_climbs_and_its_record_makes_it_again(
    phosphene: Run, folder: Path, tmp_path: Path, unit: str, output: str
) -> None:
    found = phosphene("layers", f"hf:{folder}", "--all", "--json").json()
    assert (found["input"], found["output"]) == ([SIDE, SIDE], output)
    modules = {row["layer"] for row in found["layers"] if row["kind"] != "attention head"}
    assert {"classifier"} < modules <= paths(f"hf:{folder}")
    climb = ("--prior", "pixels", "--steps", 60, "--device", "cpu", "--precision", "float32")
    (first,) = phosphene(
        "synthesize", f"hf:{folder}", unit, *climb, "--out", tmp_path / "a", "--json"
    ).json()
    assert first["score"] > first["start_score"] + 0.1
    record = Path(first["image"]).with_suffix(".json")
    again = phosphene("synthesize", "--record", record, "--out", tmp_path / "b")
    assert again.fine()
    assert again.err == ""  # the same bits: no warning
    if unit.startswith("class:"):
        judged = phosphene("evaluate", tmp_path / "a", "--judge", f"hf:{folder}", "--json").json()
        assert judged[0]["figures"]["recognised_top1"]["value"] == 1


def test_another_files_weights_do_not_make_a_record_again(
    phosphene: Run, folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    climb = ("--prior", "pixels", "--steps", 1, "--device", "cpu")
    (made,) = phosphene(
        "synthesize", f"hf:{mine}", "class:0", *climb, "--out", tmp_path / "a", "--json"
    ).json()
    settings = json.loads((mine / "preprocessor_config.json").read_text())
    (mine / "preprocessor_config.json").write_text(
        json.dumps(settings | {"image_mean": [0.4, 0.4, 0.4]})
    )
    again = phosphene(
        "synthesize", "--record", Path(made["image"]).with_suffix(".json"), "--out", tmp_path / "b"
    )
    assert "made with another subject" in again.refused()


def test_the_untrained_control_is_the_same_each_time_and_another_network(folder: Path) -> None:
    trained, first, again = (
        load_subject(f"hf:{folder}{what}") for what in ("", "@random", "@random")
    )
    for one, other in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    image = torch.rand(1, 3, SIDE, SIDE)
    assert not torch.allclose(first(image), trained(image))
    assert first.card["sha256"].endswith("@random")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "no weights",
            r"has no model\.safetensors; .* \(weights in another form than safetensors are not",
        ),
        ("no processor", r"has no preprocessor_config\.json; "),
        ("cut", r"cannot be read: model\.safetensors is damaged .*; delete "),
        ("headless", r"is no trained network: its weights lack classifier\.1\.bias"),
        ("code", r"cannot be read \(ValueError: .*custom code"),
        ("unknown", r"cannot be read .*model_type|cannot be read .*octopus"),
        ("json", "cannot be read"),
        ("flat", "cannot be read .*makes .* of black and"),
    ],
)
def test_a_folder_that_will_not_do_is_one_line(
    folder: Path, tmp_path: Path, change: str, says: str
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    spoil(mine, change)
    with pytest.raises(BadFile, match=says) as caught:
        load_subject(f"hf:{mine}")
    assert "\n" not in str(caught.value)


def spoil(folder: Path, change: str) -> None:
    from safetensors.torch import load_file, save_file

    config, look, weights = (
        folder / file for file in ("config.json", "preprocessor_config.json", "model.safetensors")
    )
    if change == "no weights":
        weights.rename(folder / "pytorch_model.bin")
    elif change == "no processor":
        look.unlink()
    elif change == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif change == "headless":
        kept = {
            name: value for name, value in load_file(weights).items() if "classifier" not in name
        }
        save_file(kept, weights, {"format": "pt"})
    elif change == "code":
        code = {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Net"}
        config.write_text(
            json.dumps(json.loads(config.read_text()) | {"model_type": "mine", "auto_map": code})
        )
        (folder / "mine.py").write_text("raise SystemExit('this ran')")
    elif change == "unknown":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "octopus"}))
    elif change == "json":
        config.write_text("{")
    elif change == "flat":
        look.write_text(
            json.dumps(json.loads(look.read_text()) | {"image_std": [float("inf")] * 3})
        )


@pytest.mark.parametrize("folder", ["vit"], indirect=True)
def test_a_processor_that_does_not_fit_its_network_is_one_line(
    folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    look = json.loads((mine / "preprocessor_config.json").read_text())
    (mine / "preprocessor_config.json").write_text(
        json.dumps(look | {"size": {"height": 48, "width": 48}})
    )
    with pytest.raises(
        BadRequest, match=r"does not take an image of 48 × 48 pixels \(ValueError: "
    ) as caught:
        load_subject(f"hf:{mine}")
    assert "\n" not in str(caught.value)


def test_names_that_are_neither_a_folder_nor_of_the_hub(transformers: ModuleType) -> None:
    with pytest.raises(
        UnknownName, match=r"hf:resnet is neither a folder nor of the form hf:OWNER/NAME"
    ):
        load_subject("hf:resnet")


def test_a_hub_that_cannot_be_reached_is_one_line(
    transformers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(*_: object, **__: object) -> None:
        raise URLError(OSError("Name or service not known"))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(
        Unavailable, match=r"Name or service not known\); download its files .* hf:FOLDER"
    ) as caught:
        load_subject("hf:microsoft/resnet-18")
    assert "\n" not in str(caught.value)


def test_a_damaged_file_in_the_cache_is_named_with_what_helps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--owner--name"
    shutil.copytree(folder, repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    file = repository / "snapshots" / "0123" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(
        BadFile, match=rf"model\.safetensors is damaged .*; delete {file} and fetch"
    ):
        load_subject("hf:owner/name")
    file.write_bytes(b"<html>Sign in</html>")
    with pytest.raises(BadFile, match=r"is damaged \(a web page; download the file itself\)"):
        load_subject("hf:owner/name")


def test_what_the_cache_has_needs_no_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--someone--small"
    shutil.copytree(folder, repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked the hub"))
    assert (
        load_subject("hf:someone/small").card["sha256"]
        == load_subject(f"hf:{folder}").card["sha256"]
    )


def paths(name: str) -> set[str]:
    return {path for path, _ in load_subject(name).network.named_modules()}


def without_resize(folder: Path, path: Path, **config: Any) -> Path:
    """Copy a folder so that its image processor leaves the size as it is."""
    shutil.copytree(folder, path)
    for name, changes in (
        ("preprocessor_config.json", {"do_resize": False, "do_center_crop": False}),
        ("config.json", config),
    ):
        said = {**json.loads((path / name).read_text()), **changes}
        (path / name).write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    return path


@pytest.mark.parametrize("folder", ["vit"], indirect=True)
def test_a_processor_that_does_not_resize_leaves_the_size_to_the_configuration(
    folder: Path, tmp_path: Path
) -> None:
    subject = load_subject(f"hf:{without_resize(folder, tmp_path / 'vit')}")
    assert subject.size == (SIDE, SIDE)
    assert "assumed" not in subject.card
    assert (subject.reading_version(), subject.as_read_by(1).size) == (2, (256, 256))


@pytest.mark.parametrize("folder", ["resnet"], indirect=True)
def test_a_size_that_nobody_says_is_told_as_assumed(
    phosphene: Run, folder: Path, tmp_path: Path
) -> None:
    name = f"hf:{without_resize(folder, tmp_path / 'resnet')}"
    subject = load_subject(name)
    assert subject.size == (224, 224)
    assert "224 × 224 pixels; its image processor does not resize" in subject.card["assumed"]
    assert "does not resize" in " ".join(phosphene("layers", name).fine().split())


@pytest.mark.parametrize("folder", ["vit"], indirect=True)
def test_a_transformer_s_tokens_are_a_class_token_and_patches(folder: Path) -> None:
    subject = load_subject(f"hf:{folder}")
    layer = next(name for name in subject.shapes() if name.endswith(("layer.1", "layers.1")))
    assert subject.shapes()[layer] == (16, 4, 4)
    assert subject.token_names(layer) == ("class",)


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [("deit", ("class", "distillation")), ("dinov2_with_registers", ("class", "register0"))],
)
def test_a_configuration_tells_the_tokens(
    transformers: ModuleType, tmp_path: Path, kind: str, tokens: tuple[str, ...]
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    own = {"deit": {"intermediate_size": 32}, "dinov2_with_registers": {"num_register_tokens": 1}}
    settings = {**sizes, **own[kind], "image_size": SIDE, "patch_size": 16}
    config = transformers.AutoConfig.for_model(kind, **settings)
    config.architectures = [f"{type(config).__name__.removesuffix('Config')}ForImageClassification"]
    network = transformers.AutoModelForImageClassification.from_config(config)
    network.save_pretrained(tmp_path)
    side = {"height": SIDE, "width": SIDE}
    transformers.ViTImageProcessor(size=side).save_pretrained(tmp_path)
    subject = load_subject(f"hf:{tmp_path}")
    layer = next(name for name in subject.shapes() if name.endswith(("layer.1", "layers.1")))
    assert subject.shapes()[layer] == (16, 4, 4)
    assert subject.token_names(layer) == tokens


def of_channels(library: ModuleType, folder: Path, channels: int, **look: Any) -> Path:
    """Write a small ViT that reads so many channels, with its image processor."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = library.ViTConfig(
        image_size=SIDE, patch_size=16, num_channels=channels, intermediate_size=32, **sizes
    )
    torch.manual_seed(0)
    network = library.ViTForImageClassification(config).eval()
    network.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    library.ViTImageProcessor(size=size, **look).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("channels", "look"),
    [
        (1, {"image_mean": [0.45], "image_std": [0.25]}),
        (1, {"do_normalize": False}),
        (1, {"do_rescale": False, "image_mean": [115], "image_std": [60]}),
        (4, {"image_mean": [0.4, 0.5, 0.6, 0.3], "image_std": [0.2, 0.3, 0.25, 0.2]}),
    ],
    ids=["grey", "plain", "bytes", "four"],
)
def test_other_channels_than_rgb_are_read_as_the_processor_makes_them(
    transformers: ModuleType, tmp_path: Path, channels: int, look: dict[str, Any]
) -> None:
    folder = of_channels(transformers, tmp_path / "vit", channels, **look)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, channels), np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    seen = processor([*pixels], return_tensors="pt", input_data_format="channels_last")
    subject = load_subject(f"hf:{folder}")
    assert (subject.channels, subject.size) == (channels, (SIDE, SIDE))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(
        subject.prepare(images), seen["pixel_values"].float(), rtol=1e-5, atol=1e-5
    )
    with torch.no_grad():
        torch.testing.assert_close(subject(images), network(**seen).logits, rtol=1e-4, atol=1e-4)
    found = phosphene.synthesize(subject, "classifier:1", prior="pixels", steps=3)
    assert found.images.shape[1] == channels
    assert found.scores[0] > found.start_scores[0]


def test_a_processor_of_equal_means_serves_any_number_of_channels(
    transformers: ModuleType, tmp_path: Path
) -> None:
    subject = load_subject(f"hf:{of_channels(transformers, tmp_path / 'vit', 6)}")
    assert subject.mean == pytest.approx([0.5] * 6)
    assert subject.shapes()["classifier"] == (2,)


def test_means_of_rgb_for_a_grey_network_are_refused_in_one_line(
    transformers: ModuleType, tmp_path: Path
) -> None:
    folder = of_channels(transformers, tmp_path / "vit", 1, image_mean=[0.485, 0.456, 0.406])
    with pytest.raises(BadFile, match=r"has means \[0.485, 0.456, 0.406\].*1 channel\)") as caught:
        load_subject(f"hf:{folder}")
    assert "\n" not in str(caught.value)
