"""SAE quality in a real browser: measured on an own text, a bar lists its latents, and one of them is a click away."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests import tiny
from tests.browser.conftest import READY
from tests.browser.tables import click_row

pytestmark = pytest.mark.browser

BARS = ".st-key-plot-quality-density .barlayer .point path"


def click_bar(page: Page, number: int) -> None:
    bar = page.locator(BARS).nth(number)
    bar.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = bar.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.locator(".st-key-plot-quality-density .hoverlayer .hovertext").wait_for()
    page.mouse.down()
    page.mouse.up()


def test_a_bar_of_the_histogram_lists_latents_and_one_opens(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/quality?run={example}")
    page.get_by_text("Measure on your own text").click(timeout=READY)
    own = {"name": "own.txt", "mimeType": "text/plain", "buffer": (tiny.TEXT * 4).encode()}
    page.locator(".st-key-quality-text input[type=file]").set_input_files(own)
    page.get_by_text("own.txt").first.wait_for()
    page.get_by_role("button", name="Measure", exact=True).first.click()
    page.locator(BARS).first.wait_for(timeout=2 * READY)
    expect(page.get_by_text("A click on a bar lists its latents.", exact=True)).to_be_visible(timeout=READY)

    click_bar(page, 0)
    expect(page.get_by_text("never fired; a click opens one")).to_be_visible(timeout=READY)
    heights = [bar.bounding_box() or {"height": 0.0} for bar in page.locator(BARS).all()]
    highest = max(range(1, len(heights)), key=lambda at: heights[at]["height"])
    click_bar(page, highest)
    expect(page.get_by_text(re.compile(r"of tokens; a click opens one"))).to_be_visible(timeout=READY)

    grid = page.locator("[class*=st-key-quality-bar] [data-testid=stDataFrame]")
    expect(grid).to_have_count(1)  # the list of the bar before goes when the page has been drawn to its end
    grid.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    click_row(page, grid, 0, 50, lambda: "/latent" in page.url)
    page.wait_for_url(re.compile(r"/latent\?.*latent=\d+"), timeout=READY)
    [latent] = re.findall(r"latent=(\d+)", page.url)
    expect(page.get_by_label("Latent 0..4607")).to_have_value(latent, timeout=READY)
    page.go_back()
    page.wait_for_url(re.compile("/quality"), timeout=READY)
    expect(page.get_by_text(re.compile(r"of tokens; a click opens one"))).to_be_visible(timeout=READY)
    page.wait_for_timeout(1500)
    assert "/quality" in page.url, "the click is heard once"
