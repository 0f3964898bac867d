"""Logit lens: what each point would predict, how a position gets to its answer, and who wrote that answer."""

from typing import Any

import streamlit as st

from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.reading import choice
from app.figures.lens import COLOURS
from app.panels.attribution import QUESTIONS, attribution_call, source_call
from app.panels.lens import SHORT, VARIANTS, lens_call, position_rows, read_lens, window

__all__ = ["page"]

_BY_ITSELF = 1024  # tokens up to which a position is attributed without being asked for


def page() -> None:
    """Draw the page."""
    explore("Logit lens", "What would the model predict if it stopped here?", panels, colour_by="lens_kl@mean")


def panels(view: View) -> None:
    """The map, the selected position, all positions, then attribution of the selected position."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        variant = choice("Lens", VARIANTS, "lens-variant")
        colour = st.selectbox("Colour", list(COLOURS), key="lens-colour", label_visibility="collapsed")
    above = st.container()
    _attribution(view)  # asked for first: it is answered in a second, every position of the lens takes many
    with above:
        _lens(view, variant, colour)


def _lens(view: View, variant: str, colour: str) -> None:
    """The lens at every position in sight; until it is there, whatever the run itself has read."""
    short, (first, last) = len(view.tokens) <= SHORT, window(view)
    label = "Read every position" if short else f"Read positions {first} to {last}"
    extra(view, lens_call(view, variant), label=label, auto=short and variant != "no_norm")
    show(view, "lens-map", variant=variant, colour=colour)
    read = read_lens(view, variant)
    if read is None:
        return
    if position_rows(read).empty:
        show(view, "lens-position", variant=variant)
    else:
        _pair(view, "lens-position", "lens-rank", variant=variant)
    _pair(view, "lens-kl", "lens-ranks", variant=variant)


def _attribution(view: View) -> None:
    """The running sum over blocks, the map of heads, and the source tokens of one head."""
    attribute = choice("Attribute", QUESTIONS, "lens-attribute")
    call = attribution_call(view, attribute)
    if call is None:
        show(view, "lens-parts", attribute=attribute)
        return
    auto = len(view.tokens) <= _BY_ITSELF
    answer = extra(view, call, label=f"Attribute position {view.selection.position}", auto=auto)
    if answer is None:
        return
    if not view.beside(answer).has("components"):
        show(view, "lens-parts", attribute=attribute)
        return
    _pair(view, "lens-parts", "lens-heads", attribute=attribute)
    call, block, head = source_call(view, attribute)
    if extra(view, call, label=f"Split block {block}, head {head}", auto=auto) is not None:
        show(view, "lens-sources", attribute=attribute)


def _pair(view: View, left: str, right: str, **options: Any) -> None:
    for column, key in zip(st.columns(2), (left, right), strict=True):
        with column:
            show(view, key, **options)
