"""What the buttons of a panel do: export it, give the code that makes it, keep it in the session."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from app.code import command_line, python
from app.components.keeping import keep, remember
from app.components.saying import said, say
from app.panels.panel import Drawn, Panel
from app.report.pictures import FORMATS, PictureError, picture
from app.selection import write
from app.state import address, link
from app.text import csv_bytes, markdown
from app.view import View
from cache import canonical_json

__all__ = ["FORMATS", "Shown", "act", "after"]

_CODE = "_code"  # session key: title, Python and command line that are to be shown

_MIME = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}


@dataclass(frozen=True)
class Shown:
    """A figure in its frame. ``panel``, ``view`` and ``params`` say how it is made again, where it can be;
    ``add`` keeps it in the session where it is no panel. ``fixed``: it stays as it was kept, whatever is selected."""

    key: str
    drawn: Drawn
    how: str = ""
    view: View | None = None
    panel: Panel | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    add: Callable[[], None] | None = None
    fixed: bool = False

    def address(self) -> str | None:
        """A link to this panel as it is; None where it is no panel."""
        if self.panel is None or self.view is None:
            return None
        here = {"run": self.view.info.run_id, **write(self.view.selection)} if self.fixed else address()
        chosen = {"set": canonical_json(dict(self.params))} if self.params else {}
        return link(self.panel.page, {**here, "panel": self.panel.key, **chosen})


def act(shown: Shown, what: str) -> None:
    """Do what a button asks: one of the formats, ``csv``, ``code``, ``add``. What cannot be done is told."""
    if what in FORMATS and shown.drawn.fig is not None:
        try:
            content = picture(shown.drawn.fig, what, theme=st.context.theme.type or "light")
        except PictureError as problem:
            say(markdown(str(problem)))
            return
        _give(shown.key, what, _MIME[what], content)
    elif what == "csv":
        table = shown.drawn.table()
        if table is not None:
            _give(shown.key, "csv", "text/csv", csv_bytes(table))
    elif what == "code" and shown.panel is not None and shown.view is not None:
        st.session_state[_CODE] = (
            shown.drawn.title,
            python(shown.panel, shown.view, shown.params),
            command_line(shown.panel, shown.view, shown.params),
        )
    elif what == "add":
        if shown.add is not None:
            shown.add()
        elif shown.panel is not None and shown.view is not None:
            keep(shown.panel, shown.view, shown.params, shown.drawn.title)


def after() -> None:
    """Show what came of the buttons since the last drawing; call it at the end of a page's fragment."""
    said()
    remember()
    asked = st.session_state.pop(_CODE, None)
    if asked is not None:
        _code(*asked)


@st.dialog("The code that makes this figure", width="large")
def _code(title: str, in_python: str, on_command_line: str) -> None:
    st.markdown(f"**{title}**")
    in_words = "Both run from the repository's root, in a store of their own; they need the model, not this app."
    st.caption(in_words)
    python_tab, command_tab = st.tabs(["Python", "Command line"])
    python_tab.code(in_python, language="python", wrap_lines=True)
    command_tab.code(on_command_line, language="bash", wrap_lines=True)


def _give(key: str, suffix: str, mime: str, content: bytes) -> None:
    st.session_state[f"_made-{key}"] = (f"{key}.{suffix}", mime, content, time.time_ns())
