"""Interventions: take away, set or patch anything inside the pass, and see what the text makes of it."""

import dataclasses

import streamlit as st

from app.components.comparison import open_comparison
from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.progress import show_progress
from app.components.reading import choice
from app.components.two_prompts import WRITTEN, written
from app.methods import section
from app.outcome import outcome
from app.panels.interventions import MEASURES, TO, heads_call
from app.text import markdown
from probes.errors import BadRequest
from probes.model.edits import Edit, check_edit, parse_edits
from probes.request import ProbeCall, RunRequest

__all__ = ["page"]

_JSON = "interventions-json"
_OWN = "_own"  # session key: what is done with an own edit, of which run, the edits


def page() -> None:
    """Draw the page."""
    explore("Interventions", "Does it matter, and what if?", panels)


def panels(view: View) -> None:
    """The test of the selection stands above (every page has it); here every head in turn, and own edits."""
    _heads(view)
    _own(view)


def _heads(view: View) -> None:
    place = st.container()  # the title stands above what is asked for
    with st.container(horizontal=True, gap="small"):
        to = choice("Heads are set", TO, "interventions-to")
        measures = st.container()
    if extra(view, heads_call(to), label=f"Set every head {TO[to]}, one after another") is None:
        with place:
            show(view, "interventions-heads", to=to)
        return
    with measures:
        metric = choice("Measure", MEASURES, "interventions-measure")
    show(view, "interventions-heads", to=to, metric=metric)


def _own(view: View) -> None:
    st.markdown("**Your own edit** :small[:gray[What if this stood there instead?]]")
    with st.form("interventions-own", border=False):
        text = st.text_area("Edits as JSON", _start(view), key=_JSON, height=100, max_chars=200_000)
        with st.container(horizontal=True):
            run = st.form_submit_button("Run with every view", type="primary")
            write = st.form_submit_button("Continue the text")
            st.form_submit_button(
                "Begin at the selection", type="tertiary", on_click=_begin, args=(view,),
                help="Replace the text above by an edit of the selected point, position and dimension.",
            )  # fmt: skip
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("interventions", "Your own edit"))
        st.markdown("**Continuations.** " + section("interventions", "Continuations"))
    if run or write:
        try:
            edits = parse_edits([text])
            for edit in edits:
                check_edit(edit, view.facts, len(view.tokens))
            st.session_state[_OWN] = ("run" if run else "write", view.info.run_id, edits)
        except BadRequest as problem:
            st.session_state.pop(_OWN, None)
            st.error(markdown(str(problem)))
            return
    asked = st.session_state.get(_OWN)
    if asked is not None and asked[1] == view.info.run_id:
        (_continuations if asked[0] == "write" else _edited)(view, asked[2])


def _begin(view: View) -> None:
    st.session_state[_JSON] = _start(view)


def _start(view: View) -> str:
    """An edit to begin with: the selected place to zero."""
    chosen = view.selection
    dims = None if chosen.dimension is None else (chosen.dimension,)
    edit = Edit("resid", chosen.point, "set", "zero", positions=(chosen.position,), dims=dims)
    shown = ", ".join(f'"{name}": {_json(value)}' for name, value in edit.as_dict().items())
    return "{" + shown + "}"


def _json(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _edited(view: View, edits: tuple[Edit, ...]) -> None:
    request = _with(view, edits)
    job = _job(view, request, "Run with your edit")
    edited = None if job is None else view.services.open(job)
    if job is None or edited is None:
        return
    read = outcome(view.result, edited, None)
    costs = ["undefined" if value is None else f"{value:,.2f}" for value in read.perplexity]
    sinks = ["undefined" if value is None else f"{value:.0%}" for value in read.sinks]
    st.markdown(f"Perplexity **{' → '.join(costs)}**, sink heads {' → '.join(sinks)}.")
    if st.button("Compare with the clean run: A, B and B − A", key="interventions-compare"):
        open_comparison(view.info.run_id, job)


def _continuations(view: View, edits: tuple[Edit, ...]) -> None:
    call = ProbeCall("continuation", {"tokens": WRITTEN})
    found = []
    for name, request in (("clean", view.info.request), ("edited", _with(view, edits))):
        run = _job(view, dataclasses.replace(request, probes=(call,)), f"Continuation, {name}")
        if run is None:
            return
        result = view.services.open(run)
        if result is None:
            return
        found.append((name, result))
    for column, (name, result) in zip(st.columns(2), found, strict=True):
        with column:
            written(name, view, result)


def _with(view: View, edits: tuple[Edit, ...]) -> RunRequest:
    request = view.info.request
    return dataclasses.replace(request, edits=(*request.edits, *edits))


def _job(view: View, request: RunRequest, label: str) -> str | None:
    """The run id of a request once it is answered; until then its progress, or why it was refused."""
    held = view.services
    key = ("own", request.as_json())
    job = held.desk.get(key)
    if job is None:
        job = held.run(request, key, label)
    if not job.wait(0.3):
        show_progress(job)
        return None
    if job.error is not None:
        st.warning(markdown(job.error))
        if st.button("Try again", key=f"again-{label}"):
            held.run(request, key, label)
            st.rerun(scope="fragment")
        return None
    return str(job.result)
