"""The atlas in a real browser, from files: search, keyboard, filters in the address."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from atlas_runs import (
    colours,
    encoded,
    lone,
    write_all,
    write_dissection,
    write_exemplars,
    write_picture,
)

from phosphene.atlas import build
from phosphene.records import pixels_sha256
from phosphene.statistics import wilson

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium here"),
]

PAGES = [
    "index.html",
    "search.html#q=lion",
    "tiny-objects/fc.html#measured",
    "tiny-objects/fc/0.html",
    "tiny-objects/conv2/1.html",
    "tiny-objects/combinations.html",
    "tiny-objects/fc/map.html#unit=3",
    "guess.html",
    "reading.html",
    "unit.html#nobody@0/fc:0",
]
"""One of each kind, and a unit that was not climbed."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all, which sees nothing but files."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas")
    build(write_all(folder), folder / "site")
    return folder / "site"


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A window of a laptop's size.

    At the end it must not have complained, nor asked for anything but files.
    """
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith("file:") else complaints.append(request.url),
    )
    yield page
    context.close()
    assert complaints == []


def visit(page: Any, file: Path, fragment: str = "") -> None:
    page.goto("about:blank")  # or only the fragment would change
    page.goto(file.resolve().as_uri() + fragment)


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def shown(page: Any) -> list[str]:
    """The channels of the tiles that are shown, in their order."""
    links = page.locator(".tiles li:not([hidden]) a").evaluate_all(
        "links => links.map((link) => link.pathname)"
    )
    return [Path(link).stem for link in links]


def arrived(page: Any, end: str) -> None:
    page.wait_for_url(re.compile(re.escape(end) + "$"))


@pytest.mark.parametrize(
    ("typed", "first", "end"),
    [
        ("jellyfish", "jellyfish", "/fc/1.html"),  # a class
        ("conv2:3", "conv2:3", "/conv2/3.html"),  # layer:channel
        ("building", "conv2:3", "/conv2/3.html"),  # an object
        ("lion - jelly", "lion - jellyfish", "/combinations.html#fc-0-fc-1"),
    ],
)
def test_search_by_keyboard_leads_to_the_unit(
    page: Any, site: Path, typed: str, first: str, end: str
) -> None:
    visit(page, site / "tiny-objects" / "fc" / "3.html")
    press(page, "/")
    page.keyboard.type(typed)
    expect(page.locator("#found li b").first).to_have_text(first)
    press(page, "ArrowDown", "Enter")
    arrived(page, end)


def test_a_picture_keeps_the_shape_that_the_network_sees(page: Any, tmp_path: Path) -> None:
    own = colours(3, 32)[:18]
    said = {"input": "a.input.png", "input_sha256": pixels_sha256(own), "input_score": 9.25}
    write_picture(tmp_path / "run", "a", lone("fc:0"), **said)
    (tmp_path / "run" / "a.input.png").write_bytes(encoded(own))
    build([tmp_path / "run"], tmp_path / "site")
    for place, image in [("fc/0", ".plates img"), ("fc", ".tiles img"), ("../index", ".strip img")]:
        visit(page, tmp_path / "site" / "tiny-objects" / f"{place}.html")
        box = page.locator(image).first.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(32 / 18, rel=0.02)


def test_all_results_are_a_page_that_can_be_shared(page: Any, site: Path) -> None:
    visit(page, site / "index.html")
    press(page, "/")
    page.keyboard.type("lion")
    press(page, "Enter")
    arrived(page, "search.html#q=lion")
    expect(page.locator("main")).to_contain_text("7 found")
    there, before = page.url, shown(page)
    page.goto("about:blank")
    page.goto(there)
    expect(page.locator("main")).to_contain_text("7 found")
    assert shown(page) == before
    press(page, "/")
    page.keyboard.type("no such unit")
    expect(page.locator("main")).to_contain_text("0 found")
    assert shown(page) == []


def test_a_filter_survives_in_the_address(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc.html")
    assert shown(page) == [str(i) for i in range(12)]
    page.locator("main [name=q]").fill("lion")
    page.locator("[name=sort]").select_option("activation_ratio")
    assert shown(page) == ["9", "6", "3", "0"]
    page.locator("[name=by]").select_option("recognised_top1")
    page.locator("[name=min]").fill("50")
    assert shown(page) == ["9", "3"]
    expect(page.locator("output")).to_have_text("2 of 12 units")
    page.reload()
    assert shown(page) == ["9", "3"]
    page.locator("[name=reverse]").check()
    assert shown(page) == ["3", "9"]
    there = page.url
    page.goto("about:blank")
    page.goto(there)
    assert shown(page) == ["3", "9"]
    page.locator("[type=reset]").click()
    arrived(page, "/fc.html")
    assert len(shown(page)) == 12


def test_an_object_is_filtered_by(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "conv2.html", "#object=%3Dtree&sort=iou")
    assert shown(page) == ["5"]
    visit(page, site / "tiny-objects" / "conv2.html", "#object=*&nonsense=1&sort=nothing")
    assert shown(page) == ["1", "3", "5"]
    page.locator("main [name=q]").fill("no such unit")
    expect(page.locator("[data-none]")).to_be_visible()


def test_keys_go_across_tiles_and_units(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc.html")
    focused = page.locator(":focus")
    press(page, "j")
    expect(focused).to_have_attribute("href", "fc/0.html")
    press(page, "j", "j", "k")
    expect(focused).to_have_attribute("href", "fc/1.html")
    columns = page.evaluate("columns()")
    assert 2 < columns < 12
    press(page, "ArrowDown", "ArrowRight")
    expect(focused).to_have_attribute("href", f"fc/{2 + columns}.html")
    press(page, "Enter")
    arrived(page, f"/fc/{2 + columns}.html")
    press(page, "ArrowLeft")
    arrived(page, f"/fc/{1 + columns}.html")
    press(page, "u")
    arrived(page, "/fc.html")
    press(page, "u")
    arrived(page, "/index.html#tiny-objects")
    press(page, "?")
    expect(page.locator("#help")).to_be_visible()
    press(page, "Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_the_next_unit_is_the_next_that_the_reader_asked_for(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc.html", "#q=lion&sort=activation_ratio")
    page.locator(".tiles a[href^='fc/6.html']").click()
    arrived(page, "/fc/6.html#q=lion&sort=activation_ratio")
    turn = page.get_by_role("navigation", name="Other units of the layer").get_by_role("link")
    expect(turn).to_have_text(["← 9", "3 →"])
    assert turn.first.get_attribute("aria-label") == "Previous: lion 9"
    press(page, "ArrowRight")
    arrived(page, "/fc/3.html#q=lion&sort=activation_ratio")
    expect(turn).to_have_text(["← 6", "0 →"])
    press(page, "ArrowRight")
    arrived(page, "/fc/0.html#q=lion&sort=activation_ratio")
    expect(turn).to_have_text(["← 3"])
    press(page, "u")
    arrived(page, "/fc.html#q=lion&sort=activation_ratio")
    assert shown(page) == ["9", "6", "3", "0"]


@pytest.mark.parametrize("fragment", ["", "#q=jellyfish", "#sort=nothing", "#evaluation"])
def test_who_came_from_elsewhere_goes_by_channel(page: Any, site: Path, fragment: str) -> None:
    visit(page, site / "tiny-objects" / "fc" / "3.html", fragment)
    if fragment:
        page.wait_for_function("typeof atlasUnits === 'object'")
    expect(page.get_by_role("navigation", name="Other units").get_by_role("link")).to_have_text(
        ["← 2", "4 →"]
    )


def test_a_random_unit_is_one_of_them(page: Any, site: Path) -> None:
    visit(page, site / "index.html")
    press(page, "r")
    page.wait_for_url(re.compile(r"/tiny-objects/(fc|conv2)/\d+\.html$"))
    page.evaluate("Math.random = () => 0.999")
    page.locator("[data-random-button]").click()
    arrived(page, "/tiny-objects/fc/11.html")


@pytest.mark.parametrize(
    ("link", "end"),
    [
        (f"tiny-objects@{'5' * 12}/conv2:3", "/conv2/3.html"),
        (f"renamed@{'5' * 12}/fc:1", "/fc/1.html"),  # the weights decide
        ("tiny-objects@another/fc:1", "/fc/1.html"),  # other weights of the same name
    ],
)
def test_a_permanent_link_leads_to_its_unit(page: Any, site: Path, link: str, end: str) -> None:
    visit(page, site / "unit.html", f"#{link}")
    arrived(page, end)
    own = page.locator("[data-permanent]").evaluate("link => link.href")
    visit(page, Path(own.partition("#")[0].removeprefix("file://")), f"#{own.partition('#')[2]}")
    arrived(page, end)


def test_a_link_to_what_is_not_here_says_so(page: Any, site: Path) -> None:
    visit(page, site / "unit.html", "#nobody@0/fc:0")
    expect(page.locator("[data-linked]")).to_contain_text("has no unit fc:0 of nobody")


def test_the_map_leads_to_units_by_keyboard(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc.html")
    press(page, "m")
    arrived(page, "/fc/map.html")
    expect(page.locator("[data-map-count]")).to_have_text("12 units")
    canvas, card = page.locator("canvas"), page.locator("[data-map-card]")
    canvas.focus()
    press(page, "ArrowRight", "ArrowRight", "+", "-", "0")
    chosen = card.locator("a").get_attribute("href")
    assert page.url.endswith(f"/map.html#unit={chosen.removesuffix('.html')}")
    there = page.url
    page.goto("about:blank")
    page.goto(there)
    expect(card.locator("a")).to_have_attribute("href", chosen)
    canvas.focus()
    press(page, "Enter")
    arrived(page, f"/fc/{chosen}")
    press(page, "m")
    arrived(page, f"/fc/map.html#unit={chosen.removesuffix('.html')}")


def test_the_map_is_drawn_moved_and_pressed(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc" / "map.html")
    canvas, card = page.locator("canvas"), page.locator("[data-map-card]")
    box = canvas.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("[data-ready]")
    page.mouse.move(*middle)
    expect(card).to_contain_text("score")
    before = canvas.screenshot()
    page.mouse.wheel(0, -300)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 10, steps=4)
    page.mouse.up()
    assert page.url.endswith("/map.html"), "who drags does not open a unit"
    page.wait_for_timeout(100)
    assert canvas.screenshot() != before
    page.locator("main [name=q]").fill("lion")
    expect(page.locator("[data-map-count]")).to_have_text("4 of 12 units")
    page.locator("[name=layout]").select_option("clusters")
    arrived(page, "#q=lion&layout=clusters")
    page.locator("[name=layout]").select_option("")
    page.locator("[data-whole]").click()
    page.wait_for_timeout(600)
    page.mouse.click(*middle)
    page.wait_for_url(re.compile(r"/fc/\d+\.html$"))


def test_a_finger_first_sees_what_a_unit_is(chromium: Any, site: Path) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    visit(page, site / "tiny-objects" / "fc" / "map.html")
    box = page.locator("canvas").bounding_box()
    place = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.touchscreen.tap(*place)
    expect(page.locator("[data-map-card]")).to_contain_text("score")
    page.touchscreen.tap(*place)
    page.wait_for_url(re.compile(r"/fc/\d+\.html$"))
    context.close()


def test_guesses_are_counted_kept_and_taken_away(page: Any, site: Path) -> None:
    visit(page, site / "guess.html")
    asked, says = page.locator("[data-asked]"), page.locator("[data-answer]")
    expect(asked).to_contain_text("Which photographs")
    assert page.locator(".choices svg image").count() == 2 * 3
    right = 0
    for turn in range(4):
        expect(page.locator(".choices button")).to_have_count(2)
        press(page, "1") if turn % 2 else page.locator(".choices button").nth(1).click()
        expect(says).to_contain_text("The unit is")
        right += says.inner_text().startswith("Right")
        page.locator("[data-next]").click()
        expect(says).to_have_text("")
    low, high = wilson(right / 4, 4)
    told = f"{right} of 4 right: {25 * right} %; 95 %: {100 * low:.0f} % … {100 * high:.0f} %."
    expect(page.locator("[data-total]")).to_contain_text(told)
    page.reload()
    expect(page.locator("[data-total]")).to_contain_text(told)
    with page.expect_download() as taken:
        page.locator("[data-take=json]").click()
    said = json.loads(Path(taken.value.path()).read_text())
    assert [each["correct"] for each in said["answers"]].count(True) == right
    assert all(each["correct"] == (each["side"] == each["answer"]) for each in said["answers"])
    assert said["share"] == pytest.approx({"value": right / 4, "low": low, "high": high, "n": 4})
    assert {each["subject_sha256"] for each in said["answers"]} == {"5" * 64}
    with page.expect_download() as taken:
        page.locator("[data-take=csv]").click()
    rows = [*csv.DictReader(Path(taken.value.path()).read_text().splitlines())]
    assert [row["correct"] == "true" for row in rows] == [
        each["correct"] for each in said["answers"]
    ]
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("[data-forget]").click()
    expect(page.locator("[data-score]")).to_be_hidden()


def test_the_game_asks_for_pictures_too(page: Any, site: Path) -> None:
    visit(page, site / "guess.html", "#layer=tiny-objects/fc")
    page.locator("[name=kind]").select_option("pictures")
    expect(page.locator(".choices img")).to_have_count(2)
    expect(page.locator(".prompt svg image")).to_have_count(3)
    page.wait_for_function("$$('.choices img').every((each) => each.naturalWidth)")


def test_a_picture_grows_to_the_window(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc" / "3.html")
    page.locator("a[data-large]").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("seed 0")
    assert dialog.locator("img").bounding_box()["height"] > 750
    press(page, "ArrowRight")
    expect(dialog).to_contain_text("seed 1")
    press(page, "r", "Escape")
    expect(dialog).to_be_hidden()
    assert page.url.endswith("/fc/3.html")


def test_tiles_have_the_size_that_the_reader_chose(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc.html")
    tile = page.locator(".tiles img").first
    before = tile.bounding_box()["width"]
    page.locator("[data-size] input").fill("20")
    wide = tile.bounding_box()["width"]
    assert wide >= 320 > before
    page.reload()
    assert tile.bounding_box()["width"] == wide
    assert page.url.endswith("/fc.html")


def test_the_theme_is_remembered(page: Any, site: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    visit(page, site / "index.html")
    before = page.evaluate(colour)
    page.locator("[data-theme-button]").click()
    after = page.evaluate(colour)
    visit(page, site / "tiny-objects" / "fc" / "3.html")
    assert page.evaluate(colour) == after != before


def test_the_climb_stops_and_goes(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc" / "0.html")
    button, film = page.locator(".film button"), page.locator(".film img")
    expect(button).to_have_text("Pause")
    expect(film).to_have_js_property(
        "currentSrc", film.evaluate("film => new URL('0-0-climb.webp', location).href")
    )
    button.click()
    expect(button).to_have_text("Play")
    expect(film).to_have_attribute("src", "0-0.webp")
    page.emulate_media(reduced_motion="reduce")
    visit(page, site / "tiny-objects" / "fc" / "1.html")
    film.scroll_into_view_if_needed()
    expect(film).to_have_js_property(
        "currentSrc", film.evaluate("film => new URL('1-0.webp', location).href")
    )


@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_its_window(page: Any, site: Path, name: str) -> None:
    visit(page, site / name.partition("#")[0], f"#{name.partition('#')[2]}")
    for width in (320, 390, 900, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_against_wcag(page: Any, site: Path, name: str) -> None:
    visit(page, site / name.partition("#")[0], f"#{name.partition('#')[2]}")
    page.evaluate("$$('details').forEach((each) => each.open = true)")
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(page, options={"runOnly": rules, "preload": False})
        assert not found.violations_count, f"{scheme}: {found.generate_report()}"


HOSTILE = {
    "script": "<script>hacked = 1</script><img src=x onerror='hacked = 1'>",
    "quotes": """\"'`><svg onload="hacked = 1">&quot;""",
    "rtl": "أسد \u202e(ملك الوحوش) fc:0",
    "long": "leviathan" + "n" * 10_000,
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose classes, labels and objects are what nobody wants to read."""
    folder = tmp_path_factory.mktemp("hostile")
    names = list(HOSTILE.values())
    for i, name in enumerate([*names, *names]):
        write_picture(folder / "run", f"{i}", lone(f"fc:{i}", name), pixels=colours(i))
    write_exemplars(
        folder / "exemplars", [f"fc:{i}" for i in range(4)], classes=names, label=names[0]
    )
    write_dissection(folder / "dissection", "fc", 4, objects=names)
    build(
        [folder / "run", folder / "exemplars", folder / "dissection"],
        folder / "site",
        HOSTILE["long"],
    )
    return folder / "site"


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_name_does_no_harm(page: Any, hostile: Path, kind: str) -> None:
    name, channel = HOSTILE[kind][:100].replace("\u202e", "\ufffd"), [*HOSTILE].index(kind)
    page.set_viewport_size({"width": 390, "height": 800})
    visit(page, hostile / "index.html")
    page.locator("#search").fill(name)
    expect(page.locator("#found li b").first).to_contain_text(name)
    for path in (
        "index.html",
        "tiny-objects/fc.html",
        f"tiny-objects/fc/{channel}.html",
        f"tiny-objects/fc/map.html#unit={channel}",
        f"unit.html#{quote(name)}@0/fc:99",
        "guess.html",
        "reading.html",
        f"search.html#q={quote(name)}",
    ):
        visit(page, hostile / path.partition("#")[0], f"#{path.partition('#')[2]}")
        if path == "guess.html":
            page.locator(".choices button").first.click()
            expect(page.locator("[data-answer] a")).to_have_count(2)
        elif path not in ("index.html", "reading.html", "unit.html"):
            expect(page.locator("main")).to_contain_text(name)
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate(
            "$$('main img, main svg').every((each) => each.getBoundingClientRect().width > 20)"
        )


def test_every_picture_of_a_page_is_drawn(page: Any, site: Path) -> None:
    visit(page, site / "tiny-objects" / "fc" / "0.html")
    page.evaluate("$$('img').forEach((each) => each.loading = 'eager')")
    page.wait_for_function("$$('img').every((each) => each.complete)")
    assert page.evaluate("$$('img').filter((each) => !each.naturalWidth).length") == 0
    boxes = page.evaluate("$$('svg image').map((each) => each.getBoundingClientRect().width)")
    assert len(boxes) == 3 + 2  # crops, and whole photographs where the unit sees only a part
    assert all(boxes)


def test_a_layer_of_thousands_loads_what_is_seen(page: Any, tmp_path: Path) -> None:
    for i in range(1000):
        write_picture(tmp_path / "run", f"{i}", lone(f"fc:{i}"), score=i % 97, pixels=colours(i, 8))
    build([tmp_path / "run"], tmp_path / "site")
    visit(page, tmp_path / "site" / "tiny-objects" / "fc.html")
    loaded = (
        "performance.getEntriesByType('resource')"
        ".filter((each) => each.name.endsWith('.webp')).length"
    )
    complete = "$$('.tiles img').filter((each) => each.complete && each.naturalWidth).length"
    page.wait_for_function(f"{complete} > 20")
    assert max(page.evaluate(loaded), page.evaluate(complete)) < 500
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(
        "$$('.tiles img').at(-1).complete && $$('.tiles img').at(-1).naturalWidth"
    )
    page.locator("[name=sort]").select_option("score")
    assert shown(page)[:2] == ["96", "193"]


def test_a_wide_screen_is_filled(page: Any, site: Path) -> None:
    """Pictures and layers use nine tenths of 1,920 pixels; nothing is wider than the window."""
    page.set_viewport_size({"width": 1920, "height": 1000})
    for place, what in (("index.html", ".layers"), ("tiny-objects/fc.html", ".tiles")):
        page.goto((site / place).as_uri())
        assert page.locator(what).first.bounding_box()["width"] > 0.85 * 1920
        assert page.evaluate("document.documentElement.scrollWidth") <= 1920
    page.goto((site / "index.html").as_uri())
    strip = page.locator(".strip").nth(1).locator("img")
    last = strip.nth(strip.count() - 1).bounding_box()
    assert last["x"] + last["width"] > 0.85 * 1920
    page.goto((site / "tiny-objects/fc/0.html").as_uri())
    assert page.locator(".plates img").first.bounding_box()["width"] > 380


def test_a_narrow_one_too(page: Any, site: Path) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    for place in ("index.html", "tiny-objects/fc.html", "tiny-objects/fc/0.html"):
        page.goto((site / place).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator(".plates img").first.bounding_box()["width"] > 150
