"""What every page wears, and which pages there are."""

import sys
from collections.abc import Callable
from importlib import import_module
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
    "geometry": "Geometry",
    "compare": "Two runs",
    "interventions": "Interventions",
    "story": "One number",
    "sessions": "Sessions",
    "data": "Data",
    "models": "Models",
}
_PROMPTS = {"sets": "Prompt sets", "groups": "Compare groups", "predict": "Correctness", "claims": "Claims"}
_ALONG = {"token_spectra": "Token spectra", "response": "Response"}
_SAES = {
    "latent": "One latent",
    "find": "Find latents",
    "quality": "SAE quality",
    "sae_compare": "Compare SAEs",
    "steer": "Steering",
    "train": "Train an SAE",
}


def dress() -> None:
    """Load the app's style sheet, and see to it that Back goes to the page before."""
    st.html(_STYLE)
    st.html(_HERE / "history.css")
    with st.container(key="history"):
        _history(key="history-keeper")


def pages() -> dict[str, list[StreamlitPage]]:
    """The pages in their order, by the menu they are in ("": the bar itself); the first is the start page."""
    menus = {"": _TITLES, "Many prompts": _PROMPTS, "Along the text": _ALONG, "SAEs": _SAES}
    return {menu: [page_of(name) for name in titles] for menu, titles in menus.items()}


def page_of(name: str) -> StreamlitPage:
    """One page by the name of its module, to link or switch to. Raises KeyError for a page there is none of."""
    title = (_TITLES | _PROMPTS | _ALONG | _SAES)[name]
    return st.Page(_opener(name), title=title, url_path=name, default=name == next(iter(_TITLES)))


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
