"""Parts and the options that they declare."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from phosphene import parts
from phosphene.errors import BadRequest
from phosphene.parts import Option, checked_options, option, options_of


@dataclass
class Search:
    rate: float = option(0.2, "First step size.", low=0, high=10)
    rounds: int = option(5, "Rounds.", low=1, high=9)
    keep: str = option("best", "What is kept.", choices=("best", "last"))
    loud: bool = option(False, "Whether it prints.")


def search(images, size: int = 3, *, sigma: float = 0.5):
    """Return nothing."""


def test_a_dataclass_declares_its_fields_and_a_function_its_defaults():
    assert options_of(Search)["rate"] == Option("rate", 0.2, "First step size.", 0, 10)
    assert {name: each.default for name, each in options_of(search).items()} == {
        "size": 3,
        "sigma": 0.5,
    }


def test_what_is_not_given_has_its_default():
    given = checked_options(Search, {"rate": 1}, "the search")
    assert given == {"rate": 1, "rounds": 5, "keep": "best", "loud": False}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rte": 1}, "the search has no setting 'rte'; near: rate"),
        ({"rate": 11}, "rate must be a number in 0 … 10; got 11"),
        ({"rounds": 1.5}, "rounds must be a whole number in 1 … 9; got 1.5"),
        ({"rounds": True}, "rounds must be a whole number"),
        ({"rate": float("nan")}, "rate must be a number"),
        ({"keep": "worst"}, "no keep 'worst'; there are: best, last"),
        ({"loud": 1}, "loud is True or False; got 1"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused(values, words):
    with pytest.raises(BadRequest, match=words):
        checked_options(Search, values, "the search")


def test_a_text_is_read_as_the_option_is_declared():
    read = {name: each.read for name, each in options_of(Search).items()}
    assert [read["rate"]("1e-1"), read["rounds"]("3"), read["loud"]("True")] == [0.1, 3, True]
    with pytest.raises(BadRequest, match="rounds cannot be 'x'; such as 5"):
        read["rounds"]("x")
    with pytest.raises(BadRequest, match="loud is True or False; got 'yes'"):
        read["loud"]("yes")


def test_a_part_is_called_by_where_python_finds_it():
    assert parts.name_of("whitened") == "whitened"
    assert parts.name_of(Search) == f"python:{__name__}:Search"
    assert parts.name_of(lambda: 0).endswith("given in Python")
