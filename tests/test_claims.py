"""Claims: intervals cover, verdicts follow from them, nothing is measured twice."""

from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from phosphene import __version__, claims, statistics
from phosphene.claims import (
    CLAIMS,
    Claim,
    Expectation,
    Experiment,
    Findings,
    Result,
    c1_learned_prior,
    c4_other_architecture,
    c5_hidden_units,
    runner,
)
from phosphene.claims import (
    experiment as experiments,
)
from phosphene.claims.claim import MIN_VALUES
from phosphene.claims.code import code_hash, reached
from phosphene.claims.formatting import figure, formatted
from phosphene.claims.report import write_report
from phosphene.errors import BadRequest, Notice, UnknownName
from phosphene.files import without_nan
from phosphene.runtime import Runtime
from phosphene.statistics import Figure, bootstrap, difference_of_means, paired_difference
from phosphene.synthesis import settings
from phosphene.testing import CLASSES, write_generator, write_subject

NAN = math.nan
CHROMIUM = shutil.which("chromium")


# ---------------------------------------------------------------- intervals and verdicts


def test_an_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400).tolist()
    found, half = bootstrap(values, "metres"), 1.96 * np.std(values) / 20
    assert found.value == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(found.value - half, abs=0.06 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.06 * half)
    assert (found.n, found.note) == (400, "metres")
    assert bootstrap(values) == replace(found, note=""), "the same draws each time"


def test_an_interval_covers_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 1000)
    rng = np.random.default_rng(2)
    found = [bootstrap(rng.exponential(1, 80).tolist(), "", 0.1) for _ in range(400)]
    assert 0.85 < np.mean([each.low < 1 < each.high for each in found]) < 0.95
    found = [
        difference_of_means(rng.normal(1, 1, 60).tolist(), rng.normal(0, 2, 90).tolist(), 0.1)
        for _ in range(400)
    ]
    assert 0.85 < np.mean([each.low < 1 < each.high for each in found]) < 0.95


@pytest.mark.parametrize("error", [0.0125, 0.05])
def test_an_interval_of_few_values_misses_no_more_often(error: float) -> None:
    rng = np.random.default_rng(6)
    found = [bootstrap(rng.normal(1, 1, MIN_VALUES).tolist(), "", error) for _ in range(1500)]
    missed = np.mean([not each.low < 1 < each.high for each in found])
    assert error / 2 < missed < error + 3 * (error / 1500) ** 0.5, (
        "the plain percentile interval misses 5 and 11 %"
    )


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_less_error_is_a_wider_interval(statistic: Any) -> None:
    values = np.random.default_rng(3).normal(size=50).tolist()
    wide, usual, narrow = (bootstrap(values, "", error, statistic) for error in (0.0125, 0.05, 0.5))
    assert wide.low < usual.low < narrow.low <= narrow.value <= narrow.high < usual.high < wide.high


def test_memory_stays_small_and_the_numbers_do_not_change_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(4).normal(size=300).tolist()
    whole = bootstrap(values)
    monkeypatch.setattr(statistics, "MAX_RESAMPLED", 100_000)
    parts = bootstrap(values)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.01)


def test_pairs_are_compared_as_pairs() -> None:
    rng = np.random.default_rng(5)
    one = rng.normal(0, 10, 50)
    other = one - rng.normal(0.5, 0.1, 50)
    paired, apart = (
        paired_difference(one.tolist(), other.tolist()),
        difference_of_means(one.tolist(), other.tolist()),
    )
    assert paired == bootstrap((one - other).tolist())
    assert paired.low > 0.4
    assert apart.value == pytest.approx(paired.value)
    assert apart.low < 0 < apart.high
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])


def test_what_is_no_number_does_not_count() -> None:
    assert bootstrap([1.0, NAN, 3.0, math.inf]) == bootstrap([1.0, 3.0])
    assert paired_difference([1.0, 2.0, NAN], [0.5, 1.5, 9.0]) == paired_difference(
        [1.0, 2.0], [0.5, 1.5]
    )
    assert difference_of_means([1.0, NAN], [2.0, 3.0]) == difference_of_means([1.0], [2.0, 3.0])
    for nothing in (bootstrap([NAN]), paired_difference([], []), difference_of_means([1.0], [NAN])):
        assert nothing.n == 0
        assert math.isnan(nothing.value)
        assert Expectation("x", "x").verdict(nothing) == "open"


@pytest.mark.parametrize(
    ("low", "high", "least", "verdict"),
    [
        (0.1, 0.3, 0.0, "holds"),
        (0.1, 0.3, 0.2, "open"),
        (0.1, 0.3, 0.5, "fails"),
        (-0.3, -0.1, 0.0, "fails"),
        (0.0, 0.3, 0.0, "open"),
        (-0.3, 0.0, 0.0, "open"),
        (NAN, NAN, 0.0, "open"),
    ],
)
def test_a_verdict_follows_from_the_interval(
    low: float, high: float, least: float, verdict: str
) -> None:
    assert Expectation("x", "x", least).verdict(Figure((low + high) / 2, low, high, 9)) == verdict


@pytest.mark.parametrize(
    ("value", "low", "high", "n", "needed"),
    [
        (0.1, -0.1, 0.4, 50, 200),
        (-0.1, -0.4, 0.1, 50, 200),
        (0.2, 0.0, 0.5, 50, 51),
        (0.1, 0.05, 0.15, 50, None),
        (-0.1, -0.15, -0.05, 50, None),
        (0.0, -0.1, 0.1, 50, None),
        (1.0, 1.0, 1.0, 3, MIN_VALUES),
        (NAN, NAN, NAN, 0, None),
    ],
)
def test_an_open_figure_says_how_many_values_would_decide_it(
    value: float, low: float, high: float, n: int, needed: int | None
) -> None:
    """By hand: an interval of four times as many values has half the length."""
    assert Expectation("x", "x").needed(Figure(value, low, high, n)) == needed
    assert Expectation("x", "x", 7).needed(Figure(7 + value, 7 + low, 7 + high, n)) == needed


def test_so_many_values_decide_it() -> None:
    """Drawn from one normal distribution, with the same mean: few values, and as many as needed."""

    def found(n: int, mean: float) -> Figure:
        drawn = np.random.default_rng(0).normal(size=n)
        return bootstrap(((drawn - drawn.mean()) / drawn.std() + mean).tolist())

    each, few = Expectation("x", "x"), found(40, 0.1)
    needed = each.needed(few)
    assert needed
    verdicts = [each.verdict(found(needed, 0.1 * part)) for part in (0.8, 1.2)]
    assert verdicts == ["open", "holds"]


def simple(*numbers: str, measure: Any = None, needs: tuple[str, ...] = ()) -> Claim:
    expected = tuple(Expectation(name, f"it is said that {name}") for name in numbers)
    return Claim("C0", "Simple", "Something is so.", expected, measure, needs, ())


UP, DOWN, ACROSS = (Figure(value, value - 1, value + 1, 9, "a note") for value in (2.0, -2.0, 0.0))


def test_a_claim_holds_where_all_of_it_does_and_fails_where_a_part_fails() -> None:
    two = simple("a", "b")
    assert two.level == 0.025
    assert two.verdict({"a": UP, "b": UP}) == "holds"
    assert two.verdict({"a": UP, "b": ACROSS}) == "open"
    assert two.verdict({"a": DOWN, "b": ACROSS}) == "fails"
    assert two.verdicts({"a": UP, "b": DOWN, "more": UP}) == ["holds", "fails"]


# ---------------------------------------------------------------- each claim, on planted units


def some_of(share: float, i: int) -> float:
    """1 for so many of a hundred, spread out; 0 for the others."""
    return float(i * 37 % 100 < 100 * share)


def planted_priors(how: float) -> Mapping[str, Figure]:
    mine, theirs = 0.5 + 0.3 * how, 0.5 - 0.3 * how
    named = [
        {
            arm: [
                [some_of(mine if arm == c1_learned_prior.GENERATOR else theirs, i + j), 1.0]
                for j in (0, 9)
            ]
            for arm in c1_learned_prior.ARMS
        }
        for i in range(100)
    ]
    for i, unit in enumerate(
        named
    ):  # where nothing is planted, each unit differs and the mean does not
        if not how:
            unit[c1_learned_prior.GENERATOR] = [[some_of(0.5, i * i + 3), 1.0]]
    rng = np.random.default_rng(7)
    units = [
        {
            "named": each,
            "far": {
                arm: [rng.normal(-how * (arm == c1_learned_prior.GENERATOR))] * 2
                for arm in c1_learned_prior.ARMS
            },
        }
        for each in named
    ]
    return c1_learned_prior.numbers(units, CLAIMS["C1"].level)


def planted_hidden(how: float) -> Mapping[str, Figure]:
    rng = np.random.default_rng(6)
    units: list[dict[str, Any]] = []
    for i in range(80):
        noise = rng.normal(0, 0.1, 3)
        mine = {
            "activation_ratio": 1 + 0.5 * how + noise[0],
            "two_afc_synthetic": 0.5 + 0.2 * how + noise[1],
        }
        units.append(
            {
                "layer": f"conv{i % 4}",
                "generator": mine,
                "Fourier": {"two_afc_synthetic": 0.5 + noise[2]},
            }
        )
    output = {
        "layer": "fc8",
        "generator": dict.fromkeys(mine, 1e6 * (0.5 - (how > 0))),
    }  # of no hidden unit
    return c5_hidden_units.numbers(
        [*units, {**output, "Fourier": {"two_afc_synthetic": 0.0}}], "fc8", CLAIMS["C5"].level
    )


PLANTED: dict[str, Callable[[float], Mapping[str, Figure]]] = {
    "C1": planted_priors,
    "C5": planted_hidden,
}
"""Return a claim's `numbers` of units in which it is true (1), false (-1), or neither (0)."""


@pytest.mark.parametrize(("how", "verdict"), [(1, "holds"), (-1, "fails"), (0, "open")])
@pytest.mark.parametrize("name", PLANTED)
def test_a_claim_says_what_was_planted(name: str, how: float, verdict: str) -> None:
    numbers = PLANTED[name](how)
    assert CLAIMS[name].verdicts(numbers) == [verdict] * len(CLAIMS[name].expected)
    assert CLAIMS[name].verdict(numbers) == verdict


def test_every_claim_is_whole() -> None:
    for name, each in CLAIMS.items():
        assert each.name == name
        assert each.expected
        assert len({expectation.number for expectation in each.expected}) == len(each.expected)
    assert all(CLAIMS[name] is each or name in CLAIMS for name, each in claims.ANY_NETWORK.items())


# ---------------------------------------------------------------- the runner


class Bench:
    """An experiment that has nothing, and a claim that counts how often it is measured."""

    def __init__(self, out: Path):
        self.out, self.times, self.findings = (
            out,
            0,
            Findings({"a": UP, "more": Figure(NAN, NAN, NAN, 0)}),
        )
        self.claim = simple("a", measure=self.measure)

    def measure(self, experiment: Experiment) -> Findings:
        self.times += 1
        return self.findings

    def run(self, resume: bool = True, **identity: Any) -> Result:
        experiment = Experiment(Runtime(self.out))
        experiment.__dict__["identity"] = {"subject": "s", "seed": 0, "quick": False, **identity}
        (result,) = runner.run([self.claim], experiment, resume)
        return result


def test_what_was_measured_is_read_again(tmp_path: Path) -> None:
    desk = Bench(tmp_path)
    desk.findings.rows = [{"layer": "conv1", "share": UP}]
    desk.findings.pictures = [("A picture.", tmp_path / "pictures" / "a.webp")]
    first, again = desk.run(), desk.run()
    assert (first.kept, again.kept) == (False, True)
    assert desk.times == 1
    assert json.dumps(again.as_json()) == json.dumps(
        {**first.as_json(), "rows": again.findings.rows}
    )
    assert again.findings.rows[0]["share"]["value"] == UP.value
    assert again.findings.pictures == first.findings.pictures
    assert math.isnan(again.findings.numbers["more"].value)
    kept = json.loads((tmp_path / "C0.json").read_text())
    assert kept["numbers"]["more"] == {"value": None, "low": None, "high": None, "n": 0, "note": ""}


@pytest.mark.parametrize("other", [{"seed": 1}, {"quick": True}, {"networks": {"s": "0123"}}])
def test_what_was_measured_of_something_else_is_measured_anew(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    desk = Bench(tmp_path)
    assert desk.run().identity != desk.run(**other).identity
    assert desk.times == 2
    desk.run(**other)
    assert desk.times == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: "",
        lambda kept: json.dumps(kept)[:-20],
        lambda kept: "[]",
        lambda kept: json.dumps({**kept, "format": 0}),
        lambda kept: json.dumps({**kept, "numbers": {}}),
        lambda kept: json.dumps({**kept, "numbers": {"a": {"value": "much"}}}),
        lambda kept: json.dumps({**kept, "pictures": [1]}),
    ],
)
def test_a_damaged_result_is_measured_anew(tmp_path: Path, damage: Callable[[Any], str]) -> None:
    desk = Bench(tmp_path)
    whole = desk.run().as_json()
    file = tmp_path / "C0.json"
    file.write_text(damage(json.loads(file.read_text())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        assert desk.run().as_json()["numbers"].keys() == whole["numbers"].keys()
    assert desk.times == 2


def changed(file: Path, **parts: Any) -> None:
    """Change a kept result: of `identity`, only what is named."""
    kept = json.loads(file.read_text())
    kept["identity"] |= parts.pop("identity", {})
    file.write_text(json.dumps({**kept, **parts}))


OTHERS = {"phosphene": "0.0.9", "torch": "1.0"}


def test_what_other_code_measured_is_shown_and_says_so(tmp_path: Path) -> None:
    desk = Bench(tmp_path)
    assert desk.run().as_json()["note"] == ""
    changed(tmp_path / "C0.json", identity={"code": "0" * 64}, versions=OTHERS)
    before = (tmp_path / "C0.json").read_bytes()
    found = desk.run().as_json()
    assert desk.times == 1
    assert found["note"].startswith("Measured with version 0.0.9 of phosphene, by other code")
    assert (found["versions"], found["identity"]["code"]) == (OTHERS, "0" * 64)
    assert (tmp_path / "C0.json").read_bytes() == before
    page = Page(write_report([found], tmp_path))
    assert page.text.count("Measured with version 0.0.9 of phosphene") == 1
    anew = desk.run(resume=False).as_json()
    assert desk.times == 2
    assert anew["versions"]["phosphene"] == __version__
    assert not anew["note"]
    desk.run(resume=False)
    assert desk.times == 2, "what this code measured is not measured again"


def test_what_other_code_measured_of_something_else_is_measured_anew(tmp_path: Path) -> None:
    desk = Bench(tmp_path)
    desk.run()
    changed(tmp_path / "C0.json", identity={"code": "0" * 64, "data": {"objects": "other"}})
    assert not desk.run().earlier
    assert desk.times == 2


EVIDENCE = Path(__file__).parents[1] / "evidence"


@pytest.mark.parametrize("name", CLAIMS)
def test_results_of_version_0_1_0_are_shown_and_say_so(tmp_path: Path, name: str) -> None:
    """Version 0.1.0 knew photographs and code by other hashes, which nobody can compare now."""
    shutil.copy(EVIDENCE / "claims.json", tmp_path)
    kept = runner.read(CLAIMS[name], tmp_path)
    assert kept is not None
    assert kept.format == 1
    now = {**kept.identity, "code": "new", "data": {"objects": "new"}}
    found = runner._compared(kept, now)
    assert found is not None
    assert "Measured with version 0.1.0 of phosphene, by other code" in found.as_json()["note"]
    old = {each["claim"]: each for each in json.loads((EVIDENCE / "claims.json").read_text())}
    told = json.loads(json.dumps(without_nan(found.as_json())))
    assert {part: told[part] for part in old[name]} == old[name], "nothing else is changed"
    assert runner._compared(kept, {**now, "seed": 1}) is None


def write_package(root: Path, **modules: str) -> Path:
    """Write a package whose modules are named with __ for a dot."""
    for name, text in modules.items():
        file = root / "pack" / Path(*name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for folder in {file.parent for file in (root / "pack").rglob("*.py")}:
        (folder / "__init__.py").touch()
    return root / "pack"


def test_the_code_of_a_result_is_all_that_its_experiment_reaches(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        start="from pack import middle\nimport json",
        middle="def f():\n    from pack.deep.inner import name\n",
        deep__inner="import pack.end as end\nname = 1",
        end="from pack.start import f",
        aside="from pack.start import f",
        deep__other="",
    )
    (package / "deep" / "listed").mkdir()
    (package / "deep" / "listed" / "__init__.py").write_text("from pack.deep.other import x\ny = 1")
    assert reached(["start"], package) == {"start", "middle", "deep.inner", "end"}
    before = code_hash(["start"], package)
    (package / "aside.py").write_text("changed = 1")
    assert code_hash(["start"], package) == before
    (package / "end.py").write_text("from pack.deep.listed import y")
    assert reached(["start"], package) == {
        *("start", "middle", "deep.inner", "end", "deep.listed", "deep.other")
    }
    assert code_hash(["start"], package) != before
    (package / "end.py").write_text('from pack.parts import built_in\nbuilt_in("pack.deep")')
    assert {"deep.inner", "deep.other"} <= reached(["end"], package)


@pytest.mark.parametrize("name", CLAIMS)
def test_an_experiment_reaches_networks_and_what_it_climbs_with(name: str) -> None:
    module = CLAIMS[name].measure.__module__.removeprefix("phosphene.")
    found = reached([module])
    wanted = {"claims.experiment", "networks.resnet", "networks.sources", "synthesis", "priors"}
    assert wanted <= found
    assert ("training.subject" in found) == (name == "C8"), "C8 trains a network"
    assert not any(each.startswith(("cli", "atlas")) for each in found)
    others = [each.measure.__module__ for each in CLAIMS.values() if each.name != name]
    assert not {each.removeprefix("phosphene.") for each in others} & found


def test_what_a_claim_needs_is_asked_for_before_it_is_measured(tmp_path: Path) -> None:
    desk = Bench(tmp_path)
    desk.claim = replace(desk.claim, needs=("objects-fc9",))
    with pytest.raises(UnknownName, match="objects-fc6"):
        desk.run()
    assert desk.times == 0


# ---------------------------------------------------------------- words and the report


@pytest.mark.parametrize(
    ("low", "value", "high", "words"),
    [
        (0.701, 0.79, 0.846, ("0.79", "0.70 … 0.85")),
        (-55.2, -40.1, -21.0, ("−40", "−55 … −21")),
        (0.0102, 0.0123, 0.0188, ("0.0123", "0.0102 … 0.0188")),
        (-0.001, 0.1, 0.9, ("0.10", "0.00 … 0.90")),
        (1.0, 1.0, 1.0, ("1.00", "1.00 … 1.00")),
        (-3e9, 0.0, 3e9, ("0.00", "−3.00e+09 … 3.00e+09")),
        (None, None, None, ("–", "")),
    ],
)
def test_a_figure_has_the_digits_that_its_interval_supports(
    low: float | None, value: float | None, high: float | None, words: tuple[str, str]
) -> None:
    assert figure({"value": value, "low": low, "high": high}) == words


def test_any_value_is_formatted_in_one_line() -> None:
    assert (
        formatted({"decay": 0.999, "rate": 0.1, "shift": 2, "on": True})
        == "decay 0.999, rate 0.1, shift 2, on yes"
    )
    assert formatted({"a": {"x": 1}, "b": [1, None]}) == "a: x 1; b: 1, –"
    assert formatted([["a", "b"], "c"]) == "a, b; c"
    assert formatted({"value": "x", "low": 1, "high": 2}) == "value x, low 1, high 2"


HOSTILE = (
    """<script>alert(1)</script>"'><img src=x onerror=alert(1)> $\\frac{ & {{ 7*7 }} \u200f日本"""
)


def results(text: str = "plain") -> list[dict[str, Any]]:
    """Two claims with all that a result can have; `text` wherever a text can be."""
    expected = (
        Expectation(f"up {text}", text),
        Expectation("across", text, 0.5),
        Expectation("none", text),
    )
    numbers = {
        f"up {text}": Figure(0.79, 0.701, 0.846, 100, text),
        "across": Figure(0.03, -0.05, 0.9, 20),
    }
    numbers |= {"none": Figure(NAN, NAN, NAN, 0), "also": Figure(3.25, 3.0, 3.5, 7, text)}
    rows = [
        {"arm": text, text: UP, "settings": {text: [text]}},
        {"arm": "second", "only here": NAN, "n": 12345},
    ]
    pictures = [(text, Path("pictures") / f"{text.replace('/', '')}.webp")]
    findings = Findings(numbers, rows, [{"unit": text}], pictures, {text: {text: [text, 0.999]}})
    about = {"subject": text, "seed": 0, "quick": True, "weights": {text: text}}
    claim = Claim("C1", text, text, expected, None)  # type: ignore[arg-type]
    whole = Result(claim, findings, about, 321.0)
    claim = Claim("C2", text, text, expected[:1], None)  # type: ignore[arg-type]
    lone = Result(claim, Findings(numbers), about, 1.0)
    return [whole.as_json(), lone.as_json()]


class Page(HTMLParser):
    """What a browser would find in a page: tags with their attributes, and the text."""

    def __init__(self, file: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def test_the_report_says_all_that_was_found(tmp_path: Path) -> None:
    page = Page(write_report(results(), tmp_path))
    for words in (
        "0.79 (0.70 … 0.85)",
        "✓ holds",
        "○ open",
        "–",
        "3 intervals at 98.33 %",
        "12345",
        "5 min",
        "about 69 would decide",
    ):
        assert words in page.text, words
    assert "3.25 (3.00 … 3.50)" in page.text, "numbers of which nothing was expected"
    assert "2.0 (1.0 … 3.0)" in page.text, "figures in rows"
    assert "n = 9, a note" in [each.get("title") for each in page.all("td")]
    assert "decides little" in page.text, "a quick run says so"
    assert page.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")] == ["h1", "h2", "h2"]
    assert all("scope" in each for each in page.all("th"))
    assert all(each["alt"] for each in page.all("img"))
    assert page.all("script", "link") == []
    ids = {attributes.get("id") for _, attributes in page.tags}
    for address in [each["href"] for each in page.all("a")]:
        assert (
            address in ("https://arxiv.org/abs/1605.09304", "claims.json")
            or (address or "")[1:] in ids
        )
    for drawn in [*page.all("img"), *page.all("source")]:
        file = drawn.get("src") or drawn.get("srcset") or ""
        assert file.startswith("pictures/") or ElementTree.parse(
            tmp_path / file
        ).getroot().tag.endswith("svg")
    assert json.loads((tmp_path / "claims.json").read_text())[0]["numbers"]["none"]["value"] is None


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_report(results(), tmp_path / folder)
    files = [
        file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*") if file.is_file()
    ]
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    written = json.loads((tmp_path / "a" / "claims.json").read_text())
    write_report(written, tmp_path / "c")
    assert (tmp_path / "c" / "report.html").read_bytes() == (
        tmp_path / "a" / "report.html"
    ).read_bytes()


def test_a_hostile_text_is_only_text(tmp_path: Path) -> None:
    page = Page(write_report(results(HOSTILE), tmp_path))
    assert page.all("script") == []
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)" in page.text
    assert "{{ 7*7 }}" in page.text
    for drawn in page.all("img"):
        folder, _, name = unquote(drawn["src"] or "").partition("/")
        assert folder in ("figures", "pictures")
        assert "/" not in name
    assert {tag for tag, _ in page.tags} == {
        tag for tag, _ in Page(write_report(results(), tmp_path / "b")).tags
    }


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no chromium here")
def test_in_a_browser_nothing_is_lost_at_any_width_and_axe_is_content(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    report = write_report(results(HOSTILE), tmp_path)
    file = tmp_path / "pictures" / (HOSTILE.replace("/", "") + ".webp")
    file.parent.mkdir()
    Image.new("RGB", (1500, 300)).save(file)
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith("file:") else complaints.append(request.url)
            ),
        )
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(report.as_uri())
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate(
                "document.querySelectorAll('details').forEach((each) => { each.open = true })"
            )
            for width in (320, 400, 900, 1440):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= width
            rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
            found = axe.Axe().run(page, options={"runOnly": rules, "preload": False})
            assert not found.violations_count, f"{scheme}: {found.generate_report()}"
        assert page.evaluate(
            "[...document.images].every((each) => each.complete && each.naturalWidth)"
        )
        page.evaluate(
            "document.querySelectorAll('details').forEach((each) => { each.open = false })"
        )
        assert not page.evaluate("document.querySelector('dl').checkVisibility()")
        page.emulate_media(media="print", color_scheme="dark")
        page.set_viewport_size({"width": 680, "height": 1009})
        assert page.evaluate("document.querySelector('.opening').clientHeight") < 1009, (
            "the claims fit on a page of A4"
        )
        assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
        assert page.evaluate(
            "[...document.querySelectorAll('dl')].every((each) => each.checkVisibility())"
        )
        browser.close()
    assert complaints == []


def test_numbers_of_other_scales_have_axes_of_their_own() -> None:
    from phosphene.claims.forest_plot import shared_axis

    def expected(
        *ends: tuple[float | None, float | None], least: float = 0.0
    ) -> list[dict[str, Any]]:
        return [{"least": least, "found": {"low": low, "high": high}} for low, high in ends]

    assert shared_axis(expected((0.1, 0.3), (-0.2, 0.1), (None, None)))
    assert not shared_axis(expected((0.1, 0.3), (20.0, 30.0)))
    assert not shared_axis(expected((0.1, 0.3)) + expected((0.1, 0.3), least=0.5))


# ---------------------------------------------------------------- by command


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small networks, a generator and photographs of their classes; few steps and settings."""
    for split, n in (("train", 40), ("val", 24)):
        for i in range(n):
            random = np.random.default_rng(i + 1000 * n)
            pixels = random.integers(0, 100, (16, 16, 3)) + np.array(
                [15 * (i % 10), 75, 150 - 15 * (i % 10)]
            )
            file = tmp_path / "photos" / split / CLASSES[i % 10].split(",")[0] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    subject = write_subject(tmp_path / "subject.safetensors")
    write_subject(tmp_path / "judge.safetensors", name="tiny-judge")
    write_generator(tmp_path / "generator.safetensors", str(subject))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        c1_learned_prior,
        "ARMS",
        {arm: (prior, grid[:2]) for arm, (prior, grid) in c1_learned_prior.ARMS.items()},
    )
    monkeypatch.setattr(c5_hidden_units, "EACH", 20)
    monkeypatch.setattr(c5_hidden_units, "MAX_LAYERS", 3)
    monkeypatch.setattr(
        experiments,
        "settings",
        lambda climb, p, **changes: settings(climb, p, **{**changes, "steps": 3}),
    )
    return tmp_path


MACHINE = ("--device", "cpu", "--precision", "float32", "--threads", 1)
OWN = (
    "--subject",
    "subject.safetensors",
    "--judge",
    "judge.safetensors",
    "--prior",
    "generator.safetensors",
)
OWN = (*OWN, "--images", "photos", "--quick", *MACHINE)


def test_claims_of_a_network_of_ones_own(phosphene: Run, there: Path) -> None:
    found = phosphene("claims", "C5", "C7", "C1", *OWN, "--json").json()
    assert [each["claim"] for each in found] == ["C1", "C5", "C7"]
    for each in found:
        assert [one["number"] for one in each["expected"]] == [
            one.number for one in claims.ANY_NETWORK[each["claim"]].expected
        ]
        assert each["units"]
        for _, name in each["pictures"]:
            assert (there / "claims" / "pictures" / name).is_file()
    assert found == json.loads((there / "claims" / "claims.json").read_text())
    again = phosphene("claims", "C1", "C5", "C7", *OWN)
    assert "over pixels, L2" in again.fine()
    assert "claims/report.html" in again.out
    assert found == json.loads((there / "claims" / "claims.json").read_text()), (
        "read again, seconds and all"
    )
    other = phosphene("claims", "C5", *OWN, "--out", "other", "--json").json()
    assert {**other[0], "seconds": 0} == {**found[1], "seconds": 0}, (
        "the same seed, the same numbers"
    )
    other = phosphene("claims", "C5", *OWN, "--out", "other", "--seed", 1, "--json").json()
    assert other[0]["numbers"] != found[1]["numbers"]


def test_the_encoder_s_units_are_compared_with_those_of_another_network(
    phosphene: Run, there: Path
) -> None:
    write_subject(there / "another.safetensors", name="another")
    words = ("--subject", "another.safetensors", *OWN[2:])
    (found,) = phosphene("claims", "C4", *words, "--json").json()
    assert [each["number"] for each in found["expected"]] == [c4_other_architecture.LESS]
    arms = [str(there / "subject.safetensors"), "another.safetensors"]
    for unit in found["units"]:
        assert unit["subject"] == arms[1]
        assert unit["unit"] == f"fc8:{CLASSES.index(unit['label'])}"
        assert list(unit["named"]) == list(unit["activation"]) == arms
    tested = {unit["label"] for unit in found["units"]}
    assert len(tested) == len(found["units"]) == found["numbers"]["among five"]["n"]
    assert [row["pictures"] for row in found["rows"]] == [*arms, "photographs of 16 pixels"]
    assert "inverts" in phosphene("claims", "C4", *OWN, "--out", "own").refused()


def test_claims_of_a_network_that_is_code(phosphene: Run, there: Path) -> None:
    """As in the documentation, with a factory; retrained, it is another network."""
    code = """
        import torch
        from phosphene import load_subject
        def net():
            subject = load_subject("subject.safetensors")
            subject.network.fc8.bias.data += SHIFT
            return subject.network, dict(size=subject.size, classes=subject.classes)
        """
    (there / "mine_code.py").write_text(dedent(code).replace("SHIFT", "0"))
    words = ("--subject", "python:mine_code:net", "--images", "photos", *OWN[2:], "--json")
    found = phosphene("claims", "C1", "C5", "C7", *words).json()
    assert [each["claim"] for each in found] == ["C1", "C5", "C7"]
    assert all(unit["prior_share"] is not None for unit in found[2]["units"])
    before = found[0]["identity"]["networks"]["python:mine_code:net"]
    (there / "mine_code.py").write_text(dedent(code).replace("SHIFT", "1"))
    sys.modules.pop("mine_code")
    again = phosphene("claims", "C1", *words).json()[0]
    assert again["identity"]["networks"]["python:mine_code:net"] != before
    assert again["numbers"] != found[0]["numbers"] or again["units"] != found[0]["units"]


def test_what_cannot_be_measured_is_one_line_and_the_others_go_on(
    phosphene: Run, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(experiment: Experiment) -> Findings:
        raise BadRequest("no [scenes] here")

    fine = replace(simple("a", measure=lambda experiment: Findings({"a": UP})), name="C5")
    monkeypatch.setattr(claims, "ANY_NETWORK", {"C1": simple("a", measure=refuse), "C5": fine})
    said = phosphene("claims", *OWN)
    assert said.code == 2
    assert said.err.splitlines() == ["phosphene: C0: no [scenes] here"]
    assert "C5" in said.out
    assert [
        each["claim"] for each in json.loads((there / "claims" / "claims.json").read_text())
    ] == ["C5"]
    monkeypatch.setattr(claims, "ANY_NETWORK", {"C1": simple("a", measure=refuse)})
    said = phosphene("claims", *OWN, "--out", "nothing")
    assert (said.code, said.out) == (2, "")
    assert not (there / "nothing" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("C9", "--objects", "photos"), "C1"),
        (("c5", "--objects", "photos"), "C5"),
        (("", "--objects", "photos"), "or all"),
        (("C1",), "--objects DATA"),
        (("C1", "--objects", "photos", "--images", "photos"), "give one of them"),
        (("C1", "--objects", "nowhere"), "nowhere"),
        (("C1", *OWN, "--judge", "nobody"), "nobody"),
        (("C1", *OWN, "--prior", "objects-fc9"), "objects-fc6"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    phosphene: Run, there: Path, words: tuple[str, ...], near: str
) -> None:
    assert near in phosphene("claims", *words).refused()
    assert not (there / "claims" / "runs").exists()


def test_of_ones_own_network_some_claims_cannot_be_asked(
    phosphene: Run, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "CLAIMS", {**CLAIMS, "C0": simple("a")})
    assert "C1, C4, C5" in phosphene("claims", "C0", *OWN).refused()


def test_another_file_by_the_same_name_is_another_network(there: Path) -> None:
    def identity() -> dict[str, Any]:
        files = {
            "subject": "subject.safetensors",
            "judges": ("judge.safetensors",),
            "prior": "generator.safetensors",
        }
        runtime = Runtime(there / "out")
        made = Experiment(runtime, objects="photos", **files)  # type: ignore[arg-type]
        return made.identity

    before = identity()
    assert identity() == before
    write_subject(there / "subject.safetensors", name="another")
    assert identity()["networks"] != before["networks"]
