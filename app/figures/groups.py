"""Groups of prompts by layer: both means with bands, their difference, every prompt, and the sign over conventions."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.alpha import ESTIMATORS, WINDOWS
from app.figures.hover import HOVER_AXES, name_places
from app.figures.spectra_layers import COLOURS, PREPARATIONS
from app.figures.theme import CATEGORICAL, DIVERGING, NULL_GREY, SEQUENTIAL, base, fade, layer_axis
from app.text import plot_label

__all__ = ["difference_line", "mean_lines", "prompt_heatmap", "reversal_lines", "sign_curve"]

_BOTH = ("first", "second")
_SIGNIFICANT = 0.05


def mean_lines(table: pd.DataFrame, names: Sequence[str], metric: str, nulls: pd.DataFrame | None = None) -> go.Figure:
    """The mean of each side at every point with its 95 % band; a filled mark where the sides differ (corrected p < .05).

    ``table`` is that of :class:`analysis.groups.GroupComparison` or ``PairedComparison``; ``nulls`` has ``layer, value,
    name``: lines of what chance gives, in grey.
    """
    fig = go.Figure()
    x = table["layer"].to_numpy()
    differ = (table["p_bh"] < _SIGNIFICANT).to_numpy()
    for side, name, colour in zip(_BOTH, names, CATEGORICAL, strict=False):
        label = plot_label(name, 40)
        low, high = (table[f"{end}_{side}"].to_numpy(dtype=float) for end in ("low", "high"))
        fig.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines",
            line={"width": 0}, fillcolor=fade(colour, 0.18), showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        count = table["n"] if "n" in table else table[f"n_{side}"]
        fig.add_scatter(
            x=x, y=table[f"mean_{side}"].to_numpy(dtype=float), mode="lines+markers", name=label,
            line={"color": colour, "width": 2},
            marker={"size": 6, "symbol": np.where(differ, "circle", "circle-open")},
            customdata=np.stack([low, high, count.to_numpy(dtype=float)], axis=1),
            hovertemplate="point %{x}<br>%{y:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<br>"
            "%{customdata[2]} prompts<extra>" + label + "</extra>",
        )  # fmt: skip
    for name, rows in nulls.groupby("name", sort=False) if nulls is not None else ():
        fig.add_scatter(
            x=rows["layer"].to_numpy(), y=rows["value"].to_numpy(dtype=float), mode="lines", name=str(name),
            line={"color": NULL_GREY, "width": 1.5, "dash": "dot" if str(name).startswith("permuted") else "dashdot"},
            hovertemplate="point %{x}<br>%{y:.4g}<extra>" + str(name) + "</extra>",
        )  # fmt: skip
    base(fig, height=320, x="point (0 embeddings, b + 1 = output of block b)", y=metric)
    return layer_axis(fig, int(x.max()))


def difference_line(table: pd.DataFrame, what: str) -> go.Figure:
    """The difference at every point with its 95 % interval; filled where p corrected over points is below .05."""
    fig = go.Figure()
    low, high = (table[end].to_numpy(dtype=float) for end in ("low", "high"))
    middle = table["difference"].to_numpy(dtype=float)
    shown = [table[name].to_numpy(dtype=float) for name in ("low", "high", "p_bh")]
    third = table["p_permuted"] if "p_permuted" in table else table["p"]
    fig.add_scatter(
        x=table["layer"].to_numpy(), y=middle, mode="markers", marker={
            "size": 7, "color": CATEGORICAL[3],
            "symbol": np.where((table["p_bh"] < _SIGNIFICANT).to_numpy(), "circle", "circle-open"),
        },
        error_y={"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low, "thickness": 1.2},
        customdata=np.stack([*shown, third.to_numpy(dtype=float)], axis=1),
        hovertemplate="point %{x}<br>%{y:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<br>"
        "p over points %{customdata[2]:.3g}, "
        + ("permuted" if "p_permuted" in table else "alone") + " %{customdata[3]:.3g}<extra></extra>",
    )  # fmt: skip
    fig.add_hline(y=0, line={"color": NULL_GREY, "width": 1})
    base(fig, height=240, x="point", y=what, legend=False)
    return layer_axis(fig, int(table["layer"].max()))


def reversal_lines(table: pd.DataFrame, models: Sequence[str], what: str) -> go.Figure:
    """The difference between two groups in each of two models, at every point, with 95 % bands; filled where it turns."""
    fig = go.Figure()
    x, turns = table["layer"].to_numpy(), np.array([one is True for one in table["reverses"]])
    for column, letter, model, colour in zip(("base", "instruct"), "AB", models, CATEGORICAL, strict=False):
        name = f"{letter} {plot_label(model, 40)}"
        middle, low, high = (table[f"{column}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        fig.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines",
            line={"width": 0}, fillcolor=fade(colour, 0.18), showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        fig.add_scatter(
            x=x, y=middle, mode="lines+markers", name=name, line={"color": colour, "width": 2},
            marker={"size": 6, "symbol": np.where(turns, "circle", "circle-open")}, customdata=np.stack([low, high], axis=1),
            hovertemplate="point %{x}<br>%{y:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<extra>" + name + "</extra>",
        )  # fmt: skip
    fig.add_hline(y=0, line={"color": NULL_GREY, "width": 1})
    base(fig, height=260, x="point", y=what)
    return layer_axis(fig, int(x.max()))


def prompt_heatmap(
    values: NDArray[np.float64], ids: Sequence[str], groups: Sequence[str], metric: str, *, standardised: bool
) -> go.Figure:
    """Prompts along x (in the order given), points along y; ``standardised`` values are robust z within their group."""
    count, points = values.shape
    names = [f"{plot_label(one, 40)} ({plot_label(group, 24)})" for one, group in zip(ids, groups, strict=True)]
    colours = {"colorscale": DIVERGING, "zmid": 0.0} if standardised else {"colorscale": SEQUENTIAL}
    meaning = f"robust z of {metric}" if standardised else metric
    fig = go.Figure(
        go.Heatmap(
            z=values.T.astype("float32"), x=np.arange(count), y=np.arange(points), **colours, **HOVER_AXES,
            colorbar={"title": {"text": "z" if standardised else metric, "side": "right"}, "thickness": 12},
            hovertemplate=f"%{{x}}<br>point %{{y}}<br>%{{z:.4g}} {meaning}<extra></extra>", hoverongaps=False,
        )
    )  # fmt: skip
    edges = [place for place in range(1, count) if groups[place] != groups[place - 1]]
    base(fig, height=330, x="prompt", y="point", legend=False)
    for edge in edges:
        fig.add_vline(x=edge - 0.5, line={"color": NULL_GREY, "width": 2})
    starts = [0, *edges]
    middles = [(start + end) / 2 for start, end in zip(starts, [*edges, count], strict=True)]
    fig.update_xaxes(
        tickvals=middles, ticktext=[plot_label(groups[start], 24) for start in starts], range=[-0.5, count - 0.5]
    )
    layer_axis(fig, points - 1, axis="y")
    return name_places(fig, x=(np.arange(count), names))


def sign_curve(table: pd.DataFrame, what: str) -> go.Figure:
    """The difference under every convention of alpha, sorted, with its interval; below, which convention each one is.

    ``table`` is that of :class:`analysis.group_specification.GroupSpecification`. The headline is a star.
    """
    defined = table[table["difference"].notna()].reset_index(drop=True)
    labels = [*PREPARATIONS.values(), *WINDOWS.values(), *ESTIMATORS.values()]
    height_of = {label: -place for place, label in enumerate(labels)}
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.5, 0.5], vertical_spacing=0.03)
    for prep, name in PREPARATIONS.items():
        rows = defined[defined["prep"] == prep]
        if rows.empty:
            continue
        middle, low, high = (rows[column].to_numpy(dtype=float) for column in ("difference", "low", "high"))
        told = [
            f"{PREPARATIONS[row.prep]}, {WINDOWS[row.window]}, {ESTIMATORS[row.estimator]}<br>"
            f"{row.difference:.4g} [{row.low:.4g}, {row.high:.4g}], p = {row.p:.3g}, g = {row.g:.3g}"
            for row in rows.itertuples()
        ]
        headline = (rows["name"] == "headline").to_numpy()
        fig.add_scatter(
            x=rows.index.to_numpy(), y=middle, mode="markers", name=name, text=told, hovertemplate="%{text}<extra></extra>",
            marker={
                "color": COLOURS[prep], "size": np.where(headline, 13, 7), "symbol": np.where(headline, "star", "circle"),
                "opacity": 1,
            },
            error_y={"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low,
                     "thickness": 1, "color": COLOURS[prep], "width": 2}, row=1, col=1,
        )  # fmt: skip
        for column, names in (("prep", PREPARATIONS), ("window", WINDOWS), ("estimator", ESTIMATORS)):
            fig.add_scatter(
                x=rows.index.to_numpy(), y=np.array([height_of[names[key]] for key in rows[column]]), mode="markers",
                showlegend=False, text=told, hovertemplate="%{text}<extra></extra>",
                marker={"color": COLOURS[prep], "size": 6, "symbol": "square"}, row=2, col=1,
            )  # fmt: skip
    fig.add_hline(y=0, line={"color": NULL_GREY, "width": 1}, row=1, col=1)
    base(fig, height=480)
    fig.update_yaxes(title_text=what, row=1, col=1)
    ticks = {"tickvals": list(height_of.values()), "ticktext": list(height_of), "tickfont": {"size": 10}}
    fig.update_yaxes(**ticks, range=[0.7 - len(labels), 0.7], row=2, col=1)
    return fig.update_xaxes(showticklabels=False, showgrid=False, range=[-0.7, max(len(defined), 1) - 0.3])
