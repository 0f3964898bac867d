"""From an event to its tested effect in two clicks, on to both runs and back, in both themes; and the story of one number."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PLOT, READY, open_overview
from tests.browser.test_heatmaps import selection

pytestmark = pytest.mark.browser

EVENT = re.compile("24,926 born at position 0, dimension 507")
HEADLINE = re.compile(r"Perplexity ([\d.,]+) → ([\d.,]+); (\d+) controls ([\d.,]+) to ([\d.,]+)\. KL")
ALONG = ".st-key-plot-test-along"
DARK = "rgb(18, 22, 27)"  # backgroundColor of [theme.dark]
STORY = ("birth", "writers", "sinks", "damage", "masked", "traces", "alpha")

# Where on the page the point of the tested line nearest to a fraction of the text is, and its position.
POINT = """(figure, along) => {
  const line = figure._fullData.findLast((trace) => trace.mode.includes("markers"));
  const i = Math.round(along * (line.x.length - 1));
  const { xaxis, yaxis } = figure._fullLayout;
  const box = figure.getBoundingClientRect();
  return [box.left + xaxis._offset + xaxis.c2p(line.x[i]), box.top + yaxis._offset + yaxis.c2p(line.y[i]), line.x[i]];
}"""


def ask(page: Page, overview: str) -> None:
    """Two clicks on the Overview: the event, and what hangs on it."""
    open_overview(page, overview)
    page.get_by_role("button", name=EVENT).click()
    page.wait_for_url(re.compile("point=12&pos=0&dim=507"))
    expect(page.get_by_text("entry (point 12, position 0, dimension 507)")).to_be_visible(timeout=READY)
    page.locator(".st-key-test-entry-zero button").click()
    page.locator(f"{ALONG} .scatterlayer path.js-line").first.wait_for(timeout=READY)


def numbers(page: Page) -> list[float]:
    found = HEADLINE.search(page.locator(".st-key-test").inner_text())
    assert found is not None
    return [float(part.replace(",", "")) for part in found.groups()]


def test_two_clicks_lead_from_an_event_to_its_tested_effect(page: Page, overview: str) -> None:
    ask(page, overview)
    clean, changed, controls, lowest, highest = numbers(page)
    assert clean == pytest.approx(34.34, rel=0.01)
    assert changed == pytest.approx(285_464, rel=0.01)
    assert controls == 7
    assert 0.95 * clean < lowest <= highest < 1.05 * clean

    figure = page.locator(f"{ALONG} .js-plotly-plot")
    figure.scroll_into_view_if_needed()
    place, before = figure.evaluate(POINT, 0.4), None
    while place != before:  # panels above may still be on their way
        page.wait_for_timeout(500)
        place, before = figure.evaluate(POINT, 0.4), place
    x, y, position = place
    page.mouse.move(x, y)
    figure.locator(".hoverlayer .hovertext").first.wait_for(timeout=READY)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(re.compile(rf"point=12&pos={position}&dim=507"), timeout=READY)
    expect(page.get_by_text(f"Point 12 of 30 · token {position} ")).to_be_visible(timeout=READY)
    expect(page.locator(".strip .token").nth(int(position))).to_have_class(re.compile(r"\bselected\b"))
    expect(page.get_by_text(f"Likely next tokens at position {position} ")).to_be_visible(timeout=READY)
    assert numbers(page)[1] == changed, "the test stays that of position 0"

    page.locator(".st-key-test-close button").click()
    expect(page.locator(".st-key-test")).to_be_hidden(timeout=READY)
    after = selection(page)
    page.reload()
    page.locator(".strip .token.selected").wait_for(timeout=READY)
    assert selection(page) == after


def test_every_view_of_a_test_is_a_comparison_and_back_is_the_overview(page: Page, overview: str, example: str) -> None:
    ask(page, overview)
    page.locator(".st-key-test-compare button").click()
    page.wait_for_url(re.compile(rf"/compare\?.*run={example}.*b=[0-9a-f]{{32}}"), timeout=READY)
    assert selection(page)["b"] != example
    page.locator(".st-key-strip-b .token").first.wait_for(timeout=READY)
    expect(page.get_by_text(re.compile("^Differs: .*edits")).first).to_be_visible(timeout=READY)
    page.go_back()
    page.wait_for_url(re.compile(rf"[0-9]/\?.*run={example}"), timeout=READY)
    page.locator(f"{PLOT} .scatterlayer path.js-line").first.wait_for(timeout=READY)
    assert {"point": "12", "pos": "0", "dim": "507"}.items() <= selection(page).items()
    assert "b" not in selection(page)


def test_a_test_opens_in_the_dark_theme(page: Page, overview: str) -> None:
    page.emulate_media(color_scheme="dark")
    ask(page, overview)
    expect(page.locator(".stApp")).to_have_css("background-color", DARK)
    assert numbers(page)[1] == pytest.approx(285_464, rel=0.01)
    label = page.locator(".st-key-plot-test-perplexity .ytick text").first
    shade = label.evaluate("text => getComputedStyle(text).fill.match(/[0-9]+/g).slice(0, 3).map(Number)")
    assert min(shade) > 120, "labels stand out from a dark page"


def test_the_story_stands_whole_after_its_passes(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/story?run={example}")
    page.locator(".st-key-plot-story-birth .js-plotly-plot").wait_for(timeout=READY)
    run = page.locator(".st-key-story-run button")
    whole = page.locator(".st-key-plot-story-traces .js-plotly-plot")
    run.or_(whole).first.wait_for(timeout=READY)
    if run.count():
        run.click()
    for panel in STORY:  # thirty passes: under a minute on a free machine
        page.locator(f".st-key-plot-story-{panel} .js-plotly-plot .trace").first.wait_for(
            state="attached", timeout=5 * READY
        )
    expect(
        page.get_by_text(re.compile(r"takes the perplexity of the text from 34\.\d+ to 28\d,\d{3} at point 12"))
    ).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Set every head to zero"))).to_be_visible()
