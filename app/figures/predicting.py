"""Right answers predicted: the AUC of every predictor beside its control, and ROC curves with bands."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, NULL_GREY, base, fade

__all__ = ["auc_dots", "roc_curves"]


def auc_dots(predictors: pd.DataFrame, shuffled: pd.DataFrame) -> go.Figure:
    """Each predictor's AUC with its 95 % interval, features above, baselines below; grey: the same with labels shuffled.

    ``predictors``: ``name, baseline, auc, low, high, sd``; ``shuffled``: ``name, mean, sd``.
    """
    rows = predictors.sort_values("baseline", kind="stable").reset_index(drop=True)
    place_of = {name: -place for place, name in enumerate(rows["name"])}
    fig = go.Figure()
    for baseline, name, colour in ((False, "of the states", CATEGORICAL[0]), (True, "baseline", CATEGORICAL[1])):
        own = rows[rows["baseline"] == baseline]
        auc, low, high = (own[column].to_numpy(dtype=float) for column in ("auc", "low", "high"))
        fig.add_scatter(
            x=auc, y=np.array([place_of[one] for one in own["name"]]), mode="markers", name=name,
            marker={"color": colour, "size": 9}, text=own["name"].tolist(), customdata=np.stack([low, high], axis=1),
            error_x={"type": "data", "symmetric": False, "array": high - auc, "arrayminus": auc - low, "thickness": 1.2},
            hovertemplate="%{text}<br>AUC %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
        )  # fmt: skip
    if len(shuffled):
        mean, sd = (shuffled[column].to_numpy(dtype=float) for column in ("mean", "sd"))
        fig.add_scatter(
            x=mean, y=np.array([place_of[one] - 0.22 for one in shuffled["name"]]), mode="markers", name="labels shuffled",
            marker={"color": NULL_GREY, "size": 7, "symbol": "diamond"}, text=shuffled["name"].tolist(),
            error_x={"type": "data", "array": sd, "color": NULL_GREY, "thickness": 1}, customdata=sd,
            hovertemplate="%{text}<br>labels shuffled: AUC %{x:.3f}, sd %{customdata:.3f}<extra></extra>",
        )  # fmt: skip
    fig.add_vline(x=0.5, line={"color": NULL_GREY, "width": 1, "dash": "dot"})
    base(fig, height=90 + 34 * len(rows), x="ROC-AUC, out of fold (.5 is chance)")
    ticks = {"tickvals": list(place_of.values()), "ticktext": list(place_of)}
    return fig.update_yaxes(**ticks, range=[0.6 - len(rows), 0.6], showgrid=False)


def roc_curves(curves: pd.DataFrame, names: Sequence[str]) -> go.Figure:
    """True against false positive rate, mean of the folds' curves, with 95 % bands over prompts.

    ``curves``: ``name, fpr, tpr, low, high``; ``names`` are drawn, in this order.
    """
    fig = go.Figure()
    for name, colour in zip(names, CATEGORICAL, strict=False):
        own = curves[curves["name"] == name]
        x, y, low, high = (own[column].to_numpy(dtype=float) for column in ("fpr", "tpr", "low", "high"))
        fig.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines",
            line={"width": 0}, fillcolor=fade(colour, 0.14), showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        fig.add_scatter(
            x=x, y=y, mode="lines", name=name, line={"color": colour, "width": 2}, customdata=np.stack([low, high], axis=1),
            hovertemplate="false positives %{x:.0%}<br>found %{y:.0%} [%{customdata[0]:.0%}, %{customdata[1]:.0%}]<extra>"
            + name + "</extra>",
        )  # fmt: skip
    fig.add_scatter(x=[0, 1], y=[0, 1], mode="lines", showlegend=False, hoverinfo="skip",
                    line={"color": NULL_GREY, "width": 1, "dash": "dot"})  # fmt: skip
    base(fig, height=380, x="wrong answers called right", y="right answers found")
    fig.update_xaxes(range=[0, 1])
    return fig.update_yaxes(range=[0, 1.01])
