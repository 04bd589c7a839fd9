"""Weights files: what is written is read, and every damage is refused in one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from phosphene import weights
from phosphene.errors import BadFile, OutOfSpace, PhospheneError, Unavailable, UnknownName
from phosphene.networks import build
from phosphene.priors import load_generated
from phosphene.subjects import load_subject
from phosphene.testing import (
    CLASSES,
    GENERATOR_ARCHITECTURE,
    SUBJECT_ARCHITECTURE,
    lively,
    write_generator,
    write_subject,
)

CARD = {"name": "x", "kind": "generator", "architecture": GENERATOR_ARCHITECTURE, "format": 1}


def refused(load: Callable[[], Any], error: type[PhospheneError] = BadFile) -> str:
    """The message with which it is refused: one line."""
    with pytest.raises(error) as caught:
        load()
    assert "\n" not in str(caught.value).strip()
    return str(caught.value)


def forge(path: Path, tensors: dict[str, torch.Tensor], card: Any) -> Path:
    """A file whose own digest is right, whatever its card says, as an attacker makes it."""
    text = card if isinstance(card, str) else json.dumps(card, sort_keys=True)
    path.write_bytes(save(tensors, {"phosphene": text, "digest": weights.digest_of(tensors, text)}))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole weights file of a few kilobytes."""
    file = tmp_path_factory.mktemp("small") / "small.safetensors"
    tensors = {
        "network.a": torch.arange(600.0).view(20, 30),
        "network.b": torch.ones(7),
        "network.n": torch.tensor(3),
    }
    weights.write(file, tensors, CARD)
    return file.read_bytes()


def test_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    tensors = {"network.a": torch.arange(600.0).view(20, 30)}
    assert len({weights.write(tmp_path / f"{n}.safetensors", tensors, CARD) for n in range(8)}) == 1


# ---------------------------------------------------------------- whole files


def test_eight_bits_are_a_half_step_from_the_truth_at_most(tmp_path: Path) -> None:
    tensors = {
        "network.weight": torch.randn(6, 5, 3, 3) * torch.logspace(-4, 2, 6)[:, None, None, None],
        "network.zero.weight": torch.zeros(2, 4),
        "network.code_std": torch.logspace(-4, 4, 9).view(3, 3),
        "network.b": torch.randn(5),
        "network.n": torch.tensor(7),
    }
    weights.write(tmp_path / "x.safetensors", tensors, CARD, bits=8)
    weights.write(tmp_path / "half.safetensors", tensors, CARD)
    found = weights.read(tmp_path / "x.safetensors").part("network")
    assert found.keys() == {"weight", "zero.weight", "code_std", "b", "n"}
    torch.testing.assert_close(found["code_std"], tensors["network.code_std"], rtol=1e-3, atol=0)
    for row, wanted in zip(found["weight"], tensors["network.weight"], strict=True):
        assert (row - wanted).abs().max() <= wanted.abs().max() / 127 / 2 * 1.001
    assert torch.equal(found["zero.weight"], torch.zeros(2, 4))
    assert torch.equal(found["b"], tensors["network.b"])
    assert found["weight"].dtype == torch.float32


def test_four_bits_are_near_the_truth_and_half_as_large(tmp_path: Path) -> None:
    tensors = {
        "network.weight": torch.randn(6, 64, 3, 3) * torch.logspace(-4, 2, 6)[:, None, None, None],
        "network.fc.weight": torch.randn(9, 96),
        "network.zero.weight": torch.zeros(2, 32),
        "network.odd.weight": torch.randn(4, 3, 3, 3),
        "code.axes": torch.randn(4, 128),
    }
    file = tmp_path / "x.safetensors"
    weights.write(file, tensors, CARD, bits=4)
    kept = load_file(file)
    assert kept["network.fc.weight"].shape == (9, 48)
    assert kept["network.odd.weight"].dtype == torch.int8, "too few inputs for a group"
    read = weights.read(file)
    found = {f"network.{name}": value for name, value in read.part("network").items()} | {
        f"code.{name}": value for name, value in read.part("code").items()
    }
    for name, wanted in tensors.items():
        assert found[name].shape == wanted.shape
        for row, theirs in zip(found[name].flatten(1), wanted.flatten(1), strict=True):
            assert (row - theirs).norm() <= 0.11 * theirs.norm()
    again = tmp_path / "again.safetensors"
    weights.write(again, tensors, CARD, bits=4, filters=8)
    assert load_file(again)["network.weight"].dtype == torch.int8
    assert load_file(again)["network.fc.weight"].dtype == torch.uint8


@pytest.mark.parametrize(
    "steps",
    [torch.ones(9), torch.ones(9, 2), torch.ones(9, 3, 1), torch.ones(2, 3), torch.ones(9, 0)],
)
def test_group_steps_that_do_not_fit_are_refused(tmp_path: Path, steps: torch.Tensor) -> None:
    weights.write(
        tmp_path / "x.safetensors", {"network.fc.weight": torch.randn(9, 96)}, CARD, bits=4
    )
    tensors = {**load_file(tmp_path / "x.safetensors"), "network.fc.weight:step": steps}
    file = forge(
        tmp_path / "forged.safetensors", tensors, weights.read(tmp_path / "x.safetensors").card
    )
    assert "damaged" in refused(lambda: weights.read(file).part("network"))


@pytest.mark.parametrize(
    "steps",
    [
        torch.ones(3),
        torch.ones(4, 1),
        torch.tensor(1.0),
        torch.full((4,), float("nan")),
        torch.ones(4).int(),
    ],
)
def test_steps_that_do_not_fit_are_refused(tmp_path: Path, steps: torch.Tensor) -> None:
    whole = load_file(write_subject(tmp_path / "subject.safetensors"))
    wrong = next(key for key, value in whole.items() if value.ndim > 1 and key.endswith("weight"))
    card = weights.read(tmp_path / "subject.safetensors").card
    tensors = {
        **whole,
        wrong: torch.zeros(whole[wrong].shape, dtype=torch.int8),
        wrong + ":step": steps,
    }
    file = forge(tmp_path / "forged.safetensors", tensors, card)
    if steps.shape == whole[wrong].shape[:1] and steps.isfinite().all():
        load_subject(str(file))
    else:
        assert "damaged" in refused(lambda: load_subject(str(file)))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors = {
        "network.w": torch.randn(4, 5),
        "network.b": torch.randn(5),
        "code.n": torch.tensor(7),
    }
    sha256 = weights.write(tmp_path / "a" / "x.safetensors", tensors, {**CARD, "note": "µσ"})
    found = weights.read(tmp_path / "a" / "x.safetensors", "generator")
    assert (
        found.sha256
        == sha256
        == hashlib.sha256((tmp_path / "a" / "x.safetensors").read_bytes()).hexdigest()
    )
    assert found.card["note"] == "µσ"
    assert found.name == "x"
    assert torch.equal(found.part("network")["w"], tensors["network.w"].half().float()), (
        "matrices in half precision"
    )
    assert torch.equal(found.part("network")["b"], tensors["network.b"]), "vectors in full"
    assert found.part("code")["n"] == 7
    assert sorted(found.part("network")) == ["b", "w"]


def test_numbers_beyond_half_precision_stay_whole(tmp_path: Path) -> None:
    tensors = {"network.w": torch.tensor([[1e5, -7e4], [0.5, 1.0]]), "network.v": torch.ones(2, 2)}
    weights.write(tmp_path / "x.safetensors", tensors, CARD)
    found = weights.read(tmp_path / "x.safetensors")
    assert torch.equal(found.part("network")["w"], tensors["network.w"])
    assert found.tensors["network.v"].dtype == torch.float16


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path, bits: int) -> None:
    for wrong in (float("nan"), float("inf")):
        tensors = {"network.weight": torch.full((2, 32), wrong)}
        with pytest.raises(BadFile, match=r"network\.weight\S* holds numbers that are not finite"):
            weights.write(tmp_path / "x.safetensors", tensors, CARD, bits=bits)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_card_is_json_and_one_that_is_refused_is_not_written(tmp_path: Path) -> None:
    file, tensors = tmp_path / "x.safetensors", {"network.a": torch.ones(2, 2)}
    weights.write(file, tensors, {**CARD, "measured": {"loss": float("nan"), "top1": 0.5}})
    header = file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")]
    assert "NaN" not in json.loads(header)["__metadata__"]["phosphene"]
    assert weights.read(file).card["measured"] == {"loss": None, "top1": 0.5}
    for change in ({"name": 5}, {"architecture": {"hidden": 70_000}}, {"architecture": [1]}):
        with pytest.raises(BadFile):
            weights.write(tmp_path / "y.safetensors", tensors, {**CARD, **change})
    assert not (tmp_path / "y.safetensors").exists()


def test_a_network_comes_back_as_it_was(tmp_path: Path) -> None:
    network = lively(build(SUBJECT_ARCHITECTURE))
    for value in network.parameters():
        value.copy_(value.half() if value.ndim > 1 else value)
    subject = load_subject(write_subject(tmp_path / "s.safetensors"))
    images = torch.rand(2, 3, 14, 14)
    with torch.no_grad():
        torch.testing.assert_close(subject(images), network((images - 0.5) / 0.25))
    assert subject.classes == CLASSES
    assert not any(parameter.requires_grad for parameter in subject.network.parameters())
    assert not subject.network.training
    assert not any(value.is_meta for value in subject.network.state_dict().values())


# ---------------------------------------------------------------- damage


def test_a_flipped_byte_anywhere_is_refused(small: bytes, tmp_path: Path) -> None:
    """Every byte of the header's length, the header and the card; every seventh of the tensors."""
    file, start = tmp_path / "x.safetensors", 8 + int.from_bytes(small[:8], "little")
    assert weights.read(_put(file, small)).name == "x"
    for at in [*range(start), *range(start, len(small), 7), len(small) - 1]:
        for flip in (0x01, 0x80) if at < start else (0x01,):
            damaged = bytearray(small)
            damaged[at] ^= flip
            _put(file, bytes(damaged))
            if damaged[8:start] != small[8:start] and _same_header(bytes(damaged), small, start):
                continue  # a space for a space: JSON that says the same
            refused(lambda: weights.read(file))


def _put(file: Path, raw: bytes) -> Path:
    file.write_bytes(raw)
    return file


def _same_header(one: bytes, other: bytes, start: int) -> bool:
    try:
        return json.loads(one[8:start]) == json.loads(other[8:start])
    except ValueError:
        return False


def test_a_file_cut_anywhere_is_refused(small: bytes, tmp_path: Path) -> None:
    for length in [*range(0, len(small), 37), len(small) - 1]:
        refused(lambda: weights.read(_put(tmp_path / "x", small[:length])))  # noqa: B023
    refused(lambda: weights.read(_put(tmp_path / "x", small + b"more")))


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 2**40, 100_000_001, 0, 1])
def test_a_header_that_claims_another_length_is_refused(
    small: bytes, tmp_path: Path, length: int
) -> None:
    refused(lambda: weights.read(_put(tmp_path / "x", length.to_bytes(8, "little") + small[8:])))


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 4096, b"<html>404</html>", b"\x89PNG\r\n\x1a\n" + b"x" * 100, b"{}" * 40]
)
def test_what_is_not_safetensors_is_refused(tmp_path: Path, raw: bytes) -> None:
    assert "not a safetensors file" in refused(
        lambda: weights.read(_put(tmp_path / "x.safetensors", raw))
    )


def test_a_renamed_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    plain, zipped = tmp_path / "plain.safetensors", tmp_path / "zipped.safetensors"
    plain.write_bytes(pickle.dumps(Hostile()))
    torch.save(Hostile(), zipped)
    assert zipfile.is_zipfile(zipped)
    for file in (plain, zipped):
        refused(lambda: weights.read(file))  # noqa: B023
        refused(lambda: load_subject(file))  # noqa: B023
        refused(lambda: load_generated(file))  # noqa: B023
    assert not (tmp_path / "ran").exists()


def test_a_safetensors_file_without_a_card_is_refused(tmp_path: Path) -> None:
    tensors = {"network.a": torch.ones(3)}
    for metadata in (None, {"phosphene": json.dumps(CARD)}, {"digest": "0"}, {"format": "pt"}):
        file = _put(tmp_path / "x", save(tensors, metadata))
        assert "card" in refused(lambda: weights.read(file))  # noqa: B023


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "near" in refused(lambda: weights.read(tmp_path / "none"), UnknownName)
    refused(lambda: weights.read(tmp_path), UnknownName)


def test_a_subject_is_not_a_generator(zoo: Path) -> None:
    assert "is a subject, not a generator" in refused(
        lambda: load_generated(zoo / "subject.safetensors")
    )
    assert "is a generator, not a subject" in refused(
        lambda: load_subject(zoo / "generator.safetensors")
    )


# ---------------------------------------------------------------- files made to harm


@pytest.mark.parametrize(
    "card",
    [
        "[1, 2]",
        "null",
        '"subject"',
        "not JSON",
        "{" * 3,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        json.dumps({**CARD, "name": 5}),
        json.dumps({**CARD, "kind": None}),
        json.dumps({**CARD, "format": "1"}),
        json.dumps({**CARD, "format": 4}),
        json.dumps({key: value for key, value in CARD.items() if key != "architecture"}),
        json.dumps({**CARD, "architecture": [GENERATOR_ARCHITECTURE]}),
        '{"name": "x", "kind": "generator", "format": 1, "architecture": {"a": '
        + "[" * 5000
        + "]" * 5000
        + "}}",
        '{"name": "x", "kind": "generator", "format": 1, "architecture": {"a": '
        + "[" * 480
        + "]" * 480
        + "}}",
        '{"name": "x", "kind": "generator", "format": 1, "architecture": {"code": '
        + "9" * 5000
        + "}}",
    ],
    ids=lambda text: text[:40],
)
def test_a_card_of_another_form_is_refused(tmp_path: Path, card: str) -> None:
    file = forge(tmp_path / "x", {"network.a": torch.ones(2, 2)}, card)
    refused(lambda: weights.read(file, "generator"))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 10**9},
        {"hidden": -1},
        {"hidden": 0},
        {"hidden": float("nan")},
        {"hidden": float("inf")},
        {"hidden": 2.5},
        {"hidden": "1000000000"},
        {"hidden": [16]},
        {"hidden": None},
        {"code": 65536, "hidden": 65536, "seed_channels": 65536, "grid": 65536},
        {"width": 10**9},
        {"width": [32]},
        {"width": 33},
        {"blocks": 65536},
        {"blocks": -1},
        {"decoder": [10**9, 8, 8]},
        {"decoder": []},
        {"decoder": [8, 8, 8, 8]},
        {"decoder": {"low": 10**9}},
        {"decoder": [[[10**12]]]},
        {"decoder": "abc"},
        {"decoder_blocks": [1, 1]},
        {"decoder_blocks": [65, 0, 0]},
        {"decoder_blocks": [-1, 0, 0]},
        {"decoder_blocks": 1},
        {"latent": 5},
        {"size": 4096},
        {"size": 8},
        {"view_size": 17},
        {"view_size": 0},
        {"view_size": "all"},
        {"depth": 3},
        {"name": "caffenet"},
        {"name": "__import__('os').system('x')"},
        {"name": ["two-stage"]},
        {"name": None},
    ],
    ids=str,
)
def test_a_hostile_architecture_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole = load_file(write_generator(tmp_path / "g"))
    architecture = {**GENERATOR_ARCHITECTURE, **changes}
    file = forge(tmp_path / "x", whole, {**CARD, "architecture": architecture})
    refused(lambda: load_generated(file), PhospheneError)


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": GENERATOR_ARCHITECTURE},
        {"architecture": {**SUBJECT_ARCHITECTURE, "classes": 11}},
        {"preprocessing": None},
        {"preprocessing": {"size": [14, 14]}},
        {"preprocessing": {"size": [10**9, 10**9], "mean": [0.5] * 3, "std": [0.2] * 3}},
        {"preprocessing": {"size": [14, -14], "mean": [0.5] * 3, "std": [0.2] * 3}},
        {"preprocessing": {"size": [14.5, 14], "mean": [0.5] * 3, "std": [0.2] * 3}},
        {"preprocessing": {"size": 14, "mean": [0.5] * 3, "std": [0.2] * 3}},
        {"preprocessing": {"size": [14, 14], "mean": [0.5] * 2, "std": [0.2] * 3}},
        {"preprocessing": {"size": [14, 14], "mean": [0.5] * 3, "std": [0.2, 0.0, 0.2]}},
        {"preprocessing": {"size": [14, 14], "mean": [0.5] * 3, "std": ["a", "b", "c"]}},
        {"preprocessing": {"size": [14, 14], "mean": [float("nan")] * 3, "std": [0.2] * 3}},
        {"classes": 5},
        {"classes": [1, 2, 3]},
        {"classes": ["lion\n" * 100_000] * 10},
        {"classes": ["\x1b[2J"] * 10},
        {"classes": "abc"},
        {"output": 7},
        {"output": "fc9"},
    ],
    ids=str,
)
def test_a_subject_that_is_not_one_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = write_subject(tmp_path / "s", **changes)
    refused(lambda: load_subject(file))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network.map.first.weight", torch.ones(16, 17)),
        ("network.map.first.weight", torch.ones(0)),
        ("network.map.first.weight", None),
        ("network.extra", torch.ones(3)),
        ("network.map.first.weight", torch.ones(16, 16, dtype=torch.int64)),
        ("network.code_std", torch.full((16,), float("nan"))),
        ("network.code_std", torch.linspace(0, 1, 16)),
        ("code.mean", None),
        ("code.mean", torch.ones(15)),
        ("code.std", torch.full((16,), float("inf"))),
        ("code.axes", torch.ones(4, 15)),
        ("code.axes", torch.ones(3, 16)),
        ("code.variances", torch.ones(4, 1)),
        ("code.rest", torch.ones(16)),
        ("code.upper", torch.ones(1)),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else "none" if value is None else str(list(value.shape))
    ),
)
def test_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, value: torch.Tensor | None
) -> None:
    tensors = load_file(write_generator(tmp_path / "g"))
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    file = forge(tmp_path / "x", tensors, CARD)
    assert name.partition(".")[2] in refused(lambda: load_generated(file))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.float8_e4m3fn])
def test_odd_types_of_tensors_are_refused_or_read_but_never_a_traceback(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = load_file(write_generator(tmp_path / "g"))
    tensors["network.map.first.weight"] = torch.zeros(16, 16).to(dtype)
    try:
        file = forge(tmp_path / "x", tensors, CARD)
    except (KeyError, ValueError, RuntimeError):
        pytest.skip("this safetensors cannot write it")
    try:
        load_generated(file).images(torch.zeros(1, 16))
    except BadFile:
        pass


# ---------------------------------------------------------------- the manifest


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled weights with one subject in it."""
    file = write_subject(tmp_path / "tiny.safetensors")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = {
        "file": file.name,
        "sha256": sha256,
        "bytes": file.stat().st_size,
        "kind": "subject",
        "summary": "tiny",
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"tiny-objects": entry}))
    monkeypatch.setattr(weights.zoo, "zoo_folder", lambda: tmp_path)
    return tmp_path


def test_a_bundled_file_is_found_by_name(bundled: Path) -> None:
    assert load_subject("tiny-objects").name == "tiny-objects"
    assert "near: tiny-objects" in refused(lambda: load_subject("tiny-object"), UnknownName)


def test_a_bundled_file_of_another_hash_is_refused_even_when_its_own_digest_is_right(
    bundled: Path,
) -> None:
    write_subject(bundled / "tiny.safetensors", note="swapped")
    assert "manifest" in refused(lambda: load_subject("tiny-objects"))
    assert load_subject(bundled / "tiny.safetensors").card["note"] == "swapped", (
        "as a file of one's own it is fine"
    )


def test_a_bundled_file_that_is_missing_or_cut_is_refused(bundled: Path) -> None:
    file = bundled / "tiny.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert "manifest" in refused(lambda: load_subject("tiny-objects"))


def test_the_untrained_network_of_a_name_is_one_network_and_not_the_trained_one(
    bundled: Path,
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, trained = (
        load_subject(name)
        for name in ("tiny-objects@random", "tiny-objects@random", "tiny-objects")
    )
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers are left alone"
    weight = lambda subject: subject.network.conv1.linear.weight  # noqa: E731
    assert torch.equal(weight(one), weight(again))
    assert not torch.equal(weight(one), weight(trained))
    assert (one.name, one.classes, one.size) == (
        "tiny-objects@random",
        trained.classes,
        trained.size,
    )
    assert one.card["sha256"] != trained.card["sha256"]
    assert "measured" not in one.card
    assert not any(p.requires_grad for p in one.network.parameters())
    assert "near: tiny-objects" in refused(lambda: load_subject("tiny-object@random"), UnknownName)


def test_a_file_that_the_package_lacks_is_looked_for_in_the_cache_and_on_the_hub(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is found is checked against the manifest, wherever it lay."""
    cache, asked = tmp_path / "cache", []
    cache.mkdir()
    file = bundled / "tiny.safetensors"
    away = file.rename(tmp_path / "away")

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(away)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download)
    )
    monkeypatch.setenv("PHOSPHENE_CACHE", str(cache))
    monkeypatch.delenv("PHOSPHENE_HUB", raising=False)
    said = refused(lambda: load_subject("tiny-objects"), Unavailable)
    assert str(cache) in said
    assert "PHOSPHENE_HUB" in said
    monkeypatch.setenv("PHOSPHENE_HUB", "someone/weights")
    assert load_subject("tiny-objects").name == "tiny-objects"
    assert asked == [("someone/weights", "tiny.safetensors")]
    (cache / "tiny.safetensors").write_bytes(away.read_bytes()[:-1] + b"!")
    assert "manifest" in refused(lambda: load_subject("tiny-objects"))
    (cache / "tiny.safetensors").write_bytes(away.read_bytes())
    assert load_subject("tiny-objects").name == "tiny-objects"
    assert len(asked) == 1


# ---------------------------------------------------------------- the disk


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.safetensors"
    weights.write(file, {"network.a": torch.ones(2, 2)}, CARD)
    before = file.read_bytes()

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write_bytes", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(Path if name == "write_bytes" else os, name, full)
            assert "No space left" in refused(
                lambda: weights.write(file, {"network.a": torch.zeros(9, 9)}, CARD), OutOfSpace
            )
        assert file.read_bytes() == before
        assert os.listdir(tmp_path) == [file.name], "no half file stays"


def test_a_path_through_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refused(
        lambda: weights.write(tmp_path / "file" / "x", {"network.a": torch.ones(2, 2)}, CARD),
        OutOfSpace,
    )
