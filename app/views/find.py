"""Finding latents: all of an SAE in one table, by what they fire on, how often, and on which of two texts."""

import math
from typing import Any

import pandas as pd
import streamlit as st

from app.components.explore import View, explore, extra
from app.components.index_build import offer_index
from app.components.keeping import local
from app.components.panel import show
from app.components.sae_choice import choose_sae
from app.components.shell import page_of
from app.figures.latent_population import STEP
from app.methods import section
from app.panels.find import found_latents, read_other
from app.panels.latents import latents_call
from app.panels.panel import Click
from app.sae_index import STATES, Indexed, known_index, latent_here, sae_info
from app.state import address, select
from app.text import printable, visible
from app.view import Gap
from cache import digest
from probes.saes.folder import SAEInfo, installed_saes

__all__ = ["page"]

_QUESTION = "Which latents fire on this, and how often does each fire?"
_TOKEN, _LABEL, _STATE, _DENSITY, _OTHER = "find-token", "find-label", "find-state", "find-density", "find-b"
_OFFERED = 20
_START = 24


def page() -> None:
    """Draw the page."""
    explore("Find latents", _QUESTION, panels, colour_by="sae_explained_variance")


def panels(view: View) -> None:
    """The search, the table of what it finds, and what tells this text from another."""
    sae = choose_sae(view, {one.name: one for one in installed_saes()})
    asked: dict[str, Any] = {"sae": sae} if sae else {}
    try:
        info = sae_info(view, sae)
    except Gap as gap:
        st.info(str(gap))
        return
    index = known_index(view, info) or offer_index(view, info)
    if index is not None:
        _search(view, index, asked, latent_here(view, sae))
    _apart(view, info, asked)


def _search(view: View, index: Indexed, asked: dict[str, Any], latent: int) -> None:
    lowest = _lowest(index)
    wanted = _filters(lowest)
    show(view, "find-latents", **asked, **wanted, on_click=lambda click: _bin(click, lowest))
    table = found_latents(index, **wanted)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        count = f"{len(table):,} latent{'s' * (len(table) != 1)}"
        st.markdown(f"**{count}** :small[:gray[A click on a row selects one; on a heading, sorts]]")
        st.page_link(
            page_of("latent"), label=f"Open latent {latent}", query_params={**address(), "latent": str(latent)}
        )
    _table(table, digest([index.key, wanted])[:12])
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("latent", "Finding latents"))


def _filters(lowest: float) -> dict[str, Any]:
    """Draw the filters; those that leave something out, as options of the panel."""
    held = st.session_state.get(_DENSITY)
    st.session_state[_DENSITY] = tuple(held) if held is not None and _is_range(held, lowest) else (lowest, 0.0)
    if st.session_state.get(_STATE) not in (None, *STATES):
        st.session_state.pop(_STATE)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="find-filters"):
        token = st.text_input("Fires on a token with", key=_TOKEN, max_chars=60, width=190,
                              help="Among the tokens it is strongest on, and the middle tokens of its examples")  # fmt: skip
        label = st.text_input("Label has", key=_LABEL, max_chars=60, width=190)
        state = st.selectbox("State", list(STATES), format_func=STATES.__getitem__, key=_STATE, width=210)
        st.slider("Density, as a power of ten", lowest, 0.0, step=STEP, key=_DENSITY, width=260)
    low, high = st.session_state[_DENSITY]
    wanted: dict[str, Any] = {"token": token, "label": label, "state": state}
    if (low, high) != (lowest, 0.0):
        wanted["density"] = [low, high]
    return {name: value for name, value in wanted.items() if value not in ("", "all")}


def _lowest(index: Indexed) -> float:
    density = index.latents["density"]
    least = float(density[density > 0].min()) if (density > 0).any() else 0.1
    return float(min(math.floor(math.log10(least) / STEP) * STEP, -STEP))


def _is_range(held: Any, lowest: float) -> bool:
    return (
        isinstance(held, tuple | list)
        and len(held) == 2
        and all(isinstance(end, float) and lowest <= end <= 0 for end in held)
        and held[0] <= held[1]
    )


def _bin(click: Click, lowest: float) -> None:
    """Filter by the bar that was clicked; a second click on it lets go."""
    ends = click.customdata
    if not isinstance(ends, list) or len(ends) != 2:
        return
    never = not all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
    chosen = ("never" if never else "all", (lowest, 0.0) if never else (float(ends[0]), float(ends[1])))
    held = st.session_state.get(_DENSITY)
    if (st.session_state.get(_STATE), None if held is None else tuple(held)) == chosen:
        chosen = ("all", (lowest, 0.0))
    st.session_state[_STATE], st.session_state[_DENSITY] = chosen


def _table(table: pd.DataFrame, name: str) -> None:
    key = f"find-table-{name}"

    def go() -> None:
        rows = st.session_state[key].selection.rows
        if rows:
            select(latent=int(table["latent"].iloc[rows[0]]))

    number = {name: st.column_config.NumberColumn(format="%.3g") for name in ("max", "mean", "precision", "recall")}
    shown = table.assign(label=table["label"].map(printable), density=100 * table["density"])
    st.dataframe(
        shown, hide_index=True, key=key, on_select=go, selection_mode="single-row", height=420,
        column_config={
            **number, "label": st.column_config.TextColumn(width=330), "latent": st.column_config.NumberColumn(format="%d"),
            "density": st.column_config.NumberColumn("density, %", format="%.4f"),
            "n_fired": st.column_config.NumberColumn("n fired", format="localized"),
            "encoder_cosine": st.column_config.NumberColumn("encoder cosine", format="%.3f"),
        },
    )  # fmt: skip


def _apart(view: View, info: SAEInfo, asked: dict[str, Any]) -> None:
    """Latents of this text that another stored text does not have."""
    runs = view.services.recent(view.info.model)
    names = [str(run) for run in runs["run_id"] if str(run) != view.info.run_id][:_OFFERED]
    if not local() or not names:  # what others have run is theirs
        return
    labels = {name: _begins(view, name) for name in names}
    if st.session_state.get(_OTHER) not in (None, *names):
        st.session_state.pop(_OTHER)
    st.markdown("**Here, not there** :small[:gray[Which latents fire on this text but not on another?]]")
    b = st.selectbox("The other text", names, None, format_func=labels.__getitem__, key=_OTHER,
                     placeholder="Choose a stored run", label_visibility="collapsed")  # fmt: skip
    other = None if b is None else view.services.open(b)
    if b is None or other is None:
        return
    try:
        read_other(view, info.name, b)
    except Gap:
        beside = View(view.services, other, view.selection)
        if extra(beside, latents_call(info.name), label="Read the other text with it", auto=view.loaded) is None:
            return
    if asked and extra(view, latents_call(info.name), label="Read this text with it", auto=view.loaded) is None:
        return
    show(view, "find-apart", **asked, b=b)


def _begins(view: View, run: str) -> str:
    found = view.services.open(run)
    start = "" if found is None else "".join(found.tokens.sort_values("pos")["text"].head(_START))
    return f"{visible(start)} · {0 if found is None else found.info.n_tokens:,} tokens"
