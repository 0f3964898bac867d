"""What every training shows people: a bar with Cancel while it runs, a row to go on from or throw away when it was broken off."""

from collections.abc import Callable

import streamlit as st

from app.components.saying import say
from app.jobs import Job, sentence
from app.text import markdown
from probes.errors import BadRequest

__all__ = ["broken_off", "ended_early", "watch"]


def watch(job: Job, name: str, key: str, below: Callable[[], None]) -> None:
    """Draw the training that runs, and ``below`` its bar, and look again every second; when it ends, the whole page is drawn
    anew."""
    _watch(job, name, key, below)


@st.fragment(run_every=1.0)
def _watch(job: Job, name: str, key: str, below: Callable[[], None]) -> None:
    if not job.active:
        st.rerun(scope="app")
    with st.container(border=True, key=key):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(job.fraction, text=f"**{markdown(name)}** {markdown(job.what)}")
            st.button(
                "Cancel",
                key=f"cancel-{job.number}",
                on_click=job.cancel,
                help="What was done is kept: it can be resumed.",
            )
        below()


def ended_early(job: Job, name: str) -> bool:
    """Say why a training ended before it was done; whether it did."""
    if job.state == "cancelled":
        st.info(f"**{markdown(name)}** {markdown(job.error or '')}")
    elif job.error is not None:
        st.error(f"**{markdown(name)}** {markdown(job.error)}")
    return job.error is not None


def broken_off(
    name: str,
    said: str,
    *,
    prefix: str,
    busy: bool,
    lost: str,
    resume: Callable[[], str],
    discard: Callable[[str], None],
) -> None:
    """A training that was begun and not ended. ``said`` is Markdown; ``lost`` says what discarding throws away; ``resume``
    returns the name of the training that runs then, which is another where one was at it already."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{markdown(name)}** :small[:gray[{said}]]")
        with st.container(horizontal=True, gap="xsmall", width="content"):
            st.button("Resume", key=f"{prefix}resume-{name}", on_click=_resume, args=(resume, name), disabled=busy)
            with st.popover("Discard", disabled=busy):
                st.write(lost)
                st.button("Discard it", key=f"{prefix}discard-{name}", on_click=_discard, args=(discard, name))


def _resume(resume: Callable[[], str], name: str) -> None:
    if resume() != name:
        say("Another training of this kind runs now: one at a time.")


def _discard(discard: Callable[[str], None], name: str) -> None:
    try:
        discard(name)
    except (BadRequest, OSError) as problem:
        say(markdown(sentence(problem)))
