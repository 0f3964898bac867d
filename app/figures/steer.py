"""What a steering does, measure by measure, beside its control."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.theme import CATEGORICAL, NULL_GREY, base

__all__ = ["measure_bars"]

_COLOURS = {"clean": "#56B4E9", "steered": CATEGORICAL[5], "control": NULL_GREY}


def measure_bars(table: pd.DataFrame) -> go.Figure:
    """One small plot a measure (rows of ``table``): clean, steered and the control, each with an axis of its own."""
    fig = make_subplots(rows=1, cols=len(table), subplot_titles=list(table["measure"]), horizontal_spacing=0.09)
    for column, (_, row) in enumerate(table.iterrows(), 1):
        for name, colour in _COLOURS.items():
            fig.add_bar(
                x=[name], y=[float(row[name])], name=name, marker={"color": colour}, showlegend=False,
                hovertemplate="%{x}<br>%{y:.4g}<extra></extra>", row=1, col=column,
            )  # fmt: skip
    base(fig, height=230, legend=False)
    fig.update_layout(margin={"t": 30}, bargap=0.35)
    fig.update_annotations(font_size=12)
    return fig.update_yaxes(rangemode="tozero")
