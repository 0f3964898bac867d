"""Pages are linked: what is clicked on one is shown by all, a copied address shows it to another person, keys move it."""

import re
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import READY, open_overview
from tests.browser.test_heatmaps import click_cell, selection

pytestmark = pytest.mark.browser

OTHERS = {"spectra": "spectra-alpha", "sinks": "sinks-tokens", "massive": "massive-top", "latents": "latents-map"}

# Where on the page the twentieth point of the first line is.
POINT_20 = """figure => {
  const { xaxis, yaxis } = figure._fullLayout._plots.xy;
  const box = figure.getBoundingClientRect();
  const { x, y } = figure.calcdata[0][20];
  return [box.left + xaxis._offset + xaxis.c2p(x), box.top + yaxis._offset + yaxis.c2p(y)];
}"""


def marks(page: Page, plot: str) -> list[str]:
    lines = page.locator(f".st-key-plot-{plot} svg.selection-cursor line")
    lines.first.wait_for(timeout=READY, state="attached")
    return [str(line.get_attribute("stroke")) for line in lines.all()]


def test_a_cell_of_the_lens_is_shown_by_every_page_and_by_another_browser(
    page: Page, browser: Browser, address: str, example: str
) -> None:
    page.goto(f"{address}/lens?run={example}&point=18&pos=41")
    page.locator(".strip .token").first.wait_for(timeout=READY)
    page.locator(".st-key-plot-lens-map .nsewdrag").first.wait_for(timeout=READY)
    click_cell(page, "lens-map")
    page.wait_for_function("before => !location.search.includes(before)", arg="point=18&pos=41")
    chosen = selection(page)
    where = re.compile(rf"Point {chosen['point']} of 30 · token {chosen['pos']} ")
    expect(page.get_by_text(where)).to_be_visible(timeout=READY)
    for name, plot in OTHERS.items():
        page.get_by_role("link", name={"spectra": "Spectra", "sinks": "Sinks", "massive": "Massive activations",
                                       "latents": "SAE latents"}[name], exact=True).click()  # fmt: skip
        page.wait_for_url(re.compile(f"/{name}"), timeout=READY)
        expect(page.get_by_text(where)).to_be_visible(timeout=READY)
        expect(page.locator(".strip .token").nth(int(chosen["pos"]))).to_have_class(
            re.compile("selected"), timeout=READY
        )
        assert marks(page, plot)
        assert {key: selection(page)[key] for key in ("point", "pos")} == {key: chosen[key] for key in ("point", "pos")}
    other = browser.new_context(viewport={"width": 1280, "height": 900})
    second = other.new_page()
    second.goto(page.url)
    expect(second.get_by_text(where)).to_be_visible(timeout=READY)
    expect(second.locator(".strip .token").nth(int(chosen["pos"]))).to_have_class(re.compile("selected"), timeout=READY)
    assert selection(second) == selection(page)
    other.close()


def test_arrows_move_token_and_layer_from_anywhere_and_escape_releases(page: Page, overview: str) -> None:
    open_overview(page, overview, "&point=18&pos=41&head=3")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("point=18&pos=42"))
    page.keyboard.press("ArrowUp")
    page.wait_for_url(re.compile("point=19&pos=42"))
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.wait_for_url(re.compile("point=16&pos=42"))
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "head=" not in url and "pos=42" not in url)
    assert parse_qs(urlparse(page.url).query)["point"] == ["16"], "Esc leaves the layer"


def test_keys_in_a_text_field_move_nothing(page: Page, overview: str) -> None:
    open_overview(page, overview, "&point=18&pos=41")
    page.get_by_role("button", name="Run a text").click()
    box = page.get_by_role("textbox", name="Text")
    box.fill("abc")
    box.press("ArrowLeft")
    box.press("ArrowUp")
    page.wait_for_timeout(600)
    assert selection(page)["pos"] == "41"
    assert selection(page)["point"] == "18"


def test_a_range_is_marked_in_panels_and_told(page: Page, overview: str, address: str, example: str) -> None:
    page.goto(f"{address}/sinks?run={example}&point=18&pos=41")
    page.locator(".st-key-plot-sinks-tokens .nsewdrag").first.wait_for(timeout=READY)
    page.locator(".strip .token").nth(60).click(modifiers=["Shift"])
    page.wait_for_url(re.compile("span=41-60"))
    page.locator(".st-key-plot-sinks-tokens svg.selection-cursor rect").first.wait_for(timeout=READY, state="attached")
    expect(page.get_by_text("Tokens 41 to 60, mean at point 18")).to_be_visible(timeout=READY)
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "span" not in url)
    assert selection(page)["pos"] == "41", "the first Esc lets the range go, not the token"


def test_a_pin_is_seen_in_every_panel_and_compared(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/sinks?run={example}&point=18&pos=41")
    page.locator(".st-key-plot-sinks-share .nsewdrag").first.wait_for(timeout=READY)
    page.get_by_role("button", name="Pin this selection").click()
    page.wait_for_url(re.compile("pins=o18.41"))
    page.locator(".strip .token").nth(100).click()
    page.wait_for_url(re.compile("pos=100"))
    page.locator('.st-key-plot-sinks-tokens line[stroke="#E69F00"]').first.wait_for(timeout=READY, state="attached")
    expect(page.locator(".st-key-inspector-frame").get_by_text("Selection and pins")).to_be_visible(timeout=READY)
    page.goto(page.url)
    page.get_by_role("button", name=re.compile("point 18 · 41")).click(timeout=READY)
    page.wait_for_url(re.compile("pos=41"))
    page.get_by_role("button", name="×").click()
    page.wait_for_url(lambda url: "pins" not in url)


def test_hovering_a_panel_points_at_the_same_place_in_the_others(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/sinks?run={example}&point=18&pos=41")
    share = page.locator(".st-key-plot-sinks-share")
    share.locator(".nsewdrag").first.wait_for(timeout=READY)
    page.locator(".st-key-plot-sinks-heads .nsewdrag").first.wait_for(timeout=READY)
    x, y = share.locator(".js-plotly-plot").evaluate(POINT_20)
    page.mouse.move(x - 3, y - 3)
    page.mouse.move(x, y)
    page.locator(".st-key-plot-sinks-heads line[stroke-dasharray]").first.wait_for(timeout=READY, state="attached")
    before = page.url
    page.mouse.move(5, 5)
    expect(page.locator(".st-key-plot-sinks-heads line[stroke-dasharray]")).to_have_count(0)
    assert page.url == before, "a hover selects nothing"


def test_a_second_click_releases(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/sinks?run={example}&point=18&pos=41")
    page.locator(".st-key-plot-sinks-heads .nsewdrag").first.wait_for(timeout=READY)
    click_cell(page, "sinks-heads")
    page.wait_for_url(re.compile("head="))
    page.wait_for_timeout(1500)
    click_cell(page, "sinks-heads")
    page.wait_for_url(lambda url: "head=" not in url)


def test_a_row_of_the_inspector_selects(page: Page, overview: str) -> None:
    open_overview(page, overview, "&point=18&pos=41")
    row = page.locator(".st-key-inspector-frame").get_by_role("button", name=re.compile(r"^latent \d+")).first
    row.click(timeout=READY)
    page.wait_for_url(re.compile(r"latent=\d+"))
