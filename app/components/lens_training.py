"""The training of a tuned lens as people see it: how far it is, what came of it, and the ones that were broken off."""

from functools import partial
from typing import Any

import streamlit as st

from app.components.any_training import broken_off, ended_early, watch
from app.components.shell import page_of
from app.figures.tuned_lens import held_out_lines, training_line
from app.jobs import Job
from app.lens_training import name_of, resume
from app.services import Services
from app.text import markdown
from probes.lenses.folder import installed_lenses
from probes.lenses.shelf import Unfinished, discard, unfinished
from probes.lenses.training import read_report

__all__ = ["outcome", "running", "unfinished_ones"]


def running(job: Job) -> None:
    """Draw the training that runs; when it ends, the whole page is drawn anew."""
    name = name_of(job)
    watch(job, name, "lens-training-running", partial(_live, name))


def _live(name: str) -> None:
    begun = unfinished(name)
    if begun and begun[0].done > 1:
        _curve(begun[0], "lens-training-live")
    st.caption("One lens is trained at a time; a closed browser stops nothing, and other pages can be used meanwhile.")


def outcome(job: Job) -> None:
    """What the last training came to: its lens on held-out text and where to go, or why it ended."""
    name = name_of(job)
    if not ended_early(job, name) and name in installed_lenses():
        _done(name, read_report(installed_lenses()[name]))


def unfinished_ones(held: Services) -> None:
    """The trainings that were begun and not ended, each to be resumed or discarded."""
    for begun in unfinished():
        request = begun.work.request
        far = "a process is at it now" if begun.busy else f"step {begun.done:,} of {begun.work.steps:,}"
        said = f"unfinished · {markdown(request.model)}, up to {request.tokens:,} tokens · {far}"
        with st.container(border=True, key=f"lens-unfinished-{request.name}"):
            broken_off(
                request.name, said, prefix="lens-", busy=begun.busy, lost="Its checkpoint is thrown away.",
                resume=partial(_resumed, held, begun), discard=discard,
            )  # fmt: skip


def _resumed(held: Services, begun: Unfinished) -> str:
    return name_of(resume(held, begun))


def _done(name: str, report: dict[str, Any]) -> None:
    with st.container(border=True, key="lens-training-done"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{markdown(name)}** is trained and installed.")
            if st.button("Read the open text with it", type="primary", key="lens-training-read"):
                st.session_state["lens-variant"], st.session_state["lens-tuned"] = "tuned", name
                st.switch_page(page_of("lens"))
        split = "whole documents" if report["split"] == "documents" else "the last tenth of each document"
        st.caption(f"KL to the end at {report['held_out_positions']:,} positions of held-out text ({split}).")
        figure = held_out_lines(report["kl"], len(report["kl"]["raw"]))
        st.plotly_chart(figure, key="lens-training-ended", config={"displayModeBar": False})


def _curve(begun: Unfinished, key: str) -> None:
    st.plotly_chart(training_line(begun.log, begun.work.steps), key=key, config={"displayModeBar": False})
