"""The one selection of all pages, and its way into the URL and back.

The selection lives in the session under a key that belongs to no widget. The URL is read before any widget is drawn,
and written from the state on every full run and after each selection, so a copied address opens the same view.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

__all__ = ["Bounds", "Link", "Selection", "arrive", "bounds", "current", "parse", "select", "settle"]

_SELECTION, _BOUNDS, _WHERE, _WRITTEN = "_selection", "_bounds", "_where", "_written"
_KEYS = {"point": "point", "position": "pos", "head": "head", "dimension": "dim", "latent": "latent"}
_WHOLE = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is looked at: a point 0..L, a token position, and possibly a head, a dimension, an SAE latent."""

    point: int = 0
    position: int = 0
    head: int | None = None
    dimension: int | None = None
    latent: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest value each part of a selection may have in the open run (inclusive); None: there is no such thing.

    ``middle`` is the position a run opens at, by default the middle one.
    """

    point: int
    position: int
    head: int | None = None
    dimension: int | None = None
    latent: int | None = None
    middle: int | None = None

    def start(self) -> Selection:
        """The selection of a run opened afresh: a token in the middle, a little above the middle of the model."""
        middle = self.position // 2 if self.middle is None else self.middle
        return Selection(point=round(self.point * 0.6), position=middle)


@dataclass(frozen=True, slots=True)
class Link:
    """What an address asks for: a model, a stored run, a mask, and the raw text of each part of the selection."""

    model: str | None = None
    run: str | None = None
    mask: str | None = None
    parts: Mapping[str, str] | None = None


def parse(parts: Mapping[str, str], limits: Bounds, fallback: Selection) -> tuple[Selection, tuple[str, ...]]:
    """The selection that ``parts`` (names of :class:`Selection` -> raw text) asks for, and a sentence for each bad one.

    A part that is no whole number, or outside ``limits``, keeps its value of ``fallback``. Never raises.
    """
    chosen: dict[str, Any] = {}
    problems = []
    for name, key in _KEYS.items():
        text = parts.get(name)
        if text is None:
            continue
        last = getattr(limits, name)
        number = int(text) if _WHOLE.fullmatch(text) else None
        if last is not None and number is not None and 0 <= number <= last:
            chosen[name] = number
            continue
        kept = getattr(fallback, name)
        allowed = "this run has none" if last is None else f"it must be a whole number from 0 to {last}"
        shown = text if len(text) <= 32 else text[:31] + "…"
        instead = "nothing is selected" if kept is None else f"{kept} is shown"
        problems.append(f"The address says {key}={shown!r}, but {allowed}; {instead}.")
    return replace(fallback, **chosen), tuple(problems)


def current() -> Selection:
    """The selection of this session; valid in the open run once :func:`settle` has been called."""
    selection: Selection = st.session_state.get(_SELECTION, Selection())
    return selection


def bounds() -> Bounds:
    """The limits of the open run."""
    limits: Bounds = st.session_state.get(_BOUNDS, Bounds(0, 0))
    return limits


def select(**changes: int | None) -> None:
    """Change parts of the selection, clamped to the open run, and write the URL.

    ``point`` and ``position`` given as None fall back to the run's start (a released selection). Legal in callbacks and
    fragments: it touches no widget. Unknown names raise ``TypeError``.
    """
    start, limits = bounds().start(), bounds()
    clamped: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in _KEYS:
            raise TypeError(f"a selection has no {name!r}; it has {', '.join(_KEYS)}")
        last = getattr(limits, name)
        chosen = getattr(start, name) if value is None else int(value)
        clamped[name] = None if chosen is None or last is None else min(max(chosen, 0), last)
    st.session_state[_SELECTION] = replace(current(), **clamped)
    _write()


def arrive() -> Link | None:
    """What the address asks for, if it says something this session did not write itself; call it before any widget."""
    asked = dict(st.query_params)
    if not set(asked) & {"model", "run", "mask", *_KEYS.values()} or asked == st.session_state.get(_WRITTEN):
        return None
    parts = {name: asked[key] for name, key in _KEYS.items() if key in asked}
    return Link(asked.get("model"), asked.get("run"), asked.get("mask"), parts)


def settle(model: str, run: str, mask: str, limits: Bounds, link: Link | None = None) -> tuple[str, ...]:
    """Make a run the open one: keep or parse the selection within ``limits``, write the URL, return what was wrong.

    The selection of another run is kept where it still fits, so two runs are compared at the same place.
    """
    opened = st.session_state.get(_WHERE)
    st.session_state[_BOUNDS], st.session_state[_WHERE] = limits, {"model": model, "run": run, "mask": mask}
    known = current() if opened is not None else limits.start()
    select(**{name: getattr(known, name) for name in _KEYS})
    problems: tuple[str, ...] = ()
    if link is not None and link.parts:
        st.session_state[_SELECTION], problems = parse(link.parts, limits, current())
        _write()
    return problems


def _write() -> None:
    where = st.session_state.get(_WHERE)
    if where is None:
        return
    selection = current()
    parts = {key: getattr(selection, name) for name, key in _KEYS.items()}
    written = where | {key: str(value) for key, value in parts.items() if value is not None}
    st.session_state[_WRITTEN] = written
    if dict(st.query_params) != written:
        st.query_params.from_dict(written)
