"""The one selection of all pages, and its way into the URL and back.

The selection lives in the session under a key that belongs to no widget. The URL is read before any widget is drawn,
and written from the state on every full run and after each selection, so a copied address opens the same view.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st

__all__ = [
    "Bounds", "Link", "Selection", "accompany", "arrive", "bounds", "current", "parse", "select", "settle",
]  # fmt: skip

_SELECTION, _BOUNDS, _WHERE, _WRITTEN = "_selection", "_bounds", "_where", "_written"
_BESIDE, _NEXT = "_beside", "_beside_next"
_BESIDE_KEYS = ("b", "view")
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
    """What an address asks for: a model, a stored run, a mask, and the raw text of each part of the selection.

    ``beside`` has what only some pages know: ``b``, the run that is compared, and ``view``.
    """

    model: str | None = None
    run: str | None = None
    mask: str | None = None
    parts: Mapping[str, str] | None = None
    beside: Mapping[str, str] = field(default_factory=dict)


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
    st.session_state[_SELECTION] = _clamped(current(), changes)
    _write()


def arrive() -> Link | None:
    """What the address asks for, if it says something this session did not write itself; call it before any widget.

    It only reads: a page may call it again before :func:`settle`.
    """
    asked = dict(st.query_params)
    known = {"model", "run", "mask", *_KEYS.values(), *_BESIDE_KEYS}
    if not set(asked) & known or asked == st.session_state.get(_WRITTEN):
        return None
    parts = {name: asked[key] for name, key in _KEYS.items() if key in asked}
    beside = {key: asked[key] for key in _BESIDE_KEYS if key in asked}
    return Link(asked.get("model"), asked.get("run"), asked.get("mask"), parts, beside)


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


def settle(model: str, run: str, mask: str, limits: Bounds, link: Link | None = None) -> tuple[str, ...]:
    """Make a run the open one: keep or parse the selection within ``limits``, write the URL, return what was wrong.

    The selection of another run is kept where it still fits, so two runs are compared at the same place.
    """
    opened = st.session_state.get(_WHERE)
    st.session_state[_BESIDE] = st.session_state.pop(_NEXT, {})
    st.session_state[_BOUNDS], st.session_state[_WHERE] = limits, {"model": model, "run": run, "mask": mask}
    known = current() if opened is not None else limits.start()
    st.session_state[_SELECTION] = _clamped(known, {name: getattr(known, name) for name in _KEYS})
    problems: tuple[str, ...] = ()
    if link is not None and link.parts:
        st.session_state[_SELECTION], problems = parse(link.parts, limits, current())
    _write()
    return problems


def _clamped(selection: Selection, changes: Mapping[str, int | None]) -> Selection:
    start, limits = bounds().start(), bounds()
    clamped: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in _KEYS:
            raise TypeError(f"a selection has no {name!r}; it has {', '.join(_KEYS)}")
        last = getattr(limits, name)
        chosen = getattr(start, name) if value is None else int(value)
        clamped[name] = None if chosen is None or last is None else min(max(chosen, 0), last)
    return replace(selection, **clamped)


def _write() -> None:
    where = st.session_state.get(_WHERE)
    if where is None:
        return
    selection = current()
    parts = {key: getattr(selection, name) for name, key in _KEYS.items()}
    written = where | {key: str(value) for key, value in parts.items() if value is not None}
    written |= st.session_state.get(_BESIDE, {})
    st.session_state[_WRITTEN] = written
    if dict(st.query_params) != written:
        st.query_params.from_dict(written)
