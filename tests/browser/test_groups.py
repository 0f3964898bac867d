"""Two groups of a small set compared in the browser: run, compared, a prompt opened by a click on its column."""

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
from tests.serve import furnish, idle, start_app

pytestmark = pytest.mark.browser

TEXTS = (
    "The sun rises in the east and sets in the west, and it does so every single day.",
    "The cat sat on the mat and looked out of the window at the birds in the old tree.",
    "Add three to four and take away two, then double what is left and say the number.",
    "Take ten apples, give away six of them, then buy five more and count what you have.",
)


@pytest.fixture
def own_app(tmp_path: Path, embedded_folder: Path) -> Iterator[str]:
    """An app of its own with a set of two groups."""
    home = furnish(tmp_path / "home", embedded_folder)
    lines = [{"id": f"p{n}", "text": text, "group": ("plain", "sums")[n // 2]} for n, text in enumerate(TEXTS)]
    with Store.open(home / "store.duckdb") as store:
        import_set(store, read_set("mine", "\n".join(map(json.dumps, lines)).encode(), "mine", "mine"))
    process, at = start_app(home)
    yield at
    process.terminate()
    process.wait(20)


def test_groups_are_run_compared_and_a_prompt_is_opened(own_app: str, page: Page) -> None:
    page.goto(f"{own_app}/groups")
    page.locator(".st-key-sets-load button").click(timeout=READY)
    expect(page.get_by_text("0 of 128 prompts are there.")).to_be_visible(timeout=READY)
    page.locator(".st-key-sets-set input").click()
    page.get_by_role("option", name="mine").click()
    page.get_by_role("button", name="Run all 4").click(timeout=READY)
    expect(page.get_by_text(re.compile(r"plain − sums = .*Exploratory: fewer than 20"))).to_be_visible(timeout=READY)

    heatmap = page.locator(".st-key-plot-groups-prompts .heatmaplayer").first
    heatmap.wait_for(timeout=READY)
    heatmap.scroll_into_view_if_needed()
    idle(page)
    plot = page.locator(".st-key-plot-groups-prompts .nsewdrag").first.bounding_box()
    assert plot is not None
    x, y = plot["x"] + plot["width"] * 7 / 8, plot["y"] + plot["height"] / 2
    page.mouse.move(x, y)
    page.locator(".st-key-plot-groups-prompts .hoverlayer .hovertext").wait_for()
    page.mouse.down()
    page.mouse.up()
    expect(page.locator(".strip")).to_contain_text("apples", timeout=READY)
