"""Steering: what the model writes, and predicts, when a latent or a concept is turned up or down, beside random latents."""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from itertools import groupby
from typing import Any

import pandas as pd
import streamlit as st

from app.components.explore import View, explore
from app.components.panel import show
from app.components.progress import show_progress
from app.components.sae_choice import choose_sae
from app.components.steer_settings import restore, settings
from app.components.two_prompts import prose
from app.methods import section
from app.panels.steer import answers, plan_of, promoted, table_of
from app.sae_index import sae_info
from app.state import current
from app.steering import ConceptSteer, read_steer
from app.steering_passes import CONTROL, Plan, submit
from app.text import markdown, visible
from app.view import Gap
from probes.errors import BadRequest
from probes.runner import RunResult
from probes.saes.folder import installed_saes

__all__ = ["page"]

_QUESTION = (
    "What does the model write when a latent or a concept is turned up or down, and is it more than random latents do?"
)
_HOW = ("Steering with a latent", "Steering with a concept prompt")
_ASKED = "steer-asked"  # session key: the steering as JSON, as a link to a panel of it sets it
_OF = "_steer-of"  # session key: the run it was asked of, and the steering the widgets stand at


def page() -> None:
    """Draw the page."""
    explore("Steering", _QUESTION, panels, colour_by="sae_explained_variance")


def panels(view: View) -> None:
    """The settings, then the texts side by side, the measures, and where the open text changes."""
    view = _arrive(view)
    sae = choose_sae(view, {one.name: one for one in installed_saes()})
    try:
        info = sae_info(view, sae)
    except Gap as gap:
        st.info(str(gap))
        return
    asked = settings(view, info, sae)
    if asked is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            go = st.button("Steer", type="primary", key="steer-go")
            st.caption(
                "Three texts, two passes over the open text; some seconds each. Every pass is stored.", width="content"
            )
        if go:
            st.session_state[_ASKED] = asked.as_dict()
            st.session_state[_OF] = (view.info.run_id, asked.as_dict())
            st.session_state["_steer-pressed"] = True
    with st.expander("How to read it / when not to trust it"):
        st.markdown("\n\n".join(f"**{how}**\n\n{section('steer', how)}" for how in _HOW))
    given = st.session_state.get(_ASKED)
    if given and st.session_state.get(_OF, (None,))[0] == view.info.run_id:
        _answer(view, given)


def _arrive(view: View) -> View:
    """A link to a panel asks for a steering: the widgets and the selection stand where it says."""
    given = st.session_state.get(_ASKED)
    if not given or st.session_state.get(_OF, (None, None))[1] == given:
        return view
    st.session_state[_OF] = (view.info.run_id, given)
    st.session_state.pop("_steer-pressed", None)
    try:
        steer = read_steer(given)
    except BadRequest:
        return view  # said where the answer would stand
    restore(steer)
    return dataclasses.replace(view, selection=current())


def _answer(view: View, given: Mapping[str, Any]) -> None:
    try:
        plan = plan_of(view, given)
    except BadRequest as problem:
        st.warning(markdown(str(problem)))
        return
    found = answers(view, plan)
    _texts(view, plan, found)
    if len(found) < len(plan.requests()):
        _growing(view, plan)
        return
    try:
        table = table_of(view, plan)
    except Gap as gap:
        st.info(str(gap))
        return
    st.markdown(_headline(table))
    show(view, "steer-effect", steer=dict(given))
    show(view, "steer-along", steer=dict(given))


def _growing(view: View, plan: Plan) -> None:
    """The passes that are missing: run if a person pressed the button, otherwise offered."""
    job = view.services.desk.get(plan.key)
    if job is not None and job.error is not None:
        st.warning(markdown(job.error))
    if job is not None and job.active:
        show_progress(job)
    elif st.session_state.pop("_steer-pressed", False) or st.button("Run its passes", key="steer-run"):
        show_progress(submit(view.services, plan))


def _texts(view: View, plan: Plan, found: Mapping[str, RunResult]) -> None:
    """What is written, side by side, the tokens the latent promotes marked."""
    ready = {name: found[f"{name} text"] for name in plan.written if f"{name} text" in found}
    if not ready:
        return
    marked = set(promoted(plan, found))
    prompt = "".join(prose(piece) for piece in view.decode(plan.written["clean"].token_ids))
    st.markdown(f"**Going on from** :gray[{markdown(prompt)}]")
    titles = {
        "clean": "Clean",
        "steered": f"Steered by {markdown(plan.steer.named)}",
        CONTROL: f"Control: {plan.steer.control_named}",
    }
    for column, (name, result) in zip(st.columns(3), ready.items(), strict=False):
        with column, st.container(border=True, key=f"steer-text-{name}"):
            st.caption(titles[name])
            ids = [int(token) for token in result.tensor("continuation").tolist()]
            st.markdown(_marked(ids, view.decode(ids), marked) or "nothing")
    if marked:
        texts = ", ".join(markdown(visible(text)) for text in view.decode(sorted(marked)))
        what = "what is added" if isinstance(plan.steer, ConceptSteer) else "the latent"
        st.caption(f"Marked: tokens that {what} promotes most on the direct path ({texts}).")


def _marked(ids: Sequence[int], texts: Sequence[str], marked: Set[int]) -> str:
    """A text in Markdown with some of its tokens marked; spaces stay outside, so that lines break between words."""
    said = []
    for hit, run in groupby(zip(ids, texts, strict=True), key=lambda pair: pair[0] in marked):
        text = "".join(prose(piece) for _, piece in run)
        core = text.strip(" ")
        before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
        shown = f":orange-background[{markdown(core)}]" if hit and core else markdown(core)
        said.append(" " * before + shown + " " * after if core else text)
    return "".join(said)


def _headline(table: pd.DataFrame) -> str:
    rows = table.set_index("measure")
    parts = [
        f"{name} **{rows.loc[name, 'steered']:.3g}** (control {rows.loc[name, CONTROL]:.3g})"
        for name in ("KL, nats", "loss added, nats")
    ]
    rate = rows.loc["target rate"]
    parts.append(
        f"promoted tokens **{rate['steered']:.0%}** of the text (clean {rate['clean']:.0%}, control {rate[CONTROL]:.0%})"
    )
    return " · ".join(parts)
