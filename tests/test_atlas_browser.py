"""The atlas in a real browser, from files: search, keyboard, filters that survive in the address, no complaints."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from atlas_runs import colours, lone, write_all, write_picture

from phosphene.atlas import build

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver here"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atlas")
    build(write_all(folder), folder / "site")
    return folder / "site"


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """A window of a laptop's size; at the end it must not have complained."""
    chromium.set_window_size(1280, 900)
    chromium.get_log("browser")
    yield chromium
    assert chromium.get_log("browser") == []


def page(browser: Any, file: Path, fragment: str = "") -> None:
    browser.get("about:blank")  # or only the fragment would change
    browser.get(file.resolve().as_uri() + fragment)


def soon(browser: Any, true: Callable[[Any], Any]) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 10).until(true)


def press(browser: Any, *keys: str) -> None:
    webdriver.ActionChains(browser).send_keys(*keys).perform()


def all_of(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def shown(browser: Any) -> list[str]:
    """The channels of the tiles that are shown, in their order."""
    return browser.execute_script("return $$('.tiles li:not([hidden]) b').map((each) => each.textContent)")


def arrived(browser: Any, end: str) -> bool:
    return bool(soon(browser, lambda _: browser.current_url.endswith(end)))


@pytest.mark.parametrize(
    ("typed", "first", "end"),
    [
        ("jellyfish", "jellyfish", "/fc/1.html"),  # a class
        ("conv2:3", "conv2:3", "/conv2/3.html"),  # layer:channel
        ("building", "conv2:3", "/conv2/3.html"),  # an object
        ("lion - jelly", "lion - jellyfish", "/combinations.html#fc-0-fc-1"),
    ],
)
def test_search_by_keyboard_leads_to_the_unit(browser: Any, site: Path, typed: str, first: str, end: str) -> None:
    page(browser, site / "tiny-objects" / "fc" / "3.html")
    press(browser, "/", typed)
    soon(browser, lambda _: [each.text for each in all_of(browser, "#found li b")][:1] == [first])
    press(browser, Keys.ARROW_DOWN, Keys.ENTER)
    assert arrived(browser, end)


def test_all_results_are_a_page_that_can_be_shared(browser: Any, site: Path) -> None:
    page(browser, site / "index.html")
    press(browser, "/", "lion", Keys.ENTER)
    assert arrived(browser, "search.html#q=lion")
    soon(browser, lambda _: len(shown(browser)) > 3)
    there, before = browser.current_url, shown(browser)
    browser.get("about:blank")
    browser.get(there)
    soon(browser, lambda _: shown(browser) == before)
    press(browser, "/", "no such unit")
    soon(browser, lambda _: shown(browser) == [])
    assert "0 found" in browser.find_element(By.TAG_NAME, "main").text


def test_a_filter_survives_in_the_address(browser: Any, site: Path) -> None:
    page(browser, site / "tiny-objects" / "fc.html")
    assert shown(browser) == [str(i) for i in range(12)]
    browser.find_element(By.CSS_SELECTOR, "main [name=q]").send_keys("lion")
    browser.find_element(By.CSS_SELECTOR, "[name=sort] [value=activation_ratio]").click()
    assert shown(browser) == ["9", "6", "3", "0"]
    browser.find_element(By.CSS_SELECTOR, "[name=by] [value=recognised_top1]").click()
    browser.find_element(By.NAME, "min").send_keys("50")
    assert shown(browser) == ["9", "3"]
    assert "2 of 12 units" in browser.find_element(By.CSS_SELECTOR, "output").text
    browser.refresh()
    assert shown(browser) == ["9", "3"]
    browser.find_element(By.NAME, "reverse").click()
    assert shown(browser) == ["3", "9"]
    there = browser.current_url
    browser.get("about:blank")
    browser.get(there)
    assert shown(browser) == ["3", "9"]
    browser.find_element(By.CSS_SELECTOR, "[type=reset]").click()
    soon(browser, lambda _: len(shown(browser)) == 12 and "#" not in browser.current_url)


def test_an_object_is_filtered_by(browser: Any, site: Path) -> None:
    page(browser, site / "tiny-objects" / "conv2.html", "#object=%3Dtree&sort=iou")
    assert shown(browser) == ["5"]
    page(browser, site / "tiny-objects" / "conv2.html", "#object=*&nonsense=1&sort=nothing")
    assert shown(browser) == ["1", "3", "5"]
    browser.find_element(By.CSS_SELECTOR, "main [name=q]").send_keys("no such unit")
    assert browser.find_element(By.CSS_SELECTOR, "[data-none]").is_displayed()


def test_keys_go_across_tiles_and_units(browser: Any, site: Path) -> None:
    page(browser, site / "tiny-objects" / "fc.html")
    focus = "return document.activeElement.getAttribute('href')"
    press(browser, "j")
    assert browser.execute_script(focus) == "fc/0.html"
    press(browser, "j", "j", "k")
    assert browser.execute_script(focus) == "fc/1.html"
    columns = browser.execute_script("return columns()")
    assert 2 < columns < 12
    press(browser, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert browser.execute_script(focus) == f"fc/{2 + columns}.html"
    press(browser, Keys.ENTER)
    assert arrived(browser, f"/fc/{2 + columns}.html")
    press(browser, Keys.ARROW_LEFT)
    assert arrived(browser, f"/fc/{1 + columns}.html")
    press(browser, "u")
    assert arrived(browser, "/fc.html")
    press(browser, "u")
    assert arrived(browser, "/index.html#tiny-objects")
    press(browser, "?")
    assert browser.find_element(By.ID, "help").is_displayed()
    press(browser, Keys.ESCAPE)
    assert not browser.find_element(By.ID, "help").is_displayed()


def test_the_theme_is_remembered(browser: Any, site: Path) -> None:
    page(browser, site / "index.html")
    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.find_element(By.CSS_SELECTOR, "[data-theme-button]").click()
    after = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    page(browser, site / "tiny-objects" / "fc" / "3.html")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == after != before
    browser.find_element(By.CSS_SELECTOR, "[data-theme-button]").click()


def test_the_climb_stops_and_goes(browser: Any, site: Path) -> None:
    page(browser, site / "tiny-objects" / "fc" / "0.html")
    button, film = (browser.find_element(By.CSS_SELECTOR, f".film {tag}") for tag in ("button", "img"))
    assert button.text == "Pause"
    assert film.get_property("currentSrc").endswith("0-0-climb.webp")
    button.click()
    assert (button.text, film.get_property("src").endswith("/0-0.webp")) == ("Play", True)
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": still})
    page(browser, site / "tiny-objects" / "fc" / "1.html")
    film = browser.find_element(By.CSS_SELECTOR, ".film img")
    soon(browser, lambda _: film.get_property("currentSrc").endswith("/1-0.webp"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_no_page_is_wider_than_its_window(browser: Any, site: Path) -> None:
    pages = ["index.html", "search.html#q=lion", "tiny-objects/fc.html", "tiny-objects/conv2/1.html"]
    pages += ["tiny-objects/fc/0.html", "tiny-objects/combinations.html"]
    for width in (320, 390, 900, 1440):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for name in pages:
            path, _, fragment = name.partition("#")
            page(browser, site / path, f"#{fragment}")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, (name, width)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_picture_of_a_page_is_drawn(browser: Any, site: Path) -> None:
    page(browser, site / "tiny-objects" / "fc" / "0.html")
    browser.execute_script("$$('img').forEach((each) => each.loading = 'eager')")
    soon(browser, lambda _: browser.execute_script("return $$('img').every((each) => each.complete)"))
    assert browser.execute_script("return $$('img').filter((each) => !each.naturalWidth).length") == 0
    boxes = browser.execute_script("return $$('svg image').map((each) => each.getBoundingClientRect().width)")
    assert len(boxes) == 3 + 2  # crops, and whole photographs where the unit sees only a part
    assert all(boxes)


def test_a_layer_of_thousands_loads_what_is_seen(browser: Any, tmp_path: Path) -> None:
    for i in range(1500):
        write_picture(tmp_path / "run", f"{i}", lone(f"fc:{i}"), score=i % 97, pixels=colours(i, 8))
    build([tmp_path / "run"], tmp_path / "site")
    page(browser, tmp_path / "site" / "tiny-objects" / "fc.html")
    loaded = "return performance.getEntriesByType('resource').filter((each) => each.name.endsWith('.webp')).length"
    complete = "return $$('.tiles img').filter((each) => each.complete && each.naturalWidth).length"
    soon(browser, lambda _: browser.execute_script(complete) > 20)
    assert max(browser.execute_script(loaded), browser.execute_script(complete)) < 500
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    last = "const all = $$('.tiles img'); return all[all.length - 1].complete && all[all.length - 1].naturalWidth"
    soon(browser, lambda _: browser.execute_script(last))
    browser.find_element(By.CSS_SELECTOR, "[name=sort] [value=score]").click()
    assert shown(browser)[:2] == ["96", "193"]
