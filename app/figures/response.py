"""A response against its prompt: alpha of both by point at equal length, and alpha of the latest tokens as it grows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.hover import place_names
from app.figures.theme import CATEGORICAL, CURSOR, NULL_GREY, base, fade, layer_axis, token_axis

__all__ = ["growth_lines", "shift_lines"]

_BAND = 0.10  # |shift| below which a class is equilibrium (analysis.response_shift)


def shift_lines(rows: pd.DataFrame, n_layers: int) -> go.Figure:
    """``alpha_prompt`` and ``alpha_response_matched`` by point above their difference with its interval.

    ``rows`` are layer_metrics of a run with a response. The same of raw states without position 0 and special tokens is
    dotted. The grey band is the equilibrium.
    """
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.06)
    sides = (("prompt", "alpha_prompt", CATEGORICAL[0]), ("response", "alpha_response_matched", CATEGORICAL[5]))
    for suffix, said, dash in (("", "", None), ("@raw_no_bos", ", raw without position 0", "dot")):
        for name, metric, colour in sides:
            _line(fig, rows, metric + suffix, name + said, colour, dash, 1)
        _line(
            fig,
            rows,
            f"response_shift{suffix}",
            f"response − prompt{said}",
            NULL_GREY if suffix else CATEGORICAL[2],
            dash,
            2,
        )
    low, high = (_values(rows, f"response_shift{end}") for end in ("_low", "_high"))
    shift = _values(rows, "response_shift")
    x = shift["layer"].to_numpy(dtype=float)
    if np.isfinite(low["value"].to_numpy(dtype=float)).any():
        edges = (("high", high, None), ("low", low, "tonexty"))
        for _, values, fill in edges:
            fig.add_scatter(
                x=x, y=values["value"].to_numpy("float32"), mode="lines", line={"width": 0}, hoverinfo="skip", fill=fill,
                fillcolor=fade(CATEGORICAL[2], 0.2), showlegend=False, row=2, col=1,
            )  # fmt: skip
    fig.add_hrect(y0=-_BAND, y1=_BAND, fillcolor=fade(NULL_GREY, 0.2), line_width=0, layer="below", row=2, col=1)
    base(fig, height=440)
    fig.update_layout(legend_traceorder="normal")  # filled traces would turn it round
    fig.update_xaxes(title_text="point", row=2, col=1)
    fig.update_yaxes(title_text="alpha (singular values)", row=1, col=1)
    fig.update_yaxes(title_text="response − prompt", row=2, col=1)
    layer_axis(fig, n_layers)
    return fig


def growth_lines(
    alpha: np.ndarray, point: int, start: int, window: int, tokens: Sequence[str], *, first: int = 0
) -> go.Figure:
    """Alpha of the window that ends at each token: the selected point, and the mean over points with their middle half.

    ``alpha`` [points, tokens] is of the whole text, ``tokens`` are those from ``first`` on. The shaded stretch holds windows
    of prompt and response together.
    """
    positions = np.arange(first, first + len(tokens))
    seen = alpha[:, first : first + len(tokens)]
    known = np.isfinite(seen).any(axis=0)
    spread = np.full((3, len(tokens)), np.nan)
    if known.any():
        spread[:2, known] = np.nanquantile(seen[:, known], [0.25, 0.75], axis=0)
        spread[2, known] = np.nanmean(seen[:, known], axis=0)
    low, high, mean = spread
    fig = go.Figure()
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    fig.add_scatter(x=positions, y=high.astype("float32"), **edge)
    fig.add_scatter(x=positions, y=low.astype("float32"), fill="tonexty", fillcolor=fade(NULL_GREY, 0.25), **edge)
    names = np.array(place_names(tokens, first), dtype=object)
    for name, values, colour in (
        ("mean over points, with their middle half", mean, NULL_GREY),
        (f"point {point}", seen[point], CATEGORICAL[0]),
    ):
        fig.add_scatter(
            x=positions, y=values.astype("float32"), customdata=names, mode="lines", name=name,
            line={"color": colour, "width": 1.8},
            hovertemplate=f"position %{{customdata}}<br>{name}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    fig.add_vrect(
        x0=start - 0.5, x1=start + window - 1.5, fillcolor=fade(NULL_GREY, 0.15), line_width=0, layer="below",
    )  # fmt: skip
    base(fig, height=300, x="token", y=f"alpha of {window} tokens")
    fig.add_vline(x=start - 0.5, line={"color": CURSOR, "width": 1.5, "dash": "dot"})
    fig.add_annotation(
        x=start - 0.5, y=1, yref="paper", yanchor="top", xanchor="left", text="response", showarrow=False,
        font={"size": 11, "color": CURSOR},
    )  # fmt: skip
    return token_axis(fig, tokens, positions=positions.tolist())


def _line(fig: go.Figure, rows: pd.DataFrame, metric: str, name: str, colour: str, dash: str | None, row: int) -> None:
    values = _values(rows, metric)
    if values["value"].isna().all():
        return
    fig.add_scatter(
        x=values["layer"].to_numpy(dtype=float), y=values["value"].to_numpy("float32"), mode="lines+markers", name=name,
        customdata=values["n_used"].to_numpy(), marker={"size": 4},
        line={"color": colour, "width": 1.2 if dash else 2, "dash": dash}, showlegend=row == 1 or not dash,
        hovertemplate=f"point %{{x}}<br>{name} %{{y:.3f}}<br>n = %{{customdata}} tokens<extra></extra>", row=row, col=1,
    )  # fmt: skip


def _values(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[rows["metric"] == metric].sort_values("layer")
