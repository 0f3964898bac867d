"""A claim is tested by a click in the background, its row opens it, and its effect is drawn beside the control."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from cache.store import Store
from probes.prompts.library import import_set
from probes.prompts.sets import read_set
from tests.browser.conftest import READY
from tests.browser.tables import click_row
from tests.serve import furnish, idle, start_app

pytestmark = pytest.mark.browser

WORDS = ("east", "west", "north", "south")


@pytest.fixture
def own_app(tmp_path: Path, embedded_folder: Path) -> Iterator[str]:
    """An app of its own with a set of eight short prompts."""
    home = furnish(tmp_path / "home", embedded_folder)
    lines = [
        {"id": f"p{n}", "text": f"The wind from the {WORDS[n % 4]} came at {n + 1} that day.", "group": group}
        for n, group in enumerate(["reasoning", "factual"] * 4)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with Store.open(home / "store.duckdb") as store:
        import_set(store, read_set("winds", content, "winds.jsonl", "winds.jsonl"))
    process, at = start_app(home)
    yield at
    process.terminate()
    process.wait(20)


def test_one_click_tests_a_claim_and_its_row_opens_it(own_app: str, page: Page) -> None:
    page.goto(f"{own_app}/claims")
    expect(page.get_by_text(re.compile("13 claims"))).to_be_visible(timeout=READY)
    page.locator(".st-key-claims-set").get_by_role("combobox").click()
    page.get_by_role("option", name="winds").click()
    table = page.locator(".st-key-claims-table-False canvas").first
    expect(table).to_be_visible(timeout=READY)
    idle(page)
    opened = page.locator(".st-key-claims-one").get_by_text("Reasoning has a lower alpha than recall")
    click_row(page, table, 0, 120, lambda: opened.count() > 0)
    page.locator(".st-key-claims-one-run button").click()
    plot = page.locator(".st-key-plot-claims-effects .js-plotly-plot")
    expect(plot).to_be_visible(timeout=READY)
    expect(page.locator(".st-key-claims-one").get_by_text("does not hold", exact=False).first).to_be_visible(
        timeout=READY
    )
    page.locator(".st-key-panel-claims-effects button[data-do=add]").click()
    expect(page.get_by_text("Kept in the session").first).to_be_visible(timeout=READY)
