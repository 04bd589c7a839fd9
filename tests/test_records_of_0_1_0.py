"""What version 0.1.0 wrote still serves: its records make the same pictures, its index opens.

`records_0_1_0/make.py` made them. A record says how its picture came about, so no later version may
make another picture of it. The bits are those that version 0.1.0 itself makes on the same machine.
`records_0_1_0/machine.py` says how machines differ. On an unknown machine a tolerance holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records_0_1_0.machine import BITS, DIFFERING, HERE, copied, remade

import phosphene
from phosphene.forms import Record
from phosphene.synthesis import NOT_ABOVE

SOURCE = str(Path(phosphene.__file__).parents[1])
NAMES = sorted(file.stem for file in (HERE / "records").glob("*.json"))
KINDS = ("bundled", "deepsim", "own", "")
"""How the names of records begin that one process remakes; the last takes all others."""
SAME = ("target", "label", "weights")
"""What every machine makes alike."""
FIRST = 1e-4
"""How far the first step's score may lie off on an unknown machine, as a part of `size`."""
PICTURES = 1e-3
"""How far a start's score may lie off there: it is read from a picture of 8 bits."""
CLIMBED = 5e-3
"""How far a climb may lie off there. Two machines and three sets of instructions gave 1e-3."""
ENLARGED = 0.5
"""How far the climbs may lie off that enlarge last digits: they lay off by 0.05, and by 0.48."""
ENLARGING = ("bundled", "bfloat16", "normal-start", "rate", "mean-rule-gaussian", "paper")
"""How the names of such climbs begin: deep networks, few digits, or large steps."""
DIGITS = 1.5e-5
"""How far two scores of a curve may lie off because it has five digits."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy the fixture, with paths in place of their marks."""
    return copied(tmp_path)


def test_the_fixture_is_whole() -> None:
    assert len(NAMES) == 97
    records = [Record.read(HERE / "records" / f"{name}.json") for name in NAMES]
    assert all(record.versions["phosphene"] == "0.1.0" for record in records)


def kind(name: str) -> str:
    return next(each for each in KINDS if name.startswith(each))


@pytest.mark.parametrize("of_kind", KINDS)
def test_records_make_the_same_pictures_again(folder: Path, of_kind: str) -> None:
    names = [name for name in NAMES if kind(name) == of_kind]
    probe, found = remade(folder, SOURCE, names)
    assert set(found) == set(names)
    records = {
        name: json.loads((folder / "records" / f"{name}.json").read_text()) for name in names
    }
    for name in names:
        assert "error" not in found[name], f"{name}: {found[name]['error']}"
        assert {key: found[name][key] for key in SAME} == {key: records[name][key] for key in SAME}
        assert found[name]["status"] == status(records[name], found[name]), name
    how, wrong = compared(probe, records, found)
    assert not wrong, f"compared {how}:\n" + "\n".join(wrong)


def upright(old: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose target is to fall with its activation, once told as the negative."""
    target, _ = old["request"]["members"][old["request"]["member"]]
    if not all(weight < 0 for weight, _ in target["terms"]):
        return old
    turned = {key: -old[key] for key in ("score", "start_score")}
    return {**old, **turned, "curve": [-value for value in old["curve"]]}


def status(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return the status that a record has today: version 0.1.0 did not tell a climb that failed."""
    sign = -1 if new["target"].startswith("-1*") else 1
    failed = old["status"] == "climbed" and sign * new["score"] <= sign * new["start_score"]
    return NOT_ABOVE if failed and new["curve"] else old["status"]  # no step: nothing was tried


Results = dict[str, dict[str, Any]]


def compared(probe: str, records: Results, found: Results) -> tuple[str, list[str]]:
    """Return how pictures are compared on the machine with this probe, and what is wrong."""
    known = json.loads(BITS.read_text())
    if probe in known:
        own = known[probe]
        here = {name: upright(record | own.get(name, {})) for name, record in records.items()}
        return f"bit by bit with version 0.1.0 on machine {probe}", list(other_bits(here, found))
    records = {name: upright(record) for name, record in records.items()}
    if not list(other_bits(records, found)):
        return "bit by bit with the records", []
    return f"within a tolerance, for machine {probe} is unknown", list(far_off(records, found))


def other_bits(records: Results, found: Results) -> Iterator[str]:
    """Tell each part of a picture that has other bits."""
    for name, old in records.items():
        for key in DIFFERING:
            if found[name][key] != old[key]:
                yield f"{name}: {key} {found[name][key]}, not {old[key]}"


def far_off(records: Results, found: Results) -> Iterator[str]:
    """Tell each part of a picture that lies too far off for another order of the same sums."""
    for name, old in records.items():
        new = found[name]
        size = max(map(abs, (old["score"], old["start_score"], *old["curve"])))
        climbed = size * (ENLARGED if name.startswith(ENLARGING) else CLIMBED)
        for key, first, second, limit in (
            ("start_score", new["start_score"], old["start_score"], size * PICTURES),
            ("first step", new["curve"][:1], old["curve"][:1], size * FIRST + DIGITS),
            ("curve", new["curve"], old["curve"], climbed + DIGITS),
            ("score", new["score"], old["score"], climbed),
        ):
            if first != pytest.approx(second, rel=0, abs=limit):
                yield f"{name}: {key} {first}, not {second} within {limit:.2g}"


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
    assert index.read_bytes() == before  # it was read, not made again
    assert [unit["values"] for unit in again] == [unit["values"] for unit in told]
    assert [unit["photographs"] for unit in again] == [unit["photographs"] for unit in told]
