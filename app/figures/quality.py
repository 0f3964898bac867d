"""Quality of SAEs side by side: how often latents fire, how many a token takes, and where in a text states are rebuilt well."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.sae_quality import BIN, NEVER
from app.figures.theme import CATEGORICAL, base, fade
from app.text import plot_label

__all__ = ["bar_name", "density_bars", "l0_bars", "position_lines", "source_bars"]

Measured = Mapping[str, pd.DataFrame]
"""The rows of ``sae_quality`` of one corpus, by SAE."""
_NEVER = 2 * BIN  # how far left of the rarest bar those that never fired stand
_LABEL = 40


def density_bars(measured: Measured) -> go.Figure:
    """Latents by log10 of the share of tokens they fire on; those that never fired stand apart, at the left.

    ``customdata`` is the number of the bar (`analysis.sae_quality.density_bars`).
    """
    fig = go.Figure()
    bars = {name: _by_place(rows, "sae_density") for name, rows in measured.items()}
    left = min((bar.index.min() * BIN for bar in bars.values() if len(bar)), default=-1.0) - _NEVER
    for colour, (name, rows) in zip(_colours(measured), measured.items(), strict=True):
        never = _one(rows, "sae_never_fired")
        counts = bars[name]
        total = counts.sum() / (1 - never) if never < 1 else np.nan
        x = np.append(left, counts.index.to_numpy(dtype=float) * BIN + BIN / 2)
        y = np.append(never * total if np.isfinite(total) else np.nan, counts.to_numpy(dtype=float))
        places = [NEVER, *(int(place) for place in counts.index)]
        fig.add_bar(
            x=x, y=y, width=BIN * 0.92, name=plot_label(name, _LABEL), customdata=np.array(places, dtype="int32"),
            text=[bar_name(place) for place in places], textposition="none", marker={"color": fade(colour, 0.75)},
            hovertemplate="%{text}<br>%{y:,.0f} latents<extra></extra>",
        )  # fmt: skip
    base(fig, height=260, x="log10 of the share of tokens it fires on", y="latents", legend=len(measured) > 1)
    ticks = [tick for tick in range(-7, 1) if tick > left + _NEVER / 2]
    fig.update_xaxes(tickvals=[left, *ticks], ticktext=["never", *map(str, ticks)], range=[left - BIN, BIN / 2])
    return fig.update_layout(barmode="overlay")


def bar_name(place: int) -> str:
    """What a bar of the density histogram counts."""
    return "never fired" if place == NEVER else f"10^{place * BIN:.2f} to 10^{place * BIN + BIN:.2f} of tokens"


def l0_bars(measured: Measured) -> go.Figure:
    """Share of tokens by how many latents are active at them."""
    fig = go.Figure()
    for colour, (name, rows) in zip(_colours(measured), measured.items(), strict=True):
        counts = _by_place(rows, "sae_l0_count")
        fig.add_bar(
            x=counts.index.to_numpy(dtype=int), y=(counts / max(counts.sum(), 1)).to_numpy(dtype=float),
            name=plot_label(name, _LABEL), marker={"color": fade(colour, 0.75)},
            hovertemplate="%{x} active latents<br>%{y:.1%} of tokens<extra></extra>",
        )  # fmt: skip
    base(fig, height=260, x="active latents at a token (L0)", y="share of tokens", legend=len(measured) > 1)
    fig.update_xaxes(rangemode="tozero")
    return fig.update_layout(barmode="overlay", bargap=0.05)


def position_lines(measured: Measured) -> go.Figure:
    """Explained variance by position in the sequence, position 0 and massive tokens left out."""
    fig = go.Figure()
    for colour, (name, rows) in zip(_colours(measured), measured.items(), strict=True):
        line = rows[rows["metric"] == "sae_explained_variance_by_pos"].sort_values("pos")
        fig.add_scatter(
            x=line["pos"].to_numpy(dtype=int), y=line["value"].to_numpy(dtype=float), mode="lines",
            name=plot_label(name, _LABEL), line={"color": colour, "width": 1.6},
            customdata=line["n_used"].to_numpy(dtype=int),
            hovertemplate="position %{x}<br>explained variance %{y:.3f}<br>%{customdata} tokens<extra></extra>",
        )  # fmt: skip
    return base(fig, height=260, x="position in the sequence", y="explained variance", legend=len(measured) > 1)


def source_bars(measured: Measured) -> go.Figure:
    """Explained variance by source of text, the worst on top; the number of tokens on hover."""
    fig = go.Figure()
    for colour, (name, rows) in zip(_colours(measured), measured.items(), strict=True):
        of = rows[rows["metric"].str.startswith("sae_explained_variance:")].sort_values("value")
        fig.add_bar(
            y=[plot_label(metric.split(":", 1)[1], _LABEL) for metric in of["metric"]],
            x=of["value"].to_numpy(dtype=float), orientation="h", name=plot_label(name, _LABEL),
            marker={"color": colour}, customdata=of["n_used"].to_numpy(dtype=int),
            hovertemplate="%{y}<br>explained variance %{x:.3f}<br>%{customdata} tokens<extra></extra>",
        )  # fmt: skip
    sources = {metric for rows in measured.values() for metric in rows["metric"] if ":" in metric}
    base(fig, height=90 + 15 * max(len(sources), 3), x="explained variance", legend=len(measured) > 1)
    return fig.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 10}, dtick=1)


def _by_place(rows: pd.DataFrame, metric: str) -> "pd.Series[float]":
    here = rows[rows["metric"] == metric]
    found: pd.Series[float] = here.set_index(here["pos"].astype(int))["value"].astype(float).sort_index()
    return found


def _one(rows: pd.DataFrame, metric: str) -> float:
    found = rows.loc[rows["metric"] == metric, "value"]
    return float(found.iloc[0]) if len(found) else float("nan")


def _colours(measured: Measured) -> list[str]:
    return [CATEGORICAL[at % len(CATEGORICAL)] for at in range(len(measured))]
