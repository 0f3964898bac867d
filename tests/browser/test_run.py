"""A person types a text: it runs, it shows, and whatever it says is text."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from probes.model.catalog import EMBEDDED
from tests.browser.conftest import READY, open_overview

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script> $x^2$ :red[hi] **b** <|im_start|> &lt;i&gt; \u202eleft %{x} #000001\n=1+1"


def run(page: Page, text: str) -> None:
    page.get_by_role("button", name="Run a text").click()
    page.get_by_role("textbox", name="Text").fill(text)
    page.get_by_role("button", name="Run", exact=True).click()


def test_hostile_text_is_shown_literally(page: Page, overview: str) -> None:
    open_overview(page, overview)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    run(page, HOSTILE)
    expect(page.get_by_text("· 57 tokens ·")).to_be_visible(timeout=READY)
    strip = "".join(page.locator(".token").all_text_contents()).replace("·", " ")
    for part in ("<script>alert(1)</script>", "$x^2$", ":red[hi]", "**b**", "<|im_start|>", "&lt;i&gt;", "%{x}", "⏎"):
        assert part in strip
    assert "\\xE2\\x80\\xAEleft" in strip, "the override is shown as the bytes its tokens are"
    assert "\u202e" not in strip
    # The strip of the former run stays until the page is drawn to its end.
    expect(page.locator(".token", has_text=re.compile(r"^<\|im_start\|>$")), "typed markers are text").to_have_count(1)
    assert dialogs == []


def test_an_empty_text_is_one_sentence_and_loses_nothing(page: Page, overview: str) -> None:
    open_overview(page, overview)
    before = page.url
    run(page, "   ")
    expect(page.get_by_text("The text is empty: give at least one visible character.")).to_be_visible(timeout=READY)
    expect(page.locator(".token").first).to_be_visible()
    assert page.url == before


def test_a_run_goes_on_when_the_browser_closes(browser: Browser, address: str, overview: str) -> None:
    first = browser.new_context()
    page = first.new_page()
    open_overview(page, overview)
    run(page, "A short text that nobody has run before, which is read while nobody is looking at it.")
    expect(page.get_by_role("textbox", name="Text")).to_be_hidden(timeout=READY)
    first.close()
    later = browser.new_context().new_page()
    for _ in range(60):
        later.goto(address)
        later.locator(".token").first.wait_for(timeout=READY)
        if later.locator(".token", has_text="nobody").count():
            break
        later.wait_for_timeout(1000)
    assert later.locator(".token", has_text="nobody").count() == 2
    later.context.close()


def test_models_shows_health(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/models")
    told = page.locator(f".st-key-model-{EMBEDDED}").get_by_text("Model health: 8 of 8 checks passed")
    expect(told).to_be_visible(timeout=READY)
    assert example, "the model is loaded because the example was run"
