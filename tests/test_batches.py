"""A picture does not depend on its neighbours, so a folder keeps it whatever batches follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phosphene.forms import Record
from phosphene.images import read_png
from phosphene.notebook import synthesize
from phosphene.pictures import folder as pictures_folder
from phosphene.pictures import remake
from phosphene.pictures.request import Made, Request
from phosphene.priors import Generated
from phosphene.records import Folder
from phosphene.subjects import Subject
from phosphene.synthesis import CLIMBS, Climb, Member, PreferredInputs, climb_batch, settings
from phosphene.synthesis.view import groups
from phosphene.testing import lively, tiny_subject
from phosphene.units import Target, Unit


class Sized(nn.Module):
    """A layer whose values depend on the size of the pass, as the last digits of kernels do.

    The ReLU shuts its first three units at some starts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.act = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.conv(images) * (1 + len(images) / 100))


@pytest.fixture
def sized() -> Subject:
    network = lively(Sized())
    network.conv.bias.data[:3] -= 0.5
    return tiny_subject(network)


def members(*channels: int) -> list[Member]:
    return [Member(Target(((1.0, Unit("act", i)),)), 0) for i in channels]


def climbed(
    subject: Subject, prior: Generated, channels: list[int], climb: Climb, **how: Any
) -> PreferredInputs:
    return climb_batch(subject, members(*channels), prior, climb, **how)


def test_the_size_of_a_batch_alone_decides_a_members_bits(
    sized: Subject, generated: Generated
) -> None:
    """Units 0 to 2 take passes of their own: another start, an open ReLU, another try."""
    climb = settings("default", generated, steps=4, tries=3)
    first = climbed(sized, generated, [0, 1, 6, 7, 2], climb)
    second = climbed(sized, generated, [4, 3, 5, 6, 0], climb)
    copies = climbed(sized, generated, [0] * 5, climb)
    other = climbed(sized, generated, [0, 6], climb)
    for name in ("codes", "curves", "scores"):
        own, same, copied = (getattr(each, name) for each in (first, second, copies))
        assert torch.equal(own[0], same[4])
        assert torch.equal(own[0], copied[2])
        assert torch.equal(own[2], same[3])
    assert not torch.equal(first.curves[0], other.curves[0]), "the network does tell sizes apart"


def test_version_0_1_0_let_members_share_passes(sized: Subject, generated: Generated) -> None:
    climb = settings("default", generated, steps=4, tries=3)
    first = climbed(sized, generated, [0, 1, 6, 7, 2], climb, bound=True)
    second = climbed(sized, generated, [4, 3, 5, 6, 0], climb, bound=True)
    assert not torch.equal(first.curves[0], second.curves[4])


def test_groups_have_one_size() -> None:
    assert groups([3, 5, 6, 7, 9], 4) == [[3, 5, 6, 7], [9, 9, 9, 9]]
    assert groups([3, 5, 6, 7, 9], 0) == [[3, 5, 6, 7, 9]]
    assert groups([], 4) == []


def test_finished_pictures_are_kept_in_another_order_and_other_batches(
    subject: Subject, generated: Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call: dict[str, Any] = {"prior": generated, "steps": 3, "out": tmp_path}
    first = synthesize(subject, "fc:0-4", batch=3, **call)
    asked = []

    def counted(subject: Subject, members: Any, *rest: Any, **options: Any) -> PreferredInputs:
        asked.append([str(member.target) for member in members])
        return climb_batch(subject, members, *rest, **options)

    monkeypatch.setattr(pictures_folder, "climb_batch", counted)
    again = synthesize(subject, ["fc:9", "fc:4", "fc:7", "fc:0", "fc:3"], batch=2, **call)
    assert asked == [["fc:9", "fc:7"]]
    assert [str(member.target) for member in again.members] == [f"fc:{i}" for i in (9, 4, 7, 0, 3)]
    assert torch.equal(again.images[[1, 3, 4]], first.images[[4, 0, 3]])
    assert [record.target for record in again.records] == ["fc:9", "fc:4", "fc:7", "fc:0", "fc:3"]


def test_parts_of_a_run_in_any_batches_are_collected_by_the_whole(
    subject: Subject, generated: Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call: dict[str, Any] = {"prior": generated, "steps": 3, "out": tmp_path}
    synthesize(subject, "fc:5-9", batch=4, **call)
    synthesize(subject, "fc:0-4", batch=1, **call)
    monkeypatch.setattr(pictures_folder, "climb_batch", None)
    assert len(synthesize(subject, "fc:all", **call)) == 10


def test_a_set_that_is_moved_apart_is_kept_whole_or_not_at_all(
    subject: Subject, generated: Generated, tmp_path: Path
) -> None:
    call: dict[str, Any] = {"prior": generated, "steps": 3, "out": tmp_path, "share": 0.8}
    first = synthesize(subject, "fc:1", seeds=[0, 1, 2], **call)
    assert len(first.records[0].request["members"]) == 3
    (tmp_path / first.records[2].image).unlink()
    again = synthesize(subject, "fc:1", seeds=[0, 1, 2], **call)
    assert not again.codes.isnan().any(), "all three have climbed"
    assert synthesize(subject, "fc:1", seeds=[0, 1, 2], **call).codes.isnan().all()
    other = synthesize(subject, "fc:1", seeds=[0, 1], **call)
    assert not other.codes.isnan().any(), "two are another set"


def test_a_record_of_a_large_batch_is_remade_in_its_place(zoo: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"prior": zoo / "generator.safetensors", "steps": 3, "device": "cpu"}
    made = synthesize(zoo / "subject.safetensors", "fc8:all", out=tmp_path / "a", **how)
    record = made.records[7]
    assert (record.request["batch"], record.request["place"]) == (10, 7)
    assert record.request["members"] == [[made.members[7].target.as_json(), 0]]
    file = (tmp_path / "a" / record.image).with_suffix(".json")
    old, new = remake(file, Folder(tmp_path / "b"))
    assert new.image_sha256 == old.image_sha256
    assert new.request == json.loads(json.dumps(old.request))
    assert np.array_equal(read_png(tmp_path / "b" / new.image), made.picture(7))


def test_a_record_says_which_batches_have_its_bits() -> None:
    request = Request("tiny", "pixels", CLIMBS["default"])
    kept = request.for_member(members(3, 4, 5), 1)
    record = Record(
        target="act:4", label="", request=kept, weights={}, score=0, start_score=0, curve=[],
        status="climbed", image="a.png", image_sha256="", command="", versions={},
    )  # fmt: skip
    how = Made.of(record, Path("a.json"))
    assert how.members == members(4, 4, 4)
    assert (how.place, how.member, how.bound) == (1, members(4)[0], False)
