"""Parts from outside: a factory is found by name, and what goes wrong in it is one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from phosphene.errors import BadRequest, UnknownName
from phosphene.factories import load_factory, make


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_parts.py").write_text(
        "def pair(first, second=2): return first, second\nclass Part: ...\nnumber = 3\n"
    )
    monkeypatch.delitem(sys.modules, "mine_parts", raising=False)
    return tmp_path


def test_a_factory_takes_arguments_and_options(here: Path) -> None:
    assert make("python:mine_parts:pair", 1, second=3) == (1, 3)
    assert str(here) not in sys.path


def test_an_option_may_be_called_name(here: Path) -> None:
    (here / "named_parts.py").write_text("def named(name='a'):\n    return name\n")
    assert make("python:named_parts:named", name="b") == "b"


def test_a_class_is_given_as_it_is(here: Path) -> None:
    assert isinstance(load_factory("python:mine_parts:Part"), type)


def test_a_torchvision_of_another_torch_is_told_with_its_cure(here: Path) -> None:
    """Torch raises such an error when torchvision registers what it was not built with."""
    (here / "seeing_parts.py").write_text(
        "import torch\n@torch.library.register_fake('torchvision::no_such')\ndef fake(): ...\n"
    )
    cure = r"no_such does not exist .* pip install --force-reinstall"
    with pytest.raises(BadRequest, match=cure):
        load_factory("python:seeing_parts:fake")


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("mine_parts:pair", BadRequest, "is not of the form python:"),
        ("python:mine_parts", BadRequest, "is not of the form python:"),
        ("python:mine_parts:par", UnknownName, "near: pair"),
        ("python:mine_parts:number", BadRequest, "is an int, not a function"),
        ("python:mine_other:pair", UnknownName, "no module 'mine_other' in"),
        ("python:mine_parts:pair", BadRequest, r"pair\(\) raised TypeError: .*'first'$"),
    ],
)
def test_a_wrong_factory_is_one_line(
    here: Path, name: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        make(name)
