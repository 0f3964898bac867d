"""A tuned lens in training, and what it came to on held-out text."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures.lens_lines import COLOURS, NAMES, Variant
from app.figures.theme import CATEGORICAL, base, layer_axis

__all__ = ["held_out_lines", "training_line"]

_SHOWN: tuple[Variant, ...] = ("raw", "mean", "tuned")


def training_line(log: Sequence[float], steps: int) -> go.Figure:
    """Mean KL of all points at every step, each on its own few hundred positions: it jitters."""
    fig = go.Figure(
        go.Scatter(
            x=np.arange(len(log)),
            y=np.asarray(log, dtype="float32"),
            mode="lines",
            line={"color": CATEGORICAL[2], "width": 1.5},
            hovertemplate="step %{x:,}<br>mean KL %{y:.3f} nats<extra></extra>",
        )
    )
    base(fig, height=220, x="step", y="KL to the end (nats)")
    fig.update_xaxes(range=[0, max(1, steps)])
    return fig.update_yaxes(type="log", dtick=1, exponentformat="power")


def held_out_lines(kl: Mapping[str, Sequence[float]], n_layers: int) -> go.Figure:
    """Mean KL to the end on held-out text at points 0..L-1 under the raw, the mean-corrected and the tuned lens."""
    fig = go.Figure()
    for variant in _SHOWN:
        fig.add_scatter(
            x=np.arange(n_layers),
            y=np.asarray(kl[variant], dtype="float32"),
            mode="lines+markers",
            name=NAMES[variant],
            line={"color": COLOURS[variant], "width": 2},
            marker={"size": 4},
            hovertemplate=f"point %{{x}}<br>KL {NAMES[variant]}: %{{y:.3f}} nats<extra></extra>",
        )
    base(fig, height=300, x="point", y="KL to the end (nats)")
    fig.update_yaxes(type="log", dtick=1, exponentformat="power")
    return layer_axis(fig, n_layers)
