"""The concept prompt of a steering: the field for it, and which latents an SAE reads in it."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from app.components.extra import answered
from app.panels.steer import concept_table
from app.state import select
from app.steering_passes import concept_request
from app.text import markdown, printable
from app.view import View
from cache import digest
from probes.errors import BadRequest
from probes.model.sae_sources import CONCEPT_CHARACTERS
from probes.saes.folder import SAEInfo

__all__ = ["ReadPrompt", "concept_prompt"]

_DROPPED = (
    "What was read of this prompt has been dropped to keep the store within its budget: change it to read it anew."
)


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A concept prompt with its latents and their mean activations, the largest first."""

    text: str
    latents: tuple[int, ...]
    values: tuple[float, ...]


def concept_prompt(view: View, info: SAEInfo) -> ReadPrompt | None:
    """Draw the field, and what is read of the prompt; None while there is nothing to steer with."""
    text = st.text_input(
        "Concept prompt: a sentence about what is to be written of", key="steer-concept", max_chars=CONCEPT_CHARACTERS,
        placeholder="such as: The doctor examined the patient in the hospital.",
    )  # fmt: skip
    if not text.strip():
        return None
    try:
        request = concept_request(view.services, view.result, info.name, text)
    except (BadRequest, OSError) as problem:
        st.warning(markdown(str(problem)))
        return None
    found = answered(view, request, label="Find its latents", auto=view.loaded)
    if found is None:
        return None
    try:
        latents, values, size = (found.tensor(f"concept_{name}").tolist() for name in ("latents", "values", "size"))
    except KeyError:
        st.info(_DROPPED)
        return None
    norm, state_norm, n_used = size
    table = concept_table(view, info.name, latents, values)
    unnamed = not table["label"].any()
    _table(table.drop(columns="label") if unnamed else table, found.info.run_id)
    st.caption(
        f"Its {len(latents)} strongest latents, on average over {n_used:.0f} tokens. Together they write {norm:.3g}, which is "
        f"{norm / state_norm:.0%} of the length of a state there ({state_norm:.3g})."
        + (" An index of the SAE, made on the page *One latent*, would name them." if unnamed else "")
    )
    return ReadPrompt(text, tuple(latents), tuple(values))


def _table(table: pd.DataFrame, run: str) -> None:
    key = f"steer-latents-{digest(run)[:12]}"

    def go() -> None:
        rows = st.session_state[key].selection.rows
        if rows:
            select(latent=int(table["latent"].iloc[rows[0]]))

    shown = table.copy()
    if "label" in shown:
        shown["label"] = shown["label"].map(printable)
    if "fires_on" in shown:
        shown["fires_on"] *= 100
    st.dataframe(
        shown, hide_index=True, key=key, on_select=go, selection_mode="single-row", height=248,
        column_config={
            "latent": st.column_config.NumberColumn(format="%d", width=70),
            "label": st.column_config.TextColumn(width=400),
            "mean_activation": st.column_config.ProgressColumn(
                "mean activation", format="%.3g", min_value=0.0, max_value=float(table["mean_activation"].max())
            ),
            "fires_on": st.column_config.NumberColumn(
                "fires on, %", format="%.2f", help="Of all tokens of the index: one that fires on many says little of this prompt"
            ),
        },
    )  # fmt: skip
