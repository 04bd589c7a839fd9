"""The command line as a person meets it.

Results are on stdout, a mistake is one clear line, and nothing finished is lost.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CI_SAMPLE, Run, Said
from PIL import Image
from rich.table import Table

from phosphene import images, records, weights
from phosphene.cli import progress, shell
from phosphene.errors import BadRequest
from phosphene.forms import Record
from phosphene.images import crossed_out, read_png
from phosphene.metrics import judge_channels
from phosphene.pictures import folder as pictures_folder
from phosphene.subjects import Subject
from phosphene.synthesis import PreferredInputs, climb_batch
from phosphene.testing import write_generator, write_subject


@pytest.fixture
def synthesize(phosphene: Run, zoo: Path, tmp_path: Path) -> Run:
    """`phosphene synthesize` of the tiny subject with the tiny generator.

    It takes three steps, and writes into tmp_path / "out".
    """

    def run(*arguments: object, subject: object = zoo / "subject.safetensors") -> Said:
        usual = {
            "--prior": zoo / "generator.safetensors",
            "--steps": 3,
            "--precision": "float32",
            "--device": "cpu",
        }
        given = {str(argument).partition("=")[0] for argument in arguments}
        fixed = [part for option in usual.items() if option[0] not in given for part in option]
        return phosphene("synthesize", subject, *arguments, *fixed, "--out", tmp_path / "out")

    return run


def written(folder: Path, kind: str = "*") -> list[str]:
    return sorted(file.name for file in folder.glob(kind))


def record_of(folder: Path, name: str) -> Record:
    return Record.read(folder / f"{name}.json")


# ---------------------------------------------------------------- the main job


def test_a_picture_a_record_and_a_contact_sheet_for_each_unit(
    synthesize: Run, tmp_path: Path
) -> None:
    out = synthesize("class:tench", "conv5:7", "--seeds", "0-1").fine()
    assert written(tmp_path / "out", "*.png") == [
        "contact-sheet.png",
        "conv5-7-s0.input.png",
        "conv5-7-s0.png",
        "conv5-7-s1.input.png",
        "conv5-7-s1.png",
        "fc8-0-tench-s0.input.png",
        "fc8-0-tench-s0.png",
        "fc8-0-tench-s1.input.png",
        "fc8-0-tench-s1.png",
    ]
    assert written(tmp_path / "out", "*.json") == [
        "conv5-7-s0.json",
        "conv5-7-s1.json",
        "fc8-0-tench-s0.json",
        "fc8-0-tench-s1.json",
    ]
    assert "contact-sheet.png" in out
    assert "tench" in out
    record = record_of(tmp_path / "out", "fc8-0-tench-s1")
    assert records.pixels_sha256(read_png(tmp_path / "out" / record.image)) == record.image_sha256
    assert record.status == "climbed"
    assert len(record.curve) == 3
    assert not written(tmp_path / "out", ".*"), "no scratch file stays"


def test_json_is_all_of_stdout_and_progress_is_on_stderr(synthesize: Run, tmp_path: Path) -> None:
    said = synthesize("fc8:0-2", "--json")
    found = said.json()
    assert [each["target"] for each in found] == ["fc8:0", "fc8:1", "fc8:2"]
    for each in found:
        assert Path(each["image"]).is_file()
        assert each["score"] == record_of(tmp_path / "out", Path(each["image"]).stem).score
    assert said.err.strip() == "" or "climbing" in said.err


def test_least_targets_and_sums_have_names_of_their_own(synthesize: Run, tmp_path: Path) -> None:
    synthesize(
        "fc8:3", "fc8:3 - fc8:7", "fc8:3 + 0.5*fc8:7", "conv5:1@max", "conv5:1@0,0", "conv5:1"
    ).fine()
    synthesize("fc8:3", "--least").fine()
    pictures = [name.replace(".json", ".png") for name in written(tmp_path / "out", "*.json")]
    assert len(pictures) == 7
    assert {record_of(tmp_path / "out", Path(name).stem).target for name in pictures} == {
        "fc8:3",
        "fc8:3 - fc8:7",
        "fc8:3 + 0.5*fc8:7",
        "conv5:1@max",
        "conv5:1@0,0",
        "conv5:1",
        "-1*fc8:3",
    }


def test_two_directions_of_one_name_do_not_overwrite_each_other(
    synthesize: Run, tmp_path: Path
) -> None:
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "d.npy")
        np.save(files[-1], np.random.default_rng(len(files)).normal(size=16))
    found = synthesize(
        "--direction", f"fc6={files[0]}", "--direction", f"fc7={files[0]}", "--json"
    ).json()
    found += synthesize("--direction", f"fc6={files[1]}", "--json").json()
    assert len({each["image"] for each in found}) == 3


def test_an_animation_and_a_start_from_a_photograph(synthesize: Run, tmp_path: Path) -> None:
    photograph = tmp_path / "p.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(
        photograph
    )
    synthesize("fc8:0", "--start", photograph, "--animate").fine()
    with Image.open(tmp_path / "out" / "fc8-0-tench-s0.webp") as animation:
        assert animation.n_frames >= 3
    started = record_of(tmp_path / "out", "fc8-0-tench-s0")
    assert started.request["start"]["file"] == str(photograph)
    synthesize("fc8:0", "--start", "mean", "--anew").fine()
    assert record_of(tmp_path / "out", "fc8-0-tench-s0").start_score != started.start_score


@pytest.mark.parametrize("prior", ["pixels", "fourier"])
def test_the_baselines_need_no_generator(synthesize: Run, tmp_path: Path, prior: str) -> None:
    synthesize("fc8:0", "--prior", prior, "--tv", 0.1, "--blur", 0.5, "--shift", 1).fine()
    assert read_png(tmp_path / "out" / "fc8-0-tench-s0.png").shape == (16, 16, 3)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("unit", "near"),
    [
        ("fc9:0", "fc8"),
        ("conv6:0", "conv5"),
        ("fc8:10", "0 … 9"),
        ("fc8:5-12", "0 … 9"),
        ("conv5:256", "0 … 255"),
        ("conv5:1@9,9", "rows"),
        ("fc8:1@0,0", "no map"),
        ("class:tensh", "tench"),
        ("class:²", "class"),
        ("class:tench@1,1", "no map"),
        ("conv5:lion", "fc8"),
        ("fc8:-1", ""),
        ("fc8", "LAYER:CHANNEL"),
        ("", "LAYER:CHANNEL"),
        (":", "LAYER:CHANNEL"),
        ("fc8:", "LAYER:CHANNEL"),
        ("fc8:5-2", "2-5"),
        ("conv5:1@here", "@max"),
        ("fc8:1 + fc8:2-3", "one unit in each term"),
        ("fc8:0-999999999999", "no layer has so many"),
        ("fc8:0-99999", "0 … 9"),
        ("fc8:" + "9" * 5000, "digits"),
        ("conv5:0@" + "9" * 5000 + ",0", "ROW,COLUMN"),
        ("9" * 5000 + "*fc8:0", ""),
        ("1e999*fc8:0", ""),
        ("fc8:" + ",".join(["0-900000"] * 2000), "no layer has so many"),
        ("\x1b[31mfc8:0", ""),
        ("[bold]fc8[/]:0", "fc8"),
        ("fc8:0\nfc8:1", ""),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_wrong_unit_is_one_line_that_names_near_ones(
    synthesize: Run, tmp_path: Path, unit: str, near: str
) -> None:
    line = synthesize(unit).refused()
    assert near in line
    assert not (tmp_path / "out").exists(), "nothing is made before everything is checked"


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("caffenet-object", "weights"),
        ("python:", "python:package.module:factory"),
        ("python:nowhere:net", "nowhere"),
        ("nowhere.safetensors", "does not exist; phosphene zoo list"),
        ("/", "is a folder; give a .safetensors file"),
        (".", "is a folder; give a .safetensors file"),
        ("", "no subject given"),
    ],
)
def test_a_wrong_subject_is_one_line(synthesize: Run, subject: str, said: str) -> None:
    assert said in synthesize("fc8:0", subject=subject).refused()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seeds", "x"],
        ["--seeds", ""],
        ["--seeds", "-1"],
        ["--seeds", "1.5"],
        ["--seeds", "3-1"],
        ["--seeds", "0-99999999999"],
        ["--seeds", "0-300000"],
        ["--seeds", str(2**70)],
        ["--seeds", str(2**64 - 1)],
        ["--device", "tpu"],
        ["--device", "mps" if not torch.backends.mps.is_available() else "abacus"],
        ["--precision", "float7"],
        ["--start", "nowhere.jpg"],
        ["--start", "."],
        ["--start", ""],
        ["--prior", "nothing"],
        ["--prior", "deepsim:fc9"],
        ["--climb", "fast"],
        ["--prior", "pixels", "--climb", "paper"],
        ["--objective", "loudness"],
        ["--steps", "-1"],
        ["--steps", "999999999"],
        ["--rate", "nan"],
        ["--rate", "inf"],
        ["--decay", "0"],
        ["--decay", "2"],
        ["--decay", "nan"],
        ["--tv", "-1"],
        ["--blur", "50"],
        ["--blur", "nan"],
        ["--shift", "-2"],
        ["--direction", "fc6"],
        ["--direction", "fc6=nowhere.npy"],
        ["--direction", "fc9=nowhere.npy"],
        ["--record", "nowhere.json"],
        ["--record", "."],
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_one_line(synthesize: Run, tmp_path: Path, arguments: list[str]) -> None:
    synthesize("fc8:0", *arguments).refused()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", ["--batch=0", "--batch=x", "--steps=many", "--nothing", "--threads=-1"]
)
def test_what_the_command_line_library_refuses_is_one_line_too(
    synthesize: Run, option: str
) -> None:
    assert option.partition("=")[0] in synthesize("fc8:0", option).refused()


def test_no_units_is_one_line_with_an_example(synthesize: Run) -> None:
    assert "class:lion" in synthesize().refused()


def test_a_message_is_one_line_whatever_the_name_holds(synthesize: Run) -> None:
    assert "\x1b[31m" not in synthesize("fc8:0\n\x1b[31mred").refused()


@pytest.mark.parametrize(
    "array",
    [
        np.ones(15),
        np.ones((16, 1)),
        np.zeros(16),
        np.full(16, np.nan),
        np.array(["a"] * 16),
        np.ones(16) * 1j,
    ],
)
def test_a_direction_that_does_not_fit_is_one_line(
    synthesize: Run, tmp_path: Path, array: Any
) -> None:
    np.save(tmp_path / "d.npy", array)
    assert "d.npy" in synthesize("--direction", f"fc6={tmp_path / 'd.npy'}").refused()


def test_a_set_whose_records_nothing_would_read_is_refused_before_the_climb(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Record, "max_bytes", 40_000)
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=256))
    direction = ("--direction", f"conv5={tmp_path / 'v.npy'}")
    assert "give a smaller set" in synthesize(*direction, "--diverse", 8).refused()
    assert not (tmp_path / "out").exists()
    synthesize(*direction, "--diverse", 2).fine()


def test_a_pickled_direction_is_one_line_and_never_run(synthesize: Run, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    np.save(tmp_path / "d.npy", np.array([Hostile()], object), allow_pickle=True)
    synthesize("--direction", f"fc6={tmp_path / 'd.npy'}").refused()
    assert not (tmp_path / "ran").exists()


def test_a_photograph_that_is_none_is_one_line(synthesize: Run, tmp_path: Path) -> None:
    whole = tmp_path / "p.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(whole)
    for name, raw in {"empty": b"", "text": b"hello", "cut": whole.read_bytes()[:60]}.items():
        (tmp_path / name).write_bytes(raw)
        synthesize("fc8:0", "--start", tmp_path / name).refused()


def test_weights_that_are_damaged_are_one_line(
    phosphene: Run, synthesize: Run, zoo: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "s.safetensors"
    raw = bytearray((zoo / "subject.safetensors").read_bytes())
    raw[len(raw) // 2] ^= 1
    damaged.write_bytes(raw)
    assert "damaged" in synthesize("fc8:0", subject=damaged).refused()
    assert "damaged" in phosphene("layers", damaged).refused()
    assert "damaged" in phosphene("zoo", "show", damaged).refused()
    damaged.write_bytes(raw[:1000])
    assert "truncated" in synthesize("fc8:0", subject=damaged).refused()


# ---------------------------------------------------------------- the disk


def test_a_folder_that_cannot_be_made_is_one_line(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    arguments = [
        "synthesize",
        zoo / "subject.safetensors",
        "fc8:0",
        "--prior",
        zoo / "generator.safetensors",
    ]
    for out in ("file", "file/deeper"):
        line = phosphene(*arguments, "--steps", 1, "--out", tmp_path / out).refused()
        assert "folder" in line
    assert (
        "cannot"
        in phosphene(
            "reconstruct", tmp_path / "file", "--prior", zoo / "generator.safetensors"
        ).refused()
    )


def test_a_disk_that_fills_up_keeps_what_is_finished(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, left = os.replace, [6]

    def until_full(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", until_full)
        said = synthesize("fc8:0-5", "--batch", 2)
    assert "No space left on device" in said.refused()
    assert written(tmp_path / "out") == [
        "fc8-0-tench-s0.input.png",
        "fc8-0-tench-s0.json",
        "fc8-0-tench-s0.png",
        "fc8-1-english-springer-s0.input.png",
        "fc8-1-english-springer-s0.json",
        "fc8-1-english-springer-s0.png",
    ]
    for name in written(tmp_path / "out", "*.json"):
        records.Folder(tmp_path / "out").picture(Record.read(tmp_path / "out" / name))
    assert len(synthesize("fc8:0-5", "--batch", 2, "--json").json()) == 6, (
        "and the same command goes on"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_stdout_that_is_full_is_no_traceback(zoo: Path, tmp_path: Path) -> None:
    import subprocess

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from phosphene.cli import main; main()",
                "zoo",
                "list",
                "--json",
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- again, and interrupted


def test_a_second_run_climbs_nothing_again(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = synthesize("fc8:0-4", "--batch", 2, "--json").json()
    times = {
        name: (tmp_path / "out" / name).stat().st_mtime_ns
        for name in written(tmp_path / "out", "fc8*")
    }
    with monkeypatch.context() as patch:
        patch.setattr(pictures_folder, "climb_batch", None)
        again = synthesize("fc8:0-4", "--batch", 2, "--resume", "--json")
        assert again.json() == first
    assert "kept 5 pictures of an earlier run" in again.err
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in times}
    said = synthesize("fc8:9", "fc8:2-4", "fc8:0-1", "--batch", 3)
    assert "kept 5 pictures of an earlier run" in said.err, "in another order, in other batches"
    anew = synthesize("fc8:0-4", "--batch", 2, "--anew", "--json")
    assert "kept" not in anew.err
    assert anew.json() == first
    assert all((tmp_path / "out" / name).stat().st_mtime_ns > time for name, time in times.items())


def test_a_long_run_says_how_long_and_how_far_it_has_come(
    synthesize: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST_LOOK", 0.0)
    monkeypatch.setattr(progress, "LONG", 0.0)
    monkeypatch.setattr("phosphene.progress.EVERY", -1.0)
    said = synthesize("fc8:0-4", "--batch", 2, "--steps", 4).err
    assert said.count("5 pictures of 4 steps take about") == 1
    assert "GB, 2 at once; --steps 2 halves the time, --batch 1 takes less memory" in said
    assert re.search(r"climbing: 20 of 20 steps, [0-9.,]+ a second, 0 s left", said)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(8, "8 s"), (600, "10 min"), (12_000, "3 h 20 min"), (72_000, "20 h"), (5_000_000, "1,389 h")],
)
def test_a_length_of_time_in_words(seconds: float, told: str) -> None:
    assert progress.span(seconds) == told


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("0-99999999999999999999", "has 20 digits; --seeds lie in 0 … 9,007,199,254,740,992"),
        ("0-9000000000", "has 9,000,000,001 seeds; --seeds lie in 0 …"),
        ("9007199254740993", "seeds lie in 0 … 9,007,199,254,740,992; got 9007199254740993"),
        ("5-3", "range 5-3 runs backwards; write 3-5"),
        ("one", "--seeds takes numbers such as 0, 0-3 or 1,5; got 'one'"),
    ],
)
def test_seeds_that_are_none_are_told_as_seeds(synthesize: Run, seeds: str, said: str) -> None:
    line = synthesize("fc8:0", "--seeds", seeds).refused()
    assert said in line
    assert "channel" not in line


def test_the_last_code_and_a_single_try_are_options(synthesize: Run, tmp_path: Path) -> None:
    synthesize("fc8:0", "--keep", "last", "--tries", 1).fine()
    record = record_of(tmp_path / "out", "fc8-0-tench-s0")
    assert record.request["climb"]["keep"] == "last"
    assert record.request["climb"]["tries"] == 1
    assert record.kept_step == 3
    assert record.last_score == record.score


def test_a_climb_that_comes_no_higher_says_so(synthesize: Run, tmp_path: Path) -> None:
    said = synthesize("fc8:0", "--rate", 0, "--decay", 1, "--json")
    (found,) = said.json()
    assert found["status"] == "no higher than its start"
    assert f"({found['score']:.2f}, {found['start_score']:.2f} at the start)" in said.err
    record = record_of(tmp_path / "out", "fc8-0-tench-s0")
    assert (found["kept_step"], found["last_score"]) == (record.kept_step, record.last_score)


def test_other_bits_say_what_else_is_other(synthesize: Run, phosphene: Run, tmp_path: Path) -> None:
    synthesize("fc8:0").fine()
    file = tmp_path / "out" / "fc8-0-tench-s0.json"
    told = json.loads(file.read_text())
    assert {"cpu", "cpu_capability", "onednn", "mkl"} <= told["versions"].keys()
    command = ("synthesize", "--record", file, "--out", tmp_path / "again")

    def remade(versions: dict[str, str]) -> str:
        changed = {**told, "image_sha256": "0" * 64, "versions": versions}
        file.write_text(json.dumps(changed))
        said = phosphene(*command, "--anew")
        said.fine()
        return said.err

    here = told["versions"]
    err = remade({**here, "torch": "1.0", "cpu_capability": "NONE"})
    assert f"not the same bits: torch 1.0 there, {here['torch']} here; cpu_capability NONE" in err
    assert "python" not in err
    old = {name: here[name] for name in ("phosphene", "torch", "python", "machine")}
    err = remade(old)
    assert "not the same bits: the same phosphene, torch, python, machine; the record does" in err
    assert "does not tell its cpu, cpu_capability, onednn, mkl" in err


def test_animations_are_made_where_they_are_missing(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("fc8:0-1", "--animate", "--json")
    first = synthesize(*arguments).json()
    with monkeypatch.context() as patch:
        patch.setattr(pictures_folder, "climb_batch", None)
        assert synthesize(*arguments).json() == first
    animations = written(tmp_path / "out", "fc8*.webp")
    assert len(animations) == 2
    synthesize("fc8:0-1", "--anew").fine()
    assert not written(tmp_path / "out", "fc8*.webp"), "none is left that may be of another climb"
    assert synthesize(*arguments).json() == first
    assert written(tmp_path / "out", "fc8*.webp") == animations


@pytest.mark.parametrize(
    "damage", ["picture", "record", "picture gone", "record gone", "other picture"]
)
def test_only_a_picture_that_is_not_whole_is_climbed_again(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    first = synthesize("fc8:0-3", "--batch", 1, "--json").json()
    picture = Path(first[2]["image"])
    record = picture.with_suffix(".json")
    if damage == "picture":
        picture.write_bytes(picture.read_bytes()[:100])
    elif damage == "record":
        record.write_text(record.read_text()[:200])
    elif damage == "other picture":
        picture.write_bytes(Path(first[0]["image"]).read_bytes())
    else:
        (picture if damage == "picture gone" else record).unlink()
    climbed = []

    def counted(subject: Any, members: Any, *arguments: Any, **options: Any) -> PreferredInputs:
        climbed.append([str(member.target) for member in members])
        return climb_batch(subject, members, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pictures_folder, "climb_batch", counted)
        assert synthesize("fc8:0-3", "--batch", 1, "--json").json() == first
    assert climbed == [["fc8:2"]]


def test_another_request_is_not_taken_for_the_same(
    synthesize: Run, tmp_path: Path, zoo: Path
) -> None:
    first = synthesize("fc8:0", "--json").json()
    assert synthesize("fc8:0", "--json", "--steps", 4, "--anew").json() != first
    assert len(record_of(tmp_path / "out", "fc8-0-tench-s0").curve) == 4
    other = write_subject(tmp_path / "other.safetensors", note="another file")
    assert (
        "was made with another subject"
        in synthesize("fc8:0", "--steps", 4, subject=other).refused()
    )
    synthesize("fc8:0", "--anew", subject=other).fine()
    assert record_of(tmp_path / "out", "fc8-0-tench-s0").request["subject"] == str(other)


def test_control_c_in_mid_climb_keeps_what_is_finished(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def interrupted(
        subject: Any, members: Any, *arguments: Any, report: Any, **options: Any
    ) -> PreferredInputs:
        def press(steps: int) -> None:
            report(steps)
            if len(batches) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        batches.append(members)
        return climb_batch(subject, members, *arguments, report=press, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pictures_folder, "climb_batch", interrupted)
        said = synthesize("fc8:0-9", "--batch", 2)
    assert said.code == 130
    assert said.err.strip().splitlines()[-1] == "phosphene: stopped; what is finished is kept"
    assert "Traceback" not in said.err
    finished = written(tmp_path / "out", "fc8*-s0.png")
    assert [name[:5] for name in finished] == ["fc8-0", "fc8-1", "fc8-2", "fc8-3"]
    sheet = read_png(tmp_path / "out" / "contact-sheet.png")
    assert (sheet != 255).any(), "the contact sheet shows them"
    assert not written(tmp_path / "out", ".*")
    batches.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            pictures_folder,
            "climb_batch",
            lambda s, m, *a, **o: batches.append(m) or climb_batch(s, m, *a, **o),
        )
        synthesize("fc8:0-9", "--batch", 2).fine()
    assert len(batches) == 3, "and the same command goes on where it stopped"


def test_a_contact_sheet_is_written_once_however_many_batches_there_are(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = []

    def counted(folder: Any, shown: Sequence[Record]) -> None:
        tiles.append(len(shown))

    def failing(subject: Any, members: Any, *arguments: Any, **options: Any) -> PreferredInputs:
        if members[0].seed == 1:
            raise MemoryError
        return climb_batch(subject, members, *arguments, **options)

    monkeypatch.setattr(pictures_folder, "_write_sheet", counted)
    with monkeypatch.context() as patch:
        patch.setattr(pictures_folder, "climb_batch", failing)
        assert synthesize("fc8:0-3", "--seeds", "0-1", "--batch", 1).code == 2
    assert tiles == [1], "an error keeps the sheet of what is finished"
    synthesize("fc8:0-3", "--batch", 1).fine()
    synthesize("fc8:0-3", "--batch", 1).fine()
    assert tiles == [1, 4, 4], "a finished run is shown again once"
    monkeypatch.setattr(pictures_folder, "SHEET_SECONDS", 0)
    synthesize("fc8:0-2", "--batch", 1, "--anew").fine()
    assert tiles == [1, 4, 4, 1, 2, 3], "a long run shows its sheet on the way, and no sheet twice"
    monkeypatch.setattr(pictures_folder, "MAX_TILES", 2)
    synthesize("fc8:0-2", "--batch", 1, "--anew").fine()
    assert tiles[6:] == [1, 2], "what the sheet has no room for does not renew it"


@pytest.mark.parametrize("where", ["cpu", "cuda", "python"])
def test_too_little_memory_is_told_and_keeps_what_is_finished(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    batches = []

    def hungry(subject: Any, members: Any, *arguments: Any, **options: Any) -> PreferredInputs:
        batches.append(members)
        if len(batches) == 2 and where == "cpu":
            torch.empty(1 << 50)
        elif len(batches) == 2 and where == "cuda":
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of"
            )
        elif len(batches) == 2:
            raise MemoryError
        return climb_batch(subject, members, *arguments, **options)

    monkeypatch.setattr(pictures_folder, "climb_batch", hungry)
    said = synthesize("fc8:0-3", "--batch", 2).refused()
    assert "too little memory" in said
    assert {"cpu": "4503599627370496 bytes", "cuda": "20.00 GiB", "python": "smaller --batch"}[
        where
    ] in said
    assert [name[:5] for name in written(tmp_path / "out", "fc8*-s0.png")] == ["fc8-0", "fc8-1"]


def test_another_runtime_error_is_not_hidden(
    synthesize: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: Any, **options: Any) -> PreferredInputs:
        raise RuntimeError("a bug")

    monkeypatch.setattr(pictures_folder, "climb_batch", wrong)
    with pytest.raises(RuntimeError, match="a bug"):
        synthesize("fc8:0")


# ---------------------------------------------------------------- records


def test_a_record_makes_the_same_bits_again_alone_as_in_its_batch(
    synthesize: Run, phosphene: Run, tmp_path: Path
) -> None:
    synthesize(
        "fc8:0-4", "conv5:3@max", "fc6:2 - fc6:3", "--seeds", "3", "--climb", "paper", "--shift", 1
    ).fine()
    for file in sorted((tmp_path / "out").glob("*.json")):
        again = phosphene("synthesize", "--record", file, "--out", tmp_path / "again", "--json")
        (found,) = again.json()
        assert "not the same bits" not in again.err
        old, new = Record.read(file), Record.read(Path(found["image"]).with_suffix(".json"))
        assert new.image_sha256 == old.image_sha256
        assert (new.score, new.start_score, new.request) == (
            old.score,
            old.start_score,
            old.request,
        )


def test_a_finished_picture_is_not_lost_to_another_request(synthesize: Run, tmp_path: Path) -> None:
    synthesize("fc8:0").fine()
    before = (tmp_path / "out" / "fc8-0-tench-s0.png").read_bytes()
    said = synthesize("fc8:0", "--steps", 1, "--rate", 3).refused()
    told = "fc8-0-tench-s0.json was made with another climb (steps 3, now 1; rate 0.2, now 3.0); "
    assert told + "give another --out to keep it, or --anew" in said
    assert (tmp_path / "out" / "fc8-0-tench-s0.png").read_bytes() == before
    synthesize("fc8:1", "--steps", 1).fine()
    synthesize("fc8:0-2").refused()
    synthesize("fc8:0", "--steps", 1, "--anew").fine()
    assert (tmp_path / "out" / "fc8-0-tench-s0.png").read_bytes() != before


NAMES = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a_b, self.a__b = torch.nn.Conv2d(3, 2, 3), torch.nn.Conv2d(2, 2, 3)
    def forward(self, x): return self.a__b(self.a_b(x)).mean((2, 3))
def net(): return Net(), dict(size=14)
"""


def test_units_that_are_named_nearly_alike_have_their_own_files(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "names_of_test_cli.py").write_text(NAMES)
    monkeypatch.chdir(tmp_path)
    name = "python:names_of_test_cli:net"
    found = synthesize(
        "a_b:0", "a__b:0", "a_b:0", "--prior", "pixels", "--json", subject=name
    ).json()
    assert len(found) == len({each["image"] for each in found}) == 2, (
        "each once, and none in the other's place"
    )


def test_a_record_in_its_own_folder_is_checked_and_not_written(
    synthesize: Run, phosphene: Run, tmp_path: Path
) -> None:
    synthesize("fc8:0", "--animate").fine()
    folder, record = tmp_path / "out", tmp_path / "out" / "fc8-0-tench-s0.json"
    kept = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    said = phosphene("synthesize", "--record", record, "--out", folder)
    said.fine()
    assert "not the same bits" not in said.err
    data = json.loads(record.read_text())
    record.write_text(json.dumps({**data, "image_sha256": "0" * 64}))
    assert "not the same bits" in phosphene("synthesize", "--record", record, "--out", folder).err
    kept.pop(record.name)
    assert {
        file.name: file.stat().st_mtime_ns for file in folder.iterdir() if file != record
    } == kept


def test_a_record_of_a_photographs_start_remakes_it_or_says_that_it_changed(
    synthesize: Run, phosphene: Run, tmp_path: Path
) -> None:
    photograph = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(
        photograph
    )
    synthesize("fc8:0", "--start", photograph).fine()
    record = tmp_path / "out" / "fc8-0-tench-s0.json"
    phosphene("synthesize", "--record", record, "--out", tmp_path / "again").fine()
    assert (
        record_of(tmp_path / "again", "fc8-0-tench-s0").image_sha256
        == Record.read(record).image_sha256
    )
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(photograph)
    said = phosphene("synthesize", "--record", record, "--out", tmp_path / "third")
    assert "not the photograph" in said.refused()


def test_a_record_made_with_other_weights_is_refused(
    synthesize: Run, phosphene: Run, tmp_path: Path
) -> None:
    subject = write_subject(tmp_path / "s.safetensors")
    synthesize("fc8:0", subject=subject).fine()
    write_subject(subject, note="trained on")
    record = tmp_path / "out" / "fc8-0-tench-s0.json"
    assert (
        "another subject"
        in phosphene("synthesize", "--record", record, "--out", tmp_path / "again").refused()
    )


HOSTILE: list[Callable[[dict[str, Any]], Any]] = [
    lambda r: r["request"].pop("climb"),
    lambda r: r["request"].pop("members"),
    lambda r: r["request"].update(members=[]),
    lambda r: r["request"].update(member=99),
    lambda r: r["request"].update(member=-1),
    lambda r: r["request"].update(member="x"),
    lambda r: r["request"].update(extra=1),
    lambda r: r["request"].update(subject=5),
    lambda r: r["request"].update(subject=["x"]),
    lambda r: r["request"].update(prior=None),
    lambda r: r["request"].update(start=7),
    lambda r: r["request"].update(start={"file": 5}),
    lambda r: r["request"].update(start="sideways"),
    lambda r: r["request"].update(device="abacus"),
    lambda r: r["request"].update(device="cuda:99"),
    lambda r: r["request"].update(precision="int3"),
    lambda r: r["request"].update(threads="many"),
    lambda r: r["request"].update(threads=10**9),
    lambda r: r["request"].update(threads=-4),
    lambda r: r["request"].update(prior_file=7),
    lambda r: r["request"]["climb"].update(steps="many"),
    lambda r: r["request"]["climb"].update(steps=10**12),
    lambda r: r["request"]["climb"].update(rate="fast"),
    lambda r: r["request"]["climb"].update(rate=float("nan")),
    lambda r: r["request"]["climb"].update(rule="__import__('os')"),
    lambda r: r["request"]["climb"].update(rule=["mean"]),
    lambda r: r["request"]["climb"].update(shift=1e9),
    lambda r: r["request"]["climb"].update(newton=True),
    lambda r: r["request"].update(climb="paper"),
    lambda r: r["request"]["members"][0][0]["terms"][0][1].update(layer="fc99"),
    lambda r: r["request"]["members"][0][0]["terms"][0][1].update(channel=99),
    lambda r: r["request"]["members"][0][0]["terms"][0][1].update(channel=-1),
    lambda r: r["request"]["members"][0][0]["terms"][0][1].update(layer='fc8:0" + fc8'),
    lambda r: r["request"]["members"][0][0]["terms"][0][1].update(position=[50, 50]),
    lambda r: r["request"]["members"][0][0]["terms"][0][1].update(position="left"),
    lambda r: r["request"]["members"][0][0]["terms"][0].__setitem__(0, float("nan")),
    lambda r: r["request"]["members"][0][0].update(terms=[]),
    lambda r: r["request"]["members"][0][0].update(
        terms=[[1, {"layer": "fc6", "vector": [1, 2], "name": "d", "position": "centre"}]]
    ),
    lambda r: r["request"]["members"][0][0].update(
        terms=[
            [1, {"layer": "fc6", "vector": [float("nan")] * 16, "name": "d", "position": "centre"}]
        ]
    ),
    lambda r: r["request"]["members"][0][0].update(
        terms=[[1, {"layer": "conv5", "vector": [1.0] * 256, "name": "d", "position": [99, 99]}]]
    ),
    lambda r: r["request"]["members"][0].__setitem__(1, 2**80),
    lambda r: r["request"]["members"][0].__setitem__(1, "seed"),
    lambda r: r["request"].update(members=r["request"]["members"] * 100_001),
]


@pytest.mark.parametrize("damage", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_a_hostile_record_is_one_line(
    synthesize: Run, phosphene: Run, tmp_path: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    synthesize("fc8:0").fine()
    file = tmp_path / "out" / "fc8-0-tench-s0.json"
    data = json.loads(file.read_text())
    damage(data)
    file.write_text(json.dumps(data))
    threads = torch.get_num_threads()
    phosphene("synthesize", "--record", file, "--out", tmp_path / "again").refused()
    assert torch.get_num_threads() == threads
    assert not (tmp_path / "again").exists()


# ---------------------------------------------------------------- units that cannot climb


FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.conv.weight.data[1] = 0
        self.bad = nn.Identity()
    def forward(self, x):
        return self.bad(self.conv(x) * torch.tensor([1, 1, float("nan")])[:, None, None])

def net():
    return Net(), dict(size=14)
"""


def test_a_dead_unit_and_a_number_that_is_none_are_said_and_the_others_are_drawn(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "factory_of_test_cli.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    said = synthesize(
        "conv:0", "conv:1", "bad:2", "--json", subject="python:factory_of_test_cli:net"
    )
    fine, dead, stopped = said.json()
    assert (fine["status"], dead["status"]) == ("climbed", "dead")
    assert stopped["status"].startswith("stopped: not a finite number")
    assert stopped["score"] is None
    assert said.err.count("\n") == 2
    assert "conv:1: dead" in said.err
    assert "bad:2: stopped" in said.err
    picture = read_png(dead["image"])
    assert np.array_equal(picture, crossed_out(picture))
    assert not np.array_equal(read_png(stopped["image"]), crossed_out(picture))
    for each in (fine, dead, stopped):
        text = Path(each["image"]).with_suffix(".json").read_text()
        json.loads(text, parse_constant=pytest.fail)
    synthesize("conv:0", "conv:1", "bad:2", subject="python:factory_of_test_cli:net").fine()


# ---------------------------------------------------------------- the other commands


def test_layers_lists_what_can_be_climbed(phosphene: Run, zoo: Path) -> None:
    found = phosphene("layers", zoo / "subject.safetensors", "--json").json()
    rows = {row["layer"]: row for row in found["layers"]}
    assert found["input"] == [14, 14]
    assert found["output"] == "fc8"
    assert {"conv1", "conv5", "pool5", "fc6", "fc7", "fc8"} <= rows.keys()
    assert rows["conv1"]["shape"] == [64, 7, 7]
    assert rows["conv1"]["units"] == 64 * 49
    assert rows["conv1"]["receptive_field"] == {"top": 3, "left": 3, "bottom": 10, "right": 10}
    assert rows["fc8"]["receptive_field"] == {"top": 0, "left": 0, "bottom": 14, "right": 14}
    table = phosphene("layers", zoo / "subject.safetensors").fine()
    assert all(name in table for name in rows)
    inner = phosphene("layers", zoo / "subject.safetensors", "--all", "--json").json()["layers"]
    assert "fc6.norm" in {row["layer"] for row in inner}


NESTED = """
from torch import nn

def net():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3))
    return nn.Sequential(features, nn.Flatten(), nn.Linear(6 * 100, 5)), dict(size=14)
"""


LONG = [
    "features",
    "denseblock4_with_dilation",
    "denselayer16",
    "attention",
    "projection_to_values",
]


@pytest.fixture
def long_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write a factory of a network whose layers have long names, and return these names."""
    (tmp_path / "long_of_test_cli.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    inner = nn.Conv2d(3, 4, 3)\n"
        f"    for name in {LONG[::-1]}:\n"
        "        outer = nn.Sequential()\n"
        "        outer.add_module(name, inner)\n"
        "        inner = outer\n"
        "    return inner, dict(size=16)\n"
    )
    monkeypatch.chdir(tmp_path)
    return [".".join(LONG[: i + 1]) for i in range(len(LONG))]


@pytest.mark.parametrize("columns", [None, "80", "20"])
def test_a_table_in_a_pipe_has_every_name_whole_in_its_line(
    phosphene: Run, long_names: list[str], monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    lines = phosphene("layers", "python:long_of_test_cli:net", "--all").fine().splitlines()
    for name in long_names:
        (line,) = [each for each in lines if name in each.split()]
        assert "3 × 3" in line
        assert "…" not in line
    said = phosphene("layers", "python:long_of_test_cli:net", "--all", "--json").json()
    assert {row["layer"] for row in said["layers"]} == set(long_names)


def test_a_table_on_a_narrow_terminal_goes_on_in_the_next_line(
    long_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        shell, "out", shell.Plain(file=screen, force_terminal=True, color_system=None, width=60)
    )
    table = Table("layer", "kind", "shape", "receptive field")
    for name in long_names:
        table.add_row(name, "Conv2d", "4 × 14 × 14", "3 × 3")
    shell.print_table(table)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert "".join(line.split("│")[1].strip() for line in lines if "│" in line) == "".join(
        long_names
    )


def test_layers_lists_the_layers_of_a_sequential(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nested_of_test_cli.py").write_text(NESTED)
    monkeypatch.chdir(tmp_path)
    rows = phosphene("layers", "python:nested_of_test_cli:net", "--json").json()["layers"]
    assert [row["layer"] for row in rows] == ["0.0", "0.1", "0.2", "0", "1", "2"]


@pytest.fixture
def bundled(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo folder with both tiny files in its manifest."""
    import hashlib
    import shutil

    folder, manifest = tmp_path / "zoo", {}
    folder.mkdir()
    for kind in ("subject", "generator"):
        file = Path(shutil.copy(zoo / f"{kind}.safetensors", folder))
        raw = file.read_bytes()
        manifest[f"tiny-{kind}"] = {
            "file": file.name,
            "sha256": hashlib.sha256(raw).hexdigest(),
            "bytes": len(raw),
            "kind": kind,
            "summary": f"a tiny {kind}",
        }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(weights.zoo, "zoo_folder", lambda: folder)
    return folder


def test_the_zoo_is_listed_shown_and_verified(phosphene: Run, bundled: Path) -> None:
    assert set(phosphene("zoo", "list", "--json").json()) == {"tiny-subject", "tiny-generator"}
    assert "a tiny generator" in phosphene("zoo", "list").fine()
    card = phosphene("zoo", "show", "tiny-subject", "--json").json()
    assert card["parameters"] > 2_000_000
    assert card["sha256"] == weights.manifest()["tiny-subject"]["sha256"]
    assert "tench" in phosphene("zoo", "show", "tiny-subject").fine()
    assert "code_layer" in phosphene("zoo", "show", "tiny-generator").fine()
    assert phosphene("zoo", "verify").fine().count("whole") == 2
    assert phosphene("zoo", "verify", "tiny-subject").fine().count("whole") == 1
    assert "tiny-generator" in phosphene("zoo", "verify", "nothing").refused()
    file = bundled / "generator.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    said = phosphene("zoo", "verify")
    assert said.code == 2
    assert "damaged" in said.err
    file.unlink()
    assert "tiny-generator: not on this machine" in phosphene("zoo", "verify").fine()
    assert "near: tiny-subject" in phosphene("zoo", "show", "tiny-subjects").refused()


def test_the_zoo_shows_what_was_measured_of_these_weights_and_not_of_others(
    phosphene: Run, bundled: Path
) -> None:
    figure = {"value": 0.125, "low": 0.0625, "high": None, "n": 1234, "note": "by one"}
    shown = phosphene("zoo", "show", "tiny-generator", "--json").json()
    assert "figures" not in shown
    found = {
        "sha256": shown["sha256"],
        "judge": "one",
        "data": "photographs",
        "figures": {"image_error": figure},
    }
    listed = {shown["name"]: [found, {**found, "judge": "nobody", "sha256": "0" * 64}]}
    (bundled / "figures.json").write_text(json.dumps(listed))
    assert phosphene("zoo", "show", "tiny-generator", "--json").json()["figures"] == [found]
    said = phosphene("zoo", "show", "tiny-generator").fine()
    assert all(
        text in said for text in ("image_error", "0.125", "0.0625 … –", "1,234", "judge one")
    )
    assert "nobody" not in said


def test_the_zoo_shows_a_card_without_classes(phosphene: Run, tmp_path: Path) -> None:
    file = write_subject(tmp_path / "s.safetensors", classes=[], history=[])
    assert "classes" in phosphene("zoo", "show", file).fine()


def test_reconstruct_writes_a_photograph_beside_its_reconstruction(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    photograph = tmp_path / "p.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), np.uint8)).save(
        photograph
    )
    arguments = ["reconstruct", photograph, "--prior", zoo / "generator.safetensors", "--out"]
    found = phosphene(*arguments, tmp_path / "r.png", "--json").json()
    assert 0 < found["mean_absolute_error"] < 1
    assert read_png(tmp_path / "r.png").shape[1] > 2 * 2 * 16
    assert "r.png" in phosphene(*arguments, tmp_path / "r.png").fine()
    for name, kind in (("r", "PNG"), ("r.jpg", "JPEG"), ("r.PNG", "PNG")):
        phosphene(*arguments, tmp_path / name).fine()
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind
    (tmp_path / "file").write_text("no folder")
    for name in ("file/r.png", "."):
        assert "cannot write" in phosphene(*arguments, tmp_path / name).refused()


def test_reconstruct_refuses_what_has_no_encoder(phosphene: Run, tmp_path: Path) -> None:
    photograph = tmp_path / "p.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photograph)
    for encoder in ("", "nowhere.safetensors", "python:os:getcwd"):
        file = write_generator(tmp_path / "g.safetensors", encoder)
        phosphene("reconstruct", photograph, "--prior", file, "--out", tmp_path / "r.png").refused()


def test_an_encoder_that_is_not_the_one_it_was_trained_with_is_refused(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    photograph = tmp_path / "p.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(photograph)
    encoder = zoo / "subject.safetensors"
    file = write_generator(tmp_path / "g.safetensors", str(encoder), encoder_sha256="0" * 64)
    line = phosphene(
        "reconstruct", photograph, "--prior", file, "--out", tmp_path / "r.png"
    ).refused()
    assert "encoder" in line


def test_a_judge_with_the_same_classes_needs_no_names_compared() -> None:
    """ImageNet's own names are ambiguous: two cranes, and a Cardigan beside a cardigan."""
    classes = ("crane", "Cardigan, Cardigan Welsh corgi", "crane", "cardigan")
    judge = Subject("judge", torch.nn.Identity(), (8, 8), (0.5,) * 3, (0.5,) * 3, classes)
    assert judge_channels(judge, classes) == [0, 1, 2, 3]
    with pytest.raises(BadRequest, match="several classes named 'crane'"):
        judge_channels(judge, classes[:1])
    with pytest.raises(BadRequest, match="judge judge has no class named 'crane'"):
        judge_channels(replace(judge, classes=()), classes)


def test_evaluate_counts_what_a_judge_recognises(
    synthesize: Run, phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    synthesize("fc8:0-3", "conv5:1").fine()
    found = phosphene(
        "evaluate", tmp_path / "out", "--judge", zoo / "subject.safetensors", "--json"
    ).json()
    figures = {each["layer"]: each["figures"] for each in found}
    assert figures["conv5"] == {}, "a hidden unit has no class"
    assert figures["fc8"]["recognised_top1"]["n"] == 4
    assert (
        0
        <= figures["fc8"]["recognised_top1"]["value"]
        <= figures["fc8"]["recognised_top5"]["value"]
        <= 1
    )
    (tmp_path / "empty").mkdir()
    assert "no records" in phosphene("evaluate", tmp_path / "empty").refused()


def test_help_and_version(phosphene: Run) -> None:
    assert "synthesize" in phosphene("--help").fine()
    assert phosphene("--version").fine().startswith("phosphene ")


def test_a_run_of_more_pictures_than_a_sheet_holds_says_so(
    synthesize: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures_folder, "MAX_TILES", 2)
    assert "its first 2 pictures" in synthesize("fc8:0-3").fine()
    two = images.contact_sheet(
        [read_png(tmp_path / "out" / "fc8-0-tench-s0.png")] * 2, ["a\nb"] * 2, 4, 2
    )
    assert read_png(tmp_path / "out" / "contact-sheet.png").shape == two.shape


def test_a_record_does_not_run_code_that_was_not_named(
    synthesize: Run, phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is a file from outside.

    Its subject `python:…` is imported only where the user says the same.
    """
    (tmp_path / "factory_of_test_cli.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    name = "python:factory_of_test_cli:net"
    synthesize("conv:0", subject=name).fine()
    record, out = tmp_path / "out" / "conv-0-s0.json", tmp_path / "again"
    monkeypatch.delitem(sys.modules, "factory_of_test_cli")
    assert "which is code" in phosphene("synthesize", "--record", record, "--out", out).refused()
    assert (
        "which is code"
        in phosphene("synthesize", "python:os:abort", "--record", record, "--out", out).refused()
    )
    assert "factory_of_test_cli" not in sys.modules
    phosphene("synthesize", name, "--record", record, "--out", out).fine()
    assert Record.read(record).command == f"phosphene synthesize {name} --record conv-0-s0.json"
    assert (out / "conv-0-s0.png").read_bytes() == (tmp_path / "out" / "conv-0-s0.png").read_bytes()


def test_a_generator_does_not_run_code_that_was_not_named(
    phosphene: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weights file is from outside, too.

    Its encoder `python:…` is imported only where the user says the same.
    """
    subject, photograph = zoo / "subject.safetensors", tmp_path / "p.png"
    (tmp_path / "encoder_of_test_cli.py").write_text(
        "from phosphene.subjects import load_subject\n\n"
        f"def net():\n    subject = load_subject({str(subject)!r})\n"
        "    kept = {'size': subject.size, 'mean': subject.mean, 'std': subject.std}\n"
        "    return subject.network, kept\n"
    )
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(
        photograph
    )
    monkeypatch.chdir(tmp_path)
    name = "python:encoder_of_test_cli:net"
    generator, plain = (
        write_generator(tmp_path / "g.safetensors", name),
        zoo / "generator.safetensors",
    )
    reconstruct = ("reconstruct", photograph, "--json", "--out", tmp_path / "r.png", "--prior")
    climb = (
        "synthesize",
        subject,
        "fc8:0",
        "--steps",
        2,
        "--start",
        photograph,
        "--out",
        tmp_path / "out",
        "--prior",
    )
    evaluate = (
        "evaluate",
        generator,
        "--images",
        CI_SAMPLE,
        "--judge",
        subject,
        "--photographs",
        30,
    )
    for command in (
        (*reconstruct, generator),
        (*climb, generator),
        *([evaluate] if CI_SAMPLE.exists() else []),
    ):
        assert f"inverts {name}, which is code" in phosphene(*command).refused()
    assert "encoder_of_test_cli" not in sys.modules
    again = phosphene(*reconstruct, generator, "--encoder", name).json()
    assert (
        again["mean_absolute_error"] == phosphene(*reconstruct, plain).json()["mean_absolute_error"]
    )
    monkeypatch.delitem(sys.modules, "encoder_of_test_cli", raising=False)
