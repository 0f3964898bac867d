"""One selection: the strip, the plots, the inspector and the address follow each other, and a reload keeps them."""

import re
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PLOT, READY, open_overview

pytestmark = pytest.mark.browser


def asked(page: Page, key: str) -> str | None:
    return parse_qs(urlparse(page.url).query).get(key, [None])[0]


def test_the_example_opens_by_itself(page: Page, overview: str) -> None:
    open_overview(page, overview)
    expect(page.locator(".token").first).to_have_text("<|im_start|>")
    expect(page.get_by_text("Q4_1, dequantised")).to_be_visible()
    assert asked(page, "run")
    assert asked(page, "point") == "18"


def test_a_click_on_a_token_moves_everything_and_a_reload_keeps_it(page: Page, overview: str) -> None:
    open_overview(page, overview)
    page.locator(".token").nth(41).click()
    expect(page.get_by_text(re.compile(r"token 41 \(id \d+\)"))).to_be_visible()
    page.wait_for_url(re.compile("pos=41"))
    token = page.locator(".token").nth(41).text_content()
    page.reload()
    expect(page.locator(".token.selected")).to_have_text(str(token), timeout=READY)
    assert asked(page, "pos") == "41"


def test_arrow_keys_move_escape_releases_and_a_range_tells_its_mean(page: Page, overview: str) -> None:
    open_overview(page, overview, "&pos=10")
    page.locator(".token").nth(10).click()
    page.locator(".token").nth(30).click()
    page.wait_for_url(re.compile("pos=30"))
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("pos=31"))
    page.locator(".token").nth(40).click(modifiers=["Shift"])
    page.locator(".strip").hover(position={"x": 1, "y": 1})
    page.mouse.move(5, 5)
    expect(page.locator(".told")).to_contain_text("31–40  10 tokens")
    assert asked(page, "pos") == "31", "a range is no selection"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile("pos=133"))


def test_a_click_on_the_figure_moves_the_point_and_the_cursor(page: Page, overview: str) -> None:
    open_overview(page, overview, "&point=18")
    plot = page.locator(PLOT)
    cursor = plot.locator("svg.selection-cursor line").first
    before = cursor.get_attribute("x1")
    figure = plot.element_handle()
    area = plot.locator(".nsewdrag").nth(2)
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.locator(f"{PLOT} .hoverlayer").wait_for(state="attached")
    page.wait_for_timeout(200)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(re.compile("point=[0-9]&"))
    point = asked(page, "point")
    expect(page.get_by_text(f"Point {point} of 30")).to_be_visible()
    assert cursor.get_attribute("x1") != before
    assert figure is not None
    assert figure.evaluate("plot => plot.isConnected"), "the figure must not be drawn again"


def test_an_event_jumps_to_its_place(page: Page, overview: str) -> None:
    open_overview(page, overview)
    page.get_by_role("button", name=re.compile("24,926 born at position 0, dimension 507")).click()
    page.wait_for_url(re.compile("point=12&pos=0&dim=507"))
    expect(page.get_by_text("Point 12 of 30")).to_be_visible()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("&point=99", "The address says point='99', but it must be a whole number from 0 to 30"),
        ("&pos=%3Cscript%3Ealert(1)%3C/script%3E", "pos='<script>alert(1)</script>'"),
        ("&mask=**b**", "The address says mask='**b**', but this run was made with all."),
        ("&model=$x$", "The address says model='$x$', but this run was made with smollm2-135m-instruct."),
    ],
)
def test_a_bad_address_is_told_literally_and_falls_back(page: Page, overview: str, query: str, told: str) -> None:
    open_overview(page, overview, query)
    expect(page.get_by_text(told)).to_be_visible()
    assert asked(page, "point") == "18"


def test_an_unknown_run_is_told_and_another_opens(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/?run=nonsense")
    told = "The address names the run 'nonsense', which this store does not hold."
    expect(page.get_by_text(told)).to_be_visible(timeout=READY)
    expect(page.locator(".token").first).to_be_visible()
    assert asked(page, "run") not in (None, "nonsense"), f"the example is {example}"
