"""What a change did to a text: beside its controls, position by position, and block by block."""

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.figures.theme import CATEGORICAL, DIVERGING, GRID, NULL_GREY, SEQUENTIAL, base, fade, layer_axis, token_axis
from app.text import plot_label

__all__ = ["effect_bars", "effect_by_position", "head_effects", "sink_shares"]

_COLOURS = {"clean": "#56B4E9", "target": CATEGORICAL[5], "variant": CATEGORICAL[1], "control": NULL_GREY}
_LABEL = 48  # signs of a label, which names places and no text of a model
_NAMES = {"clean": "clean", "target": "tested", "variant": "tested in another way", "control": "control"}
_TITLE = 26  # signs of a line of a y title


def effect_bars(summary: pd.DataFrame) -> go.Figure:
    """Perplexity of every pass of a test, log axis, clean first; a line marks the clean run.

    ``summary`` has ``changed``, ``role`` and ``perplexity``; an undefined perplexity leaves its row empty.
    """
    labels = [plot_label(text, _LABEL) for text in summary["changed"]]
    rows = np.arange(len(summary))
    clean = float(summary["perplexity"].iloc[0])
    fig = go.Figure()
    for role, name in _NAMES.items():
        here = (summary["role"] == role).to_numpy()
        if not here.any():
            continue
        fig.add_scatter(
            x=summary["perplexity"].to_numpy(dtype=float)[here], y=rows[here], mode="markers", name=name,
            marker={"color": _COLOURS[role], "size": 10, "symbol": "circle-open" if role == "control" else "circle"},
            customdata=np.array(labels, dtype=object)[here],
            hovertemplate="%{customdata}<br>perplexity %{x:,.4g}<extra></extra>",
        )  # fmt: skip
    fig.add_vline(x=clean, line={"color": _COLOURS["clean"], "width": 1, "dash": "dot"})
    base(fig, height=90 + 22 * len(summary), x="perplexity of the text (log)")
    fig.update_xaxes(type="log", exponentformat="power", dtick=_step(summary["perplexity"]))
    fig.update_yaxes(
        tickvals=rows.tolist(), ticktext=labels, range=[len(summary) - 0.5, -0.5], gridcolor=GRID, tickfont={"size": 11}
    )
    return fig


def effect_by_position(
    curves: Sequence[tuple[str, str, np.ndarray]], tokens: Sequence[str], title: str, *, first: int = 0
) -> go.Figure:
    """One effect measure along the text: the target, its variants, and the range of the controls.

    ``curves`` holds (label, role, value at each token shown); ``first`` is the position of the first token shown.
    """
    positions = np.arange(first, first + len(tokens))
    fig = go.Figure()
    controls = [values for _, role, values in curves if role == "control"]
    if controls:
        stacked = np.stack(controls)
        defined = np.isfinite(stacked).all(axis=0)
        low, high = stacked[:, defined].min(axis=0), stacked[:, defined].max(axis=0)
        x = positions[defined]
        fig.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself", mode="lines",
            line={"width": 0}, fillcolor=fade(NULL_GREY, 0.45), name=f"{len(controls)} controls, lowest to highest",
            hoverinfo="skip",
        )  # fmt: skip
    for label, role, values in curves:
        if role == "control":
            continue
        fig.add_scatter(
            x=positions, y=values.astype("float32"), mode="lines+markers", marker={"size": 3}, name=plot_label(label, _LABEL),
            line={"color": _COLOURS[role], "width": 1.6 if role == "target" else 1, "dash": None if role == "target" else "dot"},
            hovertemplate="position %{x}<br>%{y:.4f}<extra></extra>",
        )  # fmt: skip
    base(fig, height=280, x="token", y="<br>".join(wrap(title, _TITLE)))
    return token_axis(fig, tokens, positions=positions.tolist())


def sink_shares(clean: pd.DataFrame, curves: Sequence[tuple[str, str, pd.DataFrame]], n_layers: int) -> go.Figure:
    """Share of heads whose sink is position 0, by point: clean, changed, and each control in grey.

    ``clean`` and the frames of ``curves`` (label, role, rows) hold the rows ``sink_share`` of layer_metrics.
    """
    fig = go.Figure()
    ordered = sorted(curves, key=lambda curve: curve[1] != "control")
    count = sum(role == "control" for _, role, _ in curves)
    controls = f"{count} control{'s' * (count > 1)}"
    for i, (label, role, rows) in enumerate([*ordered, ("clean", "clean", clean)]):
        rows = rows.sort_values("layer")
        fig.add_scatter(
            x=rows["layer"].to_numpy(dtype=float), y=rows["value"].to_numpy(dtype=float), mode="lines",
            name=controls if role == "control" else plot_label(label, _LABEL),
            line={"color": _COLOURS[role], "width": 1 if role == "control" else 2},
            legendgroup=role if role == "control" else label,
            opacity=0.6 if role == "control" else 1.0, showlegend=role != "control" or i == 0,
            hovertemplate="point %{x}<br>%{y:.2f} " + plot_label(label, _LABEL) + "<extra></extra>",
        )  # fmt: skip
    base(fig, height=250, x="point (block b stands at b + 1)", y="share of sink heads")
    fig.update_yaxes(range=[-0.02, 1.02])
    return layer_axis(fig, n_layers)


def _step(values: pd.Series) -> int | None:
    """One tick a decade where the values span more than one; otherwise as Plotly likes."""
    known = values.astype(float)
    known = known[np.isfinite(known) & (known > 0)]
    return 1 if len(known) and known.max() / known.min() > 30 else None


def head_effects(head_metrics: pd.DataFrame, metric: str) -> go.Figure:
    """Block by head: what the text costs more (nats a token), or the mean KL, when the head is taken away."""
    rows = head_metrics[head_metrics["metric"] == metric]
    grid = rows.pivot(index="layer", columns="head", values="value").to_numpy(dtype=float)
    n_used = int(rows["n_used"].iloc[0])
    title = "Δ nll, nats" if metric == "effect_nll" else "KL, nats"
    fig = go.Figure()
    if metric == "effect_nll":
        span = float(np.nanmax(np.abs(grid)))
        scale: dict[str, object] = {"colorscale": DIVERGING, "zmid": 0, "zmin": -span, "zmax": span}
    else:
        scale = {"colorscale": SEQUENTIAL}
    fig.add_heatmap(
        z=grid.astype("float32"), colorbar={"title": {"text": title}}, hoverongaps=False, **scale,
        hovertemplate=f"block %{{y}}, head %{{x}}<br>%{{z:.4f}} {title}<br>{n_used} predictions<extra></extra>",
    )  # fmt: skip
    base(fig, height=max(260, 70 + 11 * len(grid)), x="head", y="block", legend=False)
    layer_axis(fig, len(grid), axis="y", points=False)
    fig.update_xaxes(tick0=0, dtick=1 if grid.shape[1] <= 16 else 4)
    return fig
