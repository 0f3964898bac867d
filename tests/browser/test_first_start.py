"""The first start on a machine without a model: the app says so and offers to fetch it."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY
from tests.serve import start_app

pytestmark = pytest.mark.browser


def test_without_a_model_the_overview_offers_to_fetch_it(page: Page, tmp_path: Path) -> None:
    process, address = start_app(tmp_path)
    try:
        page.goto(address)
        expect(page.get_by_text("No model is installed yet.")).to_be_visible(timeout=READY)
        expect(page.get_by_role("button", name="Fetch smollm2-135m-instruct")).to_be_enabled()
        page.get_by_role("button", name="Run a text").click()
        expect(page.get_by_text("No model is installed yet: the page Models fetches one.")).to_be_visible()
        page.goto("about:blank")  # a page whose server goes away complains
    finally:
        process.terminate()
        process.wait(20)
