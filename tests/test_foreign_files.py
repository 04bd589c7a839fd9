"""Files that are not what their name says: one line tells what each is, and what works."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image

from phosphene import weights
from phosphene.datasets import Stream
from phosphene.errors import BadFile
from phosphene.files import read_json, read_text
from phosphene.forms.form import read_entry
from phosphene.images import read_image
from phosphene.networks import build
from phosphene.networks.deepsim import read_bounds
from phosphene.runtime import Runtime
from phosphene.studies.exemplars import find_exemplars
from phosphene.subjects import load_subject
from phosphene.testing import lively, tiny_subject, write_subject
from phosphene.training.recipes import read_recipe
from phosphene.training.run import RunFolder

LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:82afc46482caf8637a613479bf7d41c54339e8ef70f19ac080743c89fe0b6601\nsize 1234567\n"
)
ANNEX = b"/annex/objects/SHA256E-s1234--82afc464.safetensors\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Sign in</body></html>"
POINTERS = pytest.mark.parametrize(
    ("content", "told"),
    [(LFS, "a pointer of Git LFS; `git lfs pull`"), (ANNEX, "a pointer of git-annex")],
    ids=["lfs", "annex"],
)
MARKS = pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
"""Editors of Windows write the second, its shell the third."""


def put(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


# ---------------------------------------------------------------- texts with a byte order mark


@MARKS
def test_a_recipe_is_read_whatever_its_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    file = put(tmp_path / "own.toml", "kind = 'subject'\r\nname = 'Käfer'\r\n".encode(encoding))
    assert read_recipe(file) == {"kind": "subject", "name": "Käfer"}


@MARKS
def test_json_is_read_whatever_its_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    file = put(tmp_path / "x.json", '{"classes": ["Käfer", "蜂"]}'.encode(encoding))
    assert read_json(file) == {"classes": ["Käfer", "蜂"]}


@MARKS
def test_meta_json_names_the_classes_whatever_its_mark(tmp_path: Path, encoding: str) -> None:
    for name in ("n1", "n2"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "train" / name / "a.png")
    put(tmp_path / "meta.json", '{"classes": ["Käfer", "Biene"]}'.encode(encoding))
    assert Stream(tmp_path, "train", 32).classes == ("Käfer", "Biene")


@MARKS
def test_what_is_said_beside_a_network_is_read_whatever_its_mark(
    tmp_path: Path, encoding: str
) -> None:
    network = lively(build({"name": "caffenet", "classes": 3, "width": 4}))
    program = torch.export.export(network, (torch.rand(1, 3, 24, 24),))
    torch.export.save(program, tmp_path / "net.pt2")
    said = {"mean": [0.1, 0.2, 0.3], "std": [0.5] * 3, "classes": ["Käfer", "b", "c"]}
    put(tmp_path / "net.json", json.dumps(said, ensure_ascii=False).encode(encoding))
    subject = load_subject(tmp_path / "net.pt2")
    assert (subject.mean, subject.classes) == ((0.1, 0.2, 0.3), ("Käfer", "b", "c"))
    (tmp_path / "net.pt2").rename(tmp_path / "NET.PT2")
    (tmp_path / "net.json").rename(tmp_path / "NET.json")
    assert load_subject(tmp_path / "NET.PT2").classes == subject.classes


@MARKS
def test_bounds_of_units_are_read_whatever_their_mark(tmp_path: Path, encoding: str) -> None:
    file = put(tmp_path / "bounds.txt", "1.5 2\r\n3".encode(encoding))
    assert read_bounds(file, (3,)).tolist() == [1.5, 2, 3]


def test_records_and_forms_take_a_mark_too(phosphene: Run, zoo: Path, tmp_path: Path) -> None:
    made = ("synthesize", zoo / "subject.safetensors", "fc8:1", "--prior", "pixels", "--steps", 1)
    phosphene(*made, "--out", tmp_path, "--device", "cpu").fine()
    (record,) = (file for file in tmp_path.glob("fc8*.json"))
    record.write_text(record.read_text(encoding="utf-8"), encoding="utf-8-sig")
    remade = phosphene("synthesize", "--record", record, "--out", tmp_path / "again")
    assert "fc8:1" in remade.fine()
    form = put(tmp_path / "form.json", b'\xef\xbb\xbf{"format": 1}')
    assert read_entry(form)["format"].value == 1


# ---------------------------------------------------------------- pointers in place of files


def opened_as_weights(file: Path) -> object:
    return load_subject(file)


def opened_as_recipe(file: Path) -> object:
    return read_recipe(file)


def opened_as_picture(file: Path) -> object:
    return read_image(file, 32)


def opened_as_form(file: Path) -> object:
    return read_entry(file)


def opened_as_bounds(file: Path) -> object:
    return read_bounds(file, (3,))


def opened_as_data(file: Path) -> object:
    return list(Stream(file.parent, "train", 32).photographs())


def opened_as_checkpoint(file: Path) -> object:
    return RunFolder(Runtime(file.parent), "identity").load({})


@POINTERS
@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("x.safetensors", opened_as_weights),
        ("net.pt2", opened_as_weights),
        ("own.toml", opened_as_recipe),
        ("photo.jpg", opened_as_picture),
        ("exemplars.json", opened_as_form),
        ("bounds.npy", opened_as_bounds),
        ("bounds.txt", opened_as_bounds),
        ("train.parquet", opened_as_data),
        ("checkpoint.pt", opened_as_checkpoint),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_pointer_in_place_of_a_file_is_told(
    tmp_path: Path, name: str, opened: Callable[[Path], object], content: bytes, told: str
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    file = put(tmp_path / name, content)
    with pytest.raises(BadFile, match=told) as refused:
        opened(file)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pointer_beside_a_network_and_in_place_of_an_onnx_file_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    with pytest.raises(BadFile, match=r"cannot be read \(it is a pointer of Git LFS"):
        load_subject(put(tmp_path / "net.onnx", LFS))
    put(tmp_path / "net.json", LFS)
    with pytest.raises(BadFile, match=r"net\.json, .* is a pointer of Git LFS"):
        load_subject(put(tmp_path / "net.pt2", b""))


def test_a_clone_of_a_hub_repository_without_its_large_files_is_told(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    put(tmp_path / "config.json", b"{}")
    put(tmp_path / "preprocessor_config.json", b"{}")
    put(tmp_path / "model.safetensors", LFS)
    with pytest.raises(BadFile, match=r"model\.safetensors is a pointer of Git LFS"):
        load_subject(f"hf:{tmp_path}")


def test_photographs_that_are_pointers_are_told(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "train" / name).mkdir(parents=True)
        put(tmp_path / "train" / name / "a.jpg", LFS)
    stream = Stream(tmp_path, "train", 32)
    assert list(stream.photographs()) == []
    with pytest.raises(BadFile, match=r"none of 2 .* can be read; .*a\.jpg .*pointer of Git LFS"):
        stream.damage.tell(0)


# ---------------------------------------------------------------- other files as weights


def write_torch(file: Path) -> None:
    torch.save({"weight": torch.ones(3)}, file)


def write_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps({"weight": [1.0]}))


def write_gzip(file: Path) -> None:
    file.write_bytes(gzip.compress(b"weights"))


def write_page(file: Path) -> None:
    file.write_bytes(PAGE)


def write_keras(file: Path) -> None:
    file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))


def write_zip(file: Path) -> None:
    np.savez(file, weight=np.ones(3))


def write_program(file: Path) -> None:
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(1, 3, 4, 4),))
    torch.export.save(program, file.with_suffix(".pt2"))
    file.with_suffix(".pt2").rename(file)


OTHERS = [
    ("model.pth", write_torch, "a pickle of PyTorch, which may run code .*python:MODULE:FACTORY"),
    ("model.pt", write_torch, r"a pickle of PyTorch.*torch\.export\.save to a file NAME\.pt2"),
    ("model.pkl", write_pickle, "a pickle, which may run code .*python:MODULE:FACTORY"),
    ("model.safetensors.gz", write_gzip, "a file compressed by gzip; unpack it first"),
    ("model.safetensors", write_page, "a web page; download the file itself"),
    ("model.h5", write_keras, "an HDF5 file, as Keras writes them"),
    ("model.npz", write_zip, "a zip archive"),
    ("model.zip", write_program, r"a program of torch\.export, whose name should end in \.pt2"),
    ("model.bin", Path.touch, "an empty file"),
]


@pytest.mark.parametrize(("name", "write", "told"), OTHERS, ids=[each[0] for each in OTHERS])
def test_another_file_given_as_a_subject_is_told_in_one_line(
    tmp_path: Path, phosphene: Run, name: str, write: Callable[[Path], object], told: str
) -> None:
    write(tmp_path / name)
    line = phosphene("layers", tmp_path / name).refused()
    with pytest.raises(BadFile, match=f"{name} is not a safetensors file; it is {told}"):
        weights.read(tmp_path / name)
    assert name in line


def test_a_safetensors_header_that_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """Its first bytes are the header's length, which may be 0x0280."""
    for length in range(700):
        card = {"name": "x", "kind": "subject", "architecture": {}, "note": "n" * length}
        weights.write(tmp_path / "x.safetensors", {"a": torch.ones(3)}, card)
        if (tmp_path / "x.safetensors").read_bytes()[:2] == b"\x80\x02":
            assert weights.read(tmp_path / "x.safetensors").card["note"] == "n" * length
            return
    pytest.fail("no header of 640 bytes was written")


# ---------------------------------------------------------------- damage in a cache


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Lay the one file of a zoo into the package's folder, or into the user's cache."""
    zoo, cache = tmp_path / "package", tmp_path / "cache"
    zoo.mkdir()
    file = write_subject(tmp_path / "tiny.safetensors")
    entry = {"file": file.name, "bytes": file.stat().st_size, "kind": "subject", "summary": ""}
    entry["sha256"] = weights.read(file).sha256
    (zoo / "manifest.json").write_text(json.dumps({"tiny-objects": entry}))
    monkeypatch.setattr(weights.zoo, "zoo_folder", lambda: zoo)
    monkeypatch.setenv("PHOSPHENE_CACHE", str(cache))

    def lay(where: str) -> Path:
        (tmp_path / where).mkdir(exist_ok=True)
        return Path(shutil.copy(file, tmp_path / where))

    return lay


@pytest.mark.parametrize("hub", ["", "owner/name"])
def test_a_damaged_file_in_the_cache_says_what_brings_it_back(
    listed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, hub: str
) -> None:
    monkeypatch.setenv("PHOSPHENE_HUB", hub)
    file = listed("cache")
    assert load_subject("tiny-objects").name == "tiny-objects"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    then = "give the command again" if hub else r"put a whole tiny\.safetensors there"
    with pytest.raises(BadFile, match=f"is damaged: .*; delete {file.resolve()} and {then}"):
        load_subject("tiny-objects")
    file.write_bytes(LFS)
    with pytest.raises(BadFile, match=f"it is a pointer of Git LFS.*; delete {file.resolve()}"):
        load_subject("tiny-objects")


def test_a_damaged_file_in_the_package_is_reinstalled(listed: Callable[[str], Path]) -> None:
    file = listed("package")
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BadFile, match=f"{file} is damaged: .*; reinstall phosphene"):
        load_subject("tiny-objects")


def test_an_index_that_is_a_pointer_is_told(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "train" / "a" / "a.png")
    file = put(tmp_path / "exemplars.safetensors", LFS)
    with pytest.raises(BadFile, match=r"is damaged .*a pointer of Git LFS"):
        find_exemplars(tiny_subject(), ["conv"], Stream(tmp_path, "train", 32), file)


def test_a_text_that_is_none_is_a_mistake_of_its_file(tmp_path: Path) -> None:
    for content in (b"\xff\xfe\x00", b"caf\xe9"):
        with pytest.raises(ValueError, match="decode"):
            read_text(put(tmp_path / "x", content))
        with pytest.raises(BadFile, match=r"own\.toml is not TOML"):
            read_recipe(put(tmp_path / "own.toml", content))
