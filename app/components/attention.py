"""What the heads of the selected block look at: patterns on demand, and attention against what values carry."""

import numpy as np
import pandas as pd
import streamlit as st

from analysis.values import key_ranks, value_weighted
from app.components.explore import extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import block_of, head_of, kept
from app.components.view import View
from app.figures.attention import attention_map, head_thumbnails
from app.figures.sinks import rank_scatter
from app.methods import section
from app.state import select
from app.text import markdown
from probes.pattern import pool_step
from probes.request import ProbeCall

__all__ = ["GONE", "pattern_panels", "value_panel"]

GONE = "The attention sums of this run are no longer kept: run the text again to see this."
_PATTERN_GONE = "This pattern was computed once and has been dropped to keep the store within its budget."
_BY_ITSELF = 1024  # tokens up to which a block's pattern is computed without being asked for


def pattern_panels(view: View) -> None:
    """All heads of the block as thumbnails, then one head large."""
    block, (head, why) = block_of(view), head_of(view)
    with st.container(horizontal=True):
        log = st.toggle("log colours", value=True, key="sinks-pattern-log")
        hide = st.toggle("hide column 0", key="sinks-pattern-hide")
    label = f"Compute the attention of block {block}"
    by_itself = view.loaded and len(view.tokens) <= _BY_ITSELF
    answer = extra(view, ProbeCall("pattern", {"block": block}), label=label, auto=by_itself)
    if answer is None:
        return
    try:
        pattern = answer.tensor("pattern").numpy()
    except KeyError:
        panel("sinks-all-heads", f"All heads of block {block}", "Which heads look alike?", None, note=_PATTERN_GONE)
        return
    step = pool_step(len(view.tokens))
    note = " ".join(markdown(told) for told in answer.info.notes) or None
    panel(
        "sinks-all-heads",
        f"All heads of block {block}",
        "Which heads look alike, and which only at position 0? A click opens a head.",
        view.figure(
            "sinks-all-heads", lambda: head_thumbnails(pattern, log=log, hide_first=hide, step=step), block, log, hide
        ),
        note=note,
        on_click=_go_thumbnail,
    )
    sums = kept(view, "attention.column_sum")
    title, question = f"Block {block}, head {head}{why}", "Which query attends to which key?"
    if sums is None:
        panel("sinks-attention", title, question, None, note=GONE)
        return
    received = sums[block, head].numpy()
    panel(
        "sinks-attention",
        title,
        question,
        view.figure(
            "sinks-attention",
            lambda: attention_map(pattern[head], received, view.tokens, log=log, hide_first=hide, step=step),
            *(block, head, log, hide),
        ),
        how=section("sinks", "Attention pattern"),
        note=note,
        on_click=_go_position,
        x=view.selection.position,
    )


def value_panel(view: View) -> None:
    """Rank of every key by attention and by VATP in one head."""
    title, question = "Attention and values", "Does the value of a key carry what its attention promises?"
    block, (head, why) = block_of(view), head_of(view)
    sums, norms, out = (kept(view, f"attention.{name}") for name in ("column_sum", "value_l1", "value_out"))
    if sums is None or norms is None or out is None:
        panel("sinks-values", title, question, None, note=GONE)
        return
    first = st.toggle("rank position 0 first: VATP keeps it whatever its score", key="sinks-keep")
    received = sums[block, head].double()
    keys = pd.DataFrame(
        {
            "pos": np.arange(len(received)),
            "attention_rank": key_ranks(received).numpy(),
            "vatp_rank": key_ranks(value_weighted(received, norms[block, head]), int(first)).numpy(),
            "value_l1": norms[block, head].numpy(),
            "effective": value_weighted(received, out[block, head]).numpy(),
        }
    )
    panel(
        "sinks-values",
        f"{title}, block {block}, head {head}{why}",
        question,
        view.figure("sinks-values", lambda: rank_scatter(keys, view.tokens, 1), block, head, first),
        how=section("sinks", "Values and VATP"),
        csv=keys,
        on_click=_go_dot,
    )


def _go_thumbnail(click: PlotClick) -> None:
    head, _, key = click.customdata
    select(head=int(head), position=int(key))


def _go_position(click: PlotClick) -> None:
    select(position=round(float(click.x)))


def _go_dot(click: PlotClick) -> None:
    if click.customdata:
        select(position=int(click.customdata[1]))
