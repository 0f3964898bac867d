"""The session of this browser: made silently with the first run, kept in with one click, told in a line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from app.bundles import make_item
from app.components.saying import say
from app.panels.panel import Panel
from app.services import Services
from app.text import markdown, printable, shortened
from app.view import View
from cache import StoreError
from cache.errors import SessionAbsent
from cache.session_rules import Item, Session

__all__ = ["begin", "edit_key", "keep", "keep_item", "local", "own", "remember", "take"]

_OWN = "_session"  # session key: the id of the session that things are kept in
_KEYS = (
    "_edit-keys"  # session key: session id -> edit key, of the sessions this browser may change, the last taken last
)
_COOKIE = "eigenscope-keys"
_REMEMBERED = 20
_TITLE = 60
_SPECIAL = re.compile(r"<\|[^|<>]*\|>")  # chat markers make no title
_KEY = re.compile(r"[0-9a-f]{32}")
_cookie = st.components.v2.component(
    "eigenscope.browser_keys", js=(Path(__file__).parent / "browser_keys.js").read_text(encoding="utf-8")
)


def local() -> bool:
    """Whether this server only answers this machine: then all its sessions are its user's own.

    A request that a proxy passed on comes from anywhere.
    """
    if any(name.lower() in ("x-forwarded-for", "forwarded") for name in st.context.headers):
        return False
    return st.get_option("server.address") in ("127.0.0.1", "localhost", "::1")


def own(held: Services) -> Session | None:
    """The session of this browser, also after a reload; None while there is none."""
    _recall(held)
    known: str | None = st.session_state.get(_OWN)
    return None if known is None else held.store.session(known)


def edit_key(held: Services, session_id: str) -> str | None:
    """The key that changes a session, if this browser holds it."""
    return _recall(held).get(session_id)


def take(held: Services, session_id: str, key: str | None) -> None:
    """Make a session the one that things are kept in."""
    keys = dict(_recall(held))
    key = keys.pop(session_id, None) if key is None else key
    st.session_state[_OWN] = session_id
    if key is not None:
        st.session_state[_KEYS] = {one: kept for one, kept in keys.items() if one != session_id} | {session_id: key}


def remember() -> None:
    """Have the browser keep the keys it was given; call it in a page's body or fragment."""
    keys: Mapping[str, str] = st.session_state.get(_KEYS, {})
    if keys:
        _cookie(key="browser-keys", data={"name": _COOKIE, "keys": [*keys.values()], "most": _REMEMBERED})


def _recall(held: Services) -> Mapping[str, str]:
    """The keys this browser holds; at first those of its cookie that open a session here."""
    if _KEYS not in st.session_state:
        keys = {}
        for key in str(st.context.cookies.get(_COOKIE, "")).split(".")[-_REMEMBERED:]:
            found = held.store.session_edited(key) if _KEY.fullmatch(key) else None
            if found is not None:
                keys[found.session_id] = key
        st.session_state[_KEYS] = keys
        if keys:
            st.session_state.setdefault(_OWN, next(reversed(keys)))
    known: Mapping[str, str] = st.session_state[_KEYS]
    return known


def begin(held: Services, run_id: str) -> Session | None:
    """The session of this browser, made with the first run it asked for; None (and a word) if it cannot be made."""
    known = own(held)
    if known is not None:
        return known
    result = held.open(run_id)
    text = "" if result is None else "".join(result.tokens.sort_values("pos")["text"].head(40))
    words = " ".join(_SPECIAL.sub(" ", text).split())
    title = shortened(printable(words), _TITLE).strip() or "Session"
    try:
        made, key = held.store.create_session(title)
    except (StoreError, ValueError) as problem:
        say(markdown(str(problem)))
        return None
    take(held, made.session_id, key)
    return made


def keep(panel: Panel, view: View, params: Mapping[str, Any], title: str) -> None:
    """Add a panel as it is now to the session of this browser, and say so."""
    keep_item(view.services, make_item(panel, view, params), view.info.run_id)


def keep_item(held: Services, item: Item, run_id: str) -> None:
    """Add an item to the session of this browser, which is made if there is none (``run_id`` gives it its title)."""
    session = begin(held, run_id)
    if session is None:
        return
    try:
        held.store.add_item(session.session_id, item)
    except (SessionAbsent, ValueError, StoreError) as problem:
        say(markdown(str(problem)))
        return
    count = session.n_items + 1
    say(f"Kept in the session “{markdown(session.title)}” ({count} item{'s' * (count > 1)}): page *Sessions*.")
