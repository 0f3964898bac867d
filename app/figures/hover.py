"""Token texts in the hover of dense heatmaps, sent once for each position instead of once for each cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.text import plot_label

__all__ = ["HOVER_AXES", "name_places", "place_names"]

HOVER_AXES = {"xaxis": "x99", "yaxis": "y99"}
_HIDDEN: dict[str, Any] = {
    "showticklabels": False,
    "showgrid": False,
    "zeroline": False,
    "showline": False,
    "ticks": "",
}


def place_names(tokens: Sequence[str], first: int = 0) -> list[str]:
    """Position and escaped token, for tokens from position ``first`` on."""
    return [f"{first + i} {plot_label(token)}" for i, token in enumerate(tokens)]


def name_places(
    fig: go.Figure,
    *,
    x: tuple[np.ndarray, Sequence[str]] | None = None,
    y: tuple[np.ndarray, Sequence[str]] | None = None,
    over: tuple[str, str] = ("x", "y"),
) -> go.Figure:
    """Let ``%{x}`` and ``%{y}`` in the hover of a trace on ``HOVER_AXES`` show a name instead of a coordinate.

    Plotly shows the tick text of a hovered coordinate if its axis has one there; these hidden axes, matched to
    ``over``, have one for every place. Call it last: it adds axes that no other setting may reach.

    Args:
        fig: the figure, changed in place and returned.
        x: coordinates along x and their escaped names; without them x shows its number.
        y: the same for y.
        over: the visible axes.
    """
    # Plotly draws the ticks of an axis only if a trace is on it.
    fig.add_scatter(x=[None], y=[None], xaxis=over[0], yaxis=over[1], showlegend=False, hoverinfo="skip")
    for letter, places, main in (("x", x, over[0]), ("y", y, over[1])):
        axis: dict[str, Any] = {"overlaying": main, "matches": main, **_HIDDEN}
        if places is not None:
            axis |= {"tickmode": "array", "tickvals": places[0], "ticktext": list(places[1])}
        fig.update_layout({f"{letter}axis99": axis})
    return fig
