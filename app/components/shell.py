"""What every page wears, and which pages there are."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app.state import ROOT

__all__ = ["dress", "page_of", "pages", "remember_root"]

_HERE = Path(__file__).parent
_STYLE = _HERE / "shell.css"
_history = st.components.v2.component("eigenscope.history", js=(_HERE / "history.js").read_text(encoding="utf-8"))
_TITLES = {
    "overview": "Overview",
    "spectra": "Spectra",
    "sinks": "Sinks",
    "massive": "Massive activations",
    "lens": "Logit lens",
    "latents": "SAE latents",
    "compare": "Two runs",
    "interventions": "Interventions",
    "story": "One number",
    "sessions": "Sessions",
    "data": "Data",
    "models": "Models",
}


def dress() -> None:
    """Load the app's style sheet, and see to it that Back goes to the page before."""
    st.html(_STYLE)
    st.html(_HERE / "history.css")
    with st.container(key="history"):
        _history(key="history-keeper")


def pages() -> list[StreamlitPage]:
    """The pages in their order; the first is the start page."""
    there = [name for name in _TITLES if find_spec(f"app.views.{name}") is not None]
    return [page_of(name, default=name == there[0]) for name in there]


def page_of(name: str, *, default: bool | None = None) -> StreamlitPage:
    """One page by the name of its module, to link or switch to. Raises KeyError for a page there is none of."""
    start = name == next(iter(_TITLES)) if default is None else default
    return st.Page(_opener(name), title=_TITLES[name], url_path=name, default=start)


def remember_root(page: StreamlitPage) -> None:
    """Note where the server's root is, as this browser sees it, for links that are copied."""
    at = (st.context.url or "").split("?")[0]
    st.session_state[ROOT] = at.removesuffix("/").removesuffix(page.url_path).removesuffix("/")


def _opener(name: str) -> Callable[[], None]:
    """The page function, its module imported when it is first opened: torch takes seconds, the menu should not."""

    def open_page() -> None:
        module = f"app.views.{name}"
        if not hasattr(sys.modules.get(module), "page"):
            with st.spinner("Loading the libraries, once"):
                import_module(module)
        sys.modules[module].page()

    return open_page
