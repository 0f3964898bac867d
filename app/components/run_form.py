"""The run form: a text for a model, how it becomes tokens, and which tokens count; or a run that is stored already."""

import streamlit as st
from streamlit.elements.lib.utils import LabelVisibility

from app.components.backend import services
from app.components.keeping import local
from app.methods import section
from app.services import MAX_CHARACTERS, Ask, Services
from app.text import visible
from probes.model.catalog import VARIANTS, base_name
from probes.model.edits import describe
from probes.prompts import examples
from probes.request import MASKS
from probes.respond import Generation

__all__ = ["JOB", "MASK_NAMES", "RUN", "generation_fields", "run_dialog", "weights_choice"]

JOB, RUN = "_job", "_run"  # session keys: the job that is awaited, the run that is open
_TEXT = "run-text"
MASK_NAMES = {"all": "all tokens", "no_bos": "without position 0 and specials", "no_sink": "without sink tokens too"}
_RECENT = 20


@st.dialog("Run a text", width="large")
def run_dialog(model: str | None) -> None:
    """Ask for a text and start the run; the page shows its progress. ``model`` is chosen at first."""
    held = services()
    names = held.model_names()
    if not names:
        st.write("No model is installed yet: the page *Models* fetches one.")
        return
    texts = {example.title: example.text for example in examples()}

    def take() -> None:
        st.session_state[_TEXT] = texts.get(st.session_state["run-example"], "")

    st.session_state.setdefault(_TEXT, examples()[0].text)
    st.pills("Examples", list(texts), key="run-example", on_change=take, label_visibility="collapsed")
    with st.form("run-form", border=False):
        text = st.text_area("Text", key=_TEXT, height=200, max_chars=MAX_CHARACTERS)
        chosen, rounded = st.columns([1.4, 1])
        known = None if model is None else base_name(model)
        name = chosen.selectbox("Model", names, names.index(known) if known in names else 0)
        with rounded:
            variant = weights_choice("run-weights", None if model is None else model[len(base_name(model)) + 1 :])
        reading, tokens = st.columns([1, 1.4])
        chat = reading.segmented_control("Read as", ["plain", "chat"], default="plain", required=True) == "chat"
        mask = tokens.selectbox("Tokens that count", MASKS, format_func=MASK_NAMES.__getitem__)
        bos = st.checkbox("Start with the model's BOS token where it has one", value=True)
        how = generation_fields("run", 0)
        if st.form_submit_button("Run", type="primary"):
            st.session_state[JOB] = held.ask(Ask(name + variant, text, chat, bos, mask, how)).key
            st.rerun()
    _stored(held)


def generation_fields(key: str, tokens: int) -> Generation | None:
    """Ask how many tokens the model writes after the text, and how it draws them; None for none."""
    with st.container(horizontal=True):
        count = st.number_input("Then let it write (tokens)", 0, 512, tokens, key=f"{key}-tokens")
        temperature = st.number_input("Temperature (0: greedy)", 0.0, 5.0, 0.0, 0.1, key=f"{key}-temperature")
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key=f"{key}-seed")
    return Generation(int(count), float(temperature), int(seed)) if count else None


def weights_choice(key: str, start: str | None = None, *, label_visibility: LabelVisibility = "visible") -> str:
    """Ask how the weights are rounded; what a model's name ends with then: nothing, or ``@int4`` and the like."""
    options = [None, *VARIANTS]
    chosen = st.selectbox(
        "Weights",
        options,
        options.index(start or None),
        format_func=lambda variant: "as stored" if variant is None else VARIANTS[variant],
        help=section("variants", "Weights"),
        key=key,
        label_visibility=label_visibility,
    )
    return "" if chosen is None else f"@{chosen}"


def _stored(held: Services) -> None:
    runs = held.recent().head(_RECENT)
    if runs.empty or not local():  # what others have run is theirs
        return
    labels = {}
    for run in runs.itertuples():
        result = held.open(run.run_id)
        start = "" if result is None else "".join(result.tokens["text"].head(24))
        edits = () if result is None else result.info.request.edits
        edited = f"edited {describe(edits)} · " if edits else ""
        labels[run.run_id] = f"{run.model} · {run.n_tokens:,} tokens · {run.mask} · {edited}{visible(start)}"
    chosen = st.selectbox("Or open a stored run", list(labels), None, format_func=labels.__getitem__, key="run-stored")
    if chosen is not None:
        st.session_state[RUN] = chosen
        st.rerun()
