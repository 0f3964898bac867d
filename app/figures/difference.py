"""B − A of two figures of the same kind: heatmaps cell by cell, lines and bars of one name at each x."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.difference_traces import RATIO, across, alike, cells, floor_of, line
from app.figures.scales import axis_name, numbers
from app.figures.theme import NULL_GREY

__all__ = ["difference", "difference_table"]

_KINDS = ("scatter", "bar", "heatmap")


def difference(a: go.Figure, b: go.Figure) -> go.Figure:
    """A new figure of B − A; ``a`` and ``b`` stay as they are.

    Heatmaps are subtracted where both have a cell at the same x and y, and drawn around zero; a text that differs
    becomes "a → b". Lines and bars are matched by name and subplot, and subtracted at each x; on a logarithmic y axis
    the log10 of the ratio is drawn instead, where both are positive. What only one figure has, or what is NaN in one,
    is a gap. Bands (filled areas) and marks over a heatmap have no difference. Hover gives A, B and B − A.

    Differences below a millionth of the larger magnitude are rounding: no colour and no axis is narrower than that, and
    where all are, the title of the colours or the axis says so.
    """
    fig = go.Figure(layout=a.layout)
    pairs = list(_matched(a, b))
    for one, other in pairs:
        if one.type == "heatmap":
            fig.add_trace(cells(a, one, other))
    ratios: set[str] = set()
    subtracted: set[str] = set()
    for one, other in pairs:
        if one.type == "heatmap":
            continue
        name = axis_name(a, one, "x" if across(one) else "y")
        subtracted.add(name)
        if a.layout[name].type == "log":
            ratios.add(name)
        fig.add_trace(line(a, one, other, ratio=name in ratios))
    _frame(fig, subtracted, ratios)
    for name in subtracted - ratios:
        _say_alike(fig, name)
    # Plotly draws a hidden axis of names only with a trace on the visible one (app.figures.hover).
    fig.add_traces([trace for trace in a.data if _empty(trace)])
    return fig


def difference_table(fig: go.Figure) -> pd.DataFrame:
    """What a figure of :func:`difference` draws: ``trace, x, y, a, b`` and the ``drawn`` number, a row a cell or mark."""
    frames = [pd.DataFrame(columns=["trace", "x", "y", "a", "b", "drawn"])]
    for trace in fig.data:
        if _empty(trace):
            continue
        if trace.type == "heatmap":
            y, x = (axis.ravel() for axis in np.meshgrid(trace.y, trace.x, indexing="ij"))
            drawn = np.asarray(trace.z).ravel()
        else:
            x, y = np.asarray(trace.x), np.asarray(trace.y)
            drawn = x if across(trace) else y
        a, b = np.asarray(trace.customdata).reshape(-1, 2).T
        frames.append(pd.DataFrame({"trace": trace.name or "", "x": x, "y": y, "a": a, "b": b, "drawn": drawn}))
    return frames[0] if len(frames) == 1 else pd.concat(frames[1:], ignore_index=True)


def _matched(a: go.Figure, b: go.Figure) -> Iterator[tuple[Any, Any]]:
    """Traces of both with the same kind, name and subplot, in the order of A."""
    there = _keyed(b)
    maps = {axis_name(a, trace, "y") for trace in a.data if trace.type == "heatmap"}
    for key, trace in _keyed(a).items():
        if key in there and (trace.type == "heatmap" or axis_name(a, trace, "y") not in maps):
            yield trace, there[key]


def _keyed(fig: go.Figure) -> dict[tuple[Any, ...], Any]:
    found: dict[tuple[Any, ...], Any] = {}
    for trace in fig.data:
        filled = trace.type == "scatter" and (trace.fill not in (None, "none") or trace.line.width == 0)
        if trace.type not in _KINDS or filled or _empty(trace):
            continue
        axes = axis_name(fig, trace, "x"), axis_name(fig, trace, "y")
        key: tuple[Any, ...] = (trace.type, trace.name, *axes)
        while key in found:  # the second of one name stands against the second of it
            key = (*key, "again")
        found[key] = trace
    return found


def _empty(trace: Any) -> bool:
    return (
        trace.type == "scatter" and np.size(trace.x) == 1 and np.size(trace.y) == 1 and np.asarray(trace.y)[0] is None
    )


def _say_alike(fig: go.Figure, name: str) -> None:
    """An axis on which every difference is rounding: as wide as rounding goes, and its title says so."""
    letter = name[0]
    own = [trace for trace in fig.data if trace.type != "heatmap" and axis_name(fig, trace, letter) == name]
    own = [trace for trace in own if ("x" if across(trace) else "y") == letter and trace.customdata is not None]
    floor = max((floor_of(trace.customdata) for trace in own), default=0.0)
    drawn = [np.abs(numbers(getattr(trace, letter))) for trace in own]
    largest = max((float(np.nanmax(one, initial=0.0)) for one in drawn), default=0.0)
    if 0 < largest <= floor:
        title = fig.layout[name].title.text or ""
        fig.layout[name].update(range=[-floor, floor], autorange=False, title={"text": f"{title}<br>{alike(floor)}"})


def _frame(fig: go.Figure, subtracted: set[str], ratios: set[str]) -> None:
    """Axes of differences: linear, free, with a line at zero; what was drawn at a value of A is gone."""
    for name in subtracted:
        axis = fig.layout[name]
        title = axis.title.text or ""
        what = RATIO if name in ratios else "B − A"
        axis.update(
            type="linear", range=None, autorange=True, rangemode="normal", dtick=None, tick0=None, tickvals=None,
            ticktext=None, tickmode="auto", exponentformat=None, zeroline=True, zerolinecolor=NULL_GREY, zerolinewidth=1,
            title={"text": f"{what}<br>{title}" if title else what},
        )  # fmt: skip
    kept = [note for note in fig.layout.annotations if note.xref == "paper" and note.yref == "paper"]
    fig.layout.shapes, fig.layout.annotations = (), kept
    if fig.layout.barmode == "stack":
        fig.layout.barmode = "relative"
