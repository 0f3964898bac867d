"""One latent in a real browser: its examples are seen, a neighbour is one click away, a label stays and is found."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY

pytestmark = pytest.mark.browser

WORDS = ".st-key-plot-latent-examples .textpoint text"
BARS = ".st-key-plot-latent-neighbours .barlayer .point path"


def open_latent(page: Page, address: str, example: str, latent: int) -> None:
    """Open the page; where the SAE brings no index, make one of the texts that come with the app."""
    page.goto(f"{address}/latent?run={example}&latent={latent}")
    found = page.locator(WORDS).first
    offered = page.get_by_role("button", name=re.compile("How long will it take"))
    found.or_(offered).first.wait_for(timeout=READY)
    if offered.is_visible():
        offered.click()
        page.get_by_role("button", name="Make the index").click(timeout=READY)
    found.wait_for(timeout=4 * READY)


def test_examples_a_neighbour_and_a_label_that_stays_and_is_found(page: Page, address: str, example: str) -> None:
    open_latent(page, address, example, 2807)
    assert page.locator(WORDS).count() > 100
    expect(page.get_by_label("Latent 0..4607")).to_have_value("2807")
    bar = page.locator(BARS).nth(0)
    bar.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = bar.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.locator(".st-key-plot-latent-neighbours .hoverlayer .hovertext").wait_for()
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(re.compile(r"latent=(?!2807\b)\d+"))
    [other] = re.findall(r"latent=(\d+)", page.url)
    expect(page.get_by_label("Latent 0..4607")).to_have_value(other)
    label = page.get_by_label("Your label")
    expect(label).to_have_count(1, timeout=READY)  # that of the latent before is gone
    label.fill("mills & <b>rivers</b>")
    label.press("Enter")
    expect(page.locator(".st-key-latent-card")).to_contain_text(f"Latent {other} · mills & <b>rivers</b>")
    page.reload()
    expect(label).to_have_value("mills & <b>rivers</b>", timeout=READY)

    page.goto(f"{address}/find?run={example}&latent={other}")
    search = page.get_by_label("Label has")
    search.fill("<b>RIVERS")
    search.press("Enter")
    expect(page.get_by_text("1 latent", exact=True)).to_be_visible(timeout=READY)
    page.get_by_role("link", name=f"Open latent {other}").click()
    page.locator(WORDS).first.wait_for(timeout=READY)
    expect(page.locator(".st-key-latent-card")).to_contain_text("mills & <b>rivers</b>")
