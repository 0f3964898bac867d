"""One number a token, along the text."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.hover import place_names
from app.figures.theme import CATEGORICAL, base, token_axis

__all__ = ["token_line"]


def token_line(
    rows: pd.DataFrame, title: str, tokens: Sequence[str], *, first: int = 0, log: bool = False
) -> go.Figure:
    """The values of ``rows`` (``pos, value``) at ``tokens``, which start at position ``first``; gaps where there is none.

    ``log`` for magnitudes that one token dwarfs.
    """
    positions = np.arange(first, first + len(tokens))
    values = rows.drop_duplicates("pos").set_index("pos")["value"].astype(float).reindex(positions)
    fig = go.Figure(
        go.Scatter(
            x=positions,
            y=values.to_numpy(dtype="float32"),
            customdata=np.array(place_names(tokens, first), dtype=object),
            mode="lines+markers",
            name=title,
            line={"color": CATEGORICAL[0], "width": 1},
            marker={"size": 5},
            hovertemplate=f"position %{{customdata}}<br>{title} %{{y:.4g}}<extra></extra>",
        )
    )
    base(fig, height=280, x="token", y=title, legend=False)
    if log:
        fig.update_yaxes(type="log", exponentformat="power")
    return token_axis(fig, tokens, positions=positions.tolist())
