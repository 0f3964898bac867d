"""A word about what a callback did, shown once by the next drawing.

A callback that draws by itself during the rerun of a fragment replaces the first elements of the page: tried.
"""

import streamlit as st

__all__ = ["said", "say"]

_SAID = "_said"  # session key: sentences of Markdown that are to be shown


def say(sentence: str) -> None:
    """Keep a sentence of Markdown for the next drawing. Legal in callbacks."""
    st.session_state[_SAID] = (*st.session_state.get(_SAID, ()), sentence)


def said() -> None:
    """Show what was said since the last drawing; call it in a page's body or fragment."""
    for sentence in st.session_state.pop(_SAID, ()):
        st.toast(sentence)
