"""What an index knows of one latent: its activations, its tokens, and the latents beside it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from app.figures.theme import CATEGORICAL, base, mark
from app.text import plot_label

__all__ = ["activation_histogram", "latent_name", "neighbour_bars", "token_means"]

_LABEL = 30


def activation_histogram(edges: ArrayLike, counts: ArrayLike, mean: float) -> go.Figure:
    """Tokens by activation (those above 0) on a logarithmic axis, with the mean marked; empty bins have no bar.

    ``edges`` are one more than ``counts``.
    """
    ends, number = np.asarray(edges, dtype=float), np.asarray(counts, dtype=float)
    width = np.diff(ends)
    fig = go.Figure(
        go.Bar(
            x=ends[:-1] + width / 2,
            y=np.where(number > 0, number, np.nan),
            width=0.94 * width,
            customdata=np.stack([ends[:-1], ends[1:]], axis=1).astype("float32"),
            marker={"color": CATEGORICAL[0]},
            hovertemplate="activation %{customdata[0]:.4g} to %{customdata[1]:.4g}<br>%{y:,} tokens<extra></extra>",
        )
    )
    base(fig, height=230, x="activation", y="tokens", legend=False)
    top = np.log10(max(number.max(initial=1.0), 1.0))
    fig.update_yaxes(type="log", range=[-0.3, top + 0.15], dtick=1 if top > 1.2 else "D1", exponentformat="power")
    fig.update_layout(margin_t=22)
    return mark(fig, mean, "mean") if np.isfinite(mean) else fig


def token_means(rows: pd.DataFrame, tokens: Sequence[str]) -> go.Figure:
    """Mean activation on a token over all its occurrences, highest on top.

    ``rows`` have ``mean_activation, n_fired, n_seen``; ``tokens`` are their raw texts.
    """
    labels = [plot_label(token) for token in tokens]
    places = np.arange(len(rows))
    counts = rows[["n_fired", "n_seen"]].itertuples(index=False)
    told = [
        f"{name}<br>fired on {n_fired:,} of {n_seen:,}" for name, (n_fired, n_seen) in zip(labels, counts, strict=True)
    ]
    fig = go.Figure(
        go.Bar(
            x=rows["mean_activation"].to_numpy(dtype="float32"),
            y=places,
            customdata=np.array(told, dtype=object),
            orientation="h",
            marker={"color": CATEGORICAL[0]},
            hovertemplate="token %{customdata} seen<br>mean activation %{x:.4g}<extra></extra>",
        )
    )
    base(fig, height=64 + 18 * max(len(rows), 1), x="mean activation", legend=False)
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": labels}
    return fig.update_yaxes(**ticks, range=[len(rows) - 0.5, -0.5], showgrid=False).update_xaxes(rangemode="tozero")


def latent_name(latent: int, labels: Mapping[int, str], limit: int = _LABEL) -> str:
    """A latent by number and label, escaped for plots."""
    label = labels.get(latent)
    return f"{latent} {plot_label(label, limit)}" if label else str(latent)


def neighbour_bars(rows: pd.DataFrame, labels: Mapping[int, str], measure: str) -> go.Figure:
    """Latents beside one, nearest on top; a bar's ``customdata`` is its latent. ``rows`` have ``other, value``."""
    others = rows["other"].to_numpy(dtype=int)
    places = np.arange(len(others))
    fig = go.Figure(
        go.Bar(
            x=rows["value"].to_numpy(dtype="float32"),
            y=places,
            customdata=others,
            orientation="h",
            marker={"color": CATEGORICAL[0]},
            hovertemplate=f"latent %{{customdata}}<br>{measure} %{{x:.4g}}<extra></extra>",
        )
    )
    base(fig, height=64 + 18 * max(len(others), 1), x=measure, legend=False)
    names = [latent_name(int(other), labels) for other in others]
    fig.update_yaxes(tickmode="array", tickvals=places, ticktext=names, range=[len(others) - 0.5, -0.5], showgrid=False)
    return fig.update_xaxes(rangemode="tozero")
