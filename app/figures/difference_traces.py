"""B − A of two traces of the same kind: a heatmap cell by cell, a line or bars at each place."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.figures.scales import axis_name, numbers
from app.figures.strip_scale import FLOOR
from app.figures.theme import DIVERGING

__all__ = ["RATIO", "across", "alike", "cells", "floor_of", "line"]

RATIO = "log<sub>10</sub> (B / A)"


def cells(fig: go.Figure, a: Any, b: Any) -> go.Heatmap:
    x, y = _places(a, "x", 1, b), _places(a, "y", 0, b)
    values = [_on_grid(numbers(trace.z), trace, x, y) for trace in (a, b)]
    said = [_on_grid(_words(trace), trace, x, y) for trace in (a, b)]
    told = [_on_grid(_words(trace, drawn=False), trace, x, y) for trace in (a, b)]
    z = values[1] - values[0]
    floor, largest = floor_of(values), float(np.nanmax(np.abs(z), initial=0.0))
    span = max(floor, largest) if largest else 1.0
    bar = a.colorbar.title.text or ""
    title = f"B − A<br>{bar}" if bar else "B − A"
    if 0 < largest <= floor:
        title += f"<br>{alike(floor)}"
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


def floor_of(values: Any) -> float:
    """The difference below which two numbers of these magnitudes are the same."""
    return FLOOR * float(np.nanmax(np.abs(np.asarray(values, dtype=float)), initial=0.0))


def alike(floor: float) -> str:
    return f"no difference above {floor:.1g}"


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


def line(fig: go.Figure, a: Any, b: Any, *, ratio: bool) -> Any:
    place, size = ("y", "x") if across(a) else ("x", "y")
    at, values_a, values_b, words = _by_place(a, b, place, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = (values_a > 0) & (values_b > 0)
        drawn = np.log10(np.where(both, values_b / values_a, np.nan)) if ratio else values_b - values_a
    name = RATIO if ratio else "B − A"
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


def across(trace: Any) -> bool:
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
