"""Sets of pictures: a simple cell has one preferred input, a complex cell has every phase."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Run
from torch import Tensor, nn

import phosphene
from phosphene.errors import BadRequest
from phosphene.forms import Record
from phosphene.metrics import diversity_index
from phosphene.subjects import Subject
from phosphene.testing import tiny_generated, tiny_subject

SIDE = 16


def gabor(phase: float) -> Tensor:
    """Return a Gabor function of this phase, (SIDE, SIDE), of length 1."""
    rows = torch.arange(SIDE)[:, None] - (SIDE - 1) / 2
    columns = torch.arange(SIDE) - (SIDE - 1) / 2
    wave = torch.cos(columns * 2 * torch.pi / 6 + phase)
    made = wave * torch.exp(-(rows**2 + columns**2) / 18)
    return made / made.norm()


class Cells(nn.Module):
    """A simple cell, a Gabor filter; and a complex one, the energy of two of opposite phase."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, 2, SIDE, bias=False)
        self.filters.weight.data = torch.stack([gabor(0), gabor(torch.pi / 2)])[:, None]
        self.cells = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        even, odd = self.filters(images).flatten(1).unbind(1)
        return self.cells(torch.stack([even, (even**2 + odd**2 + 1e-9).sqrt()], 1))


@pytest.fixture(scope="module")
def subject() -> Subject:
    network = Cells().eval().requires_grad_(False)
    return phosphene.wrap(network, size=(SIDE, SIDE), mean=0.5, std=0.25)


def test_the_index_is_zero_for_a_simple_cell_and_one_for_a_complex_cell(subject: Subject) -> None:
    torch.manual_seed(1)
    weight = gabor(0).flatten()
    noise = nn.functional.normalize(torch.randn(6, SIDE * SIDE), dim=1)
    near = nn.functional.normalize(weight + 0.5 * noise, dim=1)
    assert diversity_index(near, near @ weight, 1.0) == pytest.approx(0, abs=0.02)
    assert diversity_index(weight.expand(4, -1), torch.ones(4), 1.0) == pytest.approx(0)
    phases = torch.stack([gabor(2 * torch.pi * n / 8).flatten() for n in range(8)])
    with torch.no_grad():
        energies = subject.network(phases.view(8, 1, SIDE, SIDE))[:, 1]
    assert diversity_index(phases, energies, 1.0) == pytest.approx(1, abs=0.01)


HOW = {"prior": "pixels", "norm": 8.0, "tv": 0.0, "steps": 100, "tries": 1, "seeds": range(4)}


def test_a_set_of_a_simple_cell_collapses_and_of_a_complex_cell_takes_all_phases(
    subject: Subject,
) -> None:
    simple = phosphene.synthesize(subject, "cells:0", share=0.85, **HOW)
    complex_ = phosphene.synthesize(subject, "cells:1", share=0.85, **HOW)
    assert simple.sets[0]["diversity"] < 0.1
    assert complex_.sets[0]["diversity"] > 0.9
    for result in (simple, complex_):
        best = result.sets[0]["best"]
        assert best == pytest.approx(8, rel=0.02), "the norm, for filters of length 1"
        assert (result.scores >= 0.85 * best - 1e-4).all()
        assert all(stimulus["norm"] == pytest.approx(8, abs=0.1) for stimulus in result.stimuli)
    alike = nn.functional.cosine_similarity(
        complex_.inputs[:1].flatten(1) - 0.5, complex_.inputs[1:].flatten(1) - 0.5, dim=1
    )
    assert (alike < 0.5).all(), "the first differs from every other"


def test_pictures_may_differ_in_a_layer(subject: Subject) -> None:
    result = phosphene.synthesize(subject, "cells:1", share=0.85, differ="filters", **HOW)
    with torch.no_grad():
        filtered = subject.network.filters(subject.prepare(result.inputs)).flatten(1)
    angles = nn.functional.normalize(filtered, dim=1)
    alike = (angles @ angles.T - 2 * torch.eye(4)).amax(1)
    assert (alike < 0.35).all(), "four phases, a right angle apart"
    with pytest.raises(phosphene.errors.UnknownName, match="no layer 'fc9'"):
        phosphene.synthesize(subject, "cells:1", share=0.85, differ="fc9", **HOW)


def test_a_set_needs_a_gradient() -> None:
    how = {"prior": tiny_generated(), "climb": "evolution", "steps": 2}
    with pytest.raises(BadRequest, match="share moves pictures apart along a gradient"):
        phosphene.synthesize(tiny_subject(), "fc:1", share=0.85, **how)


def test_a_generator_draws_a_set_as_well() -> None:
    how = {"prior": tiny_generated(), "steps": 40, "seeds": range(3)}
    plain = phosphene.synthesize(tiny_subject(), "fc:1", **how)
    result = phosphene.synthesize(tiny_subject(), "fc:1", share=0.7, **how)
    assert result.sets[0]["best"] == pytest.approx(float(plain.scores.max()), abs=1e-4)
    assert (result.scores >= 0.7 * plain.scores.max() - 1e-4).all()
    pairs = ((0, 1), (0, 2), (1, 2))
    gaps = [[float((r.images[i] - r.images[j]).norm()) for i, j in pairs] for r in (plain, result)]
    assert min(gaps[1]) > min(gaps[0])


def test_the_command_writes_a_set_whose_records_make_the_same_bits(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    climb = ("--prior", "pixels", "--steps", 8, "--precision", "float32", "--device", "cpu")
    command = ("synthesize", zoo / "subject.safetensors", "fc8:1-2", *climb, "--diverse", 3)
    made = phosphene(*command, "--out", tmp_path / "out", "--json").json()
    assert [each["set"]["pictures"] for each in made] == [3] * 6
    for each in made:
        best = each["set"]["best"]
        assert each["score"] >= best - 0.15 * abs(best) - 1e-5
    record = Path(made[4]["image"]).with_suffix(".json")
    assert Record.read(record).request["climb"]["share"] == 0.85
    again = phosphene("synthesize", "--record", record, "--out", tmp_path / "again")
    assert again.fine()
    assert again.err == "", "the same bits"
    assert "kept 6 pictures" in phosphene(*command, "--out", tmp_path / "out").err


def test_a_set_differs_only_where_the_unit_looks() -> None:
    network = nn.Sequential(nn.ZeroPad2d((0, -SIDE, 0, 0)), Cells()).eval().requires_grad_(False)
    wide = phosphene.wrap(network, size=(SIDE, 2 * SIDE), channels=1, mean=0.5, std=0.25)
    result = phosphene.synthesize(wide, "1.cells:1", share=0.85, **HOW)
    seen = result.inputs[..., :SIDE] - 0.5
    beside = result.inputs[..., SIDE + 2 :] - 0.5
    assert result.sets[0]["diversity"] > 0.9
    assert beside.std() < 0.2 * seen.std()
