"""Two runs side by side: a click on B − A moves everything, a reload keeps it, and Back goes to the page before."""

import re
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import READY
from tests.browser.tables import click_row
from tests.browser.test_heatmaps import click_cell, selection

pytestmark = pytest.mark.browser

TEXT = "A second text for the comparison, which shares few words with the river and its mill. " * 3
VIEW = "sinks-cosine-centred"


@pytest.fixture(scope="module")
def second(context: BrowserContext, address: str, example: str) -> str:
    """The run id of another text, made as a person makes it."""
    page = context.new_page()
    page.goto(f"{address}/?run={example}")
    page.locator(".strip .token").first.wait_for(timeout=READY)
    page.get_by_role("button", name="Run a text").click()
    page.get_by_role("textbox", name="Text").fill(TEXT)
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function(
        "id => { const run = new URLSearchParams(location.search).get('run'); return run && run !== id; }",
        arg=example, timeout=READY,
    )  # fmt: skip
    run_id = parse_qs(urlparse(page.url).query)["run"][0]
    page.close()
    return run_id


def open_two(page: Page, address: str, a: str, b: str, query: str = f"&view={VIEW}") -> None:
    page.goto(f"{address}/compare?run={a}&b={b}{query}")
    page.locator(f".st-key-plot-compare-{VIEW}-d .nsewdrag").first.wait_for(timeout=READY)


def test_a_click_on_a_difference_moves_everything_and_a_reload_keeps_it(
    page: Page, address: str, example: str, second: str
) -> None:
    open_two(page, address, example, second, f"&view={VIEW}&point=18&pos=40")
    before = selection(page)
    click_cell(page, f"compare-{VIEW}-d")
    page.wait_for_function("before => location.href != before", arg=page.url)
    after = selection(page)
    assert {key for key in after if after[key] != before.get(key)} <= {"point", "pos"}
    assert (after["b"], after["view"]) == (second, VIEW)
    expect(page.get_by_text(f"Point {after['point']} of 30 · token {after['pos']} ")).to_be_visible(timeout=READY)
    for strip in ("strip-a", "strip-d"):
        chosen = page.locator(f".st-key-{strip} .token").nth(int(after["pos"]))
        expect(chosen).to_have_class(re.compile(r"\bselected\b"))
    for side in "abd":
        expect(page.locator(f".st-key-plot-compare-{VIEW}-{side} svg.selection-cursor line").first).to_be_attached()
    page.reload()
    page.locator(f".st-key-plot-compare-{VIEW}-d .nsewdrag").first.wait_for(timeout=READY)
    assert selection(page) == after


def test_back_returns_to_the_page_before_with_its_state(page: Page, address: str, example: str, second: str) -> None:
    page.goto(f"{address}/sinks?run={example}&point=12&pos=7")
    page.locator(".strip .token.selected").wait_for(timeout=READY)
    page.locator(".strip .token").nth(9).click()
    page.wait_for_url(re.compile("pos=9"))
    page.get_by_role("link", name="Two runs").click()
    page.wait_for_url(re.compile(r"/compare\?.*b="), timeout=READY)
    page.locator(".st-key-strip-a .token.selected").wait_for(timeout=READY)
    page.locator(".st-key-strip-a .token").nth(20).click()
    page.wait_for_url(re.compile("pos=20"))
    page.go_back()
    page.wait_for_url(re.compile(r"/sinks\?.*pos=9"), timeout=READY)
    expect(page.get_by_text("token 9 (id")).to_be_visible(timeout=READY)
    assert "b" not in selection(page)
    page.go_forward()
    page.wait_for_url(re.compile(r"/compare\?.*pos=20.*b="), timeout=READY)
    expect(page.get_by_text("token 20 (id")).to_be_visible(timeout=READY)


def test_an_unknown_b_is_told_and_another_is_compared(page: Page, address: str, example: str, second: str) -> None:
    page.goto(f"{address}/compare?run={example}&b=%3Cb%3Enope")
    expect(page.get_by_text("The address names the run b='<b>nope', which is not stored")).to_be_visible(timeout=READY)
    page.wait_for_url(re.compile("b=[0-9a-f]{32}"))


def test_a_row_of_what_changed_opens_its_view_at_its_place(page: Page, address: str, example: str, second: str) -> None:
    open_two(page, address, example, second)
    table = page.locator(".st-key-compare-changes canvas").first
    click_row(page, table, 2, 18, lambda: "view=massive-top" in page.url)  # the third row: the largest activation
    page.wait_for_url(re.compile("point=12&pos=0&dim=507.*view=massive-top"), timeout=READY)
    page.locator(".st-key-plot-compare-massive-top-d .nsewdrag").first.wait_for(timeout=READY)
