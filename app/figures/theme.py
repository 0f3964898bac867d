"""How every figure looks: scales, palette, axes of tokens and layers, cursors; readable on light and dark pages.

Text colours and fonts are left to the page (Streamlit's theme, or the report's), so nothing here fixes them; grid, null
curves and cursors are greys that stand out on both.
"""

from collections.abc import Sequence
from typing import Literal

import plotly.graph_objects as go

from app.text import plot_label

__all__ = [
    "CATEGORICAL",
    "CURSOR",
    "DIVERGING",
    "GRID",
    "NULL_GREY",
    "SEQUENTIAL",
    "SEQUENTIAL_2",
    "base",
    "cursor",
    "fade",
    "layer_axis",
    "mark",
    "token_axis",
]

SEQUENTIAL = "Viridis"  # magnitudes
SEQUENTIAL_2 = "Cividis"  # a second magnitude beside the first
# ColorBrewer RdBu with blue for negative: colour-blind safe; use with `zmid=0`.
DIVERGING = [
    [0.0, "#2166ac"],
    [0.2, "#67a9cf"],
    [0.4, "#d1e5f0"],
    [0.5, "#f7f7f7"],
    [0.6, "#fddbc7"],
    [0.8, "#ef8a62"],
    [1.0, "#b2182b"],
]
# Okabe and Ito (2008), without black, which a dark page swallows; yellow last, which a light page swallows.
CATEGORICAL = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
NULL_GREY = "#8c8c8c"
CURSOR = "#E3242B"
GRID = "rgba(128,128,128,0.22)"

_CLEAR = "rgba(0,0,0,0)"
_AXIS = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": GRID,
    "ticks": "",
    "title": {"standoff": 6},
    "automargin": True,
}
_TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "colorway": CATEGORICAL,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"align": "left"},
    }
)

Axis = Literal["x", "y"]


def base(
    fig: go.Figure, *, height: int = 320, x: str | None = None, y: str | None = None, legend: bool = True
) -> go.Figure:
    """Give ``fig`` the common frame (in place, and returned): margins, transparent ground, legend above, axis titles.

    ``height`` is in pixels; ``x`` and ``y`` are axis titles. No figure has a title of its own: the panel carries it.
    """
    fig.update_layout(
        template=_TEMPLATE,
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        colorway=CATEGORICAL,
        height=height,
        margin={"l": 8, "r": 8, "t": 30 if legend else 8, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "font": {"size": 11}},
        hovermode="closest",
        dragmode="zoom",
        modebar={"bgcolor": _CLEAR, "color": NULL_GREY, "activecolor": CURSOR},
        font={"size": 12},
    )
    fig.update_xaxes(gridcolor=GRID, zeroline=False, automargin=True)
    fig.update_yaxes(gridcolor=GRID, zeroline=False, automargin=True)
    if x is not None:
        fig.update_xaxes(title_text=x)
    if y is not None:
        fig.update_yaxes(title_text=y)
    return fig


def token_axis(
    fig: go.Figure,
    tokens: Sequence[str],
    *,
    axis: Axis = "x",
    positions: Sequence[int] | None = None,
    limit: int = 64,
    row: int | None = None,
    col: int | None = None,
) -> go.Figure:
    """Label a numeric axis with tokens: ``tokens[i]`` at ``positions[i]`` (default ``i``), at most ``limit`` labels.

    The axis stays numeric, so two equal tokens never merge. Longer texts get evenly spaced labels; hover names the
    rest. ``tokens`` are raw: they are escaped here.
    """
    where = list(range(len(tokens))) if positions is None else [int(p) for p in positions]
    if len(where) != len(tokens):
        raise ValueError(f"positions must be as many as tokens ({len(tokens)}), not {len(where)}")
    step = max(1, -(-len(tokens) // limit))
    ticks = {
        "tickmode": "array",
        "tickvals": where[::step],
        "ticktext": [plot_label(token, 12) for token in tokens[::step]],
        "tickfont": {"size": 10},
        "showgrid": False,
    }
    if axis == "x":
        ends = [min(where) - 0.5, max(where) + 0.5] if where else None
        fig.update_xaxes(**ticks, tickangle=-90, range=ends, row=row, col=col)
    else:
        fig.update_yaxes(**ticks, row=row, col=col)
    return fig


def layer_axis(fig: go.Figure, n_layers: int, *, axis: Axis = "x", points: bool = True, **where: int) -> go.Figure:
    """An axis of points 0..L (``points``) or blocks 0..L-1, layer 0 at the left or bottom, whole numbers only.

    ``where`` may name a subplot (``row``, ``col``).
    """
    last = n_layers if points else n_layers - 1
    step = 1 if last <= 16 else 2 if last <= 32 else 5 if last <= 80 else 10
    settings = {"tick0": 0, "dtick": step, "range": [-0.5, last + 0.5]}
    (fig.update_xaxes if axis == "x" else fig.update_yaxes)(**settings, **where)
    return fig


def mark(fig: go.Figure, x: float, text: str, *, colour: str = NULL_GREY, **where: int | str) -> go.Figure:
    """A dotted vertical line with a small label at its top (``text`` is escaped): an event, an edge, a threshold."""
    fig.add_vline(
        x=x,
        line={"color": colour, "width": 1, "dash": "dot"},
        annotation={"text": plot_label(text, 60), "font": {"size": 10}, "showarrow": False, "yanchor": "bottom"},
        annotation_position="top",
        **where,
    )
    return fig


def cursor(fig: go.Figure, x: float | None = None, y: float | None = None) -> go.Figure:
    """The selection drawn into a copy-free export. On a page the panel draws it in the browser instead."""
    if x is not None:
        fig.add_vline(x=x, line={"color": CURSOR, "width": 1})
    if y is not None:
        fig.add_hline(y=y, line={"color": CURSOR, "width": 1})
    return fig


def fade(colour: str, alpha: float) -> str:
    """A ``#rrggbb`` colour as ``rgba`` with opacity ``alpha``: bands, other heads, the faint second line."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"
