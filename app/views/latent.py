"""One latent: what text it fires on, what it writes, which latents are beside it, and what people call it."""

from typing import Any

import numpy as np
import streamlit as st

from app.components.explore import View, explore, extra
from app.components.index_build import offer_index
from app.components.keeping import local
from app.components.panel import show
from app.components.reading import choice
from app.components.sae_choice import choose_sae
from app.components.saying import say
from app.components.shell import page_of
from app.components.word_label import word_label
from app.methods import section
from app.panels.latent import COACTIVE, EXAMPLES
from app.panels.latents import latents_call
from app.sae_index import DENSE, RARE, Indexed, known_index, latent_here, neuronpedia, sae_info, states
from app.state import address, select
from app.text import markdown
from app.view import Gap
from app.views.latents import effect
from cache import StoreError, digest
from cache.saes import MAX_LABEL
from probes.saes.folder import SAEInfo, content_digest, installed_saes

__all__ = ["page"]

_QUESTION = "What does this latent fire on, what does it write, and which others are like it?"
_NUMBER = "latent-number"
_SAID = {"dense": f"fires on more than {DENSE:.0%} of tokens", "ultra-rare": f"fires on less than {RARE:.0e} of tokens"}


def page() -> None:
    """Draw the page."""
    explore("One latent", _QUESTION, panels, colour_by="sae_explained_variance")


def panels(view: View) -> None:
    """The latent and its words, its examples, its numbers, the latents beside it, and where it fires on the open text."""
    sae = choose_sae(view, {one.name: one for one in installed_saes()})
    asked: dict[str, Any] = {"sae": sae} if sae else {}
    try:
        info = sae_info(view, sae)
    except Gap as gap:
        st.info(str(gap))
        return
    latent = latent_here(view, sae)
    _steps(latent, info)
    if latent >= info.d_sae:
        st.info(f"{markdown(info.name)} has no latent {latent:,}; it has 0 to {info.d_sae - 1:,}.")
        return
    index = known_index(view, info) or offer_index(view, info)
    _head(view, info, index, latent)
    if index is not None:
        _fires(view, asked)
    _here(view, asked)
    if index is not None:
        _beside(view, asked)


def _steps(latent: int, info: SAEInfo) -> None:
    """The number of the latent, and a step to each side; the arrow keys stay with token and layer."""
    last = info.d_sae - 1

    def typed() -> None:
        select(latent=st.session_state[_NUMBER])

    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", key="latent-steps"):
        st.button("‹", key="latent-before", help="The latent before", disabled=latent == 0,
                  on_click=lambda: select(latent=min(latent, info.d_sae) - 1))  # fmt: skip
        st.session_state[_NUMBER] = min(latent, last)  # at every run: a browser may have missed the one before
        st.number_input(f"Latent 0..{last}", 0, last, step=1, key=_NUMBER, on_change=typed, width=150)
        st.button("›", key="latent-after", help="The next latent", disabled=latent >= last,
                  on_click=lambda: select(latent=latent + 1))  # fmt: skip
        query = {**address(), "latent": str(latent)}
        for name, label in (("steer", "Steer with it"), ("find", "Find latents")):
            _link(name, label, query)
        elsewhere = neuronpedia(info, latent)
        if elsewhere is not None:
            st.link_button("Neuronpedia", elsewhere, help="What Neuronpedia shows of it, in a new tab")


def _link(name: str, label: str, query: dict[str, str]) -> None:
    try:
        target = page_of(name)
    except KeyError:
        return
    st.page_link(target, label=label, query_params=query)


def _head(view: View, info: SAEInfo, index: Indexed | None, latent: int) -> None:
    """Its label, and its numbers in the index in a sentence each."""
    content = content_digest(info.folder)
    own = view.services.store.sae_label(content)
    mine = own.loc[own["latent"] == latent]
    given = "" if mine.empty else str(mine["label"].iloc[0])
    row = None if index is None else index.latent(latent)
    default = "" if row is None or not isinstance(row["label"], str) else row["label"]
    with st.container(border=True, key="latent-card"):
        name, field = st.columns([1.6, 1], gap="medium", vertical_alignment="center")
        said = markdown(given or default) or ":gray[no label]"
        name.markdown(f"**Latent {latent}** · {said}{'' if index is None else _badge(index, latent)}")
        if local():
            with field:
                _own_label(view, content, latent, given)
        elif given:
            field.caption("The label was given by a person.")
        if index is not None:
            st.caption("  \n".join(_sentences(view, index, latent)))
            if int(index.latent(latent)["n_fired"]) > 0:
                word_label(view, info, latent)
            with st.expander("How to read it / when not to trust it"):
                st.markdown(section("latent", "Label and numbers"))


def _badge(index: Indexed, latent: int) -> str:
    [state] = states(index.latents.loc[[latent]], index.n_tokens)
    return f" :orange-badge[{state}]" if state else ""


def _own_label(view: View, content: str, latent: int, given: str) -> None:
    key = f"latent-label-{content[:12]}-{latent}-{digest(given)[:8]}"  # another field once the label is another

    def save() -> None:
        try:
            view.services.store.put_sae_label(content, latent, st.session_state[key], "user")
        except (StoreError, ValueError) as problem:
            say(markdown(str(problem)))

    st.text_input("Your label", given, key=key, on_change=save, max_chars=MAX_LABEL, label_visibility="collapsed",
                  placeholder="Your own label (saved by itself)")  # fmt: skip


def _sentences(view: View, index: Indexed, latent: int) -> list[str]:
    row, made = index.latent(latent), index.row
    of = f"{index.n_tokens:,} tokens of {markdown(str(made['corpus']))}"
    if int(row["n_fired"]) == 0:
        said = [f"It did not fire on any of {of}."]
    else:
        density = float(row["density"])
        [state] = states(index.latents.loc[[latent]], index.n_tokens)
        said = [
            f"Fires on {int(row['n_fired']):,} of {of}: density {density:.3g}"
            f"{f', {_SAID[state]}' if state in _SAID else ''}. Where it fires: at most {row['max']:.4g}, "
            f"{row['mean']:.4g} on average."
        ]
        rule = [float(row["precision"]), float(row["recall"])]
        if isinstance(row["label"], str) and np.isfinite(rule).all():
            said.append(
                f"Default label {markdown(row['label'])}: as a rule, “fires where the token is one of those before the "
                f"arrow”, it has precision {rule[0]:.2f} and recall {rule[1]:.2f}."
            )
    cosine = float(row["encoder_cosine"])
    if np.isfinite(cosine):
        above = int((index.latents["encoder_cosine"] > cosine).sum())
        said.append(
            f"Cosine of its encoder and decoder {cosine:.3f}: rank {above + 1:,} of {len(index.latents):,} latents."
        )
    if str(made["fingerprint"]) != view.facts.fingerprint:
        said.append(f"The index was made with {markdown(str(made['model']))}.")
    return said


def _fires(view: View, asked: dict[str, Any]) -> None:
    """What it fires on in the texts of the index."""
    kind = choice("Examples", EXAMPLES, "latent-examples-kind")
    show(view, "latent-examples", **asked, kind=kind)
    left, right = st.columns(2)
    with left:
        show(view, "latent-activations", **asked)
    with right:
        show(view, "latent-tokens", **asked)


def _here(view: View, asked: dict[str, Any]) -> None:
    """What it writes, and where it fires on the open text: these need the run read with the SAE, not the index."""
    read = view
    if asked:
        answer = extra(view, latents_call(asked["sae"]), label="Read the open text with it", auto=view.loaded)
        if answer is None:
            return
        read = view.beside(answer)
    effect(view, read, asked)
    show(view, "latents-latent", title="On the open text", **asked)


def _beside(view: View, asked: dict[str, Any]) -> None:
    """The latents that are like it."""
    left, right = st.columns(2)
    with left:
        show(view, "latent-neighbours", **asked)
    with right:
        together = choice("Fires together with", COACTIVE, "latent-coactive-kind")
        show(view, "latent-coactive", **asked, kind=together)
    show(view, "latent-decoder-map", **asked)
