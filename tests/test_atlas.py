"""The atlas: links lead somewhere, hostile text stays text, bad files are one line, no torch."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag
from urllib.request import urlopen

import numpy as np
import pytest
from atlas_runs import (
    colours,
    encoded,
    lone,
    write_all,
    write_evaluation,
    write_exemplars,
    write_picture,
)
from conftest import Run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from phosphene.atlas import build, maps
from phosphene.atlas.cards import Evaluation, Figure
from phosphene.atlas.charts import axis
from phosphene.atlas.collecting import collect
from phosphene.atlas.measures import GROUPS, NAMES, bar_axis, grouped
from phosphene.errors import BadFile, BadRequest, PhospheneError
from phosphene.forms import AtlasPage, Record
from phosphene.records import pixels_sha256
from phosphene.texts import file_names
from phosphene.units import Target, Unit

ADDRESSES = ("href", "src", "srcset", "data-film", "data-still", "action")


class Seen(HTMLParser):
    """The elements of a page, its ids, its addresses and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)
        self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        self.addresses = [
            each[key] for _, each in self.elements for key in ADDRESSES if each.get(key)
        ]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attributes}))

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(file: Path) -> Seen:
    return Seen(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas")
    build(write_all(folder), folder / "site")
    return folder / "site"


def test_every_link_and_image_resolves(site: Path) -> None:
    pages = {file.resolve(): seen(file) for file in site.rglob("*.html")}
    # front, search, unit, guess, reading; layers; one map; units; combinations
    assert len(pages) == 5 + 2 + 1 + 12 + 6 + 1
    wrong = []
    for file, page in pages.items():
        assert len(page.ids) == len({*page.ids})
        for address in page.addresses:
            path, fragment = urldefrag(unquote(address))
            there = (file.parent / path).resolve() if path else file
            if "://" in address:
                good = address.startswith(("https://arxiv.org/", "https://www.jmlr.org/"))
            else:
                good = there.is_relative_to(site.resolve()) and there.is_file()
                state = there.name in ("unit.html", "map.html")  # the fragment is no place in it
                good = good and (not fragment or state or fragment in pages[there].ids)
            wrong += [] if good else [f"{file}: {address}"]
    assert not wrong


def test_every_entry_of_the_search_leads_to_a_page_and_a_tile(site: Path) -> None:
    index = json.loads(
        (site / "assets" / "index.js").read_text().removeprefix("const atlasIndex = ")[:-2]
    )
    assert index["subjects"] == ["tiny-objects"]
    assert len(index["entries"]) == 12 + 6 + 2
    for _, key, *_, page, tile, _ in index["entries"]:
        path, fragment = urldefrag(page)
        assert (site / path).is_file(), key
        assert (site / f"{tile}.webp").is_file(), key
        assert not fragment or fragment in seen(site / path).ids


def test_it_builds_with_torch_absent(tmp_path: Path) -> None:
    runs = write_all(tmp_path)
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from phosphene.cli import main; main()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "atlas",
        *map(str, runs),
        "--out",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'site' / 'index.html'}: 18 units of 2 layers\n"


def unit_page(folder: Path, *runs: str, unit: str = "fc/0") -> Seen:
    """Return the page of a unit in the site of some runs."""
    build([folder / run for run in runs], folder / "site")
    (page,) = folder.glob(f"site/*/{unit}.html")
    return seen(page)


def test_an_evaluation_says_whose_pictures_it_is_of(tmp_path: Path) -> None:
    """Of two priors one was measured, and the other's picture is better."""
    write_picture(tmp_path / "one", "a", lone("fc:0"), score=9.5)
    write_evaluation(tmp_path / "one", ["fc:0"])
    file = next((tmp_path / "one" / "evidence").iterdir())
    said = json.loads(file.read_text())
    said["units"][0] |= {"score": 9.5, "natural_score": 7.0}
    file.write_text(json.dumps(said))
    alone = unit_page(tmp_path, "one").text
    assert "not measured" not in alone
    assert "pictures: tiny-fc6" not in alone
    other = {"request": {"prior": "fourier"}, "pixels": colours(7)}
    write_picture(tmp_path / "two", "a", lone("fc:0"), score=12.25, **other)
    page = unit_page(tmp_path, "one", "two").text
    assert "at its best" not in page
    assert "best measured picture over best photograph; pictures: tiny-fc6" in page
    assert "photographs: photographs; pictures: tiny-fc6" in page
    better = "seed 0 · fourier, excites it more: 12.25. It was not measured here."
    assert better in " ".join(page.split())
    write_evaluation(tmp_path / "two", ["fc:0"], "another-network")
    both = unit_page(tmp_path, "one", "two").text
    assert "pictures: tiny-fc6; fourier" in both
    front = seen(tmp_path / "site" / "index.html").text
    assert "pictures: tiny-fc6; fourier" in front


def test_two_folders_of_one_prior_are_told_by_their_names(tmp_path: Path) -> None:
    for name, score in (("one", 9.5), ("two", 12.25)):
        pixels = colours(round(score))
        write_picture(tmp_path / name, "a", lone("fc:0"), score=score, pixels=pixels)
        write_evaluation(tmp_path / name, ["fc:0"])
    assert "pictures: tiny-fc6, one; tiny-fc6, two" in unit_page(tmp_path, "one", "two").text


@pytest.mark.parametrize(
    ("curve", "score", "objective", "told"),
    [
        ([0.0, 3.0, 7.12, 2.84], 2.84, "activation", "had reached 7.12 at step 2"),
        ([0.0, 3.0, 7.12, 7.05], 7.05, "activation", ""),
        ([0.0, 3.0, 7.12, 2.84], 7.2, "activation", ""),
        ([-9.0, None, -2.0, -3.0], 5.0, "probability", ""),
        ([-9.0, -1.0, -2.0, -3.0], -8.0, "probability", ""),
        ([-9.0, -1.0, None, -8.0], -8.0, "activation", "had reached −1.00 at step 1"),
        ([], 1.0, "activation", ""),
    ],
)
def test_a_picture_below_its_climb_is_told(
    tmp_path: Path, curve: list[float | None], score: float, objective: str, told: str
) -> None:
    request = {"climb": {"steps": 4, "objective": objective}}
    write_picture(
        tmp_path / "run",
        "a",
        lone("fc:0"),
        score=score,
        request=request,
        curve=curve,
        start_score=curve[0] if curve else 0,
    )
    page = unit_page(tmp_path, "run").text
    assert told in page if told else "had reached" not in page


def test_the_first_folder_has_the_first_picture(tmp_path: Path) -> None:
    """Even where its climb was filmed and the others were not."""
    write_picture(tmp_path / "b", "x", lone("fc:0"), animated=True, score=1.0)
    other = {"request": {"prior": "fourier"}, "pixels": colours(7)}
    write_picture(tmp_path / "a", "x", lone("fc:0"), score=2.0, **other)
    for runs, first in ((("b", "a"), 1.0), (("a", "b"), 2.0)):
        atlas = collect([tmp_path / run for run in runs])
        (card,) = atlas.subjects[0].layers[0].cards
        assert card.pictures[0].score == first


def test_everything_to_press_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Two priors, two folders of one of them, one seed, and the same in another position."""
    for i, (name, prior) in enumerate((("a", "tiny-fc6"), ("b", "fourier"), ("c", "fourier"))):
        write_picture(
            tmp_path / name, "x", lone("fc:0"), pixels=colours(i), request={"prior": prior}
        )
    at = Target(((1.0, Unit("fc", 0, (1, 2))),), "x")
    write_picture(tmp_path / "c", "y", at, pixels=colours(9), request={"prior": "fourier"})
    page = unit_page(tmp_path, "a", "b", "c")
    (site,) = tmp_path.glob("site/*/fc/0.html")
    text = site.read_text()
    links = re.findall(r"<a [^>]*download>([^<]+)</a>", text)
    copies = [each["aria-label"] for _, each in page.elements if "data-copy" in each]
    images = [each["alt"] for tag, each in page.elements if tag == "img" and each.get("alt")]
    for names in (links, copies, images):
        assert len(names) == 4
        assert len({*names}) == 4, names
    assert "without a learned prior (fourier)" in page.text
    assert "The generator’s prior (tiny-fc6) drew the others" in page.text


@pytest.mark.parametrize(("lowest", "silent"), [(-4.0, False), (0.0, True)])
def test_only_what_is_never_negative_can_be_silent(
    tmp_path: Path, lowest: float, silent: bool
) -> None:
    quantiles = {"0.01": lowest, "0.5": 1.5, "0.99": 6.0}
    write_exemplars(tmp_path / "run", ["fc:0", "fc:1"], quantiles=quantiles)
    for unit in ("fc/0", "fc/1"):  # what is known of one is known of its layer
        assert ("Silent" in unit_page(tmp_path, "run", unit=unit).text) == silent


def test_a_command_names_the_network_that_is_code(tmp_path: Path) -> None:
    """Or the program would refuse it: a record may not choose what code runs."""
    subject = {"subject": "python:my mine:net"}
    write_picture(tmp_path / "run", "a", lone("fc:0"), request=subject)
    page = unit_page(tmp_path, "run").text
    assert "phosphene synthesize 'python:my mine:net' --record fc-0-0.json" in page
    assert "phosphene evaluate RUN --subject 'python:my mine:net' --images" in page
    assert "trust" in page
    assert "--subject 'python:my mine:net'" in seen(tmp_path / "site" / "index.html").text


def test_built_twice_the_bytes_are_the_same(tmp_path: Path, site: Path) -> None:
    runs = write_all(tmp_path)
    build(runs, tmp_path / "site")
    build(runs, tmp_path / "site")  # in place of the first
    files = {file.relative_to(site) for file in site.rglob("*") if file.is_file()}
    assert files == {
        file.relative_to(tmp_path / "site")
        for file in (tmp_path / "site").rglob("*")
        if file.is_file()
    }
    assert not [
        file
        for file in files
        if (site / file).read_bytes() != (tmp_path / "site" / file).read_bytes()
    ]
    assert {each.name for each in tmp_path.iterdir()} == {"run", "exemplars", "dissection", "site"}


HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run, layer = tmp_path / "run", "<b>onload=alert(1)\u202e/../.."
    write_picture(run, "a", Target(((1.0, Unit(layer, 0)),), HOSTILE), status=f"stopped: {HOSTILE}")
    both = Target(((1.0, Unit(layer, 0)), (1.0, Unit(layer, 1))), HOSTILE)
    write_picture(
        run,
        "b",
        both,
        request={"climb": {HOSTILE: HOSTILE}, "prior": HOSTILE, "subject": f"{HOSTILE}\x00"},
    )
    write_evaluation(run, ["fc:0"], **{HOSTILE: {"value": HOSTILE, "note": HOSTILE}})
    write_exemplars(run / "evidence", ["fc:0"], label=HOSTILE)
    build([run], tmp_path / "site", HOSTILE)
    for file in (tmp_path / "site").rglob("*.html"):
        page = seen(file)
        scripts = [each for tag, each in page.elements if tag == "script"]
        names = {each["src"].rpartition("/")[2] for each in scripts}
        assert names <= {"atlas.js", "units.js", "map.js", "places.js", "guess.js"}
        assert not [key for _, each in page.elements for key in each if key.startswith("on")]
        assert "x" not in page.addresses
        links = [address.partition("#")[0] for address in page.addresses]
        assert not [link for link in links if ":" in link.removeprefix("https:")]
        assert HOSTILE in page.text
        assert "rm -rf" not in page.text  # a record's own command is not offered
    assert {each.name for each in tmp_path.iterdir()} == {"run", "site"}
    (subject,) = [
        each for each in (tmp_path / "site").iterdir() if each.is_dir() and each.name != "assets"
    ]
    assert re.fullmatch(r"[\w.-]+", subject.name)


def test_a_command_that_is_offered_has_its_words_quoted(tmp_path: Path) -> None:
    write_picture(tmp_path / "run", "a", lone("fc:0"), request={"subject": "$(touch x); y"})
    build([tmp_path / "run"], tmp_path / "site")
    (page,) = tmp_path.glob("site/*/fc/0.html")
    assert "phosphene exemplars '$(touch x); y' fc:all --images PHOTOGRAPHS" in seen(page).text


def test_a_layer_without_a_map_is_not_offered_a_dissection(tmp_path: Path) -> None:
    write_exemplars(tmp_path / "flat", ["fc:0"], positions=[[0, 0]] * 3, boxes=[[0, 0, 1, 1]] * 3)
    write_exemplars(tmp_path / "maps", ["conv:0"])
    build([tmp_path / "flat", tmp_path / "maps"], tmp_path / "site")
    assert (
        "phosphene dissect" not in seen(tmp_path / "site" / "tiny-objects" / "fc" / "0.html").text
    )
    page = seen(tmp_path / "site" / "tiny-objects" / "conv" / "0.html")
    assert "phosphene dissect tiny-objects conv --images OUTLINED" in page.text


def outside(run: Path) -> None:
    write_exemplars(run, ["fc:0"], whole="../other.webp")
    (run.parent / "other.webp").write_bytes(encoded(colours(0), "webp"))


def link_outside(run: Path) -> None:
    file = write_picture(run, "a", lone("fc:0"))
    file.with_suffix(".png").rename(run.parent / "a.png")
    file.with_suffix(".png").symlink_to(run.parent / "a.png")


def other_pixels(run: Path) -> None:
    write_picture(run, "a", lone("fc:0")).with_suffix(".png").write_bytes(encoded(colours(1)))


def not_a_picture(run: Path) -> None:
    write_picture(run, "a", lone("fc:0")).with_suffix(".png").write_bytes(
        b"<svg onload='alert(1)'/>"
    )


def not_an_animation(run: Path) -> None:
    write_picture(run, "a", lone("fc:0")).with_suffix(".webp").write_bytes(
        encoded(colours(0), "png")
    )


def text_of_form(name: str, text: str) -> object:
    def write(run: Path) -> None:
        run.mkdir()
        (run / name).write_text(text)

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda run: run.mkdir(),
            "holds no records and no evidence; make some with phosphene synthesize",
        ),
        (lambda run: None, "run is not a folder"),
        (
            lambda run: write_picture(run, "a", lone("fc:0")).with_suffix(".png").unlink(),
            "'a.png' is not there",
        ),
        (
            lambda run: write_picture(run, "a", lone("fc:0"), image="../a.png"),
            "'../a.png' does not lie beside it",
        ),
        (link_outside, "'a.png' lies outside of"),
        (outside, "'../other.webp' lies outside of"),
        (other_pixels, "a.png is not the picture that a.json describes"),
        (not_a_picture, "a.png cannot be read as an image"),
        (not_an_animation, "a.webp is not a WebP of 24 × 24 pixels, as its picture is"),
        (
            lambda run: write_picture(run, "a", lone("fc:0"), curve=["<b>"]),
            "curve[0] is not a number",
        ),
        (lambda run: write_picture(run, "a", lone("fc:0"), score=10**400), "score is not within"),
        (
            lambda run: write_picture(run, "a", lone("fc:0"), request={"member": 4}),
            "its request is not whole",
        ),
        (
            lambda run: write_picture(run, "a", lone("fc:0"), request={"subject": 5}),
            "request.subject is not a text",
        ),
        (
            lambda run: write_exemplars(run, ["fc:0"], whole="tiles/none.webp"),
            "'tiles/none.webp' is not there",
        ),
        (lambda run: write_exemplars(run, ["fc:0"], whole="tiles/\x00"), "is not there"),
        (
            lambda run: write_exemplars(run, ["fc:0"], values=[1.0]),
            "units[0] does not have a value, a photograph, a",
        ),
        (
            lambda run: write_exemplars(run, ["fc:0"], boxes=[[0, 0, 0, 0]] * 3),
            "units[0].boxes[0] is not a box",
        ),
        (
            lambda run: write_exemplars(run, ["fc:0"], unit="fc:x"),
            "units[0].unit is not of the form LAYER:CHANNEL",
        ),
        (
            lambda run: write_exemplars(run, ["fc:0"], silent=7),
            "units[0].silent is not within 0 … 1",
        ),
        (
            lambda run: write_exemplars(run, ["fc:0"], label="x" * 10**6),
            "units[0].label has 1,000,000 characters",
        ),
        (
            lambda run: write_exemplars(run, ["fc:0"], nearest=[["fc:1"]]),
            "is not a unit with a correlation",
        ),
        (
            lambda run: write_evaluation(run, ["fc:0"], ratio=float("nan")),
            "figures.ratio is not within",
        ),
        (lambda run: write_evaluation(run, ["fc:0"], ratio=10**400), "figures.ratio is not within"),
        (text_of_form("dissection.json", "[]"), "it is not an object"),
        (text_of_form("dissection.json", "{}"), "it has no 'format'"),
        (text_of_form("dissection.json", '{"format": 2}'), "has format 2, this version reads 1"),
        (text_of_form("evaluation-a.json", "[" * 100_000), "is not JSON"),
        (text_of_form("other.json", "{}"), "is JSON but not phosphene's record"),
    ],
)
def test_what_is_not_of_its_form_is_one_line_and_no_site(
    phosphene: Run, tmp_path: Path, write, said: str
) -> None:
    write(tmp_path / "run")
    line = phosphene("atlas", tmp_path / "run", "--out", tmp_path / "site").refused()
    assert said in line
    assert len(line) < 400
    assert not (tmp_path / "site").exists()


def test_a_strip_has_a_tile_for_each_photograph(tmp_path: Path) -> None:
    write_exemplars(tmp_path / "run", ["fc:0"])
    (tmp_path / "run" / "tiles" / "0.webp").write_bytes(encoded(colours(0), "webp"))
    with pytest.raises(BadFile, match="3 photographs need"):
        build([tmp_path / "run"], tmp_path / "site")


def test_only_an_atlas_is_replaced_and_only_by_a_whole_one(tmp_path: Path) -> None:
    run, site = tmp_path / "run", tmp_path / "site"
    file = write_picture(run, "a", lone("fc:0"))
    site.mkdir()
    (site / "thesis.txt").write_text("mine")
    with pytest.raises(BadRequest, match="is not an atlas; give a new folder"):
        build([run], site)
    assert [each.name for each in site.iterdir()] == ["thesis.txt"]
    (site / "thesis.txt").unlink()
    build([run], site)
    file.with_suffix(".png").unlink()
    with pytest.raises(PhospheneError):
        build([run], site)
    assert (site / "tiny-objects" / "fc" / "0-0.webp").exists()


def test_what_a_reader_keeps_in_an_atlas_is_not_taken_away(tmp_path: Path) -> None:
    run, site = tmp_path / "run", tmp_path / "site"
    write_picture(run, "a", lone("fc:0"))
    build([run], site)
    build([run], site)
    (site / "tiny-objects" / "notes.txt").write_text("mine")
    with pytest.raises(BadRequest, match=r"holds tiny-objects/notes\.txt, which no atlas wrote"):
        build([run], site)
    assert (site / "tiny-objects" / "notes.txt").read_text() == "mine"


def contents(site: Path) -> dict[str, bytes]:
    """Return every file of a site but the list of them, by its place."""
    files = (file for file in site.rglob("*") if file.is_file())
    return {file.relative_to(site).as_posix(): file.read_bytes() for file in files}


def two_runs(folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Runs `one` and `two` of different layers, and what their sites hold."""
    write_picture(folder / "one", "a", lone("old:0"))
    write_picture(folder / "two", "a", lone("_new:0"))
    for name in ("one", "two"):
        build([folder / name], folder / f"plain-{name}", "t")
    return contents(folder / "plain-one"), contents(folder / "plain-two")


def test_a_host_that_hides_underscores_shows_all_pages(tmp_path: Path) -> None:
    _, two = two_runs(tmp_path)
    assert ".nojekyll" in two
    assert "tiny-objects/_new.html" in two
    assert ".nojekyll" in two["assets/files.txt"].decode().split("\n")


ATLAS = f"{sys.executable} -m phosphene atlas --title t --out site"


def in_a_world(folder: Path, world: str, script: str) -> None:
    """Run a script in a folder, with rights or mounts of its own; skip where there are none."""
    command = ["unshare", *world.split(), "sh", "-ec"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("no namespaces here")
    done = subprocess.run(
        [*command, script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mounted", ["--bind volume site", "-t tmpfs none site"])
def test_a_site_on_a_mount_point_is_made_and_replaced(tmp_path: Path, mounted: str) -> None:
    one, two = two_runs(tmp_path)
    for name in ("site", "volume", "kept-one", "kept-two"):
        (tmp_path / name).mkdir()
    script = f"mount {mounted}; mkdir site/lost+found"
    for name in ("one", "two"):
        script += f"; {ATLAS} {name}; cp -a site/. kept-{name}"
    in_a_world(tmp_path, "--user --map-root-user --mount", script)
    assert contents(tmp_path / "kept-one") == one
    assert contents(tmp_path / "kept-two") == two  # and nothing of the first
    assert {each.name for each in (tmp_path / "kept-two").iterdir() if each.is_dir()} == {
        *("assets", "tiny-objects", "lost+found")
    }
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_a_site_in_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    (tmp_path / "site").mkdir()
    tmp_path.chmod(0o555)
    try:
        in_a_world(tmp_path, "--user --map-user=12345", f"! touch x; {ATLAS} one; {ATLAS} two")
    finally:
        tmp_path.chmod(0o755)
    assert contents(tmp_path / "site") == two
    assert one != two


def test_what_was_killed_between_two_renames_is_brought_back(tmp_path: Path) -> None:
    one, two = two_runs(tmp_path)
    site = tmp_path / "site"
    build([tmp_path / "one"], site, "t")
    site.rename(tmp_path / ".site.aside-99999")
    with pytest.raises(BadFile):
        build([tmp_path / "none"], site, "t")
    assert contents(site) == one
    site.rename(tmp_path / ".site.aside-99999")
    build([tmp_path / "two"], site, "t")
    assert contents(site) == two
    assert not [*tmp_path.glob(".*")]


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05])
def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_clear(
    tmp_path: Path, after: float
) -> None:
    """A run is killed while it draws, at several moments.

    The older site stays until the new one is whole.
    """
    one, _ = two_runs(tmp_path)
    build([tmp_path / "one"], tmp_path / "site", "t")
    runs = [str(run) for run in write_all(tmp_path)]
    with subprocess.Popen([*ATLAS.split(), *runs], cwd=tmp_path) as running:
        while running.poll() is None and not [*tmp_path.glob(".site.*/*")]:
            time.sleep(0.001)
        time.sleep(after)
        running.kill()
    assert [*tmp_path.glob(".site.*")]
    assert contents(tmp_path / "site") == one
    subprocess.run([*ATLAS.split(), *runs], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    build(write_all(tmp_path / "other"), tmp_path / "plain", "t")
    assert contents(tmp_path / "site").keys() == contents(tmp_path / "plain").keys()
    assert not [*tmp_path.glob(".*")]


@pytest.mark.parametrize("files", [0, 1, 9])
def test_a_site_that_was_killed_half_written_is_completed(tmp_path: Path, files: int) -> None:
    """On a mount point files come one by one; the folder above stands for one here."""
    one, two = two_runs(tmp_path)
    site = tmp_path / "site"
    build([tmp_path / "one"], site, "t")
    (site / "assets" / "files.txt").write_text("\n".join({*one, *two} - {"assets/files.txt"}))
    for name in sorted(two.keys() - {"assets/files.txt"})[:files]:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(two[name])
    build([tmp_path / "two"], site, "t")
    assert contents(site) == two


def test_a_folder_of_nothing_but_combinations(tmp_path: Path) -> None:
    difference = Target(((1.0, Unit("fc", 0)), (-1.0, Unit("fc", 1))), "lion - jellyfish")
    write_picture(tmp_path / "run", "difference", difference)
    build([tmp_path / "run"], tmp_path / "site")
    assert "lion - jellyfish" in seen(tmp_path / "site" / "tiny-objects" / "combinations.html").text


def test_several_folders_of_one_subject_become_one(tmp_path: Path) -> None:
    write_picture(tmp_path / "a", "a", lone("fc:0"), seed=1)
    write_picture(tmp_path / "b", "b", lone("fc:0"), seed=0)
    write_picture(tmp_path / "b", "again", lone("fc:0"), seed=1, animated=True)
    write_picture(tmp_path / "b", "c", lone("conv10:3"))
    write_picture(tmp_path / "b", "d", lone("conv2:3"))
    write_picture(tmp_path / "b", "e", lone("fc:0"), seed=2, weights={"subject": "another"})
    first, second = collect([tmp_path / "a", tmp_path / "b"]).subjects
    assert [layer.name for layer in first.layers] == ["conv2", "conv10", "fc"]
    pictures = first.layers[2].cards[0].pictures
    assert [(picture.seed, picture.animation is not None) for picture in pictures] == [
        (0, False),
        (1, True),
    ]
    assert (first.name, second.name) == ("tiny-objects", "tiny-objects")
    assert (first.place, second.place) == ("tiny-objects", "tiny-objects-another")


def test_what_is_no_lone_unit_has_its_own_page(site: Path) -> None:
    page = seen(site / "tiny-objects" / "combinations.html")
    assert "fc:0 - fc:1" in page.text
    assert "least school bus" in page.text
    assert "least school bus" not in seen(site / "tiny-objects" / "fc.html").text


def test_a_unit_at_a_position_is_on_its_channel_s_page(tmp_path: Path) -> None:
    write_picture(
        tmp_path / "run", "a", Target(((1.0, Unit("conv", 3, "max")),), "conv:3@max"), score=8.25
    )
    write_picture(tmp_path / "run", "b", lone("conv:3"), score=4.5)
    build([tmp_path / "run"], tmp_path / "site")
    page = seen(tmp_path / "site" / "tiny-objects" / "conv" / "3.html")
    assert page.text.index("4.50") < page.text.index("conv:3@max") < page.text.index("8.25")


def test_the_record_in_the_site_is_the_record(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "run", "a", lone("fc:0"))
    build([tmp_path / "run"], tmp_path / "site")
    kept = tmp_path / "site" / "tiny-objects" / "fc" / "fc-0-0.json"
    assert Record.read(kept) == Record.read(file)
    assert f"phosphene synthesize --record {kept.name}" in seen(kept.parent / "0.html").text


def test_the_network_s_own_input_lies_beside_its_record(tmp_path: Path) -> None:
    own = colours(3, 12)
    said = {"input": "a.input.png", "input_sha256": pixels_sha256(own), "input_score": 9.25}
    run = tmp_path / "run"
    write_picture(run, "a", lone("fc:0"), **said)
    (run / "a.input.png").write_bytes(encoded(own))
    build([run], tmp_path / "site")
    kept = tmp_path / "site" / "tiny-objects" / "fc" / "fc-0-0.input.png"
    assert np.array_equal(np.asarray(Image.open(kept)), own)
    page = seen(kept.parent / "0.html")
    assert kept.name in page.addresses
    assert "9.25" in page.text
    (run / "a.input.png").write_bytes(encoded(255 - own))
    with pytest.raises(BadFile, match=r"a\.input\.png is not the picture"):
        build([run], tmp_path / "other")


def test_a_page_shows_what_a_network_that_is_wide_and_grey_saw(tmp_path: Path) -> None:
    steps = np.linspace(0, 255, 32, dtype=np.uint8)
    own = np.broadcast_to(steps[None, :, None], (18, 32, 3)).copy()
    said = {"input": "a.input.png", "input_sha256": pixels_sha256(own), "input_score": 9.25}
    run = tmp_path / "run"
    write_picture(run, "a", lone("fc:0"), **said)
    (run / "a.input.png").write_bytes(encoded(own))
    build([run], tmp_path / "site")
    folder = tmp_path / "site" / "tiny-objects" / "fc"
    for file in ("0.webp", "0-0.webp"):
        shown = np.asarray(Image.open(folder / file).convert("RGB"), np.int16)
        assert shown.shape == own.shape
        assert np.abs(shown - own).mean() < 3, "WebP is lossy"


def test_a_page_says_what_was_measured_by_whom_and_how_sure(site: Path) -> None:
    front = seen(site / "index.html").text
    assert re.search(r"another-network.*73 %.*95 %: 63 % … 81 %; n = 100", front, re.S)
    unit = seen(site / "tiny-objects" / "fc" / "1.html").text
    for said in (
        "glow",
        "another-network",
        "1.10",
        "12.5 %",
        "1,200 of photographs, train",
        "jellyfish",
    ):
        assert said in unit
    hidden = seen(site / "tiny-objects" / "conv2" / "1.html").text
    assert "No picture of this unit yet: phosphene synthesize tiny-objects conv2:1" in hidden
    assert re.search(r"Object\s*sky\s+IoU 0.11", hidden)
    assert re.search(r"Object\s*none", seen(site / "tiny-objects" / "conv2" / "2.html").text)


def test_pictures_are_those_of_the_run(site: Path) -> None:
    with Image.open(site / "tiny-objects" / "fc" / "0-0-climb.webp") as film:
        assert film.n_frames == 3
    with Image.open(site / "tiny-objects" / "fc" / "3-1.webp") as picture:
        assert picture.size == (24, 24)


def test_thousands_of_units_build_and_do_not_load_at_once(tmp_path: Path) -> None:
    for i in range(2048):
        write_picture(
            tmp_path / "run", f"{i}", lone(f"fc:{i}"), score=i / 100, pixels=colours(i, 16)
        )
    start = time.process_time()
    build([tmp_path / "run"], tmp_path / "site")
    assert time.process_time() - start < 120
    layer = tmp_path / "site" / "tiny-objects" / "fc.html"
    images = [each for tag, each in seen(layer).elements if tag == "img"]
    assert len(images) == 2048
    assert all(each["loading"] == "lazy" and each["width"] and each["height"] for each in images)
    assert layer.stat().st_size < 300 * 2048
    with Image.open(layer.parent / "fc" / "map.webp") as sheet:
        assert max(sheet.size) < 3000
    assert (layer.parent / "fc" / "7.html").stat().st_size < 20_000


def test_an_example_is_made_of_what_is_there_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands are not run here, but each option that they give is one of the program."""
    script = Path(__file__).parents[1] / "scripts" / "example-atlas"
    words = [str(script), "--out", str(tmp_path / "e"), "--objects", "o", "--mouse", "m"]
    monkeypatch.setattr(sys, "argv", [*words, "--units", "2"])
    ran: list[list[str]] = []
    fails = ["mouse-pixels"]

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command[3:])
        failed = any(command[-1].endswith(each) for each in fails)
        return subprocess.CompletedProcess(command, int(failed))

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit):
        runpy.run_path(str(script))
    told = capsys.readouterr().err
    assert "scenes-exemplars needs --scenes" in told
    assert "failed: mouse-pixels" in told
    assert not any(word.endswith("mouse-pixels") for word in ran[-1])
    first, fails[:] = len(ran), []
    with pytest.raises(SystemExit):
        runpy.run_path(str(script))
    assert [each[0] for each in ran[first:]] == ["synthesize", "atlas"]
    assert ran[first][2] == "rates:77,233"
    folders = [Path(each).name for each in ran[-1][1:-4]]
    assert {"objects-fc6", "scenes-conv5", "lite0", "mouse-exemplars"} < {*folders}
    assert not {"googlenet", "objects-dissection"} & {*folders}
    page = (script.parents[1] / "docs" / "cli.md").read_text()
    for command in ran:
        options = page.partition(f"## phosphene {command[0]}\n")[2].partition("\n## ")[0]
        assert [word for word in command if word[:2] == "--" and word not in options] == []
    assert "class Mouse" in (tmp_path / "e" / "code" / "mouse.py").read_text()


def test_every_page_has_its_content_as_json(site: Path) -> None:
    without = {"search.html", "unit.html", "guess.html", "reading.html"}
    pages = [file for file in site.rglob("*.html") if file.name not in without]
    forms = {file: AtlasPage.read(file.with_suffix(".json")) for file in pages}
    kinds = [form.kind for form in forms.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        **{"front": 1, "layer": 2, "map": 1, "unit": 18, "combinations": 1}
    }
    for file, form in forms.items():
        assert file.name == form.page
        assert file.with_suffix(".json").name in seen(file).addresses
        named = [form.page]
        for each in [*form.units, *form.layers]:
            named += [each["page"], each["json"]]
            pictures = each.get("pictures", [])
            named += [one[key] for one in pictures for key in ("image", "record")]
            named += [one["animation"] for one in pictures if one["animation"]]
            named += [one["strip"] for one in each.get("exemplars", [])]
        assert [name for name in named if not (file.parent / name).is_file()] == []
    (unit,) = forms[site / "tiny-objects" / "fc" / "1.html"].units
    assert (unit["unit"], unit["name"], unit["score"]) == ("fc:1", "jellyfish", 6.0)
    assert unit["exemplars"][0]["photographs"][0]["name"] == "jellyfish"
    assert unit["evaluations"][0]["figures"][0]["name"] == "recognised_top1"
    assert [each["seed"] for each in unit["pictures"]] == [0, 1]
    short = forms[site / "tiny-objects" / "fc.html"].units[1]
    assert short["measures"]["activation_ratio"] == 1.1


def test_a_network_keeps_its_address_whatever_else_is_there(tmp_path: Path) -> None:
    for name, sha256 in (("a", "1" * 64), ("b", "2" * 64), ("c", "3" * 64)):
        weights = {"weights": {"subject": sha256}}
        write_picture(tmp_path / name, "x", lone("fc:0"), pixels=colours(ord(name)), **weights)
    run = tmp_path.joinpath
    places = [
        [each.place for each in collect([*map(run, names)]).subjects] for names in ("abc", "acb")
    ]
    assert places == [
        ["tiny-objects", "tiny-objects-22222222", "tiny-objects-33333333"],
        ["tiny-objects", "tiny-objects-33333333", "tiny-objects-22222222"],
    ]
    write_picture(tmp_path / "d", "x", lone("fc:0"), request={"subject": "guess"})
    assert collect([run("d")]).subjects[0].place == "guess-2", "a page has that name"


def four_kinds(n: int) -> np.ndarray:
    """Pictures (n, side, side, 3): red ones, blue ones, with upright and with level stripes."""
    random = np.random.default_rng(0)
    images = random.uniform(0, 0.3, (n, maps.SIDE, maps.SIDE, 3))
    stripes = np.arange(maps.SIDE) // 4 % 2
    for i, image in enumerate(images):
        image[..., 0 if i % 4 < 2 else 2] += 0.6
        image += 0.4 * (stripes[:, None, None] if i % 2 else stripes[None, :, None])
    return images / images.max()


@pytest.mark.parametrize("n", [12, 60])
def test_units_whose_pictures_are_alike_lie_together(n: int) -> None:
    features = maps.described(four_kinds(n))
    places = maps.spread(features)
    assert places.min() == 0
    assert places.max() == 1
    assert np.array_equal(places, maps.spread(features))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(n)
    assert (apart.argmin(1) % 4 == np.arange(n) % 4).mean() > 0.9


@pytest.mark.parametrize("block", [5, 10_000])
def test_each_unit_has_a_cell_of_its_own(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "BLOCK", block)
    places = np.random.default_rng(0).random((47, 2))
    cells = maps.on_a_grid(places, 8, 6)
    assert len({(column, row) for column, row in cells.tolist()}) == 47
    assert cells.max(0).tolist() <= [7, 5]
    for way in (0, 1):
        assert np.corrcoef(places[:, way], cells[:, way])[0, 1] > 0.9


def test_a_map_shows_each_tile_in_its_cell(tmp_path: Path) -> None:
    shades = np.linspace(0, 255, 10).astype(np.uint8)
    for i, shade in enumerate(shades):
        pixels = np.full((18, 32, 3), shade, np.uint8)
        write_picture(tmp_path / "run", f"{i}", lone(f"fc:{i}"), pixels=pixels)
    write_exemplars(tmp_path / "photographs", ["fc:10"])
    build([tmp_path / "run", tmp_path / "photographs"], tmp_path / "site")
    folder = tmp_path / "site" / "tiny-objects" / "fc"
    said = AtlasPage.read(folder / "map.json").units
    text = (folder / "places.js").read_text().removeprefix("const atlasPlaces = ")[:-2]
    places = json.loads(text)
    wide, high = places["cell"]
    sheet = np.asarray(Image.open(folder / "map.webp").convert("RGB"), int)
    assert sheet.shape[:2] == (places["rows"] * high, places["columns"] * wide)
    for shade, unit, place in zip(shades, said, places["units"], strict=False):
        column, row = unit["cell"]
        assert place == [*np.round(unit["place"], 4), column, row, 0]
        assert abs(sheet[row * high + high // 2, column * wide + wide // 2].mean() - shade) < 8
    assert places["units"][10][4] == 1, "a photograph"


def test_a_layer_that_fits_a_window_has_no_map(site: Path) -> None:
    assert (site / "tiny-objects" / "fc" / "map.html").is_file()
    assert not (site / "tiny-objects" / "conv2" / "map.html").exists()
    assert "map.html" not in (site / "tiny-objects" / "conv2" / "1.html").read_text()


def test_there_is_no_game_without_photographs(tmp_path: Path) -> None:
    write_picture(tmp_path / "run", "a", lone("fc:0"))
    build([tmp_path / "run"], tmp_path / "site")
    assert not (tmp_path / "site" / "guess.html").exists()
    assert "guess.html" not in (tmp_path / "site" / "index.html").read_text()


def test_a_lesson_shows_the_unit_of_which_most_is_known(site: Path) -> None:
    page = seen(site / "reading.html")
    assert "tiny-objects/fc/0-0.webp" in page.addresses
    assert "tiny-objects/fc/0-exemplars-0.webp" in page.addresses
    assert "tiny-objects/fc/0-0-climb.webp" in page.addresses
    for part in ("Exemplars", "The climb", "Evaluation", "Nearest units"):
        assert part in page.text


def test_a_front_page_of_ten_networks_begins_with_all_of_them(tmp_path: Path) -> None:
    for i in range(10):
        said = {"request": {"subject": f"network-{i}"}, "weights": {"subject": f"{i}" * 64}}
        write_picture(tmp_path / "run", f"{i}", lone("fc:0"), pixels=colours(i), **said)
    build([tmp_path / "run"], tmp_path / "site")
    page = seen(tmp_path / "site" / "index.html")
    anchors = [each for each in page.addresses if each.startswith("#network-")]
    assert anchors == [f"#network-{i}" for i in range(10)]
    assert {each[1:] for each in anchors} < {*page.ids}


def test_serving_is_for_this_machine_until_interrupted(site: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from phosphene.cli import main; main()"
    command = [sys.executable, "-c", code, "atlas", "--serve", "--out", str(site), "--port", "0"]
    environment = {**os.environ, "BROWSER": "true %s", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout
        address = server.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        with urlopen(address) as answer:
            assert answer.read() == (site / "index.html").read_bytes()
        server.send_signal(signal.SIGINT)
        _, complaints = server.communicate(timeout=20)
    assert (server.returncode, complaints) == (0, "")


def test_serving_needs_an_atlas(phosphene: Run, tmp_path: Path) -> None:
    assert "is not an atlas" in phosphene("atlas", "--serve", "--out", tmp_path).refused()
    assert "no folder given" in phosphene("atlas", "--out", tmp_path).refused()


@pytest.mark.parametrize("missing", ["jinja2", "sklearn.manifold"])
def test_what_is_missing_is_named_with_its_extra(
    phosphene: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for i in range(maps.LEAST):
        write_picture(tmp_path / "run", f"{i}", lone(f"fc:{i}"))
    assert (
        "pip install 'phosphene[atlas]'"
        in phosphene("atlas", tmp_path / "run", "--out", tmp_path / "s").refused()
    )


@given(st.lists(st.floats(-1e9, 1e9), max_size=8))
def test_an_axis_holds_its_values_between_round_ends(values: list[float]) -> None:
    found = axis(values)
    assert found.low < found.high
    slack = 1e-6 * (found.high - found.low)
    assert all(found.low - slack <= value <= found.high + slack for value in values)
    assert list(found.ticks) == sorted({*found.ticks})
    assert 2 <= len(found.ticks) <= 8


@given(st.lists(st.text(max_size=9), max_size=12))
def test_file_names_differ_whatever_the_case(names: list[str]) -> None:
    safe = file_names(names, taken=["index"])
    assert len({name.lower() for name in safe} | {"index"}) == len(names) + 1
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) for name in safe)


def test_a_share_is_drawn_on_the_whole_and_a_ratio_from_nothing() -> None:
    assert bar_axis([Figure("recognised_top1", 0.2, 0.1, 0.3)]) == axis([0, 1], 1)
    ratio = bar_axis([Figure("activation_ratio", 1.3, 1.2, 1.4)])
    assert ratio is not None
    assert (ratio.low, ratio.high) == (0, 1.5)
    assert bar_axis([Figure("words", "none")]) is None


def test_what_is_to_be_compared_stands_in_one_row() -> None:
    first = [
        Figure("recognised_top1", 0.5),
        Figure("natural_top1", 0.75),
        Figure("activation_ratio", 1.5),
    ]
    second = [
        Figure("recognised_top1", 0.25),
        Figure("activation_ratio", 1.5),
        Figure("glow_of_it", 0.1),
    ]
    groups = grouped(
        [Evaluation("a", "", "fc", tuple(first)), Evaluation("b", "", "fc", tuple(second))]
    )
    said = {
        row.measure.name: [(line.of, line.judges, line.figure.value) for line in row.lines]
        for rows in groups.values()
        for row in rows
    }
    assert said == {
        "recognised first": [
            ("pictures", ("a",), 0.5),
            ("pictures", ("b",), 0.25),
            ("photographs", ("a",), 0.75),
        ],
        "activation ratio": [("pictures", (), 1.5)],
        "glow of it": [("", ("b",), 0.1)],
    }
    assert list(groups) == ["Recognition", "Activation", "Others"]


def test_every_figure_that_is_written_has_a_name_and_a_line(tmp_path: Path) -> None:
    written = Path(__file__).parents[1] / "docs" / "evidence.md"
    for key in re.findall(
        r"`([a-z]+_[a-z0-9_]+)`", written.read_text().partition("| --- |")[2].partition("\n\n")[0]
    ):
        if not key.startswith("_"):
            assert key in NAMES, key
    assert all(measure.says for measures in GROUPS.values() for measure in measures)
