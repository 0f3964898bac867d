"""Clicks on Streamlit's tables, which are drawn on a canvas: where a click lands can only be seen by what it does."""

from collections.abc import Callable

from playwright.sync_api import Locator, Page

__all__ = ["click_row"]

_HEADING, _ROW = 35, 35  # px
_TRIES, _LOOKS = 6, 80  # a click may fall while the table is being drawn anew, and is lost then


def click_row(page: Page, table: Locator, row: int, x: float, done: Callable[[], bool]) -> None:
    """Click row ``row`` (from 0) at ``x`` px from the left until ``done``; an AssertionError after six clicks of 20 s."""
    table.scroll_into_view_if_needed()
    for _ in range(_TRIES):
        box = table.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + x, box["y"] + _HEADING + _ROW * row + _ROW / 2)
        for _ in range(_LOOKS):
            page.wait_for_timeout(250)
            if done():
                return
    raise AssertionError(f"a click on row {row} did nothing")
