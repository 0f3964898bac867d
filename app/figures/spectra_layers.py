"""What spectra say at each layer: alpha and descriptors by preparation, and directions above noise."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, NULL_GREY, base, layer_axis, mark

__all__ = ["COLOURS", "METRICS", "PREPARATIONS", "by_layer", "directions_by_layer", "layer_line"]

PREPARATIONS: Mapping[str, str] = {
    "normed": "normed",
    "raw_all": "raw, all tokens",
    "raw_no_bos": "raw, no position 0",
    "raw_no_sink": "raw, no sinks",
}
METRICS: Mapping[str, str] = {
    "alpha_sigma": "alpha (singular values)",
    "alpha_sigma_lowrank": "alpha, lower half of the ranks (singular values)",
    "alpha_sigma_11_100": "alpha, ranks 11-100 (singular values)",
    "alpha_r2": "R² of the log-log fit",
    "alpha_curvature": "curvature of the log-log fit",
    "alpha_tail": "tail exponent (density of eigenvalues)",
    "erank_sigma": "effective rank (singular values)",
    "participation_ratio": "participation ratio",
    "stable_rank": "stable rank",
    "spectral_entropy": "spectral entropy (nats)",
    "matrix_entropy": "matrix entropy (nats)",
    "anisotropy": "anisotropy: variance in the first direction",
}
COLOURS: Mapping[str, str] = dict(zip(PREPARATIONS, CATEGORICAL[:4], strict=True))
_STYLES: dict[str, dict[str, Any]] = {prep: {"color": colour, "width": 1.5} for prep, colour in COLOURS.items()}
_STYLES["normed"]["width"] = 2
_STYLES["raw_no_sink"]["dash"] = "dash"  # often the same tokens as without position 0
_NEAR_END = 0.85
_NULLS = {"alpha_null": ("columns permuted", "dot"), "alpha_null_iid": ("iid Gaussian", "dashdot")}


def by_layer(
    layer_metrics: pd.DataFrame,
    metric: str,
    n_layers: int,
    *,
    nulls: bool = False,
    event: tuple[int, str] | None = None,
) -> go.Figure:
    """One metric of `METRICS` at every point, a line for each preparation; gaps where it is undefined.

    ``nulls`` adds both null alphas in grey; ``event`` marks a point with a label. Low confidence is an open marker.
    Raises KeyError for a metric that has no title.
    """
    title = METRICS[metric]
    fig = go.Figure()
    for prep, name in PREPARATIONS.items():
        rows = _rows(layer_metrics, metric if prep == "normed" else f"{metric}@{prep}")
        layer_line(fig, rows, name, _STYLES[prep], f"{title}, {name}")
    if nulls:
        for null, (name, dash) in _NULLS.items():
            style = {"color": NULL_GREY, "width": 1.5, "dash": dash}
            layer_line(fig, _rows(layer_metrics, null), name, style, f"{title} of the normed matrix, {name}")
    base(fig, height=300, x="point (0 embeddings, b + 1 = output of block b)", y=title)
    if event is not None:
        mark(fig, *event)
        if event[0] > _NEAR_END * n_layers:  # its label would stand out of the figure
            fig.update_annotations(xanchor="right")
        fig.update_layout(margin={"t": 48}, legend={"y": 1.08})
    return layer_axis(fig, n_layers)


def directions_by_layer(layer_metrics: pd.DataFrame, n_layers: int) -> go.Figure:
    """Directions above the column-permuted 99 % level at every point, beside the Marchenko-Pastur outliers (grey)."""
    fig = go.Figure()
    rows = _rows(layer_metrics, "n_parallel")
    layer_line(fig, rows, "parallel analysis", _STYLES["normed"], "directions above the permuted 99 % level")
    law = {"color": NULL_GREY, "width": 1.5, "dash": "dot"}
    name = "Marchenko-Pastur outliers (assumes independent rows)"
    layer_line(fig, _rows(layer_metrics, "n_mp_outliers"), name, law, "eigenvalues above the Marchenko-Pastur edge")
    base(fig, height=300, x="point", y="directions")
    fig.update_yaxes(rangemode="tozero")
    return layer_axis(fig, n_layers)


def layer_line(fig: go.Figure, rows: pd.DataFrame, name: str, line: Mapping[str, object], meaning: str) -> None:
    """One metric (``layer, value, n_used, status``) along the points; low confidence is an open marker, a gap a gap."""
    if rows["value"].isna().all():
        return
    confident = (rows["status"] == "ok").to_numpy()
    fig.add_scatter(
        x=rows["layer"].to_numpy(),
        y=rows["value"].to_numpy(dtype="float32", na_value=np.nan),
        customdata=rows["n_used"].to_numpy(),
        mode="lines+markers",
        name=name,
        line=dict(line),
        marker={"size": 5, "symbol": np.where(confident, "circle", "circle-open")},
        hovertemplate=f"point %{{x}}<br>%{{y:.4g}} {meaning}<br>n = %{{customdata}}<extra></extra>",
    )


def _rows(layer_metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    return layer_metrics[layer_metrics["metric"] == metric].sort_values("layer")
