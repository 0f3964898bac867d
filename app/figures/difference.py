"""B − A of two figures of the same kind: heatmaps cell by cell, lines and bars of one name at each x."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.scales import axis_name, numbers
from app.figures.strip_scale import FLOOR
from app.figures.theme import DIVERGING, NULL_GREY

__all__ = ["difference", "difference_table"]

_RATIO = "log<sub>10</sub> (B / A)"
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
            fig.add_trace(_cells(a, one, other))
    ratios: set[str] = set()
    subtracted: set[str] = set()
    for one, other in pairs:
        if one.type == "heatmap":
            continue
        name = axis_name(a, one, "x" if _across(one) else "y")
        subtracted.add(name)
        if a.layout[name].type == "log":
            ratios.add(name)
        fig.add_trace(_line(a, one, other, ratio=name in ratios))
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
            drawn = x if _across(trace) else y
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


def _cells(fig: go.Figure, a: Any, b: Any) -> go.Heatmap:
    x, y = _places(a, "x", 1, b), _places(a, "y", 0, b)
    values = [_on_grid(numbers(trace.z), trace, x, y) for trace in (a, b)]
    said = [_on_grid(_words(trace), trace, x, y) for trace in (a, b)]
    told = [_on_grid(_words(trace, drawn=False), trace, x, y) for trace in (a, b)]
    z = values[1] - values[0]
    floor, largest = _floor(values), float(np.nanmax(np.abs(z), initial=0.0))
    span = max(floor, largest) if largest else 1.0
    bar = a.colorbar.title.text or ""
    title = f"B − A<br>{bar}" if bar else "B − A"
    if 0 < largest <= floor:
        title += f"<br>{_alike(floor)}"
    read = "".join(f"<br>{name} %{{customdata[{i}]:.4g}}" for i, name in enumerate("AB"))
    words = _changes(*told) if told[0] is not None else None
    return go.Heatmap(
        x=x,
        y=y,
        z=z.astype("float32"),
        zmin=-span,
        zmax=span,
        zmid=0,
        colorscale=DIVERGING,
        colorbar={"title": {"text": title}},
        customdata=np.stack(values, axis=-1).astype("float32"),
        text=_changes(*said) if said[0] is not None else None,
        texttemplate=a.texttemplate if said[0] is not None else None,
        textfont=a.textfont,
        hovertext=words,
        hoverongaps=False,
        hovertemplate=f"{_where(fig, a)}{read}<br>B − A %{{z:.4g}}{_unit(bar)}"
        f"{'<br>%{hovertext}' if words is not None else ''}<extra></extra>",
        xaxis=a.xaxis,
        yaxis=a.yaxis,
    )


def _floor(values: Any) -> float:
    """The difference below which two numbers of these magnitudes are the same."""
    return FLOOR * float(np.nanmax(np.abs(np.asarray(values, dtype=float)), initial=0.0))


def _alike(floor: float) -> str:
    return f"no difference above {floor:.1g}"


def _say_alike(fig: go.Figure, name: str) -> None:
    """An axis on which every difference is rounding: as wide as rounding goes, and its title says so."""
    letter = name[0]
    own = [trace for trace in fig.data if trace.type != "heatmap" and axis_name(fig, trace, letter) == name]
    own = [trace for trace in own if ("x" if _across(trace) else "y") == letter and trace.customdata is not None]
    floor = max((_floor(trace.customdata) for trace in own), default=0.0)
    drawn = [np.abs(numbers(getattr(trace, letter))) for trace in own]
    largest = max((float(np.nanmax(one, initial=0.0)) for one in drawn), default=0.0)
    if 0 < largest <= floor:
        title = fig.layout[name].title.text or ""
        fig.layout[name].update(range=[-floor, floor], autorange=False, title={"text": f"{title}<br>{_alike(floor)}"})


def _places(a: Any, letter: str, axis: int, b: Any) -> np.ndarray:
    """All coordinates of both along an axis, ascending."""
    return np.union1d(_coordinates(a, letter, axis), _coordinates(b, letter, axis))


def _coordinates(trace: Any, letter: str, axis: int) -> np.ndarray:
    given = numbers(getattr(trace, letter))
    return given if given.size else np.arange(np.shape(trace.z)[axis], dtype=float)


def _on_grid(values: np.ndarray | None, trace: Any, x: np.ndarray, y: np.ndarray) -> Any:
    """Cells of a trace on a grid that holds all its places; NaN, or None for words, where it has none."""
    if values is None:
        return None
    words = values.dtype == object
    grid = np.full((len(y), len(x)), None if words else np.nan, dtype=object if words else float)
    rows, columns = (np.searchsorted(at, _coordinates(trace, k, i)) for at, k, i in ((y, "y", 0), (x, "x", 1)))
    grid[np.ix_(rows, columns)] = values
    return grid


def _words(trace: Any, *, drawn: bool = True) -> np.ndarray | None:
    """The text of each cell: what is drawn in it, or else the first line of what its hover says."""
    if trace.text is not None and np.size(trace.text):
        return np.asarray(trace.text, dtype=object)
    if drawn:
        return None
    return _first_words(trace.customdata)


def _first_words(customdata: Any) -> np.ndarray | None:
    """The first text of each customdata, up to its first line break; None where there is none."""
    array = np.asarray(customdata, dtype=object) if customdata is not None else np.empty(0, dtype=object)
    if array.size == 0 or not isinstance(array.ravel()[0], str):
        return None
    first = array[..., 0] if array.ndim in (2, 3) else array
    return np.asarray(np.vectorize(lambda text: str(text).split("<br>")[0], otypes=[object])(first))


def _changes(a: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    """ "a → b" where they differ, the one text where they do not, nothing where one is missing."""
    other = np.full(a.shape, None, dtype=object) if b is None else b
    pairs = zip(a.ravel().tolist(), other.ravel().tolist(), strict=True)
    texts = ["" if p is None or q is None else p if p == q else f"{p} → {q}" for p, q in pairs]
    return np.array(texts, dtype=object).reshape(a.shape)


def _line(fig: go.Figure, a: Any, b: Any, *, ratio: bool) -> Any:
    place, size = ("y", "x") if _across(a) else ("x", "y")
    at, values_a, values_b, words = _by_place(a, b, place, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = (values_a > 0) & (values_b > 0)
        drawn = np.log10(np.where(both, values_b / values_a, np.nan)) if ratio else values_b - values_a
    name = _RATIO if ratio else "B − A"
    unified = fig.layout.hovermode == "x unified"
    told = f"%{{{size}:+.4g}} (A %{{customdata[0]:.4g}}, B %{{customdata[1]:.4g}})" if unified else (
        f"{_where(fig, a, only=place)}<br>A %{{customdata[0]:.4g}}<br>B %{{customdata[1]:.4g}}"
        f"<br>{name} %{{{size}:.4g}}{'<br>%{hovertext}' if words is not None else ''}<extra>{a.name or ''}</extra>"
    )  # fmt: skip
    made = {
        place: at,
        size: drawn.astype("float32"),
        "customdata": np.column_stack([values_a, values_b]).astype("float32"),
        "name": a.name,
        "showlegend": a.showlegend,
        "legend": a.legend,
        "legendgroup": a.legendgroup,
        "legendrank": a.legendrank,
        "hovertext": words,
        "hovertemplate": told,
        "xaxis": a.xaxis,
        "yaxis": a.yaxis,
    }
    if a.type == "bar":
        return go.Bar(**made, orientation=a.orientation, marker=_plain(a.marker))
    return go.Scatter(**made, mode=a.mode, line=a.line, marker=_plain(a.marker), connectgaps=False)


def _across(trace: Any) -> bool:
    return bool(trace.type == "bar" and trace.orientation == "h")


def _plain(marker: Any) -> dict[str, Any]:
    """Colour, size and edge of markers; what is given point by point belongs to A alone."""
    parts = {"color": marker.color, "size": getattr(marker, "size", None), "line": marker.line}
    return {key: value for key, value in parts.items() if value is not None and np.ndim(value) == 0}


def _by_place(a: Any, b: Any, place: str, size: str) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray | None]:
    """Every place of either, ascending, with the values of A and B there and the words of both."""
    found: list[dict[Any, tuple[float, Any]]] = []
    for trace in (a, b):
        at = np.asarray(getattr(trace, place)).tolist() if getattr(trace, place) is not None else []
        values = numbers(getattr(trace, size)).tolist()
        words = _first_words(trace.customdata)
        told = [None] * len(at) if words is None else words.tolist()
        entries: dict[Any, tuple[float, Any]] = {}
        for key, value, word in zip(at, values, told, strict=True):
            entries.setdefault(key, (value, word))
        found.append(entries)
    gap = (float("nan"), None)
    keys = [*found[0], *(key for key in found[1] if key not in found[0])]
    numeric = all(isinstance(key, int | float) for key in keys)
    keys = sorted(keys) if numeric else keys
    rows = [(found[0].get(key, gap), found[1].get(key, gap)) for key in keys]
    values_a, values_b = (np.array([row[i][0] for row in rows], dtype=float) for i in (0, 1))
    words_a, words_b = (np.array([row[i][1] for row in rows], dtype=object) for i in (0, 1))
    spoken = any(word is not None for word in words_a)
    return np.array(keys), values_a, values_b, _changes(words_a, words_b) if spoken else None


def _where(fig: go.Figure, trace: Any, only: str = "xy") -> str:
    """The place of a mark as hover tells it, after the titles of its axes."""
    parts = []
    for letter in only:
        title = fig.layout[axis_name(fig, trace, letter)].title.text or _bottom_title(fig, letter)
        parts.append(f"{title.split(' (')[0]} %{{{letter}}}".strip())
    return ", ".join(parts)


def _bottom_title(fig: go.Figure, letter: str) -> str:
    """The title of the last axis that has one: rows of subplots share it."""
    titles = [fig.layout[name].title.text for name in fig.layout if str(name).startswith(f"{letter}axis")]
    return next((title for title in reversed(titles) if title), letter)


def _unit(title: str) -> str:
    return f" {title.replace('<br>', ' ')}" if title else ""


def _frame(fig: go.Figure, subtracted: set[str], ratios: set[str]) -> None:
    """Axes of differences: linear, free, with a line at zero; what was drawn at a value of A is gone."""
    for name in subtracted:
        axis = fig.layout[name]
        title = axis.title.text or ""
        what = _RATIO if name in ratios else "B − A"
        axis.update(
            type="linear", range=None, autorange=True, rangemode="normal", dtick=None, tick0=None, tickvals=None,
            ticktext=None, tickmode="auto", exponentformat=None, zeroline=True, zerolinecolor=NULL_GREY, zerolinewidth=1,
            title={"text": f"{what}<br>{title}" if title else what},
        )  # fmt: skip
    kept = [note for note in fig.layout.annotations if note.xref == "paper" and note.yref == "paper"]
    fig.layout.shapes, fig.layout.annotations = (), kept
    if fig.layout.barmode == "stack":
        fig.layout.barmode = "relative"
