"""The pages and docstrings are plain English: short sentences, short paragraphs, verbs first.

The measure leaves out code, tables, headings and the targets of links.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
ROOT_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = [*(ROOT / name for name in ROOT_PAGES), *sorted((ROOT / "docs").rglob("*.md"))]
MARKDOWN = MarkdownIt("commonmark").enable("table")

MEAN_WORDS, LONG_SENTENCE, LONG_SHARE, LONG_PARAGRAPH = 16, 30, 0.02, 90

NOT_YET: set[str] = set()
"""Pages that are still too hard to read. A page that passes must leave the list."""

ABBREVIATION = re.compile(r"\b(?:al|eq|e\.g|i\.e|vs|cf|St|No)\.$")
END = re.compile(r"(?:[.!?]|:(?=\s+[\"“(]*[A-Z]))[\"'”’)]*\s+")
VERBS = """
    Adapt Add Answer Ask Average Begin Blur Bring Call Check Choose Classify Climb Collect Compare
    Complete Compute Copy Count Cut Decode Discriminate Dissect Divide Do Double Draw Embed Encode
    Enlarge Exit Fetch Fill Filter Find Fit Forget Format Give Hold Import Join Keep Learn Leave
    Lend Let List Load Make Map Measure Mix Multiply Name Note Open Permute Print Project Put Raise
    Read Recombine Redirect Refuse Regress Remove Rename Replace Report Return Run Say Scale Score
    Search Send Serve Set Show Shrink Shuffle Silence Simulate Speak Split Step Take Tell Time Train
    Turn Undo Wait Warn Wear Weigh Write Yield
"""
"""How a docstring may begin."""
VALUES = re.compile(r"Protocol|Error|Exception|Warning|Form\b")
"""Bases of classes that only are something: an interface, an error, the shape of a file."""


def text_of(inline: Token) -> str:
    """Return the words that a reader sees of a paragraph; a piece of code is one word."""
    shown = {"text": lambda part: part.content, "code_inline": lambda part: "Code"}
    shown |= {name: lambda part: " " for name in ("softbreak", "hardbreak")}
    parts = (part for part in inline.children or () if part.type in shown)
    return "".join(shown[part.type](part) for part in parts)


def paragraphs(markdown: str) -> Iterator[str]:
    """Yield the paragraphs of a page and of its lists; a picture alone is none.

    A line that begins with ::: stands for docstrings, which have their own measure.
    """
    tokens = MARKDOWN.parse(re.sub(r"^::: .*\n(    .*\n)*", "", markdown, flags=re.M))
    for before, token in pairwise(tokens):
        if before.type == "paragraph_open" and (text := text_of(token).strip()):
            yield text


def sentences(paragraph: str) -> Iterator[str]:
    """Yield the sentences of a paragraph; a colon ends one where a sentence follows it."""
    begin = 0
    for end in END.finditer(paragraph):
        if not ABBREVIATION.search(paragraph[begin : end.start() + 1]):
            yield paragraph[begin : end.end()]
            begin = end.end()
    yield paragraph[begin:]


def words(text: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def faults(markdown: str) -> list[str]:
    """Return what makes a page hard to read, as lines that name the places."""
    found = list(paragraphs(markdown))
    lengths = {each: words(each) for part in found for each in sentences(part) if words(each)}
    long = sorted((each for each in lengths if lengths[each] > LONG_SENTENCE), key=lengths.get)
    lines = []
    if lengths and (average := mean(lengths.values())) > MEAN_WORDS:
        lines.append(f"{average:.1f} words a sentence, of at most {MEAN_WORDS}")
    if len(long) > LONG_SHARE * len(lengths):
        lines += [f"{lengths[each]} words, of at most {LONG_SENTENCE}: {each}" for each in long]
    return lines + [f"{words(p)} words: {p}" for p in found if words(p) > LONG_PARAGRAPH]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_easy_to_read(page: Path) -> None:
    found = faults(page.read_text(encoding="utf-8"))
    if page.name in NOT_YET:
        assert found, f"{page.name} is easy to read now: take it from NOT_YET"
    else:
        assert not found, "\n".join(found)


TREES = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "src").rglob("*.py")]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def acts(node: ast.AST) -> bool:
    """Return whether a node is a class that does something, so neither a value nor an error."""
    if not isinstance(node, ast.ClassDef):
        return False
    is_value = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    return not is_value and not any(VALUES.search(ast.unparse(base)) for base in node.bases)


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        (lambda node: isinstance(node, FUNCTIONS), 1000),
        (acts, 80),
        (lambda node: isinstance(node, (*FUNCTIONS, ast.ClassDef)), 1500),
    ],
    ids=["functions", "classes", "all, values and errors too"],
)
def test_docstrings_begin_with_a_verb(kind: Callable[[ast.AST], bool], least: int) -> None:
    found = [node for tree in TREES for node in ast.walk(tree) if kind(node)]
    told = [node for node in found if ast.get_docstring(node)]
    other = [node.name for node in told if first_word(node) not in VERBS.split()]
    assert len(told) >= least
    assert len(other) <= 0.1 * len(told), other


def first_word(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    return re.split(r"\W", ast.get_docstring(node) or "", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("markdown", "lengths"),
    [
        ("One two three. Four `five six` seven.", [3, 3]),
        ("As Nguyen et al. Showed this, it holds (e.g. here).", [10]),
        ("It has two parts:\n\n* One is here.\n* Two", [4, 3, 1]),
        ("# A heading\n\n| a | b |\n| --- | --- |\n| c | d |\n\nText – here.", [2]),
        ("```text\nA b c.\n```\n\n[A link](https://example.org/a) and ![a picture](b.png)", [3]),
    ],
)
def test_what_counts_as_a_sentence(markdown: str, lengths: list[int]) -> None:
    found = [words(each) for part in paragraphs(markdown) for each in sentences(part)]
    assert found == lengths
