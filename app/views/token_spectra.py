"""Token spectra: alpha of the latest tokens along the text, how alike layers move, and whether they jump at boundaries."""

from typing import Any

import streamlit as st

from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.reading import choice
from app.panels.token_spectra import OVER, ROWS, cascade_call, windows_call
from probes.respond import response_start
from probes.token_spectra import PAPER_WINDOW, WINDOW, WINDOWS

__all__ = ["page"]

_WIDTH = "windows-w"
_BY_ITSELF = 400  # tokens up to which maps and cascade are computed without being asked for


def page() -> None:
    """Draw the page."""
    explore("Token spectra", "How does the spectrum of the latest tokens change along the text?", panels)


def panels(view: View) -> None:
    """Both maps, then the cascade beside its matrix, then jumps at boundaries."""
    if len(view.tokens) <= WINDOWS[0]:
        st.caption(f"The text has {len(view.tokens)} tokens: a window of {WINDOWS[0]} needs more.")
        return
    window, rows = _windows(len(view.tokens))
    short = view.loaded and len(view.tokens) <= _BY_ITSELF
    chosen: dict[str, Any] = {"window": window, "rows": rows}
    label = f"Compute alpha of every window of {window} tokens"
    if extra(view, windows_call(window, rows), label=label, auto=short) is None:
        return
    show(view, "windows-alpha", **chosen)
    show(view, "windows-step", **chosen)
    over = choice("Over", OVER, "windows-over") if response_start(view.info.request) is not None else "text"
    read = extra(view, cascade_call(view, window, rows, over), label="Compute the cascade and its nulls", auto=short)
    left, right = st.columns(2)
    if read is not None:
        with left:
            show(view, "windows-cascade", **chosen, over=over)
        with right:
            show(view, "windows-matrix", **chosen, over=over)
    show(view, "windows-boundaries", **chosen)


def _windows(n_tokens: int) -> tuple[int, str]:
    """The chosen window and rows; a window never outgrows the text."""
    last = min(WINDOWS[1], n_tokens)
    st.session_state[_WIDTH] = min(max(st.session_state.get(_WIDTH, WINDOW), WINDOWS[0]), last)
    with st.container(horizontal=True, vertical_alignment="bottom", key="windows-settings"):
        window = st.slider("Tokens in a window", WINDOWS[0], last, key=_WIDTH, width=320)
        st.button(
            f"{PAPER_WINDOW}, as in the paper", on_click=_paper, key="windows-paper", disabled=last < PAPER_WINDOW
        )
        rows = choice("Rows", ROWS, "windows-rows")
    return int(window), rows


def _paper() -> None:
    st.session_state[_WIDTH] = PAPER_WINDOW
