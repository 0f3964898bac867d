"""Alpha along the text as a map of points and tokens, how alike the points move, and where they jump."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.hover import HOVER_AXES, name_places, place_names
from app.figures.theme import (
    CATEGORICAL,
    CURSOR,
    DIVERGING,
    NULL_GREY,
    SEQUENTIAL,
    base,
    fade,
    layer_axis,
    token_axis,
)  # fmt: skip

__all__ = ["correlation_map", "lift_by_layer", "rho_curve", "token_map"]

_SIGNIFICANT = 0.05


def token_map(
    rows: pd.DataFrame,
    tokens: Sequence[str],
    n_layers: int,
    *,
    first: int = 0,
    boundaries: Sequence[int] = (),
    start: int | None = None,
) -> go.Figure:
    """One metric of token_spectra (``layer, pos, value, status``), points by tokens; what is missing is a gap.

    ``tokens`` are those from position ``first`` on. Steps (``token_alpha_step``) are blue below 0 and red above. Ticks above
    the map stand where a ``boundaries`` position begins one; a line before ``start``, the first token of a response.
    """
    step = bool((rows["metric"] == "token_alpha_step").any())
    grid = np.full((n_layers + 1, len(tokens)), np.nan)
    inside = rows[rows["pos"].between(first, first + len(tokens) - 1)]
    places = inside["layer"].to_numpy(dtype=int), inside["pos"].to_numpy(dtype=int) - first
    grid[places] = inside["value"].to_numpy(dtype=float)
    used = np.zeros_like(grid, dtype="int16")
    used[places] = inside["n_used"].to_numpy(dtype=int)
    low, high = (
        np.nanquantile(grid, [0.02, 0.96] if not step else [0.01, 0.99]) if np.isfinite(grid).any() else (0.0, 1.0)
    )
    span = max(abs(low), abs(high))
    positions = np.arange(first, first + len(tokens))
    fig = go.Figure(
        go.Heatmap(
            x=positions,
            y=np.arange(n_layers + 1),
            z=grid.astype("float32"),
            customdata=used,
            colorscale=DIVERGING if step else SEQUENTIAL,
            zmid=0 if step else None,
            zmin=-span if step else low,
            zmax=span if step else high,
            colorbar={"title": {"text": "step" if step else "alpha"}},
            hoverongaps=False,
            hovertemplate=(
                "point %{y}, position %{x}<br>"
                + ("alpha of the next window less this one's %{z:.3f}" if step else "alpha (singular values) %{z:.3f}")
                + "<br>%{customdata} tokens of the window count<extra></extra>"
            ),
            **HOVER_AXES,
        )
    )
    here = [at for at in boundaries if first <= at < first + len(tokens)]
    fig.add_scatter(
        x=here, y=[n_layers + 1.1] * len(here), mode="markers", name="boundary: sentence end, connective, blank line, =",
        marker={"symbol": "line-ns-open", "size": 8, "color": CATEGORICAL[5], "line": {"width": 1.5}},
        showlegend=bool(here), hoverinfo="skip",
    )  # fmt: skip
    base(fig, height=max(320, 90 + 11 * (n_layers + 1)), x="token", y="point", legend=bool(here))
    layer_axis(fig, n_layers, axis="y")
    fig.update_yaxes(range=[-0.5, n_layers + (1.8 if here else 0.5)])
    if start is not None and first <= start < first + len(tokens):
        fig.add_vline(x=start - 0.5, line={"color": CURSOR, "width": 1.5, "dash": "dot"})
        fig.add_annotation(
            x=start - 0.5, y=1, yref="paper", yanchor="bottom", xanchor="left", text="response", showarrow=False,
            font={"size": 11, "color": CURSOR},
        )  # fmt: skip
    token_axis(fig, tokens, positions=positions.tolist())
    return name_places(fig, x=(positions, place_names(tokens, first)))


def rho_curve(rows: pd.DataFrame, n_layers: int) -> go.Figure:
    """``cascade_...`` of layer_metrics: rho by distance with its fit, both walks and the shifted gradients in grey."""
    values = rows.pivot_table(index="layer", columns="metric", values="value").reindex(range(1, n_layers + 1))
    counts = rows[rows["metric"] == "cascade_rho"].set_index("layer")["n_used"].reindex(values.index)
    alone = rows[rows["layer"].isna()].set_index("metric")["value"]
    distance = values.index.to_numpy(dtype=float)
    fig = go.Figure()
    for name, key, dash in (
        ("updates turned at random", "turned", "dashdot"),
        ("random walk", "walk", "dash"),
        ("gradients shifted in time", "shift", "dot"),
    ):
        mean, low, high = (values[f"cascade_rho_{key}{end}"].to_numpy("float32") for end in ("", "_low", "_high"))
        edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        fig.add_scatter(x=distance, y=high, **edge)
        fig.add_scatter(x=distance, y=low, fill="tonexty", fillcolor=fade(NULL_GREY, 0.3), **edge)
        fig.add_scatter(
            x=distance, y=mean, mode="lines", name=name, line={"color": NULL_GREY, "width": 1.5, "dash": dash},
            hovertemplate=f"distance %{{x}}: %{{y:.3f}} {name}<extra></extra>",
        )  # fmt: skip
    rate, amplitude = (float(alone.get(f"cascade_{name}", np.nan)) for name in ("rate", "amplitude"))
    if np.isfinite(rate):
        length = f"tau {1 / rate:.1f}" if rate > 0 else "no decay"
        fig.add_scatter(
            x=distance, y=(amplitude * np.exp(-rate * distance)).astype("float32"), mode="lines", hoverinfo="skip",
            name=f"fit, {length}", line={"color": CATEGORICAL[5], "width": 2},
        )  # fmt: skip
    fig.add_scatter(
        x=distance, y=values["cascade_rho"].to_numpy("float32"), mode="markers", name="this text",
        customdata=np.stack([counts, values["cascade_p"]], axis=-1),
        marker={"size": 6, "color": CATEGORICAL[0]},
        hovertemplate="distance %{x}: rho %{y:.3f}<br>%{customdata[0]:.0f} pairs of points, p %{customdata[1]:.3f} "
        "against shifts in time<extra></extra>",
    )  # fmt: skip
    fig.add_hline(y=0, line={"color": NULL_GREY, "width": 1})
    return base(fig, height=330, x="distance between points", y="mean correlation of the steps")


def correlation_map(correlation: np.ndarray) -> go.Figure:
    """Correlation of the steps of every two points [points, points], -1 blue to 1 red; points without one are gaps."""
    fig = go.Figure(
        go.Heatmap(
            z=correlation.astype("float32"), colorscale=DIVERGING, zmid=0, zmin=-1, zmax=1, hoverongaps=False,
            colorbar={"title": {"text": "r"}},
            hovertemplate="points %{y} and %{x}: r = %{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    base(fig, height=330, x="point", y="point", legend=False)
    layer_axis(fig, len(correlation) - 1)
    return layer_axis(fig, len(correlation) - 1, axis="y")


def lift_by_layer(table: pd.DataFrame, n_layers: int) -> go.Figure:
    """Share of each point's events near a boundary, beside the share of all tokens (grey); filled where p < .05 over
    points (Benjamini-Hochberg)."""
    fig = go.Figure()
    filled = (table["p_bh"] < _SIGNIFICANT).to_numpy()
    fig.add_scatter(
        x=table["layer"].to_numpy(), y=table["hit_rate"].to_numpy("float32"), mode="markers", name="events near a boundary",
        customdata=table[["hits", "events", "lift", "p", "p_bh"]].to_numpy(dtype=float),
        marker={"size": 8, "color": CATEGORICAL[0], "symbol": np.where(filled, "circle", "circle-open")},
        hovertemplate="point %{x}<br>%{customdata[0]:.0f} of %{customdata[1]:.0f} events, lift %{customdata[2]:.2f}"
        "<br>p %{customdata[3]:.3f}, over points %{customdata[4]:.3f}<extra></extra>",
    )  # fmt: skip
    base_rate = float(table["base_rate"].iloc[0])
    if np.isfinite(base_rate):
        fig.add_scatter(
            x=[0, n_layers], y=[base_rate, base_rate], mode="lines", name="all tokens near a boundary",
            line={"color": NULL_GREY, "width": 1.5, "dash": "dash"}, hoverinfo="skip",
        )  # fmt: skip
    base(fig, height=280, x="point", y="share near a boundary")
    fig.update_yaxes(range=[0, 1.05])
    return layer_axis(fig, n_layers)
