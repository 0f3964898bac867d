"""Massive activations: how large, where, from when to when, and written by what."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.hover import HOVER_AXES, name_places
from app.figures.theme import CATEGORICAL, NULL_GREY, SEQUENTIAL, base, fade, layer_axis
from app.text import plot_label

__all__ = ["entry_table", "life_lines", "origin_bars", "rogue_dimensions", "rogue_map", "top_values"]

_CRITERIA = ("strict", "relative", "robust")
_SYMBOLS = {"strict": "circle", "relative": "circle-open", "robust": "diamond-open", "none": "line-ew-open"}


def top_values(layer_metrics: pd.DataFrame, massive: pd.DataFrame, tokens: Sequence[str], n_layers: int) -> go.Figure:
    """The three largest ``|a|`` and the median of ``|H|`` at every point, log scale, with both strict thresholds.

    Rows of ``layer_metrics``: ``massive_top1|2|3``, ``massive_top1@no_sink`` and ``massive_median``. ``massive`` gives
    position, dimension, sign and flags of the largest entries for the hover.
    """
    fig = go.Figure()
    order = massive.assign(size=massive["value"].abs()).sort_values(["layer", "size"], ascending=[True, False])
    order["rank"] = order.groupby("layer").cumcount() + 1
    for rank in (3, 2, 1):
        rows = _metric(layer_metrics, f"massive_top{rank}").merge(
            order[order["rank"] == rank].rename(columns={"value": "signed"}), on="layer", how="left"
        )
        flags = [_flag(row) for row in rows[list(_CRITERIA)].to_dict("records")]
        told = [_told(row, tokens, flag) for row, flag in zip(rows.to_dict("records"), flags, strict=True)]
        fig.add_scatter(
            x=rows["layer"].to_numpy(),
            y=rows["value"].to_numpy(dtype="float32"),
            customdata=np.array(told, dtype=object),
            mode="lines+markers",
            name=("largest", "second", "third")[rank - 1],
            legendrank=rank,
            line={"color": CATEGORICAL[rank - 1], "width": 2 if rank == 1 else 1},
            marker={"size": 7, "symbol": [_SYMBOLS[flag] for flag in flags]},
            hovertemplate="point %{x}<br>%{customdata}<extra></extra>",
        )
    others = _metric(layer_metrics, "massive_top1@no_sink")
    fig.add_scatter(
        x=others["layer"].to_numpy(),
        y=others["value"].to_numpy(dtype="float32"),
        mode="lines",
        name="largest without sinks",
        line={"color": CATEGORICAL[0], "width": 1.5, "dash": "dash"},
        hovertemplate="point %{x}<br>%{y:.4g}, largest among tokens that are no sinks<extra></extra>",
    )
    median = _metric(layer_metrics, "massive_median")
    thousand = 1000 * median["value"].to_numpy(dtype=float)
    for y, name, dash in (
        (median["value"].to_numpy(dtype="float32"), "median |a|", None),
        (np.maximum(thousand, 100).astype("float32"), "strict: 100 and 1000 × median", "dot"),
    ):
        fig.add_scatter(
            x=median["layer"].to_numpy(),
            y=y,
            mode="lines",
            name=name,
            line={"color": NULL_GREY, "width": 1.5, "dash": dash},
            hovertemplate=f"point %{{x}}<br>{name}: %{{y:.4g}}<extra></extra>",
        )
    base(fig, height=340, x="point", y="|a|")
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    return layer_axis(fig, n_layers)


def entry_table(massive: pd.DataFrame, tokens: Sequence[str], criterion: str = "strict") -> pd.DataFrame:
    """One row for each position and dimension flagged anywhere, largest first; tokens are raw.

    Columns ``token, pos, dim, first_point, last_point, value, ratio``: ``value`` is the signed entry where it is
    largest, ``ratio`` its size over the median of that point.
    """
    flagged = massive[massive[criterion].astype(bool)]
    rows = []
    for (pos, dim), group in flagged.groupby(["pos", "dim"]):
        peak = group.loc[group["value"].abs().idxmax()]
        rows.append((tokens[pos], pos, dim, group["layer"].min(), group["layer"].max(), peak["value"], peak["ratio"]))
    table = pd.DataFrame(rows, columns=["token", "pos", "dim", "first_point", "last_point", "value", "ratio"])
    return table.sort_values("value", key=lambda column: column.abs(), ascending=False, ignore_index=True)


def life_lines(events: pd.DataFrame, tokens: Sequence[str], n_layers: int) -> go.Figure:
    """From birth to death of each massive entry; an arrow at the end means it is still there at the last point.

    ``events`` has ``pos, dim, birth, death``; a row a span. The ``customdata`` of a point is (pos, dim).
    """
    fig = go.Figure()
    pairs = list(dict.fromkeys(zip(events["pos"], events["dim"], strict=True)))
    names = [f"position {pos} {plot_label(tokens[int(pos)], 14)}, dimension {dim}" for pos, dim in pairs]
    for row in events.to_dict("records"):
        place = pairs.index((row["pos"], row["dim"]))
        alive = bool(pd.isna(row["death"]))
        last = n_layers if alive else int(row["death"]) - 1
        death = "still there at the last point" if alive else f"gone at point {int(row['death'])}"
        points = np.arange(int(row["birth"]), last + 1)
        inner = len(points) - 2  # markers too, or nothing between the ends could be hovered or clicked
        end = "triangle-right" if alive else "x"
        fig.add_scatter(
            x=points,
            y=np.full(len(points), place),
            mode="lines+markers",
            line={"color": CATEGORICAL[place % len(CATEGORICAL)], "width": 6},
            marker={"size": 10, "symbol": [end] if inner < 0 else ["circle", *["line-ew"] * inner, end]},
            customdata=np.array([[row["pos"], row["dim"]]] * len(points), dtype="int32"),
            hovertemplate=f"{names[place]}<br>born at point {int(row['birth'])}, {death}<extra></extra>",
            showlegend=False,
        )
    base(fig, height=90 + 28 * len(pairs), x="point", legend=False)
    fig.update_yaxes(tickmode="array", tickvals=np.arange(len(pairs)), ticktext=names, range=[len(pairs) - 0.5, -0.5])
    return layer_axis(fig, n_layers)


def origin_bars(event: pd.Series, neurons: pd.DataFrame) -> go.Figure:
    """What attention and MLP added to one entry in the block of its birth, and the MLP neurons that wrote most of it.

    ``event`` has ``dim, birth, attn_delta, mlp_delta``; ``neurons`` has ``neuron, contribution``.
    """
    fig = make_subplots(rows=1, cols=2, column_widths=[0.3, 0.7], horizontal_spacing=0.12)
    block = int(event["birth"]) - 1
    deltas = np.array([event["attn_delta"], event["mlp_delta"]], dtype="float32")
    hover = f"%{{x}} of block {block}<br>%{{y:.6g}} added to dimension {int(event['dim'])}<extra></extra>"
    colours = [CATEGORICAL[1], CATEGORICAL[0]]
    fig.add_bar(x=["attention", "MLP"], y=deltas, marker={"color": colours}, hovertemplate=hover, row=1, col=1)
    largest = neurons.sort_values("contribution", key=lambda column: column.abs(), ascending=False)
    share = largest["contribution"].to_numpy() / float(event["mlp_delta"]) if event["mlp_delta"] else np.nan
    fig.add_bar(
        x=[str(neuron) for neuron in largest["neuron"]],
        y=largest["contribution"].to_numpy(dtype="float32"),
        customdata=np.broadcast_to(np.asarray(share, dtype="float32"), len(largest)),
        marker={"color": fade(CATEGORICAL[0], 0.7)},
        hovertemplate=f"block {block}, neuron %{{x}}<br>%{{y:.6g}}, %{{customdata:.2%}} of the MLP<extra></extra>",
        row=1,
        col=2,
    )
    base(fig, height=280, legend=False)
    fig.update_xaxes(type="category")
    fig.update_xaxes(title_text=f"part of block {block}", row=1, col=1)
    fig.update_xaxes(title_text="MLP neuron", row=1, col=2)
    return fig.update_yaxes(title_text="added", row=1, col=1)


def rogue_map(share: np.ndarray, mean: np.ndarray, sd: np.ndarray, n_dims: int = 12) -> go.Figure:
    """Share of tokens where a dimension exceeds 20 medians, points by the dimensions with the largest mean share.

    The arrays are [points, d_model]. The ``customdata`` of a cell is (mean, sd, dimension).
    """
    dims = rogue_dimensions(share, n_dims)
    numbers = np.broadcast_to(dims, (len(share), len(dims)))
    shown = np.stack([mean[:, dims], sd[:, dims], numbers], axis=-1).astype("float32")
    fig = go.Figure(
        go.Heatmap(
            z=share[:, dims].astype("float32").T,
            customdata=shown.transpose(1, 0, 2),
            zmin=0,
            zmax=1,
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "share"}},
            hoverongaps=False,
            hovertemplate="point %{x}, dimension %{y}<br>above 20 medians at %{z:.1%} of the tokens"
            "<br>mean %{customdata[0]:.4g}, sd %{customdata[1]:.4g}<extra></extra>",
            **HOVER_AXES,
        )
    )
    base(fig, height=100 + 20 * len(dims), x="point", y="dimension", legend=False)
    places, names = np.arange(len(dims)), [str(dim) for dim in dims]
    fig.update_yaxes(tickmode="array", tickvals=places, ticktext=names, range=[len(dims) - 0.5, -0.5])
    layer_axis(fig, len(share) - 1)
    return name_places(fig, y=(places, names))


def rogue_dimensions(share: np.ndarray, n_dims: int = 12) -> np.ndarray:
    """The dimensions that :func:`rogue_map` draws, from above."""
    average = np.nanmean(share, axis=0) if np.isfinite(share).any() else np.zeros(share.shape[1])
    return np.argsort(-average, kind="stable")[:n_dims]


def _metric(layer_metrics: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = layer_metrics.loc[layer_metrics["metric"] == name, ["layer", "value"]]
    return rows.astype({"value": float}).sort_values("layer", ignore_index=True)


def _flag(row: dict[Any, Any]) -> str:
    return next((name for name in _CRITERIA if row[name] is True or row[name] == 1), "none")


def _told(row: dict[Any, Any], tokens: Sequence[str], flag: str) -> str:
    if pd.isna(row["pos"]):
        return "not listed"
    pos, dim = int(row["pos"]), int(row["dim"])
    kind = "by no criterion massive" if flag == "none" else f"massive ({flag})"
    where = f"position {pos} {plot_label(tokens[pos])}, dimension {dim}"
    return f"{row['signed']:,.6g} at {where}<br>{row['ratio']:,.0f} times the median, {kind}"
