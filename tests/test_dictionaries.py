"""Features of dictionaries as units: planted ones are found, and each layout means what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import phosphene
from phosphene.axes import before
from phosphene.dictionaries import read_dictionary
from phosphene.errors import BadFile, BadRequest, UnknownName
from phosphene.subjects import Subject, load_subject, outer_layers
from phosphene.testing import TinyNet, lively, write_subject

INPUTS, FEATURES = 6, 9


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autoencoder() -> dict[str, Tensor]:
    """Return tensors of a sparse autoencoder in SAELens' layout."""
    return {
        "W_enc": drawn(INPUTS, FEATURES, seed=1),
        "b_enc": drawn(FEATURES, seed=2),
        "W_dec": drawn(FEATURES, INPUTS, seed=3),
        "b_dec": drawn(INPUTS, seed=4),
    }


def written(path: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    """Write a dictionary, with its configuration in its metadata where it has one."""
    kept = {name: value.contiguous() for name, value in tensors.items()}
    save_file(kept, path, {"cfg": json.dumps(config)} if config else None)
    return path


def features_of(path: Path, values: Tensor) -> Tensor:
    return read_dictionary(path)(values)


X = drawn(4, INPUTS, 3, 5, seed=7)
ROWS = X.movedim(1, -1)


# ---------------------------------------------------------------- layouts


def centred(t: dict[str, Tensor], x: Tensor = ROWS) -> Tensor:
    return (x - t["b_dec"]) @ t["W_enc"] + t["b_enc"]


def largest(values: Tensor, k: int) -> Tensor:
    return values * (values >= values.sort(-1, descending=True).values[..., k - 1 : k])


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, lambda t: centred(t).relu()),
        ({"architecture": "standard"}, lambda t: centred(t).relu()),
        ({"apply_b_dec_to_input": False}, lambda t: (ROWS @ t["W_enc"] + t["b_enc"]).relu()),
        ({"architecture": "topk", "k": 3}, lambda t: largest(centred(t).relu(), 3)),
        (
            {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}},
            lambda t: largest(centred(t).relu(), 2),
        ),
        (
            {"architecture": "batchtopk", "threshold": 0.4},
            lambda t: centred(t) * (centred(t) > 0.4),
        ),
        (
            {"d_vit": INPUTS, "activation": {"cls": "Relu", "params": {}}},
            lambda t: (ROWS @ t["W_enc"] + t["b_enc"]).relu(),
        ),
        (
            {"d_vit": INPUTS, "activation": {"cls": "TopK", "params": {"top_k": 9}}},
            lambda t: ROWS @ t["W_enc"] + t["b_enc"],  # all are kept, also those below 0
        ),
        (
            {"normalize_activations": "constant_norm_rescale"},
            lambda t: centred(t, ROWS * 6**0.5 / ROWS.norm(dim=-1, keepdim=True)).relu(),
        ),
        (
            {"normalize_activations": "layer_norm"},
            lambda t: centred(
                t,
                (ROWS - ROWS.mean(-1, keepdim=True)) / (ROWS.std(-1, keepdim=True) + 1e-5),
            ).relu(),
        ),
        (
            {"architecture": "topk", "k": 3, "rescale_acts_by_decoder_norm": True},
            lambda t: largest((centred(t) * t["W_dec"].norm(dim=1)).relu(), 3),
        ),
    ],
)
def test_a_configuration_means_what_it_says(tmp_path: Path, config: Any, wanted: Any) -> None:
    tensors = autoencoder()
    found = features_of(written(tmp_path / "sae.safetensors", tensors, **config), X)
    torch.testing.assert_close(found, wanted(tensors).movedim(-1, 1), rtol=1e-5, atol=1e-5)


def test_a_threshold_is_that_of_a_jump(tmp_path: Path) -> None:
    tensors = {**autoencoder(), "threshold": drawn(FEATURES).abs()}
    pre = centred(tensors)
    found = features_of(written(tmp_path / "sae.safetensors", tensors, architecture="jumprelu"), X)
    torch.testing.assert_close(found.movedim(1, -1), pre * (pre > tensors["threshold"]))


def test_a_gate_decides_and_a_magnitude_measures(tmp_path: Path) -> None:
    tensors = autoencoder() | {
        name: drawn(FEATURES, seed=s) for s, name in enumerate(("b_gate", "b_mag", "r_mag"), 8)
    }
    del tensors["b_enc"]
    product = (ROWS - tensors["b_dec"]) @ tensors["W_enc"]
    size = (product * tensors["r_mag"].exp() + tensors["b_mag"]).relu()
    found = features_of(written(tmp_path / "sae.safetensors", tensors, architecture="gated"), X)
    torch.testing.assert_close(found.movedim(1, -1), size * (product + tensors["b_gate"] > 0))


@pytest.mark.parametrize("jump", [False, True])
def test_overcomplete_s_encoder_is_its_own(tmp_path: Path, jump: bool) -> None:
    encoder = nn.Sequential(nn.Linear(INPUTS, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU())
    encoder[1].running_mean.copy_(drawn(FEATURES))
    encoder[1].running_var.copy_(drawn(FEATURES, seed=1).square() + 0.1)
    state = {f"encoder.final_block.{key}": v for key, v in encoder.state_dict().items()}
    del state["encoder.final_block.1.num_batches_tracked"]
    state["dictionary._weights"] = drawn(FEATURES, INPUTS)
    wanted = encoder.eval()(ROWS.reshape(-1, INPUTS)).detach()
    if jump:
        state["thresholds"] = torch.full((FEATURES,), -1.0)
        wanted = wanted * (wanted > np.exp(-1))
    found = features_of(written(tmp_path / "sae.safetensors", state), X)
    torch.testing.assert_close(found.movedim(1, -1).reshape(-1, FEATURES), wanted)


def test_two_linear_layers_are_an_autoencoder(tmp_path: Path) -> None:
    t = autoencoder()
    state = {"encoder.weight": t["W_enc"].T, "encoder.bias": t["b_enc"]}
    state |= {"decoder.weight": t["W_dec"].T, "decoder.bias": t["b_dec"]}
    found = features_of(written(tmp_path / "sae.safetensors", state), X)
    torch.testing.assert_close(found.movedim(1, -1), centred(t).relu())


def test_a_configuration_may_lie_beside_and_counts_for_the_hash(tmp_path: Path) -> None:
    file = written(tmp_path / "sae.safetensors", autoencoder())
    plain = read_dictionary(file)
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": "topk", "k": 1}))
    told = read_dictionary(file)
    assert (told(X) > 0).sum(1).max() == 1
    assert (plain(X) > 0).sum(1).max() > 1
    assert plain.sha256 != told.sha256


# ---------------------------------------------------------------- directions


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_a_direction_s_value_is_the_product_with_its_unit_vector(tmp_path: Path, kind: str) -> None:
    striped, dotted = 3 * drawn(INPUTS), drawn(INPUTS, seed=1)
    file = tmp_path / f"probes.{kind}"
    if kind == "npy":
        np.save(file, torch.stack([striped, dotted]).numpy())
    elif kind == "npz":
        np.savez(file, striped=striped.numpy(), dotted=dotted.numpy())
    else:
        save_file({"striped": striped, "dotted": dotted}, file)
    dictionary = read_dictionary(file)
    assert {*dictionary.names} == ({"striped", "dotted"} if kind != "npy" else set())
    order = (
        [dictionary.names.index(name) for name in ("striped", "dotted")]
        if kind != "npy"
        else [0, 1]
    )
    wanted = torch.stack([ROWS @ (each / each.norm()) for each in (striped, dotted)], 1)
    torch.testing.assert_close(dictionary(X)[:, order], wanted)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (torch.float16, 1e-6),
        (torch.float16, 6e4),
        (torch.float32, 1e-40),
        (torch.float32, 1e-25),
        (torch.float32, 1e38),
        (torch.float64, 1e-300),
        (torch.float64, 1e300),
    ],
)
def test_a_direction_s_length_does_not_matter(
    tmp_path: Path, kind: torch.dtype, size: float
) -> None:
    signs = torch.tensor([1.0, -1, 1, 1, -1, 1])
    row = (size * signs.double()).to(kind)
    np.save(tmp_path / "probe.npy", row.numpy())
    dictionary = read_dictionary(tmp_path / "probe.npy")
    torch.testing.assert_close(dictionary(X)[:, 0], ROWS @ signs / len(signs) ** 0.5)
    assert 0 < dictionary.vectors.float().norm() < torch.inf


def test_the_option_takes_several_directions_at_any_position(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    name = zoo / "subject.safetensors"
    subject = load_subject(name)
    rows = drawn(3, subject.shape("conv5")[0]).double()
    np.save(tmp_path / "rows.npy", rows.numpy())
    climb = ("--prior", "pixels", "--steps", 2, "--shift", 0, "--out", tmp_path / "a", "--json")
    made = phosphene(
        "synthesize", name, "--direction", f"conv5@max={tmp_path / 'rows.npy'}", *climb
    ).json()
    assert [each["label"] for each in made] == ["rows0", "rows1", "rows2"]
    request = json.loads(Path(made[1]["image"]).with_suffix(".json").read_text())["request"]
    kept = request["members"][0][0]["terms"][0][1]
    assert kept["vector"] == rows[1].tolist(), "as the file has them"
    assert kept["position"] == "max"
    said = phosphene("synthesize", name, "--direction", f"conv5@9,99={tmp_path / 'rows.npy'}")
    assert "has a map of" in said.refused()


# ---------------------------------------------------------------- damaged and hostile files


def changed(name: str, value: Tensor) -> dict[str, Tensor]:
    return {**autoencoder(), name: value}


@pytest.mark.parametrize(
    ("tensors", "config", "words"),
    [
        (changed("b_enc", torch.zeros(4)), {}, r"its bias has the shape \(4,\)"),
        (changed("W_enc", torch.full((6, 9), torch.nan)), {}, "W_enc holds numbers"),
        (
            changed("W_enc", torch.zeros(6, 9, dtype=torch.int64)),
            {},
            "holds torch.int64, and",
        ),
        (changed("W_enc", torch.zeros(6)), {}, r"W_enc has the shape \(6,\)"),
        (autoencoder(), {"architecture": "topk", "k": 10}, "k = 10"),
        (autoencoder(), {"architecture": "topk"}, "k = None"),
        (autoencoder(), {"activation": "tanh"}, "activation 'tanh' is not known"),
        (autoencoder(), {"architecture": "jumprelu"}, "no threshold"),
        (autoencoder(), {"normalize_activations": "expected_average_only_in"}, "fold"),
        (autoencoder(), {"normalize_activations": "other"}, "'other' is none of"),
        (changed("b_gate", torch.zeros(9)), {}, "lacks 'r_mag'"),
        ({"one": torch.ones(3), "two": torch.ones(4)}, {}, "vectors of one length"),
        ({"none": torch.zeros(6)}, {}, "not all zero"),
        ({}, {}, "it holds nothing"),
    ],
)
def test_a_file_that_is_no_dictionary_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor], config: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadFile, match=words):
        read_dictionary(written(tmp_path / "sae.safetensors", tensors, **config))


def test_pickles_texts_and_absent_files_are_refused(tmp_path: Path) -> None:
    torch.save(autoencoder(), tmp_path / "sae.pt")
    (tmp_path / "sae.safetensors").write_text("no tensors")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name in ("sae.pt", "sae.safetensors", "objects.npy", "absent.safetensors"):
        with pytest.raises(BadFile, match=name):
            read_dictionary(tmp_path / name)


# ---------------------------------------------------------------- as a layer of a subject


@pytest.fixture
def named(tmp_path: Path) -> Subject:
    """A tiny subject with a dictionary on its six channels of `conv`."""
    file = written(tmp_path / "sae.safetensors", autoencoder())
    return phosphene.wrap(lively(TinyNet()), size=14).with_dictionary("sae", "conv", file)


def test_features_are_a_layer_like_any_other(named: Subject, tmp_path: Path) -> None:
    images = named.prepare(torch.rand(2, 3, 14, 14))
    plain = TinyNet()
    assert named.shapes()["sae"] == (FEATURES, 14, 14)
    assert named.shape("conv") == (6, 14, 14)
    with named.reading(["sae", before("sae"), "fc"]) as read:
        found = read(images)
    conv = named.network.get_submodule("conv")(images)
    torch.testing.assert_close(found["sae"], features_of(tmp_path / "sae.safetensors", conv))
    torch.testing.assert_close(found[before("sae")].relu(), found["sae"])
    torch.testing.assert_close(found["fc"], named.network(images))
    assert found.keys() == {"sae", before("sae"), "fc"}
    assert {path for path, _ in plain.named_modules()} | {"sae"} == {
        path for path, _ in named.network.named_modules()
    }
    assert [str(target) for target in named.targets("sae:3@max")] == ["sae:3@max"]
    with pytest.raises(UnknownName, match="sae has 9 channels"):
        named.targets("sae:9")


def test_the_network_computes_what_it_computed(named: Subject) -> None:
    images = torch.rand(2, 3, 14, 14)
    torch.testing.assert_close(named(images), phosphene.wrap(lively(TinyNet()), size=14)(images))


def test_the_identity_covers_the_file(tmp_path: Path) -> None:
    subject = write_subject(tmp_path / "subject.safetensors")
    file = written(tmp_path / "sae.safetensors", {"W_enc": drawn(4, 7)})
    plain = load_subject(subject)
    layer = next(name for name, shape in plain.shapes().items() if len(shape) == 3)
    count = plain.shapes()[layer][0]
    identities = {plain.identity}
    for seed in (1, 2):
        written(file, {"W_enc": drawn(count, 7, seed=seed)})
        identities.add(load_subject(f"{subject}+sae:{layer}={file}").identity)
    assert len(identities) == 3


def test_what_does_not_fit_is_refused(named: Subject, tmp_path: Path) -> None:
    file = tmp_path / "sae.safetensors"
    with pytest.raises(BadFile, match="reads 6 channels; block of"):
        named.with_dictionary("more", "block", file)
    for name in ("conv", "class", "a.b", "sae"):
        with pytest.raises(BadRequest, match="a dictionary's name"):
            named.with_dictionary(name, "conv", file)
    with pytest.raises(UnknownName, match="no layer 'cnov'"):
        named.with_dictionary("more", "cnov", file)


def test_two_dictionaries_and_one_of_another_s_features(named: Subject, tmp_path: Path) -> None:
    file = written(tmp_path / "over.safetensors", {"W_enc": drawn(FEATURES, 5)})
    both = named.with_dictionary("over", "sae", file)
    images = both.prepare(torch.rand(2, 3, 14, 14))
    with both.reading(["over"]) as read, named.reading(["sae"]) as other:
        features = other(images)["sae"]
        torch.testing.assert_close(read(images)["over"], features_of(file, features))


# ---------------------------------------------------------------- planted features are found


class Linear(nn.Module):
    """Six linear units over a whole image of 12 × 12."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, INPUTS, 12, bias=False)
        self.conv.weight.data = drawn(INPUTS, 3, 12, 12)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).flatten(1)


def planted(tmp_path: Path) -> tuple[Subject, Tensor]:
    """Return a linear subject, and the directions of the features planted in its units."""
    directions = drawn(INPUTS, 3, seed=5)
    tensors = {"W_enc": directions, "b_enc": torch.full((3,), -1.0)}
    file = written(tmp_path / "planted.safetensors", tensors)
    subject = phosphene.wrap(Linear(), size=12, mean=0.5, std=0.25)
    return subject.with_dictionary("sae", "conv", file), directions


def test_a_planted_feature_s_preferred_input_is_its_weighted_sum_of_filters(tmp_path: Path) -> None:
    subject, directions = planted(tmp_path)
    result = phosphene.synthesize(
        subject, "sae:0-2", prior="pixels", steps=60, tv=0.0, blur=0.0, shift=0
    )
    filters = subject.network.get_submodule("conv").weight
    for image, direction in zip(result.images, directions.T, strict=True):
        wanted = (direction[:, None, None, None] * filters).sum(0)
        found = image[:, : wanted.shape[1], : wanted.shape[2]]
        margin = (image.shape[1] - 12) // 2
        found = image[:, margin : margin + 12, margin : margin + 12] - 0.5
        agreeing = (found.sign() * wanted).sum() / wanted.abs().sum()
        assert agreeing > 0.95, "each pixel goes the way of its weight"


def test_a_feature_that_is_shut_at_the_start_is_climbed(tmp_path: Path) -> None:
    tensors = {"W_enc": drawn(INPUTS, 1, seed=5), "b_enc": torch.full((1,), -20.0)}
    subject = phosphene.wrap(Linear(), size=12, mean=0.5, std=0.25)
    file = written(tmp_path / "shut.safetensors", tensors)
    subject = subject.with_dictionary("sae", "conv", file)
    result = phosphene.synthesize(subject, "sae:0", prior="pixels", steps=60, tv=0.0, shift=0)
    assert result.start_scores[0] == 0
    assert result.scores[0] > 10


# ---------------------------------------------------------------- in every command


def test_every_command_takes_features(phosphene: Run, zoo: Path, tmp_path: Path) -> None:
    subject = load_subject(zoo / "subject.safetensors")
    layer = next(name for name, shape in outer_layers(subject.shapes()).items() if shape)
    count = subject.shapes()[layer][0]
    tensors = {"W_enc": drawn(count, 5), "b_enc": torch.full((5,), 3.0)}
    file = written(tmp_path / "sae.safetensors", tensors)
    name = f"{zoo / 'subject.safetensors'}+sae:{layer}={file}"
    for split in ("train", "val"):
        for n in range(12):
            folder = tmp_path / "photos" / split / f"class{n % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (255 * torch.rand(20, 20, 3)).byte().numpy()
            Image.fromarray(pixels).save(folder / f"{n}.png")
    photos = ("--images", tmp_path / "photos")
    rows = {row["layer"]: row for row in phosphene("layers", name, "--json").json()["layers"]}
    assert rows["sae"]["kind"] == "Dictionary"
    assert rows["sae"]["receptive_field"] == rows[layer]["receptive_field"]
    climb = ("--prior", zoo / "generator.safetensors", "--steps", 5, "--out", tmp_path / "a")
    made = phosphene("synthesize", name, "sae:0-1", *climb, "--json").json()
    record = Path(made[0]["image"]).with_suffix(".json")
    again = phosphene("synthesize", "--record", record, "--out", tmp_path / "b")
    assert again.fine()
    assert again.err == ""
    found = phosphene("exemplars", name, "sae:0-1", *photos, "--out", tmp_path / "e", "--json")
    assert [row["unit"] for row in found.json()] == ["sae:0", "sae:1"]
    judge = ("--judge", zoo / "subject.safetensors")
    (told,) = phosphene("evaluate", tmp_path / "a", *judge, *photos, "--json").json()
    assert told["layer"] == "sae"
    assert [row["unit"] for row in told["units"]] == ["sae:0", "sae:1"]
    site = tmp_path / "site"
    phosphene("atlas", tmp_path / "a", tmp_path / "e", "--out", site).fine()
    pages = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    assert any("sae:0" in page for page in pages)
    written(file, {**tensors, "W_enc": drawn(count, 5, seed=9)})
    said = phosphene("synthesize", "--record", record, "--out", tmp_path / "c")
    assert "another subject" in said.refused()
