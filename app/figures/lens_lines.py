"""Logit lens as lines over points: one position on its way to the answer, and all positions together."""

from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.theme import CATEGORICAL, NULL_GREY, base, fade, layer_axis

__all__ = [
    "COLOURS",
    "NAMES",
    "SUFFIX",
    "Variant",
    "layer_curves",
    "metric_rows",
    "rank_axes",
    "rank_lines",
    "trajectories",
]

Variant = Literal["mean", "raw", "no_norm", "tuned", "tail"]

SUFFIX: dict[Variant, str] = {
    "mean": "@mean", "raw": "", "no_norm": "@no_norm", "tuned": "@tuned", "tail": "@tail",
}  # fmt: skip
NAMES = {
    "mean": "mean-corrected", "raw": "raw", "no_norm": "without final norm", "tuned": "tuned", "tail": "tail",
}  # fmt: skip
COLOURS = {
    "mean": CATEGORICAL[0],
    "raw": CATEGORICAL[1],
    "no_norm": CATEGORICAL[3],
    "tuned": CATEGORICAL[2],
    "tail": CATEGORICAL[5],
}


def trajectories(token_metrics: pd.DataFrame, position: int, n_layers: int) -> go.Figure:
    """One position over all points: KL to the end, entropy, and -ln p of the target and of the model's final answer.

    KL is logarithmic, where a steady approach is a straight line; at point L it is 0 and off the axis.
    """
    panels = (
        ("KL to the end", (("lens_kl", "", None),)),
        ("entropy", (("lens_entropy", "", None),)),
        ("-ln p", (("lens_ce", " target", None), ("lens_ce_final", " final answer", "dot"))),
    )
    fig = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05)
    here = token_metrics[token_metrics["pos"] == position]
    for row, (title, metrics) in enumerate(panels, start=1):
        for metric, what, dash in metrics:
            for variant, suffix in SUFFIX.items():
                line = metric_rows(here, metric + suffix)
                if metric == "lens_kl":
                    line = line[line["value"] > 0]
                if line["value"].isna().all():
                    continue
                fig.add_scatter(
                    x=line["layer"].to_numpy(dtype="int32"),
                    y=line["value"].to_numpy(dtype="float32"),
                    mode="lines+markers",
                    name=f"{NAMES[variant]}{what}",
                    legendgroup=variant,
                    showlegend=row == 3,
                    line={"color": COLOURS[variant], "width": 1.5, "dash": dash},
                    marker={"size": 4},
                    hovertemplate=f"point %{{x}}<br>{title}{what}, {NAMES[variant]}: %{{y:.4g}} nats<extra></extra>",
                    row=row,
                    col=1,
                )
        fig.update_yaxes(title_text=f"{title}<br>(nats)", rangemode="tozero", row=row, col=1)
    fig.update_yaxes(type="log", exponentformat="power", dtick=1, row=1, col=1)
    base(fig, height=440)
    fig.update_xaxes(title_text="point", row=3, col=1)
    return layer_axis(fig, n_layers)


def rank_lines(token_metrics: pd.DataFrame, position: int, n_layers: int, n_vocab: int) -> go.Figure:
    """Rank of the target at one position, best on top, beside the rank of another position's target and of chance."""
    fig = go.Figure()
    here = token_metrics[token_metrics["pos"] == position]
    for metric, what, control in (("lens_rank_control", "another position's target, ", True), ("lens_rank", "", False)):
        for variant, suffix in SUFFIX.items():
            _rank(fig, metric_rows(here, metric + suffix), f"{what}{NAMES[variant]}", variant, control=control)
    return rank_axes(fig, n_layers, n_vocab)


def layer_curves(token_metrics: pd.DataFrame, n_layers: int, n_vocab: int) -> tuple[go.Figure, go.Figure]:
    """Over the positions read but position 0: mean KL to the end with quartiles, and the median rank with its control.

    KL is logarithmic; at point L it is 0 and off the axis.
    """
    later = token_metrics[token_metrics["pos"] > 0]
    kl, ranks = go.Figure(), go.Figure()
    for variant, suffix in SUFFIX.items():
        rows = metric_rows(later, f"lens_kl{suffix}").query("value > 0").groupby("layer")["value"]
        if rows.ngroups:
            _band(kl, rows, variant)
        for metric, what in (("lens_rank_control", "another position's target, "), ("lens_rank", "")):
            defined = metric_rows(later, metric + suffix).dropna(subset="value")
            median = defined.groupby("layer", as_index=False)["value"].agg("median")
            _rank(ranks, median, f"{what}{NAMES[variant]}", variant, control=metric != "lens_rank")
    base(kl, height=320, x="point", y="KL to the end (nats)")
    kl.update_yaxes(type="log", exponentformat="power", dtick=1)
    return layer_axis(kl, n_layers), rank_axes(ranks, n_layers, n_vocab)


def _band(fig: go.Figure, rows: "pd.api.typing.SeriesGroupBy", variant: Variant) -> None:
    """Mean line and quartile band of one variant."""
    stats = rows.agg(["mean", "count"])
    low, high = (rows.quantile(q).to_numpy(dtype="float32") for q in (0.25, 0.75))
    x = stats.index.to_numpy(dtype="int32")
    fig.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=fade(COLOURS[variant], 0.15),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    fig.add_scatter(
        x=x,
        y=stats["mean"].to_numpy(dtype="float32"),
        customdata=stats["count"].to_numpy(dtype="int32"),
        name=NAMES[variant],
        line={"color": COLOURS[variant], "width": 2},
        hovertemplate=f"point %{{x}}<br>mean KL {NAMES[variant]}: %{{y:.4g}} nats<br>%{{customdata}} positions"
        "<extra></extra>",
    )


def _rank(fig: go.Figure, line: pd.DataFrame, name: str, variant: Variant, *, control: bool) -> None:
    if line["value"].isna().all():
        return
    fig.add_scatter(
        x=line["layer"].to_numpy(dtype="int32"),
        y=line["value"].to_numpy(dtype="float32"),
        mode="lines" if control else "lines+markers",
        name=name,
        line={"color": NULL_GREY if control else COLOURS[variant], "width": 1.5, "dash": _dash(variant, control)},
        marker={"size": 4},
        hovertemplate=f"point %{{x}}<br>rank of {name}: %{{y:,}}<extra></extra>",
    )


def _dash(variant: Variant, control: bool) -> str | None:
    """Controls share one grey, so their variants are told apart by dashes."""
    return (
        {"mean": None, "raw": "dash", "no_norm": "dot", "tuned": "dashdot", "tail": "longdash"}[variant]
        if control
        else None
    )


def rank_axes(fig: go.Figure, n_layers: int, n_vocab: int) -> go.Figure:
    """Ranks upwards on a logarithmic axis with the best on top, and the line of chance."""
    base(fig, height=320, x="point", y="rank, best on top")
    fig.add_hline(y=(n_vocab + 1) / 2, line={"color": NULL_GREY, "width": 1, "dash": "dot"}, annotation_text="chance")
    fig.update_yaxes(type="log", range=[np.log10(n_vocab), -0.1], dtick=1, exponentformat="power")
    return layer_axis(fig, n_layers)


def metric_rows(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one metric in order of points; empty with the right columns for a table without rows."""
    if frame.empty:
        return pd.DataFrame(columns=["layer", "pos", "value"])
    return frame[frame["metric"] == name].sort_values("layer")
