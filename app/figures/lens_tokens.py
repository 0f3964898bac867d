"""Ranks of several tokens over points, in one lens at one position."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.lens_lines import rank_axes
from app.figures.theme import CATEGORICAL, NULL_GREY
from app.text import plot_label

__all__ = ["TokenLine", "token_ranks"]


@dataclass(frozen=True, eq=False)
class TokenLine:
    """One token on its way: what it is here, its raw text, and ``layer, rank, ce`` (-ln p) of every point."""

    role: str
    text: str
    rows: pd.DataFrame
    control: bool = False


def token_ranks(lines: Sequence[TokenLine], n_layers: int, n_vocab: int) -> go.Figure:
    """One line a token, the best rank on top; controls in grey."""
    fig = go.Figure()
    colours = iter(CATEGORICAL)
    for line in lines:
        label = plot_label(line.text, 16)
        fig.add_scatter(
            x=line.rows["layer"].to_numpy(dtype="int32"),
            y=line.rows["rank"].to_numpy(dtype="float32"),
            customdata=np.exp(-line.rows["ce"].to_numpy(dtype="float32")),
            mode="lines" if line.control else "lines+markers",
            name=f"{line.role}: {label}",
            line={"color": NULL_GREY if line.control else next(colours), "width": 1.5},
            marker={"size": 4},
            hovertemplate=f"point %{{x}}<br>{label} ({line.role})<br>rank %{{y:,}}, p %{{customdata:.3g}}<extra></extra>",
        )
    return rank_axes(fig, n_layers, n_vocab)
