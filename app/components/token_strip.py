"""The token strip: a text as inline tokens coloured by one number a token; clicks and arrow keys select."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from plotly.colors import sample_colorscale

from app.figures.strip_scale import Scale, scale_of
from app.figures.theme import DIVERGING, SEQUENTIAL
from app.text import visible

__all__ = ["token_strip"]

_HERE = Path(__file__).parent
_strip = st.components.v2.component(
    "eigenscope.token_strip",
    html='<div class="root"></div>',
    css=(_HERE / "token_strip.css").read_text(encoding="utf-8"),
    js=(_HERE / "token_strip.js").read_text(encoding="utf-8"),
)
_cursor = st.components.v2.component(
    "eigenscope.strip_cursor", js=(_HERE / "strip_cursor.js").read_text(encoding="utf-8")
)
_BINS = 64
_PARTS = {"pos": "position", "span": "span", "point": "point", "released": "released"}


def token_strip(
    key: str,
    tokens: Sequence[str],
    ids: Sequence[int],
    *,
    identity: str,
    values: Sequence[float] | None = None,
    metric: str = "",
    missing: str = "",
    scale: Scale | None = None,
    special: Sequence[int] = (),
    selected: int | None = None,
    on_select: Callable[[Mapping[str, Any]], None] | None = None,
    height: str = "10.4rem",
    span: tuple[int, int] | None = None,
    pinned: Sequence[tuple[int, str]] = (),
    layers: tuple[int, int] | None = None,
) -> None:
    """Draw the strip. ``tokens`` are raw text and are escaped here; ``identity`` names the text (a capture id).

    ``values`` colour the tokens (NaN: hatched, hover says ``missing``) on ``scale``, or else on that of the values
    themselves. ``on_select`` gets what was chosen: ``position`` (None: released by a
    second click or Esc, then with ``released``), ``span`` (a range marked with Shift, whose mean is told; None: let go)
    and ``point``; it runs before the page's fragment is drawn again. ``pinned`` are positions with their colours.
    ``layers``, the selected point and the last one, makes this the strip that the keys of the whole page move: arrows to
    the sides along the text, up and down through the layers.
    """
    data: dict[str, object] = {
        "identity": identity,
        "tokens": [visible(token) for token in tokens],
        "ids": [int(i) for i in ids],
        "special": [int(i) for i in special],
        "strip": key,
        "metric": metric,
        "missing": missing or "not defined here",
        "height": height,
        "bins": None,
        "values": None,
        "keys": layers is not None,
    }
    if values is not None:
        numbers = np.asarray(values, dtype=float)
        data |= _coloured(numbers, scale or scale_of(numbers))

    answered = f"_answered-{key}"  # which choice of the browser the selection already holds

    def clicked() -> None:
        chosen = st.session_state[key].clicked
        if on_select is not None and isinstance(chosen, dict):
            st.session_state[answered] = chosen.get("sent")
            on_select({_PARTS[name]: value for name, value in chosen.items() if name in _PARTS})

    _strip(key=key, data=data, on_clicked_change=clicked)
    told = {
        "strip": key,
        "selected": selected,
        "span": span,
        "point": layers and layers[0],
        "last": layers and layers[1],
        "pins": [{"pos": position, "colour": colour} for position, colour in pinned],
        "answered": st.session_state.get(answered) or 0,
    }
    _cursor(key=f"{key}-cursor", data=told)


def _coloured(values: np.ndarray, scale: Scale) -> dict[str, object]:
    low, high = scale.ends(values)
    return {
        "bins": scale.bins(values, _BINS).tolist(),
        "values": [f"{value:.4g}" if np.isfinite(value) else None for value in values],
        "low": low,
        "high": high,
        "palette": _palette(scale.kind == "diverging"),
    }


@cache
def _palette(diverging: bool) -> list[tuple[str, str]]:
    """Background and the text colour that reads on it, for each bin."""
    scale = DIVERGING if diverging else SEQUENTIAL
    shades = sample_colorscale(scale, np.linspace(0, 1, _BINS).tolist(), colortype="tuple")
    pairs = []
    for red, green, blue in shades:
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        background = f"rgb({red * 255:.0f},{green * 255:.0f},{blue * 255:.0f})"
        pairs.append((background, "#000000" if light > 0.18 else "#ffffff"))
    return pairs
