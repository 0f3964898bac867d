"""A click on a cell of any heatmap moves the selection, the inspector, the strip and the address."""

import re
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY

pytestmark = pytest.mark.browser

START = "point=18&pos=41&head=3"
CELLS = [
    ("sinks", "sinks-heads", {"point", "head"}),
    ("sinks", "sinks-all-heads", {"head", "pos"}),
    ("sinks", "sinks-attention", {"pos"}),
    ("sinks", "sinks-cosine", {"point", "pos"}),
    ("massive", "massive-rogue", {"point", "dim"}),
    ("massive", "massive-entries-map", {"pos", "dim"}),
    ("token_spectra", "windows-step", {"point", "pos"}),
    ("lens", "lens-map", {"point", "pos"}),
    ("lens", "lens-heads", {"point", "head"}),
    ("latents", "latents-map", {"pos", "latent"}),
    ("geometry", "geometry-matrix", {"point"}),
]


def selection(page: Page) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlparse(page.url).query).items()}


# Where on the page the middle of a cell with a number is: the one nearest to a fifth from the left, a third from below;
# and whether the pointer is on it.
CELL = """figure => {
  const { trace, x, y, z } = figure.calcdata.map((drawn) => drawn[0]).find((first) => first.z);
  const { xaxis, yaxis } = figure._fullLayout._plots[(trace.xaxis || "x") + (trace.yaxis || "y")];
  const middle = (edges, i) => (Number(edges[i]) + Number(edges[i + 1])) / 2;
  let best = null;
  z.forEach((row, j) => row.forEach((value, i) => {
    const far = Math.hypot(i / row.length - 0.2, j / z.length - 0.35);
    if (Number.isFinite(value) && (!best || far < best.far)) best = { far, i, j };
  }));
  const box = figure.getBoundingClientRect();
  const at = (i, j) => [xaxis._offset + xaxis.c2p(middle(x, i)), yaxis._offset + yaxis.c2p(middle(y, j))];
  const [left, top] = at(best.i, best.j);
  const [row, column] = figure._hoverdata?.[0]?.pointNumber ?? [];
  const under = row === undefined ? [Infinity, Infinity] : at(column, row);
  return {
    place: [box.left + left, box.top + top],
    hovered: Math.hypot(under[0] - left, under[1] - top) < 2, // some cells are smaller than a pixel
  };
}"""


def click_cell(page: Page, plot: str) -> None:
    figure = page.locator(f".st-key-plot-{plot} .js-plotly-plot")
    before, now = None, figure.evaluate(CELL)
    for _ in range(100):  # panels above may still be on their way
        if now["place"] == before and now["hovered"]:
            break
        before = now["place"]
        figure.locator(".nsewdrag").last.scroll_into_view_if_needed(timeout=READY)
        page.wait_for_timeout(700)
        x, y = figure.evaluate(CELL)["place"]
        page.mouse.move(x + 1, y)
        page.mouse.move(x, y)
        page.wait_for_timeout(300)
        now = figure.evaluate(CELL)
    page.mouse.down()
    page.mouse.up()


@pytest.mark.parametrize(("path", "plot", "moved"), CELLS, ids=[plot for _, plot, _ in CELLS])
def test_a_click_on_a_cell_moves_everything(
    page: Page, address: str, example: str, path: str, plot: str, moved: set[str]
) -> None:
    page.goto(f"{address}/{path}?run={example}&{START}")
    page.locator(".strip .token").first.wait_for(timeout=READY)
    if plot == "massive-entries-map":
        page.get_by_role("radio", name="map", exact=True).or_(
            page.get_by_role("button", name="map", exact=True)
        ).click()
    page.locator(f".st-key-plot-{plot} .nsewdrag").first.wait_for(timeout=READY)
    before = selection(page)
    click_cell(page, plot)
    page.wait_for_function("before => location.href != before", arg=page.url)
    after = selection(page)
    assert {key for key in after if after[key] != before.get(key)} == moved
    expect(page.get_by_text(f"Point {after['point']} of 30 · token {after['pos']} ")).to_be_visible(timeout=READY)
    expect(page.locator(".strip .token.selected")).to_have_count(1)
    expect(page.locator(".strip .token").nth(int(after["pos"]))).to_have_class(re.compile(r"\bselected\b"))
    page.reload()
    page.locator(".strip .token.selected").wait_for(timeout=READY)
    assert selection(page) == after, "a reload keeps it"
