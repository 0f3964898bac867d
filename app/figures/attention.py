"""Attention patterns of one block: all heads as thumbnails, one head large. Rows are queries, columns are keys."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.hover import HOVER_AXES, name_places, place_names
from app.figures.theme import CATEGORICAL, NULL_GREY, SEQUENTIAL, base, token_axis

__all__ = ["attention_map", "head_thumbnails", "max_pool"]

_FLOOR = 1e-4
_THUMBNAIL = 64
_THUMBNAIL_MANY = 40
_MANY_HEADS = 16
_LARGE = 512


def max_pool(pattern: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
    """The last two axes in squares of ``step``, at most ``limit`` a side, each its largest entry; and ``step``."""
    size = pattern.shape[-1]
    step = max(1, math.ceil(size / limit))
    if step == 1:
        return pattern, 1
    starts = np.arange(0, size, step)
    return np.maximum.reduceat(np.maximum.reduceat(pattern, starts, axis=-2), starts, axis=-1), step


def head_thumbnails(pattern: np.ndarray, *, log: bool = True, hide_first: bool = False, step: int = 1) -> go.Figure:
    """All heads of a block in one picture; a cell's ``customdata`` is (head, query, key).

    Args:
        pattern: attention, [heads, queries, keys]; squares of several tokens show their largest entry.
        log: colour by log10, floored at 1e-4.
        hide_first: blank column 0, so that what else a head attends to is seen.
        step: tokens a row and a column of ``pattern`` stand for.
    """
    n_heads = len(pattern)
    small, pooled = max_pool(_blank(pattern, hide_first), _THUMBNAIL if n_heads <= _MANY_HEADS else _THUMBNAIL_MANY)
    size = small.shape[-1]
    columns = math.ceil(math.sqrt(2 * n_heads)) if n_heads > 2 else n_heads
    rows = math.ceil(n_heads / columns)
    gap = max(1, size // 6)
    tile = size + gap
    canvas = np.full((rows * tile, columns * tile), np.nan, dtype="float32")
    where = np.zeros((*canvas.shape, 3), dtype="int16")
    first_token = (np.arange(size) * pooled * step).astype("int16")
    annotations = []
    for head in range(n_heads):
        row, column = divmod(head, columns)
        down, across = slice(row * tile + gap, (row + 1) * tile), slice(column * tile, column * tile + size)
        canvas[down, across] = small[head]
        where[down, across, 0] = head
        where[down, across, 1] = first_token[:, None]
        where[down, across, 2] = first_token[None, :]
        place = {"x": column * tile + size / 2, "y": row * tile + gap - 1, "yanchor": "bottom", "showarrow": False}
        annotations.append({"text": f"head {head}", "font": {"size": 10}, **place})
    fig = go.Figure(
        go.Heatmap(
            z=_scaled(canvas, log),
            customdata=where,
            hoverongaps=False,
            hovertemplate="head %{customdata[0]}, query %{customdata[1]}, key %{customdata[2]}"
            f"<br>{_hover_value(log)}<extra></extra>",
            **_colour(log),
        )
    )
    base(fig, height=60 + 120 * rows, legend=False)
    fig.update_layout(annotations=annotations)
    fig.update_xaxes(visible=False, range=[-0.5, columns * tile - 0.5])
    return fig.update_yaxes(visible=False, range=[rows * tile - 0.5, -gap - 0.5])


def attention_map(
    pattern: np.ndarray,
    column_sum: np.ndarray,
    tokens: Sequence[str],
    *,
    log: bool = True,
    hide_first: bool = False,
    step: int = 1,
) -> go.Figure:
    """One head: queries by keys, the upper triangle blank, the sum of each column above.

    Args:
        pattern: attention, [queries, keys]; more than 512 a side are pooled to their largest entry.
        column_sum: attention to each token summed over queries, never pooled.
        tokens: raw tokens.
        log: colour by log10, floored at 1e-4.
        hide_first: blank column 0 in map and sums.
        step: tokens a row and a column of ``pattern`` already stand for.
    """
    small, pooled = max_pool(_blank(pattern, hide_first), _LARGE)
    width = pooled * step
    n_tokens = len(tokens)
    starts = np.arange(len(small)) * width
    centres = starts + (width - 1) / 2
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.18, 0.82], vertical_spacing=0.02)
    names = place_names(tokens)
    sums = column_sum.astype("float32")
    shown = slice(1 if hide_first else 0, None)
    fig.add_bar(
        x=np.arange(n_tokens)[shown],
        y=sums[shown],
        marker={"color": CATEGORICAL[0], "line": {"width": 0}},
        customdata=np.array(names, dtype=object)[shown],
        hovertemplate="key %{customdata}<br>%{y:.4g} attention in all<extra></extra>",
        row=1,
        col=1,
    )
    fig.add_heatmap(
        x=centres,
        y=centres,
        z=_scaled(small, log),
        hoverongaps=False,
        hovertemplate=f"query %{{y}}<br>key %{{x}}<br>{_hover_value(log)}<extra></extra>",
        **_colour(log),
        **HOVER_AXES,
    )
    base(fig, height=620, legend=False)
    fig.update_layout(bargap=0.1)
    token_axis(fig, tokens, row=2, col=1)
    token_axis(fig, tokens, axis="y", limit=40, row=2, col=1)
    pooled_note = f" (largest of {width} × {width})" if width > 1 else ""
    fig.update_xaxes(title_text=f"key{pooled_note}", range=[-0.5, n_tokens - 0.5], row=2, col=1)
    fig.update_yaxes(title_text="query", range=[n_tokens - 0.5, -0.5], row=2, col=1)
    fig.update_yaxes(title_text="sum", row=1, col=1)
    fig.update_xaxes(showticklabels=False, row=1, col=1)
    if width > 1:
        names = [f"{start}–{min(start + width, n_tokens) - 1}" for start in starts.tolist()]
    return name_places(fig, x=(centres, names), y=(centres, names), over=("x2", "y2"))


def _blank(pattern: np.ndarray, hide_first: bool) -> np.ndarray:
    size = pattern.shape[-1]
    above = np.triu(np.ones((size, size), dtype=bool), k=1)
    shown = np.where(above, np.float32(-1), pattern.astype("float32"))
    if hide_first:
        shown[..., 0] = -1
    return shown


def _scaled(values: np.ndarray, log: bool) -> np.ndarray:
    """Colour values; blank cells, marked by -1 so that pooling passes them over, become gaps."""
    shown = np.where(values < 0, np.nan, values)
    return np.log10(np.maximum(shown, _FLOOR)).astype("float32") if log else shown.astype("float32")


def _hover_value(log: bool) -> str:
    return "log<sub>10</sub> attention %{z:.2f}" if log else "attention %{z:.4f}"


def _colour(log: bool) -> dict[str, Any]:
    bar = {"title": {"text": "log<sub>10</sub> A" if log else "A"}, "outlinecolor": NULL_GREY}
    limits = {"zmin": math.log10(_FLOOR), "zmax": 0} if log else {"zmin": 0}
    return {"colorscale": SEQUENTIAL, "colorbar": bar, **limits}
