"""TRY on the example: one click, a second run, its outcome, and both runs side by side."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY, open_overview

pytestmark = pytest.mark.browser


def test_without_bos_is_one_click_and_compare_another(page: Page, overview: str, example: str) -> None:
    open_overview(page, overview)
    expect(page.get_by_role("button", name="passage twice")).to_be_enabled()
    page.get_by_role("button", name="without BOS").click()
    told = page.locator(".st-key-tried")
    expect(told).to_contain_text("tokens both predict", timeout=READY)
    expect(told).to_contain_text(
        re.compile(r"largest activation [\d,]+ → [\d,]+ \(point 12, position 0, dimension 507\)")
    )
    expect(told).to_contain_text(re.compile(r"sink heads \d+ % → \d+ %"))
    told.get_by_role("button", name="Compare").click()
    page.wait_for_url(re.compile(rf"compare\?.*run={example}"), timeout=READY)
    expect(page).to_have_url(re.compile(r"[?&]b=[0-9a-f]{8}"))


def test_a_first_token_is_typed_and_a_bad_one_told(page: Page, overview: str) -> None:
    open_overview(page, overview)
    page.get_by_role("button", name="another first token").click()
    typed = page.get_by_label("First token: a word or a special token")
    expect(typed).to_have_attribute("placeholder", "<|endoftext|>")
    typed.fill("two words")
    typed.press("Enter")
    expect(page.locator(".st-key-tried")).to_contain_text("the first token must be one", timeout=READY)
    expect(typed).to_be_hidden()
