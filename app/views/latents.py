"""SAE latents: what a sparse autoencoder sees at each token, how well it rebuilds the states, and what a latent writes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from app.components.explore import View, explore, extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import around, kept
from app.figures.latents import effect_bars, fit_by_token, latent_map, latent_trace, strongest, token_bars
from app.methods import section
from app.state import select
from app.text import markdown
from probes.request import ProbeCall
from probes.saes.folder import InstalledSAE, SAEInfo, installed_saes
from probes.saes.loading import misfit

__all__ = ["page"]

_QUESTION = "Which learned features are active at each token, and how much of the state do they explain?"
_TOKENS_SHOWN = 512
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
    read = _with_chosen_sae(view, found)
    if read is None:
        return
    latents = read.table("latents")
    if latents.empty:
        reasons = [note for note in read.info.notes if "SAE" in note]
        note = markdown(" ".join(reasons)) if reasons else "This run did not ask for latents."
        panel("latents-sae", "The SAE", "Which one was read?", None, note=note)
        return
    name = str(latents["sae"].iloc[0])
    _sae(name, found.get(name), int(latents["layer"].iloc[0]))
    no_sink = _no_sink(read)
    _fit(read)
    _by_token(read, no_sink)
    _along_text(read, latents, no_sink)
    left, right = st.columns([2, 3])
    latent = _selected(read, latents, no_sink)
    with left:
        _one_token(read, latents)
    with right:
        _one_latent(read, latents, no_sink, latent)
        _effect(read, name, found.get(name), latent)


def _with_chosen_sae(view: View, found: Mapping[str, InstalledSAE]) -> View | None:
    """The run read with the SAE chosen among those that fit; None while that answer is not there."""
    own = None if view.table("latents").empty else str(view.table("latents")["sae"].iloc[0])
    fitting = [name for name, sae in found.items() if sae.info is not None and misfit(sae.info, view.facts) is None]
    names = [*([own] if own is not None else []), *(name for name in fitting if name != own)]
    if names == [own] or not names:
        return view
    chosen = st.selectbox(
        "SAE", names, index=0 if own else None, placeholder="Choose an SAE that fits", key="latents-choice", width=480
    )
    if chosen in (None, own):
        return view
    answer = extra(view, ProbeCall("latents", {"sae": chosen}), label="Read the states with it", auto=view.loaded)
    return None if answer is None else replace(view, result=answer)


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
    metrics = view.table("layer_metrics")
    rows = metrics[metrics["metric"].str.startswith("sae_")]
    question = "How much of the states do the latents rebuild, with and without sinks and massive tokens?"
    st.markdown(f"**Fit** :small[:gray[{question}]]")
    st.dataframe(_fit_table(rows), hide_index=True, key="latents-fit", height="content")
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("latents", "Fit"))


def _fit_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a number: its value over the run's mask and without sinks, and the tokens each is over."""
    by_name = rows.set_index("metric")
    table = []
    for metric, label in _NUMBERS.items():
        if metric in by_name.index and f"{metric}@no_sink" in by_name.index:
            everything, without = by_name.loc[metric], by_name.loc[f"{metric}@no_sink"]
            table.append((label, _told(without), int(without["n_used"]), _told(everything), int(everything["n_used"])))
    return pd.DataFrame(
        table, columns=["number", "without sinks and massive tokens", "n", "all tokens of the mask", "n of all"]
    )


def _told(row: pd.Series) -> str:
    return str(row["status"]).replace("_", " ") if pd.isna(row["value"]) else f"{row['value']:,.4g}"


def _by_token(view: View, no_sink: np.ndarray) -> None:
    metrics = view.table("token_metrics")
    rows = metrics[metrics["metric"].isin(["sae_explained_variance", "sae_l0"])]
    first, tokens = around(view, _TOKENS_SHOWN)
    missing = rows.loc[rows["metric"] == "sae_explained_variance", "value"].isna().all()
    panel(
        "latents-by-token",
        "Fit by token",
        "Which tokens does it rebuild badly?",
        view.figure("latents-by-token", lambda: fit_by_token(rows, tokens, no_sink, first=first), first),
        how=section("latents", "Fit by token"),
        note="This SAE brings no corpus variance, so explained variance by token is missing." if missing else None,
        csv=rows,
        on_click=_go_position,
        x=view.selection.position,
    )


def _along_text(view: View, latents: pd.DataFrame, no_sink: np.ndarray) -> None:
    first, tokens = around(view, _TOKENS_SHOWN)
    shown = view.memo("latents-shown", lambda: strongest(latents, no_sink))

    def go(click: PlotClick) -> None:
        select(position=round(click.x), latent=shown[round(click.y)])

    latent = view.selection.latent
    panel(
        "latents-map",
        "Latents along the text",
        "Which latents fire most outside sinks, and where?",
        view.figure("latents-map", lambda: latent_map(latents, shown, tokens, no_sink, first=first), first),
        how=section("latents", "Latents along the text"),
        csv=latents,
        on_click=go,
        x=view.selection.position,
        y=shown.index(latent) if latent in shown else None,
    )


def _one_token(view: View, latents: pd.DataFrame) -> None:
    position = view.selection.position
    rows = latents[latents["pos"] == position].sort_values("activation", ascending=False)
    numbers = rows["latent"].tolist()
    panel(
        "latents-token",
        f"Token {position} {markdown(view.token(position))}",
        "Which latents are strongest here?",
        view.figure("latents-token", lambda: token_bars(latents, position), position) if numbers else None,
        how=section("latents", "One token"),
        note=None if numbers else "No latent is active at this token.",
        csv=rows,
        on_click=lambda click: select(latent=int(numbers[round(click.y)])),
        y=numbers.index(view.selection.latent) if view.selection.latent in numbers else None,
    )


def _one_latent(view: View, latents: pd.DataFrame, no_sink: np.ndarray, latent: int) -> None:
    first, tokens = around(view, _TOKENS_SHOWN)
    rows = latents[latents["latent"] == latent]
    panel(
        "latents-latent",
        f"Latent {latent}",
        "Where in the text is it among the strongest?",
        view.figure(
            "latents-latent", lambda: latent_trace(latents, latent, tokens, no_sink, first=first), latent, first
        ),
        how=section("latents", "One latent"),
        note=None if len(rows) else "It is not among the strongest latents of any token of this text.",
        csv=rows,
        on_click=_go_position,
        x=view.selection.position,
    )


def _effect(view: View, name: str, found: InstalledSAE | None, latent: int) -> None:
    title, question = f"Direct effect of latent {latent}", "Which tokens does it make more and less likely?"
    if found is None or found.info is None or latent >= found.info.d_sae:
        reason = "The SAE is no longer installed." if found is None or found.info is None else "It has no such latent."
        panel("latents-effect", title, question, None, note=reason)
        return
    call = ProbeCall("latent_effect", {"sae": name, "latent": latent})
    answer = extra(view, call, label=f"Compute the direct effect of latent {latent}", auto=view.loaded)
    if answer is None:
        return
    ids, values = answer.tensor("effect_ids"), answer.tensor("effect_values")
    rows = [list(zip(view.decode(i), v, strict=True)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
    skewness, kurtosis = answer.tensor("effect_shape").tolist()
    panel(
        "latents-effect",
        title,
        question,
        view.figure("latents-effect", lambda: effect_bars(rows[0], rows[1]), name, latent),
        how=section("latents", "One latent"),
        note=f"Over the vocabulary: skewness {skewness:.2f}, excess kurtosis {kurtosis:.2f}. Direct path only.",
        csv=pd.DataFrame([*rows[0], *rows[1]], columns=["token", "logit_per_unit"]),
    )


def _selected(view: View, latents: pd.DataFrame, no_sink: np.ndarray) -> int:
    """The selected latent, or the strongest at the selected token, or of the text."""
    if view.selection.latent is not None:
        return view.selection.latent
    here = latents[latents["pos"] == view.selection.position]
    rows = here if len(here) else latents[no_sink[latents["pos"].to_numpy(dtype=int)]]
    rows = rows if len(rows) else latents
    return int(rows.loc[rows["activation"].idxmax(), "latent"])


def _no_sink(view: View) -> np.ndarray:
    """Tokens that are no sinks; where the store has dropped the mask, all but position 0, and the page says so."""
    mask = kept(view, "no_sink")
    if mask is None:
        st.caption("The store has dropped this run's token masks: only position 0 is set apart as a sink below.")
        return np.arange(len(view.tokens)) > 0
    return mask.numpy().astype(bool)


def _go_position(click: PlotClick) -> None:
    select(position=round(click.x))
