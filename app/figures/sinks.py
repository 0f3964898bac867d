"""Attention sinks: which heads, which tokens, how much of it reaches the residual stream."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.hover import HOVER_AXES, name_places, place_names
from app.figures.theme import CATEGORICAL, DIVERGING, NULL_GREY, SEQUENTIAL, base, fade, layer_axis, token_axis
from app.text import plot_label

__all__ = ["bos_cosine_map", "head_map", "importance_bars", "rank_scatter", "sink_share"]

_EPSILON = 0.3
_MIN_VISIBLE = 8
_HEAD_METRICS = {
    "sink_score": ("a<sub>0</sub>", "mean attention to position 0"),
    "sink_ratio": ("a<sub>0</sub> / uniform", "mean attention to position 0 over that of uniform attention"),
    "attn_entropy": ("entropy (nats)", "mean entropy of the attention rows"),
    "value_norm_ratio": ("‖v<sub>0</sub>‖ / median", "L1 norm of the value of position 0 over the median of all"),
}
_RATIOS = ("sink_ratio", "value_norm_ratio")
_COSINES = {
    "bos_cosine_raw": "cosine to position 0",
    "bos_cosine_centred": "cosine to position 0, mean of non-sink tokens removed",
    "bos_cosine_nomassive": "cosine to position 0, three largest dimensions zeroed",
}


def head_map(head_metrics: pd.DataFrame, metric: str = "sink_score", *, dots: bool = True) -> go.Figure:
    """Block by head map of one metric; ``dots`` puts one on each head with ``sink_score`` above .3.

    ``sink_ratio`` and ``value_norm_ratio`` are drawn as log2 around 1, blue below and red above. Raises KeyError for a
    metric that has no map.
    """
    title, meaning = _HEAD_METRICS[metric]
    values = _grid(head_metrics, metric, "value")
    n_used = _grid(head_metrics, metric, "n_used")
    fig = go.Figure()
    heat = {"customdata": np.stack([values, n_used], axis=-1).astype("float32"), "hoverongaps": False}
    hover = f"block %{{y}}, head %{{x}}<br>%{{customdata[0]:.4g}} {meaning}<br>%{{customdata[1]}} tokens<extra></extra>"
    if metric in _RATIOS:
        with np.errstate(divide="ignore"):
            z = np.log2(values)
        span = float(np.nanmax(np.abs(z[np.isfinite(z)]), initial=1.0))
        bar = {"title": {"text": f"log<sub>2</sub> {title}"}}
        fig.add_heatmap(
            z=z.astype("float32"), colorscale=DIVERGING, zmid=0, zmin=-span, zmax=span, colorbar=bar, **heat
        )
    else:
        top = {"zmin": 0, "zmax": 1} if metric == "sink_score" else {}
        fig.add_heatmap(
            z=values.astype("float32"), colorscale=SEQUENTIAL, colorbar={"title": {"text": title}}, **top, **heat
        )
    fig.update_traces(hovertemplate=hover)
    if dots:
        blocks, heads = np.nonzero(_grid(head_metrics, "sink_score", "value") > _EPSILON)
        dot = {"size": 5, "color": "white", "line": {"color": "black", "width": 1}}
        fig.add_scatter(x=heads, y=blocks, mode="markers", marker=dot, hoverinfo="skip", showlegend=False)
    base(fig, height=max(260, 70 + 11 * len(values)), x="head", y="block", legend=False)
    layer_axis(fig, len(values), axis="y", points=False)
    fig.update_xaxes(tick0=0, dtick=1 if values.shape[1] <= 16 else 4, range=[-0.5, values.shape[1] - 0.5])
    return fig


def importance_bars(
    importance: np.ndarray,
    uniform: np.ndarray,
    visible: np.ndarray,
    tokens: Sequence[str],
    *,
    first: int = 0,
    log: bool = True,
) -> go.Figure:
    """Attention each key receives, mean over heads, beside what uniform attention would give it.

    Args:
        importance: ``a_k`` of each key shown.
        uniform: ``a_k`` under uniform causal attention.
        visible: queries that can see each key; keys with fewer than 8 are greyed, their value rests on too few.
        tokens: raw token of each key shown.
        first: position of the first key shown.
        log: logarithmic attention, since a sink dwarfs every other key.
    """
    positions = np.arange(first, first + len(tokens))
    labels = [plot_label(token) for token in tokens]
    fig = go.Figure()
    for kept, name, colour in (
        (visible >= _MIN_VISIBLE, "mean over heads", CATEGORICAL[0]),
        (visible < _MIN_VISIBLE, "fewer than 8 queries see it", fade(CATEGORICAL[0], 0.3)),
    ):
        if not kept.any():
            continue
        ratio = importance[kept] / uniform[kept]
        fig.add_bar(
            x=positions[kept],
            y=importance[kept].astype("float32"),
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=np.column_stack([np.array(labels, dtype=object)[kept], np.round(ratio, 3), visible[kept]]),
            hovertemplate="position %{x} %{customdata[0]}<br>a<sub>k</sub> = %{y:.4f}, %{customdata[1]} times uniform"
            "<br>%{customdata[2]} queries can see it<extra></extra>",
        )
    fig.add_scatter(
        x=positions,
        y=uniform.astype("float32"),
        name="uniform attention",
        mode="lines",
        line={"color": NULL_GREY, "width": 1.5, "shape": "hvh"},
        hoverinfo="skip",
    )
    fig.add_hline(y=_EPSILON, line={"color": NULL_GREY, "width": 1, "dash": "dot"})
    base(fig, height=280, x="key", y="a<sub>k</sub>")
    fig.update_layout(bargap=0.1, barmode="overlay")
    if log:
        lowest = float(np.nanmin(uniform)) / 30
        fig.update_yaxes(type="log", range=[np.log10(lowest), 0.05])
    return token_axis(fig, tokens, positions=positions.tolist())


def sink_share(layer_metrics: pd.DataFrame, n_layers: int) -> go.Figure:
    """Share of heads with a sink at position 0 and the mean sink score, by point, beside the uniform level of a_0.

    The share of block b stands at point b + 1. Rows: ``sink_share``, ``sink_score_mean``, ``sink_uniform``.
    """
    fig = go.Figure()
    lines = (
        ("sink_share", "share of heads with a<sub>0</sub> > .3", {"color": CATEGORICAL[0], "width": 2}),
        ("sink_score_mean", "mean a<sub>0</sub>", {"color": CATEGORICAL[1], "width": 2}),
        ("sink_uniform", "a<sub>0</sub> of uniform attention", {"color": NULL_GREY, "width": 1.5, "dash": "dash"}),
    )
    for metric, name, line in lines:
        rows = layer_metrics[layer_metrics["metric"] == metric].sort_values("layer")
        fig.add_scatter(
            x=rows["layer"].to_numpy(),
            y=rows["value"].to_numpy(dtype="float32", na_value=np.nan),
            customdata=rows["n_used"].to_numpy(),
            mode="lines+markers",
            marker={"size": 4},
            name=name,
            line=line,
            hovertemplate=f"point %{{x}}<br>%{{y:.4f}} {name}<br>%{{customdata}} used<extra></extra>",
        )
    base(fig, height=260, x="point (block b stands at b + 1)", y="share, attention")
    fig.update_yaxes(range=[0, 1.02])
    return layer_axis(fig, n_layers)


def rank_scatter(keys: pd.DataFrame, tokens: Sequence[str], n_kept: int = 0) -> go.Figure:
    """Rank of each key by attention and by VATP, one head: below the diagonal the value vector lifts the key.

    ``keys`` has ``pos, attention_rank, vatp_rank, value_l1, effective``; rank 1 is the largest. The first ``n_kept``
    positions, which VATP never drops, are drawn as open diamonds.
    """
    kept = keys["pos"].to_numpy() < n_kept
    fig = go.Figure()
    last = max(2, len(keys))
    ends = [1, last]
    line = {"color": NULL_GREY, "width": 1, "dash": "dash"}
    fig.add_scatter(x=ends, y=ends, mode="lines", line=line, name="equal ranks", hoverinfo="skip")
    labels = [plot_label(tokens[pos]) for pos in keys["pos"]]
    numbers = keys[["value_l1", "effective"]].round(4).to_numpy(dtype=object)
    fig.add_scatter(
        x=keys["attention_rank"].to_numpy(),
        y=keys["vatp_rank"].to_numpy(),
        mode="markers",
        showlegend=False,
        marker={
            "size": 7,
            "symbol": np.where(kept, "diamond-open", "circle").tolist(),
            "color": np.log10(np.maximum(keys["value_l1"].to_numpy(), 1e-12)).astype("float32"),
            "colorscale": SEQUENTIAL,
            "colorbar": {"title": {"text": "log<sub>10</sub> ‖v‖<sub>1</sub>"}},
        },
        customdata=np.column_stack([np.array(labels, dtype=object), keys["pos"].to_numpy(dtype=object), numbers]),
        hovertemplate="position %{customdata[1]} %{customdata[0]}<br>rank %{x} by attention, %{y} by VATP"
        "<br>‖v‖<sub>1</sub> = %{customdata[2]}, effective attention %{customdata[3]}<extra></extra>",
    )
    base(fig, height=360, x="rank by attention received", y="rank by VATP")
    margin = np.log10([0.8, last * 1.25])
    fig.update_xaxes(type="log", range=margin)
    return fig.update_yaxes(type="log", range=margin)


def bos_cosine_map(
    token_metrics: pd.DataFrame, metric: str, tokens: Sequence[str], *, first: int = 0, n_layers: int
) -> go.Figure:
    """Points by tokens map of a cosine to position 0 (``bos_cosine_raw|centred|nomassive``).

    ``tokens`` are those shown, from position ``first`` on. Raises KeyError for another metric.
    """
    rows = token_metrics[token_metrics["metric"] == metric]
    rows = rows[rows["pos"].between(first, first + len(tokens) - 1)]
    grid = np.full((n_layers + 1, len(tokens)), np.nan, dtype="float32")
    grid[rows["layer"].to_numpy(dtype=int), rows["pos"].to_numpy(dtype=int) - first] = rows["value"]
    positions = np.arange(first, first + len(tokens))
    fig = go.Figure(
        go.Heatmap(
            x=positions,
            z=grid,
            zmin=-1,
            zmax=1,
            zmid=0,
            colorscale=DIVERGING,
            colorbar={"title": {"text": "cosine"}},
            hoverongaps=False,
            hovertemplate=f"point %{{y}}, position %{{x}}<br>%{{z:.4f}} {_COSINES[metric]}<extra></extra>",
            **HOVER_AXES,
        )
    )
    base(fig, height=max(260, 90 + 9 * n_layers), x="token", y="point", legend=False)
    token_axis(fig, tokens, positions=positions.tolist())
    layer_axis(fig, n_layers, axis="y")
    return name_places(fig, x=(positions, place_names(tokens, first)))


def _grid(head_metrics: pd.DataFrame, metric: str, column: str) -> np.ndarray:
    rows = head_metrics[head_metrics["metric"] == metric]
    if rows.empty:
        raise ValueError(f"the run holds no {metric}")
    table = rows.pivot(index="layer", columns="head", values=column)
    return np.asarray(table.to_numpy(dtype=float, na_value=np.nan))
