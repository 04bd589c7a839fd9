"""Models of real neurons, loaded as docs/neurons.md says; where their files are at hand."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import DATA
from PIL import Image
from torch import Tensor

import phosphene
from phosphene.receptive_fields import receptive_fields

DOCS = Path(__file__).parent.parent / "docs"
PAGES = "".join(
    (DOCS / name).read_text(encoding="utf-8") for name in ("neurons.md", "real-neurons.md")
)
FILE = re.compile(r"<!-- file: (?P<name>[\w.]+) -->\n```python\n(?P<text>.*?)^```$", re.M | re.S)
MOUSE = DATA / "mouse-v1" / "deep.safetensors"
MACAQUE = DATA / "macaque-v4"
NEURONS = [0, 100, 2000, 5000]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the page's factories into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for each in FILE.finditer(PAGES):
        Path(each["name"]).write_text(each["text"], encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(each["name"]).stem, raising=False)
    return tmp_path


def test_the_factories_are_short() -> None:
    for each in FILE.finditer(PAGES):
        lines = [line for line in each["text"].splitlines() if line]
        assert len(lines) <= 40, each["name"]


@pytest.mark.skipif(not MOUSE.exists(), reason="no model of mouse neurons here")
def test_neurons_of_the_mouse_prefer_a_place_in_a_grey_picture_of_their_own_shape(
    here: Path,
) -> None:
    Path("deep.safetensors").symlink_to(MOUSE)
    subject = phosphene.load_subject("python:mouse:deep")
    assert (subject.channels, subject.size) == (1, (36, 64))
    assert subject.shapes()["rates"] == (7776,)
    units = f"rates:{','.join(map(str, NEURONS))}"
    found = phosphene.synthesize(subject, units, prior="pixels", steps=40, tries=1)
    assert found.images.shape == (4, 1, 41, 73)
    assert (found.scores > 2).all(), "noise gives 0.1 to 0.5"
    with torch.no_grad():
        answers = subject(found.inputs)[range(4), NEURONS]
    torch.testing.assert_close(answers, found.input_scores)
    torch.testing.assert_close(found.input_scores, found.scores)
    own = receptive_fields(subject.network, subject.size, ["rates"], channels=1)["rates"]
    for image, channel in zip(found.inputs[:, 0], NEURONS, strict=True):
        box = own.box(0, 0, channel)
        assert (box.bottom - box.top, box.right - box.left) in {(27, 28), (28, 28)}
        outside = (image - image.median()).square()
        outside[box.top : box.bottom, box.left : box.right] = 0
        share = outside.sum() / (image - image.median()).square().sum()
        assert share < 0.01, "the picture departs from grey where its neuron looks"
    fields = receptive_fields(subject.network, subject.size, ["features.3"], channels=1)
    assert fields["features.3"].centre.bottom - fields["features.3"].centre.top == 27
    for image in found.images[:, 0]:
        assert spread(image - 0.5) < 0.5, "most of the contrast lies in one place"


@pytest.mark.skipif(not MOUSE.exists(), reason="no model of mouse neurons here")
def test_two_models_of_the_mouse_s_neurons_agree(here: Path) -> None:
    for name in ("deep", "linear"):
        Path(f"{name}.safetensors").symlink_to(MOUSE.with_stem(name))
    models = [phosphene.load_subject(f"python:mouse:{name}") for name in ("deep", "linear")]
    assert not any(isinstance(each, torch.nn.ELU) for each in models[1].network.modules())
    rows = pq.read_table(MACAQUE / "images.parquet").to_pydict()["image"][::24]
    with torch.no_grad():
        rates = [model(as_images(rows))[:, ::100].double().numpy() for model in models]
    found = [
        np.corrcoef(*columns)[0, 1] for columns in zip(*(each.T for each in rates), strict=True)
    ]
    assert np.median(found) > 0.4


def spread(image: Tensor) -> float:
    """Return the share of pixels that hold nine tenths of an image's squares."""
    squares = image.flatten().square().sort(descending=True).values.cumsum(0)
    return float((squares < 0.9 * squares[-1]).float().mean())


@pytest.mark.skipif(not MACAQUE.is_dir(), reason="no models of macaque neurons here")
def test_a_model_of_a_macaque_neuron_answers_as_the_neuron_did(here: Path) -> None:
    from safetensors.numpy import load_file

    Path("models.safetensors").symlink_to(MACAQUE / "models.safetensors")
    subject = phosphene.load_subject("python:macaque:neuron")
    rows = pq.read_table(MACAQUE / "images.parquet").to_pydict()["image"][::24]
    with torch.no_grad():
        answers = subject(as_images(rows))[:, 0].numpy()
    recorded = load_file(MACAQUE / "responses.safetensors")["190923.mean"][0, ::24]
    assert np.corrcoef(answers, recorded)[0, 1] > 0.3
    found = phosphene.synthesize(subject, "response:0", prior="pixels", steps=30, tries=1)
    assert found.scores[0] > answers.max()


def as_images(files: list[bytes]) -> Tensor:
    """Return photographs as images in 0 … 1."""
    pixels = [np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")) for raw in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255


@pytest.mark.skipif(not MACAQUE.is_dir(), reason="no models of macaque neurons here")
def test_a_population_answers_as_its_neurons_do(here: Path) -> None:
    Path("models.safetensors").symlink_to(MACAQUE / "models.safetensors")
    from macaque import neuron
    from population import keys, neurons

    network, look = neurons()
    assert len(keys()) == len(network.neurons) == 219
    assert (keys()[0], keys()[-1], look["output"]) == ("190923.0", "211022.41", "responses")
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 100
    one, _ = neuron("201025.7.")
    with torch.no_grad():
        answers = network.eval()(images)
        own = one.eval()(images)[:, 0]
    torch.testing.assert_close(answers[:, keys().index("201025.7")], own)
