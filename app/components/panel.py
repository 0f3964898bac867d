"""The frame around every plot: title, question, plot, how to read it, and what can be made of it.

One component stands in each frame. It listens to the plot (Streamlit's own selections say nothing about heatmaps: its
issues 8760 and 8933), draws cursor, pins and ranges over it, and holds the buttons.
"""

import base64
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from app.components.actions import FORMATS, Shown, act
from app.components.opening import REVEAL
from app.panels import registry
from app.panels.panel import Click, Place
from app.selection import COLOURS, Selection
from app.state import current, pins, toggle
from app.view import View

__all__ = ["frame", "show"]

_HERE = Path(__file__).parent
_component = st.components.v2.component(
    "eigenscope.panel",
    html='<div class="root"></div>',
    css=(_HERE / "panel.css").read_text(encoding="utf-8"),
    js=(_HERE / "panel.js").read_text(encoding="utf-8"),
)
_SAME_CLICK = 100  # milliseconds
_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["toImage", "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
}


def show(
    view: View,
    key: str,
    *,
    at: str | None = None,
    on_click: Callable[[Click], None] | None = None,
    title: str | None = None,
    question: str | None = None,
    **params: Any,
) -> None:
    """Draw a panel of :mod:`app.panels.registry` inside the page's fragment, with its options.

    ``at`` names this place where a page shows a panel more than once; ``on_click`` stands in for its own picking.
    """
    found = registry.panel(key)
    drawn = found.draw(view, params)
    shown = Shown(at or key, drawn, found.how_to_read, view, found, params)
    frame(shown, on_click=on_click, title=title, question=question)


def frame(
    shown: Shown,
    *,
    on_click: Callable[[Click], None] | None = None,
    title: str | None = None,
    question: str | None = None,
) -> None:
    """Draw what is shown in its frame. ``on_click`` stands in for what the figure itself would select."""
    key, drawn = shown.key, shown.drawn
    with st.container(key=f"panel-{key}", gap="xxsmall"):
        with st.container(horizontal=True, vertical_alignment="top", horizontal_alignment="distribute", gap="small"):
            asked = drawn.question if question is None else question
            st.markdown(f"**{title or drawn.title}** :small[:gray[{asked}]]")
            _tools(shown, on_click)
        if drawn.note:
            st.caption(drawn.note)
        if drawn.aside and shown.fixed:
            st.caption(drawn.aside)
        if drawn.fig is not None:
            with st.container(key=f"plot-{key}"):
                st.plotly_chart(drawn.fig, key=f"chart-{key}", config=_CONFIG)
        if shown.how:
            with st.expander("How to read it / when not to trust it"):
                st.markdown(shown.how)


def _answered(name: str, at: object) -> bool:
    """Whether this very click was heard before: a run that is broken off hands its clicks on to the next, and a click on
    what is selected would release it."""
    if not isinstance(at, int | float):
        return False
    last = st.session_state.get(f"_heard-{name}", -math.inf)
    st.session_state[f"_heard-{name}"] = at
    return bool(abs(at - last) < _SAME_CLICK)


def _tools(shown: Shown, on_click: Callable[[Click], None] | None) -> None:
    key, drawn = shown.key, shown.drawn
    name = f"tools-{key}"

    def clicked() -> None:
        point = st.session_state[name].clicked
        if not isinstance(point, dict) or _answered(name, point.get("at")):
            return
        click = Click(point.get("x"), point.get("y"), point.get("customdata"), int(point.get("curve") or 0))
        if on_click is not None:
            on_click(click)
        elif chosen := drawn.picked(click):
            toggle(**chosen)

    def asked() -> None:
        wanted = st.session_state[name].asked
        if isinstance(wanted, dict):
            act(shown, str(wanted.get("do")))

    data = {
        "target": f"plot-{key}",
        "label": key,
        "buttons": _buttons(shown),
        "download": _download(key),
        "reveal": st.session_state.get(REVEAL) == key and bool(st.session_state.pop(REVEAL)),
        "address": shown.address(),
        **_marks(shown, on_click is not None or drawn.clickable),
    }
    _component(key=name, data=data, on_clicked_change=clicked, on_asked_change=asked)


def _buttons(shown: Shown) -> list[str]:
    drawn = shown.drawn
    figure = [*FORMATS] if drawn.fig is not None else []
    table = ["csv"] if drawn.csv is not None else []
    more = ["code", "add"] if shown.panel is not None and drawn.fig is not None else []
    more += ["add"] if shown.panel is None and shown.add is not None else []
    link = ["link"] if shown.panel is not None else []
    return [*figure, *table, *link, *more, *(["full"] if drawn.fig is not None else [])]


def _marks(shown: Shown, clickable: bool) -> dict[str, Any]:
    """Where selection, pins and range stand in the figure, and what its axes are for hovering across panels."""
    place = shown.drawn.place
    clickable = clickable and not shown.fixed
    if shown.drawn.fig is None or place is None:
        return {"clickable": clickable, "marks": []}
    chosen = current() if shown.view is None else shown.view.selection
    pinned = () if shown.fixed else pins()
    marks = [_mark(place.at(chosen), None), *(_mark(place.at(pin.selection), COLOURS[pin.colour]) for pin in pinned)]
    axes: Mapping[str, Any] = {}
    if isinstance(place, Place) and not shown.fixed:
        axes = {"x": place.x, "y": place.y, "rows": None if place.rows is None else list(place.rows)}
    return {
        "clickable": clickable,
        "marks": [mark for mark in marks if mark["x"] is not None or mark["y"] is not None],
        "axes": axes,
        "span": _span(chosen, place),
    }


def _mark(at: tuple[float | None, float | None], colour: str | None) -> dict[str, Any]:
    return {"x": at[0], "y": at[1], "colour": colour}


def _span(chosen: Selection, place: Any) -> list[int] | None:
    along = isinstance(place, Place) and place.x == "position"
    return list(chosen.span) if along and chosen.span is not None else None


def _download(key: str) -> dict[str, Any] | None:
    """A file that was asked for, once."""
    made = st.session_state.pop(f"_made-{key}", None)
    if made is None:
        return None
    name, mime, content, number = made
    return {"id": number, "name": name, "mime": mime, "data": base64.b64encode(content).decode("ascii")}
