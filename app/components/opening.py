"""A link to one panel: its page opens with the panel's options as they were, and the panel in sight."""

import json
from collections.abc import Mapping

import streamlit as st

from app.panels import registry
from probes.errors import BadRequest

__all__ = ["REVEAL", "open_panel"]

REVEAL = "_reveal"  # session key: the panel that is to be brought into sight


def open_panel(asked: Mapping[str, str]) -> str | None:
    """Set the widgets of the panel an address asks for, before they are drawn; what was wrong, in one sentence."""
    key = asked.get("panel")
    if key is None:
        return None
    try:
        found = registry.panel(key)
        text = asked.get("set", "{}")
        given = json.loads(text) if len(text) <= 4096 else None
        if not isinstance(given, dict):
            raise BadRequest("set must be an object of options.")
        options = found.checked(given)
    except (BadRequest, ValueError, RecursionError) as problem:
        why = str(problem) if isinstance(problem, BadRequest) else "set must be an object of options as JSON."
        return f"The address asks for the panel {key[:64]!r}, but: {why}"
    for name, value in options.items():
        widget = found.options[name].widget
        if widget is not None:
            st.session_state[widget] = value
    st.session_state[REVEAL] = key
    return None
