"""Choosing the two runs and how their tokens stand against each other, and their strips."""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import streamlit as st

from analysis.alignment import Alignment, by_position, by_token, from_rows
from app.comparison import Pair, default_alignment, token_texts
from app.components.reading import choice
from app.components.run_form import RUN
from app.components.saying import say
from app.components.shell import page_of
from app.components.strip import choose, kind_of, metric_name, offered, ordinary, token_values
from app.components.token_strip import token_strip
from app.figures.strip_scale import FLOOR, scale_of
from app.panels.pairs import PAIR, aligned_by
from app.selection import Selection
from app.services import Services
from app.state import current, select
from app.text import markdown, visible
from app.view import View
from probes.model.edits import describe
from probes.runner import RunResult

__all__ = ["COMPARED", "choose_alignment", "choose_runs", "open_comparison", "strips"]

COMPARED = "_compared"  # session key: the run that stands as B
_ALIGNED = "_aligned"  # session key: how the two texts on the page stand against each other
_RECENT = 50
_MADE = "_made-alignments"  # session key: alignments that follow from how B was made of A, by both ids
_HOW = {"made": "as it was made", "position": "by position", "token": "by token", "edited": "edited"}
_HEIGHT = "5.2rem"


def open_comparison(a_run_id: str, b_run_id: str, alignment: Alignment | None = None) -> NoReturn:
    """Go to the page that compares two stored runs, with A as the open run; ``alignment`` where it is known exactly."""
    if alignment is not None:
        st.session_state[_MADE] = {**st.session_state.get(_MADE, {}), f"{a_run_id}-{b_run_id}": alignment}
    st.session_state[RUN], st.session_state[COMPARED] = a_run_id, b_run_id
    st.switch_page(page_of("compare"), query_params={"run": a_run_id, "b": b_run_id})


def choose_runs(held: Services, a: RunResult, wanted: str | None) -> RunResult | None:
    """Draw the choice of A and B and the button that swaps them; return B, or None if only one run is stored.

    ``wanted`` is the id of B if one is asked for; one that the store does not hold is told, and another taken.
    """
    recent = held.recent()
    ids = [str(run_id) for run_id in recent["run_id"].head(_RECENT)]
    b = None if wanted is None else held.open(wanted)
    if b is None:
        b = _another(held, a, recent)
        if wanted is not None:
            instead = "no other run is stored" if b is None else "the newest other one is compared"
            st.warning(markdown(f"The address names the run b={wanted[:64]!r}, which is not stored; {instead}."))
    if b is None:
        st.info("Only this run is stored. Run another text, or this one another way, and come back: it becomes B.")
        return None
    st.session_state[COMPARED] = b.info.run_id
    ids = list(dict.fromkeys([*ids, a.info.run_id, b.info.run_id]))
    labels = {run_id: _label(held, run_id) for run_id in ids}
    chosen = {"a": a.info.run_id, "b": b.info.run_id}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="compare-runs"):
        for side, target in (("a", RUN), ("b", COMPARED)):
            key = f"compare-{side}-{chosen[side]}"
            st.selectbox(
                f"{side.upper()}{', the open run' if side == 'a' else ''}",
                ids,
                ids.index(chosen[side]),
                format_func=labels.__getitem__,
                key=key,
                on_change=_take,
                args=(key, target),
            )
            if side == "a":
                st.button("⇄", key="compare-swap", help="Swap A and B", on_click=_swap, args=(chosen["a"], chosen["b"]))
    return b


def choose_alignment(a: RunResult, b: RunResult) -> Alignment:
    """Draw how positions are matched; return the alignment. Pairs that cannot be are told, and the former ones kept."""
    default, _ = default_alignment(a, b)
    key = f"{a.info.run_id}-{b.info.run_id}"
    _follow(a, b, key)
    made: Alignment | None = st.session_state.get(_MADE, {}).get(key)
    first = default if made is None else "made"
    names = sorted((name for name in _HOW if made is not None or name != "made"), key=lambda name: name != first)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        how = choice("Alignment", {name: _HOW[name] for name in names}, f"compare-align-{key}")
        place = st.empty()
    if made is not None and how == "made":
        chosen = made
    elif how == "position":
        chosen = by_position(a.info.n_tokens, b.info.n_tokens)
    elif how == "token":
        chosen = by_token(token_texts(a), token_texts(b))
    else:
        chosen = _edited(a, b, key)
    st.session_state[_ALIGNED] = chosen
    place.caption(f"{len(chosen):,} of {a.info.n_tokens:,} tokens of A and of {b.info.n_tokens:,} of B are aligned.")
    return chosen


def strips(held: Services, pair: Pair) -> None:
    """A, B and B − A of one token metric; a click on any moves the selection."""
    a, b = pair.a.own, pair.b.own
    chosen, position = current(), pair.position_of_b(current().position)
    views = (View(held, a, chosen), View(held, b, Selection(pair.b.point, position or 0)))
    there = [offered(view.table("token_metrics")) for view in views]
    known = [metric for metric in there[0] if metric in there[1]]
    metric = None
    if known:
        metric = st.selectbox(
            "Colour tokens by", known, format_func=metric_name, label_visibility="collapsed", key="compare-strip-by",
            width=340,
        )  # fmt: skip
    values = [(np.empty(0), "") if metric is None else token_values(view, metric) for view in views]

    def from_b(chosen: Mapping[str, Any]) -> None:
        position = chosen.get("position")
        at = None if position is None else pair.alignment.to_a.get(position)
        if position is not None and at is None:
            say("No token of A is aligned to this one.")
        elif "position" in chosen:
            select(position=at)

    shared, step, floor = None, np.empty(0), 0.0
    if metric is not None:
        both = np.concatenate([numbers for numbers, _ in values])
        kept = np.concatenate([ordinary(view) for view in views])
        shared = scale_of(both, kind_of(metric), kept=kept)
        step = pair.b.along(values[1][0]) - values[0][0]
        floor = FLOOR * float(np.nanmax(np.abs(both), initial=0.0))
    left, right = st.columns(2)
    for place, name, view, (numbers, missing), selected, go in (
        (left, "A", views[0], values[0], chosen.position, choose),
        (right, "B", views[1], values[1], position, from_b),
    ):
        with place:
            st.caption(f"**{name}**")
            token_strip(
                f"strip-{name.lower()}", view.tokens, view.token_ids, identity=view.info.run_id, values=numbers.tolist() or None,
                metric=metric or "", missing=missing, scale=shared, special=view.special,
                selected=selected, on_select=go, height=_HEIGHT,
            )  # fmt: skip
    if metric is not None:
        alike = not (np.abs(step) > floor).any()
        told = f". No difference above {floor:.1g}" if alike and np.isfinite(step).any() else ""
        st.caption(f"**B − A**, on the tokens of A; hatched: no aligned token, or no number in one of them{told}")
        token_strip(
            "strip-d", views[0].tokens, views[0].token_ids, identity=f"d-{pair.key}", values=step.tolist(),
            metric=f"B − A of {metric}", missing="not in both", special=views[0].special,
            selected=chosen.position, on_select=choose, height=_HEIGHT,
            scale=scale_of(step, "diverging", kept=ordinary(views[0]), floor=floor),
        )  # fmt: skip


def _another(held: Services, a: RunResult, recent: pd.DataFrame) -> RunResult | None:
    """The newest other run, of the same model if there is one."""
    others = recent[recent["run_id"] != a.info.run_id]
    same = others[others["model"] == a.info.model]
    for run_id in [*same["run_id"].head(1), *others["run_id"].head(1)]:
        return held.open(str(run_id))
    return None


def _label(held: Services, run_id: str) -> str:
    def build() -> str:
        run = held.open(run_id)
        if run is None:
            return run_id[:8]
        edits = run.info.request.edits
        told = f"edited {describe(edits)}" if edits else ""
        parts = (run.info.model, f"{run.info.n_tokens:,} tokens", run.info.mask, told)
        start = visible("".join(token_texts(run)[:24]))
        return " · ".join([*(part for part in parts if part), run_id[:8], start])

    return str(held.memo.get((run_id, "label of two runs"), build))


def _take(key: str, target: str) -> None:
    st.session_state[target] = st.session_state[key]


def _swap(a: str, b: str) -> None:
    """B becomes the open run, and the selected token the one of B that stands against it."""
    st.session_state[RUN], st.session_state[COMPARED] = b, a
    aligned: Alignment | None = st.session_state.get(_ALIGNED)
    if aligned is not None:
        select(position=aligned.to_b.get(current().position, current().position))


def _follow(a: RunResult, b: RunResult, key: str) -> None:
    """Align the two as the link to a panel of them says."""
    how, pairs = (st.session_state.pop(str(PAIR[name].widget), None) for name in ("align", "pairs"))
    if pairs is not None:
        try:
            made = aligned_by(pairs, a.info.n_tokens).within(a.info.n_tokens, b.info.n_tokens)
        except ValueError as problem:
            st.warning(markdown(f"The pairs of the address are not used: {problem}."))
            return
        st.session_state[_MADE] = {**st.session_state.get(_MADE, {}), key: made}
        how = "made"
    if how in _HOW:
        st.session_state[f"compare-align-{key}"] = how


def _edited(a: RunResult, b: RunResult, key: str) -> Alignment:
    """The pairs of the table, prefilled by token; while they cannot be, those before."""
    kept, start = f"_alignment-{key}", f"_alignment-start-{key}"
    if start not in st.session_state:
        st.session_state[start] = by_token(token_texts(a), token_texts(b))
    former: Alignment = st.session_state.get(kept, st.session_state[start])
    table = pd.DataFrame(st.session_state[start].pairs, columns=["A", "B"], dtype="Int64")
    ends = {"A": a.info.n_tokens - 1, "B": b.info.n_tokens - 1}
    columns = {
        side: st.column_config.NumberColumn(f"position of {side}, 0 to {last}", step=1) for side, last in ends.items()
    }
    shown = st.data_editor(
        table, num_rows="dynamic", hide_index=True, column_config=columns, height=220, key=f"compare-pairs-{key}"
    )
    try:
        former = from_rows(shown.itertuples(index=False, name=None), a.info.n_tokens, b.info.n_tokens)
    except ValueError as problem:
        st.warning(markdown(f"These pairs are not used: {problem}. The former alignment is kept."))
    st.session_state[kept] = former
    return former
