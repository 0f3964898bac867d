"""Sinks: which heads and tokens take attention, what the heads see besides, and how like position 0 tokens become."""

import pandas as pd
import streamlit as st

from analysis.sinks import MIN_TOKENS, MIN_TOKENS_IS_SINK, ColumnImportance, column_importance, token_sinks
from app.components.attention import GONE, pattern_panels, value_panel
from app.components.explore import View, explore
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import around, block_of, choice, kept
from app.figures.sinks import bos_cosine_map, head_map, importance_bars, sink_share
from app.methods import section
from app.state import select
from app.text import visible

__all__ = ["page"]

_TOKENS_SHOWN = 512
_HEAD_METRICS = {
    "sink_score": "attention to position 0",
    "sink_ratio": "over uniform",
    "value_norm_ratio": "value norm",
    "attn_entropy": "entropy",
}
_COSINES = {"raw": "raw", "centred": "mean removed", "nomassive": "three largest dimensions zeroed"}


def page() -> None:
    """Draw the page."""
    explore("Sinks", "Which tokens take attention without need, and in which heads?", panels, colour_by="sink_heads")


def panels(view: View) -> None:
    """Heads first, then tokens, then what the heads of the selected block look at and move."""
    scores = view.metric("head_metrics", "sink_score")
    if scores.empty:
        panel("sinks-heads", "Heads by block", "Which heads are sinks?", None, note="This run did not ask for sinks.")
        return
    if scores["value"].isna().all():
        note = f"Sink scores need at least {MIN_TOKENS} tokens; this text has {len(view.tokens)}."
        panel("sinks-heads", "Heads by block", "Which heads are sinks?", None, note=note)
        return
    left, right = st.columns(2)
    with left:
        _heads(view)
    with right:
        _share(view)
    _tokens(view)
    pattern_panels(view)
    value_panel(view)
    _cosines(view)


def _heads(view: View) -> None:
    metric = choice("Number", _HEAD_METRICS, "sinks-metric")
    metrics = view.table("head_metrics")
    flagged = view.metric("head_metrics", "is_sink")["value"].notna().any()
    panel(
        "sinks-heads",
        "Heads by block",
        "Which heads give position 0 more than .3 of their attention (outlined)?",
        view.figure("sinks-heads", lambda: head_map(metrics, metric, outline=bool(flagged)), metric),
        how=section("sinks", "Sink score by head"),
        note=None if flagged else "Below 32 tokens no head is called a sink: uniform attention alone scores high.",
        csv=metrics,
        on_click=_go_head,
        x=view.selection.head,
        y=view.selection.point - 1 if view.selection.point else None,
    )


def _share(view: View) -> None:
    layers = view.table("layer_metrics")
    rows = layers[layers["metric"].str.startswith("sink_")]
    panel(
        "sinks-share",
        "Share of sink heads",
        "From which layer on are there sinks?",
        view.figure("sinks-share", lambda: sink_share(rows, view.facts.n_layers)),
        how=section("sinks", "Share of sink heads"),
        csv=rows,
        on_click=_go_point,
        x=view.selection.point,
    )


def _tokens(view: View) -> None:
    title, question = "Attention received by token", "Which keys draw more than uniform attention gives them?"
    sums = kept(view, "attention.column_sum")
    if sums is None:
        panel("sinks-tokens", title, question, None, note=GONE)
        return
    importance = view.memo("importance", lambda: column_importance(sums, view.facts.windows))
    block, head = block_of(view), view.selection.head
    a = importance.a[block].mean(0) if head is None else importance.a[block, head]
    first, tokens = around(view, _TOKENS_SHOWN)
    shown = slice(first, first + len(tokens))
    uniform, visible_queries = importance.uniform[block], importance.visible[block]
    log = st.toggle("log scale", value=True, key="sinks-log")
    panel(
        "sinks-tokens",
        f"{title}, block {block}, {'mean over heads' if head is None else f'head {head}'}",
        question,
        view.figure(
            "sinks-tokens",
            lambda: importance_bars(
                a[shown].numpy(), uniform[shown].numpy(), visible_queries[shown].numpy(), tokens, first=first, log=log
            ),
            *(block, head, first, log),
        ),
        how=section("sinks", "Attention received by token"),
        csv=lambda: pd.DataFrame({"token": view.tokens, "a_k": a.numpy(), "uniform": uniform.numpy()}),
        on_click=_go_position,
        x=view.selection.position,
    )
    _sink_list(view, importance)


def _sink_list(view: View, importance: ColumnImportance) -> None:
    special = kept(view, "special")
    if special is None:
        return
    if len(view.tokens) < MIN_TOKENS_IS_SINK:
        st.caption(f"No key is called a sink below {MIN_TOKENS_IS_SINK} tokens: uniform attention alone comes near .3.")
        return
    found = token_sinks(importance, view.tokens, special.bool())
    if found.empty:
        st.caption("No key draws more than .3 of the attention in a tenth of the heads of any block.")
        return
    cosines = view.metric("token_metrics", "bos_cosine_centred")
    here = cosines[cosines["layer"] == view.selection.point].set_index("pos")["value"]
    table = found.assign(token=found["token"].map(visible), cosine=found["pos"].map(here))

    def go() -> None:
        rows = st.session_state["sinks-list"].selection.rows
        if rows:
            select(position=int(table["pos"].iloc[rows[0]]))

    st.caption(
        "Keys above .3 in at least a tenth of the heads of one block. Cosine: to position 0, mean removed, at point "
        f"{view.selection.point}. A row selects its token."
    )
    st.dataframe(table.round(4), hide_index=True, key="sinks-list", on_select=go, selection_mode="single-row")


def _cosines(view: View) -> None:
    kind = choice("Cosine", _COSINES, "sinks-cosine-kind")
    metric = f"bos_cosine_{kind}"
    rows = view.metric("token_metrics", metric)
    first, tokens = around(view, _TOKENS_SHOWN)
    panel(
        "sinks-cosine",
        f"Cosine to position 0, {_COSINES[kind]}",
        "Which tokens become like position 0, and from which layer on?",
        view.figure(
            "sinks-cosine",
            lambda: bos_cosine_map(rows, metric, tokens, first=first, n_layers=view.facts.n_layers),
            *(metric, first),
        ),
        how=section("sinks", "Cosine to position 0"),
        csv=rows,
        on_click=_go_cell,
        x=view.selection.position,
        y=view.selection.point,
    )


def _go_head(click: PlotClick) -> None:
    select(point=round(float(click.y)) + 1, head=round(float(click.x)))


def _go_point(click: PlotClick) -> None:
    select(point=round(float(click.x)))


def _go_position(click: PlotClick) -> None:
    select(position=round(float(click.x)))


def _go_cell(click: PlotClick) -> None:
    select(point=round(float(click.y)), position=round(float(click.x)))
