"""Spectra: how the variance of a layer is spread over directions, under which convention, and against which null."""

import numpy as np
import streamlit as st

from analysis.descriptors import entropy_collapse
from analysis.marchenko_pastur import MPFit, mp_fit
from app.components.explore import View, explore
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.projection import projection_panel
from app.components.reading import choice, kept
from app.components.spectrum import convention, spectrum_panels, tail_panel
from app.components.weights import weight_panels
from app.figures.spectra import eigenvalue_histogram
from app.figures.spectra_layers import METRICS, by_layer, directions_by_layer
from app.methods import section
from app.state import select

__all__ = ["page"]

_PARTS = {"activations": "Activations", "weights": "Weight matrices"}
_GONE = "The eigenvalues of this run are no longer kept: run the text again to see this."


def page() -> None:
    """Draw the page."""
    explore("Spectra", "How is the variance of a layer spread over directions, and is that more than chance?", panels)


def panels(view: View) -> None:
    """Alpha along the layers, then the selected point under the chosen convention, then what else its spectrum says."""
    if choice("Part", _PARTS, "spectra-part") == "weights":
        weight_panels(view)
        return
    if view.metric("layer_metrics", "alpha_sigma").empty:
        note = "This run did not ask for spectra."
        panel("spectra-alpha", "Alpha by layer", "Where does the spectrum change?", None, note=note)
        return
    _alpha(view)
    chosen = convention()
    spectrum_panels(view, chosen)
    left, right = st.columns(2)
    with left:
        _directions(view)
        _descriptors(view)
    with right:
        _marchenko_pastur(view)
        tail_panel(view, chosen.prep)
    projection_panel(view, chosen.prep)


def _alpha(view: View) -> None:
    layers = view.table("layer_metrics")
    panel(
        "spectra-alpha",
        "Alpha by layer",
        "Where does the spectrum change, and do all preparations agree?",
        view.figure("spectra-alpha", lambda: by_layer(layers, "alpha_sigma", view.facts.n_layers, nulls=True)),
        how=section("spectra", "Alpha by layer"),
        csv=lambda: layers[layers["metric"].str.startswith("alpha_")],
        on_click=_go_point,
        x=view.selection.point,
    )


def _directions(view: View) -> None:
    layers = view.table("layer_metrics")
    panel(
        "spectra-directions",
        "Directions above noise",
        "How many directions vary together more than chance?",
        view.figure("spectra-directions", lambda: directions_by_layer(layers, view.facts.n_layers)),
        how=section("spectra", "Directions above noise"),
        csv=lambda: layers[layers["metric"].isin(["n_parallel", "n_mp_outliers"])],
        on_click=_go_point,
        x=view.selection.point,
    )


def _marchenko_pastur(view: View) -> None:
    point = view.selection.point
    title, question = f"Eigenvalues of point {point}", "Which stand out of the Marchenko-Pastur law?"
    tensor = kept(view, "mp_eigenvalues")
    if tensor is None:
        panel("spectra-mp", title, question, None, note=_GONE)
        return
    row = tensor[point].numpy()
    eigenvalues = row[np.isfinite(row)]
    said = view.metric("layer_metrics", "alpha_sigma")
    here = said[said["layer"] == point]
    if eigenvalues.size == 0 or here.empty:
        panel("spectra-mp", title, question, None, note="This run holds no eigenvalues of this point.")
        return
    columns = round(float(eigenvalues.sum()))  # the trace of a correlation matrix
    fit = mp_fit(eigenvalues, int(here["n_used"].iloc[0]), columns)
    panel(
        "spectra-mp",
        title,
        question,
        view.figure("spectra-mp", lambda: eigenvalue_histogram(eigenvalues, fit), point),
        note=_law(fit),
        how=section("spectra", "Marchenko-Pastur"),
        csv=lambda: view.table("mp_outliers"),
    )


def _law(fit: MPFit) -> str:
    if fit.status != "ok":
        return "No law was fitted: it needs at least 32 tokens and 20 eigenvalues."
    kl = "" if np.isnan(fit.kl) else f", KL {fit.kl:.2f}"
    return (
        f"Assumes independent rows. gamma {fit.gamma:.2f}, variance {fit.sigma2:.2f}; {fit.bulk_fraction:.0%} of the "
        f"eigenvalues lie in the bulk, KS {fit.ks:.2f}{kl}; soft rank {fit.soft_rank:.2f}."
    )


def _descriptors(view: View) -> None:
    names = {metric: title for metric, title in METRICS.items() if metric != "alpha_sigma"}
    metric = st.selectbox(
        "Descriptor",
        list(names),
        index=list(names).index("matrix_entropy"),
        format_func=names.__getitem__,
        key="spectra-descriptor",
        label_visibility="collapsed",
    )
    layers = view.table("layer_metrics")
    collapse = _collapse(view) if metric == "matrix_entropy" else None
    note = None
    if metric == "matrix_entropy":
        note = "No collapse." if collapse is None else f"The largest step down, the collapse, ends at point {collapse}."
    event = None if collapse is None else (collapse, "collapse")
    panel(
        "spectra-descriptors",
        "Descriptors by layer",
        "What else changes along the layers?",
        view.figure("spectra-descriptors", lambda: by_layer(layers, metric, view.facts.n_layers, event=event), metric),
        note=note,
        how=section("spectra", "Descriptors"),
        csv=lambda: layers[layers["metric"].str.split("@").str[0] == metric],
        on_click=_go_point,
        x=view.selection.point,
    )


def _collapse(view: View) -> int | None:
    rows = view.metric("layer_metrics", "matrix_entropy")
    values = rows.set_index("layer")["value"].reindex(range(view.facts.n_layers + 1))
    return entropy_collapse(values.to_numpy(dtype="float64", na_value=np.nan))


def _go_point(click: PlotClick) -> None:
    select(point=round(float(click.x)))
