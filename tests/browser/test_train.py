"""An SAE is trained in the app: progress seen, cancelled, resumed, and used on the page of latents."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY
from tests.serve import furnish, start_app

pytestmark = pytest.mark.browser


@pytest.fixture
def own_app(tmp_path: Path, embedded_folder: Path) -> Iterator[str]:
    """An app of its own: an SAE more would change what other tests see."""
    process, at = start_app(furnish(tmp_path / "home", embedded_folder))
    yield at
    process.terminate()
    process.wait(20)


def _number(page: Page, label: str, value: str) -> None:
    field = page.get_by_role("spinbutton", name=label)
    field.fill(value)
    field.press("Enter")


def test_train_cancel_resume_and_read_with_it(own_app: str, page: Page) -> None:
    page.goto(f"{own_app}/train")
    page.get_by_text("Built-in texts").click(timeout=READY)
    page.get_by_role("combobox", name="Width").click(timeout=READY)
    page.get_by_text("1x = 576").click()
    _number(page, "Tokens at most", "3000")
    page.get_by_text("Schedule").click()
    _number(page, "Epochs", "25")
    page.get_by_label("Name", exact=True).fill("short")
    page.get_by_label("Name", exact=True).press("Enter")
    expect(page.get_by_text("8,137 tokens")).to_be_visible(timeout=READY)
    expect(page.get_by_text("586 steps of 128 states, 576 latents")).to_be_visible(timeout=READY)
    page.get_by_role("button", name="Train", exact=True).click()

    going = page.locator(".st-key-training-running")
    expect(going).to_contain_text("residual states, chunk", timeout=READY)
    expect(going.locator(".js-plotly-plot .scatterlayer path.js-line").first).to_be_visible(timeout=READY)
    expect(going).to_contain_text(re.compile(r"step [\d,]+ of [\d,]+"))
    going.get_by_role("button", name="Cancel").click()

    left = page.locator(".st-key-unfinished-short")
    expect(left).to_contain_text(re.compile(r"step [1-9]\d* of [\d,]+"), timeout=READY)
    expect(page.get_by_text("it can be resumed from there")).to_be_visible()
    left.get_by_role("button", name="Resume").click()

    done = page.locator(".st-key-training-done")
    expect(done).to_contain_text("short is trained and installed", timeout=3 * READY)
    expect(done).to_contain_text("Explained variance")
    done.get_by_role("button", name="Read the open text with it").click()
    page.wait_for_url(re.compile("/latents"))
    card = page.locator(".st-key-latents-card")
    expect(card).to_contain_text("576 latents", timeout=READY)
    expect(card).to_contain_text("short")
    expect(page.locator(".st-key-plot-latents-map .js-plotly-plot")).to_be_visible(timeout=READY)
