"""One dimension along the points, in several readings of a text."""

import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, base, layer_axis
from app.text import plot_label

__all__ = ["trace_lines"]


def trace_lines(rows: pd.DataFrame, dim: int, n_layers: int) -> go.Figure:
    """``|value|`` of a dimension by point, log axis, one line a reading and position.

    ``rows`` hold ``reading`` (raw), ``pos``, ``layer``, ``value``. A reading has one colour; positions other than 0 are
    dotted. The signed value is in the hover.
    """
    fig = go.Figure()
    readings = list(rows["reading"].unique())
    for (reading, pos), line in rows.groupby(["reading", "pos"], sort=False):
        colour = CATEGORICAL[readings.index(reading) % len(CATEGORICAL)]
        line = line.sort_values("layer")
        label = plot_label(str(reading), 48)
        values = line["value"].to_numpy(dtype=float)
        fig.add_scatter(
            x=line["layer"].to_numpy(dtype=float), y=abs(values), customdata=values, mode="lines+markers",
            marker={"size": 3.5}, name=f"{label}, position {pos}",
            line={"color": colour, "width": 1.6, "dash": None if pos == 0 else "dot"},
            hovertemplate=f"point %{{x}}<br>%{{customdata:,.5g}} in dimension {dim}<br>{label}, position {pos}<extra></extra>",
        )  # fmt: skip
    base(fig, height=330, x="point", y=f"|value| of dimension {dim} (log)")
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    return layer_axis(fig, n_layers)
