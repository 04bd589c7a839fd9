"""Names of units: what is written is read, and what cannot be read says what would be."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phosphene.axes import before
from phosphene.errors import BadRequest, PhospheneError, UnknownName
from phosphene.objectives.activation import Activation
from phosphene.objectives.probability import Probability
from phosphene.subjects import Subject
from phosphene.testing import CLASSES, tiny_subject
from phosphene.units import Direction, Target, Term, Unit, channel_range, parse

LAYERS = st.lists(st.text("abcXYZ019_-", min_size=1, max_size=5), min_size=1, max_size=3).map(
    ".".join
)
POSITIONS = st.one_of(
    st.sampled_from(["centre", "max", "mean"]),
    st.tuples(st.integers(0, 99_999), st.integers(0, 99_999)),
)
UNITS = st.builds(Unit, LAYERS, st.integers(0, 10**9), POSITIONS)
WEIGHTS = st.floats(allow_nan=False, allow_infinity=False)
TARGETS = st.builds(
    lambda terms: Target(tuple(terms)), st.lists(st.tuples(WEIGHTS, UNITS), min_size=1, max_size=4)
)


def rebuilt(terms: list[Term]) -> Target:
    return Target(
        tuple((term.weight, Unit(term.layer, int(term.channels), term.position)) for term in terms)
    )


@given(TARGETS)
def test_a_targets_name_is_read_back_as_the_same_target(target: Target) -> None:
    assert rebuilt(parse(str(target))) == target


@given(TARGETS, st.text())
def test_a_target_goes_through_a_record_and_back(target: Target, label: str) -> None:
    labelled = Target(target.terms, label)
    assert Target.from_json(json.loads(json.dumps(labelled.as_json()))) == labelled


def test_a_direction_goes_through_a_record_and_back() -> None:
    target = Target(((0.5, Direction("fc6", (0.1, -2.0), "max", "smile")),), "smile")
    assert Target.from_json(json.loads(json.dumps(target.as_json()))) == target


@given(st.text(max_size=60))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    try:
        channels = [channel_range(term.channels) for term in parse(text)]
    except BadRequest:
        return
    assert channels


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_a_list_of_channels_is_those_channels(channels: list[int]) -> None:
    assert channel_range(",".join(map(str, channels))) == channels


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("conv5:151", [Term(1.0, "conv5", "151", "centre", False)]),
        ("conv5:151@6,2", [Term(1.0, "conv5", "151", (6, 2), False)]),
        ("conv5:151@max", [Term(1.0, "conv5", "151", "max", False)]),
        (" conv5:0-31 @ mean ", [Term(1.0, "conv5", "0-31", "mean", False)]),
        ('fc8:"golden retriever"', [Term(1.0, "fc8", "golden retriever", "centre", True)]),
        ("class:golden retriever", [Term(1.0, "class", "golden retriever", "centre", False)]),
        ('class:"a + b"', [Term(1.0, "class", "a + b", "centre", True)]),
        ("-1*fc8:3", [Term(-1.0, "fc8", "3", "centre", False)]),
        (
            "features.0:3 + 0.5*fc8:7 - .25*fc8:1@0,1",
            [
                Term(1.0, "features.0", "3", "centre", False),
                Term(0.5, "fc8", "7", "centre", False),
                Term(-0.25, "fc8", "1", (0, 1), False),
            ],
        ),
    ],
)
def test_the_grammar(text: str, terms: list[Term]) -> None:
    assert parse(text) == terms


@pytest.mark.parametrize(
    "text", ["", "fc8", ":3", "fc8:", "fc8:3@", "fc8:3@x", "fc8:3@1", "fc8:3@-1,0", "a b:3", "2*:1"]
)
def test_what_is_no_unit_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(BadRequest, match=r"LAYER:CHANNEL|@ROW,COLUMN"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "channels"),
    [("7", [7]), ("0-3", [0, 1, 2, 3]), ("0-1,8", [0, 1, 8]), ("5,1,5", [5, 1, 5])],
)
def test_ranges(text: str, channels: list[int]) -> None:
    assert channel_range(text) == channels


@pytest.mark.parametrize("text", ["lion", "-1", "1-", "0-3-5", "1, 2", "²", "٣", "0x10", "1e3", ""])
def test_what_is_no_range_is_taken_for_a_name(text: str) -> None:
    assert channel_range(text) is None


@pytest.mark.parametrize(
    "text", ["3-1", "0-2000000", ",".join(["0-900000"] * 1000), "9" * 5000, "0-" + "9" * 30]
)
def test_a_range_that_is_a_slip_is_refused_before_it_fills_the_memory(text: str) -> None:
    with pytest.raises(BadRequest):
        channel_range(text)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"label": "", "terms": []},
        {"label": "", "terms": [[1]]},
        {"label": "", "terms": [["x", {"layer": "a", "channel": 0, "position": "centre"}]]},
        {"label": "", "terms": [[1, {"layer": "a", "channel": "x", "position": "centre"}]]},
        {"label": "", "terms": [[1, {"layer": "a", "channel": 0, "position": "left"}]]},
        {"label": "", "terms": [[1, {"layer": "a", "channel": 0, "position": [1]}]]},
        {"label": "", "terms": [[1, {"layer": "a", "channel": 0, "position": None}]]},
        {"label": "", "terms": [[1, {"layer": "a", "channel": 0}]]},
        {"label": "", "terms": [[1, 5]]},
        {
            "label": "",
            "terms": [[float("nan"), {"layer": "a", "channel": 0, "position": "centre"}]],
        },
        {
            "label": "",
            "terms": [[1, {"layer": "a", "vector": [0, 0], "name": "d", "position": "centre"}]],
        },
        {
            "label": "",
            "terms": [[1, {"layer": "a", "vector": ["x"], "name": "d", "position": "centre"}]],
        },
    ],
    ids=str,
)
def test_a_target_that_is_none_is_refused(data: object) -> None:
    with pytest.raises(BadRequest):
        Target.from_json(data)


# ---------------------------------------------------------------- names that a subject knows


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("class:tench", [0]),
        ("class:Tinca tinca", [0]),
        ("class:TENCH", [0]),
        ("class:chainsaw", [3]),
        ("class:horn", [5]),
        ("class:english", [1]),
        ("class:golden retriever", [9]),
        ('fc:"golden retriever"', [9]),
        ("fc:golf ball", [8]),
        ("class:7", [7]),
        ("fc:7", [7]),
        ("fc:2-4,9", [2, 3, 4, 9]),
        ("fc:all", list(range(10))),
    ],
)
def test_classes_by_name(text: str, channels: list[int]) -> None:
    targets = tiny_subject().targets(text)
    assert [target.terms for target in targets] == [
        ((1.0, Unit("fc", channel)),) for channel in channels
    ]
    assert [target.label for target in targets] == [
        CLASSES[channel].split(",")[0] for channel in channels
    ]


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("fx:0", "near: fc"),
        ("convv:0", "near: conv"),
        ("block.2:0", "block.0"),
        ("class:tencch", "tench"),
        ("class:golden retreiver", "golden retriever"),
        ("class:g", "near"),
        ("class:truck driver", "near"),
        ("conv:6", "0 … 5; got 6"),
        ("conv:tench", "fc"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(text: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        tiny_subject().targets(text)
    assert near in str(caught.value)


def test_a_name_that_fits_several_classes_names_them() -> None:
    subject = tiny_subject()
    object.__setattr__(subject, "classes", ("grey fox", "red fox", "arctic fox, white fox"))
    names = r"'grey fox' \(fc:0\), 'red fox' \(fc:1\), 'arctic fox' \(fc:2\)"
    with pytest.raises(UnknownName, match=names):
        subject.targets("class:fox")


def with_classes(*classes: str) -> Subject:
    return replace(tiny_subject(), classes=classes)


def channels_of(subject: Subject, text: str) -> list[int]:
    units = [unit for target in subject.targets(text) for _, unit in target.terms]
    return [unit.channel for unit in units if isinstance(unit, Unit)]


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("class:8", [8]),
        ("class:7", [6]),
        ("class:10", [2]),
        ('class:"10"', [2]),
        ('fc:"10"', [2]),
        ("fc:8", [8]),
        ("fc:0-1", [0, 1]),
        ("class:9", [7]),
    ],
)
def test_a_class_whose_name_is_a_number_is_reached_by_it(text: str, channels: list[int]) -> None:
    # the classes of folders 0, 1, 10, 11, 2, 3, 7, 9, a, b: class 8 has no name, so it is a channel
    subject = with_classes("0", "1", "10", "11", "2", "3", "7", "9", "a", "b")
    assert channels_of(subject, text) == channels


def test_quoted_text_is_never_a_number() -> None:
    for text in ('class:"3"', 'fc:"3"'):
        with pytest.raises(UnknownName, match="no class '3'"):
            tiny_subject().targets(text)


def test_an_exact_name_comes_before_letters_of_another_case_synonyms_and_words() -> None:
    subject = with_classes("crane, machine", "crane", "Bee", "bee", "bee, wasp", "honey bee")
    assert channels_of(subject, "class:crane") == [1]
    assert channels_of(subject, "class:Bee") == [2]
    assert channels_of(subject, "class:bee") == [3]
    assert channels_of(subject, "class:machine") == [0]
    assert channels_of(with_classes("be\u0301e", "a"), "class:b\u00e9e") == [0]


def test_two_classes_of_one_name_are_told_by_numbers_that_work() -> None:
    subject = with_classes("crane", "heron", "crane")
    with pytest.raises(UnknownName, match=r"'crane' \(fc:0\), 'crane' \(fc:2\); write fc:0"):
        subject.targets("class:crane")
    assert channels_of(subject, "fc:2") == [2]


def test_more_class_names_than_channels_are_no_unit() -> None:
    subject = tiny_subject()
    object.__setattr__(subject, "classes", (*CLASSES, "eleventh"))
    with pytest.raises(UnknownName, match="10 channels"):
        subject.targets("class:eleventh")


def test_a_subject_without_class_names_says_so() -> None:
    subject = tiny_subject()
    object.__setattr__(subject, "classes", ())
    for text in ("class:lion", "fc:lion"):
        with pytest.raises(PhospheneError, match=r"LAYER:CHANNEL|no class"):
            subject.targets(text)


def test_a_sum_takes_one_unit_in_each_term() -> None:
    (target,) = tiny_subject().targets("fc:3 - 0.5*conv:2@max")
    assert target.terms == ((1.0, Unit("fc", 3)), (-0.5, Unit("conv", 2, "max")))
    assert target.label == "chain saw - 0.5 × conv:2@max"
    with pytest.raises(BadRequest, match="names 2 units"):
        tiny_subject().targets("fc:3 + fc:4-5")


@pytest.mark.parametrize("text", ["conv:0@14,0", "conv:0@0,14", "fc:0@0,0", "class:tench@0,0"])
def test_a_position_outside_of_the_map_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"14 rows and 14 columns|no map"):
        tiny_subject().targets(text)


# ---------------------------------------------------------------- scores


A = {
    "map": torch.arange(2 * 3 * 4 * 20.0).view(2, 3, 4, 20),
    "flat": torch.tensor([[1.0, -2, 3], [4, 5, -6]]),
}


def score(terms: tuple[tuple[float, Unit | Direction], ...], member: int = 0) -> float:
    targets = [Target(((1.0, Unit("flat", 0)),))] * member + [Target(terms)]
    return float(Activation(targets).scores(A)[member])


def test_rows_come_before_columns() -> None:
    assert score(((1.0, Unit("map", 1, (3, 17))),)) == A["map"][0, 1, 3, 17]


def test_the_centre_of_a_map_is_half_its_rows_and_half_its_columns() -> None:
    assert score(((1.0, Unit("map", 1)),)) == A["map"][0, 1, 2, 10]
    assert score(((1.0, Unit("map", 1, "max")),)) == A["map"][0, 1].max()
    assert score(((1.0, Unit("map", 1, "mean")),)) == A["map"][0, 1].mean()


def test_sums_negatives_and_differences() -> None:
    assert score(((1.0, Unit("flat", 0)), (0.5, Unit("flat", 2)))) == 1 + 1.5
    assert score(((1.0, Unit("flat", 0)), (-1.0, Unit("flat", 1)))) == 1 - (-2), (
        "a − b is not −(a + b)"
    )
    assert score(Target(((2.0, Unit("flat", 1)),)).negative().terms) == 4
    assert score(((1.0, Unit("flat", 1)),), member=1) == 5, "member i reads image i"


def test_a_direction_is_a_product_with_the_unit_vector() -> None:
    assert score(((1.0, Direction("flat", (3.0, 0.0, 4.0))),)) == pytest.approx((3 * 1 + 4 * 3) / 5)
    assert score(((1.0, Direction("map", (0.0, 7.0, 0.0), (1, 2))),)) == A["map"][0, 1, 1, 2]


def test_probability_is_a_log_softmax_over_the_layer() -> None:
    (followed,) = Probability([Target(((1.0, Unit("flat", 2)),))])(A)
    assert float(followed) == pytest.approx(float(torch.log_softmax(A["flat"][0], 0)[2]))
    assert float(Probability([Target(((1.0, Unit("flat", 2)),))]).scores(A)[0]) == 3, (
        "reported as it is"
    )
    two = Target(((1.0, Unit("flat", 0)), (1.0, Unit("flat", 2))))
    both = torch.log_softmax(A["flat"][0], 0)[[0, 2]].sum()
    assert float(Probability([two])(A)[0]) == pytest.approx(float(both)), (
        "none of several is left out"
    )
    mixed = Target(((1.0, Unit("flat", 0)), (1.0, Direction("flat", (0.0, 0.0, 1.0)))))
    assert float(Probability([mixed])(A)[0]) == 4, "directions keep their activations"


def test_a_shut_relu_is_followed_from_before_it() -> None:
    x = torch.tensor([[-3.0, 2.0]], requires_grad=True)
    activations = {"r": x.relu(), before("r"): x}
    targets = [Target(((1.0, Unit("r", 0)),))]
    (followed,) = Activation(targets)(activations)
    (gradient,) = torch.autograd.grad(followed, x)
    assert gradient.tolist() == [[1.0, 0.0]]
    assert Activation(targets).scores(activations).tolist() == [0]
    (followed,) = Activation([Target(((1.0, Unit("r", 1)),))])(activations)
    assert followed.tolist() == 2
