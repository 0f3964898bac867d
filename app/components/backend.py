"""The services of this server, made once for all sessions."""

import atexit
from typing import NoReturn

import streamlit as st

from app.jobs import sentence
from app.services import Services, start
from app.text import markdown
from cache import StoreDamaged, StoreError, move_aside

__all__ = ["services"]


def services() -> Services:
    """The store, the shelf, the runner and the desk. Without a store the page says why and ends here."""
    try:
        return _services()
    except (StoreError, OSError) as problem:
        _refused(problem)


def _refused(problem: StoreError | OSError) -> NoReturn:
    st.error(markdown(sentence(problem)))
    if isinstance(problem, StoreDamaged):
        st.caption("Moved aside it keeps its data, under a new name in the same folder.")
        if st.button("Move it aside and start with a new one", key="move-aside"):
            move_aside(problem.path)
            st.rerun()
    st.stop()


@st.cache_resource(max_entries=1, show_spinner="Opening the store")
def _services() -> Services:
    made = start()
    atexit.register(made.close)
    return made
