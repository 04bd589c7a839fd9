"""Names of units, files and classes are printed as they are.

None of them acts on a terminal.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from atlas_runs import lone, write_picture
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st

from phosphene.testing import CLASSES, write_generator, write_subject
from phosphene.texts import clean, escaped

LIKE_MARKUP = ("[red]", ":cat:", "[/bold]x", "[link=a]b", "\\[dim]")
ACTING = ("a\u202eb", "c\u2028d", "e\u200ff")


@pytest.mark.parametrize("name", ["python:mouse:deep", "[red]", "[bold]x:cat:"])
def test_a_mistake_repeats_a_name_as_it_was_given(phosphene: Run, name: str) -> None:
    assert name in phosphene("layers", name).refused()


def test_classes_are_printed_as_they_are_and_do_not_act(phosphene: Run, tmp_path: Path) -> None:
    names = [*LIKE_MARKUP, *ACTING]
    classes = [*names, *CLASSES[len(names) :]]
    subject = write_subject(tmp_path / "s.safetensors", classes=classes)
    command = ["synthesize", subject, f"fc8:0-{len(names) - 1}", "--out", tmp_path / "out"]
    prior = write_generator(tmp_path / "g.safetensors")
    command += ["--prior", prior, "--steps", 1, "--precision", "float32", "--device", "cpu"]
    said = phosphene(*command).fine()
    assert all(name in said for name in LIKE_MARKUP)
    assert all(clean(name) in said and name not in said for name in ACTING)
    raw = phosphene(*command, "--json").fine()
    assert [each["label"] for each in json.loads(raw)] == names
    assert clean(raw.replace("\n", "")) == raw.replace("\n", "")


def test_a_card_is_printed_as_it_is(phosphene: Run, tmp_path: Path) -> None:
    first, last = ":cat:[red]", "[bold]a\u202eb"
    subject = write_subject(tmp_path / "s.safetensors", classes=[first, *CLASSES[1:-1], last])
    said = phosphene("zoo", "show", subject).fine()
    assert f"classes: 10: {first} … {clean(last)}" in said


@given(st.text())
def test_json_that_is_escaped_says_the_same(text: str) -> None:
    said = json.dumps({text: [text]}, ensure_ascii=False, indent=1)
    assert json.loads(escaped(said)) == {text: [text]}


def test_files_and_folders_are_printed_as_they_are(phosphene: Run, tmp_path: Path) -> None:
    subject = write_subject(tmp_path / ":dog:[red].safetensors")
    assert ":dog:[red].safetensors" in "".join(phosphene("layers", subject).fine().split())
    write_picture(tmp_path / "run", "a", lone("fc:0"))
    site = tmp_path / ":cat:[red]"
    said = phosphene("atlas", tmp_path / "run", "--out", site).fine()
    assert said == f"{site}/index.html: 1 unit of 1 layer\n"


def test_on_a_terminal_too(tmp_path: Path) -> None:
    """A spinner, coloured errors: what only a terminal is shown."""
    write_picture(tmp_path / "run", "a", lone("fc:0"))
    site = ":cat:[red]\x1b[31m"
    command = [sys.executable, "-m", "phosphene", "atlas", "run", "--out", site]
    shown = on_a_terminal(command, tmp_path)
    assert shown.count(":cat:[red]\ufffd[31m") >= 2  # while it works, and at the end
    assert "\x1b[31m" not in shown
    refused = on_a_terminal([*command[:3], "layers", "python:mouse:[red]"], tmp_path)
    assert "python:mouse:[red]" in refused


def on_a_terminal(command: list[str], folder: Path) -> str:
    """Return what a command writes to a terminal of 200 columns."""
    ours, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=its, stdout=its, stderr=its
    ) as running:
        os.close(its)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            shown += piece
            if not piece:
                break
        running.wait()
    os.close(ours)
    return shown.decode(errors="replace")
