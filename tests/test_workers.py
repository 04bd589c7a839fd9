"""Batches climb in other processes: same bits, whatever is killed, and an error is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import phosphene
from phosphene.errors import BadRequest, Unavailable
from phosphene.forms import Record
from phosphene.pictures import Request, climb_into, estimated, planned, workers
from phosphene.pictures.run import Plan
from phosphene.pictures.workers import Workers, climbed_files, started
from phosphene.priors import load_prior
from phosphene.records import Folder
from phosphene.subjects import load_subject
from phosphene.synthesis import Member, settings

distributed = pytest.importorskip("distributed")

UNITS = "fc8:all"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from phosphene.testing import write_generator, write_subject

    folder = tmp_path_factory.mktemp("networks")
    subject = write_subject(folder / "subject.safetensors")
    return subject, write_generator(folder / "generator.safetensors", str(subject))


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with started("2") as found:
        yield found


def run(files: tuple[Path, Path], folder: Path, **how: Any) -> Any:
    """Return a function that climbs into the folder, and the plan of what is to be climbed."""
    subject = load_subject(str(files[0]))
    prior = load_prior(str(files[1]), subject)
    climb = settings("default", prior, steps=how.pop("steps", 3))
    request = Request(str(files[0]), str(files[1]), climb, threads=1, fit=subject.fit)
    members = [Member(target, seed) for seed in range(2) for target in subject.targets(UNITS)]

    def climbed(climber: Workers | None = None, **more: Any) -> list[Record]:
        options = {"batch": 4, **how, **more}
        return climb_into(
            Folder(folder), request, subject, prior, members, climber=climber, **options
        )

    return climbed, planned(Folder(folder), request, subject, prior, members, batch=4, **how)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def processing(two: Workers) -> dict[str, Any]:
    return {address: keys for address, keys in two.client.processing().items() if keys}


def test_a_killed_worker_loses_nothing_and_bits_are_those_of_one_process(
    files: tuple[Path, Path], tmp_path: Path, two: Workers
) -> None:
    here, _ = run(files, tmp_path / "here", steps=8)
    here()
    there, _ = run(files, tmp_path / "there", steps=8)
    assert two.count == 2
    pids = two.client.run(os.getpid)
    killed = []

    def kill(steps: int) -> None:
        busy = processing(two)
        if not killed and busy:
            killed.append(len(busy[min(busy)]))
            os.kill(pids[min(busy)], signal.SIGKILL)

    records = there(two, report=kill)
    assert killed, "a worker had a batch when it was killed"
    assert len(records) == 20
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert not set(two.client.run(os.getpid).values()) >= set(pids.values())


def test_workers_write_animations_and_arrays_and_climb_only_what_lacks(
    files: tuple[Path, Path], tmp_path: Path, two: Workers
) -> None:
    there, _ = run(files, tmp_path / "there")
    there(two)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "there").glob("fc8*.png")}
    there(two)
    assert all(file.stat().st_mtime_ns == when for file, when in before.items())
    there(two, animate=True, arrays=True)
    here, _ = run(files, tmp_path / "here")
    here(animate=True, arrays=True)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    there(two, resume=False)
    assert not list((tmp_path / "there").glob("*.webp")), "they were of another climb"


def test_python_gives_batches_to_workers_too(files: tuple[Path, Path], tmp_path: Path) -> None:
    subject, generator = map(str, files)
    how: dict[str, Any] = {"prior": generator, "steps": 3, "batch": 4, "quiet": True}
    here = phosphene.synthesize(subject, UNITS, out=tmp_path / "here", **how)
    there = phosphene.synthesize(subject, UNITS, out=tmp_path / "there", workers=2, **how)
    assert torch.equal(here.images, there.images)
    assert here.members == there.members
    with pytest.raises(BadRequest, match="give one as out"):
        phosphene.synthesize(subject, UNITS, workers=2, **how)
    with pytest.raises(BadRequest, match="by their names"):
        phosphene.synthesize(load_subject(subject), UNITS, out=tmp_path, workers=2, **how)


def order(plan: Plan, **changes: Any) -> dict[str, Any]:
    own = {"hashes": plan.hashes, "every_frame": 0, "arrays": False}
    return {**workers._order(plan.request, plan.chunk([0])), **own, **changes}


def test_other_versions_and_other_networks_are_one_line(
    files: tuple[Path, Path], tmp_path: Path, two: Workers
) -> None:
    _, plan = run(files, tmp_path)
    with pytest.raises(BadRequest, match=r"worker [01].* has torch .*, and the command torch 1\.0"):
        two._asked(climbed_files, order(plan, versions={"torch": "1.0"}))
    with pytest.raises(BadRequest, match=r"is another subject on worker [01]"):
        two._asked(climbed_files, order(plan, hashes={"subject": "abc"}))
    with pytest.raises(Unavailable, match="lacks the module 'nowhere'"):
        two._asked(_lacking)


def _lacking() -> None:
    raise ModuleNotFoundError("No module named 'nowhere'", name="nowhere")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("0", "--workers takes a number in 1"),
        ("host", "--workers takes a number in 1"),
        ("nowhere.json", "there is no such file"),
        ("tcp://127.0.0.1:9", "no scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_a_scheduler_that_is_not_there_is_one_line(
    where: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", "1 s")
    with pytest.raises((BadRequest, Unavailable), match=said), started(where):
        pass


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(Unavailable, match=r"pip install 'phosphene\[workers\]'"), started("2"):
        pass


def test_each_worker_of_a_machine_takes_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [workers._device("cuda", name) for name in (0, 3, 5, "node7-2")] == [
        "cuda:0",
        "cuda:3",
        "cuda:1",
        "cuda:2",
    ]
    assert workers._device("cuda", "tcp://10.0.0.1:40123") == "cuda"
    assert workers._device("cpu", 3) == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert workers._device("cuda", 3) == "cuda", "CUDA_VISIBLE_DEVICES has chosen"


def test_an_estimate_counts_steps_and_what_passes_keep(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    _, plan = run(files, tmp_path, steps=1000)
    subject, prior = plan.request.loaded()
    few = estimated(plan.request, subject, prior, plan.members[:4], "random", 4)
    many = estimated(plan.request, subject, prior, plan.members, "random", 4)
    assert (many.pictures, many.steps, many.batch) == (20, 1000, 4)
    assert many.seconds > 2 * few.seconds
    assert few.bytes > 50_000_000, "torch itself"
    assert few.of(40).seconds == pytest.approx(10 * few.seconds)


def command(files: tuple[Path, Path], out: Path, *more: object) -> list[str]:
    fixed = ("--prior", files[1], "--device", "cpu", "--threads", 1, "--out", out)
    words = ("-m", "phosphene", "synthesize", files[0], UNITS, "--seeds", "0-1", *fixed, *more)
    return [sys.executable, *map(str, words)]


def test_a_dry_run_writes_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    words = command(files, tmp_path / "out", "--dry-run", "--json", "--batch", 8)
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    told = json.loads(said)
    assert (told["pictures"], told["kept"], told["batch"], told["processes"]) == (20, 0, 8, 1)
    assert told["seconds"] > 0
    assert told["bytes"] > 50_000_000
    assert not (tmp_path / "out").exists()


def ended(group: int, seconds: float = 20) -> bool:
    """Return whether the processes of a group end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_control_c_stops_workers_and_the_folder_resumes(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    words = command(files, tmp_path / "out", "--steps", 100, "--batch", 2, "--workers", 2)
    begun = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(begun.pid, signal.SIGINT)
    _, told = begun.communicate(timeout=60)
    assert begun.returncode == 130, told
    assert told.strip().splitlines()[-1] == "phosphene: stopped; what is finished is kept"
    assert "Traceback" not in told
    assert ended(begun.pid), "no worker is left"
    finished = list(tmp_path.glob("out/*.json"))
    assert 0 < len(finished) < 20
    assert not list(tmp_path.glob("out/.*"))
    words = command(files, tmp_path / "out", "--steps", 100, "--dry-run", "--json")
    again = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert json.loads(again)["kept"] == len(finished)
