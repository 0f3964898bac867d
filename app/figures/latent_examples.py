"""Examples of what a latent fires on: one line of text each, the token it peaks at in the middle, coloured by activation."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, base, fade
from app.text import plot_label, visible

__all__ = ["REACH", "example_strips"]

REACH = 58
"""Signs of text that are drawn to each side of the middle of the peak."""

_SIGNS, _SPACES = 24, 4
_OPAQUE = 0.6  # of the strongest cell: text in the page's own colour stays readable on it, light or dark
_FONT = "'Source Code Pro', 'DejaVu Sans Mono', 'Liberation Mono', monospace"


@dataclass(frozen=True, slots=True)
class _Cell:
    """A token as it is drawn: its label, and the signs before it and in it."""

    label: str
    before: int
    wide: int
    after: int

    @property
    def width(self) -> int:
        return max(self.before + self.wide + self.after, 1)


def example_strips(rows: pd.DataFrame, names: Sequence[str], most: float) -> go.Figure:
    """Lines of text, the first on top.

    Args:
        rows: the tokens of all lines in their order: ``example`` (0, 1, ...), ``pos``, ``token`` (raw text), ``activation``,
            ``peak`` (true at one token of each), ``text`` (raw name of the text it comes from).
        names: what stands before each line (escaped here).
        most: the activation that has the full colour.
    """
    places, hovers = [], []
    for example, line in rows.groupby("example", sort=True):
        cells = [_cell(token) for token in line["token"]]
        ends = np.cumsum([cell.width for cell in cells])
        starts = ends - [cell.width for cell in cells]
        peak = int(line["peak"].to_numpy().argmax())
        middle = starts[peak] + cells[peak].before + cells[peak].wide / 2
        for cell, start, token in zip(cells, starts - middle, line.itertuples(), strict=True):
            if start < -REACH or start + cell.width > REACH:
                continue
            places.append((start, cell.width, example, token.activation, cell.before, cell.wide, token.peak))
            said = "left out of the index" if np.isnan(token.activation) else f"activation {token.activation:.4g}"
            named = f"{plot_label(str(token.token))}<br>{said}"
            hovers.append((f"{named}<br>token {token.pos} of {plot_label(str(token.text), 60)}", cell.label))
    drawn = pd.DataFrame(places, columns=["start", "width", "line", "activation", "before", "wide", "peak"])
    fig = go.Figure(_boxes(drawn, [hover for hover, _ in hovers], most))
    fig.add_trace(_words(drawn, [label for _, label in hovers]))
    base(fig, height=46 + 22 * max(len(names), 1), legend=False)
    fig.update_xaxes(range=[-REACH - 1, REACH + 1], showgrid=False, showticklabels=False, fixedrange=True)
    ticks = {"tickmode": "array", "tickvals": np.arange(len(names)), "ticktext": [plot_label(name) for name in names]}
    fig.update_yaxes(**ticks, range=[len(names) - 0.5, -0.5], showgrid=False, fixedrange=True)
    return fig.update_layout(bargap=0.1, dragmode=False)


def _boxes(drawn: pd.DataFrame, hovers: list[str], most: float) -> go.Bar:
    colour = CATEGORICAL[1]
    return go.Bar(
        x=drawn["width"].to_numpy(dtype="float32"),
        base=drawn["start"].to_numpy(dtype="float32"),
        y=drawn["line"].to_numpy(dtype="int16"),
        orientation="h",
        customdata=np.array(hovers, dtype=object),
        marker={
            "color": drawn["activation"].fillna(0.0).to_numpy(dtype="float32"),
            "cmin": 0.0,
            "cmax": max(most, 1e-12),
            "colorscale": [[0.0, fade(colour, 0.0)], [1.0, fade(colour, _OPAQUE)]],
            "line": {"width": drawn["peak"].to_numpy(dtype="int8"), "color": colour},
        },
        hovertemplate="%{customdata}<extra></extra>",
    )


def _words(drawn: pd.DataFrame, labels: list[str]) -> go.Scatter:
    texts = [f"<b>{label}</b>" if peak else label for label, peak in zip(labels, drawn["peak"], strict=True)]
    return go.Scatter(
        x=(drawn["start"] + drawn["before"] + drawn["wide"] / 2).to_numpy(dtype="float32"),
        y=drawn["line"].to_numpy(dtype="int16"),
        mode="text",
        text=texts,
        textfont={"family": _FONT, "size": 12, "weight": 500},
        hoverinfo="skip",
    )


def _cell(token: str) -> _Cell:
    """How a token is drawn: spaces at its ends as room, a few at most, the rest visible and escaped."""
    core = token.strip(" ")
    if not core:
        return _Cell("", min(len(token), _SPACES), 0, 0) if token else _Cell(plot_label(token), 0, 1, 0)
    before = min(len(token) - len(token.lstrip(" ")), _SPACES)
    after = min(len(token) - len(token.rstrip(" ")), _SPACES)
    shown = visible(core)
    shown = shown if len(shown) <= _SIGNS else shown[: _SIGNS - 1] + "…"
    wide = sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in shown)
    return _Cell(plot_label(core, _SIGNS), before, wide, after)
