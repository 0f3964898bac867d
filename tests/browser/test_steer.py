"""Steering the embedded model with a latent of the shipped SAE, in a real browser: texts side by side, measures, a link."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY

pytestmark = pytest.mark.browser

HEADLINE = re.compile(r"KL, nats ([\d.e+-]+) \(control ([\d.e+-]+)\)")


def test_a_latent_changes_the_text_and_stands_beside_its_control(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/steer?run={example}&pos=60")
    button = page.get_by_role("button", name="Steer", exact=True)
    button.wait_for(timeout=READY)
    button.click()
    for name in ("clean", "steered", "control"):
        expect(page.locator(f".st-key-steer-text-{name}")).to_be_visible(timeout=READY)
    page.locator(".st-key-plot-steer-along .js-plotly-plot").wait_for(timeout=READY)
    texts = {name: page.locator(f".st-key-steer-text-{name}").inner_text() for name in ("clean", "steered")}
    assert texts["clean"].split("\n")[-1] != texts["steered"].split("\n")[-1]
    found = HEADLINE.search(page.locator(".stMain").inner_text())
    assert found is not None
    assert float(found[1]) > 0
