"""The published generators: the release's arithmetic, and files that lie."""

import math
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from phosphene.errors import BadFile, BadRequest, PhospheneError, Unavailable, UnknownName
from phosphene.networks import deepsim
from phosphene.networks.deepsim import (
    LAYOUTS,
    DeePSiM,
    approximate_statistics,
    load_deepsim,
    read_bounds,
)

# The generators as Caffe's definitions give them, written out again: layer, operation
# (c: convolution, t: transposed convolution, f: fully connected), its weight's shape in Caffe,
# stride, padding, what follows (l: LeakyReLU 0.3, n: nothing).
FROM_VECTOR = """
    defc7 f 4096x{units} - - l    defc6 f 4096x4096 - - l    defc5 f 4096x4096 - - l
    deconv5 t 256x256x4x4 2 1 l   conv5_1 t 256x512x3x3 1 1 l"""
UP_FROM_8 = """
    deconv4 t 512x256x4x4 2 1 l   conv4_1 t 256x256x3x3 1 1 l
    deconv3 t 256x128x4x4 2 1 l   conv3_1 t 128x128x3x3 1 1 l
    deconv2 t 128x64x4x4 2 1 l    deconv1 t 64x32x4x4 2 1 l    deconv0 t 32x3x4x4 2 1 n"""
FROM_POOL5 = """
    Rconv6 c 512x256x3x3 1 1 l    Rconv7 c 512x512x3x3 1 1 l   Rconv8 c 512x512x3x3 1 0 l
    deconv5 t 512x256x4x4 2 1 l   conv5_1 t 256x512x3x3 1 1 l"""
FROM_CONV = """
    Rconv6 c 384x384x3x3 1 0 l    Rconv7 c 512x384x3x3 1 0 l   Rconv8 c 512x512x2x2 1 0 l
    deconv5 t 512x256x4x4 2 1 l   conv5_1 t 256x256x3x3 1 1 l  deconv4 t 256x128x4x4 2 1 l
    conv4_1 t 128x128x3x3 1 1 l   deconv3 t 128x128x4x4 2 1 l  conv3_1 t 128x128x3x3 1 1 l
    deconv2 t 128x64x4x4 2 1 l    conv2_1 c 32x64x3x3 1 1 l    deconv1 t 32x16x4x4 2 1 l
    conv1_1 c 3x16x3x3 1 1 n"""
UP_FROM_NORM = """
    Rconv8 c 128x128x3x3 1 1 l
    deconv4 t 128x128x4x4 2 1 l   conv4_1 c 128x128x3x3 1 1 l  deconv3 t 128x64x4x4 2 1 l
    conv3_1 c 64x64x3x3 1 1 l     deconv2 t 64x32x4x4 2 1 l    conv2_1 c 32x32x3x3 1 1 l
    deconv1 t 32x16x4x4 2 1 n     conv1_1 c 3x16x3x3 1 1 n"""
RELEASE = {
    "norm1": "Rconv6 c 128x96x3x3 2 2 l Rconv7 c 128x128x3x3 1 1 l" + UP_FROM_NORM,
    "norm2": "Rconv6 c 256x256x3x3 1 2 l Rconv7 c 128x256x3x3 1 1 l" + UP_FROM_NORM,
    "conv3": FROM_CONV,
    "conv4": FROM_CONV,
    "pool5": FROM_POOL5 + UP_FROM_8,
    "fc6": FROM_VECTOR.format(units=4096) + UP_FROM_8,
    "fc6_eucl": FROM_VECTOR.format(units=4096) + UP_FROM_8,
    "fc7": FROM_VECTOR.format(units=4096) + UP_FROM_8,
    "fc8": FROM_VECTOR.format(units=1000) + UP_FROM_8,
}
CODES = {
    "norm1": (96, 27, 27),
    "norm2": (256, 13, 13),
    "conv3": (384, 13, 13),
    "pool5": (256, 6, 6),
    "fc6": (4096,),
    "fc8": (1000,),
}


def steps(layer):
    words = RELEASE[layer].split()
    return [words[start : start + 6] for start in range(0, len(words), 6)]


def release_tensors(layer, seed=0):
    """Random tensors with the release's names and shapes; activations keep their size."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, operation, shape, stride, _, _ in steps(layer):
        shape = [int(side) for side in shape.split("x")]
        fan = (
            shape[0] * shape[2] * shape[3] / int(stride) ** 2
            if operation == "t"
            else math.prod(shape[1:])
        )
        weight = torch.rand(shape, generator=generator).sub_(0.5).mul_(math.sqrt(20 / fan))
        outputs = shape[1] if operation == "t" else shape[0]
        tensors |= {
            f"{name}.weight": weight,
            f"{name}.bias": torch.randn(outputs, generator=generator) / 10,
        }
    return tensors


def evaluate(layer, tensors, codes):
    """The release's image (RGB, 0 … 1), in float64 and by hand."""
    x = codes.double()
    for name, operation, _, stride, padding, after in steps(layer):
        weight, bias = tensors[f"{name}.weight"].double(), tensors[f"{name}.bias"].double()
        if operation == "f":
            x = x @ weight.T + bias
        elif operation == "c":
            x = F.conv2d(x, weight, bias, int(stride), int(padding))
        else:
            x = x.reshape(len(x), 256, 4, 4) if x.ndim == 2 else x
            x = F.conv_transpose2d(x, weight, bias, int(stride), int(padding))
        if after == "l":
            x = torch.where(x > 0, x, 0.3 * x)
    if layer in ("norm1", "norm2", "conv3", "conv4"):
        x = x.tanh() * 255
    blue, green, red = x.unbind(1)
    return torch.stack([red + 122.67891434, green + 116.66876762, blue + 104.00698793], 1) / 255


@pytest.fixture(scope="module")
def small():
    """norm1 is the smallest of the nine: the lying files are made from it."""
    return release_tensors("norm1")


def saved(tensors, path):
    torch.save(tensors, path)
    return path


def refusal(path, layer="norm1"):
    with pytest.raises(BadFile) as caught:
        load_deepsim(layer, path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    return message


@pytest.mark.parametrize("layer", CODES)
def test_the_release_evaluated_by_hand(layer, tmp_path):
    tensors = release_tensors(layer)
    network = load_deepsim(layer, saved(tensors, tmp_path / "generator.pt"))
    codes = torch.randn(
        2 if len(CODES[layer]) == 3 else 1,
        *CODES[layer],
        generator=torch.Generator().manual_seed(1),
    )
    expected = evaluate(layer, tensors, codes)
    images = network(codes)
    size = 240 if layer.startswith("norm") else 256
    assert images.shape == expected.shape == (len(codes), 3, size, size)
    assert images.dtype == torch.float32
    assert network.code_shape == CODES[layer]
    assert network.image_size == size
    spread = (expected - expected.mean()).abs().max()
    assert spread > 0.05
    assert (images - expected).abs().max() < 1e-5 * spread


@pytest.mark.parametrize("layer", LAYOUTS)
def test_names_and_shapes_are_the_release_s(layer):
    with torch.device("meta"):
        network = DeePSiM(layer)
    shapes = {name: list(value.shape) for name, value in network.state_dict().items()}
    for name, operation, shape, *_ in steps(layer):
        shape = [int(side) for side in shape.split("x")]
        assert shapes.pop(f"{name}.weight") == shape
        assert shapes.pop(f"{name}.bias") == [shape[1] if operation == "t" else shape[0]]
    assert not shapes


def test_fc6_has_56_million_parameters():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in DeePSiM("fc6").parameters())
    assert round(count / 1e6, 1) == 56.1


def test_the_subject_sees_227_of_256_from_14_on():
    with torch.device("meta"):
        network = DeePSiM("fc6")
    assert (network.image_size - network.view_size) // 2 == 14


def test_nothing_but_the_mean_colour_comes_from_zeros(tmp_path, small):
    zeros = {name: torch.zeros_like(value) for name, value in small.items()}
    images = load_deepsim("norm1", saved(zeros, tmp_path / "generator.pt"))(
        torch.ones(1, 96, 27, 27)
    )
    assert (images.mean((0, 2, 3)) * 255).tolist() == pytest.approx(
        [122.67891434, 116.66876762, 104.00698793]
    )


def test_a_saturated_pixel_still_has_a_gradient(tmp_path):
    tensors = release_tensors("pool5")
    tensors["deconv0.bias"] += 1000
    network = load_deepsim("pool5", saved(tensors, tmp_path / "generator.pt"))
    codes = torch.ones(1, 256, 6, 6, requires_grad=True)
    images = network(codes)
    assert images.min() > 1
    (gradient,) = torch.autograd.grad(images.sum(), codes)
    assert gradient.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_batch_is_its_members(tmp_path, small):
    network = load_deepsim("norm1", saved(small, tmp_path / "generator.pt"))
    codes = torch.randn(2, 96, 27, 27, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([network(code[None]) for code in codes])
    torch.testing.assert_close(network(codes), alone, rtol=1e-5, atol=1e-5)


def test_codes_of_another_shape_are_refused(tmp_path, small):
    network = load_deepsim("norm1", saved(small, tmp_path / "generator.pt"))
    with pytest.raises(BadRequest, match="reads codes"):
        network(torch.ones(1, 96, 13, 13))


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"0.{name}",
        lambda name: f"module.1.{name}",
        lambda name: name.replace(".", ".1."),
        lambda name: f"G.{name.replace('.', '.1.')}",
    ],
)
def test_one_prefix_is_forgiven(rename, tmp_path, small):
    network = load_deepsim(
        "norm1", saved({rename(name): value for name, value in small.items()}, tmp_path / "a.pt")
    )
    assert network.state_dict().keys() == small.keys()
    assert all(torch.equal(value, small[name]) for name, value in network.state_dict().items())


def test_the_older_pytorch_format_and_safetensors_hold_the_same(tmp_path, small):
    from safetensors.torch import save_file

    torch.save(small, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(small, tmp_path / "a.safetensors")
    for file in ("old.pt", "a.safetensors"):
        network = load_deepsim("norm1", str(tmp_path / file))
        assert all(torch.equal(value, small[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, tmp_path, small):
    network = load_deepsim(
        "norm1", saved({name: value.to(dtype) for name, value in small.items()}, tmp_path / "a.pt")
    )
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_an_unknown_layer_is_answered_with_those_there_are():
    with pytest.raises(
        UnknownName, match="norm1, norm2, conv3, conv4, pool5, fc6, fc6_eucl, fc7, fc8"
    ):
        load_deepsim("fc9")


class Evil:
    def __reduce__(self):
        return os.system, ("echo run > evil-was-run",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_never_run(zipped, tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**small, "evil": Evil()}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert "carries code" in refusal(tmp_path / "a.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"defc7.weight": Evil()}))
    refusal(tmp_path / "plain.pt")
    assert not (tmp_path / "evil-was-run").exists()


@pytest.mark.parametrize("kept", [0, 1, 7, 64, 1000, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_truncated_file_is_refused(form, kept, tmp_path, small):
    from safetensors.torch import save

    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pt")
    if form == "safetensors":
        path.write_bytes(save(small))
    else:
        torch.save(small, path, _use_new_zipfile_serialization=form == "zip")
    raw = path.read_bytes()
    path.write_bytes(raw[: kept if isinstance(kept, int) else int(len(raw) * kept)])
    assert "damaged, truncated" in refusal(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_that_are_no_weights_are_refused(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    for raw in (
        b"hello world\n" * 100,
        bytes(100_000),
        b"\xff" * 1000,
        b"<!doctype html><html>404</html>",
    ):
        path.write_bytes(raw)
        refusal(path)
    assert "no such file" in refusal(tmp_path / f"missing{suffix}")
    assert "no such file" in refusal(tmp_path)


def altered(tensors, **changes):
    """A copy with tensors exchanged; a name has `__` for its dot, and None takes it away."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in {**tensors, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"Rconv6__weight": torch.zeros(128, 96, 3, 4)},
            "'Rconv6.weight' is [128, 96, 3, 4], expected [128, 96, 3, 3]",
        ),
        ({"Rconv6__weight": torch.zeros(())}, "'Rconv6.weight' is [], expected [128, 96, 3, 3]"),
        ({"conv1_1__bias": None}, "'conv1_1.bias' is missing, expected [3]"),
        ({"conv9__bias": torch.zeros(3)}, "'conv9.bias' is [3], expected no such tensor"),
        ({"a\nb": torch.zeros(3)}, "'a\\nb' is [3], expected no such tensor"),
        ({"x" * 5000: torch.zeros(3)}, "expected no such tensor"),
        (
            {"conv1_1__bias": torch.zeros(3, dtype=torch.int64)},
            "'conv1_1.bias' is [3] of torch.int64, expected [3]",
        ),
        ({"conv1_1__bias": torch.zeros(3, dtype=torch.bool)}, "torch.bool"),
        ({"conv1_1__bias": torch.zeros(3, dtype=torch.complex64)}, "torch.complex64"),
        ({"conv1_1__bias": torch.zeros(3, dtype=torch.float8_e4m3fn)}, "float8"),
        ({"conv1_1__bias": torch.zeros(3).to_sparse()}, "sparse"),
        ({"conv1_1__bias": torch.zeros(3, device="meta")}, "meta"),
        ({"conv1_1__bias": "three"}, "'conv1_1.bias' is a str, expected [3]"),
        (
            {"conv1_1__bias": torch.tensor([0, math.nan, 0])},
            "'conv1_1.bias' has values that are infinite or not numbers",
        ),
        ({"conv1_1__bias": torch.tensor([0, -math.inf, 0])}, "infinite"),
        ({"conv1_1__bias": torch.tensor([0, 1e300, 0], dtype=torch.float64)}, "infinite"),
    ],
)
def test_tensors_that_are_not_the_release_s_are_refused(changes, said, tmp_path, small):
    assert said in refusal(saved(altered(small, **changes), tmp_path / "a.pt"))


@pytest.mark.parametrize(
    "holds", [[torch.zeros(3)], torch.zeros(3), {1: torch.zeros(3)}, {}, None, "text"]
)
def test_files_without_tensors_by_name_are_refused(holds, tmp_path):
    assert "expected" in refusal(saved(holds, tmp_path / "a.pt"))


def test_one_tensor_under_two_names_is_refused(tmp_path, small):
    assert "two names" in refusal(
        saved({**small, "conv1_1.1.bias": torch.zeros(3)}, tmp_path / "a.pt")
    )


def test_two_prefixes_are_refused(tmp_path, small):
    both = {**{f"a.{name}": value for name, value in small.items()}, **small}
    assert "expected no such tensor" in refusal(saved(both, tmp_path / "a.pt"))


def test_another_layer_s_file_is_named(tmp_path, small):
    assert "it fits deepsim:norm1" in refusal(saved(small, tmp_path / "a.pt"), "norm2")


def test_a_file_larger_than_its_generator_is_not_opened(tmp_path):
    with open(tmp_path / "a.pt", "wb") as file:
        file.truncate(10 << 30)
    assert "10,737,418,240 bytes" in refusal(tmp_path / "a.pt")


def test_a_zip_that_would_grow_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(100 << 20))
    assert "unpacks to 104,857,600 bytes" in refusal(tmp_path / "a.pt")


def test_a_tensor_that_claims_more_than_its_file_holds_is_refused(tmp_path):
    torch.save(
        {"Rconv6.weight": torch.zeros(96)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False
    )
    raw = (tmp_path / "a.pt").read_bytes()
    claimed = raw.replace(
        pickle.BININT1 + bytes([96]), pickle.BININT + (2**31 - 1).to_bytes(4, "little")
    )
    assert claimed != raw
    (tmp_path / "a.pt").write_bytes(claimed)
    refusal(tmp_path / "a.pt")


def test_without_the_hub_s_package_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        Unavailable, match=r"pip install 'phosphene\[hub\]'.*upconvGAN_fc6.pt"
    ) as caught:
        load_deepsim("fc6")
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub_is_one_line(monkeypatch):
    def download(repository, name):
        raise ConnectionError("HTTPSConnectionPool\n(host='huggingface.co')\nMax retries exceeded")

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download)
    )
    with pytest.raises(Unavailable, match=r"ConnectionError.*give that file") as caught:
        load_deepsim("fc6")
    assert "\n" not in str(caught.value)


def test_the_hub_is_asked_for_the_mirror_s_file(monkeypatch, tmp_path, small):
    asked = []

    def download(repository, name):
        asked.append((repository, name))
        return str(saved(small, tmp_path / name))

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download)
    )
    assert load_deepsim("norm1").layer == "norm1"
    assert asked == [("binxu/DeePSim_DosovitskiyBrox2016", "upconvGAN_norm1.pt")]


def test_the_licence_says_both():
    assert "MIT" in deepsim.LICENCE
    assert "non-commercial" in deepsim.LICENCE


def test_the_statistics_give_the_mean_bound_of_2016():
    mean, std = approximate_statistics("fc6")
    assert mean.shape == std.shape == (4096,)
    assert (mean + 3 * std).mean().item() == pytest.approx(11.85, abs=0.01)
    with pytest.raises(UnknownName, match="there are: fc6, fc6_eucl"):
        approximate_statistics("conv3")


def test_bounds_are_read_from_text_and_npy(tmp_path):
    (tmp_path / "fc6.txt").write_text("12 11 13\n0 3.5\t17 ")
    np.save(tmp_path / "fc6.npy", np.array([[12, 11, 13], [0, 3.5, 17]]))
    for file in ("fc6.txt", "fc6.npy"):
        assert read_bounds(tmp_path / file).tolist() == [12, 11, 13, 0, 3.5, 17]
        assert read_bounds(str(tmp_path / file), (3, 1, 2)).tolist() == [
            [[12, 11]],
            [[13, 0]],
            [[3.5, 17]],
        ]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "0 bounds"),
        (b"  \n", "0 bounds"),
        (b"1 2", "2 bounds, expected 3"),
        (b"1 2 3 4", "4 bounds, expected 3"),
        (b"1 2 nan", "not numbers"),
        (b"1 2 inf", "infinite"),
        (b"1 2 1e300", "infinite"),
        (b"1 -2 3", "negative"),
        (b"1,2,3", "not a readable text"),
        (b"1 two 3", "'two'"),
        (b"\xff\xfe1 2", "not a readable text"),
        (b"1 2 " + b"x" * 10_000, "not a readable text"),
    ],
)
def test_bounds_that_are_none_are_refused(raw, said, tmp_path):
    (tmp_path / "fc6.txt").write_bytes(raw)
    with pytest.raises(BadFile) as caught:
        read_bounds(tmp_path / "fc6.txt", (3,))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bounds_of_a_lying_npy_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fc6.npy"
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    lying = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80)
    np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)
    for raw in (
        path.read_bytes(),
        lying,
        b"",
        b"hello",
        pickle.dumps(Evil()),
        npy(["a", "b"]),
        npy([1j]),
        npy([math.nan]),
        npy([1e300]),
        npy([-1.0]),
    ):
        path.write_bytes(raw)
        with pytest.raises(BadFile) as caught:
            read_bounds(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil-was-run").exists()
    with pytest.raises(PhospheneError, match="no such file"):
        read_bounds(tmp_path / "missing.npy")


def npy(values):
    import io

    np.save(file := io.BytesIO(), np.array(values))
    return file.getvalue()
