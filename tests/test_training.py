"""Training: a killed run ends as another does, recipes are not mixed, a budget is kept."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CI_SAMPLE, Run
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from phosphene import datasets, weights
from phosphene.datasets import Photographs
from phosphene.errors import BadFile, BadRequest, Notice, OutOfSpace, PhospheneError, UnknownName
from phosphene.networks import build
from phosphene.networks.discriminator import Discriminator
from phosphene.notebook import synthesize
from phosphene.priors import Generated, encode, load_generated
from phosphene.runtime import Processes, Runtime, deadline_in, silent
from phosphene.subjects import Subject, load_subject
from phosphene.synthesis import CLIMBS
from phosphene.tensors import as_images, center_crop, resized
from phosphene.testing import CLASSES, GENERATOR_ARCHITECTURE, IMAGE, VIEW, lively, write_subject
from phosphene.training import run as runs
from phosphene.training import verify
from phosphene.training.adversary import Adversary
from phosphene.training.augment import jitter_colours, mixed, random_crops
from phosphene.training.components import shown, with_components
from phosphene.training.generator import (
    Trained,
    generator_card,
    held_out_errors,
    train_generator,
)
from phosphene.training.image import class_kl, extrapolated_codes
from phosphene.training.initialization import initialize_map, initialized
from phosphene.training.inversion import Inversion, with_code
from phosphene.training.latents import Views, regress, whiten, whiten_code
from phosphene.training.modified import with_modified
from phosphene.training.optimization import (
    Averaged,
    cosine_decay,
    epoch_order,
    one_cycle,
    seeded,
)
from phosphene.training.recipes import RECIPES, check_complete, read_recipe, recipe_hash
from phosphene.training.run import RunFolder
from phosphene.training.subject import accuracy, subject_card, train_subject
from phosphene.training.translation import translation_of

SUBJECT: dict[str, Any] = {
    **read_recipe("caffenet-objects"),
    "architecture": {"name": "caffenet", "classes": 10, "width": 16, "dropout": 0.5},
    "epochs": 2,
    "batch": 16,
    "sizes": [[0.0, 12], [0.5, 16]],
    "mixup": 0.2,
    "evaluate_every": 1,
    "cooldown": {"epochs": 1, "crop": [0.9, 1.0], "lr": 0.01},
}
"""Two epochs and a cooldown of two steps each on 40 photographs: six steps."""

GENERATOR: dict[str, Any] = copy.deepcopy(dict(read_recipe("objects-fc6")))
GENERATOR["architecture"] = GENERATOR_ARCHITECTURE
GENERATOR["autoencoder"] |= {
    "encoder": [8, 8, 8],
    "batch": 4,
    "steps": 3,
    "crop": 16,
    "layers": ["conv1"],
}
GENERATOR["code_regressor"] |= {"widths": [8, 8], "batch": 4, "steps": 2}
GENERATOR["latent"] |= {
    "width": 8,
    "halvings": [1, 1, 0],
    "batch": 4,
    "steps": 4,
    "adversarial_from": 1,
    "r1_every": 2,
}
GENERATOR["image"] |= {
    "width": 8,
    "layers": ["conv1"],
    "comparator": "",
    "comparator_layers": [],
    "discriminator_layers": ["conv1"],
    "halvings": [3, 1],
    "batch": 4,
    "steps": 3,
    "r1_every": 2,
    "class_kl": 0.0,
    "extrapolated": 0.0,
}
"""Three, two, four and three steps."""


class Killed(BaseException):
    """What cannot be caught: nothing is saved on the way out."""


Make = Callable[[int, int], Photographs]
Bits = dict[str, Tensor]

pytestmark = pytest.mark.training


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setitem(RunFolder.steps.__kwdefaults__, "every", -1.0)


@pytest.fixture
def after_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Do something at the end of the n-th step from now, before its checkpoint is written."""
    plain, left = Averaged.update, [0, lambda: None]

    def update(self: Averaged, network: nn.Module, steps: int) -> None:
        plain(self, network, steps)
        left[0] -= 1  # type: ignore[operator]
        if left[0] == 0:
            left[1]()  # type: ignore[operator]

    monkeypatch.setattr(Averaged, "update", update)

    def arm(n: int, deed: Callable[[], None]) -> None:
        left[:] = [n, deed]

    return arm


def kill() -> None:
    raise Killed


@pytest.fixture
def encoder() -> Subject:
    network = lively(build({"name": "caffenet", "classes": 10, "width": 16}))
    return Subject(
        "tiny",
        network,
        (VIEW, VIEW),
        (0.5,) * 3,
        (0.25,) * 3,
        tuple("abcdefghij"),
        "fc8",
        {"sha256": "e"},
    )


def runtime_of(folder: Path, options: dict[str, Any]) -> Runtime:
    """Return the runtime of some options.

    These are the seconds of a `time_budget`, and who hears of the `report`.
    """
    deadline = deadline_in(options.pop("time_budget", None))
    return Runtime(folder, deadline=deadline, progress=options.pop("report", silent))


def subject_bits(folder: Path, photographs: Make, **options: Any) -> tuple[Bits, RunFolder, bool]:
    runtime = runtime_of(folder, options)
    network, run, finished = train_subject(
        SUBJECT, photographs(40, 16), photographs(10, 16), runtime, **options
    )
    return network.state_dict(), run, finished


def generator_bits(
    folder: Path, encoder: Subject, photographs: Make, **options: Any
) -> tuple[Bits, Trained]:
    runtime = runtime_of(folder, options)
    trained = train_generator(GENERATOR, encoder, photographs(12, 16), runtime, **options)
    bits = {f"generator.{name}": value for name, value in trained.generator.state_dict().items()}
    bits |= {f"code.{name}": value for name, value in trained.statistics.items()}
    for helper, network in trained.helpers.items():
        bits |= {f"{helper}.{name}": value for name, value in network.state_dict().items()}
    return bits, trained


def same(one: Bits, other: Bits) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- killed and resumed


@pytest.mark.usefixtures("every_step")
def test_a_subject_killed_at_any_step_ends_with_the_same_bits(
    tmp_path: Path, photographs: Make, after_steps: Callable[[int, Callable[[], None]], None]
) -> None:
    whole, run, finished = subject_bits(tmp_path / "whole", photographs)
    assert finished
    assert [entry["step"] for entry in run.history] == [2, 4, 6]
    for steps in ([1], [6], [2, 1, 2]):
        folder = tmp_path / str(steps)
        for n in steps:
            after_steps(n, kill)
            with pytest.raises(Killed):
                subject_bits(folder, photographs)
        again, resumed, finished = subject_bits(folder, photographs)
        assert finished
        assert same(again, whole), f"killed after {steps}"
        assert resumed.history == run.history


def test_a_subject_killed_before_its_first_checkpoint_begins_again(
    tmp_path: Path, photographs: Make, after_steps: Callable[[int, Callable[[], None]], None]
) -> None:
    after_steps(4, kill)
    with pytest.raises(Killed):
        subject_bits(tmp_path / "a", photographs)
    again, _, _ = subject_bits(tmp_path / "a", photographs)
    assert same(again, subject_bits(tmp_path / "b", photographs)[0])


@pytest.mark.usefixtures("every_step")
def test_a_generator_killed_in_any_stage_ends_with_the_same_bits(
    tmp_path: Path,
    photographs: Make,
    encoder: Subject,
    after_steps: Callable[[int, Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, trained = generator_bits(tmp_path / "whole", encoder, photographs)
    assert trained.finished
    assert all(value.isfinite().all() for value in whole.values())
    for steps in ([3], [4], [7], [10], [1, 2, 2, 1, 3]):
        folder = tmp_path / str(steps)
        for n in steps:
            after_steps(n, kill)
            with pytest.raises(Killed):
                generator_bits(folder, encoder, photographs)
        again, trained = generator_bits(folder, encoder, photographs)
        assert trained.finished
        assert same(again, whole), f"killed after {steps}"


def test_a_cache_of_views_cut_short_by_a_kill_is_not_believed(
    tmp_path: Path, photographs: Make, encoder: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(tensors: Any, file: Path, about: Any) -> None:
        Path(file).write_bytes(b"half a file")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", half)
        with pytest.raises(Killed):
            generator_bits(tmp_path / "a", encoder, photographs)
    again, _ = generator_bits(tmp_path / "a", encoder, photographs)
    assert same(again, generator_bits(tmp_path / "b", encoder, photographs)[0])


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
@pytest.mark.parametrize("kind", ["subject", "generator"])
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_file(
    tmp_path: Path, kind: str
) -> None:
    recipe, encoder = tmp_path / "tiny.toml", write_subject(tmp_path / "encoder.safetensors")
    subject = {**SUBJECT, "batch": 20, "epochs": 6, "evaluate_every": 3}
    generator = {**GENERATOR, "image": {**GENERATOR["image"], "steps": 40}}
    recipe.write_text(toml(subject if kind == "subject" else generator))
    data = (
        ["--data", CI_SAMPLE]
        if kind == "subject"
        else ["--images", CI_SAMPLE, "--encoder", encoder]
    )
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    command = [*map(str, (sys.executable, script, kind, recipe, *data)), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    checkpoints = [
        line.rpartition("step ")[2] for line in done.stdout.splitlines() if line.startswith("kill")
    ]
    assert len(checkpoints) == 10
    least = 2 if kind == "subject" else 1
    assert len(set(checkpoints)) > least, f"some came within the run: {checkpoints}"


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("change", [{"optimizer": "adamw"}, {"schedule": "cosine"}], ids=str)
def test_other_ways_to_train_differ_and_resume_to_the_same_bits(
    tmp_path: Path, photographs: Make, after_steps: Any, change: dict[str, Any]
) -> None:
    train = partial(train_subject, {**SUBJECT, **change}, photographs(40, 16), photographs(10, 16))
    whole = train(tmp_path / "whole")[0].state_dict()
    assert not same(whole, subject_bits(tmp_path / "plain", photographs)[0])
    after_steps(3, kill)
    with pytest.raises(Killed):
        train(tmp_path / "killed")
    assert same(train(tmp_path / "killed")[0].state_dict(), whole)


@pytest.mark.parametrize("key", ["optimizer", "schedule"])
def test_a_way_to_train_that_is_not_known_is_refused(
    tmp_path: Path, photographs: Make, key: str
) -> None:
    with pytest.raises(BadRequest, match=f"the recipe's {key} is 'best'; there are: "):
        train_subject({**SUBJECT, key: "best"}, photographs(40, 16), photographs(10, 16), tmp_path)


@pytest.mark.usefixtures("every_step")
def test_a_trained_subject_is_trained_on(
    tmp_path: Path, photographs: Make, after_steps: Any
) -> None:
    """A subject begins from another's weights, to the same bits.

    With other classes all but its last layer is kept. Another shape is refused.
    """
    init_from = load_subject(write_subject(tmp_path / "s.safetensors"))
    still = {**SUBJECT, "lr": 0.0, "cooldown": {**SUBJECT["cooldown"], "lr": 0.0}}
    few = {**still, "architecture": {**SUBJECT["architecture"], "classes": 12}}
    for recipe, kept in ((still, True), (few, False)):
        folder = tmp_path / str(kept)
        network, _, _ = train_subject(
            recipe, photographs(40, 16), photographs(10, 16), folder, init_from=init_from
        )
        ours, theirs = network.state_dict(), init_from.network.state_dict()
        changed = {
            name
            for name in ours
            if name.endswith("weight") and not torch.equal(ours[name], theirs[name])
        }
        assert changed == (set() if kept else {"fc8.weight"})
    whole, _, _ = subject_bits(tmp_path / "whole", photographs, init_from=init_from)
    after_steps(3, kill)
    with pytest.raises(Killed):
        subject_bits(tmp_path / "killed", photographs, init_from=init_from)
    with pytest.raises(BadRequest, match="another recipe"):
        subject_bits(tmp_path / "killed", photographs)
    assert same(subject_bits(tmp_path / "killed", photographs, init_from=init_from)[0], whole)
    other = {**SUBJECT, "architecture": {**SUBJECT["architecture"], "width": 32}}
    with pytest.raises(BadRequest, match="another architecture"):
        train_subject(
            other, photographs(40, 16), photographs(10, 16), tmp_path / "other", init_from=init_from
        )


def test_snapshots_are_the_network_as_it_was(tmp_path: Path, photographs: Make) -> None:
    taken: dict[float, Bits] = {}
    whole, _, finished = train_subject(
        {**SUBJECT, "snapshots": [0.5, 1.0]},
        photographs(40, 16),
        photographs(10, 16),
        tmp_path,
        snapshot=lambda share, network: taken.update({share: network.state_dict()}),
    )
    assert finished
    assert list(taken) == [0.5, 1.0]
    assert same(taken[1.0], whole.state_dict())
    assert not same(taken[0.5], whole.state_dict())


@pytest.mark.usefixtures("every_step")
def test_a_second_network_compares_and_judges(
    tmp_path: Path,
    encoder: Subject,
    photographs: Make,
    after_steps: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a comparator, resumed to the same bits; its maps are seen at the generator's size."""
    comparator = write_subject(tmp_path / "comparator.safetensors")
    image = {
        **GENERATOR["image"],
        "comparator": str(comparator),
        "comparator_layers": ["conv2"],
        "discriminator_layers": ["conv2"],
    }
    monkeypatch.setitem(GENERATOR, "image", image)
    whole, trained = generator_bits(tmp_path / "whole", encoder, photographs)
    assert trained.helpers["image_discriminator"].heads[1].body[0].in_channels == 192
    monkeypatch.setitem(
        GENERATOR, "image", {**image, "comparator_size": 2 * GENERATOR_ARCHITECTURE["size"]}
    )
    assert not same(generator_bits(tmp_path / "larger", encoder, photographs)[0], whole), (
        "it sees them larger"
    )
    monkeypatch.setitem(GENERATOR, "image", image)
    after_steps(11, kill)  # in the last stage
    with pytest.raises(Killed):
        generator_bits(tmp_path / "killed", encoder, photographs)
    assert same(generator_bits(tmp_path / "killed", encoder, photographs)[0], whole)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"discriminator_layers": ["conv9"]}, "no layer 'conv9'"),
        ({"halvings": [3]}, "halvings has one number for the image"),
        ({"halvings": [3, 9]}, "halved 9 times"),
        ({"discriminator_layers": ["fc6"]}, "fc6 is of 16 "),
        ({"comparator_layers": ["conv9"]}, "no layer 'conv9'"),
        ({"layers": ["conv9"]}, "no layer 'conv9'"),
        ({"comparator_size": 2}, "2 pixels"),
    ],
    ids=str,
)
def test_a_last_stage_that_cannot_be_is_told_before_the_first(
    tmp_path: Path,
    encoder: Subject,
    photographs: Make,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    told: str,
) -> None:
    comparator = write_subject(tmp_path / "tiny.safetensors")
    image = {
        **GENERATOR["image"],
        "comparator": str(comparator),
        "comparator_layers": ["conv2"],
        **change,
    }
    monkeypatch.setitem(GENERATOR, "image", image)
    with pytest.raises((BadRequest, UnknownName), match=told):
        generator_bits(tmp_path / "run", encoder, photographs)
    assert not (tmp_path / "run").exists()


def test_the_last_stage_compiles_whole(
    tmp_path: Path, encoder: Subject, photographs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU runs, hooks and all, is one graph that gives the same; no kernels here."""
    other = {
        "class_kl": 0.5,
        "comparator": str(write_subject(tmp_path / "comparator.safetensors")),
        "comparator_layers": ["conv2"],
    }
    monkeypatch.setitem(GENERATOR, "image", {**GENERATOR["image"], "extrapolated": 0.5, **other})
    told: list[dict[str, float]] = []
    report = lambda step, steps, figures: told.append(figures)  # noqa: E731
    generator_bits(tmp_path / "plain", encoder, photographs, report=report)
    compiled = []

    def whole(function: Any, device: str) -> Any:
        compiled.append(function)
        return torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=False)

    monkeypatch.setattr("phosphene.training.image.compiled", whole)
    generator_bits(tmp_path / "compiled", encoder, photographs, report=report)
    plain, fused = (figures for figures in told if "class_kl" in figures)
    assert len(compiled) == 2
    for figure in ("image", "feature", "cycle", "class_kl", "loss"):
        assert fused[figure] == pytest.approx(plain[figure], rel=0.02), figure


@pytest.mark.usefixtures("every_step")
def test_codes_beyond_classes_named_and_falling_rates_resume_to_the_same_bits(
    tmp_path: Path,
    encoder: Subject,
    photographs: Make,
    after_steps: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each changes what is learnt, and a recipe whose rates fall is another when it is longer."""
    plain, _ = generator_bits(tmp_path / "plain", encoder, photographs)
    ends, image = [plain["generator.decoder.last.weight"]], GENERATOR["image"]
    other = {
        "class_kl": 0.5,
        "comparator": str(write_subject(tmp_path / "comparator.safetensors")),
        "comparator_layers": ["conv2"],
    }
    for change in (
        {"extrapolated": 0.5},
        {"cosine_decay": 1.0},
        {"class_kl": 0.5},
        other,
        {"extrapolated": 0.5, "cosine_decay": 1.0, "class_kl": 0.5},
    ):
        monkeypatch.setitem(GENERATOR, "image", {**image, **change})
        bits, _ = generator_bits(tmp_path / str(len(ends)), encoder, photographs)
        assert not any(torch.equal(bits["generator.decoder.last.weight"], end) for end in ends), (
            change
        )
        ends.append(bits["generator.decoder.last.weight"])
    after_steps(11, kill)  # in the last stage
    with pytest.raises(Killed):
        generator_bits(tmp_path / "killed", encoder, photographs)
    assert same(generator_bits(tmp_path / "killed", encoder, photographs)[0], bits)
    monkeypatch.setitem(GENERATOR, "image", {**GENERATOR["image"], "steps": 4})
    with pytest.raises(BadRequest, match="another recipe"):
        generator_bits(tmp_path / "killed", encoder, photographs)


@pytest.mark.parametrize("shape", [(7,), (3, 2, 4)], ids=["vector", "map"])
def test_codes_beyond_lie_between_and_beyond_those_of_photographs(shape: tuple[int, ...]) -> None:
    codes = torch.randn(16, *shape, generator=seeded(0)).relu()
    made = extrapolated_codes(codes, 0.5, seeded(1))
    assert made.shape == (8, *shape)
    assert torch.equal(made, extrapolated_codes(codes, 0.5, seeded(1)))
    assert made.min() >= 0, "codes after a ReLU stay so"
    assert len(extrapolated_codes(codes, 0.0, seeded(1))) == 0
    line = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # all mixtures lie on the line through both
    spread = extrapolated_codes(line, 500.0, seeded(2))
    torch.testing.assert_close(spread[:, 1], torch.maximum(2 * spread[:, 0], torch.tensor(2.0)))
    assert spread[:, 0].max() > 3.2, "further out than either"
    assert spread[:, 0].max() <= 2 + 1.5, "by up to half of the distance from the mean"


def test_misnamed_is_the_divergence_of_classes() -> None:
    wanted = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    assert class_kl(wanted + 5, wanted).item() == pytest.approx(0.0, abs=1e-6), (
        "logits mean the same, moved together"
    )
    got = torch.tensor(
        [[math.log(3.0), 0.0], [3.0, 1.0]]
    )  # classes ¾ and ¼, where both should have a half
    assert class_kl(got, wanted).item() == pytest.approx(math.log(2 / math.sqrt(3)) / 2)


def test_rates_fall_in_a_cosine_over_the_last_share_of_the_steps() -> None:
    shares = [cosine_decay(0.5, step / 100) for step in range(101)]
    assert shares[:51] == [1.0] * 51
    assert shares[75] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0.0)
    assert shares == sorted(shares, reverse=True)
    assert cosine_decay(0.0, 0.99) == 1.0


def test_of_codes_beyond_only_the_generator_learns() -> None:
    """The discriminator ends as it would without them, whatever their images are."""

    def judged_by(extra: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        discriminator = Discriminator([(3, 1)], 5, 4)
        generator = nn.Parameter(torch.rand(4 + extra, 3, 8, 8, generator=seeded(3)))
        generator_optimizer, judge = (
            torch.optim.SGD(who, lr=0.1) for who in ([generator], discriminator.parameters())
        )
        code, x = (
            torch.rand(4 + extra, 5, generator=seeded(4)),
            torch.rand(4, 3, 8, 8, generator=seeded(5)),
        )
        stage = {
            "lr": 0.1,
            "lr_discriminator": 0.1,
            "adversarial": 1.0,
            "r1": 0.3,
            "r1_every": 1,
            "steps": 1,
        }
        loss = generator.sum() * 0
        adversary = Adversary(stage, discriminator, generator_optimizer, judge, Runtime(Path()))
        adversary.step(0, loss, [x], [generator], code)
        moved = generator.detach() - torch.rand(4 + extra, 3, 8, 8, generator=seeded(3))
        return torch.cat([p.detach().flatten() for p in discriminator.parameters()]), moved

    without, _ = judged_by(0)
    with_them, moved = judged_by(3)
    torch.testing.assert_close(with_them, without)
    assert (moved.flatten(1).abs().amax(1) > 0).all(), "every image has learnt"


def test_a_finished_run_does_no_step_again(
    tmp_path: Path, photographs: Make, encoder: Subject
) -> None:
    first, _, _ = subject_bits(tmp_path / "s", photographs)
    seen: list[int] = []
    again, _, finished = subject_bits(
        tmp_path / "s", photographs, report=lambda step, *_: seen.append(step)
    )
    assert finished
    assert same(first, again)
    bits, _ = generator_bits(tmp_path / "g", encoder, photographs)
    more, trained = generator_bits(
        tmp_path / "g", encoder, photographs, report=lambda step, *_: seen.append(step)
    )
    assert trained.finished
    assert same(bits, more)
    assert seen == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_stops_and_is_resumed(
    tmp_path: Path,
    photographs: Make,
    after_steps: Callable[[int, Callable[[], None]], None],
    number: signal.Signals,
) -> None:
    handler = signal.getsignal(number)
    after_steps(3, lambda: os.kill(os.getpid(), number))
    _, run, finished = subject_bits(tmp_path / "a", photographs)
    assert not finished
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 3
    assert signal.getsignal(number) is handler, "the signal is given back"
    again, _, finished = subject_bits(tmp_path / "a", photographs)
    assert finished
    assert same(again, subject_bits(tmp_path / "b", photographs)[0])


def test_what_a_killed_run_logged_is_not_logged_twice(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    killed = RunFolder(Runtime(tmp_path), "one")
    killed.log(step=1, loss=0.5)
    killed.save({"network": network}, 1)
    killed.log(step=2, loss=0.25)
    again = RunFolder(Runtime(tmp_path), "one")
    assert again.load({"network": network}) == 1
    again.log(step=2, loss=0.25)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def strict_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a log as a strict reader of JSON takes them, which refuses NaN."""

    def strict(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line, parse_constant=strict) for line in lines]


@pytest.mark.parametrize("checks", ["every step, as on a CPU", "some steps, as on an accelerator"])
def test_the_first_step_whose_loss_is_not_finite_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checks: str
) -> None:
    run, done = RunFolder(Runtime(tmp_path), "one"), []
    if "accelerator" in checks:
        monkeypatch.setattr(RunFolder, "watch", note_only)
    with pytest.raises(BadRequest, match=r"at step 7 the loss is no longer .*; what was saved"):
        take_steps(run, lambda step: math.nan if step >= 6 else 1.0, done, log=True)
    assert done == [*range(7)]
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 1
    assert [line["step"] for line in strict_lines(tmp_path / "log.jsonl")] == [*range(6)]


def take_steps(
    run: RunFolder, loss: Callable[[int], float], done: list[int], log: bool = False
) -> None:
    """Take steps with these losses; `done` gets those that were begun."""
    for step in run.steps({"network": torch.nn.Linear(1, 1)}, 500, every=1e9):
        done.append(step)
        run.watch(torch.tensor(loss(step)))
        if log:
            run.log(step=step, loss=loss(step))


def note_only(run: RunFolder, loss: Tensor) -> None:
    """Watch a loss without reading the note, as where that would wait for an accelerator."""
    once = SimpleNamespace(processes=Processes(0, 2), _step=run._step, _diverged=run._diverged)
    plain_watch(once, loss)  # type: ignore[arg-type]
    run._diverged = once._diverged


plain_watch = RunFolder.watch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_watching_a_loss_does_not_wait_for_the_device(tmp_path: Path) -> None:
    run = RunFolder(Runtime(tmp_path), "one")
    loss = torch.tensor(math.nan, device="cuda")
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            run.watch(loss)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    with pytest.raises(BadRequest, match="at step 1 "):
        run.refuse_diverged()


def test_without_a_log_the_note_is_read_within_twenty_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "watch", note_only)
    run, done = RunFolder(Runtime(tmp_path), "one"), []
    with pytest.raises(BadRequest, match="at step 24 "):
        take_steps(run, lambda step: math.inf if step == 23 else 1.0, done)
    assert done == [*range(41)]
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 1, "none after the loss"


@pytest.mark.usefixtures("every_step")
def test_a_subject_that_diverges_stops_at_once_and_keeps_what_was_saved(
    tmp_path: Path, photographs: Make
) -> None:
    recipe = {**SUBJECT, "lr": 1e25}
    with pytest.raises(BadRequest, match=r"at step [2-6] the loss is no longer a finite") as told:
        train_subject(recipe, photographs(40, 16), photographs(10, 16), tmp_path)
    first = int(str(told.value).split()[2])
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == first - 1, "the last step before it"
    assert all(value.isfinite().all() for value in kept["network"].values())
    strict_lines(tmp_path / "log.jsonl")


@pytest.mark.parametrize("stage", ["autoencoder", "code_regressor", "latent", "image"])
def test_a_stage_that_diverges_stops_at_once(
    tmp_path: Path, encoder: Subject, photographs: Make, stage: str
) -> None:
    recipe = copy.deepcopy(GENERATOR)
    recipe[stage] |= {"lr": 1e30, "steps": 60, "adversarial_from": 50}
    with pytest.raises(BadRequest, match=r"at step [1-9] the loss is no longer"):
        train_generator(recipe, encoder, photographs(12, 16), tmp_path)
    strict_lines(tmp_path / stage / "log.jsonl")
    file = tmp_path / stage / "checkpoint.pt"
    kept = torch.load(file, weights_only=True) if file.exists() else {}
    numbers = [v for part in kept.values() if isinstance(part, dict) for v in part.values()]
    assert all(v.isfinite().all() for v in numbers if isinstance(v, Tensor))


@pytest.mark.parametrize("stage", ["latent", "image"])
def test_a_discriminator_that_diverges_stops_its_stage_at_once(
    tmp_path: Path, encoder: Subject, photographs: Make, stage: str
) -> None:
    recipe = copy.deepcopy(GENERATOR)
    recipe[stage] |= {"lr_discriminator": 1e30, "steps": 60}
    with pytest.raises(BadRequest, match=r"at step [1-9] the loss is no longer"):
        train_generator(recipe, encoder, photographs(12, 16), tmp_path)


def test_codes_that_half_precision_cannot_hold_are_told(
    tmp_path: Path, encoder: Subject, photographs: Make
) -> None:
    with torch.no_grad():
        encoder.network.get_parameter("fc6.linear.weight").mul_(1e7)
    with pytest.raises(BadRequest, match=r"layer fc6 gives numbers .* beyond ±65504"):
        train_generator(GENERATOR, encoder, photographs(12, 16), tmp_path)


def test_a_network_that_cuts_the_gradient_teaches_no_generator(
    tmp_path: Path, encoder: Subject, photographs: Make
) -> None:
    first = encoder.network.get_submodule("conv1")
    first.register_forward_hook(lambda module, inputs, output: output.detach())
    with pytest.raises(BadRequest, match=r"no gradient comes .* from conv1 .* lost (in|before) "):
        train_generator(GENERATOR, encoder, photographs(12, 16), tmp_path)


def test_a_second_control_c_leaves_at_once(
    tmp_path: Path, photographs: Make, after_steps: Any
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    after_steps(2, twice)
    with pytest.raises(KeyboardInterrupt):
        subject_bits(tmp_path, photographs)
    assert signal.getsignal(signal.SIGINT) is handler, "the signal is given back"


# ---------------------------------------------------------------- budgets


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that every step moves on by one second."""
    now = [0.0]
    plain = Averaged.update

    def update(self: Averaged, network: nn.Module, steps: int) -> None:
        plain(self, network, steps)
        now[0] += 1

    monkeypatch.setattr(Averaged, "update", update)
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    return now


def test_a_budget_ends_a_subjects_run_cleanly(
    tmp_path: Path, photographs: Make, clock: list[float]
) -> None:
    whole, _, _ = subject_bits(tmp_path / "whole", photographs)
    for budget, step in ((0.0, 0), (2.0, 2), (2.5, 5), (100.0, 6)):
        bits, run, finished = subject_bits(tmp_path / "run", photographs, time_budget=budget)
        assert torch.load(run.checkpoint, weights_only=True)["step"] == step
        assert finished == (step == 6)
    assert same(bits, whole)


def test_a_budget_covers_all_stages_of_a_generator(
    tmp_path: Path, photographs: Make, encoder: Subject, clock: list[float]
) -> None:
    whole, _ = generator_bits(tmp_path / "whole", encoder, photographs)
    with pytest.raises(BadRequest, match="what is done is kept"):
        generator_bits(tmp_path / "run", encoder, photographs, time_budget=2.0)
    bits, trained = generator_bits(tmp_path / "run", encoder, photographs, time_budget=3.0)
    assert not trained.finished
    assert all(value.isfinite().all() for value in bits.values()), "what there is can be used"
    bits, trained = generator_bits(tmp_path / "run", encoder, photographs, time_budget=4.0)
    assert not trained.finished
    bits, trained = generator_bits(tmp_path / "run", encoder, photographs, time_budget=4.0)
    assert trained.finished
    assert same(bits, whole)


# ---------------------------------------------------------------- what a run tells


def test_a_runs_figures_are_in_tensorboards_logs(tmp_path: Path, photographs: Make) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, run, _ = subject_bits(tmp_path, photographs)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")] == [
        (entry["step"], entry["loss"]) for entry in run.history
    ]


def test_a_generators_run_shows_held_out_photographs_and_ends_with_the_same_bits(
    tmp_path: Path, photographs: Make, encoder: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr("phosphene.training.gallery.EVERY", -1.0)
    plain, _ = generator_bits(tmp_path / "plain", encoder, photographs)
    looked_at, _ = generator_bits(
        tmp_path / "shown", encoder, photographs, held_out=photographs(5, 16)
    )
    assert same(plain, looked_at)
    assert not (tmp_path / "plain/image/pictures").exists()
    steps = GENERATOR["image"]["steps"]
    sheets = [
        tmp_path / f"shown/image/pictures/reconstructions-{step:06}.png" for step in range(steps)
    ]
    shown = [np.asarray(Image.open(sheet)).astype(float) for sheet in sheets]
    photograph, again = shown[-1][6:22, 6:22], shown[-1][46:62, 6:22]
    assert np.abs(photograph - again).mean() > 1
    assert (shown[0][6:22] == shown[-1][6:22]).all()
    assert (shown[0][46:62] != shown[-1][46:62]).any()


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    "change", [{"lr": 0.01}, {"seed": 1}, {"epochs": 3}, {"crop": [0.5, 1.0]}], ids=str
)
def test_a_subjects_run_refuses_another_recipe(
    tmp_path: Path, photographs: Make, change: dict[str, Any]
) -> None:
    subject_bits(tmp_path, photographs, time_budget=0.0)
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(BadRequest, match="another recipe or other data"):
        train_subject({**SUBJECT, **change}, photographs(40, 16), photographs(10, 16), tmp_path)
    with pytest.raises(BadRequest, match="another recipe or other data"):
        train_subject(SUBJECT, photographs(41, 16), photographs(10, 16), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("autoencoder", {"lr": 5e-3}),
        ("autoencoder", {"feature": 0.1}),
        ("latent", {"lr": 5e-3}),
        ("latent", {"adversarial": 0.9}),
        ("image", {"lr": 5e-3}),
        ("image", {"feature": 0.1}),
        ("views", {"number": 1}),
        ("architecture", {"hidden": 8}),
    ],
    ids=str,
)
def test_a_generators_run_refuses_another_recipe(
    tmp_path: Path, photographs: Make, encoder: Subject, part: str, change: dict[str, Any]
) -> None:
    generator_bits(tmp_path, encoder, photographs)
    other = {**GENERATOR, part: {**GENERATOR[part], **change}}
    with pytest.raises(BadRequest, match="another recipe or other data"):
        train_generator(other, encoder, photographs(12, 16), tmp_path)


def test_a_generators_run_refuses_another_encoder_and_other_data(
    tmp_path: Path, photographs: Make, encoder: Subject
) -> None:
    generator_bits(tmp_path, encoder, photographs, time_budget=1e9)
    other = replace(encoder, card={**encoder.card, "sha256": "another"})
    with pytest.raises(BadRequest, match="another recipe or other data"):
        generator_bits(tmp_path, other, photographs)
    with pytest.raises(BadRequest, match="another recipe or other data"):
        train_generator(GENERATOR, encoder, photographs(13, 16), tmp_path)


def test_a_generators_later_stages_go_on_with_more_steps(
    tmp_path: Path, photographs: Make, encoder: Subject
) -> None:
    """Their rates are constant, so that four steps and then two are six."""
    longer = {
        **GENERATOR,
        "latent": {**GENERATOR["latent"], "steps": 6},
        "image": {**GENERATOR["image"], "steps": 0},
    }
    shorter = {**longer, "latent": GENERATOR["latent"]}
    train_generator(shorter, encoder, photographs(12, 16), tmp_path / "a")
    grown = train_generator(
        longer, encoder, photographs(12, 16), tmp_path / "a"
    ).generator.state_dict()
    assert same(
        grown,
        train_generator(
            longer, encoder, photographs(12, 16), tmp_path / "b"
        ).generator.state_dict(),
    )


def published(
    file: Path, encoder: Subject, photographs: Make, trained: Trained
) -> tuple[Generated, weights.Weights]:
    """A trained generator and its discriminator, written and read again as files."""
    card = generator_card(
        "g", GENERATOR, encoder, photographs(12, 16), photographs(10, 16), trained
    )
    tensors = {f"network.{name}": value for name, value in trained.generator.state_dict().items()}
    tensors |= {f"code.{name}": value for name, value in trained.statistics.items()}
    weights.write(file, tensors, card)
    helpers = {
        f"{helper}.{name}": value
        for helper, network in trained.helpers.items()
        for name, value in network.state_dict().items()
    }
    weights.write(file.with_suffix(".discriminator"), helpers, {**card, "kind": "training"})
    return load_generated(file), weights.read(file.with_suffix(".discriminator"), "training")


@pytest.mark.usefixtures("every_step")
def test_a_published_generator_is_trained_on(
    tmp_path: Path,
    photographs: Make,
    encoder: Subject,
    after_steps: Callable[[int, Callable[[], None]], None],
) -> None:
    """Only the last stage runs, from the file's weights; killed, it ends with the same bits."""
    _, trained = generator_bits(tmp_path / "run", encoder, photographs)
    init_from, discriminator = published(tmp_path / "g.safetensors", encoder, photographs, trained)
    still = {**GENERATOR, "image": {**GENERATOR["image"], "lr": 0.0, "lr_discriminator": 0.0}}
    kept = train_generator(
        still,
        encoder,
        photographs(12, 16),
        tmp_path / "still",
        init_from=init_from,
        discriminator=discriminator,
    )
    assert same(kept.generator.state_dict(), init_from.generator.state_dict()), "no step, no change"
    state = kept.helpers["image_discriminator"].state_dict()
    assert same(state, discriminator.part("image_discriminator"))
    bits, _ = generator_bits(
        tmp_path / "whole", encoder, photographs, init_from=init_from, discriminator=discriminator
    )
    assert not torch.equal(
        bits["generator.decoder.last.weight"],
        init_from.generator.state_dict()["decoder.last.weight"],
    )
    after_steps(2, kill)
    with pytest.raises(Killed):
        generator_bits(
            tmp_path / "killed",
            encoder,
            photographs,
            init_from=init_from,
            discriminator=discriminator,
        )
    again, resumed = generator_bits(
        tmp_path / "killed", encoder, photographs, init_from=init_from, discriminator=discriminator
    )
    assert resumed.finished
    assert same(again, bits)
    with pytest.raises(BadRequest, match="another recipe"):
        generator_bits(tmp_path / "killed", encoder, photographs, init_from=init_from)
    other = {**GENERATOR, "architecture": {**GENERATOR["architecture"], "hidden": 8}}
    with pytest.raises(BadRequest, match="another architecture"):
        train_generator(
            other, encoder, photographs(12, 16), tmp_path / "other", init_from=init_from
        )


@pytest.fixture
def teacher(tmp_path: Path, photographs: Make, zoo: Path) -> Path:
    """A trained generator's file, whose encoder is a file too."""
    subject = load_subject(zoo / "subject.safetensors")
    trained = train_generator(GENERATOR, subject, photographs(12, 16), tmp_path / "teacher")
    subject = replace(subject, name=str(zoo / "subject.safetensors"))
    published(tmp_path / "teacher.safetensors", subject, photographs, trained)
    return tmp_path / "teacher.safetensors"


def from_teacher(teacher: Path, layer: str, code: int | list[int]) -> dict[str, Any]:
    """A recipe for another code layer that begins from a teacher."""
    kept = {
        key: value
        for key, value in GENERATOR.items()
        if key not in ("autoencoder", "code_regressor", "latent")
    }
    return {
        **kept,
        "code_layer": layer,
        "architecture": {**GENERATOR["architecture"], "code": code},
        "init_from": {"generator": str(teacher), "views": 24},
    }


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize(
    ("layer", "code"), [("fc7", 16), ("fc8", 10), ("pool5", [256, 4, 4]), ("conv3", [384, 1, 1])]
)
def test_a_generator_of_another_layer_begins_from_one_that_is_trained(
    tmp_path: Path,
    photographs: Make,
    teacher: Path,
    zoo: Path,
    after_steps: Callable[[int, Callable[[], None]], None],
    layer: str,
    code: int | list[int],
) -> None:
    """Vectors and maps; killed, it ends with the same bits; what it makes climbs."""
    recipe = from_teacher(teacher, layer, code)
    whole = resumes_and_climbs(
        recipe, zoo / "subject.safetensors", photographs, after_steps, tmp_path
    )
    assert whole.init_from == (weights.read(teacher).sha256,)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("regress", ["latents", "codes"])
def test_a_code_is_the_principal_components_of_a_map(
    tmp_path: Path,
    photographs: Make,
    teacher: Path,
    zoo: Path,
    after_steps: Callable[[int, Callable[[], None]], None],
    regress: str,
) -> None:
    """Killed, it ends with the same bits; it climbs; an image has the code that the axes give."""
    recipe = from_teacher(teacher, "pool5", 16)
    recipe["code"] = {"layer": "pool5", "components": 16, "views": 24}
    recipe["init_from"] |= {"regress": regress}
    whole = resumes_and_climbs(
        recipe, zoo / "subject.safetensors", photographs, after_steps, tmp_path
    )
    assert whole.components is not None
    assert (whole.regression_r2 is not None) == (regress == "codes")
    found = weights.read(tmp_path / "g.safetensors")
    card = {**found.card, "encoder": str(zoo / "subject.safetensors")}
    weights.write(tmp_path / "named.safetensors", found.tensors, card)
    prior = load_generated(tmp_path / "named.safetensors")
    image = as_images(torch.from_numpy(photographs(12, 16).images[:1]))[0]
    subject = load_subject(zoo / "subject.safetensors")
    with subject.reading(["pool5"]) as read, torch.no_grad():
        values = read(subject.prepare(center_crop(image[None], prior.view_size)))["pool5"]
    axes, mean = (found.part("components")[name] for name in ("axes", "mean"))
    expected = axes @ (values.flatten() - mean)
    torch.testing.assert_close(encode(prior, image), expected, rtol=1e-4, atol=1e-5)


def test_the_axes_are_those_of_the_largest_variance(
    tmp_path: Path, photographs: Make, encoder: Subject
) -> None:
    """No other axes explain more of the same views, and the codes are not correlated."""
    recipe = {**GENERATOR, "code_layer": "pool5", "code": {"components": 16, "views": 40}}
    whole = Inversion(recipe, encoder, photographs(40, 16), Runtime(tmp_path))
    inversion = with_components(whole)
    codes = inversion.known.float()
    covariance = codes.T @ codes / (len(codes) - 1)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-2 * covariance.max()
    with encoder.reading(["pool5"]) as read, torch.no_grad():
        views = torch.cat(list(shown(whole, 40)))
        values = read(whole.prepared(views))["pool5"].flatten(1)
    best = torch.linalg.svdvals(values - values.mean(0))[:16].square() / 39
    torch.testing.assert_close(covariance.diag(), best, rtol=0.02, atol=1e-2 * float(best[0]))


def test_a_generator_draws_what_its_teacher_draws_of_translated_codes() -> None:
    """Where the teacher's code is a linear map of the own one, both draw the same."""
    torch.manual_seed(0)
    teacher, generator = (build(GENERATOR_ARCHITECTURE) for _ in range(2))
    own, planted = torch.randn(300, 16), torch.randn(16, 16)
    theirs = own @ planted + 3
    for network, codes in ((teacher, theirs), (generator, own)):
        whiten_code(network, codes)
    translation = translation_of(generator.whitened(own), teacher.whitened(theirs))
    assert translation.r2 > 0.99
    translation.compose(generator, teacher)
    with torch.no_grad():
        torch.testing.assert_close(generator(own), teacher(theirs), rtol=1e-3, atol=1e-3)
        heads = [(3, 1)]
        judge, other = (Discriminator(heads, 16, 8) for _ in range(2))
        other.load_state_dict(translation.discriminator(judge.state_dict()))
        codes, pictures = (own - own.mean(0)) / own.std(0), [torch.rand(300, 3, 16, 16)]
        agreed = other(pictures, codes)[0] - other(pictures, torch.zeros_like(codes))[0]
        wanted = judge(pictures, teacher.whitened(theirs))[0] - judge(pictures, codes * 0)[0]
        torch.testing.assert_close(agreed, wanted, rtol=1e-2, atol=1e-2)


def test_a_larger_generator_begins_as_its_teachers_picture_doubled() -> None:
    torch.manual_seed(0)
    larger = {"decoder": [8, 8, 8, 4], "decoder_blocks": [1, 0, 1, 0], "size": 2 * IMAGE}
    teacher = build(GENERATOR_ARCHITECTURE)
    generator = build({**GENERATOR_ARCHITECTURE, **larger, "view_size": 2 * VIEW})
    codes = torch.randn(300, 16)
    for network in (teacher, generator):
        whiten_code(network, codes)
    whitened = teacher.whitened(codes)
    translation_of(whitened, whitened).compose(generator, teacher)
    with torch.no_grad():
        small, large = teacher(codes), generator(codes)
    assert large.shape == (300, 3, 2 * IMAGE, 2 * IMAGE)
    doubled = resized(small, (2 * IMAGE, 2 * IMAGE))
    assert (large - doubled).abs().mean() < 0.1 * (small - small.mean()).abs().mean()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"components": 5000}, "can be 23 components"),
        ({"components": 8}, "has 8 components, and the architecture's code is 16"),
        ({"layer": "fc66"}, "no layer"),
    ],
    ids=str,
)
def test_components_that_cannot_be_are_refused_before_any_work(
    tmp_path: Path,
    photographs: Make,
    encoder: Subject,
    teacher: Path,
    change: dict[str, Any],
    says: str,
) -> None:
    table = {"layer": "pool5", "components": 16, "views": 24, **change}
    recipe = {**from_teacher(teacher, table["layer"], 16), "code": table}
    with pytest.raises(PhospheneError, match=says):
        train_generator(recipe, encoder, photographs(12, 16), tmp_path / "run")
    assert not (tmp_path / "run").exists()


DIRECT = {"name": "direct", "hidden": 16, "widths": [8, 8], "size": 16, "view_size": 14}


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize(("layer", "code"), [("fc6", 16), ("pool5", [256, 4, 4])])
def test_a_generator_of_the_papers_layout_begins_from_nothing(
    tmp_path: Path,
    photographs: Make,
    zoo: Path,
    after_steps: Callable[[int, Callable[[], None]], None],
    layer: str,
    code: int | list[int],
) -> None:
    kept = {
        key: value
        for key, value in GENERATOR.items()
        if key not in ("autoencoder", "code_regressor", "latent")
    }
    recipe = {
        **kept,
        "code_layer": layer,
        "architecture": {**DIRECT, "code": code},
        "init_from": {"views": 24},
    }
    whole = resumes_and_climbs(
        recipe, zoo / "subject.safetensors", photographs, after_steps, tmp_path
    )
    assert whole.init_from == ()
    recipe["architecture"] = {**GENERATOR["architecture"], "code": code}
    with pytest.raises(BadRequest, match="begins from another"):
        train_generator(
            recipe,
            load_subject(zoo / "subject.safetensors"),
            photographs(12, 16),
            tmp_path / "other",
        )


@pytest.fixture(autouse=True)
def _few_exact_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of 4,096 units would take half a minute of eigenvalues."""
    monkeypatch.setattr("phosphene.training.components.EXACT", 100)


def resumes_and_climbs(
    recipe: dict[str, Any], encoder: Path, photographs: Make, after_steps: Any, tmp_path: Path
) -> Trained:
    subject, shape = load_subject(encoder), recipe["architecture"]["code"]
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    whole = train_generator(recipe, subject, photographs(12, 16), tmp_path / "whole")
    assert whole.finished
    assert whole.statistics["mean"].shape == whole.generator.code_shape == shape
    after_steps(2, kill)
    with pytest.raises(Killed):
        train_generator(recipe, subject, photographs(12, 16), tmp_path / "killed")
    again = train_generator(recipe, subject, photographs(12, 16), tmp_path / "killed")
    assert same(again.generator.state_dict(), whole.generator.state_dict())
    card = generator_card("g", recipe, subject, photographs(12, 16), photographs(10, 16), whole)
    tensors = {f"network.{name}": value for name, value in whole.generator.state_dict().items()}
    tensors |= {f"code.{n}": v for n, v in whole.statistics.items()}
    if whole.components is not None:
        tensors |= {f"components.{n}": v for n, v in whole.components.state_dict().items()}
    weights.write(tmp_path / "g.safetensors", tensors, card)
    prior = load_generated(tmp_path / "g.safetensors")
    climb = replace(CLIMBS["default"], steps=4)
    # the gradient of a network that learned for some steps is lost in bfloat16
    climbed = synthesize(subject, ["fc8:0", "fc8:1"], prior=prior, climb=climb, precision="float32")
    assert climbed.codes.shape == (2, *shape)
    assert climbed.scores.isfinite().all()
    assert not torch.equal(climbed.codes[0], climbed.codes[1])
    return whole


@pytest.mark.parametrize("size", [64, 96, 128, 256])
@pytest.mark.parametrize("code", [16, [8, 5, 5]], ids=["vector", "map"])
def test_both_families_make_images_of_any_size(size: int, code: int | list[int]) -> None:
    doublings = {64: 4, 96: 4, 128: 5, 256: 6}[size]
    direct = {
        "name": "direct",
        "code": code,
        "hidden": 32,
        "widths": [16] * doublings,
        "size": size,
        "view_size": size - 8,
    }
    staged = {
        **GENERATOR_ARCHITECTURE,
        "code": code,
        "grid": size // 16,
        "size": size,
        "view_size": size - 8,
    }
    for architecture in (direct, staged):
        torch.manual_seed(0)
        network = build(architecture)
        codes = torch.randn(4, *network.code_shape, requires_grad=True)
        images = network(codes)
        assert images.shape == (4, 3, size, size)
        assert 0 < images.min() < images.max() < 1
        (slope,) = torch.autograd.grad(images.square().mean(), codes)
        assert slope.abs().flatten(1).amax(1).min() > 0
    first = build(direct)
    assert 0.1 < torch.logit(first(torch.randn(8, *first.code_shape))).std() < 10, (
        "what it begins with is not flat"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"size": 90},
        {"widths": [8]},
        {"widths": [8] * 9},
        {"view_size": 17},
        {"view_size": 0},
        {"code": [3, 3]},
    ],
    ids=str,
)
def test_a_direct_generator_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadFile, match="cannot be built"):
        build({**DIRECT, "code": 16, **change})


def test_a_recipe_learns_its_code_from_the_layer(zoo: Path) -> None:
    subject, recipe = load_subject(zoo / "subject.safetensors"), read_recipe("from-teacher")
    assert with_code(recipe, subject, "fc7")["architecture"]["code"] == 16
    assert with_code(recipe, subject, "pool5")["architecture"]["code"] == [256, 4, 4]
    assert with_code(recipe, subject, "conv3")["architecture"]["code"] == 384, (
        "a map of one position is a vector"
    )
    assert with_code(read_recipe("objects-fc6"), subject, None)["architecture"]["code"] == 1024, (
        "what is said stands"
    )
    assert [
        with_code(recipe, subject, each)["architecture"]["rank"] for each in ("fc8", "conv3")
    ] == [10, 256]
    with pytest.raises(BadRequest, match="give one with --layer"):
        with_code(recipe, subject, None)
    with pytest.raises(UnknownName, match="near: fc7"):
        with_code(recipe, subject, "fc77")


def test_the_beginning_is_the_teachers_picture_where_the_code_tells_all(
    tmp_path: Path, photographs: Make, teacher: Path, zoo: Path
) -> None:
    """Of the teacher's own code, the regression finds the best linear map to its latents."""
    subject = load_subject(zoo / "subject.safetensors")
    recipe = from_teacher(teacher, "fc6", 16)
    recipe["architecture"] |= {"rank": 16}
    recipe["init_from"] |= {"views": 400}
    own = load_generated(teacher).generator
    run = Runtime(tmp_path / "run")
    generator = initialized(Inversion(recipe, subject, photographs(40, 16), run)).generator
    codes = torch.randn(200, 16).relu()
    goal, got = own.latents(codes), generator.latents(codes)
    unexplained = (goal - got).square().mean() / (goal - goal.mean(0)).square().mean()
    assert unexplained < 0.5
    assert same(generator.decoder.state_dict(), own.decoder.state_dict())


def test_a_convolution_is_fitted_in_closed_form() -> None:
    """Latents that are a convolution of the code's map are found again."""
    torch.manual_seed(0)
    network = build({**GENERATOR_ARCHITECTURE, "code": [5, 2, 2]})
    codes, planted = torch.randn(60, 5, 2, 2), nn.Conv2d(5, 4, 3, padding=1)
    with torch.no_grad():
        views = Views(codes, planted(codes), torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1))
        whiten(network, views)
        initialize_map(network, views)
        fitted = network.map.linear(
            network.map.resized((codes - network.code_mean) / network.code_std)
        )
    unexplained = (fitted - views.latents).square().mean() / views.latents.var()
    assert unexplained < 0.02


def test_a_teacher_that_does_not_fit_is_refused(
    tmp_path: Path, photographs: Make, teacher: Path, zoo: Path
) -> None:
    subject = load_subject(zoo / "subject.safetensors")
    recipe = from_teacher(teacher, "fc7", 16)
    recipe["architecture"] |= {"latent": 5}
    with pytest.raises(BadRequest, match="none with name two-stage, latent 5"):
        train_generator(recipe, subject, photographs(12, 16), tmp_path / "run")
    recipe = from_teacher(teacher, "pool5", [256, 4, 4])
    del recipe["init_from"]
    with pytest.raises(BadRequest, match=r"needs a recipe with \[init_from\]"):
        train_generator(recipe, subject, photographs(12, 16), tmp_path / "run")


@pytest.mark.parametrize(
    ("layer", "error"), [("fc66", UnknownName), ("conv5", BadRequest), ("fc8", BadRequest)]
)
def test_a_code_layer_that_does_not_fit_is_refused_before_any_work(
    tmp_path: Path, photographs: Make, encoder: Subject, layer: str, error: type[PhospheneError]
) -> None:
    with pytest.raises(error, match=r"fc6|units"):
        train_generator(
            {**GENERATOR, "code_layer": layer}, encoder, photographs(12, 16), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_fewer_photographs_than_a_batch_and_too_many_classes_are_refused(
    tmp_path: Path, photographs: Make
) -> None:
    with pytest.raises(BadRequest, match="fewer than one batch"):
        train_subject(SUBJECT, photographs(15, 16), photographs(10, 16), tmp_path / "a")
    few = {**SUBJECT, "architecture": {**SUBJECT["architecture"], "classes": 9}}
    with pytest.raises(BadRequest, match="10 classes"):
        train_subject(few, photographs(40, 16), photographs(10, 16), tmp_path / "b")


def test_three_classes_are_enough(tmp_path: Path, photographs: Make) -> None:
    data = photographs(48, 16)
    data.labels[:] %= 3
    few = {**SUBJECT, "architecture": {**SUBJECT["architecture"], "classes": 3}}
    _, run, _ = train_subject(few, data, data, tmp_path)
    assert run.history[-1]["top5"] == 1.0


def test_a_subject_s_recipe_is_whole_before_photographs_are_read() -> None:
    whole = read_recipe("caffenet-scenes")
    check_complete(whole)
    for key in ("batch", "cooldown"):
        lacking = {name: value for name, value in whole.items() if name != key}
        with pytest.raises(BadRequest, match=f"lacks '{key}', such as {key} = "):
            check_complete(lacking)
    with pytest.raises(BadRequest, match="cooldown, lacks 'lr'"):
        check_complete({**whole, "cooldown": {"epochs": 1, "crop": [0.5, 1.0]}})


def test_former_names_of_recipes_and_keys_are_read_and_told(tmp_path: Path) -> None:
    with pytest.warns(Notice, match="the recipe 'taught' is now called 'from-teacher'"):
        now = read_recipe("taught")
    assert now == read_recipe("from-teacher")
    former = {**now, "begin": now["init_from"], "image": {**now["image"], "fall": 0.5}}
    del former["init_from"]
    (tmp_path / "own.toml").write_text(toml(former))
    with pytest.warns(Notice, match=r"own\.toml has keys of version 0\.1\.0: 'begin' is now"):
        read = read_recipe(tmp_path / "own.toml")
    assert read == {**now, "image": {**now["image"], "cosine_decay": 0.5}}
    assert recipe_hash(read, "data") == recipe_hash(former, "data"), "a run of it goes on"


def test_a_recipe_is_a_name_or_a_file_and_says_what_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('kind = "subject"\nseed = 0\n[architecture]\nname = "caffenet"\n')
    assert read_recipe(file, "subject")["architecture"] == {"name": "caffenet"}
    with pytest.raises(BadRequest, match="lacks 'batch'"):
        read_recipe(file)["batch"]
    with pytest.raises(BadRequest, match="lacks 'width'"):
        read_recipe(file)["architecture"]["width"]
    with pytest.raises(BadRequest, match="makes a subject, not a generator"):
        read_recipe(file, "generator")
    with pytest.raises(
        BadRequest, match=r"bundled: caffenet-modified, caffenet-objects, .*objects-fc6"
    ):
        read_recipe("nothing")
    for raw in (b"kind = ", b"\xff", b"[" * 10_000):
        file.write_bytes(raw)
        with pytest.raises(BadFile, match="not TOML"):
            read_recipe(file)


# ---------------------------------------------------------------- damage and the disk


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("batch = 'many'", "batch is 'many'; it should be a whole number"),
        ("batch = 1.5", "batch is 1.5; it should be a whole number"),
        ("lr = -1", "lr is -1; it should be a number from 0 on"),
        ("lr = inf", "lr is inf"),
        ("sizes = [[0.0, 'x']]", "sizes is 'x'"),
        ("batch = 0", "batch is 0; it should be 1 or more"),
        ("evaluate_every = 0", "evaluate_every is 0; it should be 1 or more"),
        ("seed = 0x8000000000000000", "it should be less than 2⁶³"),
        ("label_smoothing = 5", "label_smoothing is 5; it should be a share"),
        ("sizes = []", "sizes is []; it should be [share of the run, pixels]"),
        ("sizes = [[0.5, 32]]", "sizes is [[0.5, 32]]; it should be [share of the run, pixels]"),
        ("sizes = [[0.0, 32.5]]", "sizes is [[0.0, 32.5]]; it should be [share"),
        ("sizes = [[0.0]]", "sizes is [[0.0]]; it should be [share"),
        ("crop = [0.3]", "crop is [0.3]; it should be two shares of the area"),
        ("crop = [0.5, 2.0]", "crop is [0.5, 2.0]; it should be two shares"),
        ("cooldown = 3", "cooldown is 3"),
        ("cooldown = {epochs = true}", "cooldown epochs is True"),
    ],
)
def test_a_recipes_values_are_of_the_kind_they_should_be(
    tmp_path: Path, line: str, wrong: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"kind = 'subject'\n{line}\n")
    with pytest.raises(BadRequest, match=re.escape(wrong)):
        read_recipe(file, "subject")
    file.write_text(toml({**GENERATOR, "image": {**GENERATOR["image"], "lr": 1}}))
    assert read_recipe(file)["image"]["lr"] == 1, "a whole number is a number"


@pytest.mark.parametrize("raw", [b"", b"not a checkpoint", b"PK\x03\x04" + b"\0" * 50])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, photographs: Make, raw: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(raw)
    with pytest.raises(BadFile, match=r"checkpoint\.pt"):
        subject_bits(tmp_path, photographs)


@pytest.mark.parametrize("raw", [b"", b"version https://git-lfs.github.com/spec/v1", b"\xff" * 99])
def test_a_damaged_cache_of_views_is_made_again_and_says_so(
    tmp_path: Path, encoder: Subject, photographs: Make, raw: bytes
) -> None:
    bits, _ = generator_bits(tmp_path, encoder, photographs)
    (file,) = tmp_path.glob("views-*.safetensors")
    file.write_bytes(raw)
    with pytest.warns(Notice, match=rf"{file} is damaged .*; it is made again"):
        again, _ = generator_bits(tmp_path, encoder, photographs)
    assert same(again, bits)


def test_a_hostile_checkpoint_runs_nothing(tmp_path: Path, photographs: Make) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"identity": Hostile(), "step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises(BadFile):
        subject_bits(tmp_path, photographs)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")]
)
def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, photographs: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    subject_bits(tmp_path, photographs, time_budget=0.0)
    kept = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state: Any, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutOfSpace):
        subject_bits(tmp_path, photographs)
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    assert not list(tmp_path.glob("*tmp*")) + list(tmp_path.glob(".*"))


# ---------------------------------------------------------------- parts


def test_averaged_weights_are_the_moving_average() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    averaged, wanted = (
        Averaged(network, 0.9),
        {k: v.clone().double() for k, v in network.state_dict().items()},
    )
    for step in range(1, 30):
        with torch.no_grad():
            for value in network.parameters():
                value.add_(torch.randn_like(value))
            network[1].num_batches_tracked += 1
        averaged.update(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                wanted[name] = decay * wanted[name] + (1 - decay) * value.double()
    for name, value in averaged.state.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), wanted[name], rtol=1e-5, atol=1e-6)
    assert averaged.state["1.num_batches_tracked"] == 29, "counts are not averaged"
    fresh = averaged.network(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    assert same(fresh.state_dict(), averaged.state)
    assert not fresh.training


def test_the_learning_rate_goes_up_in_a_line_and_down_in_a_cosine() -> None:
    rates = [one_cycle(i / 1000) for i in range(1001)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == pytest.approx(1, abs=2e-3)
    assert rates.index(max(rates)) == pytest.approx(100, abs=1)
    assert rates[50] == pytest.approx((0.05 + 1) / 2)
    assert rates[550] == pytest.approx(0.5, abs=1e-3)
    assert rates[1000] == pytest.approx(1e-4)


def test_random_numbers_are_a_function_of_seed_and_counters() -> None:
    def first(*key: int) -> float:
        return float(torch.rand((), generator=seeded(*key)))

    keys = [(0,), (1,), (0, 1), (0, 1, 2), (0, 12), (1, 1), (0, 2, 1)]
    assert len({first(*key) for key in keys}) == len(keys)
    assert first(0, 1, 2) == first(0, 1, 2)
    orders = [epoch_order(50, 0, epoch) for epoch in range(3)]
    assert all(order.sort().values.tolist() == list(range(50)) for order in orders)
    assert not torch.equal(orders[0], orders[1])


def test_a_crop_of_everything_without_a_flip_is_the_image() -> None:
    images = torch.rand(5, 3, 16, 16)
    same_images = random_crops(images, 16, seeded(0), scale=(1.0, 1.0), ratio=1.0, flip=False)
    torch.testing.assert_close(same_images, images, atol=1e-5, rtol=0)
    flipped = random_crops(images, 16, seeded(0), scale=(1.0, 1.0), ratio=1.0)
    for image, other in zip(images, flipped, strict=True):
        close = [
            torch.allclose(other, candidate, atol=1e-5) for candidate in (image, image.flip(2))
        ]
        assert any(close)


def test_crops_stay_inside_of_the_picture() -> None:
    ramp = torch.linspace(0.2, 0.8, 32).repeat(64, 3, 32, 1)
    crops = random_crops(ramp, 16, seeded(1), scale=(0.2, 0.5))
    assert crops.min() >= 0.2 - 1e-5
    assert crops.max() <= 0.8 + 1e-5
    spans = (crops.amax((1, 2, 3)) - crops.amin((1, 2, 3))) / 0.6
    assert (spans < math.sqrt(0.5 * 4 / 3) + 0.05).all(), (
        "a crop of a share of the area is that much narrower"
    )


def test_jitter_and_mixing_of_nothing_change_nothing() -> None:
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6)
    assert jitter_colours(images, 0.0, seeded(0)) is images
    assert mixed(images, labels, 0.0, seeded(0))[2] == 1.0
    blend, other, share = mixed(images, labels, 0.4, seeded(0))
    torch.testing.assert_close(blend, share * images + (1 - share) * images[other])
    assert 0.5 <= share <= 1
    jittered = jitter_colours(images, 0.3, seeded(0))
    assert not torch.equal(jittered, images)
    assert 0 <= jittered.min() <= jittered.max() <= 1


def test_the_regression_starts_the_map_at_its_closed_form(
    tmp_path: Path, photographs: Make, encoder: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With full rank and hardly a ridge, the linear part's error is that of least squares."""
    torch.manual_seed(0)
    network = build({**GENERATOR_ARCHITECTURE, "rank": 16})
    codes = torch.randn(300, 16).relu()
    latents = (codes @ torch.randn(16, 16) + 0.3 * torch.randn(300, 16)).view(300, 4, 2, 2)
    views = Views(codes.half(), latents.half(), torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1))
    whiten(network, views)
    regress(network, views, ridge=1e-6)
    x = (views.codes.float() - network.code_mean) / network.code_std
    y = views.latents.float().flatten(1)
    design = torch.cat([x, torch.ones(300, 1)], 1).double()
    best = design @ torch.linalg.lstsq(design, y.double()).solution
    torch.testing.assert_close(network.map.linear(x).double(), best, atol=1e-3, rtol=1e-3)


# ---------------------------------------------------------------- from the command line


def toml(recipe: dict[str, Any]) -> str:
    """A recipe as TOML: JSON's inline values are TOML's but for tables."""

    def value(each: Any) -> str:
        if isinstance(each, dict):
            return "{" + ", ".join(f"{key} = {value(item)}" for key, item in each.items()) + "}"
        return json.dumps(each)

    return "\n".join(f"{key} = {value(each)}" for key, each in recipe.items())


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_from_photographs_to_a_preferred_input_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    from phosphene import cli

    def phosphene(*arguments: object) -> None:
        monkeypatch.setattr("sys.argv", ["phosphene", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code, capfd.readouterr().err

    recipes = {
        "small-subject": {**SUBJECT, "batch": 100, "epochs": 1, "sizes": [[0.0, VIEW]]},
        "small-generator": GENERATOR,
    }
    for name, recipe in recipes.items():
        (tmp_path / f"{name}.toml").write_text(toml(recipe))
    subject, generator = tmp_path / "s" / "small-subject.safetensors", tmp_path / "out.safetensors"
    phosphene(
        "train",
        "subject",
        tmp_path / "small-subject.toml",
        "--data",
        CI_SAMPLE,
        "--run",
        tmp_path / "s",
        "--device",
        "cpu",
    )
    phosphene(
        *(
            "train",
            "generator",
            tmp_path / "small-generator.toml",
            "--images",
            CI_SAMPLE,
            "--encoder",
            subject,
        ),
        *("--run", tmp_path / "g", "--out", generator, "--device", "cpu"),
    )
    trained, generated = load_subject(subject), load_generated(generator)
    assert trained.card["finished"]
    assert generated.card["finished"]
    assert trained.card["measured"]["photographs"] == 100
    assert 0 < generated.card["measured"]["image_error"] < 1
    assert generated.card["encoder_sha256"] == trained.card["sha256"]
    assert trained.classes[0] == "tench, Tinca tinca"
    assert (
        weights.read(tmp_path / "g" / "small-generator-training.safetensors").card["kind"]
        == "training"
    )
    assert len(load_file(generator)) > 10
    more, discriminator = (
        tmp_path / "more.safetensors",
        tmp_path / "g" / "small-generator-training.safetensors",
    )
    again = (
        "train",
        "generator",
        tmp_path / "small-generator.toml",
        "--images",
        CI_SAMPLE,
        "--encoder",
        subject,
    )
    again += ("--from", generator, "--discriminator", discriminator)
    again += ("--run", tmp_path / "h", "--out", more, "--device", "cpu")
    phosphene(*again)
    before, after = load_file(generator), load_file(more)
    assert before.keys() == after.keys()
    assert all(
        torch.equal(before[name], after[name]) for name in before if name.startswith("code.")
    )
    assert not torch.equal(
        before["network.decoder.last.weight"], after["network.decoder.last.weight"]
    )
    phosphene(
        "synthesize",
        subject,
        "class:tench",
        "--prior",
        generator,
        "--steps",
        3,
        "--out",
        tmp_path / "p",
    )
    assert (tmp_path / "p" / "contact-sheet.png").exists()

    listed = {
        file.stem: {"file": file.name, "sha256": weights.read(file).sha256}
        for file in (subject, more)
    }
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    for file in (subject, more):
        shutil.copy(file, zoo)
    (zoo / "manifest.json").write_text(json.dumps(listed))
    monkeypatch.setattr(weights.zoo, "zoo_folder", lambda: zoo)
    capfd.readouterr()
    phosphene("zoo", "verify", "--accuracy", CI_SAMPLE, "--device", "cpu")
    said = capfd.readouterr().out
    assert [
        said.count(figure) for figure in ("whole", "top1", "top5", "image_error", "class_kept")
    ] == [2, 1, 1, 1, 1]
    wrong = weights.read(more)
    own = wrong.card["data"]["name"]
    for trained_on, said_of in (
        (f"{own} + {own}", "more: image_error"),
        (f"{own} + x", "more: not measured, it was"),
    ):
        card = {**wrong.card, "data": {**wrong.card["data"], "name": trained_on}}
        listed["more"]["sha256"] = weights.write(zoo / more.name, wrong.tensors, card)
        (zoo / "manifest.json").write_text(json.dumps(listed))
        phosphene("zoo", "verify", "more", "--accuracy", CI_SAMPLE, "--device", "cpu")
        assert said_of in capfd.readouterr().out
    measured = {
        **wrong.card["measured"],
        "image_error": wrong.card["measured"]["image_error"] + 0.01,
    }
    listed["more"]["sha256"] = weights.write(
        zoo / more.name, wrong.tensors, {**wrong.card, "measured": measured}
    )
    (zoo / "manifest.json").write_text(json.dumps(listed))
    monkeypatch.setattr("sys.argv", ["phosphene", "zoo", "verify", "--accuracy", str(CI_SAMPLE)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "more: image_error is" in capfd.readouterr().err


class ByColour(nn.Module):
    """Names ant what is red, bee what is green, cat what is blue."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.mean((2, 3))


COLOURS = {"ant": (200, 20, 20), "bee": (20, 200, 20), "cat": (20, 20, 200)}


def coloured(folder: Path, **splits: str) -> Path:
    """Class folders of plain colours, a class's own, two of each."""
    for split, names in splits.items():
        for name in names.split():
            (folder / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (16, 16), COLOURS[name]).save(folder / split / name / f"{i}.png")
    return folder


def test_accuracy_is_of_the_classes_that_were_trained(tmp_path: Path) -> None:
    """Held-out folders that lack the first class once gave a perfect network no accuracy at all."""
    folder = coloured(tmp_path, train="ant bee cat", val="bee cat")
    assert accuracy(ByColour(), datasets.load(folder, "val"), 16) == (1, 1)


def test_verifying_goes_by_the_names_of_classes(tmp_path: Path) -> None:
    """Photographs in another order of folders, and of some classes, are measured as they are."""
    file = write_subject(tmp_path / "subject.safetensors", recipe={})
    subject = load_subject(str(file))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, VIEW, VIEW, 3), np.uint8)
    labels = np.arange(60) % 10
    val = Photographs("some", images, labels, subject.classes, "", "")
    wanted = verify.measured(str(file), subject.card, val)
    assert 0 < wanted["top5"] < 1
    order = rng.permutation(10)
    shuffled = tuple(subject.classes[number] for number in order)
    other = replace(val, labels=np.argsort(order)[labels], classes=shuffled)
    assert verify.measured(str(file), subject.card, other) == wanted
    few = replace(val, labels=labels % 2, classes=subject.classes[3:5])
    top1, top5 = accuracy(subject.network, replace(few, labels=labels % 2 + 3), VIEW)
    found = verify.measured(str(file), subject.card, few)
    assert (found["top1"], found["top5"]) == (top1, top5)
    with pytest.raises(BadFile, match="'dog'"):
        verify.measured(str(file), subject.card, replace(few, classes=(subject.classes[3], "dog")))
    with pytest.raises(BadFile, match="without a class"):
        verify.measured(str(file), subject.card, replace(val, labels=labels - 1))


def test_whether_a_class_is_kept_goes_by_names(encoder: Subject) -> None:
    generator = lively(build(GENERATOR_ARCHITECTURE))
    images = np.random.default_rng(0).integers(0, 256, (40, IMAGE, IMAGE, 3), np.uint8)
    labels = np.arange(40) % 10
    val = Photographs("some", images, labels, encoder.classes, "", "")
    read = ("fc6", VIEW, encoder)
    wanted = held_out_errors(*read, val, generator)
    backwards = replace(val, labels=9 - labels, classes=encoder.classes[::-1])
    assert held_out_errors(*read, backwards, generator) == wanted
    assert 0 < wanted["class_kept"] < 1
    for other in (replace(val, classes=()), replace(val, labels=labels - 1)):
        assert "class_kept" not in held_out_errors(*read, other, generator)


def test_extra_classes_of_held_out_photographs_may_have_none(photographs: Make) -> None:
    val = photographs(5, 16)
    more = with_modified(val, [{"kind": "brg", "classes": [2, 7]}])
    assert more.labels.tolist() == [*val.labels.tolist(), 10]
    assert more.classes[10:] == (f"{CLASSES[2]} (brg)", f"{CLASSES[7]} (brg)")


def test_a_generator_is_trained_on_photographs_without_classes(
    phosphene: Run, zoo: Path, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        for i in range(12):
            file = tmp_path / "photos" / split / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (IMAGE, IMAGE, 3), np.uint8)
            Image.fromarray(pixels).save(file)
    (tmp_path / "photos" / "train" / "3.png").write_bytes(b"damaged")
    (tmp_path / "tiny.toml").write_text(toml(GENERATOR))
    command = ("train", "generator", tmp_path / "tiny.toml", "--images", tmp_path / "photos")
    more = ("--encoder", zoo / "subject.safetensors", "--run", tmp_path / "run", "--device", "cpu")
    said = phosphene(*command, *more)
    assert said.fine()
    assert "1 of 12 photographs cannot be read" in said.err
    card = weights.read(tmp_path / "run" / "tiny.safetensors").card
    assert card["data"]["photographs"] == 11
    assert card["measured"].keys() == {"photographs", "image_error", "code_error"}


def test_cards_hold_what_a_reader_needs(
    tmp_path: Path, photographs: Make, encoder: Subject
) -> None:
    network, run, _ = train_subject(
        SUBJECT, photographs(40, 16), photographs(10, 16), tmp_path / "s"
    )
    card = subject_card(
        "s", SUBJECT, photographs(40, 16), photographs(10, 16), network, history=run.history
    )
    assert {"preprocessing", "classes", "data", "measured", "recipe", "history"} <= card.keys()
    low, high = card["measured"]["top1_interval"]
    assert 0 <= low <= card["measured"]["top1"] <= high <= 1
    _, trained = generator_bits(tmp_path / "g", encoder, photographs)
    card = generator_card(
        "g", GENERATOR, encoder, photographs(12, 16), photographs(10, 16), trained
    )
    assert {"encoder", "encoder_sha256", "code_layer", "data", "measured", "recipe"} <= card.keys()
    assert json.loads(json.dumps(card)) == json.loads(json.dumps(card, allow_nan=False))


# ---------------------------------------------------------------- what is written can be opened

FIRST: dict[str, Any] = {
    **SUBJECT,
    "architecture": {"name": "caffenet", "classes": 10, "width": 4, "dropout": 0.5},
    "epochs": 1,
    "batch": 40,
    "sizes": [[0.0, 12]],
    "cooldown": {"epochs": 0, "crop": [0.9, 1.0], "lr": 0.01},
}
"""One step."""


def published_subject(
    recipe: dict[str, Any], train: Photographs, val: Photographs, folder: Path
) -> Subject:
    """Return a subject as the command writes and opens it."""
    network, run, _ = train_subject(recipe, train, val, folder / "run")
    card = subject_card("s", recipe, train, val, network, history=run.history)
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    weights.write(folder / "s.safetensors", tensors, {**card, "finished": True})
    return load_subject(folder / "s.safetensors")


NAMES = st.text(max_size=12) | st.sampled_from(
    (
        "a\nb",
        "tab\there",
        "\x7f",
        "x" * 500,
        "x" * 501,
        "photo\udce9",
        "日本 é 🐝",
        "[b]",
        "a\u2028b",
    )
)


@given(name=NAMES)
@hypothesis_settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_a_class_name_is_refused_before_the_first_step_or_can_be_opened(
    tmp_path_factory: pytest.TempPathFactory, photographs: Make, name: str
) -> None:
    folder = tmp_path_factory.mktemp("class_kl")
    data = replace(photographs(40, 16), classes=(*"abcdefghi", name))
    if all(ord(each) >= 32 and each not in "\x7f\udce9" for each in name) and len(name) <= 500:
        opened = published_subject(FIRST, data, photographs(10, 16), folder)
        assert opened.classes == data.classes
        return
    with pytest.raises(BadFile, match="is no class name; one has at most 500 letters"):
        published_subject(FIRST, data, photographs(10, 16), folder)
    assert not (folder / "run" / "checkpoint.pt").exists(), "no step was taken"


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "x" * 501, "photo\udce9"])
def test_names_that_loading_refuses_are_refused_by_training(
    tmp_path: Path, photographs: Make, name: str
) -> None:
    data = replace(photographs(40, 16), classes=(*"abcdefghi", name))
    with pytest.raises(BadFile, match=re.escape(repr(name)[:60])):
        train_subject(FIRST, data, photographs(10, 16), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"sizes": [[0.0, 5000]]}, "its card's size"),
        ({"architecture": {**FIRST["architecture"], "dropout": -0.0001}}, "architecture"),
    ],
)
def test_recipes_whose_file_could_not_be_opened_are_refused_first(
    tmp_path: Path, photographs: Make, change: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(PhospheneError, match=wrong):
        train_subject({**FIRST, **change}, photographs(40, 16), photographs(10, 16), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_pixels_may_be_said_with_a_decimal_point(tmp_path: Path, photographs: Make) -> None:
    recipe = {**FIRST, "sizes": [[0.0, 12.0]]}
    opened = published_subject(recipe, photographs(40, 16), photographs(10, 16), tmp_path)
    assert opened.size == (12, 12)


@pytest.mark.parametrize("line", ["day = 2026-11-29", "x = nan", "x = {y = [1.0, -inf]}"])
def test_a_recipe_holds_what_a_card_can_hold(tmp_path: Path, line: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f"kind = 'subject'\n{line}\n")
    with pytest.raises(BadRequest, match="should be a text, a finite number"):
        read_recipe(file)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"size": 24}, "size is 16 × grid"),
        ({"hidden": 70_000}, "a number outside 0 … 65536"),
        ({"name": "caffenet"}, "cannot be built"),
    ],
)
def test_a_generator_that_could_not_be_opened_is_refused_before_any_stage(
    tmp_path: Path, encoder: Subject, photographs: Make, change: dict[str, Any], wrong: str
) -> None:
    recipe = {**GENERATOR, "architecture": {**GENERATOR["architecture"], **change}}
    with pytest.raises(BadFile, match=wrong):
        train_generator(recipe, encoder, photographs(12, 16), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_view_of_one_photograph_has_no_spread(
    tmp_path: Path, encoder: Subject, photographs: Make
) -> None:
    recipe = {**GENERATOR, "views": {**GENERATOR["views"], "number": 1}}
    with pytest.raises(BadRequest, match="the spread of a code needs at least two"):
        train_generator(recipe, encoder, photographs(1, 16), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    trained = train_generator(recipe, encoder, photographs(2, 16), tmp_path / "run")
    assert all(value.isfinite().all() for value in trained.statistics.values())


# ---------------------------------------------------------------- modified twins


def test_extra_classes_are_modified_copies_of_their_own(photographs: Make) -> None:
    data = photographs(20, 18)
    extra = [
        {"kind": "brg", "classes": [2]},
        {"kind": "blurred", "classes": [2, 3]},
        {"kind": "tiled", "classes": [0]},
    ]
    more = with_modified(data, extra)
    assert more.classes == (*data.classes, *(f"{data.classes[i]} ({kind})" for i, kind in TWINS))
    assert len(more) == 20 + 4 * 2
    assert np.array_equal(more.images[:20], data.images)
    own = lambda label: data.images[data.labels == label].astype(float)  # noqa: E731
    twin = lambda label: more.images[more.labels == 10 + label].astype(float)  # noqa: E731
    assert np.array_equal(twin(0), own(2)[..., [2, 0, 1]])
    steepness = lambda images: np.abs(np.diff(images, axis=2)).mean()  # noqa: E731
    for label, source in ((1, 2), (2, 3)):
        assert steepness(twin(label)) < 0.5 * steepness(own(source))
        assert twin(label).mean() == pytest.approx(own(source).mean(), abs=3)
    assert not np.array_equal(twin(3), own(0))
    assert np.array_equal(np.sort(twin(3).ravel()), np.sort(own(0).ravel())), (
        "the same pixels in other places"
    )
    assert np.array_equal(twin(3)[:, 16:], own(0)[:, 16:]), "the edge that does not divide stays"
    assert with_modified(data, []) is data
    assert (
        len({data.fingerprint, more.fingerprint, with_modified(data, extra[:1]).fingerprint}) == 3
    )
    assert np.array_equal(with_modified(data, extra).images, more.images)


TWINS = [(2, "brg"), (2, "blurred"), (3, "blurred"), (0, "tiled")]


@pytest.mark.parametrize(
    "part", [{"kind": "red", "classes": [0]}, {"kind": "brg", "classes": [10]}, {"kind": "brg"}]
)
def test_extra_classes_that_cannot_be_made_are_refused(
    photographs: Make, part: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest, match=r"10 classes|an extra class has a kind"):
        with_modified(photographs(20, 16), [part])


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.toml")))
def test_every_bundled_recipe_builds_its_network(name: str) -> None:
    recipe = read_recipe(name)
    with torch.device("meta"):
        network = build(recipe["architecture"])
    if recipe["kind"] == "subject":
        twins = sum(len(part["classes"]) for part in recipe.get("extra", []))
        assert recipe["architecture"]["classes"] == 100 + twins
        subject = Subject(
            name, network.to_empty(device="cpu").eval(), (84, 84), (0.5,) * 3, (0.25,) * 3
        )
        assert list(subject.shapes().values())[-1] == (100 + twins,)


# ---------------------------------------------------------------- several processes


def two_processes(
    folder: Path, *words: object, run: str = "run"
) -> subprocess.CompletedProcess[str]:
    """`phosphene train` with these words, by torchrun."""
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        "torchrun",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
        "--",
        "phosphene",
        "train",
    ]
    command += [*map(str, words), "--run", str(folder / run), "--device", "cpu"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_two_processes_train_as_one_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    """The real engine: torchrun, two processes, gloo.

    Both hold the same weights, and see different photographs.
    """
    pytest.importorskip("pyarrow")
    recipe = tmp_path / "two.toml"
    recipe.write_text(
        toml({**SUBJECT, "batch": 100, "epochs": 1, "sizes": [[0.0, VIEW]], "evaluate_every": 9})
    )
    train = partial(two_processes, tmp_path, "subject", str(recipe), "--data", str(CI_SAMPLE))
    whole = train(run="whole")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("two.safetensors") == 1, "the first process alone writes"
    for budget in (0.0001, 60):
        part = train("--time-budget", budget, run="parts")
        assert part.returncode == 0, part.stderr
    assert "the same command goes on" not in part.stdout
    one, other = (load_file(tmp_path / run / "two.safetensors") for run in ("whole", "parts"))
    assert same(one, other)
    recipe.write_text(recipe.read_text().replace("batch = 100", "batch = 99"))
    refused = train(run="odd")
    assert refused.returncode != 0
    assert "a batch of 99 cannot be shared by 2 processes" in refused.stderr


@pytest.mark.skipif(not CI_SAMPLE.exists(), reason="no ../shared/data here")
def test_two_processes_train_a_generator_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    """All four stages by the real engine, in an encoder and a recipe that are tiny."""
    pytest.importorskip("pyarrow")
    encoder, recipe = tmp_path / "tiny.safetensors", tmp_path / "two.toml"
    write_subject(encoder)
    settings = copy.deepcopy(GENERATOR)
    settings["image"] |= {"extrapolated": 0.5}
    recipe.write_text(toml(settings))
    words = ["generator", recipe, "--encoder", encoder, "--images", CI_SAMPLE]
    train = partial(two_processes, tmp_path, *words)
    whole = train(run="whole")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("two.safetensors") == 1, "the first process alone writes"
    for stage in (
        "code_regressor",
        "image",
    ):  # begun again from what the stages before it have left
        shutil.copytree(tmp_path / "whole", tmp_path / stage)
        shutil.rmtree(tmp_path / stage / stage)
        again = train(run=stage)
        assert again.returncode == 0, again.stderr
        one, other = (load_file(tmp_path / run / "two.safetensors") for run in ("whole", stage))
        assert same(one, other)
    alone = tmp_path / "alone"
    init_from = [*words, "--run", alone, "--device", "cpu"]
    subprocess.run(
        [Path(sys.executable).parent / "phosphene", "train", *map(str, init_from)], check=True
    )
    assert not same(load_file(alone / "two.safetensors"), one), "two see other photographs than one"


def test_what_a_generators_training_cannot_do_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from phosphene import cli

    words = [
        "phosphene",
        "train",
        "generator",
        "objects-fc6",
        "--images",
        str(tmp_path),
        "--run",
        str(tmp_path / "r"),
    ]
    monkeypatch.setattr("sys.argv", [*words, "--discriminator", "c"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "--discriminator goes with --init-from" in capfd.readouterr().err
    assert not (tmp_path / "r").exists()


def test_one_process_alone_changes_nothing() -> None:
    alone, batch = Processes(), torch.arange(7)
    assert torch.equal(alone.shard(batch), batch)
    assert [alone.any(here) for here in (True, False)] == [True, False]
    assert alone.counters == ()
    shares = [Processes(rank, 2).shard(torch.arange(6)).tolist() for rank in (0, 1)]
    assert shares == [[0, 2, 4], [1, 3, 5]]
