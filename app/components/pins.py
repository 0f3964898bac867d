"""Pins: selections that are kept under a colour, seen in every panel, and compared number by number."""

from dataclasses import replace

import numpy as np
import streamlit as st

from app.components.inspector import Section, draw_sections, facts, lens
from app.components.strip import metric_name, offered, token_values
from app.selection import COLOURS, Pin
from app.state import pin, pins, select, unpin
from app.text import markdown, number
from app.view import View

__all__ = ["beside", "compared", "marked", "pinned"]

_NAMES = {"o": "orange", "g": "green", "p": "pink", "b": "blue"}
_ALIKE = 12  # rows of the table


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
    draw_sections("inspector-pins", view, (*marked(view), *((compared(view, kept),) if kept else ())))


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
    """One row a number, one column a pin; only numbers that one of them has."""
    columns = [
        _numbers(replace(view, selection=chosen)) for chosen in (view.selection, *(one.selection for one in kept))
    ]
    names = list(dict.fromkeys(name for column in columns for name in column))[:_ALIKE]
    rows = tuple((name, *(column.get(name, "–") for column in columns)) for name in names)
    return Section("Selection and pins", rows, ("", "selected", *(_NAMES[one.colour] for one in kept)))


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
    more = [f"{short} {getattr(chosen, name)}" for short, name in (("head", "head"), ("dim", "dimension"), ("latent", "latent"))
            if getattr(chosen, name) is not None]  # fmt: skip
    return " · ".join([f"point {chosen.point}", f"{chosen.position} {markdown(view.token(chosen.position))}", *more])


def _numbers(view: View) -> dict[str, str]:
    """What the inspector says of a place, as name -> text."""
    found = {"token": view.token(view.selection.position)}
    for section in (*lens(view), *facts(view)):
        for row in section.rows:
            if section.head == ("mean-corrected", "raw"):
                found.setdefault("reads as (mean-corrected)", row[0])
            elif len(row) > 1 and row[0]:
                found.setdefault(row[0], row[1])
    return found
