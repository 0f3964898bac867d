"""The services of this server, made once for all sessions."""

import atexit

import streamlit as st

from app.services import Services, start

__all__ = ["services"]


@st.cache_resource(max_entries=1, show_spinner="Opening the store")
def services() -> Services:
    """The store, the shelf, the runner and the desk. Raises what :func:`app.services.start` raises, each time anew."""
    made = start()
    atexit.register(made.close)
    return made
