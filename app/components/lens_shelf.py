"""The tuned lenses of the page Models: what is installed and how good each is, and one trained on own text."""

from typing import Any

import pandas as pd
import streamlit as st

from app.components.keeping import local
from app.components.lens_training import outcome, running, unfinished_ones
from app.lens_training import KEY, name_of, start
from app.services import Services
from app.text import markdown, printable
from app.training import built_in
from probes.errors import BadRequest
from probes.lenses.folder import installed_lenses, read_config
from probes.lenses.shelf import unfinished
from probes.lenses.training import read_report
from probes.lenses.work import LEARNING_RATE, LensRequest
from probes.model.catalog import EMBEDDED
from probes.saes.own_request import Text, read_text

__all__ = ["lens_shelf"]

_CORPUS, _FILES, _BUILT_IN = "Corpus", "Files", "Built-in texts"
_SOURCES = {
    _CORPUS: "The text the shipped SAE was trained on: articles, books, speeches, manuals. 86 MB are fetched once.",
    _FILES: "Your own text; about a tenth of it, in whole documents, is held out to measure on.",
    _BUILT_IN: "Short texts that come with the app: enough to see how it goes, too few for a lens worth reading.",
}


def lens_shelf(held: Services) -> None:
    """Draw the section."""
    st.markdown("**Tuned lenses** :gray[Which lenses are here, and how much closer do they read than the logit lens?]")
    found = installed_lenses()
    if found:
        st.dataframe(
            pd.DataFrame([_row(name, folder) for name, folder in found.items()]),
            hide_index=True,
            key="lenses",
            height="content",
        )
        st.caption(
            "KL to the end on held-out text, mean of all points but the last, in nats. The page Logit lens reads with them."
        )
    else:
        st.caption("None is installed.")
    if not local():
        st.caption(
            "Lenses are trained and added by whoever runs this server: python -m app lens train, python -m app lens add."
        )
        return
    job = held.desk.get(KEY)
    if job is not None and job.active:
        running(job)
        return
    if job is not None:
        outcome(job)
    unfinished_ones(held)
    with st.expander("Train a tuned lens", expanded="lens-train-open" in st.session_state):
        _form(held)


def _form(held: Services) -> None:
    names = held.model_names()
    if not names:
        st.write("No model is installed yet.")
        return
    left, right = st.columns([1, 1], gap="large")
    with left:
        source = str(
            st.segmented_control("Text", list(_SOURCES), default=_CORPUS, required=True, key="lens-train-source")
        )
        st.caption(_SOURCES[source])
        texts = _files() if source == _FILES else [*built_in()] if source == _BUILT_IN else None
    with right:
        request = _request(names)
    if st.button("Train", type="primary", key="lens-train-start", disabled=request is None or texts == []):
        assert request is not None
        if name_of(start(held, request, texts)) != request.name:
            st.warning("Another training of a lens began meanwhile: one runs at a time.")
            return
        st.rerun()


def _files() -> list[Text]:
    """What was given, as text; what is no text is refused in a sentence."""
    read = []
    for file in st.file_uploader("Text files, UTF-8", ["txt", "md"], True, key="lens-train-files"):
        try:
            read.append(read_text(file.name, file.getvalue()))
        except BadRequest as problem:
            st.warning(markdown(str(problem)))
    return read


def _request(names: list[str]) -> LensRequest | None:
    """What the form asks for; None, and a sentence, where that cannot be."""
    model = st.selectbox("Model", names, names.index(EMBEDDED) if EMBEDDED in names else 0, key="lens-train-model")
    first, second, third = st.columns(3)
    tokens = first.number_input("Tokens at most", 2_048, 20_000_000, 200_000, 10_000, key="lens-train-tokens")
    rate = second.number_input("Learning rate", 1e-6, 0.1, LEARNING_RATE, 1e-4, format="%g", key="lens-train-rate")
    seed = third.number_input("Seed", 0, 2**31 - 1, 0, key="lens-train-seed")
    stem = "".join(sign if sign.isascii() and (sign.isalnum() or sign in ".-_") else "-" for sign in model)
    proposed = f"{stem.lstrip('.-_')[:56] or 'model'}-tuned"
    name = st.text_input("Name", key="lens-train-name", placeholder=proposed, max_chars=64).strip() or proposed
    try:
        request = LensRequest(name, model, int(tokens), float(rate), int(seed))
        if name in installed_lenses():
            raise BadRequest(f"There is a tuned lens called {name!r} already: choose another name.")
        if unfinished(name):
            raise BadRequest(
                f"An unfinished training is called {name!r}: resume it, discard it, or choose another name."
            )
    except BadRequest as problem:
        st.warning(markdown(str(problem)))
        return None
    return request


def _row(name: str, folder: Any) -> dict[str, object]:
    try:
        config = read_config(folder)
    except BadRequest as problem:
        return {"lens": printable(name), "state": printable(str(problem))}
    report: dict[str, Any] = read_report(folder)
    row: dict[str, object] = {
        "lens": printable(name),
        "state": "ready",
        "trained on": printable(config.base_model_name_or_path) or "unnamed",
        "points": config.num_hidden_layers,
        "dimensions": config.d_model,
    }
    if report:
        row["tokens"] = report["chunks"] * report["context"]
        row |= {f"KL {variant}": sum(kl) / len(kl) for variant, kl in report["kl"].items()}
    return row
