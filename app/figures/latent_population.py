"""All latents of an SAE at once: how often they fire, where their decoder rows lie, and which tell two texts apart."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from app.figures.latent_index import latent_name
from app.figures.theme import CATEGORICAL, NULL_GREY, SEQUENTIAL, base, fade
from app.text import plot_label

__all__ = ["MOST_DRAWN", "STEP", "decoder_map", "density_histogram", "difference_bars"]

MOST_DRAWN = 8_000
"""Latents of a map, so that a browser keeps up; of more, those that fire most often are drawn."""

STEP = 0.25
"""Width of a bin of densities, in powers of ten."""

_NAMED = 5_000


def decoder_map(latents: pd.DataFrame, labels: Mapping[int, str]) -> go.Figure:
    """Every latent at the first two principal components of the decoder rows, coloured by how often it fires.

    ``latents`` have ``latent, x, y, density, n_fired``; a point's ``customdata`` is its latent.
    """
    shown = latents.dropna(subset=["x", "y"])
    if len(shown) > MOST_DRAWN:
        shown = shown.nlargest(MOST_DRAWN, "density")
    named = len(shown) <= _NAMED
    fired = shown["n_fired"].to_numpy() > 0
    fig = go.Figure()
    for rows, name in ((shown[~fired], "never fired"), (shown[fired], "fires")):
        numbers = rows["latent"].to_numpy(dtype="int32")
        density = rows["density"].to_numpy(dtype=float)
        colour = np.log10(density).astype("float32") if name == "fires" else NULL_GREY
        bar = {"title": {"text": "density"}, "tickprefix": "10<sup>", "ticksuffix": "</sup>", "dtick": 1}
        fig.add_scatter(
            x=rows["x"].to_numpy(dtype="float32"),
            y=rows["y"].to_numpy(dtype="float32"),
            mode="markers",
            name=name,
            customdata=numbers,
            text=[plot_label(labels.get(int(n), ""), 28) if int(n) in labels else "" for n in numbers]
            if named
            else None,
            marker={"size": 4, "opacity": 0.75, "color": colour}
            | ({"colorscale": SEQUENTIAL, "colorbar": bar} if name == "fires" else {}),
            hovertemplate=f"latent %{{customdata}}{' %{text}' if named else ''}<br>"
            + ("density 10<sup>%{marker.color:.2f}</sup>" if name == "fires" else "never fired")
            + "<extra></extra>",
        )
    base(fig, height=420, x="first principal component", y="second", legend=False)
    return fig


def density_histogram(density: NDArray[np.float64], chosen: NDArray[np.bool_]) -> go.Figure:
    """Latents by the share of tokens they fire on, in bins of a quarter of a power of ten; those that never fired apart.

    Grey are all, blue those ``chosen``. A bar's ``customdata`` are the ends of its bin as powers of ten, or two NaN for
    those that never fired, which stand at the left end.
    """
    fires = density > 0
    power = np.log10(density[fires])
    first = np.floor(power.min(initial=-1.0) / STEP) * STEP
    edges = np.arange(first, STEP / 2, STEP)
    places = np.concatenate([[first - 2 * STEP], edges[:-1] + STEP / 2])
    ends = np.vstack([[np.nan, np.nan], np.stack([edges[:-1], edges[1:]], axis=1)])
    told = ["never fired", *(f"density {10**low:.3g} to {10**high:.3g}" for low, high in ends[1:])]
    fig = go.Figure()
    for mask, name, colour in (
        (np.ones_like(chosen), "all", fade(NULL_GREY, 0.4)),
        (chosen, "in the table", CATEGORICAL[0]),
    ):
        counts, _ = np.histogram(np.clip(np.log10(density[fires & mask]), first, -1e-9), edges)
        fig.add_bar(
            x=places,
            y=np.concatenate([[int((~fires & mask).sum())], counts]).astype("int32"),
            width=0.9 * STEP,
            name=name,
            customdata=ends,
            text=told,
            textposition="none",
            marker={"color": colour},
            hovertemplate="%{text}<br>%{y:,} latents<extra>" + name + "</extra>",
        )
    base(fig, height=240, x="share of tokens it fires on", y="latents")
    whole = np.arange(np.ceil(first), 1)
    labels = ["never", *("1" if power == 0 else f"10<sup>{power:.0f}</sup>" for power in whole)]
    fig.update_xaxes(tickmode="array", tickvals=[places[0], *whole], ticktext=labels)
    return fig.update_layout(barmode="overlay")


def difference_bars(rows: pd.DataFrame, labels: Mapping[int, str]) -> go.Figure:
    """Latents by how much stronger their peak is in A than in B, most on top; a bar's ``customdata`` is its latent.

    ``rows`` have ``latent, a, b`` with 0 where it is not among the strongest of any token.
    """
    numbers = rows["latent"].to_numpy(dtype=int)
    places = np.arange(len(numbers))
    fig = go.Figure()
    for column, name, colour in (("a", "this text", CATEGORICAL[0]), ("b", "the other", CATEGORICAL[1])):
        fig.add_bar(
            x=rows[column].to_numpy(dtype="float32"),
            y=places,
            customdata=numbers,
            orientation="h",
            name=name,
            marker={"color": colour},
            hovertemplate=f"latent %{{customdata}}<br>largest activation %{{x:.4g}} in {name}<extra></extra>",
        )
    base(fig, height=90 + 22 * max(len(numbers), 1), x="largest activation outside sinks")
    names = [latent_name(int(number), labels) for number in numbers]
    fig.update_yaxes(
        tickmode="array", tickvals=places, ticktext=names, range=[len(numbers) - 0.5, -0.5], showgrid=False
    )
    return fig.update_layout(barmode="group", bargap=0.25)
