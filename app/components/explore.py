"""The frame of every page that looks into a run: header, strip, panels and inspector under one selection."""

from collections.abc import Callable

import streamlit as st

from app.components.actions import after
from app.components.backend import services
from app.components.extra import extra
from app.components.inspector import inspector
from app.components.pins import beside, pinned
from app.components.strip import strip
from app.components.test_it import test_panels, test_row
from app.components.workspace import open_run
from app.state import current
from app.view import View
from probes.runner import RunResult

__all__ = ["View", "explore", "extra"]


def explore(title: str, question: str, panels: Callable[[View], None], *, colour_by: str = "nll") -> None:
    """Draw a page: header and run form, then one fragment with the strip, ``panels(view)`` and the inspector.

    ``question`` is the page's one sentence; ``colour_by`` the token metric the strip starts with. Without an open run
    the header says how to get one and ``panels`` is not called.
    """
    result = open_run(title, question)
    if result is not None:
        _body(result, panels, colour_by)


@st.fragment
def _body(result: RunResult, panels: Callable[[View], None], colour_by: str) -> None:
    view = View(services(), result, current())
    strip(view, colour_by)
    test_row(view)
    left, right = st.columns([3.4, 1], gap="medium")
    with left:
        test_panels(view)
        panels(view)
    with right, st.container(key="inspector-frame"):
        pinned(view)
        above = st.container()  # drawn last: what the inspector reads on the spot is compared too
        inspector(view)
        with above:
            beside(view)
    after()
