"""Geometry: how many dimensions the tokens fill, who stays near whom, how linear blocks are, and what it has to do with loss."""

import streamlit as st

from app.components.explore import View, explore, extra
from app.components.keeping import local
from app.components.opening import REVEAL
from app.components.panel import show
from app.components.progress import show_progress
from app.components.reading import choice
from app.geometry import GEOMETRY, n_shuffles_left, shuffle_job, shuffle_key
from app.panels.geometry import SHUFFLES
from app.panels.linearity import DISTANCES
from app.set_geometry import BANK, LOSS_METRICS, CorpusProbe, asked_of, corpus_call, known_of, sets_of
from app.sweeps import Survey, job_key, start
from app.text import markdown
from app.view import Gap
from probes.errors import BadRequest
from probes.prompts.sets import BUILT_IN

__all__ = ["page"]

_QUESTION = "What shape do the tokens of a text have at each point, and how linear is what moves them?"
_PARTS = {"text": "This text", "linearity": "Linearity", "recall": "Contextual recall", "loss": "Loss over prompts"}
_PART_OF = {
    "geometry-linearity": "linearity",
    "geometry-nonlinearity": "linearity",
    "geometry-recall": "recall",
    "geometry-loss": "loss",
    "geometry-loss-dots": "loss",
}
_OPENED = "_geometry-opened"  # session key: the panel of a link that has been turned to
_BY_ITSELF = 1024  # tokens up to which the geometry of a loaded model's run is measured without being asked for


def page() -> None:
    """Draw the page."""
    explore("Geometry", _QUESTION, panels, colour_by="resid_norm")


def panels(view: View) -> None:
    """One of four parts: the text beside its shuffles, linear maps of blocks, recall, the loss over a prompt set."""
    _open_part()
    part = choice("Part", _PARTS, "geometry-part")
    {"text": _text, "linearity": _linearity, "recall": _recall, "loss": _loss}[part](view)


def _open_part() -> None:
    """Turn to the part that holds the panel a link asks for, once."""
    asked = st.session_state.get(REVEAL)
    if asked is not None and asked.startswith("geometry-") and asked != st.session_state.get(_OPENED):
        st.session_state["geometry-part"] = _PART_OF.get(asked, "text")
    st.session_state[_OPENED] = asked


def _text(view: View) -> None:
    auto = view.loaded and len(view.tokens) <= _BY_ITSELF
    if extra(view, GEOMETRY, label="Measure the geometry", auto=auto) is None:
        return
    shuffle = _shuffle(view)
    left, right = st.columns(2)
    with left:
        show(view, "geometry-dimension", shuffle=shuffle)
        show(view, "geometry-overlap", shuffle=shuffle)
    with right:
        show(view, "geometry-scale", shuffle=shuffle)
        show(view, "geometry-matrix")
    show(view, "geometry-cosine", shuffle=shuffle)


def _shuffle(view: View) -> str:
    """Which shuffle stands beside the text; a button that runs those that are not stored, or how far that is."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="geometry-control"):
        st.markdown("**Control**")
        shuffle = choice("Control", SHUFFLES, "geometry-shuffle")
        try:
            left = n_shuffles_left(view)
        except BadRequest as problem:
            st.caption(markdown(str(problem)))
            return shuffle
        job = view.services.desk.get(shuffle_key(view))
        running = job is not None and job.active
        if left and not running and st.button(
            f"Run {left} shuffled texts", key="geometry-shuffles",
            help="All tokens in five random orders and four blocks of the text in five, BOS where it is: a forward pass "
            "each, in the background; what was run stays when it is cancelled.",
        ):  # fmt: skip
            job, running = shuffle_job(view), True
    if job is not None and running:
        show_progress(job)
    elif job is not None and job.error is not None:
        st.warning(markdown(job.error))
    return shuffle


def _linearity(view: View) -> None:
    """The corpus, the maps fitted on it, their scores and the tokens of this text."""
    name = _fitted(view, "linearity", "Fit the linear maps of all blocks")
    if name is None:
        return
    show(view, "geometry-linearity", prompts=name)
    distance = choice("Distance", DISTANCES, "geometry-distance")
    show(view, "geometry-nonlinearity", prompts=name, distance=distance)


def _recall(view: View) -> None:
    """The corpus, and the words its states recall."""
    name = _fitted(view, "recall", "Fit the recall of words before")
    if name is not None:
        show(view, "geometry-recall", prompts=name)


def _fitted(view: View, probe: CorpusProbe, label: str) -> str | None:
    """The set a probe was fitted on; None while its prompts or the fit are left to do."""
    known = _prompts(view)
    if known is None or not known.n_runnable or known.n_run < known.n_runnable:
        return None
    name = str(st.session_state["geometry-set"])
    return None if extra(view, corpus_call(view, name, probe), label=label) is None else name


def _loss(view: View) -> None:
    """Correlation by point, and the prompts at the selected one."""
    known = _prompts(view)
    if known is None or not known.n_run:
        return
    name = str(st.session_state["geometry-set"])
    metric = st.selectbox(
        "Metric", list(LOSS_METRICS), format_func=LOSS_METRICS.__getitem__, key="geometry-metric",
        label_visibility="collapsed", width=340,
    )  # fmt: skip
    left, right = st.columns(2)
    with left:
        show(view, "geometry-loss", prompts=name, metric=metric)
    with right:
        show(view, "geometry-loss-dots", prompts=name, metric=metric)


def _prompts(view: View) -> Survey | None:
    """Which set, how much of it was run, and the sweep of the rest; None where that cannot be said."""
    names = [name for name, one in sets_of(view.services.store).items() if local() or one.source == BUILT_IN]
    if st.session_state.get("geometry-set") not in names:
        st.session_state["geometry-set"] = BANK
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="geometry-prompts"):
        name = st.selectbox("Prompts", names, key="geometry-set", label_visibility="collapsed", width=240)
        asked = asked_of(view, name)
        try:
            known = known_of(view, name)
        except Gap as problem:
            st.error(str(problem))
            return None
        left, job = known.n_runnable - known.n_run, view.services.desk.get(job_key(asked))
        tokens = int(known.table["tokens"].dropna().sum())
        st.markdown(f"{known.n_run:,} of {known.n_runnable:,} prompts run, {tokens:,} tokens in all")
        running = job is not None and job.active
        if left and not running and local() and st.button(
            f"Run {left} prompts", key="geometry-sweep",
            help="Each prompt's geometry and loss, in the background; what was run stays when it is cancelled.",
        ):  # fmt: skip
            job, running = start(view.services, asked), True
    if job is not None and running:
        show_progress(job)
    elif job is not None and job.error is not None:
        st.warning(markdown(job.error))
    return known
