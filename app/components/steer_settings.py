"""What a steering is asked with: a latent or a concept prompt, its strength, and the text that is gone on from."""

from typing import Any

import pandas as pd
import streamlit as st

from app.components.explore import extra
from app.components.reading import choice
from app.components.sae_choice import CHOICE
from app.components.steer_concept import ReadPrompt, concept_prompt
from app.panels.latents import latents_call, latents_of, read_with
from app.sae_index import Indexed, known_index, labels_of, latent_here
from app.state import select
from app.steering import CONCEPT, FIRST, LIMIT, MODES, WRITTEN, ConceptSteer, Steer, control_of, controls_of
from app.text import markdown
from app.view import Gap, View
from probes.errors import BadRequest
from probes.saes.folder import SAEInfo

__all__ = ["restore", "settings"]

_WHERE = {"generated": "what is written", "all": "the prompt too"}


def restore(steer: Steer | ConceptSteer) -> None:
    """Set the widgets, before they are drawn, to what a steering was asked with."""
    stand: dict[str, Any] = {
        CHOICE: steer.sae,
        "steer-mode": CONCEPT if isinstance(steer, ConceptSteer) else steer.mode,
        "steer-strength": steer.strength,
        "steer-where": "generated" if steer.generated else "all",
        "steer-prompt": steer.prompt,
        "steer-temperature": steer.temperature,
        "steer-seed": steer.seed,
    }
    if isinstance(steer, ConceptSteer):
        stand["steer-concept"] = steer.concept
    else:
        select(latent=steer.latent)
    st.session_state.update(stand)


def settings(view: View, info: SAEInfo, sae: str) -> Steer | ConceptSteer | None:
    """Draw the widgets; what they ask for, or None, with the reason, where it cannot be asked."""
    index = known_index(view, info)
    mode = choice("Mode", MODES, "steer-mode")
    read: ReadPrompt | None = None
    latent, size = 0, 0.0
    if mode == CONCEPT:
        read = concept_prompt(view, info)
        if read is None:
            return None
        label, told = (
            "Strength λ, in units of what the prompt has",
            f"λ × the sum of its {len(read.latents)} latents is added.",
        )
    else:
        latent = _latent(view, info, sae)
        known = _size(view, sae, index, latent)
        if known is None:
            return None
        size, label = known, "Strength c, in units of the latent's typical size"
        told = f"add: c × {size:.4g} × W_dec[{latent}] is added; clamp: the activation is set to c × {size:.4g}."
    shared = _shared(view, label, told)
    alive = [] if index is None else index.latents.index[index.latents["n_fired"] > 0].tolist()
    try:
        if read is not None:
            control = controls_of(read.latents, info.d_sae, alive)
            return ConceptSteer(
                sae=info.name, concept=read.text, latents=read.latents, values=read.values, control=control, **shared
            )
        return Steer(
            sae=info.name, latent=latent, control=control_of(latent, info.d_sae, alive), typical=size,
            mode="clamp" if mode == "clamp" else "add", **shared,
        )  # fmt: skip
    except BadRequest as problem:
        st.warning(markdown(str(problem)))
        return None


def _shared(view: View, label: str, told: str) -> dict[str, Any]:
    """What every steering is asked with: where, how strongly, from which text on, how it is drawn."""
    st.session_state.setdefault("steer-strength", 2.0)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        where = choice("At", _WHERE, "steer-where")
        strength = st.slider(label, -LIMIT, LIMIT, step=0.5, key="steer-strength", width=320, help=told)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        prompt = st.text_input(
            "Prompt to go on from", key="steer-prompt", max_chars=2_000, width="stretch",
            placeholder=f"the first {min(FIRST, len(view.tokens))} tokens of the open text",
        )  # fmt: skip
        temperature = st.number_input("Temperature", 0.0, 5.0, step=0.1, key="steer-temperature", width=120)
        seed = st.number_input("Seed", 0, 2**31 - 1, step=1, key="steer-seed", width=110, disabled=temperature == 0)
    return {
        "strength": float(strength),
        "generated": where == "generated",
        "prompt": prompt.strip() and prompt,
        "first": FIRST,
        "tokens": WRITTEN,
        "temperature": float(temperature),
        "seed": int(seed),
    }


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


def _size(view: View, sae: str, index: Indexed | None, latent: int) -> float | None:
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
