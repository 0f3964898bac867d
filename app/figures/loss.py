"""Whether a number of a layer goes with the loss, from prompt to prompt."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, NULL_GREY, base, fade, layer_axis
from app.text import plot_label

__all__ = ["correlation_lines", "loss_dots"]

_CLEAR = 0.05


def correlation_lines(table: pd.DataFrame, n_layers: int) -> go.Figure:
    """Spearman by point with its 95 % interval, and the partial correlation; full marks where p over layers is below .05."""
    fig = go.Figure()
    fig.add_hline(y=0, line={"color": NULL_GREY, "width": 1})
    x = table["layer"].to_numpy()
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    colour = CATEGORICAL[0]
    defined = table[table["spearman"].notna()]
    fig.add_scatter(x=defined["layer"].to_numpy(), y=defined["high"].to_numpy(dtype=float), **edge)
    fig.add_scatter(
        x=defined["layer"].to_numpy(), y=defined["low"].to_numpy(dtype=float), fill="tonexty",
        fillcolor=fade(colour, 0.15), **edge,
    )  # fmt: skip
    for name, label, colour in (("spearman", "Spearman", CATEGORICAL[0]), ("partial", "partial", CATEGORICAL[1])):
        p = "p_bh" if name == "spearman" else "partial_p_bh"
        clear = (table[p] < _CLEAR).to_numpy()
        fig.add_scatter(
            x=x, y=table[name].to_numpy(dtype=float), mode="lines+markers", name=label,
            line={"color": colour, "width": 2}, marker={"size": 6, "symbol": np.where(clear, "circle", "circle-open")},
            customdata=table[["n", p]].to_numpy(dtype=float),
            hovertemplate=f"point %{{x}}<br>%{{y:+.3f}} {label}<br>p over layers %{{customdata[1]:.3g}}"
            "<br>n = %{customdata[0]:.0f} prompts<extra></extra>",
        )  # fmt: skip
    base(fig, height=340, x="point", y="correlation with the loss")
    fig.update_yaxes(range=[-1.02, 1.02])
    return layer_axis(fig, n_layers)


def loss_dots(prompts: pd.DataFrame, values: np.ndarray, name: str) -> go.Figure:
    """One dot a prompt: the metric at one point against the mean loss; a colour a group, the prompt on hover."""
    fig = go.Figure()
    groups = prompts["group"].fillna("")
    for place, group in enumerate(groups.unique()):
        here = (groups == group).to_numpy() & np.isfinite(values)
        part = prompts[here]
        named = zip(part["id"], part["prompt"], strict=True)
        fig.add_scatter(
            x=values[here], y=part["loss"].to_numpy(dtype=float), mode="markers",
            name=plot_label(str(group)) if group else "prompts", customdata=part["tokens"].to_numpy(),
            marker={"size": 8, "color": CATEGORICAL[place % len(CATEGORICAL)]},
            text=[f"{plot_label(str(one))}: {plot_label(str(text), 90)}" for one, text in named],
            hovertemplate=f"%{{text}}<br>{name} %{{x:.4g}}<br>loss %{{y:.3f}} nats a token<br>%{{customdata:.0f}} tokens"
            "<extra></extra>",
        )  # fmt: skip
    return base(fig, height=340, x=name, y="mean loss (nats a token)", legend=groups.nunique() > 1)
