"""Whether the prompts of a set were run: progress while they are, and the button that runs them."""

import streamlit as st

from app.components.keeping import local
from app.components.progress import show_progress
from app.services import Services
from app.sweeps import facts_of, job_key, start, survey
from app.text import markdown
from probes.set_sweep import SetAsk

__all__ = ["set_ready"]


def set_ready(held: Services, asked: SetAsk, verb: str, key: str) -> bool:
    """Whether at least two prompts were run; otherwise progress, or a button that begins with ``verb``."""
    facts = facts_of(held, asked.like.model)
    if facts is None:
        return False
    job = held.desk.get(job_key(asked))
    if job is not None and job.active:
        show_progress(job)
        return False
    known = survey(held, asked, facts)
    left = known.n_runnable - known.n_run
    refused = () if job is None or job.state != "done" else job.result.refused
    if job is not None and job.error is not None:
        st.info(markdown(job.error))
    if left > len(refused) and local():
        what = "all" if not known.n_run else "the other"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.write(f"{known.n_run:,} of {known.n_runnable:,} prompts are there.")
            if st.button(f"{verb} {what} {left}", type="primary", key=key):
                start(held, asked)
                st.rerun()
    return known.n_run > 1
