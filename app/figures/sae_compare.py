"""Two SAEs side by side, and letters in one: how well latents match, what they write, how they split, what is absorbed."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from app.figures.theme import CATEGORICAL, NULL_GREY, base

__all__ = ["children_bars", "geometry_dots", "letter_bars", "match_histogram"]

_STEP = 0.05


def match_histogram(r: NDArray[np.float64], kept: NDArray[np.bool_]) -> go.Figure:
    """Latents of B by the correlation with their best match in A, those whose decoder rows are compared apart."""
    first = np.floor(r.min(initial=0.0) / _STEP) * _STEP
    edges = np.arange(first, 1 + _STEP / 2, _STEP)
    fig = go.Figure()
    for mask, name, colour in ((kept, "compared", CATEGORICAL[0]), (~kept, "not compared", NULL_GREY)):
        counts, _ = np.histogram(np.clip(r[mask], first, 1 - 1e-9), edges)
        fig.add_bar(
            x=edges[:-1] + _STEP / 2,
            y=counts.astype("int32"),
            width=0.9 * _STEP,
            name=name,
            customdata=np.stack([edges[:-1], edges[1:]], axis=1).astype("float32"),
            marker={"color": colour},
            hovertemplate="r %{customdata[0]:.2f} to %{customdata[1]:.2f}<br>%{y:,} latents<extra>" + name + "</extra>",
        )
    base(fig, height=250, x="correlation with the best match, r", y="latents of B")
    return fig.update_layout(barmode="stack")


def geometry_dots(scores: pd.DataFrame) -> go.Figure:
    """Scores of matched decoder rows beside the mean of shuffled pairs: rows ``score, value, shuffled, p``.

    What is undefined leaves its row empty.
    """
    rows = np.arange(len(scores))
    fig = go.Figure()
    for column, name, symbol, colour in (
        ("value", "matched", "circle", CATEGORICAL[0]),
        ("shuffled", "shuffled, mean of 100", "circle-open", NULL_GREY),
    ):
        fig.add_scatter(
            x=scores[column].to_numpy(dtype=float), y=rows, mode="markers", name=name,
            marker={"color": colour, "size": 11, "symbol": symbol}, customdata=scores["p"].to_numpy(dtype=float),
            hovertemplate="%{x:.3f}<br>p = %{customdata:.3f}<extra>" + name + "</extra>",
        )  # fmt: skip
    base(fig, height=170, x="likeness of decoder rows")
    lowest = np.nanmin(scores[["value", "shuffled"]].to_numpy(dtype=float), initial=0.0)
    fig.update_xaxes(range=[lowest - 0.05, 1.05])
    ticks = {"tickvals": rows.tolist(), "ticktext": scores["score"].tolist()}
    return fig.update_yaxes(**ticks, range=[len(scores) - 0.5, -0.5])


def children_bars(children: pd.DataFrame) -> go.Figure:
    """Latents of the narrower SAE by how many children they have in the wider, from one on."""
    counts = children.groupby("latent").size().value_counts().sort_index()
    fig = go.Figure(
        go.Bar(
            x=counts.index.to_numpy(dtype=int), y=counts.to_numpy(dtype=int), width=0.9, marker={"color": CATEGORICAL[0]},
            hovertemplate="%{y:,} latents with %{x} children<extra></extra>",
        )
    )  # fmt: skip
    base(fig, height=220, x="children in the wider SAE", y="latents of the narrower", legend=False)
    last = max(int(counts.index.max()), 5)
    return fig.update_xaxes(tick0=1, dtick=max(1, last // 12), range=[0.4, last + 0.6])


def letter_bars(letters: pd.DataFrame, least: float) -> go.Figure:
    """By letter, how well a probe reads it and, where that was measured, the share of its words that are absorbed.

    ``letters`` have ``letter, probe_f1, rate``; ``least`` is the mean F1 from which on rates are measured.
    """
    fig = go.Figure()
    names = letters["letter"].tolist()
    for column, name, colour in (
        ("probe_f1", "F1 of the probe", CATEGORICAL[0]),
        ("rate", "absorbed", CATEGORICAL[1]),
    ):
        values = letters[column].to_numpy(dtype=float)
        if np.isfinite(values).any():
            fig.add_bar(
                x=names, y=values, name=name, marker={"color": colour},
                hovertemplate="%{x}: %{y:.3f}<extra>" + name + "</extra>",
            )  # fmt: skip
    base(fig, height=230, x="first letter of the word")
    fig.add_hline(y=least, line={"color": NULL_GREY, "width": 1, "dash": "dot"})
    fig.update_xaxes(type="category", dtick=1)
    return fig.update_yaxes(range=[0, 1.02])
