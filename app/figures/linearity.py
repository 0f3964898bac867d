"""How nearly blocks are linear maps, and the tokens they are not for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.geometry import metric_rows
from app.figures.hover import HOVER_AXES, name_places, place_names
from app.figures.spectra_layers import layer_line
from app.figures.theme import CATEGORICAL, NULL_GREY, SEQUENTIAL, base, layer_axis, token_axis

__all__ = ["SCORES", "nonlinearity_map", "recall_lines", "score_lines"]

SCORES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "linearity@no_sink": ("stream", {"color": CATEGORICAL[0], "width": 2}),
    "linearity_held_out@no_sink": ("stream, this text (held out)", {"color": CATEGORICAL[0], "width": 1.5, "dash": "dash"}),
    "linearity_update@no_sink": ("update", {"color": CATEGORICAL[5], "width": 2}),
    "linearity_update_held_out@no_sink": (
        "update, this text (held out)", {"color": CATEGORICAL[5], "width": 1.5, "dash": "dash"},
    ),
    "linearity_chance@no_sink": ("independent tokens", {"color": NULL_GREY, "width": 1.5, "dash": "dot"}),
}  # fmt: skip


def score_lines(layers: pd.DataFrame, n_layers: int) -> go.Figure:
    """Scores of the stream and of the update of each block, at the point it writes, without sinks."""
    fig = go.Figure()
    for metric, (name, style) in SCORES.items():
        layer_line(fig, metric_rows(layers, [metric]), name, style, f"of the variance by a linear map, {name}")
    low = min((float(np.nanmin(trace.y)) for trace in fig.data), default=0.0)
    base(fig, height=340, x="point b + 1, the output of block b", y="linearity score")
    fig.update_yaxes(range=[min(low, 0.0) - 0.02, 1.02])
    return layer_axis(fig, n_layers)


def nonlinearity_map(
    rows: pd.DataFrame, tokens: Sequence[str], first: int, n_layers: int, *, relative: bool
) -> go.Figure:
    """Distance of each token from the linear map of each block; ``rows`` of one metric, tokens from ``first`` on.

    Colours of absolute distances are log10; they end at the half per cent of the largest and smallest, the hover does not.
    """
    positions = np.arange(first, first + len(tokens))
    points = np.arange(1, n_layers + 1)
    values = rows.pivot(index="layer", columns="pos", values="value").reindex(index=points, columns=positions)
    numbers = values.to_numpy(dtype="float32", na_value=np.nan)
    shown = numbers if relative else np.log10(numbers)
    low, high = np.nanquantile(shown, [0.005, 0.995])  # one token off a map would darken all others
    unit = "of its own size" if relative else "of the size of an average token"
    fig = go.Figure()
    fig.add_heatmap(
        x=positions, y=points, z=shown, customdata=numbers, colorscale=SEQUENTIAL, hoverongaps=False,
        zmin=float(low), zmax=float(high),
        colorbar={"title": "relative E" if relative else "log<sub>10</sub> E", "thickness": 12},
        hovertemplate=f"point %{{y}}, %{{x}}<br>off the map by %{{customdata:.3g}} {unit}<extra></extra>", **HOVER_AXES,
    )  # fmt: skip
    base(fig, height=420, x="token", y="point b + 1", legend=False)
    layer_axis(fig, n_layers, axis="y")
    fig.update_yaxes(range=[0.5, n_layers + 0.5])
    token_axis(fig, tokens, positions=positions.tolist())
    return name_places(fig, x=(positions, place_names(tokens, first)))


def recall_lines(rows: pd.DataFrame, baseline: float, n_layers: int) -> go.Figure:
    """Mean average precision of the words before a token by point, and what the position alone gives, dotted."""
    fig = go.Figure()
    layer_line(fig, rows, "states", {"color": CATEGORICAL[0], "width": 2}, "mean average precision of words before")
    if np.isfinite(baseline):
        fig.add_scatter(
            x=np.array([0, n_layers]), y=np.full(2, baseline), mode="lines", name=f"position alone {baseline:.3f}",
            line={"color": NULL_GREY, "width": 1.5, "dash": "dot"}, hoverinfo="skip",
        )  # fmt: skip
    base(fig, height=340, x="point", y="mean average precision")
    fig.update_yaxes(rangemode="tozero")
    return layer_axis(fig, n_layers)
