"""The specification curve: alpha of one layer under every convention."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.alpha import ESTIMATORS, WINDOWS
from app.figures.spectra_layers import COLOURS, PREPARATIONS
from app.figures.theme import base

__all__ = ["specification_curve"]

_HOVER = (
    "alpha %{customdata[3]} (singular values)<br>%{customdata[4]}<br>ranks %{customdata[5]}, R² %{customdata[6]}, "
    "%{customdata[7]} tokens<extra></extra>"
)


def specification_curve(curve: pd.DataFrame) -> go.Figure:
    """Alpha under every convention, sorted; below, which preparation, ranks and estimator each one is.

    ``curve`` is :func:`analysis.specification.specification`; ``customdata`` of every mark begins with its preparation,
    window and estimator. The headline convention is a star; an undefined one has its marks below, and the reason.
    """
    labels = [*PREPARATIONS.values(), *WINDOWS.values(), *ESTIMATORS.values()]
    height_of = {label: -i for i, label in enumerate(labels)}
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.5, 0.5], vertical_spacing=0.03)
    for prep, name in PREPARATIONS.items():
        rows = curve[curve["prep"] == prep]
        if rows.empty:
            continue
        headline = rows["name"] == "headline"
        shared: dict[str, Any] = {"mode": "markers", "customdata": _told(rows), "hovertemplate": _HOVER}
        symbol, size = np.where(headline, "star", "circle"), np.where(headline, 13, 8)
        marker = {"color": COLOURS[prep], "symbol": symbol, "size": size, "opacity": 1}
        x = rows.index.to_numpy()
        fig.add_scatter(x=x, y=rows["alpha"].to_numpy(), name=name, marker=marker, **shared, row=1, col=1)
        what: dict[str, Mapping[Any, str]] = {"prep": PREPARATIONS, "window": WINDOWS, "estimator": ESTIMATORS}
        for column, label_of in what.items():
            fig.add_scatter(
                x=x,
                y=np.array([height_of[label_of[key]] for key in rows[column]]),
                showlegend=False,
                marker={"color": COLOURS[prep], "size": 6, "symbol": "square"},
                **shared,
                row=2,
                col=1,
            )
    base(fig, height=460)
    fig.update_yaxes(title_text="alpha (singular values)", row=1, col=1)
    ticks = {"tickvals": list(height_of.values()), "ticktext": list(height_of), "tickfont": {"size": 10}}
    fig.update_yaxes(**ticks, range=[0.7 - len(labels), 0.7], row=2, col=1)
    return fig.update_xaxes(showticklabels=False, showgrid=False, range=[-0.7, len(curve) - 0.3])


def _told(rows: pd.DataFrame) -> np.ndarray:
    """For each convention: its three keys, then alpha or the reason, what it is, ranks, R2 and tokens."""
    told = []
    for row in rows.to_dict("records"):
        defined = np.isfinite(row["alpha"])
        alpha = f"{row['alpha']:.4f}" if defined else f"undefined: {row['status'].replace('_', ' ')}"
        meaning = f"{PREPARATIONS[row['prep']]}, {WINDOWS[row['window']]}, {ESTIMATORS[row['estimator']]}"
        named = f" ({row['name']})" if row["name"] else ""
        keys = (row["prep"], row["window"], row["estimator"])
        told.append(
            (*keys, alpha, meaning + named, f"{row['kmin']}-{row['kmax']}", round(row["r2"], 3), row["n_tokens"])
        )
    return np.array(told, dtype=object)
