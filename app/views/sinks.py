"""Sinks: which heads and tokens take attention, what the heads see besides, and how like position 0 tokens become."""

import streamlit as st

from analysis.sinks import MIN_TOKENS_IS_SINK, column_importance, token_sinks
from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.reading import choice
from app.panels.attention import pattern_call
from app.panels.reading import block_of
from app.panels.sinks import COSINES, HEAD_METRICS, sink_heads
from app.state import select
from app.text import visible

__all__ = ["page"]

_BY_ITSELF = 1024  # tokens up to which a block's pattern is computed without being asked for


def page() -> None:
    """Draw the page."""
    explore("Sinks", "Which tokens take attention without need, and in which heads?", panels, colour_by="sink_heads")


def panels(view: View) -> None:
    """Heads first, then tokens, then what the heads of the selected block look at and move."""
    scores = view.metric("head_metrics", "sink_score")
    if scores.empty or scores["value"].isna().all():
        show(view, "sinks-heads")
        return
    left, right = st.columns(2)
    with left:
        show(view, "sinks-heads", metric=choice("Number", HEAD_METRICS, "sinks-metric"))
        _heads(view)
    with right:
        show(view, "sinks-share")
    show(view, "sinks-tokens", log=st.toggle("log scale", value=True, key="sinks-log"))
    _sink_list(view)
    _patterns(view)
    show(
        view,
        "sinks-values",
        first=st.toggle("rank position 0 first: VATP keeps it whatever its score", key="sinks-keep"),
    )
    show(view, "sinks-cosine", kind=choice("Cosine", COSINES, "sinks-cosine-kind"))


def _heads(view: View) -> None:
    """The sink heads as a list; a row selects its head. The CSV of the panel above holds every head."""
    table = view.memo("sink heads", lambda: sink_heads(view))
    if table.empty:
        return

    def go() -> None:
        rows = st.session_state["sinks-heads-list"].selection.rows
        if rows:
            select(head=int(table["head"].iloc[rows[0]]), point=int(table["block"].iloc[rows[0]]) + 1)

    with st.expander(f"The {len(table):,} sink heads" if len(table) > 1 else "The sink head"):
        st.dataframe(
            table.round(4), hide_index=True, key="sinks-heads-list", on_select=go, selection_mode="single-row",
            height=min(300, 38 + 35 * len(table)),
        )  # fmt: skip


def _patterns(view: View) -> None:
    """All heads of the block as thumbnails, then one head large."""
    with st.container(horizontal=True):
        log = st.toggle("log colours", value=True, key="sinks-pattern-log")
        hide = st.toggle("hide column 0", key="sinks-pattern-hide")
    by_itself = view.loaded and len(view.tokens) <= _BY_ITSELF
    label = f"Compute the attention of block {block_of(view)}"
    if extra(view, pattern_call(view), label=label, auto=by_itself) is None:
        return
    show(view, "sinks-all-heads", log=log, hide=hide)
    show(view, "sinks-attention", log=log, hide=hide)


def _sink_list(view: View) -> None:
    special, sums = view.kept("special"), view.kept("attention.column_sum")
    if special is None or sums is None:
        return
    if len(view.tokens) < MIN_TOKENS_IS_SINK:
        st.caption(f"No key is called a sink below {MIN_TOKENS_IS_SINK} tokens: uniform attention alone comes near .3.")
        return
    importance = view.memo("importance", lambda: column_importance(sums, view.facts.windows))
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
