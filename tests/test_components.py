"""Principal components of a whole layer: how they are read, and files that hold none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from phosphene import weights
from phosphene.errors import BadFile
from phosphene.networks.components import NAME, Components
from phosphene.priors import load_generated
from phosphene.subjects import wrap
from phosphene.testing import lively, tiny_subject, write_generator


class Patches(nn.Module):
    """Four patches in a row and column behind a class token, as (batch, tokens, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)
        self.block = nn.Linear(6, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.conv(images).flatten(2).transpose(1, 2)
        return self.block(torch.cat([patches.mean(1, keepdim=True), patches], 1))[:, 0]


def components(units: int, number: int = 5) -> Components:
    return Components(torch.randn(number, units), torch.randn(units))


def test_components_are_read_like_a_layer_and_give_a_gradient() -> None:
    subject = tiny_subject()
    part = components(8 * 6 * 6)
    added = subject.with_components("block", part)
    images = torch.rand(3, 3, *subject.size, requires_grad=True)
    with added.reading([NAME, "block"]) as read:
        found = read(added.prepare(images))
    expected = (found["block"].flatten(1) - part.mean) @ part.axes.T
    torch.testing.assert_close(found[NAME], expected)
    assert added.shapes()[NAME] == (5,)
    found[NAME].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().amax() > 0
    added.check_gradient([NAME])
    torch.testing.assert_close(added(images), subject(images))


def test_components_of_patches_leave_the_class_token_out() -> None:
    """The map of a transformer's patches is the code: (6, 4, 4) units, not 17 tokens."""
    subject = wrap(lively(Patches()), size=16, mean=0.5, std=0.25)
    assert subject.shape("block") == (6, 4, 4)
    added = subject.with_components("block", components(6 * 4 * 4))
    with added.reading([NAME]) as read:
        found = read(added.prepare(torch.rand(2, 3, 16, 16)))
    assert {name: tuple(values.shape) for name, values in found.items()} == {NAME: (2, 5)}


def test_components_of_another_layer_are_refused() -> None:
    with pytest.raises(BadFile, match=r"block has 288 units; the components are those of 7"):
        tiny_subject().with_components("block", components(7))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"axes": torch.ones(16, 7)}, "have axes and a mean"),
        ({"axes": torch.ones(15, 7), "mean": torch.ones(7)}, r"axes is \[15, 7\]"),
        ({"axes": torch.ones(16, 7), "mean": torch.ones(8)}, r"mean \[8\]"),
        ({"axes": torch.ones(16), "mean": torch.ones(7)}, r"axes is \[16\]"),
        ({"axes": torch.ones(16, 7).int(), "mean": torch.ones(7)}, "not of finite numbers"),
    ],
    ids=["no mean", "other code", "other units", "a vector", "whole numbers"],
)
def test_a_file_with_strange_components_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], says: str
) -> None:
    file = write_generator(tmp_path / "g.safetensors")
    found = weights.read(file)
    more = {f"components.{name}": value for name, value in tensors.items()}
    weights.write(file, {**found.tensors, **more}, found.card)
    with pytest.raises(BadFile, match=says):
        load_generated(file)
