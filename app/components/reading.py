"""A choice among a few named things, as a page draws it."""

from collections.abc import Mapping

import streamlit as st

__all__ = ["choice"]


def choice(label: str, options: Mapping[str, str], key: str) -> str:
    """One of ``options`` (value -> what people read), as buttons; the first to begin with."""
    chosen = st.segmented_control(
        label,
        list(options),
        default=None if key in st.session_state else next(iter(options)),
        format_func=options.__getitem__,
        key=key,
        label_visibility="collapsed",
        required=True,
    )
    return str(chosen)
