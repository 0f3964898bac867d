"""The same axes and colours for two figures of the same kind, so that they can be read against each other."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.figures.hover import HOVER_AXES

__all__ = ["axis_name", "numbers", "share_scales"]

_PAD = 0.03


def share_scales(a: go.Figure, b: go.Figure) -> tuple[go.Figure, go.Figure]:
    """Copies of both with the same axis ranges, and the same colour range for heatmaps and coloured markers.

    A range that a figure states counts whole; one it leaves to Plotly is that of its data. Axes of categories and
    axes of which nothing is known stay as they are.
    """
    pair = go.Figure(a), go.Figure(b)
    for letter in "xy":
        names = [name for name in _axes(pair[0], letter) if name in _axes(pair[1], letter)]
        for name in names:
            found = _shared_range(pair, letter, name)
            if found is not None:
                for fig in pair:
                    fig.layout[name].update(range=found, autorange=False)
    _share_colours(pair)
    return pair


def numbers(values: Any) -> np.ndarray:
    """Values of a trace as floats, NaN for what is no number; empty for None."""
    if values is None:
        return np.empty(0)
    array = np.asarray(values)
    if array.dtype.kind in "fiub":
        return array.astype(float)
    flat = [_number(value) for value in array.ravel().tolist()]
    return np.array(flat, dtype=float).reshape(array.shape)


def axis_name(fig: go.Figure, trace: Any, letter: str) -> str:
    """The layout name of the visible axis a trace stands on: ``xaxis``, ``yaxis2``."""
    short = getattr(trace, f"{letter}axis", None) or letter
    if short == HOVER_AXES[f"{letter}axis"]:
        short = fig.layout[f"{letter}axis{short[1:]}"].matches or letter
    return f"{letter}axis{short[1:]}"


def _traces(fig: go.Figure) -> list[Any]:
    return [trace for trace in fig.data if trace.type in ("scatter", "bar", "heatmap")]


def _axes(fig: go.Figure, letter: str) -> list[str]:
    return list(dict.fromkeys(axis_name(fig, trace, letter) for trace in _traces(fig)))


def _shared_range(pair: tuple[go.Figure, go.Figure], letter: str, name: str) -> list[float] | None:
    ends = []
    for fig in pair:
        axis = fig.layout[name]
        if axis.type == "category":
            return None
        stated = numbers(axis.range)
        ends.append(stated if stated.size == 2 and np.isfinite(stated).all() else _data_range(fig, letter, name))
    known = [end for end in ends if end is not None]
    if not known:
        return None
    low, high = min(end.min() for end in known), max(end.max() for end in known)
    turned = all(end[0] > end[1] for end in known)
    return [float(high), float(low)] if turned else [float(low), float(high)]


def _data_range(fig: go.Figure, letter: str, name: str) -> np.ndarray | None:
    """The ends of what is drawn along an axis, in its units (log10 on a log axis), with a little room."""
    axis = fig.layout[name]
    log = axis.type == "log"
    values = np.concatenate([_extent(trace, letter) for trace in _traces(fig) if axis_name(fig, trace, letter) == name])
    values = values[np.isfinite(values)]
    if log:
        values = np.log10(values[values > 0])
    elif axis.rangemode == "tozero" and values.size:
        values = np.append(values, 0.0)
    if values.size == 0:
        return None
    low, high = values.min(), values.max()
    room = _PAD * ((high - low) or 1.0)
    tight = not log and axis.rangemode == "tozero"
    return np.array([low if tight and low == 0 else low - room, high if tight and high == 0 else high + room])


def _extent(trace: Any, letter: str) -> np.ndarray:
    values = numbers(getattr(trace, letter))
    if trace.type == "heatmap":
        if values.size == 0:
            shape = np.shape(trace.z)
            values = np.arange(shape[1 if letter == "x" else 0], dtype=float)
        return np.array([values.min() - 0.5, values.max() + 0.5]) if values.size else values
    if trace.type == "bar" and letter == ("x" if trace.orientation == "h" else "y"):
        return np.append(values, 0.0)
    return values


def _share_colours(pair: tuple[go.Figure, go.Figure]) -> None:
    heatmaps = [[trace for trace in fig.data if trace.type == "heatmap"] for fig in pair]
    for a, b in zip(*heatmaps, strict=False):
        found = _colours((a.z, a.zmin, a.zmax), (b.z, b.zmin, b.zmax), middle=a.zmid)
        if found is not None:
            for trace in (a, b):
                trace.update(zmin=found[0], zmax=found[1], zauto=False)
    markers = [[trace.marker for trace in fig.data if _coloured_by_number(trace)] for fig in pair]
    for a, b in zip(*markers, strict=False):
        found = _colours((a.color, a.cmin, a.cmax), (b.color, b.cmin, b.cmax), middle=a.cmid)
        if found is not None:
            for marker in (a, b):
                marker.update(cmin=found[0], cmax=found[1], cauto=False)


def _colours(*pair: tuple[Any, Any, Any], middle: float | None) -> tuple[float, float] | None:
    low, high = [], []
    for values, stated_low, stated_high in pair:
        known = numbers(values)
        known = known[np.isfinite(known)]
        low += [float(stated_low)] if stated_low is not None else [float(known.min())] if known.size else []
        high += [float(stated_high)] if stated_high is not None else [float(known.max())] if known.size else []
    if not low or not high:
        return None
    if middle is not None:
        span = max(abs(min(low) - middle), abs(max(high) - middle))
        return middle - span, middle + span
    return min(low), max(high)


def _coloured_by_number(trace: Any) -> bool:
    marker = getattr(trace, "marker", None)
    colour = getattr(marker, "color", None)
    return colour is not None and not isinstance(colour, str) and np.asarray(colour).dtype.kind in "fiu"


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
