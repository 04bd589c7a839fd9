"""What version 0.1.0 wrote still serves: its records make the same bits again, its index opens.

`records_0_1_0/make.py` made them. A record says how its picture came about, so no later version may
make another picture of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import phosphene
from phosphene.records import read
from phosphene.synthesis import NOT_ABOVE

HERE = Path(__file__).parent / "records_0_1_0"
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""The settings under which the records were made: the same bits on every x86-64 machine."""
NAMES = sorted(file.stem for file in (HERE / "records").glob("*.json"))
KINDS = ("bundled", "deepsim", "own", "")
"""How the names of records begin that one process remakes; the last takes all others."""
SAME = ("image_sha256", "score", "start_score", "curve", "target", "label", "weights")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy the fixture, with paths in place of their marks."""
    copy = tmp_path / "records_0_1_0"
    shutil.copytree(HERE, copy)
    for file in (copy / "records").glob("*.json"):
        file.write_text(file.read_text().replace("@HERE@", str(copy)))
    return copy


def remade(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    source = str(Path(phosphene.__file__).parents[1])
    paths = os.pathsep.join([source, str(folder)])
    run = subprocess.run(
        [sys.executable, "-W", "error", folder / "remake.py", *names],
        cwd=folder,
        env={**os.environ, **PORTABLE, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = (json.loads(line) for line in run.stdout.splitlines())
    return {each["name"]: each for each in found}


def test_the_fixture_is_whole() -> None:
    assert len(NAMES) == 97
    records = [read(HERE / "records" / f"{name}.json") for name in NAMES]
    assert all(record.versions["phosphene"] == "0.1.0" for record in records)


def kind(name: str) -> str:
    return next(each for each in KINDS if name.startswith(each))


@pytest.mark.parametrize("of_kind", KINDS)
def test_records_make_the_same_bits_again(folder: Path, of_kind: str) -> None:
    names = [name for name in NAMES if kind(name) == of_kind]
    found = remade(folder, names)
    assert set(found) == set(names)
    for name in names:
        old = json.loads((folder / "records" / f"{name}.json").read_text())
        assert "error" not in found[name], f"{name}: {found[name]['error']}"
        wrong = [key for key in SAME if found[name][key] != old[key]]
        assert not wrong, f"{name}: {[(key, old[key], found[name][key]) for key in wrong]}"
        failed = old["status"] == "climbed" and old["score"] <= old["start_score"]
        failed = failed and bool(old["curve"])  # without a step nothing was tried
        assert found[name]["status"] == (NOT_ABOVE if failed else old["status"])


def test_an_index_of_exemplars_opens(
    folder: Path, phosphene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (index,) = (folder / "exemplars").glob("*.safetensors")
    before = index.read_bytes()
    told = json.loads((folder / "exemplars" / "exemplars.json").read_text())["units"]
    command = ("exemplars", "subject.safetensors", "layer4:0-2", "--images", "photographs")
    phosphene(*command, "--split", "train", "--out", "exemplars").fine()
    again = json.loads((folder / "exemplars" / "exemplars.json").read_text())["units"]
    assert index.read_bytes() == before  # it was read, not made anew
    assert [unit["values"] for unit in again] == [unit["values"] for unit in told]
    assert [unit["photographs"] for unit in again] == [unit["photographs"] for unit in told]
