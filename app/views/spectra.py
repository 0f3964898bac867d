"""Spectra: how the variance of a layer is spread over directions, under which convention, and against which null."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import streamlit as st

from analysis.alpha import ESTIMATORS, WINDOWS, Estimator, RankWindow
from analysis.preparation import Preparation
from analysis.spectrum import Spectrum
from app.components.explore import View, explore, extra
from app.components.opening import REVEAL
from app.components.panel import show
from app.components.reading import choice
from app.figures.spectra_layers import PREPARATIONS
from app.panels.panel import Click
from app.panels.reading import block_of
from app.panels.spectra import DESCRIPTORS, projection_call
from app.panels.spectrum import CONVENTION, null_call, observed_spectrum
from app.panels.weights import ALL_BLOCKS, block_call
from app.reproduce import Convention, command, python
from app.view import Gap

__all__ = ["page"]

_PARTS = {"activations": "Activations", "weights": "Weight matrices"}
_OF_WEIGHTS = ("spectra-weights", "spectra-weight-tails")
_OPENED = "_spectra-opened"  # session key: the panel of a link that has been turned to


def page() -> None:
    """Draw the page."""
    explore("Spectra", "How is the variance of a layer spread over directions, and is that more than chance?", panels)


def panels(view: View) -> None:
    """Alpha along the layers, then the selected point under the chosen convention, then what else its spectrum says."""
    _open_part()
    if choice("Part", _PARTS, "spectra-part") == "weights":
        _weights(view)
        return
    show(view, "spectra-alpha")
    if view.metric("layer_metrics", "alpha_sigma").empty:
        return
    chosen = _convention()
    observed = _spectrum(view, chosen)
    left, right = st.columns(2)
    with left:
        show(view, "spectra-directions")
        show(view, "spectra-descriptors", metric=_descriptor())
    with right:
        show(view, "spectra-mp")
        if observed is not None:
            show(view, "spectra-tail", prep=chosen.prep)
    label = f"Project the tokens of point {view.selection.point}"
    if extra(view, projection_call(view, chosen.prep), label=label, auto=view.loaded) is not None:
        show(view, "spectra-projection", prep=chosen.prep)


def _open_part() -> None:
    """Turn to the part that holds the panel a link asks for, once."""
    asked = st.session_state.get(REVEAL)
    if asked is not None and asked.startswith("spectra-") and asked != st.session_state.get(_OPENED):
        st.session_state["spectra-part"] = "weights" if asked in _OF_WEIGHTS else "activations"
    st.session_state[_OPENED] = asked


def _convention() -> Convention:
    """Draw the three choices and return what they say."""
    with st.container(key="spectra-convention", gap="xsmall"):
        known = cast(tuple[Mapping[str, str], ...], (PREPARATIONS, WINDOWS, ESTIMATORS))
        labels = ("Preparation", "Ranks", "Estimator")
        chosen = [choice(label, names, key) for label, names, key in zip(labels, known, _keys(), strict=True)]
    return Convention(cast(Preparation, chosen[0]), cast(RankWindow, chosen[1]), cast(Estimator, chosen[2]))


def _spectrum(view: View, chosen: Convention) -> Spectrum | None:
    """Rank plot beside local slopes, then the specification curve with the code of the chosen convention."""
    options: dict[str, Any] = asdict(chosen)
    try:
        observed = observed_spectrum(view, chosen.prep)
    except Gap:
        show(view, "spectra-rank", **options)
        return None
    point, call = view.selection.point, null_call(view, chosen.prep)
    if call is not None:
        extra(view, call, label=f"Draw the null of {PREPARATIONS[chosen.prep]} at point {point}", auto=view.loaded)
    left, right = st.columns(2)
    with left:
        show(view, "spectra-rank", **options)
    with right:
        show(view, "spectra-slopes", **options)
    show(view, "spectra-specification", on_click=open_convention, **options)
    with st.expander("The code that makes the chosen number"):
        st.code(python(chosen, point, observed, view.info.mask), language="python")
        st.code(command(chosen, point, observed, view.info.mask, view.info.model), language="bash")
    return observed


def open_convention(click: Click) -> None:
    """Choose the convention of a mark; its ``customdata`` begins with the three keys."""
    if click.customdata is not None:
        for key, value in zip(_keys(), click.customdata, strict=False):
            st.session_state[key] = value


def _keys() -> tuple[str, ...]:
    """The widgets that choose the convention."""
    return tuple(str(option.widget) for option in CONVENTION.values())


def _descriptor() -> str:
    return st.selectbox(
        "Descriptor",
        list(DESCRIPTORS),
        index=list(DESCRIPTORS).index("matrix_entropy"),
        format_func=DESCRIPTORS.__getitem__,
        key="spectra-descriptor",
        label_visibility="collapsed",
    )


def _weights(view: View) -> None:
    """The matrices of the selected block, then the tail exponents of all blocks, each computed once for a model."""
    every = extra(view, ALL_BLOCKS, label=f"Decompose the matrices of all {view.facts.n_layers} blocks")
    if every is None:
        label = f"Decompose the matrices of block {block_of(view)}"
        if extra(view, block_call(view), label=label, auto=view.loaded) is None:
            return
    show(view, "spectra-weights")
    if every is not None:
        show(view, "spectra-weight-tails")
