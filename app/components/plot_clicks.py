"""Clicks on any plot, and the cursor over it.

Streamlit's own selections say nothing about heatmaps (streamlit issues 8760 and 8933), and redraw the figure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

__all__ = ["PlotClick", "plot_clicks"]

_clicks = st.components.v2.component(
    "eigenscope.plot_clicks",
    html='<span class="root"></span>',
    js=(Path(__file__).parent / "plot_clicks.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, slots=True)
class PlotClick:
    """What was clicked: data coordinates, the ``customdata`` of the point or cell, and the number of its trace."""

    x: Any
    y: Any
    customdata: Any
    curve: int


def plot_clicks(
    target: str,
    on_click: Callable[[PlotClick], None] | None = None,
    *,
    x: float | None = None,
    y: float | None = None,
) -> None:
    """Listen to the plot inside ``st.container(key=target)`` and draw a cursor at ``x`` and ``y`` over its subplots.

    ``on_click`` runs before the fragment is drawn again. The cursor is drawn in the browser: the figure stays as it is.
    """
    key = f"{target}-clicks"

    def clicked() -> None:
        point = st.session_state[key].clicked
        if on_click is not None and isinstance(point, dict):
            on_click(PlotClick(point.get("x"), point.get("y"), point.get("customdata"), int(point.get("curve") or 0)))

    _clicks(key=key, data={"target": target, "cursor": {"x": x, "y": y}}, on_clicked_change=clicked)
