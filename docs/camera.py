"""The running app in a browser, for the scripts that take its pictures."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.serve import CHROMIUM_ARGUMENTS, start_app

__all__ = ["needs_chromium", "opened_app"]


def needs_chromium() -> str:
    """Where Chromium is; ends the program where there is none."""
    found = shutil.which("chromium")
    if found is None:
        sys.exit("chromium is not installed: no pictures were taken")
    return found


@contextmanager
def opened_app(place: Path) -> Iterator[tuple[Page, str]]:
    """A page 1280 wide and the address of an app whose EIGENSCOPE_HOME is ``place``; both end with the block."""
    with sync_playwright() as playwright:
        process, address = start_app(place)
        browser = playwright.chromium.launch(executable_path=needs_chromium(), args=CHROMIUM_ARGUMENTS)
        try:
            yield browser.new_page(viewport={"width": 1280, "height": 1000}), address
        finally:
            browser.close()
            process.terminate()
            process.wait(20)
