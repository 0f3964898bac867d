"""One more question about the open run or its model: asked on demand, answered in the background, stored for good."""

import streamlit as st

from app.components.progress import show_progress
from app.text import markdown
from app.view import View
from probes.request import ProbeCall, RunRequest
from probes.runner import RunResult

__all__ = ["answered", "extra"]

_PATIENCE = 1.2  # seconds; a job this short needs no progress bar, and the page is drawn once


def extra(view: View, *calls: ProbeCall, label: str, auto: bool = False) -> RunResult | None:
    """Run ``calls`` on the capture of ``view``; None while the answer is not there, as :func:`answered` says."""
    return answered(view, view.info.request.with_probes(*calls), label=label, auto=auto)


def answered(view: View, request: RunRequest, *, label: str, auto: bool = False) -> RunResult | None:
    """The answer to a request on the model of ``view``; None while it is not there.

    Draws a button named ``label`` (``auto``: starts by itself), then its progress, or why it was refused. What the
    store holds is read at once. Raises BadRequest for a call that cannot mean anything.
    """
    held, wanted = view.services, view.id_of(request)
    stored = held.open(wanted)
    if stored is not None:
        return stored
    job = held.desk.get(("run", wanted))
    if job is not None and job.error is not None:
        st.warning(markdown(job.error))
    if job is None or not job.active:
        tried = job is not None
        if (tried or not auto) and not st.button("Try again" if tried else label, key=f"extra-{wanted}-{label}"):
            return None
        job = held.run(request, ("run", wanted), label)
    if not job.wait(_PATIENCE):
        show_progress(job)
        return None
    if job.error is not None:
        st.warning(markdown(job.error))
        return None
    return held.open(wanted)
