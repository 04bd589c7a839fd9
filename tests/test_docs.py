"""What the README and the docs show is what happens.

Their blocks run, and their help is the program's own.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import CI_SAMPLE, Run
from PIL import Image

from phosphene import weights
from phosphene.atlas.measures import GROUPS
from phosphene.datasets import load
from phosphene.synthesis import CLIMBS
from phosphene.training.recipes import read_recipe

STEPS = 30
"""Of the default climb, which has 200: a page's pictures are made, and nobody looks at them."""
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n)?(?:<!-- file: (?P<file>[\w.]+) -->\n)?"
    r"```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.M | re.S,
)


def blocks(page: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the kind, text and first line of every block of a page that is to be run.

    The kind of a block that is the content of a file is the file's name.
    """
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if not block["skip"]:
            line = text.count("\n", 0, block.start("text")) + 1
            yield block["file"] or block["kind"], block["text"], line


def commands(text: str) -> list[list[str]]:
    """The phosphene commands of a shell block: each line, or in a console the lines after `$ `.

    A line may end with `&`.
    """
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    words = [words for line in lines if (words := shlex.split(line, comments=True))]
    if not any(line[0] == "phosphene" for line in words):
        return []
    for line in words:
        told = line[:-1] if line[-1] == "&" else line
        if line[0] != "phosphene" or {"|", ">", ">>", "<", "&&", "||", ";", "&"} & set(told):
            raise ValueError(f"not a plain phosphene command, so not run: {shlex.join(line)}")
    return [line[1:] for line in words]


@pytest.fixture
def beside() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that run beside the test; none remains."""
    programs: list[subprocess.Popen[bytes]] = []
    yield programs
    for each in programs:
        each.kill()
        each.wait()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    beside: list[subprocess.Popen[bytes]],
) -> None:
    """Run a page's blocks in the order of reading, in one folder and one namespace.

    `photo.jpg` and `photos` stand for the reader's own. A command with `&` runs beside the others,
    and has ended well when the page ends. A climb whose steps the page does not name has fewer.
    """
    monkeypatch.setitem(CLIMBS, "default", CLIMBS["default"].changed(steps=STEPS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Image.radial_gradient("L").convert("RGB").save("photo.jpg")
    if "phosphene train subject mine.toml --images photos" in page.read_text(encoding="utf-8"):
        write_photographs(tmp_path / "photos")
    namespace = {"__name__": "__main__"}
    for kind, text, line in blocks(page):
        if "." in kind:
            Path(kind).write_text(text, encoding="utf-8")
        elif kind == "python":
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)
        elif kind == "toml":
            Path("mine.toml").write_text(text, encoding="utf-8")
            read_recipe("mine.toml")
        elif kind in ("bash", "console"):
            for arguments in commands(text):
                if arguments[-1] == "&":
                    program = [sys.executable, "-m", "phosphene", *arguments[:-1]]
                    beside.append(subprocess.Popen(program))
                    continue
                code = exit_code(arguments, monkeypatch)
                assert code == 0, (
                    f"{page.name}:{line}: {shlex.join(['phosphene', *arguments])} ended with {code}"
                )
    assert [each.wait(120) for each in beside] == [0] * len(beside)


def test_errors_are_as_the_page_shows_them(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a block of commands, all but the last are fine, and the last ends in the line below."""
    monkeypatch.chdir(tmp_path)
    torch.save({}, "mine.pth")
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n((?:\$ .*\n)+)(phosphene: .*)\n```$", page, re.M)
    assert len(shown) == page.count("```text")
    for lines, error in shown:
        *before, last = (shlex.split(line)[2:] for line in lines.splitlines())
        for arguments in before:
            phosphene(*arguments).fine()
        assert phosphene(*last).refused() == error


def write_photographs(folder: Path) -> None:
    """Class folders of real photographs, ten classes of thirty to train on and ten to test."""
    if not CI_SAMPLE.exists():
        pytest.skip("no ../shared/data here")
    for split in ("train", "val"):
        sample = load(CI_SAMPLE, split)
        for n, (image, label) in enumerate(zip(sample.images, sample.labels, strict=True)):
            file = (
                folder / split / sample.classes[label].split(",")[0].replace(" ", "-") / f"{n}.jpg"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file, quality=95)


def exit_code(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line, entered where its script enters it."""
    from phosphene.cli import main

    monkeypatch.setattr(sys, "argv", ["phosphene", *arguments])
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def test_help_pages_are_current(tmp_path: Path) -> None:
    fresh = tmp_path / "cli.md"
    subprocess.run([sys.executable, ROOT / "scripts" / "help-pages", fresh], check=True)
    shown = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert shown == fresh.read_text(encoding="utf-8"), "run scripts/help-pages"


def test_the_readme_tells_of_each_claim_what_was_found() -> None:
    """Its table is that of the report that is kept."""
    rows = re.findall(
        r"^\| (C\d) (.+?) \| (\d) of (\d) \| . (\w+) \|$",
        PAGES[0].read_text(encoding="utf-8"),
        re.M,
    )
    kept = json.loads((ROOT / "evidence" / "claims.json").read_text(encoding="utf-8"))
    verdicts = [[each["verdict"] for each in claim["expected"]] for claim in kept]
    assert rows == [
        (claim["claim"], claim["title"], str(each.count("holds")), str(len(each)), claim["verdict"])
        for claim, each in zip(kept, verdicts, strict=True)
    ]


def test_the_report_that_is_kept_is_of_the_networks_that_are_bundled() -> None:
    """Whoever publishes a network again measures again what it has a part in."""
    bundled = {name: entry["sha256"] for name, entry in weights.manifest().items()}
    for claim in json.loads((ROOT / "evidence" / "claims.json").read_text(encoding="utf-8")):
        used = {**claim["identity"]["networks"], **claim["identity"]["weights"]}
        known = {name: sha256 for name, sha256 in used.items() if name in bundled}
        assert known, claim["claim"]
        assert known == {name: bundled[name] for name in known}, claim["claim"]


def test_every_figure_of_an_evaluation_is_defined() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    measures = [measure for group in GROUPS.values() for measure in group]
    keys = {key for measure in measures for key in measure.keys.values()}
    missing = {key for key in keys if f"`{key}`" not in page}
    assert not missing, missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    """Every relative link and picture of a page is a file of the project."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing, missing
