"""Parts from outside the package climb, their records make the same bits, no code runs unasked."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image

import phosphene
from phosphene.constraints import CONSTRAINTS
from phosphene.errors import BadRequest
from phosphene.forms import Record
from phosphene.objectives import Objective
from phosphene.optimizers import Optimizer
from phosphene.parts import built_in
from phosphene.priors import Prior
from phosphene.synthesis import Climb
from phosphene.testing import tiny_generated, tiny_subject

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
FILE = re.compile(r"<!-- file: (?P<name>\w+)\.py -->\n```python\n(?P<text>.*?)^```$", re.M | re.S)
PARTS = {each["name"]: each["text"] for each in FILE.finditer(PAGE.read_text(encoding="utf-8"))}
"""The page's examples by the names of their files."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the page's examples into the current folder, under names of this test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in PARTS.items():
        (tmp_path / f"own_{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"own_{name}", raising=False)
    return tmp_path


def test_every_example_is_short_and_needs_no_other_file() -> None:
    assert PARTS.keys() == {
        "gan",
        "taesd",
        "contrast",
        "both",
        "evolution",
        "gradients",
        "activity",
    }
    code = {
        name: [
            line for line in text.splitlines() if line and not line.startswith(("import", "from"))
        ]
        for name, text in PARTS.items()
    }
    assert {name: len(lines) for name, lines in code.items() if len(lines) > 25} == {}


PRIOR = ("--prior", "python:own_gan:Gan", "--set", "width=8")
OBJECTIVE = ("--objective", "python:own_contrast:contrast", "--set", "weight=0.5")
SEARCH = ("--optimizer", "python:own_evolution:Evolution", "--set", "candidates=3")


@pytest.mark.parametrize("own", [PRIOR, OBJECTIVE, SEARCH], ids=lambda own: own[0])
def test_a_record_runs_code_only_where_it_is_named(
    phosphene: Run, zoo: Path, there: Path, own: tuple[str, ...]
) -> None:
    subject = zoo / "subject.safetensors"
    prior = () if own == PRIOR else ("--prior", zoo / "generator.safetensors")
    climb = ("synthesize", subject, "fc8:1", "--steps", 3, "--precision", "float32")
    (made,) = phosphene(*climb, *prior, *own, "--out", "out", "--json").json()
    record = Path(made["image"]).with_suffix(".json")
    module = own[1].split(":")[1]
    del sys.modules[module]
    said = phosphene("synthesize", "--record", record, "--out", "again").refused()
    assert f"would run '{own[1]}', which is code" in said
    assert f"--trust {own[1]}" in said
    assert f"(then in {there / module}.py)" in said
    assert module not in sys.modules
    again = phosphene("synthesize", "--record", record, "--out", "again", "--trust", own[1])
    assert again.fine()
    assert again.err == "", "the same bits"
    kept = Record.read(record)
    assert kept.command == f"phosphene synthesize --trust {own[1]} --record {record.name}"
    name, _, value = own[3].partition("=")
    options = {**kept.request["climb"]["options"], **kept.request["prior_options"]}
    assert options[name] == float(value)


def test_reconstruct_takes_a_prior_from_outside(
    phosphene: Run, there: Path, tmp_path: Path
) -> None:
    """A prior that draws what it encodes loses nothing but what 8 bits round."""
    there.joinpath("own_copy.py").write_text(COPY)
    photograph = tmp_path / "p.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(
        photograph
    )
    command = ("reconstruct", photograph, "--prior", "python:own_copy:Copy", "--out", "r.png")
    assert phosphene(*command, "--json").json()["mean_absolute_error"] < 1e-6
    half = phosphene(*command, "--set", "share=0.5", "--json").json()["mean_absolute_error"]
    assert half == pytest.approx(0.25, abs=0.02), "half of the mean of uniform pixels"
    assert "no setting 'sare'; near: share" in phosphene(*command, "--set", "sare=1").refused()
    assert "--encoder does not apply" in phosphene(*command, "--encoder", "x").refused()
    own = ("reconstruct", photograph, *PRIOR, "--out", "r.png")
    assert "this prior has no encoder" in phosphene(*own).refused()


COPY = """
import torch
from phosphene.code_statistics import CodeStatistics
from phosphene.priors import Prior

class Copy(Prior):
    def __init__(self, share: float = 1.0):
        self.share, self.size = share, (15, 20)
        self.statistics = CodeStatistics.standard(3, 15, 20)

    def images(self, codes):
        return codes.sigmoid() * self.share

    def encode(self, image):
        return torch.logit(image, 1e-9)
"""


def test_pictures_of_a_prior_that_is_code_are_measured_only_where_it_is_named(
    phosphene: Run, zoo: Path, there: Path
) -> None:
    subject = zoo / "subject.safetensors"
    climb = ("synthesize", subject, "fc8:1", "--steps", 1, "--precision", "float32")
    phosphene(*climb, *PRIOR, "--out", "out").fine()
    evaluate = ("evaluate", "out", "--judge", subject)
    assert "would run 'python:own_gan:Gan'" in phosphene(*evaluate).refused()
    phosphene(*evaluate, "--trust", PRIOR[1]).fine()


class Steps(Optimizer):
    """A search without gradients whose candidates are the code and the code plus a tenth."""

    uses_gradient = False

    def begin(self, codes: torch.Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        self.codes = codes

    def ask(self) -> torch.Tensor:
        return torch.stack([self.codes, self.codes + 0.1], 1)

    def tell(self, codes: torch.Tensor, scores: torch.Tensor, gradient: Any) -> None:
        with pytest.raises(BadRequest, match="uses no gradient"):
            gradient()
        self.codes = codes[torch.arange(len(codes)), scores.argmax(1)]

    def current(self) -> torch.Tensor:
        return self.codes


def test_a_search_without_gradients_takes_the_better_candidate_of_each_member() -> None:
    how = Climb.of(optimizer=Steps, constraint="none", decay=1.0, steps=6, tries=1)
    subject, prior = tiny_subject(), tiny_generated()
    together = phosphene.synthesize(subject, "fc:0-3", prior=prior, climb=how)
    assert (together.curves.diff(dim=1) >= 0).all(), "the best so far is tried again"
    assert (together.scores >= together.start_scores).all()
    alone = phosphene.synthesize(subject, "fc:2", prior=prior, climb=how)
    torch.testing.assert_close(alone.codes[0], together.codes[2])


def test_a_part_of_another_kind_is_refused_in_one_line(there: Path) -> None:
    subject, prior = tiny_subject(), tiny_generated()
    for given, words in (
        (
            {"optimizer": "python:own_contrast:contrast"},
            "optimizer python:own_contrast:contrast raised TypeError",
        ),
        ({"objective": "loudness"}, "there are: activation, cosine, probability, python:MODULE"),
        ({"optimizer": Steps, "cycle": 0.5}, "cycle is for optimizers that follow a gradient"),
    ):
        with pytest.raises(BadRequest, match=re.escape(words)):
            phosphene.synthesize(subject, "fc:0", prior=prior, **given)


def test_an_objective_of_another_form_is_refused_in_one_line() -> None:
    def wrong(activations: Any, target: Any) -> torch.Tensor:
        return activations["fc"]

    with pytest.raises(BadRequest, match=r"tensor of one number; wrong returned \(10,\)"):
        phosphene.synthesize(tiny_subject(), "fc:0", prior=tiny_generated(), objective=wrong)


@pytest.mark.parametrize(
    ("package", "kind"),
    [("phosphene.objectives", Objective), ("phosphene.optimizers", Optimizer)],
)
def test_every_file_of_a_folder_holds_the_part_that_it_is_called_after(
    package: str, kind: type
) -> None:
    from phosphene.factories import load_part

    for name in built_in(package):
        part = load_part(package, "part", name)
        assert issubclass(part, kind)
        assert part.__doc__
    assert CONSTRAINTS.keys() == {"gaussian", "box", "none"}
