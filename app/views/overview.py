"""The Overview: all signals of one run on one axis of points, its events, and the selected token."""

import json

import pandas as pd
import streamlit as st

from app.components.explore import View, explore
from app.components.panel import show
from app.components.tries import tries
from app.figures.overview import event_points
from app.panels.overview import events_of
from app.state import select
from app.text import markdown, number

__all__ = ["page"]


def page() -> None:
    """Draw the page."""
    explore("Overview", "What happens to this text, layer by layer?", panels)


def panels(view: View) -> None:
    """Events as buttons, then the one aligned figure, then what may be tried."""
    _events(events_of(view))
    show(view, "overview-layers")
    tries(view)


def _events(events: pd.DataFrame) -> None:
    if events.empty:
        st.caption("Events: none of the rules found anything in this run.")
        return
    with st.container(horizontal=True, gap="xsmall", key="events"):
        for count, point in event_points(events):
            event = events.iloc[count - 1]
            st.button(
                f"{count} · point {point} · {markdown(event['text'])}",
                key=f"event-{count}",
                on_click=select,
                kwargs=_place(point, event["evidence"]),
                help=f"Jump there. Evidence: {markdown(_said(event['evidence']))}.",
            )
    silent = events.loc[events["layer"].isna(), "text"]
    if len(silent):
        st.caption("Rules that found nothing: " + "; ".join(markdown(text) for text in silent) + ".")


def _said(evidence: str) -> str:
    """Evidence in words: ``block 1, size 0.92``."""
    named = json.loads(evidence)
    if not isinstance(named, dict):
        return _one(named)
    return ", ".join(f"{name.replace('_', ' ')} {_one(value)}" for name, value in named.items())


def _one(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_one(part)}" for name, part in value.items())
    if isinstance(value, list):
        return " and ".join(map(_one, value)) or "none"
    return number(value) if isinstance(value, float) else "none" if value is None else str(value)


def _place(point: int, evidence: str) -> dict[str, int]:
    """Where an event is: its point, and the position, dimension and head its evidence names."""
    named = json.loads(evidence)
    return {"point": point} | {part: int(named[part]) for part in ("position", "dimension", "head") if part in named}
