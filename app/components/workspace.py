"""Which run is open, and the header that says so: status, run form, progress, and what to do without a model."""

import streamlit as st

from app.components.backend import services
from app.components.keeping import begin
from app.components.opening import open_panel
from app.components.progress import show_progress
from app.components.run_form import JOB, RUN, run_dialog
from app.jobs import Job
from app.selection import Link
from app.services import Services, example_ask
from app.state import arrive, settle
from app.text import markdown
from app.view import run_bounds
from probes.model.catalog import EMBEDDED, base_name, installed
from probes.model.edits import describe
from probes.runner import RunInfo, RunResult

__all__ = ["open_run"]

_GREETED = "_greeted"
_SHORT = 32


def open_run(title: str, question: str) -> RunResult | None:
    """Draw the header of a page and return the open run, its selection settled and in the URL, or None."""
    link = arrive()
    held = services()
    problems: list[str] = []
    result = _wanted(held, link, problems)
    if result is not None:
        info = result.info
        problems += settle(info.model, info.run_id, info.mask, run_bounds(result), link)
        wrong = None if link is None else open_panel(link.beside)
        problems += [] if wrong is None else [wrong]
    _header(title, question, result)
    for problem in problems:
        st.warning(markdown(problem))
    _job(held)
    if result is None and JOB not in st.session_state:
        _nothing_open(held)
    return result


def _wanted(held: Services, link: Link | None, problems: list[str]) -> RunResult | None:
    """The run of the finished job, of the address, of this session, or the example's, in this order."""
    job = _current_job(held)
    if job is not None and job.state == "done":
        del st.session_state[JOB]
        if job.key[0] == "ask":
            st.session_state[RUN] = job.result
            begin(held, str(job.result))
    elif link is not None:
        _follow(held, link, problems)
    run_id = st.session_state.get(RUN)
    result = held.open(run_id) if run_id is not None else None
    if result is None and EMBEDDED in installed():
        result = held.latest(EMBEDDED)
        if result is None and JOB not in st.session_state and not st.session_state.get(_GREETED):
            st.session_state[JOB] = held.ask(example_ask()).key
            st.session_state[_GREETED] = True
    if result is not None:
        st.session_state[RUN] = result.info.run_id
        said = {} if link is None else {"model": link.model if link.run else None, "mask": link.mask}
        for key, value in said.items():
            true = getattr(result.info, key)
            if value is not None and value != true:
                problems.append(f"The address says {key}={value[:64]!r}, but this run was made with {true}.")
    return result


def _follow(held: Services, link: Link, problems: list[str]) -> None:
    if link.run is not None:
        if held.open(link.run) is not None:
            st.session_state[RUN] = link.run
        else:
            problems.append(f"The address names the run {link.run[:64]!r}, which this store does not hold.")
    elif link.model is not None:
        if base_name(link.model) in installed():
            latest = held.latest(link.model)
            if latest is not None:
                st.session_state[RUN] = latest.info.run_id
            else:
                st.session_state[JOB] = held.ask(example_ask(link.model)).key
        else:
            problems.append(f"The address names the model {link.model[:64]!r}, which is not installed.")


def _header(title: str, question: str, result: RunResult | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="header"):
        line = "" if result is None else f"  \n:small[{status(result.info)}]"
        st.markdown(f"**{title}** :gray[{question}]{line}")
        if result is not None and result.info.notes:
            notes = result.info.notes
            with st.popover("1 note" if len(notes) == 1 else f"{len(notes)} notes"):
                for note in notes:
                    st.markdown(f"- {markdown(note)}")
        if st.button("Run a text", type="primary", key="run-open"):
            run_dialog(None if result is None else result.info.model)
    if result is not None and result.info.n_tokens < _SHORT:
        st.caption(f"Only {result.info.n_tokens} tokens: sink scores and spectra mean little below {_SHORT}.")


def status(info: RunInfo) -> str:
    """The run in one line of Markdown."""
    passes = "no forward pass" if info.forward_passes == 0 else f"{info.forward_passes} forward pass"
    parts = [
        f"**{markdown(info.model)}**",
        markdown(info.weights),
        "health passed",
        f"{info.device} {info.dtype}",
        f"{info.n_tokens:,} tokens",
        f"mask {info.mask}",
        f"{'read from the store, ' if info.cached else ''}{passes}, {info.seconds:.1f} s",
        f"{info.peak_bytes / 1e6:,.0f} MB",
        f"run {info.run_id[:8]}",
        *([f"**edited** {markdown(describe(info.request.edits))}"] if info.request.edits else []),
    ]
    return " · ".join(parts)


def _current_job(held: Services) -> Job | None:
    key = st.session_state.get(JOB)
    return None if key is None else held.desk.get(key)


def _job(held: Services) -> None:
    job = _current_job(held)
    if job is None:
        return
    if job.active:
        show_progress(job)
    elif job.error is not None:
        st.error(markdown(job.error))
        del st.session_state[JOB]


def _nothing_open(held: Services) -> None:
    if EMBEDDED in installed():
        st.write("No run is open.")
        wanted = st.button("Run the example passage", type="primary", key="run-example")
        ask = held.ask(example_ask()).key if wanted else None
    else:
        st.markdown(
            f"No model is installed yet. **{EMBEDDED}** (135 million parameters, Apache-2.0, stored Q4_1 and "
            "dequantised) takes 93 MB to fetch, once; everything works offline afterwards."
        )
        wanted = st.button(f"Fetch {EMBEDDED}", type="primary", key="fetch-embedded")
        ask = held.fetch(EMBEDDED).key if wanted else None
    if ask is not None:
        st.session_state[JOB] = ask
        st.rerun()
