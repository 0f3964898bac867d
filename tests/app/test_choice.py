"""A choice among named things: the first to begin with, unless the page chose another before it was drawn."""

import pytest
from streamlit.testing.v1 import AppTest

SCRIPT = """
import streamlit as st
from app.components.reading import choice

if {chosen!r}:
    st.session_state["which"] = {chosen!r}
st.text(choice("Which", {{"a": "A", "b": "B"}}, "which"))
"""


@pytest.mark.parametrize(("chosen", "shown"), [("", "a"), ("b", "b")])
def test_what_the_page_chose_is_drawn_without_a_warning(
    chosen: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamlit.elements.lib.policies._shown_default_value_warning", False)
    warned: list[object] = []
    monkeypatch.setattr("streamlit.elements.lib.policies._LOGGER.warning", lambda *said, **_: warned.append(said))
    app = AppTest.from_string(SCRIPT.format(chosen=chosen)).run()
    assert not app.exception
    assert (app.text[0].value, warned) == (shown, [])
