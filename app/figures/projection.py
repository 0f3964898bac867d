"""Tokens in the plane of the two largest directions of a layer."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures.theme import SEQUENTIAL, base
from app.text import plot_label

__all__ = ["token_plane"]

_RIM = "rgba(205,205,205,0.85)"  # the first positions are nearly black, as a dark page is


def token_plane(x: np.ndarray, y: np.ndarray, shares: tuple[float, float], tokens: Sequence[str]) -> go.Figure:
    """One dot a token, coloured by position; ``x`` and ``y`` are NaN for tokens that the mask leaves out.

    The axes have one scale, so that distances mean what they look like.
    """
    positions = np.arange(len(tokens))
    fig = go.Figure()
    fig.add_scattergl(
        x=x.astype("float32"),
        y=y.astype("float32"),
        mode="markers",
        marker={
            "size": 7,
            "color": positions,
            "colorscale": SEQUENTIAL,
            "colorbar": {"title": "position"},
            "line": {"color": _RIM, "width": 0.8},
        },
        customdata=positions,
        text=[f"{position} {plot_label(token)}" for position, token in enumerate(tokens)],
        hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
    )
    base(fig, height=380, x=f"first direction ({shares[0]:.1%})", y=f"second direction ({shares[1]:.1%})", legend=False)
    return fig.update_yaxes(scaleanchor="x")
