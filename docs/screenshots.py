"""The pictures of the README, taken from the running app on the example passage: ``make screenshots``."""

import re
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from cache.home import home
from docs.camera import needs_chromium, opened_app
from probes.model.catalog import EMBEDDED
from tests.serve import furnish, idle

IMAGES = Path(__file__).parent / "images"
PATIENCE = 300_000  # ms
PAGES = {
    "overview": ("", "point=12&pos=0&dim=507"),
    "spectra": ("spectra", "point=18&pos=41"),
    "sinks": ("sinks", "point=18&pos=41&head=3"),
    "massive": ("massive", "point=12&pos=0&dim=507"),
    "lens": ("lens", "point=24&pos=41"),
    "latents": ("latents", "point=16&pos=41"),
    "token-spectra": ("token_spectra", "point=18&pos=41"),
    "geometry": ("geometry", "point=18&pos=41"),
    "interventions": ("interventions", "point=12&pos=0&dim=507"),
    "story": ("story", "point=12&pos=0&dim=507"),
    "models": ("models", ""),
    "find": ("find", "point=16&pos=41"),
    "train": ("train", ""),
}
LATENTS = {"latent": 2351, "latent-2": 3747, "latent-3": 2930}
"""Pictures of latents of the shipped SAE that were read by a person (docs/methods/shipped-latents.md)."""

WAIT_FOR = {
    "token-spectra": ".st-key-plot-windows-boundaries .main-svg",
    "geometry": ".st-key-plot-geometry-cosine .main-svg",
    "models": "[data-testid=stDataFrame]",
    "interventions": ".st-key-test-row",
    "find": "[data-testid=stDataFrame]",
    "train": ".st-key-train-name",
}


def take(page: Page, address: str, theme: str, folder: Path) -> None:
    """One picture a page, after everything on it has been drawn."""
    page.goto(address)
    page.locator(".strip .token").first.wait_for(timeout=PATIENCE)
    page.wait_for_url(re.compile("run="), timeout=PATIENCE)
    run = page.url.split("run=")[1].split("&")[0]
    for name, (path, query) in PAGES.items():
        page.goto(f"{address}/{path}?run={run}&{query}")
        what = WAIT_FOR.get(name, ".js-plotly-plot .main-svg")
        page.locator(what).first.wait_for(timeout=PATIENCE)
        idle(page)
        page.screenshot(path=folder / f"{name}{theme}.png")
    test(page, f"{address}/?run={run}&point=12&pos=0&dim=507", folder / f"test{theme}.png")
    compare(page, address, run, folder / f"compare{theme}.png")
    session(page, address, run, folder / f"sessions{theme}.png")
    data(page, address, folder / f"data{theme}.png")
    for name, latent in LATENTS.items():
        latent_page(page, f"{address}/latent?run={run}&point=16&pos=41&latent={latent}", folder / f"{name}{theme}.png")
    quality(page, f"{address}/quality?run={run}", folder / f"quality{theme}.png")
    steer(page, f"{address}/steer?run={run}&pos=41&latent={LATENTS['latent']}", folder / f"steer{theme}.png")


def test(page: Page, address: str, picture: Path) -> None:
    """One entry taken away, beside its controls."""
    page.goto(address)
    page.locator(".st-key-test-entry-zero button").click(timeout=PATIENCE)
    page.locator(".st-key-panel-test-sinks .js-plotly-plot").wait_for(timeout=PATIENCE)
    idle(page)
    page.screenshot(path=picture)


def compare(page: Page, address: str, run: str, picture: Path) -> None:
    """The example against itself without BOS: sinks by head, A, B and B - A."""
    page.goto(f"{address}/?run={run}")
    page.locator(".strip .token").first.wait_for(timeout=PATIENCE)
    idle(page)
    page.locator(".st-key-try-no_bos button").first.click(timeout=PATIENCE)
    page.locator("[class*='st-key-compare-'] button").first.click(timeout=PATIENCE)
    page.wait_for_url(re.compile("b="), timeout=PATIENCE)
    page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
    idle(page)
    page.screenshot(path=picture)


def session(page: Page, address: str, run: str, picture: Path) -> None:
    """Two panels kept, with notes."""
    for name, panel in (("sinks", "sinks-heads"), ("massive", "massive-top")):
        page.goto(f"{address}/{name}?run={run}&point=12&pos=0&head=3")
        page.locator(f".st-key-plot-{panel} .nsewdrag").first.wait_for(timeout=PATIENCE)
        page.locator(f".st-key-panel-{panel} button[data-do=add]").click()
        page.get_by_text("Kept in the session").first.wait_for(timeout=PATIENCE)
    page.get_by_role("link", name="Sessions", exact=True).click()
    notes = page.get_by_label("Notes, in Markdown (saved by themselves)")
    notes.fill("**Sinks begin where the largest activation is born**: block 11 writes it, block 12 rests on it.")
    notes.press("Control+Enter")
    idle(page)
    page.screenshot(path=picture)


def data(page: Page, address: str, picture: Path) -> None:
    """The first example query."""
    page.goto(f"{address}/data")
    page.get_by_role("button", name="Run", exact=True).click(timeout=PATIENCE)
    page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
    idle(page)
    page.screenshot(path=picture)


def latent_page(page: Page, address: str, picture: Path) -> None:
    """What one latent fires on, and what it writes."""
    page.goto(address)
    page.locator(".st-key-plot-latent-examples").first.wait_for(timeout=PATIENCE)
    idle(page)
    page.screenshot(path=picture)


def quality(page: Page, address: str, picture: Path) -> None:
    """The shipped SAE measured on the built-in texts."""
    page.goto(address)
    page.locator("[class*='st-key-quality-go-'] button").first.click(timeout=PATIENCE)
    page.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=PATIENCE)
    idle(page)
    page.screenshot(path=picture)


def steer(page: Page, address: str, picture: Path) -> None:
    """What a latent does to the text, beside its control."""
    page.goto(address)
    page.locator(".st-key-steer-go button").click(timeout=PATIENCE)
    page.locator(".st-key-steer-text-control").wait_for(timeout=PATIENCE)
    idle(page)
    page.screenshot(path=picture)


def main() -> None:
    needs_chromium()
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_app(furnish(Path(folder) / "home", home() / "models" / EMBEDDED)) as (page, address),
    ):
        take(page, address, "", IMAGES)


if __name__ == "__main__":
    main()
