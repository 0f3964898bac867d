"""The real app behind its console script, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests import tiny
from tests.serve import CHROMIUM_ARGUMENTS, furnish, start_app

PLOT = ".st-key-plot-overview-layers .js-plotly-plot"
HOSTILE_MODEL = "<script>alert(1)<!-- $x^2$ :red[hi] **b** <|im_start|>"  # a folder's name holds no slash
expect.set_options(timeout=60_000)  # ms: a page may take longer than five seconds on a machine that does other work too
READY = 120_000  # ms: the first page loads the model and runs the example, on machines that do other work too


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory, embedded_folder: Path) -> Iterator[str]:
    """One app for the session, with the embedded model, one of a hostile name, and an empty store."""
    home = furnish(tmp_path_factory.mktemp("browser") / "home", embedded_folder)
    tiny.save(home / "models" / HOSTILE_MODEL)
    process, at = start_app(home)
    yield at
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="session")
def example(context: BrowserContext, address: str) -> str:
    """The run id of the example, which the first visit to an empty store makes and opens by itself."""
    first = context.new_page()
    first.goto(address)
    first.locator(".token").first.wait_for(timeout=READY)
    first.wait_for_url(re.compile("run="))
    run_id = parse_qs(urlparse(first.url).query)["run"][0]
    first.close()
    return run_id


@pytest.fixture(scope="session")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One browser profile: the app's JavaScript is fetched and compiled once."""
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page 1280 wide; the test fails if the console saw an error."""
    opened = context.new_page()
    errors: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # Streamlit asks below a page's own path first, before it knows where the server's root is.
        if message.type == "error" and "/_stcore/" not in message.location.get("url", ""):
            errors.append(message.text)

    opened.on("console", heard)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert errors == []


@pytest.fixture
def overview(address: str, example: str) -> str:
    """The address of the Overview of the example."""
    return f"{address}/?run={example}"


def open_overview(page: Page, overview: str, query: str = "") -> None:
    page.goto(f"{overview}{query}")
    page.locator(".token").first.wait_for(timeout=READY)
    page.locator(f"{PLOT} .scatterlayer path.js-line").first.wait_for(timeout=READY)
