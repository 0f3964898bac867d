"""Massive activations: how large, where, from when to when, written by what; and the dimensions that are always large."""

import streamlit as st

from app.components.explore import View, explore
from app.components.panel import show
from app.components.reading import choice
from app.figures.massive import entry_table
from app.panels.massive import CRITERIA, DRAWINGS, spans
from app.state import select
from app.text import visible

__all__ = ["page"]


def page() -> None:
    """Draw the page."""
    explore("Massive activations", "Which single activations dwarf all others, and who writes them?", panels)


def panels(view: View) -> None:
    """Size by point, the entries and their lives, their writers, rogue dimensions, and one point whole."""
    show(view, "massive-top")
    if not view.has("massive"):
        return
    criterion = choice("Criterion", CRITERIA, "massive-criterion")
    if spans(view, criterion).empty:
        st.caption(f"No entry is massive by the {criterion} criterion in this run.")
    else:
        _entries(view, criterion)
        show(view, "massive-lives", criterion=criterion)
    show(view, "massive-writers")
    show(view, "massive-rogue")
    show(view, "massive-entries-map", drawing=choice("Drawing", DRAWINGS, "massive-drawing"))


def _entries(view: View, criterion: str) -> None:
    table = entry_table(view.table("massive"), view.tokens, criterion)
    shown = table.assign(token=table["token"].map(visible))

    def go() -> None:
        rows = st.session_state["massive-entries"].selection.rows
        if rows:
            row = table.iloc[rows[0]]
            select(position=int(row["pos"]), dimension=int(row["dim"]), point=int(row["first_point"]))

    st.caption(f"Entries that are massive ({criterion}) at some point. A row selects token, dimension and first point.")
    st.dataframe(shown.round(1), hide_index=True, key="massive-entries", on_select=go, selection_mode="single-row")
