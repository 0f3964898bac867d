"""P8 and P9: from a click to the last change on the page, in Chromium, and what a page of 256 tokens sends to the browser."""

import shutil
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from cache.home import home
from probes.model.catalog import EMBEDDED
from tests.serve import CHROMIUM_ARGUMENTS, furnish, start_app

__all__ = ["rows"]

PAGES = {
    "Overview": "",
    "Spectra": "spectra",
    "Sinks": "sinks",
    "Massive": "massive",
    "Lens": "lens",
    "Latents": "latents",
}
CLICKS = 50
_PATIENCE = 300_000  # ms

# Click a token and wait until the address, the strip and the inspector show it and nothing has changed for half a second:
# milliseconds until the last change. Listeners are not counted: they change nothing that is seen.
CLICK = """position => new Promise((done, fail) => {
  const find = (root) => {
    for (const one of root.querySelectorAll("*")) {
      if (one.matches(".strip")) return one;
      if (one.shadowRoot) { const found = find(one.shadowRoot); if (found) return found; }
    }
    return null;
  };
  const tokens = find(document).children;
  const started = performance.now();
  let last = started;
  const watcher = new MutationObserver(() => (last = performance.now()));
  const seen = { subtree: true, childList: true, attributes: true, characterData: true };
  watcher.observe(document.querySelector("[data-testid=stMain]") ?? document.body, seen);
  tokens[position].click();
  const look = setInterval(() => {
    const now = performance.now();
    const there = new URL(location.href).searchParams.get("pos") === String(position);
    if (there && now - last > 500) {
      clearInterval(look); watcher.disconnect(); done(last - started);
    } else if (now - started > 30000) {
      clearInterval(look); watcher.disconnect(); fail(new Error("the page did not come to rest"));
    }
  }, 25);
})"""


def rows() -> list[tuple[str, str, str]]:
    """Rows of the table of benchmarks; one that says why, where there is no Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return [("P8 a click to everything redrawn", "p50 300 ms, p95 700 ms", "not measured: no Chromium")]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        process, address = start_app(furnish(Path(folder) / "home", home() / "models" / EMBEDDED))
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        try:
            return _measured(browser.new_page(viewport={"width": 1280, "height": 900}), address)
        finally:
            browser.close()
            process.terminate()
            process.wait(20)


def _measured(page: Page, address: str) -> list[tuple[str, str, str]]:
    page.goto(address)
    page.wait_for_url("**run=**", timeout=_PATIENCE)
    run = page.url.split("run=")[1].split("&")[0]
    measured, told = [], []
    for name, path in PAGES.items():
        received = [0]
        page.on("websocket", lambda socket, received=received: socket.on(
            "framereceived", lambda frame: received.__setitem__(0, received[0] + len(frame))
        ))  # fmt: skip
        page.goto(f"{address}/{path}?run={run}&point=18&pos=41")
        page.locator(".strip .token").first.wait_for(timeout=_PATIENCE)
        page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=_PATIENCE)
        _rest(page)
        told.append(f"{name} {received[0] / 1e6:.2f} MB")
        positions = [7 + (index * 37) % 240 for index in range(CLICKS)]
        _ = page.evaluate(CLICK, 3)  # what is loaded once is not the click's
        times = sorted(float(page.evaluate(CLICK, position)) for position in positions)
        p50, p95 = statistics.median(times), times[round(0.95 * len(times)) - 1]
        measured.append(f"{name} {p50:.0f} / {p95:.0f}")
    goal = "p50 300 ms, p95 700 ms"
    return [
        (f"P8 a click to everything redrawn, p50 / p95 of {CLICKS} in ms", goal, ", ".join(measured)),
        ("P9 bytes to the browser, page of 258 tokens", "<= 1 MB a view", ", ".join(told)),
    ]


def _rest(page: Page) -> None:
    quiet = 0
    while quiet < 4:
        page.wait_for_timeout(700)
        busy = page.locator("[data-testid=stStatusWidget], [data-testid=stProgress], [data-testid=stSpinner]").count()
        quiet = 0 if busy else quiet + 1
