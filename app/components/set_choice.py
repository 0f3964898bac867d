"""Which prompt set is asked of which model, and how its prompts become tokens; one choice for all pages about sets."""

import streamlit as st

from app.components.keeping import local
from app.components.progress import show_progress
from app.components.run_form import MASK_NAMES, weights_choice
from app.services import Services
from app.text import markdown
from probes.model.catalog import EMBEDDED
from probes.prompts.library import all_sets
from probes.prompts.sets import BUILT_IN
from probes.request import DEFAULT_PROBES, MASKS, RunRequest
from probes.set_sweep import SetAsk

__all__ = ["choose_next", "choose_set", "load_first"]

_CHOSEN = "_sets-chosen"  # session key: set and model, kept while other pages are looked at
_SET, _MODEL = "sets-set", "sets-model"


def choose_set(held: Services, names: list[str], *, tokens: bool = True) -> SetAsk:
    """The set, the model, and how prompts become tokens; without ``tokens`` all count and BOS stands first."""
    sets = {one.name: one for one in all_sets(held.store) if local() or one.source == BUILT_IN}
    kept = st.session_state.get(_CHOSEN, (next(iter(sets)), EMBEDDED))
    for key, known, before in ((_SET, sets, kept[0]), (_MODEL, names, kept[1])):
        if st.session_state.get(key) not in known:
            st.session_state[key] = before if before in known else next(iter(known))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="sets-chooser"):
        name = st.selectbox("Set", list(sets), key=_SET, width=220)
        model = st.selectbox("Model", names, key=_MODEL, width=260)
        with st.container(width=200):
            model += weights_choice("sets-weights")
        chat = st.segmented_control("Read as", ["plain", "chat"], default="plain", required=True, key="sets-read")
        mask, bos = MASKS[0], True
        if tokens:
            mask = st.selectbox(
                "Tokens that count", MASKS, format_func=MASK_NAMES.__getitem__, key="sets-mask", width=260
            )
            bos = st.checkbox("BOS first", value=True, key="sets-bos")
        else:
            for key in ("sets-mask", "sets-bos"):  # what is not drawn is forgotten otherwise
                if key in st.session_state:
                    st.session_state[key] = st.session_state[key]
    st.session_state[_CHOSEN] = (name, st.session_state[_MODEL])
    return SetAsk(sets[name], RunRequest(model, (0,), DEFAULT_PROBES, mask=mask), chat == "chat", bos)


def choose_next(name: str) -> None:
    """Choose the set of that name at the next drawing, with the model that was chosen."""
    st.session_state[_CHOSEN] = (name, st.session_state[_CHOSEN][1])
    st.session_state.pop(_SET, None)


def load_first(held: Services, model: str) -> None:
    """How long prompts are for a model that was neither loaded nor run is not known: a button loads it."""
    job = held.desk.get(("fetch", model))
    if job is not None and job.active:
        show_progress(job)
        return
    if job is not None and job.error is not None:
        st.error(markdown(job.error))
    st.write(f"How long the prompts are for {markdown(model)} is known once it has been loaded.")
    if st.button("Load and check it", type="primary", key="sets-load"):
        held.fetch(model)
        st.rerun()
