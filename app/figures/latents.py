"""SAE latents: which fire where, how well states are rebuilt token by token, and what one latent writes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from app.figures.hover import HOVER_AXES, name_places, place_names
from app.figures.theme import CATEGORICAL, NULL_GREY, SEQUENTIAL, base, token_axis
from app.text import plot_label

__all__ = ["effect_bars", "fit_by_token", "latent_map", "latent_trace", "strongest", "token_bars"]

_LEFT_OUT = CATEGORICAL[5]
_WORST_SHOWN = -0.5


def strongest(latents: pd.DataFrame, no_sink: np.ndarray, limit: int = 40) -> list[int]:
    """The latents to show: those with the highest peak at tokens where ``no_sink`` is true, in the order of their peaks.

    At position 0 and other massive tokens a state is so long that the same few latents would fill every list. If all
    tokens are left out, all are used.
    """
    kept = latents[no_sink[latents["pos"].to_numpy(dtype=int)]]
    rows = latents if kept.empty else kept
    peaks = rows.loc[rows.groupby("latent")["activation"].idxmax()].nlargest(limit, "activation")
    return [int(latent) for latent in peaks.sort_values(["pos", "latent"])["latent"]]


def latent_map(
    latents: pd.DataFrame, shown: Sequence[int], tokens: Sequence[str], no_sink: np.ndarray, *, first: int = 0
) -> go.Figure:
    """Activation of the latents ``shown`` (rows, top to bottom) at ``tokens``, which start at position ``first``.

    Blank: not among the token's strongest. Colours end at the largest activation where ``no_sink`` is true; hover has
    the number.
    """
    grid = np.full((len(shown), len(tokens)), np.nan)
    row_of = {latent: row for row, latent in enumerate(shown)}
    here = latents[latents["latent"].isin(row_of) & latents["pos"].between(first, first + len(tokens) - 1)]
    grid[here["latent"].map(row_of).to_numpy(dtype=int), here["pos"].to_numpy(dtype=int) - first] = here["activation"]
    kept = grid[:, no_sink[first : first + len(tokens)]]
    top = np.nanmax(kept, initial=0.0) or np.nanmax(grid, initial=1.0)
    positions = np.arange(first, first + len(tokens))
    fig = go.Figure(
        go.Heatmap(
            z=grid.astype("float32"),
            x=positions,
            y=np.arange(len(shown)),
            zmin=0,
            zmax=float(top),
            colorscale=SEQUENTIAL,
            colorbar={"title": {"text": "activation"}},
            hoverongaps=False,
            hovertemplate="token %{x}<br>%{y}<br>activation %{z:.4g}<extra></extra>",
            **HOVER_AXES,
        )
    )
    base(fig, height=max(220, 90 + 14 * len(shown)), x="token", y="latent", legend=False)
    token_axis(fig, tokens, positions=positions.tolist())
    names = [str(latent) for latent in shown]
    fig.update_yaxes(tickmode="array", tickvals=np.arange(len(shown)), ticktext=names, tickfont={"size": 10})
    fig.update_yaxes(range=[len(shown) - 0.5, -0.5], showgrid=False)
    hovered = [f"latent {latent}" for latent in shown]
    return name_places(fig, x=(positions, place_names(tokens, first)), y=(np.arange(len(shown)), hovered))


def token_bars(latents: pd.DataFrame, position: int) -> go.Figure:
    """The strongest latents of one token, strongest on top; a bar's ``customdata`` is its latent."""
    rows = latents[latents["pos"] == position].sort_values("activation", ascending=False)
    numbers = rows["latent"].to_numpy(dtype=int)
    places = np.arange(len(rows))
    fig = go.Figure(
        go.Bar(
            x=rows["activation"].to_numpy(dtype="float32"),
            y=places,
            customdata=numbers,
            orientation="h",
            marker={"color": CATEGORICAL[0]},
            hovertemplate="latent %{customdata}<br>activation %{x:.4g}<extra></extra>",
        )
    )
    base(fig, height=90 + 17 * max(len(rows), 1), x="activation", y="latent", legend=False)
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": [str(number) for number in numbers]}
    return fig.update_yaxes(**ticks, range=[len(rows) - 0.5, -0.5], showgrid=False)


def latent_trace(
    latents: pd.DataFrame, latent: int, tokens: Sequence[str], no_sink: np.ndarray, *, first: int = 0
) -> go.Figure:
    """Activation of one latent along the text; tokens where it is not among the strongest have no bar."""
    positions = np.arange(first, first + len(tokens))
    here = latents[(latents["latent"] == latent) & latents["pos"].between(first, first + len(tokens) - 1)]
    values = np.full(len(tokens), np.nan)
    values[here["pos"].to_numpy(dtype=int) - first] = here["activation"]
    kept = no_sink[first : first + len(tokens)]
    fig = go.Figure()
    for name, mask, colour in (("activation", kept, CATEGORICAL[0]), ("sink or massive token", ~kept, _LEFT_OUT)):
        fig.add_bar(
            x=positions[mask],
            y=values[mask].astype("float32"),
            customdata=np.array(place_names(tokens, first), dtype=object)[mask],
            name=name,
            marker={"color": colour},
            hovertemplate="token %{customdata}<br>activation %{y:.4g}<extra></extra>",
        )
    base(fig, height=240, x="token", y=f"activation of latent {latent}")
    top = np.nanmax(values[kept], initial=0.0)
    if top > 0:
        fig.update_yaxes(range=[0, 1.05 * top])
    fig.update_layout(barmode="overlay", bargap=0.1)
    return token_axis(fig, tokens, positions=positions.tolist()).update_xaxes(
        range=[first - 0.5, first + len(tokens) - 0.5]
    )


def fit_by_token(
    token_metrics: pd.DataFrame, tokens: Sequence[str], no_sink: np.ndarray, *, first: int = 0
) -> go.Figure:
    """Explained variance (above) and L0 (below) of each token; sinks and massive tokens in another colour.

    Rows of ``token_metrics``: ``sae_explained_variance`` and ``sae_l0``. Explained variance has no lower end: below
    -.5 a token stands at the lower edge as a triangle, and hover has its number.
    """
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.65, 0.35], vertical_spacing=0.06)
    positions = np.arange(first, first + len(tokens))
    explained = _along(token_metrics, "sae_explained_variance", positions)
    active = _along(token_metrics, "sae_l0", positions)
    kept = no_sink[first : first + len(tokens)]
    names = np.array(place_names(tokens, first), dtype=object)
    low = min(0.0, float(np.nanmin(explained[kept], initial=0.0)))
    floor = max(low, _WORST_SHOWN) - 0.1
    below = explained < floor
    for name, mask, colour in (
        ("explained variance", kept, CATEGORICAL[0]),
        ("sink or massive token", ~kept, _LEFT_OUT),
    ):
        told = [
            f"{place}<br>explained variance {value:.4g}"
            for place, value in zip(names[mask], explained[mask], strict=True)
        ]
        fig.add_scatter(
            x=positions[mask],
            y=np.where(below, floor, explained)[mask].astype("float32"),
            customdata=np.array(told, dtype=object),
            mode="markers",
            name=name,
            marker={"size": 6, "color": colour, "symbol": np.where(below, "triangle-down", "circle")[mask]},
            hovertemplate="token %{customdata}<extra></extra>",
            row=1,
            col=1,
        )
        fig.add_bar(
            x=positions[mask],
            y=active[mask].astype("float32"),
            customdata=names[mask],
            name="L0",
            showlegend=False,
            marker={"color": colour},
            hovertemplate="token %{customdata}<br>%{y} latents active<extra></extra>",
            row=2,
            col=1,
        )
    base(fig, height=360)
    fig.add_hline(y=0, line={"color": NULL_GREY, "width": 1, "dash": "dot"}, row=1, col=1)
    fig.update_yaxes(title_text="explained variance", range=[floor - 0.05, 1.05], row=1, col=1)
    fig.update_yaxes(title_text="L0", rangemode="tozero", row=2, col=1)
    fig.update_layout(barmode="overlay", bargap=0.1)
    token_axis(fig, tokens, positions=positions.tolist(), row=2, col=1)
    return fig.update_xaxes(range=[first - 0.5, first + len(tokens) - 0.5])


def effect_bars(promoted: Sequence[tuple[str, float]], suppressed: Sequence[tuple[str, float]]) -> go.Figure:
    """The tokens (raw) a latent promotes and suppresses most on the direct path, in logits per unit of activation."""
    fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.24, subplot_titles=("promotes", "suppresses"))
    for column, (pairs, colour) in enumerate(((promoted, CATEGORICAL[0]), (suppressed, CATEGORICAL[1])), start=1):
        labels = [plot_label(token) for token, _ in pairs]
        places = np.arange(len(pairs))
        fig.add_bar(
            x=np.array([value for _, value in pairs], dtype="float32"),
            y=places,
            customdata=np.array(labels, dtype=object),
            orientation="h",
            marker={"color": colour},
            hovertemplate="%{customdata}<br>%{x:+.4g} logit per unit of activation<extra></extra>",
            row=1,
            col=column,
        )
        ticks = {"tickmode": "array", "tickvals": places, "ticktext": labels}
        fig.update_yaxes(**ticks, range=[len(pairs) - 0.5, -0.5], showgrid=False, row=1, col=column)
    base(fig, height=80 + 20 * max(len(promoted), len(suppressed), 1), legend=False)
    return fig.update_layout(margin_t=30).update_xaxes(title_text="logits, mean removed")


def _along(token_metrics: pd.DataFrame, metric: str, positions: np.ndarray) -> np.ndarray:
    rows = token_metrics[token_metrics["metric"] == metric].set_index("pos")["value"].astype(float)
    return np.asarray(rows.reindex(positions), dtype=float)
