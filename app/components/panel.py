"""The frame around every plot: title, question, plot, how to read it, CSV."""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app.components.plot_clicks import PlotClick, plot_clicks
from app.text import csv_bytes

__all__ = ["panel"]

_KEY = re.compile(r"[a-z][a-z0-9-]*")
_BUTTONS_OFF = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]


def panel(
    key: str,
    title: str,
    question: str,
    fig: go.Figure | None,
    *,
    how: str | None = None,
    note: str | None = None,
    csv: pd.DataFrame | Callable[[], pd.DataFrame] | None = None,
    on_click: Callable[[PlotClick], None] | None = None,
    x: float | None = None,
    y: float | None = None,
) -> None:
    """Draw one panel inside the page's fragment.

    ``key`` is lower-case letters, digits and hyphens, unique in the app; it names the CSV and picture files too.
    ``fig`` None draws the frame with ``note`` alone: a gap with its reason. ``how`` fills "How to read it / when not to
    trust it". ``title``, ``question``, ``how`` and ``note`` are Markdown: text of models goes through
    ``app.text.markdown``. ``x`` and ``y`` place the cursor (data coordinates). ``csv`` may be a function, called only
    on download. Raises ValueError for a key that is not of that form.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"a panel's key must be lower-case letters, digits and hyphens, not {key!r}")
    with st.container(key=f"panel-{key}", gap="xxsmall"):
        st.markdown(f"**{title}** :small[:gray[{question}]]")
        if note:
            st.caption(note)
        if fig is not None:
            with st.container(key=f"plot-{key}"):
                st.plotly_chart(fig, key=f"chart-{key}", config=_config(key))
            if on_click is not None or x is not None or y is not None:
                plot_clicks(f"plot-{key}", on_click, x=x, y=y)
        if how or csv is not None:
            _foot(key, how, csv)


def _foot(key: str, how: str | None, csv: pd.DataFrame | Callable[[], pd.DataFrame] | None) -> None:
    with st.container(horizontal=True, gap="small", vertical_alignment="top", key=f"foot-{key}"):
        if how:
            with st.expander("How to read it / when not to trust it"):
                st.markdown(how)
        if csv is not None:

            def table() -> bytes:
                return csv_bytes(csv() if callable(csv) else csv)

            st.download_button(
                "CSV", table, f"{key}.csv", "text/csv", key=f"csv-{key}", type="tertiary", on_click="ignore"
            )


def _config(key: str) -> dict[str, Any]:
    return {
        "displaylogo": False,
        "modeBarButtonsToRemove": _BUTTONS_OFF,
        "toImageButtonOptions": {"format": "png", "scale": 2, "filename": key},
    }
