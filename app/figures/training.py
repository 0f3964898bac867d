"""How a training goes: explained variance and dead latents by step, and the loss."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.theme import CATEGORICAL, base

__all__ = ["training_curves"]

_SHARES = {"explained_variance": ("explained variance", CATEGORICAL[0]), "dead_share": ("dead latents", CATEGORICAL[5])}


def training_curves(log: pd.DataFrame, steps: int) -> go.Figure:
    """The log of a training (:attr:`TopKTrainer.log`) over all its ``steps``: shares left, the loss on a log axis right.

    Explained variance below 0, as in the first steps, is off the axis: hover tells it.
    """
    fig = make_subplots(1, 2, horizontal_spacing=0.09)
    for column, (label, colour) in _SHARES.items():
        fig.add_scatter(
            x=log["step"].to_numpy(),
            y=log[column].clip(lower=0).to_numpy(),
            customdata=log[column].to_numpy(),
            mode="lines+markers" if len(log) < 3 else "lines",
            name=label,
            line={"color": colour, "width": 2},
            hovertemplate=f"step %{{x:,}}<br>{label} %{{customdata:.3f}}<extra></extra>",
            row=1,
            col=1,
        )
    fig.add_scatter(
        x=log["step"].to_numpy(),
        y=log["loss"].to_numpy(),
        mode="lines+markers" if len(log) < 3 else "lines",
        name="loss",
        line={"color": CATEGORICAL[2], "width": 2},
        hovertemplate="step %{x:,}<br>loss %{y:.4f}<extra></extra>",
        row=1,
        col=2,
    )
    base(fig, height=260)
    fig.update_xaxes(title_text="step", range=[0, max(1, steps)])
    fig.update_yaxes(title_text="share", range=[0, 1.02], row=1, col=1)
    fig.update_yaxes(title_text="loss", type="log", row=1, col=2)
    return fig
