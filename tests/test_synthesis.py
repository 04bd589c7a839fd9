"""The climb: closed forms, a transcription of the paper's, batches, counts, failures."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import phosphene
from phosphene.code_statistics import CodeStatistics
from phosphene.errors import BadRequest, Notice, PhospheneError
from phosphene.images import crossed_out, to_pixels
from phosphene.notebook import synthesize
from phosphene.optimizers.adam import Adam
from phosphene.optimizers.whitened import Whitened
from phosphene.priors import Generated, Prior, load_prior
from phosphene.priors.fourier import Fourier
from phosphene.priors.pixels import Pixels
from phosphene.subjects import Subject
from phosphene.synthesis import (
    CLIMBS,
    NOT_ABOVE,
    UNNAMED,
    Climb,
    Member,
    climb_all,
    climb_batch,
    joined,
    loop,
    settings,
    tiles,
    view,
)
from phosphene.testing import (
    CODE,
    IMAGE,
    VIEW,
    TinyGenerator,
    TinyNet,
    hook_count,
    lively,
    statistics_of,
    tiny_generated,
    tiny_subject,
)
from phosphene.units import Direction, Target, Unit

SHORT = Climb.of(steps=12, rate=0.3)
PAPER = dataclasses.replace(CLIMBS["paper"], steps=30)


def one(unit: Unit | Direction, weight: float = 1.0) -> Target:
    return Target(((weight, unit),), str(unit))


def member(layer: str, channel: int, position: Any = "centre", seed: int = 0) -> Member:
    return Member(one(Unit(layer, channel, position)), seed)


class CodeIsImage(nn.Module):
    """The identity: a code of 3·n·n numbers is the image."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.image_size = self.view_size = size

    def forward(self, codes: Tensor) -> Tensor:
        return codes.view(-1, 3, self.image_size, self.image_size)


class Counted(nn.Module):
    """The wrapped module, its forward and backward passes counted."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.forwards, self.backwards = module, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        y = self.module(x)
        if y.requires_grad:
            y.register_hook(self._back)
        return y

    def _back(self, gradient: Tensor) -> None:
        self.backwards += 1


class Fails(nn.Module):
    """Raises in its n-th pass."""

    def __init__(self, error: BaseException, at: int) -> None:
        super().__init__()
        self.error, self.left = error, at

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if not self.left:
            raise self.error
        return x


# ---------------------------------------------------------------- closed forms


def linear(dimensions: int, weight: Tensor) -> Subject:
    network = nn.Sequential(nn.Flatten(), nn.Linear(dimensions, 1, bias=False)).double()
    network[1].weight.data.copy_(weight[None])
    return Subject("linear", network, (4, 4), (0.0,) * 3, (1.0,) * 3)


def identity(mean: float = 100.0) -> Generated:
    """The identity generator whose statistics put the origin far inside of the box."""
    torch.manual_seed(5)
    statistics = statistics_of(
        mean + torch.randn(300, 48).double() * torch.linspace(0.5, 2, 48).double(), axes=48
    )
    return Generated(CodeIsImage(4), statistics)


def test_a_climb_names_what_takes_options_and_former_names() -> None:
    with pytest.raises(BadRequest, match=r"Climb\(…\) takes no 'rate'; Climb.of\(rate=…\) takes"):
        Climb(rate=0.1)  # type: ignore[call-arg]
    with pytest.warns(Notice, match="the setting rule is called optimizer now"):
        assert Climb.of(rule="mean") == Climb.of(optimizer="mean")
    climb = Climb.of(rate=0.2)
    assert climb == copy.deepcopy(climb) == pickle.loads(pickle.dumps(climb))


def test_a_linear_units_preferred_input_under_decay_is_its_weight_vector() -> None:
    weight, generated, decay, rate = torch.rand(48).double() + 0.1, identity(), 0.9, 0.01
    unit = float(generated.statistics.std.mean()) / 3.74  # of the paper's step size
    climb = Climb.of(
        steps=400,
        rate=rate,
        last_rate=rate,
        optimizer="mean",
        constraint="box",
        decay=decay,
        keep="last",
    )
    (code,) = climb_batch(linear(48, weight), [member("1", 0)], generated, climb).codes
    wanted = (
        rate * unit * weight / weight.mean() * decay / (1 - decay)
    )  # where step and decay are even
    torch.testing.assert_close(code, wanted, rtol=1e-12, atol=1e-12)


def test_the_least_preferred_input_of_a_linear_unit_is_the_weight_vector_turned_round() -> None:
    weight, generated, rate = torch.randn(48).double(), identity(), 0.01
    unit = float(generated.statistics.std.mean()) / 3.74
    climb = Climb.of(steps=400, rate=rate, last_rate=rate, optimizer="mean", decay=0.9)
    least = Member(one(Unit("1", 0)).negative(), 0)
    most, fewest = climb_batch(linear(48, weight), [member("1", 0), least], generated, climb).codes
    wanted = rate * unit * weight / weight.abs().mean() * 0.9 / 0.1
    torch.testing.assert_close(most - generated.statistics.mean, wanted, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(fewest - generated.statistics.mean, -wanted, rtol=1e-9, atol=1e-10)


def test_the_whitened_step_follows_the_covariance() -> None:
    """Steepest ascent where natural codes are white is Σ·w in the code itself."""
    weight, generated, rate = torch.randn(48).double(), identity(), 0.01
    s = generated.statistics
    covariance = s.axes.T @ torch.diag(s.variances) @ s.axes
    climb = Climb.of(steps=400, rate=rate, last_rate=rate, optimizer="whitened", decay=0.9)
    (code,) = climb_batch(linear(48, weight), [member("1", 0)], generated, climb).codes
    white = (
        weight @ covariance @ weight / 48
    ).sqrt()  # root mean square of the gradient in white coordinates
    torch.testing.assert_close(
        code - s.mean, rate * covariance @ weight / white * 9, rtol=1e-6, atol=1e-9
    )


def test_step_sizes_fall_in_a_line() -> None:
    optimizer = Adam(rate=8.0, last_rate=0.0)
    optimizer.begin(torch.zeros(1, 2), Pixels(4), 4, [0])
    assert [optimizer.rate_at(step) for step in range(4)] == [8.0, 6.0, 4.0, 2.0]


# ---------------------------------------------------------------- the paper, transcribed


def transcribed_paper_climb(
    network: Callable[[Tensor], Tensor],
    generator: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    seed: int,
    steps: int,
) -> Tensor:
    """Climb as method.md §2 says: act_max.py of 2016, one code, no library of ours.

    `network` gives the unit.
    """
    unit = (
        std.mean() / 3.74
    )  # the paper's sizes are in units of its own code, whose σ is 3.74 on the average
    y = unit * torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).double()
    for i in range(steps):
        step_size = 8 + (1e-10 - 8) * i / steps
        y.requires_grad_()
        x0 = generator(y[None])
        cropped = x0[:, :, 1:15, 1:15].detach().requires_grad_()
        (g,) = torch.autograd.grad(network(cropped), cropped)
        x = cropped.detach() + step_size * g / g.abs().mean()
        updated = x0.detach().clone()
        updated[:, :, 1:15, 1:15] = x
        (gc,) = torch.autograd.grad(x0, y, grad_outputs=updated - x0.detach())
        y = y.detach() + unit * step_size * gc / gc.abs().mean()
        y = torch.minimum(torch.maximum(y, torch.zeros_like(y)), mean + 3 * std)
        y = 0.99 * y
    return y


def plain_layers(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    colours = [
        torch.tensor(v, dtype=torch.float64).view(3, 1, 1)
        for v in ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    ]
    conv = network.conv((images - colours[0]) / colours[1])
    block = network.block[0](conv.relu())
    return {"conv": conv, "block": block, "fc": network.fc(torch.tanh(block.relu()).flatten(1))}


@pytest.mark.parametrize(
    ("unit", "read"),
    [
        (Unit("fc", 3), lambda layers: layers["fc"][0, 3]),
        (Unit("conv", 2), lambda layers: layers["conv"][0, 2, 7, 7]),
        (
            Unit("block", 5, (1, 4)),
            lambda layers: layers["block"][0, 5, 1, 4],
        ),  # its ReLU is read from before, if shut
    ],
)
def test_the_paper_climb_is_the_papers(
    exact_subject: Subject,
    exact_generated: Generated,
    unit: Unit,
    read: Callable[[dict[str, Tensor]], Tensor],
) -> None:
    s = exact_generated.statistics
    result = synthesize(exact_subject, [one(unit)], prior=exact_generated, climb=PAPER, seeds=[7])
    wanted = transcribed_paper_climb(
        lambda images: read(plain_layers(exact_subject.network, images)),
        exact_generated.generator,
        s.mean,
        s.std,
        seed=7,
        steps=30,
    )
    torch.testing.assert_close(result.codes[0], wanted, rtol=1e-10, atol=1e-10)
    assert (wanted < 0.989 * (s.mean + 3 * s.std)).any(), (
        "all at the bound: the transcription would prove nothing"
    )


def test_the_papers_settings_are_the_papers() -> None:
    climb = CLIMBS["paper"]
    assert climb.steps == 200
    assert climb.options == {"rate": 8.0, "last_rate": 1e-10, "decay": 0.99, "sigmas": 3.0}
    assert (climb.optimizer, climb.constraint, climb.distribution, climb.cycle, climb.shift) == (
        "mean",
        "box",
        "normal",
        0.0,
        0,
    )


def test_momentum_steps_along_the_mean_of_the_gradients_on_the_way(generated: Generated) -> None:
    """Two gradients, where natural codes are white, give the directions by hand."""
    start = generated.start(0)[None]
    first, second = torch.randn(2, *start.shape, generator=torch.Generator().manual_seed(0))

    def unit(white: Tensor) -> Tensor:
        return white / white.square().mean().sqrt()

    optimizer = Whitened(rate=0.5, last_rate=0.5, momentum=0.75)
    optimizer.begin(start, generated, 2, [0])
    for gradient in (first, second):
        codes = optimizer.ask()
        optimizer.tell(codes, torch.zeros(1, 1), lambda gradient=gradient: gradient[:, None])
    white = [unit(generated.statistics.whitened(each, 1.0)) for each in (first, second)]
    directions = [white[0], unit(0.75 * 0.25 * white[0] + 0.25 * white[1])]
    steps = [generated.statistics.whitened(0.5 * each, 1.0) for each in directions]
    torch.testing.assert_close(optimizer.current(), start + steps[0] + steps[1])


# ---------------------------------------------------------------- batches, seeds, counts


MIXED = [
    member("conv", 2, (3, 9), 3),
    Member(one(Unit("fc", 5), -1.0), 1),
    member("block", 1, "max", 2),
    Member(Target(((1.0, Unit("fc", 3)), (-0.5, Unit("block", 2, "mean"))), "difference"), 0),
    Member(one(Direction("block", (1.0, -2.0, 0.0, 1.0, 0.5, 0.0, 0.0, 3.0), (1, 1))), 4),
    member("relu", 4, (13, 0), 0),
]


@pytest.mark.parametrize(
    "climb",
    [
        SHORT,
        SHORT.changed(shift=1),
        SHORT.changed(optimizer="mean", constraint="box", distribution="normal"),
        SHORT.changed(optimizer="adam", tv=0.1, blur=0.7, shift=1),
    ],
    ids=["default", "shift", "mean", "adam"],
)
def test_a_batch_climbs_as_its_members_would_alone(
    exact_subject: Subject, exact_generated: Generated, climb: Climb
) -> None:
    together = climb_batch(exact_subject, MIXED, exact_generated, climb)
    for i, each in enumerate(MIXED):
        alone = climb_batch(exact_subject, [each], exact_generated, climb)
        torch.testing.assert_close(together.codes[i], alone.codes[0], rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(together.scores[i], alone.scores[0])


def test_a_probability_climbs_alone_too(exact_subject: Subject, exact_generated: Generated) -> None:
    climb, members = (
        SHORT.changed(objective="probability"),
        [member("fc", c, seed=c) for c in range(4)],
    )
    together = climb_batch(exact_subject, members, exact_generated, climb)
    alone = joined(list(climb_all(exact_subject, members, exact_generated, climb, batch=1)))
    torch.testing.assert_close(together.codes, alone.codes, rtol=1e-5, atol=1e-6)
    assert (together.scores > together.start_scores).all()


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_the_batch_size_changes_no_conclusion(
    exact_subject: Subject, exact_generated: Generated, batch: int
) -> None:
    whole = climb_batch(exact_subject, MIXED, exact_generated, SHORT)
    parts = joined(list(climb_all(exact_subject, MIXED, exact_generated, SHORT, batch=batch)))
    torch.testing.assert_close(parts.codes, whole.codes, rtol=1e-11, atol=1e-12)
    assert parts.members == whole.members
    assert parts.statuses == whole.statuses


@pytest.mark.parametrize("name", ["generated", "pixels", "fourier"])
def test_the_same_seed_gives_the_same_bits_and_another_gives_others(
    subject: Subject, name: str
) -> None:
    prior: Prior = {
        "generated": tiny_generated(),
        "pixels": Pixels(16, 14),
        "fourier": Fourier(16, 14),
    }[name]
    climb = settings("default", prior, steps=5)
    runs = [synthesize(subject, "fc:0-1", prior=prior, climb=climb, seeds=[4]) for _ in range(2)]
    assert torch.equal(runs[0].codes, runs[1].codes)
    assert torch.equal(runs[0].images, runs[1].images)
    other = synthesize(subject, "fc:0-1", prior=prior, climb=climb, seeds=[5])
    assert not torch.equal(runs[0].codes, other.codes)


def test_a_climb_leaves_the_global_random_numbers_alone(
    subject: Subject, generated: Generated
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    climb_batch(subject, [member("fc", 0)], generated, SHORT.changed(shift=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_n_steps_cost_n_passes_and_the_stated_measuring_ones(generated: Generated) -> None:
    """One forward and backward pass sees who can start.

    Three forward passes measure start, best and end.
    """
    counted = Counted(lively(TinyNet()))
    generator = Counted(generated.generator)
    generator.image_size, generator.view_size = IMAGE, VIEW
    prior = Generated(generator, generated.statistics)
    told: list[int] = []
    members = [member("module.fc", c) for c in range(3)]
    climb_batch(
        tiny_subject(counted),
        members,
        prior,
        SHORT.changed(steps=9),
        report=told.append,
    )
    assert (generator.forwards, generator.backwards) == (9 + 1 + 3, 9 + 1)
    assert counted.forwards == 9 + 1 + 3
    assert told == [3] * 9


def test_the_forward_pass_stops_at_the_deepest_layer_that_is_needed(generated: Generated) -> None:
    network = lively(TinyNet())
    network.squash, network.fc = Counted(network.squash), Counted(network.fc)
    subject = tiny_subject(network)
    climb_batch(subject, [member("conv", 0), member("block", 0)], generated, SHORT)
    assert network.squash.forwards == network.fc.forwards == 0
    climb_batch(subject, [member("conv", 0), member("squash", 0)], generated, SHORT)
    assert network.squash.forwards == SHORT.steps + 4
    assert network.fc.forwards == 0


def test_no_steps_measure_the_start(subject: Subject, generated: Generated) -> None:
    result = climb_batch(subject, [member("fc", 0)], generated, Climb.of(steps=0))
    assert torch.equal(result.scores, result.start_scores)
    assert torch.equal(result.codes[0], generated.start(0))
    assert result.statuses == ("climbed",)


# ---------------------------------------------------------------- rows and columns


class Wide(nn.Module):
    """Maps that are not square: 4 rows of 20 columns from 8 × 40 pixels, or the other way round."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.squash = nn.Tanh()
        self.fc = nn.Conv2d(4, 5, (3, 5) if not turned else (5, 3), padding="same")
        self.fc.weight.data = torch.linspace(-1, 1, 300).sin().view(5, 4, 3, 5)
        if turned:
            self.conv.weight.data = self.conv.weight.data.transpose(2, 3).contiguous()
            self.fc.weight.data = self.fc.weight.data.transpose(2, 3).contiguous()

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.squash(self.conv(images)))


class Canvas(Prior):
    """The image is the code; the start is turned where asked."""

    size = (16, 16)
    climb = "fourier"

    def __init__(self, turned: bool) -> None:
        self.turned = turned

    def images(self, codes: Tensor) -> Tensor:
        return codes.sigmoid()

    def start(self, seed: int) -> Tensor:
        drawn = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed)).double()
        return drawn.transpose(1, 2) if self.turned else drawn

    def mean(self) -> Tensor:
        return torch.zeros(3, 16, 16).double()


@pytest.mark.parametrize(
    ("where", "turned"),
    [
        ((1, 17), (17, 1)),
        ("centre", "centre"),
        ((2, 10), "centre"),
        ("max", "max"),
        ("mean", "mean"),
    ],
)
def test_maps_that_are_not_square_give_the_same_answer_transposed(where: Any, turned: Any) -> None:
    found = []
    for is_turned, position, size in ((False, where, (8, 40)), (True, turned, (40, 8))):
        subject = tiny_subject(Wide(is_turned), size)
        assert subject.shapes()["fc"] == ((5, 20, 4) if is_turned else (5, 4, 20))
        subject.network.double()
        members = [member("fc", 3, position, 1), member("conv", 2, position, 2)]
        climb = settings("fourier", Canvas(is_turned), steps=6, shift=0)
        found.append(climb_batch(subject, members, Canvas(is_turned), climb))
    torch.testing.assert_close(
        found[0].codes, found[1].codes.transpose(2, 3), rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(found[0].scores, found[1].scores)
    assert (found[0].scores > found[0].start_scores).all()


# ---------------------------------------------------------------- hooks


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("at", [1, 3, 6])
def test_no_hook_remains_after_a_failure(
    generated: Generated, error: BaseException, at: int
) -> None:
    network = lively(TinyNet())
    network.squash = nn.Sequential(nn.Tanh(), Fails(error, at))
    subject = tiny_subject(network)
    with pytest.raises(type(error)):
        climb_batch(subject, [member("fc", 0), member("conv", 1)], generated, SHORT)
    assert hook_count(network) == 0


def test_no_hook_remains_after_success(subject: Subject, generated: Generated) -> None:
    climb_batch(subject, MIXED, generated, SHORT)
    assert hook_count(subject.network) == 0


def test_a_users_module_keeps_its_parameters_and_gradients(generated: Generated) -> None:
    network = TinyNet()
    kept = {name: value.detach().clone() for name, value in network.named_parameters()}
    network.train()
    network.conv.eval()
    synthesize(network, "fc:1", prior=generated, climb=SHORT, size=(VIEW, VIEW))
    assert all(torch.equal(value, kept[name]) for name, value in network.named_parameters())
    assert all(value.requires_grad and value.grad is None for value in network.parameters())
    assert network.training
    assert not network.conv.training


# ---------------------------------------------------------------- units that cannot start


class Shut(nn.Module):
    """A network with units that cannot start.

    Channel 0 is shut for every image by its bias, 1 has no weights, 2 opens for some starts only.
    """

    def __init__(self, functional: bool, threshold: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.conv.bias.data[0] = -30.0
        self.conv.weight.data[1] = 0.0
        self.conv.bias.data[1] = -1.0
        self.conv.bias.data[2] = -threshold
        self.act = nn.Identity() if functional else nn.ReLU()
        self.functional = functional

    def forward(self, images: Tensor) -> Tensor:
        x = self.act(self.conv(images))
        return x.relu() if self.functional else x


class Functional(nn.Module):
    """As `Shut` with a ReLU that no hook can see: the layer `whole` gives it."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.whole = Shut(True, threshold)

    def forward(self, images: Tensor) -> Tensor:
        return self.whole(images)


def test_a_unit_that_is_shut_after_its_relu_starts_from_before_it(generated: Generated) -> None:
    subject = tiny_subject(Shut(False))
    result = climb_batch(subject, [member("act", 0)], generated, SHORT)
    assert result.statuses == (NOT_ABOVE,)
    assert result.curves[0, -1] > result.curves[0, 0], (
        "the climb follows the value from before the ReLU"
    )
    assert result.scores[0] == 0, "what is reported is the unit itself"


def test_a_unit_without_a_path_to_the_image_is_reported_dead_and_crossed_out(
    generated: Generated,
) -> None:
    subject = tiny_subject(Shut(False))
    result = climb_batch(subject, [member("act", 1), member("act", 3)], generated, SHORT)
    assert result.statuses == ("dead", "climbed")
    shown, labels = tiles(result)
    assert np.array_equal(shown[0], crossed_out(to_pixels(result.images[0].numpy())))
    assert np.array_equal(shown[1], to_pixels(result.images[1].numpy()))
    assert labels[0].endswith("dead")


class Placed(nn.Module):
    """`place` says where a picture is in its batch, and never looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Embedding(1, 4)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3)) + self.place(
            torch.zeros(len(images), dtype=torch.int64)
        )


@pytest.mark.parametrize("trainable", [False, True])
def test_a_unit_that_only_its_own_weights_reach_is_dead(
    generated: Generated, trainable: bool
) -> None:
    network = Placed().requires_grad_(trainable)
    result = climb_batch(
        tiny_subject(network), [member("place", 1), member("conv", 2)], generated, SHORT
    )
    assert result.statuses == ("dead", "climbed")


def test_a_dead_unit_does_not_disturb_the_others(generated: Generated) -> None:
    subject = tiny_subject(Shut(False))
    beside_dead = climb_batch(subject, [member("act", 1), member("act", 3)], generated, SHORT)
    beside_alive = climb_batch(subject, [member("act", 2), member("act", 3)], generated, SHORT)
    assert torch.equal(beside_dead.codes[1], beside_alive.codes[1])


def test_a_functional_relus_silent_unit_is_tried_from_other_starts(generated: Generated) -> None:
    """The threshold lies between the first start's value and the best of the others."""
    starts = torch.stack([generated.start(0 + attempt * 1_000_003) for attempt in range(8)])
    network = Functional(0.0)
    subject = tiny_subject(network)
    with torch.no_grad():
        values = network.whole.conv(subject.prepare(generated.images(starts)[..., 1:15, 1:15]))[
            :, 2, 6, 6
        ]
    if values.argmax() == 0:
        network.whole.conv.weight.data[2] *= -1
        values = -values
    threshold = float(values[0] + values.max()) / 2
    network.whole.conv.bias.data[2] = network.whole.conv.bias.data[2] - threshold
    never = network.whole.conv.bias.data[0] - 1e6
    network.whole.conv.bias.data[0] = never
    result = climb_batch(
        subject,
        [member("whole", 2), member("whole", 0), member("whole", 3)],
        generated,
        SHORT.changed(redirect=False),
    )
    assert result.statuses[:2] == ("climbed", "dead")
    assert result.start_scores[0] > 0
    assert result.scores[0] > result.start_scores[0]
    first_open = int((values > threshold).nonzero()[0])
    again = climb_batch(subject, [member("whole", 2)], generated, Climb.of(steps=0))
    assert torch.equal(again.codes[0], starts[first_open])


class Block(nn.Module):
    """A residual block of four channels, of which the first is shut by its bias.

    `close` ends the block.
    """

    def __init__(self, close: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.short, self.close = nn.Conv2d(3, 4, 1), close

    def forward(self, images: Tensor) -> Tensor:
        return self.close(self.short(images) + self.two(self.one(images).relu()))


class Network(nn.Module):
    """One block, and its shut channel's bias below the value of any of its first eight starts."""

    def __init__(
        self, close: Callable[[Tensor], Tensor], generated: Generated, shut: float
    ) -> None:
        super().__init__()
        self.block = lively(Block(close))
        starts = torch.stack([generated.start(0 + attempt * 1_000_003) for attempt in range(8)])
        with torch.no_grad():
            images = tiny_subject(self).prepare(generated.images(starts)[..., 1:15, 1:15])
            hidden = self.block.one(images).relu()
            values = (self.block.short(images) + self.block.two(hidden))[:, 0, 6:9, 6:9]
            self.block.short.bias[0] -= float(values.max()) + shut

    def forward(self, images: Tensor) -> Tensor:
        return self.block(images)


CLOSINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": nn.functional.relu,
    "method": lambda x: x.relu(),
    "torch.relu": torch.relu,
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "relu_": lambda x: x.relu_(),
    "relu6": nn.ReLU6(),
    "clamp": lambda x: x.clamp(min=0),
    "threshold": nn.Threshold(0.0, 0.0),
    "then a pool": lambda x: nn.functional.max_pool2d(x.relu(), 2),
    "then branches": lambda x: torch.cat([x.relu(), x], 1),
    "then dropout": lambda x: nn.functional.dropout(x.relu(), training=False),
}


@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_unit_that_any_relu_shuts_climbs(closing: str, generated: Generated) -> None:
    """Blocks of one's own, and those of torchvision, end in a ReLU that is no last child."""
    network = Network(CLOSINGS[closing], generated, shut=0.05)
    climb = SHORT.changed(steps=40, tries=1)
    old, new = (
        climb_batch(tiny_subject(network), [member("block", 0)], generated, how)
        for how in (dataclasses.replace(climb, **UNNAMED), climb)
    )
    assert old.statuses == ("dead",)
    assert new.statuses == ("climbed",)
    assert new.start_scores[0] == 0
    assert new.scores[0] > 0.3


def test_a_hard_swish_that_is_flat_climbs_too(generated: Generated) -> None:
    network = Network(nn.Hardswish(), generated, shut=3.05)
    climb = SHORT.changed(steps=60, tries=1)
    result = climb_batch(tiny_subject(network), [member("block", 0)], generated, climb)
    assert result.curves[0, 0] == 0
    assert result.curves[0, 1:].abs().max() > 0


def test_shut_units_climb_beside_others_as_they_would_alone(exact_generated: Generated) -> None:
    network = Network(nn.functional.relu, tiny_generated(), shut=0.05).double()
    members = [member("block", 0), member("block", 2, seed=3), member("block", 0, seed=5)]
    climb = SHORT.changed(steps=25)
    together = climb_batch(tiny_subject(network), members, exact_generated, climb)
    assert (together.scores > 0).all()
    for i, each in enumerate(members):
        alone = climb_batch(tiny_subject(network), [each], exact_generated, climb)
        torch.testing.assert_close(together.codes[i], alone.codes[0], rtol=1e-10, atol=1e-11)


class Sealed(nn.Module):
    """A unit that answers, and has a gradient, only within a distance of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.there, self.within = nn.Identity(), torch.zeros(()), 0.0

    def forward(self, images: Tensor) -> Tensor:
        far = (images - self.there).square().flatten(1).mean(1, keepdim=True)
        answer = torch.where(far < self.within, 1 + self.within - far, -far)
        return self.out(torch.cat([answer, answer * 0 + 0.5, *[answer * 0 + 0.6] * 4], 1))


def test_a_climb_that_fails_begins_again_from_another_start(generated: Generated) -> None:
    """From the first start five other channels still exceed it.

    The second try starts on the spot.
    """
    subject = tiny_subject(Sealed())
    with torch.no_grad():
        there = generated.images(generated.start(8 * 1_000_003)[None])[..., 1:15, 1:15]
        subject.network.there, subject.network.within = subject.prepare(there) + 0.002, 1e-3
    climb = SHORT.changed(steps=2, rate=0.01)
    once = climb_batch(subject, [member("out", 0)], generated, dataclasses.replace(climb, tries=1))
    again = climb_batch(subject, [member("out", 0)], generated, climb)
    assert once.scores[0] < 0
    assert again.scores[0] > 0.9
    assert again.start_scores[0] > 0.9, "the start that is told is that of the try that is kept"


def test_the_best_code_is_kept_and_the_last_is_told(generated: Generated) -> None:
    """A step size that is far too large at the end leads away from the best code."""
    subject = tiny_subject()
    climb = Climb.of(steps=20, rate=0.2, last_rate=30.0, decay=1.0, tries=1)
    members = [member("conv", channel, seed=channel) for channel in range(6)]
    best = climb_batch(subject, members, generated, climb)
    last = climb_batch(subject, members, generated, dataclasses.replace(climb, keep="last"))
    assert torch.equal(best.curves, last.curves), "what is kept does not change the way"
    assert torch.equal(best.last_scores, last.scores)
    assert last.kept.tolist() == [20] * 6
    assert (best.scores >= last.scores).all()
    left = (best.kept < 20).nonzero().flatten().tolist()
    assert len(left) > 2
    for i in left:
        at = int(best.kept[i])
        assert best.curves[i, at] == best.curves[i].max()
        assert best.scores[i] == pytest.approx(float(best.curves[i, at]), abs=0.05)
        assert best.scores[i] > last.scores[i]


def test_the_last_code_is_kept_where_it_is_the_best(subject: Subject, generated: Generated) -> None:
    climb = SHORT.changed(steps=10, rate=0.05)
    result = climb_batch(subject, [member("fc", 2)], generated, climb)
    assert result.kept.tolist() == [10]
    assert torch.equal(result.scores, result.last_scores)


# ---------------------------------------------------------------- codes below zero


def signed() -> Generated:
    """Return a generator of codes that lie about zero, as logits and embeddings do."""
    torch.manual_seed(7)
    codes = torch.randn(400, CODE).double() * torch.linspace(0.5, 2, CODE)
    return Generated(lively(TinyGenerator()).double(), statistics_of(codes, axes=CODE))


def test_starts_and_climbs_of_signed_codes_use_both_halves(exact_subject: Subject) -> None:
    generated = signed()
    s = generated.statistics
    starts = torch.stack([generated.start(seed) for seed in range(200)])
    assert float((starts < 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert (starts >= s.lower).all()
    for constraint in ("gaussian", "box"):
        climb = Climb.of(steps=30, rate=0.5, constraint=constraint, decay=0.999)
        result = climb_batch(exact_subject, [member("fc", c) for c in range(6)], generated, climb)
        assert (result.codes < -0.1).any()
        assert (result.codes >= torch.maximum(s.lower, s.mean - 3 * s.std)).all()
        half = dataclasses.replace(climb, lower="zero")
        clamped = climb_batch(exact_subject, [member("fc", c) for c in range(6)], generated, half)
        assert (clamped.codes >= 0).all(), "as version 0.1.0 did"
        assert result.scores.mean() > clamped.scores.mean() + 0.05


# ---------------------------------------------------------------- numbers that are not


class Breaks(nn.Module):
    """`bad` gives something that is not finite wherever its input, `good`, is above a limit."""

    def __init__(self, value: float, above: float) -> None:
        super().__init__()
        self.good, self.bad, self.value, self.above = (
            nn.Conv2d(3, 4, 3),
            nn.Identity(),
            value,
            above,
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.good(images)
        return self.bad(torch.where(x > self.above, x * self.value, x))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("above", [-1e9, 1.0])
@pytest.mark.parametrize("rule", ["whitened", "mean", "adam"])
def test_a_number_that_is_not_finite_stops_its_member_only(
    generated: Generated, value: float, above: float, rule: str
) -> None:
    subject = tiny_subject(lively(Breaks(value, above)))
    climb = SHORT.changed(optimizer=rule, steps=25)
    whole = [member("good", 0, seed=1), member("good", 1, seed=2), member("good", 2, seed=3)]
    broken = [whole[0], member("bad", 1, seed=2), whole[2]]
    without, beside = (
        climb_batch(subject, members, generated, climb) for members in (whole, broken)
    )
    assert beside.statuses[1].startswith("stopped: not a finite number at step ")
    assert beside.statuses[0] == beside.statuses[2] == "climbed"
    for i in (0, 2):
        assert torch.equal(beside.codes[i], without.codes[i])
        assert torch.equal(beside.scores[i], without.scores[i])
        assert torch.equal(beside.curves[i], without.curves[i])
    assert beside.codes.isfinite().all(), "a stopped member stays where it last was finite"
    assert beside.images.isfinite().all()


# ---------------------------------------------------------------- precision


def test_bfloat16_comes_to_the_same_conclusion(subject: Subject, generated: Generated) -> None:
    """A unit that wins its layer clearly wins it still.

    Rounding moves a score by less than a tenth of its rise.
    """
    climb = SHORT.changed(steps=80, rate=0.2, objective="probability")
    exact, rounded = (
        synthesize(subject, "fc:0-9", prior=generated, climb=climb, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert not torch.equal(exact.codes, rounded.codes), "bfloat16 was not used"
    with torch.no_grad():
        logits, again = (subject(result.images[..., 1:15, 1:15]) for result in (exact, rounded))
    best = logits.topk(2).values
    clear = best[:, 0] - best[:, 1] > 0.3
    assert clear.sum() > 2
    assert torch.equal(logits[clear].argmax(1), again[clear].argmax(1))
    risen = exact.scores - exact.start_scores
    torch.testing.assert_close(rounded.scores, exact.scores, rtol=0, atol=0.1 * float(risen.mean()))


def test_casting_weights_once_changes_no_bit(
    subject: Subject, generated: Generated, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [member("conv", 1), member("fc", 2)]
    few = climb_batch(subject, members, generated, SHORT, precision="bfloat16")
    weights = [*subject.network.parameters(), *generated.generator.parameters()]
    assert not any(weight.requires_grad for weight in weights), "they are frozen again"
    casts = []
    cast_once = loop.cast_once
    monkeypatch.setattr(loop, "cast_once", lambda view, n: casts.append(n) or cast_once(view, 5))
    every_pass = climb_batch(subject, members, generated, SHORT, precision="bfloat16")
    assert casts == [2]
    for name in ("codes", "images", "scores", "curves"):
        assert torch.equal(getattr(few, name), getattr(every_pass, name)), name


def count_of_casts(subject: Subject, generated: Generated, members: list[Member]) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        climb_batch(subject, members, generated, SHORT, precision="bfloat16")
    return sum(each.count for each in profile.key_averages() if each.key == "aten::_to_copy")


def test_few_members_cast_weights_once(
    subject: Subject, generated: Generated, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = count_of_casts(subject, generated, [member("fc", 2)])
    monkeypatch.setattr(view, "FEW", 0)
    assert count_of_casts(subject, generated, [member("fc", 2)]) > once + 2 * SHORT.steps


# ---------------------------------------------------------------- what is asked and what comes back


def test_the_climb_climbs(subject: Subject, generated: Generated) -> None:
    result = synthesize(
        subject,
        ["fc:0-9", "conv:1@max"],
        prior=generated,
        climb=SHORT.changed(steps=40),
    )
    assert (result.scores > result.start_scores + 0.1).all()
    assert (result.curves[:, -1] > result.curves[:, 0]).all()


def test_least_goes_down_and_a_difference_goes_apart(
    subject: Subject, generated: Generated
) -> None:
    climb = SHORT.changed(steps=40)
    least, apart = Target(((-1.0, Unit("fc", 2)),)), "fc:2 - fc:7"
    result = synthesize(subject, [least, apart], prior=generated, climb=climb)
    with torch.no_grad():
        logits = subject(result.images[..., 1:15, 1:15])
    torch.testing.assert_close(
        result.scores, torch.stack([logits[0, 2], logits[1, 2] - logits[1, 7]])
    )
    assert result.scores[0] < result.start_scores[0]
    assert result.scores[1] > result.start_scores[1]


def test_scores_are_measured_on_the_eight_bit_picture(
    subject: Subject, generated: Generated
) -> None:
    result = synthesize(subject, "fc:4", prior=generated, climb=SHORT)
    pixels = to_pixels(result.images[0].numpy())
    again = torch.from_numpy(pixels).permute(2, 0, 1).float()[None] / 255
    assert torch.equal(again, result.images)
    with torch.no_grad():
        torch.testing.assert_close(subject(again[..., 1:15, 1:15])[0, 4], result.scores[0])


def test_a_start_from_the_mean_and_from_an_image(subject: Subject, generated: Generated) -> None:
    start = Climb.of(steps=0)
    result = synthesize(subject, "fc:0", prior=generated, climb=start)
    mean = climb_batch(subject, [member("fc", 0)], generated, start, start="mean")
    assert torch.equal(mean.codes[0], generated.statistics.mean)
    assert not torch.equal(mean.codes, result.codes)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    for prior in (Pixels(16, 14), Fourier(16, 14)):
        climb = settings("default", prior, steps=0)
        found = climb_batch(subject, [member("fc", 0)], prior, climb, start=image)
        torch.testing.assert_close(found.images[0], image, rtol=0, atol=0.51 / 255)


@pytest.mark.parametrize("shape", [(3, 15, 15), (1, 16, 16), (3, 16, 17), (16, 16)])
def test_a_start_image_of_another_size_is_refused(subject: Subject, shape: tuple[int, ...]) -> None:
    prior = Pixels(16, 14)
    with pytest.raises(BadRequest, match="16"):
        climb_batch(
            subject,
            [member("fc", 0)],
            prior,
            settings("default", prior, steps=0),
            start=torch.zeros(shape),
        )


def test_a_real_image_start_is_its_code(zoo: Any) -> None:
    subject = phosphene.load_subject(zoo / "subject.safetensors")
    prior = load_prior(str(zoo / "generator.safetensors"), subject)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = climb_batch(subject, [member("fc8", 0)], prior, Climb.of(steps=0), start=image)
    with torch.no_grad():
        features = nn.Sequential(*list(subject.network.children())[:10])  # conv1 … fc6
        torch.testing.assert_close(
            found.codes[0], features(subject.prepare(image[None, :, 1:15, 1:15]))[0]
        )


def test_the_cycle_pulls_towards_the_code_of_the_picture(zoo: Any) -> None:
    """PPGN's term with its whole weight, and no step: each code becomes E(G(code))."""
    subject = phosphene.load_subject(zoo / "subject.safetensors")
    prior = load_prior(str(zoo / "generator.safetensors"), subject)
    climb = Climb.of(
        steps=1, rate=0.0, constraint="none", decay=1.0, cycle=1.0, keep="last", tries=1
    )
    found = climb_batch(subject, [member("fc8", 0), member("fc8", 1, seed=1)], prior, climb)
    for seed, code in enumerate(found.codes):
        with torch.no_grad():
            image = prior.images(prior.start(seed)[None])
        torch.testing.assert_close(
            code, phosphene.priors.encode(prior, image[0]), rtol=1e-4, atol=1e-4
        )


def test_a_generator_that_names_code_as_its_encoder_runs_none(
    subject: Subject, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weights file is data: its `encoder` may not be a factory to call."""
    from phosphene.testing import write_generator

    (tmp_path / "hostile.py").write_text(
        "import pathlib\npathlib.Path('ran').touch()\ndef net(): raise ValueError\n"
    )
    monkeypatch.chdir(tmp_path)
    file = write_generator(tmp_path / "g.safetensors", "python:hostile:net")
    prior = load_prior(str(file), subject)
    with pytest.raises(PhospheneError, match="python:hostile:net"):
        climb_batch(subject, [member("fc", 0)], prior, SHORT, start=torch.zeros(3, 16, 16))
    assert not (tmp_path / "ran").exists()


def test_a_result_draws_itself(subject: Subject, generated: Generated) -> None:
    import io

    result = synthesize(
        subject, "fc:0-4", prior=generated, climb=SHORT, seeds=[0, 1], batch=4, every_frame=5
    )
    assert len(result) == 10
    assert [m.seed for m in result.members] == [0, 1] * 5
    with Image.open(io.BytesIO(result._repr_png_())) as picture:
        assert picture.format == "PNG"
    assert result.frames is not None
    assert result.frames.shape == (3, 10, 3, 16, 16)
    assert result.sheet(columns=5).shape[1] > result.sheet(columns=2).shape[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": -1}, "steps"),
        ({"steps": 10**9}, "steps"),
        ({"decay": 0.0}, "decay"),
        ({"decay": float("nan")}, "decay"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"shift": -3}, "shift"),
        ({"blur": -1.0}, "blur"),
        ({"blur": 1e9}, "blur"),
        ({"tv": float("nan")}, "tv"),
        ({"rule": "newton"}, "optimizer"),
        ({"prior": "laplace"}, "constraint"),
        ({"objective": "loudness"}, "objective"),
        ({"start": "nowhere"}, "distribution"),
        ({"cycle": -0.5}, "cycle"),
        ({"sigmas": float("nan")}, "sigmas"),
        ({"steps": 2.5}, "steps"),
        ({"rate": "fast"}, "rate"),
    ],
)
def test_settings_outside_their_range_are_refused_at_the_door(
    generated: Generated, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        settings("default", generated, **changes)


def test_other_mistakes_are_refused_at_the_door(subject: Subject, generated: Generated) -> None:
    with pytest.raises(BadRequest, match="no units given"):
        synthesize(subject, [], prior=generated)
    with pytest.raises(BadRequest, match="at most 100,000"):
        synthesize(subject, "fc:0-9", prior=generated, seeds=range(30_000))
    with pytest.raises(BadRequest, match="default, short, paper"):
        synthesize(subject, "fc:0", prior=generated, climb="fast")
    with pytest.raises(BadRequest, match="use climb default"):
        synthesize(subject, "fc:0", prior="pixels", climb="paper")
    with pytest.raises(BadRequest, match="random, mean"):
        synthesize(subject, "fc:0", prior=generated, start="anywhere")
    with pytest.raises(BadRequest, match=r"nn\.Module; got int"):
        synthesize(3, "fc:0", prior=generated)  # type: ignore[arg-type]


def test_statistics_belong_to_their_generator() -> None:
    s = tiny_generated().statistics
    assert isinstance(s, CodeStatistics)
    assert s.mean.shape == (CODE,)
    assert {f.name for f in dataclasses.fields(s)} == {
        "mean",
        "std",
        "upper",
        "axes",
        "variances",
        "rest",
        "lower",
    }
