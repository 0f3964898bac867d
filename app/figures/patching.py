"""A logit difference of two tokens: along the points of two runs, and what patching one run into the other restores."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, DIVERGING, NULL_GREY, base, layer_axis, token_axis

__all__ = ["difference_lines", "patch_map"]


def difference_lines(a: pd.DataFrame, b: pd.DataFrame, n_layers: int) -> go.Figure:
    """``logit_diff`` by point in A and B, and B - A; 0 is where both tokens are as likely.

    ``a`` and ``b`` hold the rows ``logit_diff`` of layer_metrics of two runs with the same points.
    """
    fig = go.Figure()
    a, b = a.sort_values("layer"), b.sort_values("layer")
    x, ya, yb = (frame.to_numpy(dtype=float) for frame in (a["layer"], a["value"], b["value"]))
    for name, y, colour, dash in (
        ("A", ya, CATEGORICAL[0], None),
        ("B", yb, CATEGORICAL[1], None),
        ("B − A", yb - ya, NULL_GREY, "dot"),
    ):
        fig.add_scatter(
            x=x, y=y, mode="lines+markers", marker={"size": 3.5}, name=name,
            line={"color": colour, "width": 1.6, "dash": dash},
            hovertemplate=f"point %{{x}}<br>{name} %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    fig.add_hline(y=0, line={"color": NULL_GREY, "width": 1})
    base(fig, height=260, x="point", y="logit difference")
    return layer_axis(fig, n_layers)


def patch_map(rows: pd.DataFrame, source: float, own: float, tokens: tuple[str, ...], n_layers: int) -> go.Figure:
    """Final logit difference of B after A's state was put at one point (row) and position (column).

    ``rows`` hold ``patched_logit_diff`` (layer, pos, value). Red is A's own difference, blue B's: colour is the share of
    the way from B (-1) to A (+1), and white half of it. Raises ValueError if A and B have the same difference.
    """
    if source == own:
        raise ValueError("both runs have the same logit difference: there is nothing to restore")
    grid = np.full((n_layers + 1, len(tokens)), np.nan)
    grid[rows["layer"].to_numpy(dtype=int), rows["pos"].to_numpy(dtype=int)] = rows["value"].to_numpy(dtype=float)
    share = (grid - own) / (source - own)
    fig = go.Figure()
    fig.add_heatmap(
        z=(2 * share - 1).astype("float32"), colorscale=DIVERGING, zmid=0, zmin=-1, zmax=1,
        customdata=np.stack([grid, share], axis=-1).astype("float32"), hoverongaps=False,
        colorbar={"tickvals": [-1, 0, 1], "ticktext": [f"B {own:.1f}", "half", f"A {source:.1f}"]},
        hovertemplate="point %{y}, position %{x}<br>logit difference %{customdata[0]:.3f}"
        "<br>%{customdata[1]:.0%} of the way from B to A<extra></extra>",
    )  # fmt: skip
    base(
        fig, height=max(260, 80 + 10 * (n_layers + 1)), x="token of B whose state was replaced", y="point", legend=False
    )
    layer_axis(fig, n_layers, axis="y")
    return token_axis(fig, tokens)
