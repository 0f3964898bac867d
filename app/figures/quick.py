"""A quick chart of two or three columns of any table: a line, points, bars or a map."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, DIVERGING, SEQUENTIAL, base
from app.text import plot_label

__all__ = ["KINDS", "MAX_GROUPS", "MAX_ROWS", "Chart", "Kind", "is_number", "quick_chart", "suggest"]

Kind = Literal["line", "scatter", "bar", "heatmap"]
KINDS: tuple[Kind, ...] = ("line", "scatter", "bar", "heatmap")
MAX_ROWS = 20_000
MAX_GROUPS = 14
_MAX_CELLS = 250_000
_TICKS = 48
_PLACES = ("layer", "block", "pos", "k", "rank", "head", "point")
_DASHES = ("solid", "dash")


@dataclass(frozen=True, slots=True)
class Chart:
    """Which columns are drawn, and how. ``colour`` tells lines, points and bars apart; in a heatmap it is the value."""

    kind: Kind
    x: str
    y: str
    colour: str | None = None


def suggest(frame: pd.DataFrame, kind: Kind | None = None) -> Chart | None:
    """A chart that may fit (a heatmap, if that is what is wanted), or None where there is nothing to draw.

    Bars if the first column has names, lines over layers and other places where each is there once, otherwise points.
    """
    numbers = [name for name in frame if is_number(frame[name])]
    measures = [name for name in numbers if name not in _PLACES] or numbers
    if frame.empty or not measures:
        return None
    y = "value" if "value" in measures else measures[0]
    others = [name for name in frame if name != y]
    if not others:
        return None
    if kind == "heatmap":
        rows = next((name for name in ("layer", "block") if name in others), others[-1])
        return Chart("heatmap", next((name for name in others if name != rows), rows), rows, y)
    texts = [name for name in others if not is_number(frame[name]) and not _is_time(frame[name])]
    few = [name for name in texts if 2 <= frame[name].map(_text).nunique() <= MAX_GROUPS]
    if others[0] in texts and (others[0] not in few or not _repeated(frame, others[0])):
        return Chart("bar", others[0], y)
    x = next((name for name in (*_PLACES, *others) if name in others and name not in texts), others[0])
    colour = next((name for name in few if name != x), None)
    if x in texts:
        return Chart("bar", x, y, colour)
    single = x in _PLACES and not _repeated(frame, x, colour)
    return Chart("line" if single else "scatter", x, y, colour)


def quick_chart(frame: pd.DataFrame, chart: Chart) -> go.Figure:
    """Draw it. Text is escaped, and stands at its own place on a numeric axis.

    Raises ValueError for a column there is none of, one that is no number where a number is needed, more rows, groups
    or cells than can be told apart, and two values for one cell of a heatmap.
    """
    for name in (chart.x, chart.y, *([chart.colour] if chart.colour else [])):
        if name not in frame:
            raise ValueError(f"there is no column {name[:64]!r}")
    if len(frame) > MAX_ROWS:
        raise ValueError(f"a chart shows at most {MAX_ROWS:,} rows, these are {len(frame):,}: aggregate or filter")
    if chart.kind == "heatmap":
        return _heatmap(frame, chart)
    if not is_number(frame[chart.y]):
        raise ValueError(f"y must be a column of numbers, {chart.y[:64]!r} is not")
    fig = go.Figure()
    group_of = _groups(frame, chart)
    merged = chart.kind != "bar" or not _repeated(frame, chart.x, chart.colour)
    x, ticks = _places(frame[chart.x], merged=merged)
    shown = np.array([_told(value) for value in frame[chart.x]], dtype=object)
    y = _floats(frame[chart.y])
    for index, (group, here) in enumerate(group_of):
        rows = np.flatnonzero(here)
        if chart.kind == "line":
            rows = rows[np.argsort(x[rows], kind="stable")]
        label = "" if group is None else f"<br>{_name(str(chart.colour))} {group}"
        fig.add_trace(
            _trace(chart, index, x[rows], y[rows], frame.iloc[rows]).update(
                name=group or "",
                customdata=shown[rows],
                hovertemplate=f"{_name(chart.x)} %{{customdata}}<br>{_name(chart.y)} %{{y:.6g}}{label}<extra></extra>",
            )
        )
    base(fig, height=380, x=_name(chart.x), y=_name(chart.y), legend=len(group_of) > 1)
    _tick(fig, "x", ticks)
    return fig.update_yaxes(rangemode="tozero") if chart.kind == "bar" else fig


def is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers; true and false are none."""
    return bool(pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype))


def _repeated(frame: pd.DataFrame, *names: str | None) -> bool:
    """Whether two rows have the same values in these columns, which may hold lists."""
    return bool(pd.DataFrame({name: frame[name].map(_text) for name in names if name is not None}).duplicated().any())


def _is_time(column: pd.Series) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(column.dtype))


def _trace(chart: Chart, index: int, x: np.ndarray, y: np.ndarray, rows: pd.DataFrame) -> Any:
    colour = CATEGORICAL[index % len(CATEGORICAL)]
    if chart.kind == "bar":
        return go.Bar(x=x, y=y, marker={"color": colour})
    if chart.kind == "line":
        line = {"color": colour, "width": 1.6, "dash": _DASHES[index // len(CATEGORICAL)]}
        return go.Scatter(x=x, y=y, mode="lines+markers", line=line, marker={"size": 4})
    marker: dict[str, Any] = {"size": 6, "color": colour, "opacity": 0.8}
    if _by_number(rows, chart):
        bar = {"title": {"text": _name(str(chart.colour))}}
        marker |= {"color": _floats(rows[str(chart.colour)]), "colorscale": SEQUENTIAL, "colorbar": bar}
    elif index >= len(CATEGORICAL):
        marker["symbol"] = "diamond"
    return go.Scatter(x=x, y=y, mode="markers", marker=marker)


def _by_number(frame: pd.DataFrame, chart: Chart) -> bool:
    return chart.kind == "scatter" and chart.colour is not None and is_number(frame[chart.colour])


def _groups(frame: pd.DataFrame, chart: Chart) -> list[tuple[str | None, np.ndarray]]:
    """The name of each group, escaped, and which rows are of it, in the order they come."""
    if chart.colour is None or _by_number(frame, chart):
        return [(None, np.ones(len(frame), dtype=bool))]
    codes, found = pd.factorize(frame[chart.colour].map(_text))
    if len(found) > MAX_GROUPS:
        raise ValueError(
            f"{chart.colour[:64]!r} has {len(found):,} different values, and colours tell at most {MAX_GROUPS} apart"
        )
    return [(plot_label(str(name), 32), codes == index) for index, name in enumerate(found)]


def _heatmap(frame: pd.DataFrame, chart: Chart) -> go.Figure:
    if chart.colour is None or not is_number(frame[chart.colour]):
        raise ValueError("a heatmap needs a column of numbers as its colour")
    if _repeated(frame, chart.x, chart.y):
        raise ValueError("a heatmap needs one row for each x and y: filter, or aggregate with GROUP BY")
    (x, x_ticks), (y, y_ticks) = (_places(frame[name], merged=True) for name in (chart.x, chart.y))
    columns, rows = np.unique(x[~pd.isna(x)]), np.unique(y[~pd.isna(y)])
    if len(columns) * len(rows) > _MAX_CELLS:
        raise ValueError(
            f"a heatmap has at most {_MAX_CELLS:,} cells, this one would have {len(columns) * len(rows):,}"
        )
    grid = np.full((len(rows), len(columns)), np.nan, dtype="float32")
    there = ~(pd.isna(x) | pd.isna(y))
    values = _floats(frame[chart.colour])
    grid[np.searchsorted(rows, y[there]), np.searchsorted(columns, x[there])] = values[there]
    signed = np.nanmin(values, initial=0) < 0 < np.nanmax(values, initial=0)
    scale: dict[str, Any] = {"colorscale": DIVERGING, "zmid": 0} if signed else {"colorscale": SEQUENTIAL}
    fig = go.Figure(
        go.Heatmap(
            x=columns, y=rows, z=grid, hoverongaps=False, colorbar={"title": {"text": _name(chart.colour)}}, **scale,
            hovertemplate=f"{_name(chart.x)} %{{x}}<br>{_name(chart.y)} %{{y}}<br>"
            f"{_name(chart.colour)} %{{z:.6g}}<extra></extra>",
        )
    )  # fmt: skip
    base(fig, height=420, x=_name(chart.x), y=_name(chart.y), legend=False)
    _tick(fig, "x", x_ticks)
    _tick(fig, "y", y_ticks)
    return fig


def _places(column: pd.Series, *, merged: bool) -> tuple[np.ndarray, list[str] | None]:
    """Where each row stands: its number or time, else the place of its text. Texts are ``merged`` if equal ones share it."""
    if is_number(column):
        return _floats(column), None
    if _is_time(column):
        return pd.to_datetime(column, utc=True).dt.tz_localize(None).to_numpy(), None
    codes, found = pd.factorize(column.map(_text)) if merged else (np.arange(len(column)), column.map(_text))
    return codes.astype(float), [plot_label(str(text)) for text in found]


def _tick(fig: go.Figure, axis: Literal["x", "y"], labels: list[str] | None) -> None:
    if labels is None:
        return
    step = max(1, -(-len(labels) // _TICKS))
    ticks = {"tickvals": list(range(0, len(labels), step)), "ticktext": labels[::step], "tickfont": {"size": 10}}
    turned = {"tickangle": -90} if axis == "x" and len(labels) > 6 else {}
    (fig.update_xaxes if axis == "x" else fig.update_yaxes)(**ticks, **turned, showgrid=False)


def _floats(column: pd.Series) -> np.ndarray:
    values: np.ndarray = column.to_numpy(dtype=float, na_value=np.nan)
    return values


def _text(value: object) -> str:
    missing = pd.api.types.is_scalar(value) and pd.isna(value)
    return "NULL" if missing else str(value)


def _told(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) and not np.isnan(value) else plot_label(_text(value), 40)


def _name(column: str) -> str:
    return plot_label(column, 40)
