"""Panels of sinks: heads by block, their share, attention received by token, likeness to position 0."""

import pandas as pd

from analysis.sinks import MIN_TOKENS, column_importance
from app.figures.sinks import bos_cosine_map, head_map, importance_bars, sink_share
from app.panels.panel import BLOCK_HEAD, CELL, POINT, POSITION, Drawn, Option, panel
from app.panels.reading import block_of
from app.view import Gap, View

__all__ = ["COSINES", "HEAD_METRICS", "LOST", "sink_heads"]

HEAD_METRICS = {
    "sink_score": "attention to position 0",
    "sink_ratio": "over uniform",
    "value_norm_ratio": "value norm",
    "attn_entropy": "entropy",
}
COSINES = {"raw": "raw", "centred": "mean removed", "nomassive": "three largest dimensions zeroed"}
LOST = "The attention sums of this run are no longer kept: run the text again to see this."


def sink_heads(view: View) -> pd.DataFrame:
    """The heads that are called sinks, the strongest first: ``block, head, a_0``; empty where none is."""
    flags, scores = (view.metric("head_metrics", name) for name in ("is_sink", "sink_score"))
    if flags.empty or scores.empty:
        return pd.DataFrame(columns=["block", "head", "a_0"])
    found = flags[flags["value"] == 1][["layer", "head"]].merge(
        scores[["layer", "head", "value"]], on=["layer", "head"]
    )
    found = found.rename(columns={"layer": "block", "value": "a_0"})
    return found.sort_values("a_0", ascending=False, ignore_index=True)


@panel(
    "sinks-heads",
    "sinks",
    "Heads by block",
    "Which heads give position 0 more than .3 of their attention (dotted)?",
    ("sinks", "Sink score by head"),
    options={"metric": Option(tuple(HEAD_METRICS), "sinks-metric")},
)
def heads(view: View, metric: str = "sink_score") -> Drawn:
    scores = view.metric("head_metrics", "sink_score")
    if scores.empty:
        raise Gap("This run did not ask for sinks.")
    if scores["value"].isna().all():
        raise Gap(f"Sink scores need at least {MIN_TOKENS} tokens; this text has {len(view.tokens)}.")
    metrics = view.table("head_metrics")
    flagged = bool(view.metric("head_metrics", "is_sink")["value"].notna().any())
    return Drawn(
        view.figure("sinks-heads", lambda: head_map(metrics, metric, dots=flagged), metric),
        note=None if flagged else "Below 32 tokens no head is called a sink: uniform attention alone scores high.",
        csv=metrics,
        place=BLOCK_HEAD,
    )


@panel(
    "sinks-share",
    "sinks",
    "Share of sink heads",
    "From which layer on are there sinks?",
    ("sinks", "Share of sink heads"),
)
def share(view: View) -> Drawn:
    layers = view.table("layer_metrics")
    rows = layers if layers.empty else layers[layers["metric"].str.startswith("sink_")]
    if rows.empty:
        raise Gap("This run did not ask for sinks.")
    return Drawn(view.figure("sinks-share", lambda: sink_share(rows, view.facts.n_layers)), csv=rows, place=POINT)


@panel(
    "sinks-tokens",
    "sinks",
    "Attention received by token",
    "Which keys draw more than uniform attention gives them?",
    ("sinks", "Attention received by token"),
    options={"log": Option(bool, "sinks-log")},
)
def tokens(view: View, log: bool = True) -> Drawn:
    sums = view.kept("attention.column_sum")
    if sums is None:
        raise Gap(LOST)
    importance = view.memo("importance", lambda: column_importance(sums, view.facts.windows))
    block, head = block_of(view), view.selection.head
    a = importance.a[block].mean(0) if head is None else importance.a[block, head]
    first, seen = view.sight()
    shown = slice(first, first + len(seen))
    uniform, queries = importance.uniform[block], importance.visible[block]
    figure = view.figure(
        "sinks-tokens",
        lambda: importance_bars(
            a[shown].numpy(), uniform[shown].numpy(), queries[shown].numpy(), seen, first=first, log=log
        ),
        *(block, head, first, log),
    )
    return Drawn(
        figure,
        f"Attention received by token, block {block}, {'mean over heads' if head is None else f'head {head}'}",
        csv=lambda: pd.DataFrame({"token": view.tokens, "a_k": a.numpy(), "uniform": uniform.numpy()}),
        place=POSITION,
    )


@panel(
    "sinks-cosine",
    "sinks",
    "Cosine to position 0",
    "Which tokens become like position 0, and from which layer on?",
    ("sinks", "Cosine to position 0"),
    options={"kind": Option(tuple(COSINES), "sinks-cosine-kind")},
)
def cosine(view: View, kind: str = "raw") -> Drawn:
    metric = f"bos_cosine_{kind}"
    rows = view.metric("token_metrics", metric)
    if rows.empty:
        raise Gap("This run did not ask for cosines to position 0.")
    first, seen = view.sight()
    figure = view.figure(
        "sinks-cosine",
        lambda: bos_cosine_map(rows, metric, seen, first=first, n_layers=view.facts.n_layers),
        *(metric, first),
    )
    return Drawn(figure, f"Cosine to position 0, {COSINES[kind]}", csv=rows, place=CELL)
