"""A job as people see it: what is being done, how far, how long still, and a way to stop it."""

import streamlit as st

from app.components.backend import services
from app.jobs import Job
from app.text import markdown

__all__ = ["show_progress"]


def show_progress(job: Job) -> None:
    """Draw a job that is not over and look again twice a second; when it ends, the whole page is drawn anew."""
    _poll(job)


@st.fragment(run_every=0.5)
def _poll(job: Job) -> None:
    if not job.active:
        st.rerun(scope="app")
    queue = [other for other in services().desk.active() if other.state == "running" and other is not job]
    waits = job.state == "queued" and queue
    what = f"waiting for another run ({queue[0].label})" if waits else job.what
    left = "" if job.eta is None else f", about {_duration(job.eta)} left"
    with st.container(horizontal=True, vertical_alignment="center", key=f"job-{job.number}"):
        st.progress(job.fraction, text=f"{markdown(job.label)}: {markdown(what)}{left}")
        st.button("Cancel", key=f"cancel-{job.number}", on_click=job.cancel, type="tertiary")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
