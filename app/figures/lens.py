"""Logit lens as a map of points and positions: what each state reads as, coloured by how good or sure the reading is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from analysis.lens import scaled_confidence
from app.figures.hover import HOVER_AXES, name_places, place_names
from app.figures.lens_lines import NAMES, SUFFIX, Variant, metric_rows
from app.figures.theme import SEQUENTIAL, base, layer_axis, token_axis
from app.text import plot_label

__all__ = ["COLOURS", "lens_map"]

Scope = Literal["global", "layer", "token"]

_CELL_TEXT = 24  # columns up to which a cell is wide enough for a token
_HOVER_TOKENS = 5


@dataclass(frozen=True, slots=True)
class Colour:
    """A quantity to colour the map by: its metric, what it is called, and how the hover puts it."""

    metric: str
    title: str
    hover: str
    log: bool = False
    scope: Scope | None = None


_SCOPES: dict[str, Scope] = {"the map": "global", "each layer": "layer", "each token": "token"}
COLOURS = {
    "p of the top token": Colour("lens_top1_nlp", "p", "probability of its top token %{customdata[1]:.3f}"),
    "KL to the end": Colour("lens_kl", "KL (nats)", "KL(end || here) %{customdata[1]:.4g} nats"),
    "entropy": Colour("lens_entropy", "entropy<br>(nats)", "entropy %{customdata[1]:.3f} nats"),
    "rank of the target": Colour(
        "lens_rank", "log<sub>10</sub> rank", "rank of the target %{customdata[1]:,}", log=True
    ),
    "loss of the target": Colour("lens_ce", "-ln p<br>(nats)", "-ln p of the target %{customdata[1]:.3f} nats"),
    **{
        f"confidence, scaled over {what}": Colour(
            "lens_top1_nlp", "scaled<br>ln p", "-ln p of its top token %{customdata[1]:.3f} nats", scope=scope
        )
        for what, scope in _SCOPES.items()
    },
}


def lens_map(
    topk: pd.DataFrame,
    token_metrics: pd.DataFrame,
    tokens: Sequence[str],
    n_layers: int,
    texts: Mapping[int, str],
    *,
    colour: str,
    variant: Variant,
    first: int = 0,
) -> go.Figure:
    """Points by positions, coloured by one of `COLOURS`; the top tokens in the hover, and in the cell where it is wide.

    ``tokens`` are those from position ``first`` on; ``texts`` gives the raw text of every token id in ``topk``. White
    dots stand where the prediction has settled (``lens_depth`` of the variant). Positions that were not read are gaps.
    """
    chosen = COLOURS[colour]
    shape = (n_layers + 1, len(tokens))
    values = _grid(metric_rows(token_metrics, chosen.metric + SUFFIX[variant]), "value", shape, first)
    best, told = _top_texts(topk[topk["variant"] == variant], texts, shape, first)
    z, shown = _coloured(values, chosen)
    high = float(np.nanquantile(z, 0.98)) if chosen.metric in ("lens_kl", "lens_ce") and np.isfinite(z).any() else None
    positions = np.arange(first, first + len(tokens))
    customdata = np.stack([told, _short(shown)], axis=-1)
    fig = go.Figure(
        go.Heatmap(
            x=positions,
            y=np.arange(n_layers + 1),
            z=z.astype("float32"),
            zmin=None if high is None else 0,
            zmax=high,
            customdata=customdata,
            text=best if len(tokens) <= _CELL_TEXT else None,
            texttemplate="%{text}" if len(tokens) <= _CELL_TEXT else None,
            textfont={"size": 10},
            colorscale=SEQUENTIAL,
            reversescale=chosen.metric != "lens_top1_nlp",
            colorbar={"title": {"text": chosen.title}},
            hoverongaps=False,
            hovertemplate=(
                f"point %{{y}}, position %{{x}}<br>{chosen.hover}<br>reads as ({NAMES[variant]}):<br>"
                "%{customdata[0]}<extra></extra>"
            ),
            **HOVER_AXES,
        )
    )
    depth = metric_rows(token_metrics, "lens_depth" + SUFFIX[variant])
    depth = depth[depth["pos"].between(first, first + len(tokens) - 1)]
    fig.add_scatter(
        x=depth["pos"].to_numpy(),
        y=depth["value"].to_numpy(dtype="float32"),
        mode="markers",
        marker={"color": "white", "size": 4, "line": {"color": "black", "width": 0.5}},
        name="settled on its final top token",
        hoverinfo="skip",
        showlegend=not depth.empty,
        **HOVER_AXES,
    )
    base(fig, height=max(340, 60 + 15 * (n_layers + 1)), x="token", y="point", legend=not depth.empty)
    token_axis(fig, tokens, positions=positions.tolist())
    layer_axis(fig, n_layers, axis="y")
    return name_places(fig, x=(positions, place_names(tokens, first)))


def _grid(rows: pd.DataFrame, column: str, shape: tuple[int, int], first: int) -> np.ndarray:
    """Rows of one metric as [points, positions]; NaN where there is none."""
    grid = np.full(shape, np.nan)
    inside = rows[rows["pos"].between(first, first + shape[1] - 1)]
    grid[inside["layer"].to_numpy(dtype=int), inside["pos"].to_numpy(dtype=int) - first] = inside[column].to_numpy()
    return grid


def _coloured(values: np.ndarray, colour: Colour) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn and what the hover says of it."""
    if colour.scope is not None:
        read = ~np.isnan(values).any(axis=0)
        scaled = np.full_like(values, np.nan)
        scaled[:, read] = scaled_confidence(torch.from_numpy(values[:, read]), colour.scope).numpy()
        return scaled, values
    if colour.metric == "lens_top1_nlp":
        return np.exp(-values), np.exp(-values)
    return (np.log10(values), values) if colour.log else (values, values)


def _short(values: np.ndarray) -> np.ndarray:
    """Five significant digits: what a hover shows, at a third of the bytes."""
    return np.asarray(np.vectorize(lambda value: float(f"{value:.5g}"), otypes=[object])(values))


def _top_texts(
    topk: pd.DataFrame, texts: Mapping[int, str], shape: tuple[int, int], first: int
) -> tuple[np.ndarray, np.ndarray]:
    """The escaped top token of each cell, and its best few with their probabilities."""
    best, told = np.full(shape, "", dtype=object), np.full(shape, "", dtype=object)
    labels = {token: plot_label(text, 14) for token, text in texts.items()}
    inside = topk[topk["pos"].between(first, first + shape[1] - 1) & (topk["rank"] <= _HOVER_TOKENS)]
    inside = inside.sort_values(["layer", "pos", "rank"])
    columns = (inside[name].to_numpy() for name in ("layer", "pos", "rank", "token_id", "prob"))
    for layer, pos, rank, token, prob in zip(*columns, strict=True):
        cell = int(layer), int(pos) - first
        if rank == 1:
            best[cell] = labels[int(token)]
        told[cell] += f"{'' if rank == 1 else '<br>'}{labels[int(token)]} {prob:.3f}"
    return best, told
