"""Logit lens: what each point would predict, how a position gets to its answer, and who wrote that answer."""

from typing import Any

import streamlit as st

from app.components.explore import View, explore, extra
from app.components.panel import show
from app.components.reading import choice
from app.figures.lens import COLOURS
from app.panels.attribution import QUESTIONS, attribution_call, source_call
from app.panels.lens import SHORT, TAIL, VARIANTS, lens_call, position_rows, read_lens, window
from app.panels.lens_tokens import token_calls
from app.view import Gap
from probes.lenses.folder import fitting_lenses

__all__ = ["page"]

_BY_ITSELF = 1024  # tokens up to which a position is attributed without being asked for


def page() -> None:
    """Draw the page."""
    explore("Logit lens", "What would the model predict if it stopped here?", panels, colour_by="lens_kl@mean")


def panels(view: View) -> None:
    """The map, the selected position, all positions, then attribution of the selected position."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        lens = _through(view)
        colour = st.selectbox("Colour", list(COLOURS), key="lens-colour", label_visibility="collapsed")
    if not fitting_lenses(view.facts):
        st.caption("A tuned lens reads closer at most points: train one on the page *Models*, and it stands here too.")
    above = st.container()
    _attribution(view)  # asked for first: it is answered in a second, every position of the lens takes many
    with above:
        _lens(view, colour, lens)


def _through(view: View) -> dict[str, Any]:
    """Which lens the page looks through; a tuned one only where one of this model's shape is installed."""
    fitting = fitting_lenses(view.facts)
    offered = {key: says for key, says in VARIANTS.items() if key != "tuned" or fitting}
    if st.session_state.get("lens-variant") not in offered:  # an address may ask for one that is gone
        st.session_state.pop("lens-variant", None)
    variant = choice("Lens", offered, "lens-variant")
    tuned, tail = "", TAIL
    if variant == "tuned":
        if st.session_state.get("lens-tuned") not in fitting:
            st.session_state["lens-tuned"] = fitting[0]
        tuned = str(st.selectbox("Tuned lens", fitting, key="lens-tuned", label_visibility="collapsed"))
    elif variant == "tail":
        most = view.facts.n_layers
        st.session_state["lens-tail"] = min(int(st.session_state.get("lens-tail", TAIL)), most)
        tail = int(st.number_input("Last blocks", 0, most, key="lens-tail", width=130))
    return {"variant": variant, "tuned": tuned, "tail": tail}


def _lens(view: View, colour: str, lens: dict[str, Any]) -> None:
    """The lens at every position in sight; until it is there, whatever the run itself has read."""
    short, (first, last) = len(view.tokens) <= SHORT, window(view)
    label = "Read every position" if short else f"Read positions {first} to {last}"
    extra(view, lens_call(view, **lens), label=label, auto=short and lens["variant"] != "no_norm")
    show(view, "lens-map", **lens, colour=colour)
    read = read_lens(view, **lens)
    if read is None:
        return
    if position_rows(read).empty:
        show(view, "lens-position", **lens)
    else:
        _pair(view, "lens-position", "lens-rank", **lens)
    _pair(view, "lens-kl", "lens-ranks", **lens)
    _several(view, lens)


def _several(view: View, lens: dict[str, Any]) -> None:
    """Ranks of several tokens at the selected position; one more of them may be typed."""
    token = st.text_input(
        "One more token", key="lens-token", placeholder="such as \u2423Paris", max_chars=64, width=260,
        help="Its rank is drawn below. A leading space is part of a token.",
    )  # fmt: skip
    try:
        calls = token_calls(view, **lens, token=token)
    except Gap as gap:
        st.caption(str(gap))
        token, calls = "", token_calls(view, **lens)
    auto = len(view.tokens) <= _BY_ITSELF
    answers = [extra(view, call, label=f"Rank of the {role}", auto=auto) for role, call in calls.items()]
    if all(answer is not None for answer in answers):
        show(view, "lens-tokens", **lens, token=token)


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
