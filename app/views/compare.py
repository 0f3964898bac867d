"""Two runs: A, B and B − A of every view, on one selection."""

from dataclasses import replace

import pandas as pd
import streamlit as st

from app.changes import Change, changes, set_apart
from app.comparable import PAGES, VIEWS, Comparable
from app.comparable import view as known_view
from app.comparison import Pair, make_pair
from app.components.actions import after
from app.components.backend import services
from app.components.compared import compared
from app.components.comparison import COMPARED, choose_alignment, choose_runs, strips
from app.components.explore import extra
from app.components.inspector import inspector
from app.components.reading import choice
from app.components.shell import page_of
from app.components.two_prompts import answer_panels
from app.components.workspace import open_run
from app.methods import section
from app.panels.compare import view_key
from app.panels.pairs import align_options
from app.selection import Selection
from app.state import accompany, arrive, current, select
from app.text import markdown
from app.view import View
from probes.request import ProbeCall
from probes.runner import RunResult

__all__ = ["page"]

_VIEW = "_compared-view"  # session key: the view that is shown
_PAGE = "compare-page"
_ROW = "_compared-row"  # session key: the row of the table whose view was opened last
_BY_ITSELF = 300  # tokens up to which every position can be read at a press
_LINKS = {"tokens": "overview"}


def page() -> None:
    """Draw the page."""
    link = arrive()
    asked = {} if link is None else dict(link.beside)
    opened = view_key(asked.get("panel", ""))
    if opened is not None:
        asked["view"] = opened
    held = services()
    wanted = asked.get("b", st.session_state.get(COMPARED))
    shown = known_view(asked["view"]) if "view" in asked else _shown()
    there = wanted is not None and held.open(wanted) is not None
    accompany(settled=False, b=wanted if there else None, view=None if shown is None else shown.key)
    a = open_run("Two runs", "What is different in B, and where?")
    if a is None:
        return
    if shown is None:
        shown = VIEWS[0]
        st.warning(markdown(f"The address names the view {asked['view'][:64]!r}, which there is none of."))
    if "view" in asked or _PAGE not in st.session_state:
        _open(shown)
    b = choose_runs(held, a, wanted)
    accompany(b=None if b is None else b.info.run_id, view=_shown().key)
    if b is not None:
        _body(a, b)


@st.fragment
def _body(a: RunResult, b: RunResult) -> None:
    held = services()
    alignment = choose_alignment(a, b)
    pair = make_pair(a, b, alignment, current(), held.memo.get, held.decode)
    st.caption(markdown(set_apart(pair)))
    strips(held, pair)
    left, right = st.columns([3.4, 1], gap="medium")
    with left:
        _changes(pair)
        _views(pair)
        answer_panels(View(held, a, current()), View(held, b, _place_in_b(pair)))
    with right, st.container(key="inspector-frame"):
        _inspect(pair)
    after()


def _changes(pair: Pair) -> None:
    rows: list[Change] = pair.a.remember("changes", lambda: changes(pair))
    st.markdown("**What changed** :small[:gray[Which numbers moved, and where? A row opens its view at its place.]]")
    table = pd.DataFrame(
        [(row.quantity, row.a, row.b, row.difference, row.where, row.reason) for row in rows],
        columns=["quantity", "A", "B", "B − A", "where", "why not"],
    )

    def go() -> None:
        chosen = st.session_state["compare-changes"].selection.rows
        st.session_state[_ROW] = chosen[0] if chosen else None
        if chosen:
            row = rows[chosen[0]]
            found = known_view(row.view)
            if found is not None:
                _open(found)
            if row.place:
                select(**dict(row.place))

    number = {name: st.column_config.NumberColumn(format="%.4g", width=76) for name in ("A", "B", "B − A")}
    st.dataframe(
        table, hide_index=True, key="compare-changes", on_select=go, selection_mode="single-row", height=300,
        column_config={
            **number, "quantity": st.column_config.TextColumn(width=270),
            "where": st.column_config.TextColumn(width=330),
        },
    )  # fmt: skip
    with st.expander("How to read it / when not to trust it"):
        st.markdown(section("compare", "What changed") + "\n\n" + section("compare", "Alignment"))


def _views(pair: Pair) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="compare-chooser"):
        page_name = choice("Page", PAGES, _PAGE)
        offered = [found for found in VIEWS if found.page == page_name]
        keys = [found.key for found in offered]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        chosen = st.selectbox(
            "View", keys, format_func=lambda key: _titled(key), key=f"compare-view-{page_name}",
            label_visibility="collapsed", width=420,
        )  # fmt: skip
        shared = st.toggle("same scales", value=True, key="compare-shared")
        _link(pair, page_name)
    shown = next(found for found in offered if found.key == chosen)
    st.session_state[_VIEW] = shown.key
    accompany(b=pair.b.own.info.run_id, view=shown.key)
    if page_name == "lens":
        pair = _read_more(pair)
        st.caption(f"Compared at the {len(pair.a.read):,} positions that both lenses read.")
    a = View(services(), pair.a.own, current())
    options = align_options(a, pair.b.own, pair.alignment)
    compared(a, shown, {"b": pair.b.own.info.run_id, **options}, shared=shared)


def _link(pair: Pair, page_name: str) -> None:
    target, chosen = _LINKS.get(page_name, page_name), pair.a.place
    parts = {"run": pair.a.own.info.run_id, "point": str(chosen.point), "pos": str(chosen.position)}
    st.page_link(page_of(target), label=f"Open A in {PAGES[target]}", query_params=parts)


def _read_more(pair: Pair) -> Pair:
    """The pair with every position of both lenses read, where that has been asked for; otherwise buttons to ask."""
    held, results = services(), []
    with st.container(horizontal=True, gap="small"):
        for side, place in ((pair.a, current()), (pair.b, _place_in_b(pair))):
            own, answer = View(held, side.own, place), None
            partial = own.table("token_metrics")
            read = 0 if partial.empty else partial.loc[partial["metric"] == "lens_kl", "pos"].nunique()
            if read < len(own.tokens) <= _BY_ITSELF:
                call = ProbeCall("lens", {"positions": "all"})
                answer = extra(own, call, label=f"Read every position of {side.name}")
            results.append(answer or side.own)
    if results == [pair.a.own, pair.b.own]:
        return pair
    return make_pair(results[0], results[1], pair.alignment, current(), held.memo.get, held.decode)


def _inspect(pair: Pair) -> None:
    which = choice("Inspect", {"a": "A", "b": "B"}, "compare-inspect")
    if which == "a":
        inspector(View(services(), pair.a.own, current()))
    elif pair.position_of_b(current().position) is None:
        st.caption(f"No token of B is aligned to position {current().position} of A.")
    else:
        inspector(View(services(), pair.b.own, _place_in_b(pair)))


def _place_in_b(pair: Pair) -> Selection:
    """The selection in B; what is in sight and a range of tokens are A's own."""
    position = pair.position_of_b(current().position) or 0
    return replace(current(), point=pair.b.point, position=position, first=None, span=None)


def _shown() -> Comparable:
    return known_view(st.session_state.get(_VIEW, "")) or VIEWS[0]


def _open(shown: Comparable) -> None:
    """Choose a view; before the widgets that choose it are drawn."""
    st.session_state[_VIEW] = shown.key
    st.session_state[_PAGE] = shown.page
    st.session_state[f"compare-view-{shown.page}"] = shown.key


def _titled(key: str) -> str:
    found = known_view(key)
    return key if found is None else found.title
