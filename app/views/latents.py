"""SAE latents: what a sparse autoencoder sees at each token, how well it rebuilds the states, and what a latent writes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.sae_choice import choose_sae
from app.components.shell import page_of
from app.methods import section
from app.panels.latents import effect_call, latent_in_sight, latents_call, latents_of, read_with
from app.sae_rows import sae_rows
from app.state import address
from app.text import markdown
from app.view import Gap
from probes.saes.folder import InstalledSAE, SAEInfo, installed_saes

__all__ = ["effect", "page"]

_QUESTION = "Which learned features are active at each token, and how much of the state do they explain?"
_NUMBERS = {
    "sae_explained_variance": "explained variance",
    "sae_explained_variance_own": "explained variance, own",
    "sae_l0": "L0",
    "sae_cosine": "cosine",
    "sae_norm_ratio": "norm ratio",
    "sae_reconstruction_bias": "reconstruction bias",
}


def page() -> None:
    """Draw the page."""
    explore("SAE latents", _QUESTION, panels, colour_by="sae_explained_variance")


def panels(view: View) -> None:
    """The SAE, its fit, the latents along the text, then the selected token and the selected latent."""
    found = {sae.name: sae for sae in installed_saes()}
    sae = _chosen(view, found)
    if sae is None:
        return
    asked: dict[str, Any] = {"sae": sae} if sae else {}
    read = read_with(view, sae)
    try:
        latents = latents_of(read)
    except Gap:
        show(view, "latents-map", at="latents-sae", title="The SAE", question="Which one was read?", **asked)
        return
    name = str(latents["sae"].iloc[0])
    _sae(name, found.get(name), int(latents["layer"].iloc[0]))
    _fit(read)
    show(view, "latents-by-token", **asked)
    show(view, "latents-map", **asked)
    left, right = st.columns([2, 3])
    with left:
        show(view, "latents-token", **asked)
        _open(latent_in_sight(read))
    with right:
        show(view, "latents-latent", **asked)
        effect(view, read, asked)


def _chosen(view: View, found: Mapping[str, InstalledSAE]) -> str | None:
    """The SAE chosen ("": the one of the run); None while its answer is not there."""
    chosen = choose_sae(view, found)
    answer = extra(view, latents_call(chosen), label="Read the states with it", auto=view.loaded) if chosen else ""
    return None if answer is None else chosen


def _sae(name: str, found: InstalledSAE | None, point: int) -> None:
    info = None if found is None else found.info
    with st.container(border=True, key="latents-card"):
        badge = f" :orange-badge[{markdown(info.remark.split(':')[0])}]" if info is not None and info.remark else ""
        st.markdown(f"**{markdown(name)}**{badge} at point {point}")
        if info is None:
            st.caption("This SAE is no longer installed; what was stored of the run is shown.")
            return
        st.caption(_said(info))
        with st.expander("Card, and when not to trust it"):
            st.markdown(section("latents", "The SAE"))
            st.code(info.card or "It brings no card.", language=None, wrap_lines=True)


def _said(info: SAEInfo) -> str:
    said = [
        f"{info.architecture}, {info.d_sae:,} latents on {info.d_in} dimensions",
        f"k = {info.k}" if info.k is not None else "",
        f"made for {markdown(info.model_name)}" if info.model_name else "made for an unnamed model",
        markdown(info.hook_name),
        f"{info.training_tokens:,} training tokens" if info.training_tokens is not None else "",
        f"{info.context_size} tokens at a time" if info.context_size is not None else "",
        f"stored as {markdown(info.stored_dtype)}, computed in float32",
    ]
    return " · ".join(part for part in said if part)


def _fit(view: View) -> None:
    rows = sae_rows(view.table("layer_metrics"))
    question = "How much of the states do the latents rebuild, with and without sinks and massive tokens?"
    st.markdown(f"**Fit** :small[:gray[{question}]]")
    st.dataframe(_fit_table(rows), hide_index=True, key="latents-fit", height="content")
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("latents", "Fit"))


def _fit_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a number: its value without sinks and over the run's mask, and the tokens each is over."""
    by_name = rows.set_index("metric")
    table = []
    for metric, label in _NUMBERS.items():
        if metric in by_name.index and f"{metric}@all" in by_name.index:
            without, everything = by_name.loc[metric], by_name.loc[f"{metric}@all"]
            table.append((label, _told(without), int(without["n_used"]), _told(everything), int(everything["n_used"])))
    return pd.DataFrame(
        table, columns=["number", "without sinks and massive tokens", "n", "all tokens of the mask", "n of all"]
    )


def _told(row: pd.Series) -> str:
    return str(row["status"]).replace("_", " ") if pd.isna(row["value"]) else f"{row['value']:,.4g}"


def _open(latent: int) -> None:
    query = {**address(), "latent": str(latent)}
    st.page_link(page_of("latent"), label=f"Open latent {latent}", query_params=query)
    st.page_link(page_of("find"), label="Find latents", query_params=query)


def effect(view: View, read: View, asked: Mapping[str, Any]) -> None:
    """What the latent in sight writes, asked for unless it is known that it cannot be."""
    try:
        call = effect_call(read)
    except Gap:
        show(view, "latents-effect", **asked)
        return
    label = f"Compute the direct effect of latent {call.params['latent']}"
    if extra(read, call, label=label, auto=view.loaded) is not None:
        show(view, "latents-effect", **asked)
