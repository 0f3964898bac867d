"""Direct logit attribution: which heads, MLPs and source tokens wrote the answer, and how the sum grows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from analysis.attribution import CANCELLATION_LIMIT, shares
from app.figures.theme import CATEGORICAL, DIVERGING, NULL_GREY, base, layer_axis, token_axis
from app.text import plot_label

__all__ = ["component_bars", "head_map", "source_bars", "summed_parts"]

_ATTENTION, _MLP, _SUM, _REST = CATEGORICAL[1], CATEGORICAL[0], CATEGORICAL[2], NULL_GREY


def summed_parts(components: pd.DataFrame) -> pd.DataFrame:
    """``components`` without the rows that split a head again, and each part's ``share`` of the total in per cent.

    The share is NaN where parts cancel: sum of |parts| at least 3 times |total|.
    """
    parts = components[components["source_pos"].isna()].copy()
    parts["share"] = [m.value for m in shares(torch.tensor(parts["value"].tolist(), dtype=torch.float64))]
    return parts


def head_map(components: pd.DataFrame, n_layers: int, n_heads: int) -> go.Figure:
    """What every head added to the logit (or to the difference of two), blue against it and red for it."""
    parts = summed_parts(components)
    heads = parts[parts["component"] == "head"]
    grid = np.full((2, n_layers, n_heads), np.nan)
    place = heads["layer"].to_numpy(dtype=int), heads["head"].to_numpy(dtype=int)
    grid[0][place], grid[1][place] = heads["value"].to_numpy(), heads["share"].to_numpy()
    span = float(np.nanmax(np.abs(grid[0]), initial=1e-9))
    fig = go.Figure(
        go.Heatmap(
            z=grid[0].astype("float32"),
            zmid=0,
            zmin=-span,
            zmax=span,
            customdata=_told(grid[1]),
            colorscale=DIVERGING,
            colorbar={"title": {"text": "logit"}},
            hoverongaps=False,
            hovertemplate="block %{y}, head %{x}<br>adds %{z:.4g} to the logit%{customdata}<extra></extra>",
        )
    )
    base(fig, height=max(260, 70 + 11 * n_layers), x="head", y="block", legend=False)
    layer_axis(fig, n_layers, axis="y", points=False)
    return fig.update_xaxes(tick0=0, dtick=1 if n_heads <= 16 else 4, range=[-0.5, n_heads - 0.5])


def component_bars(components: pd.DataFrame, n_layers: int) -> go.Figure:
    """Attention (all heads and its bias) and MLP of every block, the embeddings and the norm's bias, and their running sum.

    Block b stands at point b + 1 and the embeddings at point 0, as everywhere; the bias of the final norm and of the
    unembedding comes last, at L + 1. The last value of the running sum is the model's own number.
    """
    parts = summed_parts(components)
    n_points = n_layers + 2
    series = {
        "attention": _by_block(parts, ("head", "attn_bias"), n_layers),
        "MLP": _by_block(parts, ("mlp",), n_layers),
    }
    ends = np.zeros(n_points)
    for component, place in (("embed", 0), ("norm_bias", n_points - 1)):
        ends[place] = parts.loc[parts["component"] == component, "value"].sum()
    names = np.array(["embeddings", *[f"block {block}" for block in range(n_layers)], "norm and unembedding bias"])
    x = np.arange(n_points)
    fig = go.Figure()
    for name, colour, values in (
        ("attention", _ATTENTION, series["attention"]),
        ("MLP", _MLP, series["MLP"]),
        ("embeddings, bias", _REST, ends),
    ):
        shown = values != 0
        fig.add_bar(
            x=x[shown],
            y=values[shown].astype("float32"),
            name=name,
            customdata=names[shown],
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"%{{customdata}}: {name}<br>adds %{{y:.4g}} to the logit<extra></extra>",
        )
    running = np.cumsum(series["attention"] + series["MLP"] + ends)
    fig.add_scatter(
        x=x,
        y=running.astype("float32"),
        customdata=names,
        mode="lines+markers",
        name="running sum",
        line={"color": _SUM, "width": 2, "shape": "hv"},
        marker={"size": 4},
        hovertemplate="sum up to %{customdata}: %{y:.4g}<extra></extra>",
    )
    base(fig, height=320, x="point", y="logit")
    fig.update_layout(barmode="relative", bargap=0.15)
    layer_axis(fig, n_layers)
    return fig.update_xaxes(range=[-0.6, n_points - 0.4])


def source_bars(components: pd.DataFrame, tokens: Sequence[str], block: int, head: int) -> go.Figure:
    """One head's contribution by the token it came from; ``tokens`` are those up to the attributed position."""
    own = components[
        (components["component"] == "head") & (components["layer"] == block) & (components["head"] == head)
    ]
    rows = own[own["source_pos"].notna()].sort_values("source_pos")
    positions, values = rows["source_pos"].to_numpy(dtype=int), rows["value"].to_numpy(dtype="float32")
    labels = np.array([f"{pos} {plot_label(tokens[pos])}" for pos in positions], dtype=object)
    fig = go.Figure(
        go.Bar(
            x=positions,
            y=values,
            customdata=labels,
            marker={
                "color": values,
                "colorscale": DIVERGING,
                "cmid": 0,
                "line": {"width": 0.5, "color": NULL_GREY},
            },
            hovertemplate=f"block {block}, head {head} reading %{{customdata}}<br>adds %{{y:.4g}} to the logit"
            "<extra></extra>",
        )
    )
    base(fig, height=280, x="source token", y="logit", legend=False)
    return token_axis(fig, [tokens[pos] for pos in positions], positions=positions.tolist())


def _by_block(parts: pd.DataFrame, components: tuple[str, ...], n_layers: int) -> np.ndarray:
    """Sums by block at points 1..L of an axis with one place before and one after them."""
    rows = parts[parts["component"].isin(components)].groupby("layer")["value"].sum()
    values = np.zeros(n_layers + 2)
    values[rows.index.to_numpy(dtype=int) + 1] = rows.to_numpy()
    return values


def _told(share: np.ndarray) -> np.ndarray:
    """The hover's remark on shares of the total, or why there is none."""
    gone = f"<br>no share of the total: parts cancel (sum |parts| ≥ {CANCELLATION_LIMIT:g} |total|)"
    told = np.vectorize(lambda v: gone if np.isnan(v) else f"<br>{v:.1f} % of the total", otypes=[object])
    return np.asarray(told(share))
