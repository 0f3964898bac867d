"""The Data page as a person sees it: a query by keyboard, its table and its chart."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import READY

pytestmark = pytest.mark.browser


def test_a_query_gives_a_table_and_a_chart(page: Page, address: str, example: str) -> None:
    page.goto(f"{address}/data")
    sql = page.get_by_label("SQL: one SELECT")
    sql.wait_for(timeout=READY)
    sql.fill("SELECT layer, value FROM layer_metrics WHERE metric = 'alpha_sigma' AND run_id = '" + example + "'")
    sql.press("Control+Enter")
    expect(page.get_by_text("31 rows")).to_be_visible(timeout=READY)
    expect(page.locator(".stDataFrame canvas").first).to_be_visible()
    expect(page.locator(".js-plotly-plot .scatterlayer path.js-line")).to_have_count(1)
    assert "?" not in page.url
    sql.fill("DROP TABLE runs")
    sql.press("Control+Enter")
    expect(page.get_by_text("Only one SELECT can be run: DROP is another kind of statement.")).to_be_visible(
        timeout=READY
    )
    expect(page.locator(".js-plotly-plot")).to_have_count(0)
