"""Steering the embedded model with a latent of the shipped SAE, in a real browser: texts side by side, measures, a link."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY

pytestmark = pytest.mark.browser

SENTENCE = "The ship sailed across the stormy sea with its crew."
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


def test_a_concept_prompt_shows_its_latents_and_changes_the_text(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/steer?run={example}&pos=60")
    page.get_by_role("button", name="Steer", exact=True).wait_for(timeout=READY)
    page.get_by_text("concept prompt", exact=True).first.click()
    field = page.get_by_role("textbox", name="Concept prompt")
    field.fill(SENTENCE)
    field.press("Enter")
    found = page.get_by_role("button", name="Find its latents")
    told = page.get_by_text("Its 32 strongest latents")
    expect(found.or_(told).first).to_be_visible(timeout=READY)
    if found.is_visible():
        found.click()
    expect(told).to_be_visible(timeout=READY)
    expect(page.locator(".stMain").get_by_test_id("stDataFrame")).to_be_visible()
    page.get_by_role("button", name="Steer", exact=True).click()
    for name in ("clean", "steered", "control"):
        expect(page.locator(f".st-key-steer-text-{name}")).to_be_visible(timeout=READY)
    page.locator(".st-key-plot-steer-along .js-plotly-plot").wait_for(timeout=READY)
    expect(page.locator(".st-key-steer-text-steered")).to_contain_text("Steered by the concept prompt")
    expect(page.locator(".st-key-steer-text-control")).to_contain_text("32 other latents")
    assert HEADLINE.search(page.locator(".stMain").inner_text()) is not None
