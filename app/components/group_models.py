"""A second model under a comparison of groups: its own sweep, both by layer, and whether the difference turns round."""

import streamlit as st

from app.components.panel import show
from app.components.run_form import weights_choice
from app.components.set_choice import load_first
from app.components.set_progress import set_ready
from app.group_models import in_model
from app.groups import GroupAsk, matched_ask
from app.methods import section
from app.panels.groups import options_of
from app.sweeps import facts_of
from app.view import View

__all__ = ["other_model"]


def other_model(view: View, ask: GroupAsk) -> None:
    """Choose another model, or the same with rounded weights, run the set on it, and show the two side by side."""
    with st.expander("The same prompts in another model"):
        names = view.services.model_names()
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            name = st.selectbox("Model B", names, key="groups-other", width=260)
            with st.container(width=200):
                model = name + weights_choice("groups-other-weights", "int4" if len(names) == 1 else None)
        if model == view.info.model:
            st.caption("This is model A itself: choose another one, or other weights.")
            return
        if facts_of(view.services, model) is None:
            load_first(view.services, model)
            return
        theirs = in_model(ask, model)
        if not set_ready(view.services, theirs.asked, "Run", "groups-other-run"):
            return
        if ask.n and not set_ready(view.services, matched_ask(theirs.asked, ask.n), "Match", "groups-other-match"):
            return
        options = {**options_of(ask), "other": model}
        show(view, "groups-models", **options)
        show(view, "groups-reversal", **options)
        st.markdown(section("statistics", "Pairs and reversal"))
