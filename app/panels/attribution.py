"""Panels of who wrote the answer at the selected position: blocks, heads and source tokens."""

import pandas as pd

from app.figures.attribution import component_bars, head_map, source_bars, summed_parts
from app.panels.panel import BLOCK_HEAD, POINT, POSITION, Click, Drawn, Option, panel
from app.panels.reading import block_of
from app.text import markdown, visible
from app.view import Gap, View
from probes.request import ProbeCall

__all__ = ["QUESTIONS", "attribution_call", "source_call"]

QUESTIONS = {"best": "best against second", "next": "next token against best other", "plain": "best alone"}
_OPTIONS = {"attribute": Option(tuple(QUESTIONS), "lens-attribute")}


def attribution_call(view: View, attribute: str) -> ProbeCall | None:
    """The question who wrote the answer at the selected position; None where there is no such answer."""
    position = view.selection.position
    params: dict[str, object] = {"position": position}
    if attribute == "plain":
        params["versus"] = None
    elif attribute == "next":
        if position == len(view.tokens) - 1:
            return None
        params["target"] = int(view.token_ids[position + 1])
    return ProbeCall("attribution", params)


def source_call(view: View, attribute: str) -> tuple[ProbeCall, int, int]:
    """The question whose answer splits a head by source token, and that head: the selected one, else the strongest.

    Raises Gap where the position is not attributed.
    """
    call, found = _attributed(view, attribute)
    components = found.table("components")
    split = components[components["source_pos"].notna()]
    block, head = block_of(view), view.selection.head
    if head is None and not split.empty:
        block, head = map(int, split.groupby(["layer", "head"])["value"].sum().abs().idxmax())
    head = head or 0
    if ((split["layer"] == block) & (split["head"] == head)).any():
        return call, block, head
    return ProbeCall("attribution", {**call.params, "strongest": 0, "also": (block, head)}), block, head


@panel("lens-parts", "lens", "Attribution", "How does the sum grow?", ("lens", "Attribution"), options=_OPTIONS)
def parts(view: View, attribute: str = "best") -> Drawn:
    _, found = _attributed(view, attribute)
    components, layers = found.table("components"), view.facts.n_layers

    def pick(click: Click) -> dict[str, int | None]:
        return {"point": min(round(click.x), layers)}  # the biases stand after the last point

    return Drawn(
        found.figure("lens-parts", lambda: component_bars(components, layers)),
        f"Attribution at position {view.selection.position}: {_named(view, str(components['target'].iloc[0]))}",
        note=_checked(found),
        csv=components,
        place=POINT,
        pick=pick,
    )


@panel("lens-heads", "lens", "Heads", "Which heads speak for it (red) and against it (blue)?",
       ("lens", "Attribution"), options=_OPTIONS)  # fmt: skip
def heads(view: View, attribute: str = "best") -> Drawn:
    _, found = _attributed(view, attribute)
    components, facts = found.table("components"), view.facts
    figure = found.figure("lens-heads", lambda: head_map(components, facts.n_layers, facts.n_heads))
    return Drawn(figure, csv=lambda: _heads(components), place=BLOCK_HEAD)


@panel("lens-sources", "lens", "Source tokens of a head", "From which tokens does its part come?",
       ("lens", "Source tokens of a head"), options=_OPTIONS)  # fmt: skip
def sources(view: View, attribute: str = "best") -> Drawn:
    call, block, head = source_call(view, attribute)
    found = view.beside(view.answer(call))
    rows = found.table("components")
    rows = rows if rows.empty else rows[rows["source_pos"].notna() & (rows["layer"] == block) & (rows["head"] == head)]
    if rows.empty:
        raise Gap(_refusal(found))
    first, seen = view.sight()
    last = first + len(seen) - 1
    shown = rows[rows["source_pos"].between(first, last)]
    beyond = rows["value"].sum() - shown["value"].sum()
    return Drawn(
        found.figure("lens-sources", lambda: source_bars(shown, view.tokens, block, head), block, head, first),
        f"Source tokens of block {block}, head {head}{', the strongest' if view.selection.head is None else ''}",
        note=None if len(shown) == len(rows) else f"Positions {first} to {last}; the other tokens add {beyond:.4g}.",
        csv=lambda: rows.assign(token=[view.tokens[int(pos)] for pos in rows["source_pos"]]),
        place=POSITION,
    )


def _attributed(view: View, attribute: str) -> tuple[ProbeCall, View]:
    """The question and its answer, which has components. Raises Gap where it has not."""
    call = attribution_call(view, attribute)
    if call is None:
        raise Gap("The last token has no next one to attribute.")
    found = view.beside(view.answer(call))
    if not found.has("components"):
        raise Gap(_refusal(found))
    return call, found


def _refusal(found: View) -> str:
    return " ".join(markdown(told) for told in found.info.notes) or "Nothing was attributed here."


def _heads(components: pd.DataFrame) -> pd.DataFrame:
    rows = summed_parts(components)
    return rows[rows["component"] == "head"]


def _named(view: View, target: str) -> str:
    """``a`` or ``a-b`` in token ids as texts, literal in Markdown."""
    texts = view.decode([int(token) for token in target.split("-")])
    return " against ".join(markdown(visible(text)) for text in texts)


def _checked(found: View) -> str | None:
    """What the parts were held against."""
    total, error = (found.metric("token_metrics", f"dla_{name}") for name in ("total", "error"))
    if total.empty or error.empty:
        return None
    number, off = float(total["value"].iloc[0]), float(error["value"].iloc[0])
    return f"The model's own number is {number:.4g}; the parts sum to it within {off:.0e} of the largest part."
