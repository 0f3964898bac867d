"""Panels of what spectra say along the layers, and of what else the spectrum of the selected point is made of."""

from typing import cast

import numpy as np
import pandas as pd

from analysis.descriptors import entropy_collapse
from analysis.marchenko_pastur import MPFit, mp_fit
from analysis.preparation import HEADLINE, Preparation
from app.figures.projection import token_plane
from app.figures.spectra import eigenvalue_histogram
from app.figures.spectra_layers import METRICS, by_layer, directions_by_layer
from app.figures.spectra_layers import PREPARATIONS as NAMES
from app.panels.panel import POINT, Click, Drawn, Marks, Option, panel
from app.selection import Selection
from app.view import Gap, View
from probes.request import ProbeCall

__all__ = ["DESCRIPTORS", "projection_call"]

DESCRIPTORS = {metric: title for metric, title in METRICS.items() if metric != "alpha_sigma"}
_NONE = "This run did not ask for spectra."
_GONE = "The eigenvalues of this run are no longer kept: run the text again to see this."


@panel(
    "spectra-alpha",
    "spectra",
    "Alpha by layer",
    "Where does the spectrum change, and do all preparations agree?",
    ("spectra", "Alpha by layer"),
)
def alpha(view: View) -> Drawn:
    if view.metric("layer_metrics", "alpha_sigma").empty:
        raise Gap(_NONE)
    layers = view.table("layer_metrics")
    figure = view.figure("spectra-alpha", lambda: by_layer(layers, "alpha_sigma", view.facts.n_layers, nulls=True))
    return Drawn(figure, csv=lambda: layers[layers["metric"].str.startswith("alpha_")], place=POINT)


@panel(
    "spectra-directions",
    "spectra",
    "Directions above noise",
    "How many directions vary together more than chance?",
    ("spectra", "Directions above noise"),
)
def directions(view: View) -> Drawn:
    layers = view.table("layer_metrics")
    rows = layers if layers.empty else layers[layers["metric"].isin(["n_parallel", "n_mp_outliers"])]
    if rows.empty:
        raise Gap(_NONE)
    figure = view.figure("spectra-directions", lambda: directions_by_layer(rows, view.facts.n_layers))
    return Drawn(figure, csv=rows, place=POINT)


@panel(
    "spectra-descriptors",
    "spectra",
    "Descriptors by layer",
    "What else changes along the layers?",
    ("spectra", "Descriptors"),
    options={"metric": Option(tuple(DESCRIPTORS), "spectra-descriptor")},
)
def descriptors(view: View, metric: str = "matrix_entropy") -> Drawn:
    layers = view.table("layer_metrics")
    rows = layers if layers.empty else layers[layers["metric"].str.split("@").str[0] == metric]
    if rows.empty:
        raise Gap(_NONE)
    collapse = _collapse(view) if metric == "matrix_entropy" else None
    note = None
    if metric == "matrix_entropy":
        note = "No collapse." if collapse is None else f"The largest step down, the collapse, ends at point {collapse}."
    event = None if collapse is None else (collapse, "collapse")
    figure = view.figure(
        "spectra-descriptors", lambda: by_layer(rows, metric, view.facts.n_layers, event=event), metric
    )
    return Drawn(figure, note=note, csv=rows, place=POINT)


@panel(
    "spectra-mp",
    "spectra",
    "Eigenvalues of one point",
    "Which stand out of the Marchenko-Pastur law?",
    ("spectra", "Marchenko-Pastur"),
)
def marchenko_pastur(view: View) -> Drawn:
    point, said = view.selection.point, view.metric("layer_metrics", "alpha_sigma")
    if said.empty:
        raise Gap(_NONE)
    tensor = view.kept("mp_eigenvalues")
    if tensor is None:
        raise Gap(_GONE)
    row = tensor[point].numpy()
    eigenvalues = row[np.isfinite(row)]
    here = said[said["layer"] == point]
    if eigenvalues.size == 0 or here.empty:
        raise Gap("This run holds no eigenvalues of this point.")
    columns = round(float(eigenvalues.sum()))  # the trace of a correlation matrix
    fit = mp_fit(eigenvalues, int(here["n_used"].iloc[0]), columns)
    return Drawn(
        view.figure("spectra-mp", lambda: eigenvalue_histogram(eigenvalues, fit), point),
        f"Eigenvalues of point {point}",
        note=_law(fit),
        csv=lambda: _eigenvalues(point, eigenvalues, fit),
    )


@panel(
    "spectra-projection",
    "spectra",
    "Tokens in the leading plane",
    "Which tokens make its two leading directions?",
    ("spectra", "Tokens in the leading plane"),
    options={"prep": Option(tuple(NAMES), "spectra-prep")},
)
def projection(view: View, prep: Preparation = HEADLINE) -> Drawn:
    point, beside = view.selection.point, view.beside(view.answer(projection_call(view, prep)))
    tokens, layers = beside.table("token_metrics"), beside.table("layer_metrics")
    status = layers["status"].iloc[0]
    if status != "ok":
        raise Gap(f"There is no plane: {status.replace('_', ' ')}.")
    plane = tokens.pivot(index="pos", columns="metric", values="value").reindex(range(len(view.tokens)))
    x, y = plane["pc1"].to_numpy(dtype="float64"), plane["pc2"].to_numpy(dtype="float64")
    shares = cast(tuple[float, float], tuple(layers.set_index("metric")["value"][["pc1_share", "pc2_share"]]))
    position = view.selection.position
    return Drawn(
        beside.figure("spectra-projection", lambda: token_plane(x, y, shares, view.tokens), point, prep),
        f"Tokens of point {point}, {NAMES[prep]}",
        note=f"The mask leaves out the selected token {position}." if np.isnan(x[position]) else None,
        csv=plane.reset_index(),
        place=Marks(lambda at: _where(x, at), lambda at: _where(y, at)),
        pick=_dot,
    )


def projection_call(view: View, prep: Preparation) -> ProbeCall:
    """The question whose answer holds the plane of the selected point."""
    return ProbeCall("projection", {"point": view.selection.point, "preparation": prep})


def _collapse(view: View) -> int | None:
    rows = view.metric("layer_metrics", "matrix_entropy")
    values = rows.set_index("layer")["value"].reindex(range(view.facts.n_layers + 1))
    return entropy_collapse(values.to_numpy(dtype="float64", na_value=np.nan))


def _law(fit: MPFit) -> str:
    if fit.status != "ok":
        return "No law was fitted: it needs at least 32 tokens and 20 eigenvalues."
    kl = "" if np.isnan(fit.kl) else f", KL {fit.kl:.2f}"
    return (
        f"Assumes independent rows. gamma {fit.gamma:.2f}, variance {fit.sigma2:.2f}; {fit.bulk_fraction:.0%} of the "
        f"eigenvalues lie in the bulk, KS {fit.ks:.2f}{kl}; soft rank {fit.soft_rank:.2f}."
    )


def _eigenvalues(point: int, eigenvalues: np.ndarray, fit: MPFit) -> pd.DataFrame:
    """The eigenvalues of the point as ``mp_outliers`` has those above the law, and which of them these are."""
    k = np.arange(1, eigenvalues.size + 1)
    columns = {"layer": point, "prep": HEADLINE, "k": k, "eigenvalue": eigenvalues, "edge": fit.upper}
    return pd.DataFrame(columns).assign(outlier=k <= fit.n_outliers)


def _where(coordinates: np.ndarray, at: Selection) -> float | None:
    """Where a token stands; None where the mask leaves it out."""
    value = float(coordinates[at.position])
    return None if np.isnan(value) else value


def _dot(click: Click) -> dict[str, int | None]:
    return {} if click.customdata is None else {"position": int(click.customdata)}
