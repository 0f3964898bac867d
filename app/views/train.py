"""Train an SAE: own text, what it will take, how it goes, and what came of it."""

from typing import Any

import streamlit as st

from app.components.actions import after
from app.components.backend import services
from app.components.keeping import local
from app.components.training import outcome, running, unfinished_ones
from app.jobs import sentence
from app.methods import section
from app.services import MAX_CHARACTERS, Services
from app.text import markdown
from app.training import KEY, built_in, name_of, shape, start, tokens_of
from probes.errors import BadRequest, PlanRefused
from probes.model.catalog import EMBEDDED
from probes.saes.folder import installed_folders
from probes.saes.own_folder import in_training, unfinished
from probes.saes.own_plan import TrainingPlan, plan_training, refuse_what_does_not_fit
from probes.saes.own_request import OwnRequest, Text, check_name, read_text
from probes.saes.training import duration

__all__ = ["page"]

_QUESTION = "Which directions does a model use on my own text?"
_WIDTHS = ["1x", "2x", "4x", "8x", "16x", "32x"]
_SOURCES = ("Files", "Pasted text", "Built-in texts")
_EXPECTED = (BadRequest, PlanRefused, OSError)
_KEPT = "_train-form"  # session key: what was typed; Streamlit forgets widgets while a training stands in their place


def page() -> None:
    """Draw the page."""
    st.markdown(f"**Train an SAE** :gray[{_QUESTION}]")
    held = services()
    if not local():
        st.info(
            "Training is off here: this server answers other machines too. Run the app on your own to train an SAE."
        )
        return
    job = held.desk.get(KEY)
    if job is not None and job.active:
        running(job)
        st.caption(
            "One SAE is trained at a time; a closed browser stops nothing, and other pages can be used meanwhile."
        )
    else:
        if job is not None:
            outcome(job)
        unfinished_ones(held)
        _form(held)
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("training", "What the numbers mean"))
    after()


def _form(held: Services) -> None:
    names = held.model_names()
    if not names:
        st.write("No model is installed yet: the page *Models* fetches one.")
        return
    st.markdown("**A new one** :small[:gray[A TopK SAE for the residual stream of a model, trained on this machine.]]")
    left, right = st.columns([1, 1], gap="large")
    with left:
        texts = _texts()
    with right:
        request = _request(held, names)
    _note()
    if request is not None:
        _before(held, request, texts)


def _as_left(key: str, first: Any) -> str:
    """The key of a widget that is drawn next, holding what it held when it was last drawn, at first ``first``."""
    st.session_state.setdefault(key, st.session_state.get(_KEPT, {}).get(key, first))
    return key


def _note() -> None:
    drawn = {str(key): value for key, value in st.session_state.items() if str(key).startswith("train-")}
    typed = {key: value for key, value in drawn.items() if key not in ("train-files", "train-start")}
    st.session_state[_KEPT] = st.session_state.get(_KEPT, {}) | typed


def _texts() -> list[Text]:
    """The text to train on, as it is given; what is no text is refused in a sentence."""
    source = st.segmented_control("Text", _SOURCES, required=True, key=_as_left("train-source", _SOURCES[0]))
    if source == "Pasted text":
        pasted = st.text_area("Your text", key=_as_left("train-pasted", ""), height=240, max_chars=MAX_CHARACTERS)
        return [Text("pasted text", pasted)] if pasted.strip() else []
    if source == "Built-in texts":
        texts = [*built_in()]
        st.caption(
            f"{len(texts)} short texts that come with the app: enough to see how training goes, too few for latents that "
            "mean something."
        )
        return texts
    files = st.file_uploader(
        "Text files, UTF-8",
        type=["txt", "md"],
        accept_multiple_files=True,
        key="train-files",
        label_visibility="collapsed",
    )
    read = []
    for file in files:
        try:
            read.append(read_text(file.name, file.getvalue()))
        except BadRequest as problem:
            st.warning(markdown(str(problem)))
    return read


def _request(held: Services, names: list[str]) -> OwnRequest | None:
    """What the form asks for; None, and a sentence, where that cannot be."""
    first, second = st.columns([1.6, 1])
    key = _as_left("train-model", EMBEDDED)
    if st.session_state[key] not in names:
        st.session_state[key] = names[0]
    model = first.selectbox("Model", names, key=key)
    try:
        of_model = shape(held, model)
    except _EXPECTED as problem:
        st.error(markdown(sentence(problem)))
        return None
    layers = of_model.n_layers
    key = _as_left(f"train-point-{model}", layers // 2 + 1)
    point = second.number_input("Point", 1, layers, key=key, help="1 is the output of block 0")
    width, k, tokens = st.columns(3)
    chosen = width.selectbox(
        "Width", _WIDTHS, key=_as_left("train-width", "8x"), accept_new_options=True,
        format_func=lambda one: f"{one} = {int(one[:-1]) * of_model.d_model:,}" if one in _WIDTHS else one,
        help=f"Latents: a multiple of d_model ({of_model.d_model:,}), or a number typed here",
    )  # fmt: skip
    active = k.number_input("k", 1, 512, key=_as_left("train-k", 32), help="Latents that are active at a token")
    most = tokens.number_input(
        "Tokens at most",
        2_032,
        20_000_000,
        step=10_000,
        key=_as_left("train-tokens", 1_000_000),
        help="Of the text that is given",
    )
    kept = st.session_state.get(_KEPT, {})
    if str(kept.get("train-name", "")).casefold() in _taken():
        kept["train-name"] = ""  # a training has taken it
    name = st.text_input("Name", key=_as_left("train-name", ""), placeholder=_proposed(model, point), max_chars=64)
    with st.expander("Schedule"):
        epochs, rate, seed = st.columns(3)
        often = epochs.number_input(
            "Epochs", 0.1, 100.0, step=1.0, key=_as_left("train-epochs", 3.0), help="How often each token is seen"
        )
        speed = rate.number_input("Learning rate", 1e-6, 0.1, step=1e-4, format="%g", key=_as_left("train-rate", 1e-3))
        draw = seed.number_input("Seed", 0, 2**31 - 1, key=_as_left("train-seed", 0))
    try:
        request = OwnRequest(
            name.strip() or _proposed(model, point), model, int(point), str(chosen or ""), int(active), int(most),
            float(often), float(speed), int(draw),
        )  # fmt: skip
        check_name(request.name)
        request.check(layers, of_model.d_model)
        if unfinished(request.name):
            raise BadRequest(
                f"An unfinished training is called {request.name!r}: resume it, discard it, or choose another."
            )
    except BadRequest as problem:
        st.warning(markdown(str(problem)))
        return None
    return request


def _before(held: Services, request: OwnRequest, texts: list[Text]) -> None:
    """What it will take, and the start."""
    plan: TrainingPlan | None = None
    if texts:
        try:
            with st.spinner("Counting tokens"):
                found, exact = tokens_of(held, request.model, texts)
            plan = plan_training(request, found, shape(held, request.model))
            refuse_what_does_not_fit(plan, in_training() / request.name)
            st.markdown(_says(plan, found, exact, len(texts)))
        except _EXPECTED as problem:
            st.warning(markdown(sentence(problem)))
            plan = None
    else:
        st.caption("Give a text: a few thousand tokens show how it goes, a million make an SAE that is worth reading.")
    if st.button("Train", type="primary", key="train-start", disabled=plan is None):
        job = start(held, request, texts)
        if name_of(job) != request.name:
            st.warning("Another training began meanwhile: one runs at a time.")
            return
        st.rerun()


def _says(plan: TrainingPlan, found: int, exact: bool, documents: int) -> str:
    used = f", {plan.tokens:,} of them used" if plan.tokens < found else ""
    about = "" if exact else "about "
    texts = f"{documents:,} document{'s' * (documents > 1)}"
    split = "whole documents" if documents > 1 else "its last tenth"
    return (
        f"**{about}{found:,} tokens** in {texts}{used}; about a tenth ({split}) is held out. "
        f"{plan.steps:,} steps of {plan.batch:,} states, {plan.d_sae:,} latents. "
        f"About **{duration(plan.seconds)}** on this machine ({duration(plan.collecting)} for states, "
        f"{duration(plan.fitting)} for training) and {max(1, plan.disk_bytes >> 20):,} MB of disk while it runs."
    )


def _proposed(model: str, point: int) -> str:
    """A name that is free: the model and the point, and a number if need be."""
    stem = f"{''.join(sign if sign.isascii() and (sign.isalnum() or sign in '.-_') else '-' for sign in model)}-point-{point}"
    stem = stem.lstrip(".-_")[:56] or f"point-{point}"
    taken = _taken()
    return next(one for one in (stem, *(f"{stem}-{i}" for i in range(2, 10_000))) if one.casefold() not in taken)


def _taken() -> set[str]:
    """Names of what is installed or in training; case does not count."""
    return {one.casefold() for one in (*installed_folders(), *(one.request.name for one in unfinished()))}
