"""Geometry: how many dimensions the tokens fill, who stays near whom, and whether all of it is the text or its tokens."""

import streamlit as st

from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.progress import show_progress
from app.components.reading import choice
from app.geometry import GEOMETRY, n_shuffles_left, shuffle_job, shuffle_key
from app.panels.geometry import SHUFFLES
from app.text import markdown
from probes.errors import BadRequest

__all__ = ["page"]

_QUESTION = "What shape do the tokens of this text have at each point?"
_BY_ITSELF = 1024  # tokens up to which the geometry of a loaded model's run is measured without being asked for


def page() -> None:
    """Draw the page."""
    explore("Geometry", _QUESTION, panels, colour_by="resid_norm")


def panels(view: View) -> None:
    """Dimensions, neighbours and cosines of the text beside its shuffles."""
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
