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

from phosphene import cli, weights
from phosphene.code_statistics import CodeStatistics
from phosphene.datasets import Photographs
from phosphene.networks import build
from phosphene.priors import Generated
from phosphene.subjects import Subject

hypothesis_settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("steady")

CODE, IMAGE, SEEN = 12, 16, 14
SUBJECT_ARCHITECTURE = {"name": "caffenet", "classes": 10, "width": 16}
GENERATOR_ARCHITECTURE = {
    "name": "two-stage",
    "code": 16,
    "hidden": 16,
    "grid": 1,
    "seed_channels": 4,
    "widths": [8, 8],
    "blocks": [1, 1],
    "rank": 4,
    "latent": 4,
    "decoder": [8, 8, 8],
    "decoder_blocks": [1, 0, 1],
    "size": IMAGE,
    "seen": SEEN,
}
CLASSES = (
    "tench, Tinca tinca",
    "English springer",
    "cassette player",
    "chain saw, chainsaw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "golden retriever",
)
DATA = Path(__file__).parents[2] / "shared" / "data"
CI_SAMPLE, SAMPLES = DATA / "ci-sample-64", DATA / "imagenet-1000-samples-128"


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


class TinyNet(nn.Module):
    """Two convolutions and a linear layer; `relu` overwrites its input, as torchvision's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
        self.squash = nn.Tanh()
        self.fc = nn.Linear(8 * 6 * 6, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.squash(self.block(self.relu(self.conv(images)))).flatten(1))


class TinyGenerator(nn.Module):
    """A code through one hidden layer to an image in (0, 1)."""

    def __init__(self, code: int = CODE, size: int = IMAGE, seen: int = SEEN) -> None:
        super().__init__()
        self.image_size, self.seen, self.code_shape = size, seen, (code,)
        self.hidden, self.out = nn.Linear(code, 24), nn.Linear(24, 3 * size * size)

    def forward(self, codes: Tensor) -> Tensor:
        images = self.out(torch.tanh(self.hidden(codes))).view(
            -1, 3, self.image_size, self.image_size
        )
        return images.sigmoid()


def statistics_of(codes: Tensor, axes: int = 4) -> CodeStatistics:
    """Code statistics, computed plainly and in the codes' own precision."""
    values, vectors = torch.linalg.eigh(torch.cov(codes.T))
    values, vectors = values.flip(0), vectors.flip(1)
    rest = values[min(axes, len(values) - 1) :].mean()
    return CodeStatistics(
        codes.mean(0),
        codes.std(0),
        codes.amax(0),
        vectors[:, :axes].T.contiguous(),
        values[:axes],
        rest,
        codes.amin(0).clamp(max=0),
    )


def lively(network: nn.Module) -> nn.Module:
    """The network with random weights under which every layer really answers to its input."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    return network.eval().requires_grad_(False)


def tiny_subject(network: nn.Module | None = None, size: tuple[int, int] = (SEEN, SEEN)) -> Subject:
    network = lively(TinyNet()) if network is None else network.eval()
    return Subject("tiny", network, size, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), CLASSES, "fc")


def tiny_generated() -> Generated:
    generator = lively(TinyGenerator())
    codes = torch.randn(400, CODE).relu() * torch.linspace(0.2, 1.2, CODE)
    return Generated(generator, statistics_of(codes))


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


def write_subject(
    path: Path, architecture: dict[str, object] | None = None, **card: object
) -> Path:
    """A subject's weights file with random weights; keywords replace entries of the card."""
    network = lively(build(SUBJECT_ARCHITECTURE))
    whole = {
        "name": "tiny-objects",
        "kind": "subject",
        "architecture": architecture or SUBJECT_ARCHITECTURE,
        "preprocessing": {"size": [SEEN, SEEN], "mean": [0.5] * 3, "std": [0.25] * 3},
        "classes": list(CLASSES),
        "output": "fc8",
    }
    weights.write(
        path,
        {f"network.{name}": value for name, value in network.state_dict().items()},
        {**whole, **card},
    )
    return path


def write_generator(path: Path, encoder: str = "", **card: object) -> Path:
    """A generator's weights file with random weights; keywords replace entries of the card."""
    network = lively(build(GENERATOR_ARCHITECTURE))
    statistics = statistics_of(torch.randn(300, 16).relu() * torch.linspace(0.5, 3, 16))
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {
        f"code.{name}": getattr(statistics, name) for name in CodeStatistics.__annotations__
    }
    whole = {
        "name": "tiny-fc6",
        "kind": "generator",
        "architecture": GENERATOR_ARCHITECTURE,
        "code_layer": "fc6",
    }
    weights.write(path, tensors, {**whole, "encoder": encoder, **card})
    return path


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `subject.safetensors` and the `generator.safetensors` that inverts it. Not to be written in."""
    folder = tmp_path_factory.mktemp("zoo")
    subject = write_subject(folder / "subject.safetensors")
    write_generator(folder / "generator.safetensors", str(subject))
    return folder


@pytest.fixture
def photographs() -> Callable[[int, int], Photographs]:
    """Synthetic photographs: coloured gradients, one colour for each of ten classes."""

    def make(n: int = 40, size: int = 16) -> Photographs:
        rng = np.random.default_rng(0)
        labels = np.arange(n, dtype=np.int64) % 10
        slope = np.linspace(0, 1, size)[None, :, None, None] * rng.random((n, 1, 1, 3))
        colours = rng.random((10, 3))[labels][:, None, None]
        images = (
            255 * np.clip(0.5 * colours + 0.5 * slope + 0.05 * rng.random((n, size, size, 3)), 0, 1)
        ).astype(np.uint8)
        return Photographs(
            "synthetic", images, labels, CLASSES, f"synthetic-{n}-{size}", "made here"
        )

    return make


def hooks(network: nn.Module) -> int:
    """How many hooks the network's modules carry."""
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in network.modules()
    )


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


def climbs_remakes_and_judges(
    phosphene: Run, subject: Path, units: Sequence[str], folder: Path
) -> None:
    """By command: units climb, the first one's record gives the same bits, and the subject names its own pictures."""
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
    """Where torchvision's wheel was built for CUDA and torch was not, two operators are declared: others import it."""
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
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(SAMPLES / "samples.parquet").take(list(rows)).to_pydict()
    pixels = [np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")) for raw in table["image"]]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255, torch.tensor(
        table["label"]
    )
