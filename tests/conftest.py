"""Small networks, generators and photographs, so that every test takes moments."""

from __future__ import annotations

import importlib
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent.parent / "docs"))  # networks.py, for the tests as well

from phosphene import cli
from phosphene.code_statistics import CodeStatistics
from phosphene.datasets import Photographs
from phosphene.priors import Generated
from phosphene.subjects import Subject
from phosphene.testing import (
    lively,
    tiny_generated,
    tiny_photographs,
    tiny_subject,
    write_generator,
    write_subject,
)

hypothesis_settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("steady")

DATA = Path(__file__).parents[2] / "shared" / "data"
CI_SAMPLE, SAMPLES = DATA / "ci-sample-64", DATA / "imagenet-1000-samples-128"


FAST = {
    "test_channels.py",
    "test_factories.py",
    "test_house.py",
    "test_kept.py",
    "test_metrics.py",
    "test_objectives.py",
    "test_options.py",
    "test_parts.py",
    "test_priors.py",
    "test_probe.py",
    "test_prose.py",
    "test_receptive_fields.py",
    "test_stimulus.py",
    "test_texts.py",
    "test_units.py",
}
"""The files whose tests take moments: the fast lane, of under a minute."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the slow files unread, since reading them all takes longer than the fast lane."""
    slow = collection_path.match("test_*.py") and collection_path.name not in FAST
    return True if slow and "not slow" in config.getoption("markexpr") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what does not belong to the fast lane."""
    for item in items:
        if item.path.name not in FAST:
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def subject() -> Subject:
    return tiny_subject()


@pytest.fixture
def generated() -> Generated:
    return tiny_generated()


@pytest.fixture
def exact_subject() -> Subject:
    """In float64, where equal means equal to twelve digits."""
    found = tiny_subject()
    found.network.double()
    return found


@pytest.fixture
def exact_generated() -> Generated:
    found = tiny_generated()
    statistics = CodeStatistics(
        *(getattr(found.statistics, name).double() for name in CodeStatistics.__annotations__)
    )
    return Generated(found.generator.double(), statistics)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `subject.safetensors` and the `generator.safetensors` that inverts it.

    Not to be written in.
    """
    folder = tmp_path_factory.mktemp("zoo")
    subject = write_subject(folder / "subject.safetensors")
    write_generator(folder / "generator.safetensors", str(subject))
    return folder


@pytest.fixture
def photographs() -> Callable[[int, int], Photographs]:
    """Return what makes synthetic photographs, n of them with so many pixels a side."""
    return tiny_photographs


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def refused(self) -> str:
        """The one line of a mistake."""
        assert self.code == 2, f"exit code {self.code}\n{self.out}\n{self.err}"
        (line,) = self.err.strip().splitlines()
        assert line.startswith("phosphene: ")
        assert self.out == ""
        return line

    def fine(self) -> str:
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self.out

    def json(self) -> Any:
        """What is on stdout, as a strict reader of JSON takes it: NaN is none."""

        def strict(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.fine(), parse_constant=strict)


Run = Callable[..., Said]


@pytest.fixture
def phosphene(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`phosphene …` in this process, through the real entry point."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["phosphene", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capfd.readouterr()
        code = left.value.code
        return Said(
            code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err
        )

    return run


def wide(channels: int) -> nn.Module:
    """Return a network of wide images of any channels, with three logits."""
    layers = [nn.Conv2d(channels, 4, 5), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return lively(nn.Sequential(*layers, nn.Linear(16, 3)))


def climbs_remakes_and_judges(
    phosphene: Run, subject: Path, units: Sequence[str], folder: Path
) -> None:
    """Check a subject by command.

    Units climb, the first one's record gives the same bits, and the subject names its own pictures.
    """
    climb = ("--prior", "pixels", "--steps", 40, "--device", "cpu", "--precision", "float32")
    made = phosphene("synthesize", subject, *units, *climb, "--out", folder / "a", "--json").json()
    assert all(each["score"] > each["start_score"] + 0.1 for each in made)
    again = phosphene(
        "synthesize", "--record", Path(made[0]["image"]).with_suffix(".json"), "--out", folder / "b"
    )
    assert again.fine()
    assert again.err == ""  # the same bits: no warning
    judged = phosphene("evaluate", folder / "a", "--judge", subject, "--json").json()
    named = [
        layer["figures"]["recognised_top1"]["value"]
        for layer in judged
        if "recognised_top1" in layer["figures"]
    ]
    assert named == [1]


_operators: list[torch.library.Library] = []  # an operator lives as long as its library


@pytest.fixture(scope="session", autouse=True)
def _torchvision_imports() -> None:
    """Declare two operators where torchvision's wheel was built for CUDA and torch was not.

    Other packages import torchvision.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)


@pytest.fixture
def torchvision() -> ModuleType:
    return pytest.importorskip("torchvision")


@pytest.fixture
def timm(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("timm")


def samples(rows: range) -> tuple[Tensor, Tensor]:
    """Real photographs in [0, 1], (n, 3, 128, 128), and their classes."""
    if not SAMPLES.is_dir():
        pytest.skip("no shared data")
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(SAMPLES / "samples.parquet").take(list(rows)).to_pydict()
    pixels = [np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")) for raw in table["image"]]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255, torch.tensor(
        table["label"]
    )
