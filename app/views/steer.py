"""Steering: what the model writes, and predicts, when one latent is turned up or down, beside a random latent."""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from itertools import groupby
from typing import Any

import pandas as pd
import streamlit as st

from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.progress import show_progress
from app.components.reading import choice
from app.components.sae_choice import choose_sae
from app.components.two_prompts import prose
from app.methods import section
from app.panels.latents import latents_call, latents_of, read_with
from app.panels.steer import answers, plan_of, promoted, table_of
from app.sae_index import Indexed, known_index, labels_of, latent_here, sae_info
from app.state import current, select
from app.steering import CONTROL, FIRST, LIMIT, MODES, WRITTEN, Plan, Steer, control_of, read_steer, submit
from app.text import markdown, visible
from app.view import Gap
from probes.errors import BadRequest
from probes.runner import RunResult
from probes.saes.folder import SAEInfo, installed_saes

__all__ = ["page"]

_QUESTION = "What does the model write when one latent is turned up or down, and is it more than a random latent does?"
_ASKED = "steer-asked"  # session key: the steering as JSON, as a link to a panel of it sets it
_OF = "_steer-of"  # session key: the run it was asked of, and the steering the widgets stand at
_WHERE = {"generated": "what is written", "all": "the prompt too"}


def page() -> None:
    """Draw the page."""
    explore("Steering", _QUESTION, panels, colour_by="sae_explained_variance")


def panels(view: View) -> None:
    """The latent and the settings, then the texts side by side, the measures, and where the open text changes."""
    view = _arrive(view)
    sae = choose_sae(view, {one.name: one for one in installed_saes()})
    try:
        info = sae_info(view, sae)
    except Gap as gap:
        st.info(str(gap))
        return
    asked = _settings(view, info, sae)
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
        st.markdown(section("steer", "Steering with a latent"))
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
    stand: dict[str, Any] = {
        "steer-mode": steer.mode,
        "steer-strength": steer.strength,
        "steer-where": "generated" if steer.generated else "all",
        "steer-prompt": steer.prompt,
        "steer-temperature": steer.temperature,
        "steer-seed": steer.seed,
    }
    st.session_state.update(stand)
    select(latent=steer.latent)
    return dataclasses.replace(view, selection=current())


def _settings(view: View, info: SAEInfo, sae: str) -> Steer | None:
    """What the widgets ask for; None, with the reason, where it cannot be asked."""
    index = known_index(view, info)
    latent = _latent(view, info, sae)
    size = _size(view, info, sae, index, latent)
    if size is None:
        return None
    st.session_state.setdefault("steer-strength", 2.0)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        mode = choice("Mode", MODES, "steer-mode")
        where = choice("At", _WHERE, "steer-where")
        strength = st.slider(
            "Strength c, in units of the latent's typical size", -LIMIT, LIMIT, step=0.5, key="steer-strength", width=320,
            help=f"add: c × {size:.4g} × W_dec[{latent}] is added; clamp: the activation is set to c × {size:.4g}.",
        )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        prompt = st.text_input(
            "Prompt to go on from", key="steer-prompt", max_chars=2_000, width="stretch",
            placeholder=f"the first {min(FIRST, len(view.tokens))} tokens of the open text",
        )  # fmt: skip
        temperature = st.number_input("Temperature", 0.0, 5.0, step=0.1, key="steer-temperature", width=120)
        seed = st.number_input("Seed", 0, 2**31 - 1, step=1, key="steer-seed", width=110, disabled=temperature == 0)
    alive = [] if index is None else index.latents.index[index.latents["n_fired"] > 0].tolist()
    try:
        control = control_of(latent, info.d_sae, alive)
        return Steer(
            info.name, latent, control, size, "clamp" if mode == "clamp" else "add", float(strength),
            where == "generated", prompt.strip() and prompt, FIRST, WRITTEN, float(temperature), int(seed),
        )  # fmt: skip
    except BadRequest as problem:
        st.warning(markdown(str(problem)))
        return None


def _latent(view: View, info: SAEInfo, sae: str) -> int:
    """The latent in sight, and a field to choose another by its number."""
    last = info.d_sae - 1
    latent = min(latent_here(view, sae), last)
    label = labels_of(view, sae).get(latent)
    if st.session_state.get("steer-latent") != latent:
        st.session_state["steer-latent"] = latent
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.number_input(
            f"Latent 0..{last}", 0, last, step=1, key="steer-latent", width=150,
            on_change=lambda: select(latent=st.session_state["steer-latent"]),
        )  # fmt: skip
        said = f" · {markdown(label)}" if label else ""
        st.markdown(f"**Latent {latent}**{said} :small[:gray[of {markdown(info.name)}, written at point {info.point}]]")
    return latent


def _size(view: View, info: SAEInfo, sae: str, index: Indexed | None, latent: int) -> float | None:
    """The latent's typical size: its largest activation in the index, else on this text; None, said why, if neither."""
    if index is not None and latent in index.latents.index:
        largest = index.latents.loc[latent, "max"]
        if pd.notna(largest) and float(largest) > 0:
            st.caption(
                f"Its typical size is {float(largest):.4g}: its largest activation in {index.n_tokens:,} tokens."
            )
            return float(largest)
    if sae and extra(view, latents_call(sae), label="Read the states with it", auto=view.loaded) is None:
        return None
    try:
        rows = latents_of(read_with(view, sae))
    except Gap as gap:
        st.info(str(gap))
        return None
    mine = rows.loc[(rows["latent"] == latent) & (rows["pos"] > 0), "activation"]
    if mine.empty:
        st.info(
            f"Latent {latent} is not among the strongest of any token here and no index says how large it is: choose another, "
            "or make an index on the page *One latent*."
        )
        return None
    st.caption(
        f"Its typical size is {float(mine.max()):.4g}: its largest activation in this text, for want of an index."
    )
    return float(mine.max())


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
    marked = set(promoted(found)) if "tokens the latent promotes" in found else set()
    prompt = "".join(prose(piece) for piece in view.decode(plan.written["clean"].token_ids))
    st.markdown(f"**Going on from** :gray[{markdown(prompt)}]")
    titles = {
        "clean": "Clean",
        "steered": f"Steered by latent {plan.steer.latent}",
        CONTROL: f"Control: latent {plan.steer.control}",
    }
    for column, (name, result) in zip(st.columns(3), ready.items(), strict=False):
        with column, st.container(border=True, key=f"steer-text-{name}"):
            st.caption(titles[name])
            ids = [int(token) for token in result.tensor("continuation").tolist()]
            st.markdown(_marked(ids, view.decode(ids), marked) or "nothing")
    if marked:
        texts = ", ".join(markdown(visible(text)) for text in view.decode(sorted(marked)))
        st.caption(f"Marked: tokens the latent promotes most on the direct path ({texts}).")


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
