"""Spectra of weight matrices: singular values of one block, and tail exponents over blocks with the healthy band."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.heavy_tail import WEIGHT_BAND
from app.figures.theme import CATEGORICAL, NULL_GREY, base, fade, layer_axis
from app.text import plot_label

__all__ = ["tails_by_block", "weight_ranks"]


def weight_ranks(spectra: Mapping[str, np.ndarray]) -> go.Figure:
    """Singular values of the matrices of one block by rank, each divided by its largest, both axes logarithmic."""
    fig = go.Figure()
    for (role, s), colour in zip(spectra.items(), _colours(len(spectra)), strict=True):
        label = plot_label(role)
        fig.add_scatter(
            x=np.arange(1, s.size + 1),
            y=(s / s[0]).astype("float32"),
            customdata=s.astype("float32"),
            mode="lines",
            name=label,
            line={"color": colour, "width": 1.5},
            hovertemplate=f"{label}, rank %{{x}}: s = %{{customdata:.4g}}<br>%{{y:.4f}} of the largest<extra></extra>",
        )
    base(fig, height=340, x="rank k", y="s<sub>k</sub> / s<sub>1</sub>")
    fig.update_xaxes(type="log", dtick="D2")
    return fig.update_yaxes(type="log", exponentformat="power")


def tails_by_block(tails: pd.DataFrame, n_layers: int) -> go.Figure:
    """Tail exponent of every matrix by block, over WeightWatcher's band of 2 to 6 (reported for well-trained weights).

    ``tails`` has ``block, matrix, alpha, sigma, n_tail, ks``; the axis is logarithmic, an undefined exponent is a gap.
    """
    fig = go.Figure()
    fig.add_hrect(*WEIGHT_BAND, fillcolor=fade(NULL_GREY, 0.18), line_width=0, layer="below")
    matrices = list(dict.fromkeys(tails["matrix"]))
    for role, colour in zip(matrices, _colours(len(matrices)), strict=True):
        rows = tails[tails["matrix"] == role].sort_values("block")
        label = plot_label(role)
        fig.add_scatter(
            x=rows["block"].to_numpy(),
            y=rows["alpha"].to_numpy(dtype="float32"),
            customdata=rows[["sigma", "n_tail", "ks"]].to_numpy(dtype="float32"),
            mode="lines+markers",
            name=label,
            line={"color": colour, "width": 1.5},
            marker={"size": 5},
            hovertemplate=f"block %{{x}}, {label}<br>tail exponent %{{y:.2f}} ± %{{customdata[0]:.2f}}"
            "<br>%{customdata[1]} eigenvalues in the tail, KS %{customdata[2]:.3f}<extra></extra>",
        )
    base(fig, height=340, x="block", y="tail exponent (density of eigenvalues)")
    fig.update_yaxes(type="log", tickvals=[1, 2, 3, 4, 6, 10, 20, 50])
    return layer_axis(fig, n_layers, points=False)


def _colours(count: int) -> list[str]:
    return [CATEGORICAL[i % len(CATEGORICAL)] for i in range(count)]
