"""Who wrote the answer at the selected position: heads, blocks and source tokens."""

import pandas as pd
import streamlit as st

from app.components.explore import extra
from app.components.panel import panel
from app.components.plot_clicks import PlotClick
from app.components.reading import block_of, choice
from app.components.view import View
from app.figures.attribution import component_bars, head_map, source_bars
from app.methods import section
from app.state import select
from app.text import markdown, visible
from probes.request import ProbeCall

__all__ = ["attribution_panels"]

_BY_ITSELF = 1024  # tokens up to which a position is attributed without being asked for
_QUESTIONS = {"best": "best against second", "next": "next token against best other", "plain": "best alone"}


def attribution_panels(view: View) -> None:
    """The running sum over blocks, the map of heads, and the source tokens of one head."""
    position = view.selection.position
    asked = choice("Attribute", _QUESTIONS, "lens-attribute")
    params = _params(view, asked)
    title, question = f"Attribution at position {position}", "What wrote the answer?"
    if params is None:
        note = "The last token has no next one to attribute."
        panel("lens-parts", title, question, None, note=note)
        return
    call = ProbeCall("attribution", params)
    answer = extra(view, call, label=f"Attribute position {position}", auto=len(view.tokens) <= _BY_ITSELF)
    if answer is None:
        return
    found = View(view.services, answer, view.selection)
    components = found.table("components")
    if components.empty:
        panel("lens-parts", title, question, None, note=" ".join(markdown(told) for told in answer.info.notes))
        return
    parts, heads = st.columns(2)
    with parts:
        panel(
            "lens-parts",
            f"{title}: {_named(view, str(components['target'].iloc[0]))}",
            "How does the sum grow?",
            found.figure("lens-parts", lambda: component_bars(components, view.facts.n_layers)),
            note=_checked(found),
            how=section("lens", "Attribution"),
            csv=components,
            on_click=_go_point,
            x=view.selection.point,
        )
    with heads:
        panel(
            "lens-heads",
            "Heads",
            "Which heads speak for it (red) and against it (blue)?",
            found.figure("lens-heads", lambda: head_map(components, view.facts.n_layers, view.facts.n_heads)),
            how=section("lens", "Attribution"),
            on_click=_go_head,
            x=view.selection.head,
            y=view.selection.point - 1 if view.selection.point else None,
        )
    _sources(view, found, params)


def _params(view: View, asked: str) -> dict[str, object] | None:
    """The probe's parameters for a question; None where the question has no answer."""
    position = view.selection.position
    if asked == "best":
        return {"position": position}
    if asked == "plain":
        return {"position": position, "versus": None}
    if position == len(view.tokens) - 1:
        return None
    return {"position": position, "target": int(view.token_ids[position + 1])}


def _sources(view: View, found: View, params: dict[str, object]) -> None:
    """Source tokens of the selected head; of the strongest one until a head is selected."""
    split = found.table("components")
    split = split[split["source_pos"].notna()]
    block, head, why = block_of(view), view.selection.head, ""
    if head is None:
        block, head = map(int, split.groupby(["layer", "head"])["value"].sum().abs().idxmax())
        why = ", the strongest"
    components = split[(split["layer"] == block) & (split["head"] == head)]
    if components.empty:
        call = ProbeCall("attribution", {**params, "strongest": 0, "also": (block, head)})
        more = extra(view, call, label=f"Split block {block}, head {head}", auto=len(view.tokens) <= _BY_ITSELF)
        if more is None:
            return
        found = View(view.services, more, view.selection)
        components = found.table("components")
    panel(
        "lens-sources",
        f"Source tokens of block {block}, head {head}{why}",
        "From which tokens does its part come?",
        found.figure("lens-sources", lambda: source_bars(components, view.tokens, block, head), block, head),
        how=section("lens", "Source tokens of a head"),
        csv=lambda: _with_text(view, components),
        on_click=_go_position,
    )


def _named(view: View, target: str) -> str:
    """``a`` or ``a-b`` in token ids as texts, literal in Markdown."""
    texts = view.decode([int(token) for token in target.split("-")])
    return " against ".join(markdown(visible(text)) for text in texts)


def _checked(found: View) -> str:
    """What the parts were held against."""
    values = found.table("token_metrics").set_index("metric")["value"]
    total, error = float(values["dla_total"]), float(values["dla_error"])
    return f"The model's own number is {total:.4g}; the parts sum to it within {error:.0e} of the largest part."


def _with_text(view: View, components: pd.DataFrame) -> pd.DataFrame:
    rows = components[components["source_pos"].notna()]
    return rows.assign(token=[view.tokens[int(pos)] for pos in rows["source_pos"]])


def _go_point(click: PlotClick) -> None:
    select(point=round(float(click.x)))


def _go_head(click: PlotClick) -> None:
    select(point=round(float(click.y)) + 1, head=round(float(click.x)))


def _go_position(click: PlotClick) -> None:
    select(position=round(float(click.x)))
