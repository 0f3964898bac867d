"""A set is imported (a broken line first), swept, and a click on its most surprising prompt opens the Overview of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY
from tests.browser.tables import click_row
from tests.serve import furnish, idle, start_app

pytestmark = pytest.mark.browser

PROMPTS = (
    {
        "id": "plain-1",
        "text": "The sun rises in the east and sets in the west, and it does so every day.",
        "group": "plain",
    },
    {"id": "plain-2", "text": "The cat sat on the mat and looked out of the window at the birds.", "group": "plain"},
    {"id": "odd-1", "text": "Quartz jackdaw forty vexes hymn blowing zephyr plumb gnostic wig.", "group": "odd"},
)


@pytest.fixture
def own_app(tmp_path: Path, embedded_folder: Path) -> Iterator[str]:
    """An app of its own: more runs would change what other tests see."""
    process, at = start_app(furnish(tmp_path / "home", embedded_folder))
    yield at
    process.terminate()
    process.wait(20)


def test_import_sweep_and_open_the_outlier(own_app: str, page: Page, tmp_path: Path) -> None:
    page.goto(f"{own_app}/sets")
    page.locator(".st-key-sets-load button").click(timeout=READY)
    expect(page.get_by_text("128 prompts")).to_be_visible(timeout=READY)

    file = tmp_path / "mine.jsonl"
    lines = [json.dumps(prompt) for prompt in PROMPTS]
    file.write_text("\n".join([lines[0], lines[1][:-1], lines[2]]))
    page.get_by_text("Import a set, or remove one").click()
    page.locator(".st-key-sets-file input[type=file]").set_input_files(file)
    expect(page.locator(".st-key-sets-file").get_by_text("mine.jsonl").first).to_be_visible(timeout=READY)
    page.locator(".st-key-sets-import button").click()
    expect(page.get_by_text(re.compile("mine.jsonl, line 2: not valid JSON"))).to_be_visible(timeout=READY)
    expect(page.get_by_text(re.compile("Nothing was imported"))).to_be_visible()

    page.get_by_label("or pasted lines").fill("\n".join(lines))
    page.get_by_label("Name", exact=True).fill("mine")
    page.locator(".st-key-sets-file button[aria-label*='Remove']").click()
    page.locator(".st-key-sets-import button").click()
    expect(page.get_by_text("3 prompts", exact=True)).to_be_visible(timeout=READY)

    page.get_by_role("button", name="Run all 3").click()
    expect(page.get_by_text(re.compile("mine on smollm2-135m-instruct"))).to_be_visible(timeout=READY)
    expect(page.get_by_text("3 run")).to_be_visible(timeout=READY)

    idle(page)
    table = page.locator("[class*='st-key-sets-table'] canvas").first
    _sort_until(page, "perplexity", "odd-1")
    click_row(page, table, 0, 120, lambda: "/sets" not in page.url)
    page.wait_for_url(re.compile(r"run=[0-9a-f]{32}"), timeout=READY)
    expect(page.locator(".strip")).to_contain_text("Quartz", timeout=READY)


def _sort_until(page: Page, column: str, first: str) -> None:
    """Click a heading until the row that should come first does: ascending, then descending, however slow the page is."""
    canvas = page.locator("[class*='st-key-sets-table'] canvas").first
    box = canvas.bounding_box()
    assert box is not None
    for _ in range(6):
        page.mouse.click(_heading(page, column), box["y"] + 18)
        for _ in range(10):
            page.wait_for_timeout(200)
            if canvas.locator("[role=row][aria-rowindex='2']").get_by_text(first, exact=True).count():
                return
    raise AssertionError(f"{first} never came first: {canvas.inner_html()}")


def _heading(page: Page, name: str) -> float:
    """Where the heading of a column stands, by the table that the canvas has for screen readers."""
    columns = page.locator("[class*='st-key-sets-table'] canvas [role=columnheader]").all_text_contents()
    widths = {"": 40, "prompt": 130, "group": 100, "text": 560, "tokens": 70}
    left = 0
    for column in columns:
        if column == name:
            break
        left += widths.get(column, 0)
    box = page.locator("[class*='st-key-sets-table'] canvas").first.bounding_box()
    assert box is not None
    return box["x"] + left + 40
