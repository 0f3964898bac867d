"""Pins: selections that are kept under a colour, seen in every panel, and compared number by number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import streamlit as st

from app.components.inspector import Section, draw_sections, facts, lens, read_here
from app.components.strip import metric_name, offered, token_values
from app.panels.reading import block_of
from app.selection import COLOURS, Pin
from app.state import pin, pins, select, unpin
from app.text import markdown, number
from app.view import View

__all__ = ["beside", "compared", "marked", "pinned"]

_NAMES = {"o": "orange", "g": "green", "p": "pink", "b": "blue"}
_LISTED = 2  # heads, latents and dimensions that a column brings into the table
_ENTRIES = 6  # rows of each kind

_Key = tuple[str, int, int]
"""What a row is about: its kind, the block of a head (else 0), and its number."""


def pinned(view: View) -> None:
    """The pins, each a button that goes there, and the one that pins the selection."""
    kept = pins()
    with st.container(horizontal=True, gap="xxsmall", vertical_alignment="center", key="pins"):
        full = len(kept) == len(COLOURS)
        told = "At most four are kept: let one go." if full else "Keep it under a colour and see it in every panel"
        st.button("Pin this selection", key="pin", on_click=pin, type="tertiary", disabled=full, help=told)
    for one in kept:
        _pin(view, one)


def beside(view: View) -> None:
    """The range that is marked, and the numbers of the pins beside those of the selection."""
    kept = pins()
    sections = (*((compared(view, kept),) if kept else ()), *marked(view))
    if sections:
        draw_sections("inspector-pins", view, sections)


def marked(view: View) -> tuple[Section, ...]:
    """The marked range of tokens: the mean of every number a token has, at the selected point; nothing without a range."""
    span = view.selection.span
    if span is None:
        return ()
    first, last = span
    rows = []
    for metric in view.memo("strip metrics", lambda: offered(view.table("token_metrics"))):
        values, _ = token_values(view, metric)
        known = values[first : last + 1][np.isfinite(values[first : last + 1])]
        if known.size:
            rows.append((metric_name(metric), number(float(known.mean())), str(known.size)))
    title = f"Tokens {first} to {last}, mean at point {view.selection.point}"
    return (Section(title, tuple(rows), ("", "mean", "n"), "" if rows else "No number is known of these tokens."),)


def compared(view: View, kept: tuple[Pin, ...]) -> Section:
    """One row a number, one column a pin.

    Heads (by block) and latents that are among the strongest of one column, or selected in it, are looked up for all.
    """
    places = [replace(view, selection=chosen) for chosen in (view.selection, *(one.selection for one in kept))]
    columns = [_numbers(place) for place in places]
    rows = [
        (name, *(column.get(name, "–") for column in columns))
        for name in dict.fromkeys(name for column in columns for name in column)
    ]
    entries = _entries(places)
    rows += [
        (entries[key], *(_looked_up(place, *key) for place in places))
        for kind in ("dimension", "head", "latent")
        for key in [key for key in entries if key[0] == kind][:_ENTRIES]
    ]
    head = ("", "selected", *(_NAMES[one.colour] for one in kept))
    return Section("Selection and pins", tuple(rows), head)


def _pin(view: View, one: Pin) -> None:
    chosen = one.selection
    with st.container(horizontal=True, gap="xxsmall", vertical_alignment="center", key=f"pin-{_NAMES[one.colour]}"):
        st.html(f'<span style="color:{COLOURS[one.colour]}">&#9632;</span>', width="content")
        parts = {name: getattr(chosen, name) for name in ("point", "position", "head", "dimension", "latent")}
        st.button(
            _label(view, one), key=f"go-{one.colour}", on_click=select, kwargs=parts, type="tertiary", help="Go there"
        )
        st.button("×", key=f"unpin-{one.colour}", on_click=unpin, args=(one.colour,), type="tertiary", help="Let it go")


def _label(view: View, one: Pin) -> str:
    chosen = one.selection
    more = [] if chosen.head is None else [f"head {max(chosen.point - 1, 0)}.{chosen.head}"]
    more += [f"{short} {getattr(chosen, name)}" for short, name in (("dim", "dimension"), ("latent", "latent"))
             if getattr(chosen, name) is not None]  # fmt: skip
    return " · ".join([f"point {chosen.point}", f"{chosen.position} {markdown(view.token(chosen.position))}", *more])


def _numbers(view: View) -> dict[str, str]:
    """What the inspector says of a place, as name -> text; without heads, latents and dimensions (:func:`_entries`)."""
    found = {"token": view.token(view.selection.position)}
    for section in (*lens(read_here(view)), *facts(view)):
        goes = dict(enumerate(section.go))
        for index, row in enumerate(section.rows):
            if section.head == ("mean-corrected", "raw"):
                found.setdefault("reads as (mean-corrected)", row[0])
            elif len(row) > 1 and row[0] and not goes.get(index):
                found.setdefault(row[0], row[1])
    return found


def _entries(places: Sequence[View]) -> dict[_Key, str]:
    """Dimensions, heads and latents to compare, as key -> name: those selected, then the first that each inspector lists."""
    chosen, listed = dict[_Key, str](), dict[_Key, str]()
    for view in places:
        selection, counted = view.selection, Counter[str]()
        if selection.head is not None:
            chosen["head", block_of(view), selection.head] = f"head {block_of(view)}.{selection.head}"
        if selection.latent is not None:
            chosen["latent", 0, selection.latent] = f"latent {selection.latent}"
        for section in facts(view):
            for row, go in zip(section.rows, section.go, strict=False):
                if go:
                    counted[_key(go)[0]] += 1
                    if counted[_key(go)[0]] <= _LISTED:
                        listed[_key(go)] = row[0]
    return {key: listed.get(key, name) for key, name in {**chosen, **listed}.items()}


def _key(go: Mapping[str, int]) -> _Key:
    if "head" in go:
        return "head", go["point"] - 1, go["head"]
    return ("latent", 0, go["latent"]) if "latent" in go else ("dimension", 0, go["dimension"])


def _looked_up(view: View, kind: str, block: int, which: int) -> str:
    """The number of a head, a latent or a massive dimension at a place, or why the run holds none."""
    position = view.selection.position
    if kind == "head":
        rows = view.metric("position_head_metrics", "column_score")
        if not rows.empty:
            rows = rows[(rows["pos"] == position) & (rows["layer"] == block) & (rows["head"] == which)]
        return "not kept of this token" if rows.empty else f"{rows['value'].iloc[0]:.3f}"
    if kind == "latent":
        rows = view.table("latents")
        if rows.empty:
            return "–"
        here = rows[(rows["pos"] == position) & (rows["latent"] == which)]
        most = view.memo("latents kept", lambda: int(rows.groupby("pos").size().max()))
        return f"not in its top {most}" if here.empty else f"{here['activation'].max():.3g}"
    rows = view.at(view.table("massive"))
    rows = rows if rows.empty else rows[(rows["dim"] == which) & rows["strict"].astype(bool)]
    return "not massive" if rows.empty else f"{rows['value'].iloc[0]:,.4g}"
