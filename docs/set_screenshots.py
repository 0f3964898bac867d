"""The pictures of the pages about many prompts: ``python -m docs.set_screenshots``, the second half of ``make screenshots``.

What this machine's store holds of the built-in sets is copied first, so that only the rest is computed: half an hour on two
cores where there is nothing.
"""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from cache.home import home
from docs.camera import needs_chromium, opened_app
from docs.screenshots import IMAGES
from probes.model.catalog import EMBEDDED
from tests.serve import furnish, idle

PATIENCE = 3_600_000  # ms


def take(page: Page, address: str) -> None:
    """One picture a page; what was not run yet is, first."""
    page.goto(address)
    page.locator(".strip .token").first.wait_for(timeout=PATIENCE)
    for name, button, seen in (
        ("groups", ".st-key-groups-run button", ".st-key-plot-groups-means .main-svg"),
        ("sets", "", "[data-testid=stDataFrame]"),
        ("predict", ".st-key-predict-go button", ".st-key-plot-predict-roc .main-svg"),
        ("claims", ".st-key-claims-all button", ".st-key-plot-claims-effects .main-svg"),
    ):
        page.goto(f"{address}/{name}")
        if name == "predict":
            page.locator(".st-key-sets-read").get_by_text("chat", exact=True).click(timeout=PATIENCE)
        page.locator(f"{seen}, {button}" if button else seen).first.wait_for(timeout=PATIENCE)
        idle(page)
        if button and not page.locator(seen).count():
            page.locator(button).first.click(timeout=PATIENCE)
        page.locator(seen).first.wait_for(timeout=PATIENCE)
        idle(page)
        page.screenshot(path=IMAGES / f"{name}.png")


def main() -> None:
    needs_chromium()
    with tempfile.TemporaryDirectory() as folder:
        here = furnish(Path(folder) / "home", home() / "models" / EMBEDDED)
        if (home() / "store.duckdb").is_file():
            shutil.copy(home() / "store.duckdb", here)
        with opened_app(here) as (page, address):
            take(page, address)


if __name__ == "__main__":
    main()
