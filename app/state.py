"""The one selection of all pages and its pins, and their way into the URL and back.

They live in the session under keys that belong to no widget. The URL is read before any widget is drawn, and written
from the state on every full run and after each selection, so a copied address opens the same view.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from app.selection import COLOURS, KEYS, Bounds, Link, Pin, Selection, clamp, parse, parse_pins, write, write_pins

__all__ = [
    "ROOT", "accompany", "address", "arrive", "bounds", "current", "link", "pin", "pins", "select", "settle", "toggle", "unpin",
]  # fmt: skip

_SELECTION, _BOUNDS, _WHERE, _WRITTEN, _PINS = "_selection", "_bounds", "_where", "_written", "_pins"
_BESIDE, _NEXT = "_beside", "_beside_next"
_BESIDE_KEYS = ("b", "view")
_ONCE_KEYS = ("panel", "set")  # asked for by a link, never written by a page
_SPAN = "span"
_LEFT = "_left"
_STALE = 10.0  # seconds: a run the browser asked for before it knew of a selection still brings the address before it
ROOT = "_root"  # session key: the address of the server's root, as this browser sees it


def current() -> Selection:
    """The selection of this session; valid in the open run once :func:`settle` has been called."""
    selection: Selection = st.session_state.get(_SELECTION, Selection())
    return selection


def bounds() -> Bounds:
    """The limits of the open run."""
    limits: Bounds = st.session_state.get(_BOUNDS, Bounds(0, 0))
    return limits


def select(**changes: Any) -> None:
    """Change parts of the selection, clamped to the open run, and write the URL.

    ``point`` and ``position`` given as None fall back to the run's start (a released selection). Legal in callbacks and
    fragments: it touches no widget. Unknown names raise ``TypeError``.
    """
    st.session_state[_SELECTION] = clamp(current(), changes, bounds())
    _write()


def toggle(**changes: Any) -> None:
    """Select, or release what is selected already: the second click on a place."""
    there = all(getattr(current(), name) == value for name, value in changes.items())
    select(**(dict.fromkeys(changes) if there else changes))


def pins() -> tuple[Pin, ...]:
    """The pinned selections of this session, in the order they were pinned."""
    kept: tuple[Pin, ...] = st.session_state.get(_PINS, ())
    return kept


def pin() -> None:
    """Keep the selection under the first free colour, if there is one."""
    taken = {one.colour for one in pins()}
    free = [colour for colour in COLOURS if colour not in taken]
    if free:
        st.session_state[_PINS] = (*pins(), Pin(free[0], replace(current(), first=None, span=None)))
        _write()


def unpin(colour: str) -> None:
    """Let the pin of a colour go."""
    st.session_state[_PINS] = tuple(one for one in pins() if one.colour != colour)
    _write()


def arrive() -> Link | None:
    """What the address asks for, if it says something this session did not write itself; call it before any widget.

    It only reads: a page may call it again before :func:`settle`.
    """
    asked = dict(st.query_params)
    known = {"model", "run", "mask", "pins", _SPAN, *KEYS.values(), *_BESIDE_KEYS, *_ONCE_KEYS}
    if not set(asked) & known or asked == st.session_state.get(_WRITTEN) or _is_stale(asked):
        return None
    parts = {name: asked[key] for name, key in (*KEYS.items(), (_SPAN, _SPAN)) if key in asked}
    beside = {key: asked[key] for key in (*_BESIDE_KEYS, *_ONCE_KEYS) if key in asked}
    return Link(asked.get("model"), asked.get("run"), asked.get("mask"), parts, beside, asked.get("pins"))


def accompany(*, settled: bool = True, **parts: str | None) -> None:
    """Say what stands in the address of this page beside run and selection: ``b``, ``view``.

    Before :func:`settle` (``settled`` False) it is kept for it; afterwards it is written at once. Pages that say nothing
    have none. Unknown names raise ``TypeError``.
    """
    for name in parts:
        if name not in _BESIDE_KEYS:
            raise TypeError(f"an address has no {name!r} beside the selection; it has {', '.join(_BESIDE_KEYS)}")
    st.session_state[_BESIDE if settled else _NEXT] = {key: value for key, value in parts.items() if value is not None}
    if settled:
        _write()


def settle(model: str, run: str, mask: str, limits: Bounds, asked: Link | None = None) -> tuple[str, ...]:
    """Make a run the open one: keep or parse the selection within ``limits``, write the URL, return what was wrong.

    The selection of another run is kept where it still fits, so two runs are compared at the same place; so are pins.
    """
    opened = st.session_state.get(_WHERE)
    st.session_state[_BESIDE] = st.session_state.pop(_NEXT, {})
    st.session_state[_BOUNDS], st.session_state[_WHERE] = limits, {"model": model, "run": run, "mask": mask}
    known = current() if opened is not None else limits.start()
    st.session_state[_SELECTION] = _within(known, limits)
    st.session_state[_PINS] = tuple(replace(one, selection=_within(one.selection, limits)) for one in pins())
    problems: tuple[str, ...] = ()
    if asked is not None and (asked.parts or asked.pins):
        fallback = replace(current(), span=None, first=None)
        st.session_state[_SELECTION], problems = parse(asked.parts or {}, limits, fallback)
        if asked.pins:
            st.session_state[_PINS], wrong = parse_pins(asked.pins, limits)
            problems += wrong
    _write()
    return problems


def address() -> dict[str, str]:
    """What stands in the address of the page: run, selection, pins, and what the page says beside them."""
    where = st.session_state.get(_WHERE)
    if where is None:
        return {}
    pinned = {"pins": write_pins(pins())} if pins() else {}
    return {**where, **write(current()), **pinned, **st.session_state.get(_BESIDE, {})}


def link(page: str, query: Mapping[str, str]) -> str:
    """The whole address of a page with parts; the Overview is the root itself."""
    root = st.session_state.get(ROOT, "")
    return f"{root}/{'' if page == 'overview' else page}?{urlencode(query)}"


def _within(selection: Selection, limits: Bounds) -> Selection:
    return clamp(selection, {name: getattr(selection, name) for name in (*KEYS, _SPAN)}, limits)


def _is_stale(asked: dict[str, str]) -> bool:
    """Whether this page has just left the address. On another page it is the way back to it (history.js)."""
    at, left = _page(), st.session_state.get(_LEFT, [])
    return any(where == at and one == asked and time.monotonic() - when < _STALE for where, one, when in left)


def _page() -> str:
    return (st.context.url or "").split("?")[0]


def _write() -> None:
    written = address()
    if not written:
        return
    before = st.session_state.get(_WRITTEN)
    if before is not None and before != written:
        left = [*st.session_state.get(_LEFT, []), (_page(), before, time.monotonic())]
        st.session_state[_LEFT] = left[-8:]
    st.session_state[_WRITTEN] = written
    if dict(st.query_params) != written:
        st.query_params.from_dict(written)
