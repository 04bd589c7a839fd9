"""An option that says nothing of what it is given to is refused, never passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

CLIMB = ("--steps", "1", "--precision", "float32", "--device", "cpu", "--prior", "pixels")


@pytest.fixture
def there(phosphene: Run, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with `run/`, its record `record.json`, `photos/`, and the zoo's weights."""
    monkeypatch.chdir(tmp_path)
    for name in ("subject", "generator"):
        (tmp_path / f"{name}.safetensors").symlink_to(zoo / f"{name}.safetensors")
    phosphene("synthesize", "subject.safetensors", "fc8:1", *CLIMB, "--out", "run").fine()
    (record,) = (tmp_path / "run").glob("fc8*.json")
    (tmp_path / "record.json").symlink_to(record)
    (tmp_path / "photos" / "train" / "ant").mkdir(parents=True)
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "photos/train/ant/0.png")
    return tmp_path


GENERATOR = "evaluate generator.safetensors --images photos"
PICTURES = "evaluate run --judge subject.safetensors"
RECORD = "synthesize --record record.json --out again"
REFUSED = {
    # evaluate: of a generator, of pictures, of pictures without photographs
    f"{GENERATOR} --control run": "--control does not apply to a generator",
    f"{GENERATOR} --subject python:a:b": "--subject does not apply to a generator",
    f"{GENERATOR} --exemplars here": "--exemplars does not apply to a generator",
    f"{GENERATOR} --exemplars here --control run": "--control, --exemplars do not apply",
    f"{GENERATOR} --encoder other": "inverts",
    f"{PICTURES} --encoder python:a:b": "--encoder does not apply to a folder of pictures",
    f"{PICTURES} --control run": "--control does not apply to pictures without photographs",
    f"{PICTURES} --photographs 9": "--photographs does not apply to pictures without photographs",
    f"{PICTURES} --exemplars here": "--exemplars does not apply to pictures without photographs",
    f"{PICTURES} --subject resnet18-objects": "not of 'resnet18-objects'",
    # synthesize: a record says how its picture was made
    f"{RECORD} --steps 9": "--steps does not apply to --record",
    f"{RECORD} --animate": "--animate does not apply to --record",
    f"{RECORD} --seeds 1 --least": "--seeds, --least do not apply to --record",
    f"{RECORD} --precision float32": "--precision does not apply to --record",
    "synthesize subject.safetensors fc8:2 --record record.json": "UNITS does not apply to --record",
    "synthesize caffenet-objects --record record.json": "not of 'caffenet-objects'",
    "synthesize subject.safetensors fc8:2 --prior pixels --bounds b": "--bounds does not apply",
    "synthesize subject.safetensors fc8:2 --prior pixels --prior-file b": "deepsim:LAYER",
    # synthesize: what says nothing, and what is said twice
    "synthesize subject.safetensors fc8:2 --trust python:a:b": "a command without --record",
    "synthesize subject.safetensors fc8:2 --rate 1 --set rate=2": "rate is given twice",
    # the others
    "reconstruct photos/train/ant/0.png --prior generator.safetensors --set a=1": (
        "--set does not apply to --prior generator.safetensors"
    ),
    "reconstruct photos/train/ant/0.png --prior generator.safetensors --encoder other": "inverts",
    "atlas run --port 9000": "--port does not apply",
    "atlas --serve --title x": "--title does not apply",
    "claims C1 --objects photos --scenes photos": "--scenes does not apply to the claims C1",
    "claims C1 C5 --objects photos --scenes photos --outlined photos": (
        "--scenes, --outlined do not"
    ),
    "zoo verify --device cpu": "--device does not apply",
}


@pytest.mark.parametrize("command", REFUSED)
def test_an_option_that_does_not_apply_is_refused(
    phosphene: Run, there: Path, command: str
) -> None:
    assert REFUSED[command] in phosphene(*command.split()).refused()


def test_options_that_apply_are_taken(phosphene: Run, there: Path) -> None:
    """The record's own subject may be named, by another path too, and the machine chosen."""
    for subject in ("subject.safetensors", there / "subject.safetensors"):
        again = ("synthesize", subject, "--record", "record.json", "--device", "cpu")
        assert phosphene(*again, "--out", "again", "--json").json()[0]["status"] == "climbed"
    phosphene(*PICTURES.split(), "--subject", there / "subject.safetensors", "--json").json()
