"""Models: what is installed, how to get more, and whether the numbers of a loaded model can be trusted."""

import pandas as pd
import streamlit as st

from app.components.backend import services
from app.components.lens_shelf import lens_shelf
from app.components.progress import show_progress
from app.components.run_form import weights_choice
from app.components.sae_shelf import sae_shelf
from app.services import Services
from app.text import markdown
from probes.model.catalog import EMBEDDED, PRESETS, installed
from probes.model.health import Check
from probes.model.loaded import ModelFacts

__all__ = ["page"]


def page() -> None:
    """Draw the page."""
    st.markdown("**Models** :gray[Which models are here, and does each one compute what Hugging Face computes?]")
    held = services()
    for name, source in sorted(installed().items()):
        _installed(held, name, source.weights or "as published")
    if EMBEDDED not in installed():
        _get(held, EMBEDDED, "the embedded model: 135 million parameters, Apache-2.0, 93 MB to fetch, once")
    st.markdown("**From the hub** :gray[Fetched once, safetensors only; refused if the self-check fails.]")
    _hub(held)
    sae_shelf(held)
    lens_shelf(held)


def _installed(held: Services, name: str, weights: str) -> None:
    with st.container(border=True, key=f"model-{name}"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            says = st.empty()
            with st.container(width=220):
                name += weights_choice(f"weights-{name}", label_visibility="collapsed")
            model = held.shelf.loaded(name)
            facts = "" if model is None else _facts(model.facts)
            stored = weights if model is None else model.facts.weights
            says.markdown(f"**{markdown(name)}** {markdown(stored)}{facts}")
            checked = model is None and st.button("Load and check", key=f"check-{name}")
        job = held.fetch(name) if checked else held.desk.get(("fetch", name))
        if job is not None and job.active:
            show_progress(job)
        elif model is not None:
            _health(name, model.health)
        elif job is not None and job.error is not None:
            st.error(markdown(job.error))


def _facts(facts: ModelFacts) -> str:
    return (
        f" · {facts.architecture} · {facts.n_layers} blocks, width {facts.d_model}, {facts.n_heads} heads "
        f"({facts.n_kv_heads} for keys and values), vocabulary {facts.d_vocab:,}, context {facts.context:,} · "
        f"{facts.device} {facts.dtype} · BOS {'none' if facts.bos_id is None else facts.bos_id}"
    )


def _health(name: str, health: tuple[Check, ...]) -> None:
    passed = sum(check.passed for check in health)
    st.caption(f"Model health: {passed} of {len(health)} checks passed when it was loaded")
    table = pd.DataFrame(
        {
            "check": [check.name for check in health],
            "passed": ["yes" if check.passed else "no" for check in health],
            "what was compared, and the figure": [check.says for check in health],
        }
    )
    st.dataframe(table, hide_index=True, key=f"health-{name}", height="content")


def _hub(held: Services) -> None:
    with st.form("hub", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        preset = st.selectbox("Preset", [None, *PRESETS], format_func=lambda i: "choose" if i is None else PRESETS[i])
        typed = st.text_input("or a hub id", placeholder="organisation/model", max_chars=200)
        asked = st.form_submit_button("Fetch and check", type="primary")
    name = typed.strip() or preset
    if asked and not name:
        st.warning("Choose a preset or give a hub id such as Qwen/Qwen3-0.6B.")
    elif asked and name:
        held.fetch(name)
        st.session_state["_hub"] = name
    if "_hub" in st.session_state:
        _outcome(held, st.session_state["_hub"])


def _get(held: Services, name: str, what: str) -> None:
    with st.container(border=True, key=f"model-{name}"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{markdown(name)}** {what}")
            if st.button("Fetch", type="primary", key=f"fetch-{name}"):
                held.fetch(name)
        _outcome(held, name)


def _outcome(held: Services, name: str) -> None:
    job = held.desk.get(("fetch", name))
    if job is None:
        return
    if job.active:
        show_progress(job)
    elif job.error is not None:
        st.error(markdown(job.error))
    else:
        model = held.shelf.loaded(name)
        st.success(f"{markdown(name)} is here and passed its self-check.")
        if model is not None:
            _health(name, model.health)
