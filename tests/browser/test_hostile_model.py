"""A model whose folder is named by an attacker: its name is text wherever it is shown."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import HOSTILE_MODEL, READY

pytestmark = pytest.mark.browser


def test_the_name_of_a_model_is_shown_literally(page: Page, address: str, example: str) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(f"{address}/models")
    name = page.get_by_text(HOSTILE_MODEL, exact=True)
    expect(name).to_be_visible(timeout=READY)
    page.get_by_role("button", name="Load and check").click()
    expect(page.get_by_text("Model health: 8 of 8 checks passed")).to_have_count(2, timeout=READY)
    page.goto(f"{address}/?run={example}")
    page.locator(".strip .token").first.wait_for(timeout=READY)
    page.get_by_role("button", name="Run a text").click()
    page.get_by_role("combobox", name=re.compile("Model")).click()
    page.get_by_role("option", name=HOSTILE_MODEL).click()
    page.get_by_role("textbox", name="Text").fill("a short text for a model of another name " * 4)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(name).to_be_visible(timeout=READY)
    assert dialogs == []
