"""What every page wears, and which pages there are."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

__all__ = ["dress", "pages"]

_STYLE = Path(__file__).parent / "shell.css"
_TITLES = {
    "overview": "Overview",
    "spectra": "Spectra",
    "sinks": "Sinks",
    "massive": "Massive activations",
    "lens": "Logit lens",
    "latents": "SAE latents",
    "models": "Models",
}


def dress() -> None:
    """Load the app's style sheet."""
    st.html(_STYLE)


def pages() -> list[StreamlitPage]:
    """The pages in their order; the first is the start page."""
    there = [name for name in _TITLES if find_spec(f"app.pages.{name}") is not None]
    return [st.Page(_opener(name), title=_TITLES[name], url_path=name, default=name == there[0]) for name in there]


def _opener(name: str) -> Callable[[], None]:
    """The page function, its module imported when it is first opened: torch takes seconds, the menu should not."""

    def open_page() -> None:
        module = f"app.pages.{name}"
        if not hasattr(sys.modules.get(module), "page"):
            with st.spinner("Loading the libraries, once"):
                import_module(module)
        sys.modules[module].page()

    return open_page
