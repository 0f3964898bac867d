"""The Overview: every signal of a run over the points 0..L, one row each on one axis, with the run's events."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.theme import CATEGORICAL, GRID, NULL_GREY, base, fade, layer_axis

__all__ = ["HEIGHT", "event_points", "overview"]

BLUE, ORANGE, GREEN, PINK = CATEGORICAL[:4]
_HEIGHTS = (1.25, 1.0, 1.15, 1.15, 0.8)
_TOP = 64  # px above the first plot: its legend, the numbers of the events, and the tools of Plotly over them
HEIGHT = 766
_ROWS = ("largest |a|", "sinks", "alpha (sing. values)", "lens KL, nats", "share of update")


def overview(
    *,
    n_layers: int,
    massive: pd.DataFrame,
    layers: pd.DataFrame,
    events: pd.DataFrame,
) -> go.Figure:
    """Five aligned rows over the points 0..L.

    ``massive``, ``layers`` (layer_metrics) and ``events`` are the tables of one run; a row of the figure without its
    rows in them says so. Block b stands at its output, point b + 1.
    """
    fig = make_subplots(rows=5, cols=1, shared_xaxes=True, vertical_spacing=0.045, row_heights=list(_HEIGHTS))
    drawn = (
        _largest(fig, massive),
        _sinks(fig, layers),
        _alpha(fig, layers),
        _lens(fig, layers, n_layers),
        _update(fig, layers),
    )
    base(fig, height=HEIGHT)
    for row, (name, known) in enumerate(zip(_ROWS, drawn, strict=True), start=1):
        fig.update_yaxes(title={"text": name, "font": {"size": 11}, "standoff": 2}, row=row, col=1)
        top = fig.get_subplot(row, 1).yaxis.domain[1]
        fig.update_layout(
            {
                f"legend{'' if row == 1 else row}": {
                    "orientation": "h", "x": 0, "y": top, "xanchor": "left", "yanchor": "bottom",
                    "font": {"size": 10}, "itemwidth": 30, "traceorder": "normal", "bgcolor": "rgba(0,0,0,0)",
                }
            }
        )  # fmt: skip
        if not known:
            _say(fig, row, "not in this run")
    for row in range(1, len(_ROWS) + 1):
        layer_axis(fig, n_layers, row=row, col=1)
    fig.update_xaxes(
        title={"text": "point (0 embeddings, b + 1 = output of block b)", "font": {"size": 11}}, row=5, col=1
    )
    fig.update_layout(
        hovermode="x unified", hoverdistance=-1, margin={"l": 8, "r": 8, "t": _TOP, "b": 8}, dragmode=False
    )
    _events(fig, events)
    return fig


def event_points(events: pd.DataFrame) -> list[tuple[int, int]]:
    """``(number from 1, point)`` of each event that has a place, in table order."""
    return [(i, int(layer)) for i, layer in enumerate(events["layer"], start=1) if pd.notna(layer)]


def _largest(fig: go.Figure, massive: pd.DataFrame) -> bool:
    if massive.empty:
        return False
    sizes = massive.assign(size=massive["value"].abs())
    top = sizes.loc[sizes.groupby("layer")["size"].idxmax()].sort_values("layer")
    where = [f"position {p}, dimension {d}" for p, d in zip(top["pos"], top["dim"], strict=True)]
    _line(fig, 1, top["layer"], top["size"], "largest |a|", BLUE, "%{y:,.4g} at %{customdata}", customdata=where)
    _line(fig, 1, top["layer"], top["median"], "median |a|", NULL_GREY, "%{y:.3g}")
    strict = top[top["strict"].astype(bool)]
    named = strict["dim"].drop_duplicates().head(3)
    for dim in named:
        first = strict[strict["dim"] == dim].iloc[0]
        fig.add_annotation(
            x=first["layer"], y=np.log10(first["size"]), text=f"dimension {dim}", font={"size": 10}, showarrow=False,
            xanchor="right", yanchor="bottom", row=1, col=1,
        )  # fmt: skip
    fig.update_yaxes(type="log", dtick=2, exponentformat="power", row=1, col=1)
    return True


def _sinks(fig: go.Figure, layers: pd.DataFrame) -> bool:
    share = _rows(layers, "sink_share")
    if not share.empty:
        fig.add_bar(
            x=share["layer"].to_numpy(), y=share["value"].to_numpy(dtype=float), name="share of heads that are sinks",
            marker={"color": fade(BLUE, 0.55), "line": {"width": 0}}, hovertemplate="%{y:.2f}", legend="legend2",
            row=2, col=1,
        )  # fmt: skip
    series = (
        ("sink_score_mean", "mean attention to position 0", ORANGE, None),
        ("sink_uniform", "uniform attention", NULL_GREY, "dot"),
    )
    fig.update_yaxes(range=[0, 1.02], row=2, col=1)
    return _metrics(fig, 2, layers, series)


def _alpha(fig: go.Figure, layers: pd.DataFrame) -> bool:
    series = (
        ("alpha_sigma", "normed", BLUE, None),
        ("alpha_sigma@raw_all", "raw, all tokens", ORANGE, None),
        ("alpha_sigma@raw_no_bos", "raw, no position 0", GREEN, None),
        ("alpha_null", "normed, columns permuted", NULL_GREY, "dot"),
        ("alpha_null_iid", "iid Gaussian", NULL_GREY, "dash"),
    )
    return _metrics(fig, 3, layers, series)


def _lens(fig: go.Figure, layers: pd.DataFrame, n_layers: int) -> bool:
    series = (("lens_kl@mean", "mean-corrected", BLUE, None), ("lens_kl", "raw", ORANGE, None))
    before_last = layers if layers.empty else layers[layers["layer"] < n_layers]  # 0 at the last point by definition
    drawn = _metrics(fig, 4, before_last, series)
    fig.update_yaxes(type="log", dtick=1, exponentformat="power", row=4, col=1)
    return drawn


def _update(fig: go.Figure, layers: pd.DataFrame) -> bool:
    rows = _rows(layers, "update_attn_share")
    if rows.empty:
        return False
    x, attention = rows["layer"].to_numpy(), rows["value"].to_numpy(dtype=float)
    for name, colour, values in (("attention", GREEN, attention), ("MLP", PINK, 1 - attention)):
        fig.add_bar(
            x=x, y=values, name=name, marker={"color": fade(colour, 0.6), "line": {"width": 0}},
            hovertemplate="%{y:.2f}", legend="legend5", row=5, col=1,
        )  # fmt: skip
    fig.update_layout(barmode="stack", bargap=0.15)
    fig.update_yaxes(range=[0, 1], row=5, col=1)
    return True


def _metrics(fig: go.Figure, row: int, frame: pd.DataFrame, series: Sequence[tuple[str, str, str, str | None]]) -> bool:
    drawn = False
    for metric, name, colour, dash in series:
        rows = _rows(frame, metric)
        if rows.empty:
            continue
        drawn = True
        used = rows["n_used"].to_numpy()
        _line(
            fig,
            row,
            rows["layer"],
            rows["value"],
            name,
            colour,
            "%{y:.3f} (n %{customdata})",
            dash=dash,
            customdata=used,
        )
    return drawn


def _rows(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame if frame.empty else frame[frame["metric"] == metric].sort_values("layer")


def _line(
    fig: go.Figure,
    row: int,
    x: Sequence[float] | pd.Series,
    y: Sequence[float] | pd.Series | np.ndarray,
    name: str,
    colour: str,
    hover: str,
    *,
    dash: str | None = None,
    customdata: object = None,
) -> None:
    fig.add_scatter(
        x=np.asarray(x, dtype=float), y=np.asarray(y, dtype=float), name=name, mode="lines+markers",
        customdata=customdata,
        line={"color": colour, "width": 1.6, "dash": dash}, marker={"size": 3.5, "color": colour},
        hovertemplate=hover, legend=f"legend{'' if row == 1 else row}", row=row, col=1,
    )  # fmt: skip


def _events(fig: go.Figure, events: pd.DataFrame) -> None:
    if events.empty:
        return
    numbers: dict[int, list[str]] = {}
    for number, point in event_points(events):
        numbers.setdefault(point, []).append(str(number))
    for point, here in numbers.items():
        for row in range(1, len(_ROWS) + 1):
            bottom, top = fig.get_subplot(row, 1).yaxis.domain
            fig.add_shape(type="line", x0=point, x1=point, y0=bottom, y1=top, xref="x", yref="paper", layer="below",
                          line={"color": NULL_GREY, "width": 1, "dash": "dot"})  # fmt: skip
        fig.add_annotation(x=point, y=1, xref="x", yref="paper", text=",".join(here), showarrow=False,
                           yanchor="bottom", yshift=18, font={"size": 10, "color": NULL_GREY})  # fmt: skip


def _say(fig: go.Figure, row: int, text: str) -> None:
    axes = fig.get_subplot(row, 1)
    middle = sum(axes.yaxis.domain) / 2
    fig.add_annotation(
        x=0.5, y=middle, xref="paper", yref="paper", text=text, showarrow=False, font={"color": NULL_GREY}
    )
    fig.update_yaxes(showticklabels=False, gridcolor=GRID, row=row, col=1)
