"""Every claim's verdict can come out either way: by rows planted for and against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from phosphene.claims import (
    CLAIMS,
    c2_code_layer,
    c3_other_data,
    c4_other_architecture,
    c6_object_detectors,
    c7_neuron_or_prior,
    c8_applications,
)
from phosphene.claims.claim import Claim
from phosphene.claims.linear_probe import LinearProbe
from phosphene.statistics import Figure
from phosphene.subjects import wrap
from phosphene.training.modified import KINDS

SIGNS = {"holds": 1, "open": 0, "fails": -1}
Numbers = Callable[[int, np.random.Generator], Mapping[str, Figure]]


def yes(rng: np.random.Generator, sign: int) -> list[list[float]]:
    """A judge's answer, first and among five: nearly always, half of the time, hardly ever."""
    said = float(rng.random() < (0.5, 0.95, 0.05)[sign])
    return [[said, said]]


def value(rng: np.random.Generator, sign: int) -> float:
    """A number about 1, 0 or −1, with a spread of 1."""
    return float(sign + rng.normal())


def c2(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    codes = dict.fromkeys(c2_code_layer.PRIORS)
    units = [
        {
            "named": {code: yes(rng, sign if code == "fc6" else -sign) for code in codes},
            "repetition": {code: value(rng, 0) for code in codes},
        }
        for _ in range(60)
    ]
    seen = [
        {"image_error": {c: 2 + value(rng, sign if c == "fc6" else 0) / 4 for c in codes}}
        for _ in range(60)
    ]
    return c2_code_layer.numbers(units, seen, CLAIMS["C2"].level)


def c3(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    priors = (*c3_other_data.OWN.values(), c3_other_data.BOTH, c3_other_data.LONGEST)
    foreign = c3_other_data.OWN["caffenet-objects"]
    units = [
        {
            "subject": subject,
            "named": {prior: yes(rng, sign) for prior in priors},
            "activation": {
                prior: 10.0 + (8 * sign - 5 + rng.normal() if prior == foreign else 0)
                for prior in priors
            },
            "photographs": [1.0],
        }
        for subject in c3_other_data.OWN
        for _ in range(60)
    ]
    return c3_other_data.numbers(units, CLAIMS["C3"].level)


def c4(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    priors = [prior for prior in c4_other_architecture.MATRIX.values() if prior]
    units = [
        {
            "subject": subject,
            "named": {prior: yes(rng, sign if prior == own else -sign) for prior in priors},
        }
        for subject, own in c4_other_architecture.MATRIX.items()
        for _ in range(60)
    ]
    return c4_other_architecture.numbers(units, CLAIMS["C4"].level)


def c4_any(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    units = [{"named": {"encoder": yes(rng, sign), "other": yes(rng, -sign)}} for _ in range(60)]
    level = c4_other_architecture.ANY_NETWORK.level
    return c4_other_architecture.numbers_any(units, "encoder", "other", level)


def c6(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    objects = ["tree", "car", "sea", "bed"]
    units = []
    for i in range(80):
        own = objects[i % 4]
        shown = {1: own, 0: objects[rng.integers(4)], -1: objects[(i + 1) % 4]}[sign]
        found = {"detector": yes(rng, sign)[0][0], "detector_untrained": yes(rng, -sign)[0][0]}
        units.append({**found, "object": own, "shows": shown, "exemplars_show": [own] * 9})
    return c6_object_detectors.numbers(units, CLAIMS["C6"].level)


def c7(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    twins = [
        {"kind": kind, "auc": 0.5 + 0.2 * sign + rng.normal() / 10}
        for kind in KINDS
        for _ in range(8)
    ]
    level = CLAIMS["C7"].level
    return {**c7_neuron_or_prior.numbers(twins, level), **c7_control(sign, rng)}


def c7_control(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    units = [
        {"distance_control": 5 + value(rng, sign), "distance_exemplars": 5 + value(rng, 0)}
        for _ in range(60)
    ]
    return c7_neuron_or_prior.control_numbers(units, CLAIMS["C7"].level)


def c8(sign: int, rng: np.random.Generator) -> Mapping[str, Figure]:
    units: list[dict[str, Any]] = []
    for _ in range(60):
        units.append({"use": "two", "both": yes(rng, sign)[0][0], "alone": yes(rng, -sign)[0][0]})
        start = {"goal_before": yes(rng, -sign)[0][0], "goal_after": yes(rng, sign)[0][0]}
        units.append(
            {
                "use": "start",
                **start,
                "moved": 5 + value(rng, 0),
                "moved_from_random": 5 + value(rng, sign),
            }
        )
        named = {"0.01": yes(rng, -sign)[0][0], "0.1": 0.5, "1": yes(rng, sign)[0][0]}
        units.append({"use": "training", "named": named})
    units += [
        {"use": "textures", "right": 0.1 + 0.08 * sign + rng.normal() / 50} for _ in range(10)
    ]
    return c8_applications.numbers(units, CLAIMS["C8"].level)


PLANTED: dict[str, tuple[Claim, Numbers]] = {
    **{
        name: (CLAIMS[name], numbers)
        for name, numbers in zip(
            ("C2", "C3", "C4", "C6", "C7", "C8"), (c2, c3, c4, c6, c7, c8), strict=True
        )
    },
    "C4, any network": (c4_other_architecture.ANY_NETWORK, c4_any),
    "C7's control": (c7_neuron_or_prior.ANY_NETWORK, c7_control),
}


@pytest.mark.parametrize("verdict", SIGNS)
@pytest.mark.parametrize("name", PLANTED)
def test_a_verdict_follows_from_what_was_measured(name: str, verdict: str) -> None:
    claim, numbers = PLANTED[name]
    found = numbers(SIGNS[verdict], np.random.default_rng(2))
    assert set(claim.verdicts(found)) == {verdict}
    assert claim.verdict(found) == verdict


def test_copies_of_one_detector_decide_nothing_by_object() -> None:
    shown = [("sea", "sea")] * 20 + [(f"object {i}", f"object {(i + 1) % 10}") for i in range(10)]
    units = [
        {
            "detector": 1.0,
            "detector_untrained": 0.0,
            "object": own,
            "shows": said,
            "exemplars_show": [own],
        }
        for own, said in shown
    ]
    found = c6_object_detectors.numbers(units, CLAIMS["C6"].level)
    assert found["show it"].low > 0
    assert (found["by object"].n, found["by object"].low < 0) == (11, True)


def test_every_claim_says_what_it_expects() -> None:
    assert list(CLAIMS) == [f"C{i}" for i in range(1, 9)]
    for claim in CLAIMS.values():
        assert claim.expected
        assert len({each.number for each in claim.expected}) == len(claim.expected)
        assert claim.level == pytest.approx(0.05 / len(claim.expected))


# ---------------------------------------------------------------- measures


def test_what_comes_again_is_told_from_what_does_not() -> None:
    patch = torch.randn(3, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    once = torch.randn(3, 8, 12, 12, generator=torch.Generator().manual_seed(1))
    assert c2_code_layer.moved_likeness(patch.repeat(1, 1, 3, 3)).min() > 0.99
    assert c2_code_layer.moved_likeness(once).max() < 0.3


def test_the_hue_turns_by_a_third_with_the_channels() -> None:
    images = (
        torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 0.3, 0.1])[:, None, None]
    )
    assert c7_neuron_or_prior.MEASURES["brg"](images, images[:, [2, 0, 1]]) == pytest.approx(1)
    assert c7_neuron_or_prior.MEASURES["brg"](images, images) == pytest.approx(-0.5)


def test_a_blur_takes_sharpness_and_tiles_bring_edges(photographs: Any) -> None:
    data = photographs(20, 48)
    plain = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    for kind, sign in (("blurred", -1), ("tiled", 1)):
        made = np.stack([KINDS[kind](picture, i) for i, picture in enumerate(data.images)])
        modified = torch.from_numpy(made).permute(0, 3, 1, 2).float() / 255
        assert sign * c7_neuron_or_prior.MEASURES[kind](plain, modified) > 0.05
        assert c7_neuron_or_prior.MEASURES[kind](plain, plain) == 0


def test_the_square_about_an_object_holds_it_and_stays_in_the_photograph() -> None:
    for top, left, height, width in ((0, 0, 3, 9), (20, 4, 12, 2), (30, 30, 2, 2), (0, 0, 32, 32)):
        mask = np.zeros((32, 32), bool)
        mask[top : top + height, left : left + width] = True
        a, b, c, d = (32 * edge for edge in c6_object_detectors._around(mask))
        assert min(a, b) >= 0
        assert max(c, d) <= 32 + 1e-9
        assert (a <= top, top + height <= c + 1e-9) == (True, True)
        assert (b <= left, left + width <= d + 1e-9) == (True, True)


def test_a_reader_reads_what_can_be_read_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    bystander = wrap(network, size=(12, 12))  # the pooled map has one position, so no spread
    labels = torch.arange(80) % 2
    reddish = torch.rand(80, 3, 12, 12) * (
        1 - 0.5 * labels[:, None, None, None] * torch.tensor([0.0, 1, 1])[:, None, None]
    )
    reader = LinearProbe.of(bystander, reddish[:40], labels[:40])
    assert reader.right(reddish[40:], labels[40:]).value > 0.95
    grey = torch.rand(400, 3, 12, 12)
    found = LinearProbe.of(bystander, grey[:40], labels[:40]).right(
        grey[40:], (torch.arange(360) // 2) % 2
    )
    assert found.low < 0.5 < found.high
