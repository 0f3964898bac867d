"""Massive activations: how large, where, from when to when, written by what; and the dimensions that are always large."""

import numpy as np
import pandas as pd
import streamlit as st

from analysis.massive import life_spans
from app.components.explore import View, explore
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import around, choice, kept
from app.figures.magnitudes import magnitude_map, magnitude_surface, map_dimensions
from app.figures.massive import entry_table, life_lines, origin_bars, rogue_map, top_values
from app.methods import section
from app.state import select
from app.text import markdown, visible

__all__ = ["page"]

_TOKENS_SHOWN = 256
_SURFACE_TOKENS = 128
_CRITERIA = {"strict": "strict", "relative": "relative", "robust": "robust"}
_DRAWINGS = {"surface": "surface", "log surface": "log surface", "map": "map"}
_GONE = "This tensor is no longer kept: run the text again to see it."


def page() -> None:
    """Draw the page."""
    explore("Massive activations", "Which single activations dwarf all others, and who writes them?", panels)


def panels(view: View) -> None:
    """Size by point, the entries and their lives, their writers, rogue dimensions, and one point whole."""
    massive = view.table("massive")
    if massive.empty:
        title, question = "Largest entries by point", "How large is the largest entry?"
        panel("massive-top", title, question, None, note="This run did not ask for massive activations.")
        return
    _top(view, massive)
    criterion = choice("Criterion", _CRITERIA, "massive-criterion")
    spans = life_spans(massive, view.facts.n_layers + 1, criterion)
    if spans.empty:
        st.caption(f"No entry is massive by the {criterion} criterion in this run.")
    else:
        _entries(view, massive, criterion)
        _lives(view, spans, criterion)
    _writers(view)
    _rogue(view)
    _magnitudes(view)


def _top(view: View, massive: pd.DataFrame) -> None:
    layers = view.table("layer_metrics")
    rows = layers[layers["metric"].str.startswith("massive_")]
    panel(
        "massive-top",
        "Largest entries by point",
        "How large is the largest entry, beside the median and beside tokens that are no sinks?",
        view.figure("massive-top", lambda: top_values(rows, massive, view.tokens, view.facts.n_layers)),
        how=section("massive", "Largest entries by point"),
        csv=massive,
        on_click=_go_point,
        x=view.selection.point,
    )


def _entries(view: View, massive: pd.DataFrame, criterion: str) -> None:
    table = entry_table(massive, view.tokens, criterion)
    shown = table.assign(token=table["token"].map(visible))

    def go() -> None:
        rows = st.session_state["massive-entries"].selection.rows
        if rows:
            row = table.iloc[rows[0]]
            select(position=int(row["pos"]), dimension=int(row["dim"]), point=int(row["first_point"]))

    st.caption(f"Entries that are massive ({criterion}) at some point. A row selects token, dimension and first point.")
    st.dataframe(shown.round(1), hide_index=True, key="massive-entries", on_select=go, selection_mode="single-row")


def _lives(view: View, spans: pd.DataFrame, criterion: str) -> None:
    panel(
        "massive-lives",
        f"Birth and death, {criterion}",
        "From which point to which is an entry massive?",
        view.figure("massive-lives", lambda: life_lines(spans, view.tokens, view.facts.n_layers), criterion),
        how=section("massive", "Birth, death and writers"),
        csv=spans,
        on_click=_go_life,
        x=view.selection.point,
    )


def _writers(view: View) -> None:
    title, question = "Writers", "Did attention or the MLP write it, and which neurons?"
    events, neurons = view.table("massive_events"), view.table("massive_neurons")
    if events.empty:
        panel("massive-writers", title, question, None, note="Nothing was born in this run, so nothing was written.")
        return
    event = _event(view, events)
    pos, dim = int(event["pos"]), int(event["dim"])
    where = f"position {pos} {markdown(visible(view.tokens[pos]))}, dimension {dim}"
    if int(event["birth"]) == 0:
        panel(
            "massive-writers",
            title,
            question,
            None,
            note=f"The entry at {where} is in the embeddings: no block wrote it.",
        )
        return
    block = int(event["birth"]) - 1
    mine = neurons[(neurons["pos"] == pos) & (neurons["dim"] == dim) & (neurons["layer"] == block)]
    panel(
        "massive-writers",
        f"{title} of the entry at {where}, born in block {block}",
        question,
        view.figure("massive-writers", lambda: origin_bars(event, mine), pos, dim, block),
        how=section("massive", "Birth, death and writers"),
        csv=mine,
    )


def _event(view: View, events: pd.DataFrame) -> pd.Series:
    """The birth at the selected position and dimension, in the selected dimension, or the largest of all."""
    chosen = view.selection
    by_size = events.assign(size=events[["attn_delta", "mlp_delta"]].abs().sum(axis=1))
    by_size = by_size.sort_values("size", ascending=False)
    same_dim = by_size[by_size["dim"] == chosen.dimension] if chosen.dimension is not None else by_size.iloc[:0]
    same_entry = same_dim[same_dim["pos"] == chosen.position]
    return next(rows.iloc[0] for rows in (same_entry, same_dim, by_size) if len(rows))


def _rogue(view: View) -> None:
    title, question = "Rogue dimensions", "Which dimensions are large at every token?"
    share, mean, sd = (kept(view, f"rogue_{name}") for name in ("share", "mean", "sd"))
    if share is None or mean is None or sd is None:
        panel("massive-rogue", title, question, None, note=_GONE)
        return
    if share.isnan().all():
        note = "Fewer than two tokens are no sinks, or the median is 0: shares cannot be given."
        panel("massive-rogue", title, question, None, note=note)
        return
    panel(
        "massive-rogue",
        title,
        question,
        view.figure("massive-rogue", lambda: rogue_map(share.numpy(), mean.numpy(), sd.numpy())),
        how=section("massive", "Rogue dimensions"),
        csv=lambda: pd.DataFrame(share.numpy()).rename_axis("point").reset_index(),
        on_click=_go_rogue,
        x=view.selection.point,
    )


def _magnitudes(view: View) -> None:
    point = view.selection.point
    title, question = f"All entries of point {point}", "Where do the large entries sit?"
    resid = kept(view, f"resid.{point}")
    if resid is None:
        panel("massive-entries-map", title, question, None, note=_GONE)
        return
    drawing = choice("Drawing", _DRAWINGS, "massive-drawing")
    first, tokens = around(view, _TOKENS_SHOWN if drawing == "map" else _SURFACE_TOKENS)
    H = resid[first : first + len(tokens)].numpy()
    flat = drawing == "map"
    dims = map_dimensions(H)

    def go(click: PlotClick) -> None:
        select(position=round(float(click.x)), dimension=int(dims[round(float(click.y))]))

    row = np.flatnonzero(dims == view.selection.dimension)
    panel(
        "massive-entries-map",
        title,
        question,
        view.figure(
            "massive-entries-map",
            lambda: (
                magnitude_map(H, tokens, first=first)
                if flat
                else magnitude_surface(H, first=first, log=drawing == "log surface")
            ),
            *(point, first, drawing),
        ),
        how=section("massive", "One point, entry by entry"),
        note=None if len(tokens) == len(view.tokens) else f"Positions {first} to {first + len(tokens) - 1}.",
        on_click=go if flat else None,
        x=view.selection.position if flat else None,
        y=float(row[0]) if flat and row.size else None,
    )


def _go_point(click: PlotClick) -> None:
    select(point=round(float(click.x)))


def _go_life(click: PlotClick) -> None:
    pos, dim = click.customdata
    select(point=round(float(click.x)), position=int(pos), dimension=int(dim))


def _go_rogue(click: PlotClick) -> None:
    select(point=round(float(click.x)), dimension=round(float(click.customdata[2])))
