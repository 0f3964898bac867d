"""Intrinsic dimension, neighbourhood overlap and cosine along the points, each beside the same tokens in another order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.intrinsic_dimension import PLATEAU, SCALES
from app.figures.spectra_layers import layer_line
from app.figures.theme import CATEGORICAL, NULL_GREY, SEQUENTIAL, base, fade, layer_axis

__all__ = [
    "COSINES",
    "OVERLAPS",
    "cosine_lines",
    "dimension_lines",
    "metric_rows",
    "overlap_lines",
    "overlap_map",
    "scale_lines",
]

POINTS = "point (0 embeddings, b + 1 = output of block b)"
OVERLAPS: Mapping[str, str] = {
    "overlap_previous": "with the point before",
    "overlap_input": "with the embeddings",
    "overlap_output": "with the last point",
}
COSINES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "cosine@no_sink": ("raw, without sinks", {"color": CATEGORICAL[0], "width": 2}),
    "cosine": ("raw, tokens of the mask", {"color": CATEGORICAL[4], "width": 1.5, "dash": "dash"}),
    "cosine_centred@no_sink": ("centred, without sinks", {"color": CATEGORICAL[1], "width": 2}),
    "cosine_centred": ("centred, tokens of the mask", {"color": CATEGORICAL[5], "width": 1.5, "dash": "dash"}),
    "anisotropy@raw_no_sink": (
        "variance in the first direction, without sinks", {"color": NULL_GREY, "width": 1.5, "dash": "dot"},
    ),
}  # fmt: skip
_PLATEAU = f"{PLATEAU[0]}-{PLATEAU[-1]}"


def metric_rows(layers: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows of some metrics, by layer."""
    return layers[layers["metric"].isin(list(metrics))].sort_values(["metric", "layer"])


def dimension_lines(layers: pd.DataFrame, shuffles: Mapping[str, pd.DataFrame], n_layers: int) -> go.Figure:
    """GRIDE's plateau with its standard error and TwoNN at every point, without sinks; GRIDE of the run's mask faint.

    ``shuffles``: by what was shuffled, the bands of `app.geometry.shuffled`.
    """
    fig = go.Figure()
    for colour, (name, band) in zip((NULL_GREY, CATEGORICAL[3]), shuffles.items(), strict=False):
        _band(fig, band[band["metric"] == "id_gride@no_sink"], name, colour, "GRIDE dimension")
    main = {"color": CATEGORICAL[0], "width": 2}
    rows = metric_rows(layers, ["id_gride@no_sink"])
    layer_line(fig, rows, f"GRIDE, k = {_PLATEAU}", main, "dimensions (GRIDE), without sinks")
    if len(fig.data) and rows["value"].notna().any():
        errors = metric_rows(layers, ["id_gride_error@no_sink"])["value"].to_numpy(dtype=float)
        fig.data[-1].error_y = {"type": "data", "array": errors, "thickness": 1, "width": 0}
    faint = {"color": CATEGORICAL[4], "width": 1, "dash": "dash"}
    layer_line(fig, metric_rows(layers, ["id_gride"]), "GRIDE, tokens of the mask", faint, "dimensions (GRIDE)")
    other = {"color": CATEGORICAL[1], "width": 1.5}
    layer_line(fig, metric_rows(layers, ["id_twonn@no_sink"]), "TwoNN", other, "dimensions (TwoNN), without sinks")
    base(fig, height=340, x=POINTS, y="intrinsic dimension")
    fig.update_yaxes(rangemode="tozero")
    return layer_axis(fig, n_layers)


def scale_lines(layers: pd.DataFrame, shuffles: Mapping[str, pd.DataFrame], point: int) -> go.Figure:
    """GRIDE's dimension of one point against the scale k, with its standard error, beside TwoNN and the plateau."""
    fig = go.Figure()
    for colour, (name, band) in zip((NULL_GREY, CATEGORICAL[3]), shuffles.items(), strict=False):
        here = _by_scale(band[band["layer"] == point])
        _band(fig, here, name, colour, "GRIDE dimension")
    here = _by_scale(layers[layers["layer"] == point])
    whole = layers[layers["layer"] == point].set_index("metric")["value"]
    errors = [whole.get(f"gride_k{k}_error@no_sink", np.nan) for k in here["layer"]]
    distances = [whole.get(f"gride_k{k}_distance@no_sink", np.nan) for k in here["layer"]]
    fig.add_scatter(
        x=here["layer"].to_numpy(), y=here["value"].to_numpy(dtype=float), mode="lines+markers", name="GRIDE",
        line={"color": CATEGORICAL[0], "width": 2}, customdata=np.column_stack([here["n_used"], distances, errors]),
        error_y={"type": "data", "array": np.array(errors, dtype=float), "thickness": 1, "width": 0},
        hovertemplate="neighbours %{x} and twice that: %{y:.2f} ± %{customdata[2]:.2f} dimensions"
        "<br>mean distance %{customdata[1]:.4g}<br>n = %{customdata[0]:.0f}<extra></extra>",
    )  # fmt: skip
    two = float(whole.get("id_twonn@no_sink", np.nan))
    if np.isfinite(two):
        fig.add_scatter(
            x=np.array([SCALES[0], SCALES[-1]]), y=np.full(2, two), mode="lines", name=f"TwoNN {two:.1f}",
            line={"color": CATEGORICAL[1], "width": 1.5, "dash": "dash"}, hoverinfo="skip",
        )  # fmt: skip
    fig.add_vrect(
        x0=PLATEAU[0] / 1.15, x1=PLATEAU[-1] * 1.15, fillcolor=fade(CATEGORICAL[0], 0.08), line_width=0, layer="below"
    )
    base(fig, height=340, x="scale k: neighbours k and 2k", y="intrinsic dimension")
    fig.update_xaxes(type="log", tickmode="array", tickvals=list(SCALES), ticktext=[str(k) for k in SCALES])
    return fig.update_yaxes(rangemode="tozero")


def overlap_lines(layers: pd.DataFrame, shuffles: Mapping[str, pd.DataFrame], n_layers: int) -> go.Figure:
    """Share of neighbours each point has in common with the one before, the first and the last; chance dotted."""
    fig = go.Figure()
    for place, (metric, name) in enumerate(OVERLAPS.items()):
        for shuffle, band in shuffles.items():
            rows = band[band["metric"] == f"{metric}@no_sink"]
            _band(fig, rows, shuffle, _colour(metric), f"common neighbours {name}", legend=place == 0)
    for metric, name in OVERLAPS.items():
        rows = metric_rows(layers, [f"{metric}@no_sink"])
        layer_line(fig, rows, name, {"color": _colour(metric), "width": 2}, f"of the neighbours in common {name}")
    chance = metric_rows(layers, ["overlap_input_chance@no_sink"])
    style = {"color": NULL_GREY, "width": 1.5, "dash": "dot"}
    layer_line(fig, chance, "chance", style, "in common by chance, k / (n - 1)")
    base(fig, height=340, x="point", y="share of common neighbours")
    fig.update_yaxes(range=[0, 1.02])
    return layer_axis(fig, n_layers)


def overlap_map(matrix: np.ndarray) -> go.Figure:
    """Share of common neighbours of every pair of points [points, points]; the diagonal, 1 by definition, is left blank."""
    shown = matrix.astype("float32").copy()
    np.fill_diagonal(shown, np.nan)
    points = np.arange(len(shown))
    fig = go.Figure()
    fig.add_heatmap(
        x=points, y=points, z=shown, colorscale=SEQUENTIAL, zmin=0, zmax=1, colorbar={"title": "overlap", "thickness": 12},
        hovertemplate="points %{y} and %{x}: %{z:.3f} of the neighbours in common<extra></extra>",
    )  # fmt: skip
    base(fig, height=340, x="point", y="point", legend=False)
    return layer_axis(layer_axis(fig, len(shown) - 1), len(shown) - 1, axis="y")


def cosine_lines(layers: pd.DataFrame, shuffles: Mapping[str, pd.DataFrame], n_layers: int) -> go.Figure:
    """Mean pairwise cosine, raw and centred, with and without sinks; the share of variance in the first direction grey."""
    fig = go.Figure()
    for metric in ("cosine@no_sink", "cosine_centred@no_sink"):
        name, style = COSINES[metric]
        for shuffle, band in shuffles.items():
            rows, first = band[band["metric"] == metric], metric == "cosine@no_sink"
            _band(fig, rows, shuffle, str(style["color"]), f"mean cosine, {name}", legend=first)
    for metric, (name, style) in COSINES.items():
        meaning = name if metric.startswith("anisotropy") else f"mean cosine, {name}"
        layer_line(fig, metric_rows(layers, [metric]), name, style, meaning)
    base(fig, height=340, x="point", y="mean pairwise cosine")
    return layer_axis(fig, n_layers)


def _by_scale(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of GRIDE without sinks with the scale k for a layer."""
    scales = {f"gride_k{k}@no_sink": k for k in SCALES}
    here = rows[rows["metric"].isin(list(scales))]
    return here.assign(layer=here["metric"].map(scales)).sort_values("layer")


def _colour(metric: str) -> str:
    return CATEGORICAL[list(OVERLAPS).index(metric)]


def _band(fig: go.Figure, rows: pd.DataFrame, name: str, colour: str, meaning: str, *, legend: bool = True) -> None:
    """The range over the shuffles and their mean, dotted; of several bands only the first is in the legend."""
    rows = rows.sort_values("layer")
    if rows.empty:
        return
    x = rows["layer"].to_numpy()
    edge: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    fig.add_scatter(x=x, y=rows["high"].to_numpy(dtype=float), **edge)
    fig.add_scatter(x=x, y=rows["low"].to_numpy(dtype=float), fill="tonexty", fillcolor=fade(colour, 0.22), **edge)
    fig.add_scatter(
        x=x, y=rows["mean"].to_numpy(dtype=float), mode="lines", name=name,
        line={"color": colour, "width": 1.5, "dash": "dot"}, showlegend=legend,
        customdata=rows[["low", "high", "margin", "seeds"]].to_numpy(dtype=float),
        hovertemplate=f"%{{x}}: %{{y:.4g}} {meaning}, {name}<br>%{{customdata[0]:.4g}} to %{{customdata[1]:.4g}} over "
        "%{customdata[3]:.0f} shuffles; 95 % of the mean ± %{customdata[2]:.2g}<extra></extra>",
    )  # fmt: skip
