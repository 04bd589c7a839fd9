"""The page of the grammar says what the program reads: each of its forms is read here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from phosphene.errors import PhospheneError
from phosphene.subjects import Subject, load_subject
from phosphene.units import parse

PAGE = (Path(__file__).parent.parent / "docs" / "units.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject("caffenet-objects")


def rows(head: str) -> Iterator[list[str]]:
    """Yield the cells of all tables of the page that have a head."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M):
        first, _, *body = ([cell.strip() for cell in line[1:-2].split(" | ")]
                           for line in table.splitlines(True))  # fmt: skip
        if " | ".join(first) == head:
            yield from body


def code(cell: str) -> list[str]:
    return [text.strip() for _, text in re.findall(r"(`+)(.+?)\1", cell)]


RESOLVED = [*rows("written | meaning | targets")]
PARSED = [*rows("written | channel | position | the subject")]
REFUSED = [*rows("written | error")]


@pytest.mark.parametrize("row", RESOLVED, ids=lambda row: row[0])
def test_a_form_names_the_targets_that_the_page_says(subject: Subject, row: list[str]) -> None:
    found = [str(target) for target in subject.targets(*code(row[0]))]
    if number := re.fullmatch(r"(\d+) targets", row[2]):
        assert len(found) == int(number[1])
    else:
        assert found == code(row[2])


@pytest.mark.parametrize("row", PARSED, ids=lambda row: row[0])
def test_a_form_of_other_subjects_is_split_as_the_page_says(row: list[str]) -> None:
    (term,) = parse(*code(row[0]))
    where = term.position if isinstance(term.position, str) else "{},{}".format(*term.position)
    assert [term.channels, where] == row[1:3]


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[0])
def test_a_text_is_refused_with_the_line_of_the_page(subject: Subject, row: list[str]) -> None:
    with pytest.raises(PhospheneError) as caught:
        subject.targets(*code(row[0]))
    assert [str(caught.value)] == code(row[1])


def test_the_page_has_all_forms() -> None:
    assert (len(RESOLVED), len(PARSED), len(REFUSED)) >= (20, 8, 10)
    kinds = {"all", "@max", "@mean", "@centre", "class:", "text:", " + ", " - ", "*", '"', ","}
    written = " ".join(row[0] for row in RESOLVED + PARSED)
    assert all(kind in written for kind in kinds)
