"""The first request a fresh server sees is somebody's shared address."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY
from tests.serve import furnish, start_app

pytestmark = pytest.mark.browser


def test_a_deep_link_opens_as_the_first_request(page: Page, tmp_path: Path, embedded_folder: Path) -> None:
    process, address = start_app(furnish(tmp_path / "home", embedded_folder))
    try:
        page.goto(f"{address}/models")
        expect(page.get_by_text("Which models are here")).to_be_visible(timeout=READY)
        expect(page.get_by_text("smollm2-135m-instruct").first).to_be_visible()
    finally:
        page.goto("about:blank")  # or its reconnecting would be heard as errors
        process.terminate()
        process.wait(20)
