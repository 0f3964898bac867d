"""Which SAE a page looks through: the run's own, or another that fits, the same on every page of latents."""

from collections.abc import Mapping

import streamlit as st

from app.text import markdown
from app.view import View
from probes.saes.folder import InstalledSAE
from probes.saes.loading import misfit

__all__ = ["CHOICE", "choose_sae", "none_fits", "prefer"]

CHOICE = "latents-choice"
_KEPT = "_sae"  # session key: the choice, for the next page; a widget's own is gone with its page


def prefer(name: str) -> None:
    """Have the next page of latents look through this SAE, if it fits the open run."""
    st.session_state[_KEPT] = name


def choose_sae(view: View, found: Mapping[str, InstalledSAE]) -> str:
    """Draw the choice among the SAEs that fit, where there is one; "" is the one of the run, or none."""
    own = None if view.table("latents").empty else str(view.table("latents")["sae"].iloc[0])
    fitting = [name for name, sae in found.items() if sae.info is not None and misfit(sae.info, view.facts) is None]
    names = [*([own] if own is not None else []), *(name for name in fitting if name != own)]
    if names == [own] or not names:
        return ""
    if st.session_state.get(CHOICE) not in names:  # an address may ask for one that is gone
        kept = st.session_state.get(_KEPT)
        st.session_state[CHOICE] = kept if kept in names else own
    chosen = st.selectbox("SAE", names, None, placeholder="Choose an SAE that fits", key=CHOICE, width=480)
    st.session_state[_KEPT] = chosen
    return "" if chosen is None or chosen == own else chosen


def none_fits(view: View) -> None:
    """Say that there is nothing to look through, and what to do."""
    name = markdown(view.facts.name)
    st.info(f"No installed SAE fits {name}: put one into `saes` below the home folder, or train one.")
