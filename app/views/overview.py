"""The Overview: all signals of one run on one axis of points, its events, and the selected token."""

import json

import pandas as pd
import streamlit as st

from app.components.explore import View, explore
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.tries import tries
from app.figures.overview import event_points, overview
from app.methods import section
from app.state import select
from app.text import markdown

__all__ = ["page"]


def page() -> None:
    """Draw the page."""
    explore("Overview", "What happens to this text, layer by layer?", panels)


def panels(view: View) -> None:
    """Events as buttons, then the one aligned figure, then what may be tried."""
    events = view.table("events")
    _events(events)
    layers, massive = view.table("layer_metrics"), view.table("massive")
    figure = view.figure(
        "overview",
        lambda: overview(
            n_layers=view.facts.n_layers,
            massive=massive,
            layers=layers,
            events=events,
        ),
    )
    panel(
        "overview-layers",
        f"Layers 0 to {view.facts.n_layers}",
        "Where along the model does each signal change, and do they change together?",
        figure,
        how=section("overview", "Layers on one axis"),
        csv=layers,
        on_click=_go,
        x=view.selection.point,
    )
    tries(view)


def _events(events: pd.DataFrame) -> None:
    if events.empty:
        st.caption("Events: none of the rules found anything in this run.")
        return
    with st.container(horizontal=True, gap="xsmall", key="events"):
        for number, point in event_points(events):
            event = events.iloc[number - 1]
            st.button(
                f"{number} · point {point} · {markdown(event['text'])}",
                key=f"event-{number}",
                on_click=select,
                kwargs=_place(point, event["evidence"]),
                help=f"Jump there. Evidence: {markdown(event['evidence'])}",
            )
    silent = events.loc[events["layer"].isna(), "text"]
    if len(silent):
        st.caption("Rules that found nothing: " + "; ".join(markdown(text) for text in silent) + ".")


def _place(point: int, evidence: str) -> dict[str, int]:
    """Where an event is: its point, and the position, dimension and head its evidence names."""
    named = json.loads(evidence)
    return {"point": point} | {part: int(named[part]) for part in ("position", "dimension", "head") if part in named}


def _go(click: PlotClick) -> None:
    select(point=round(float(click.x)))
