"""The items of a session, each drawn as it was kept."""

import logging
from collections.abc import Callable

import streamlit as st

from app.components.actions import Shown
from app.components.panel import frame
from app.components.reading import choice
from app.components.saying import say
from app.components.shell import page_of
from app.items import SQL, item_view, link_to, options, query_chart, query_table
from app.panels import registry
from app.panels.panel import Drawn
from app.services import Services
from app.text import markdown, visible
from app.view import View
from cache import StoreError
from cache.session_rules import MAX_CAPTION, Item, Session
from probes.errors import BadRequest

__all__ = ["items", "leave"]

log = logging.getLogger(__name__)

_AT_ONCE = 20


def items(held: Services, session: Session, *, editable: bool) -> None:
    """Draw every item; captions, order and removal where the session may be changed."""
    try:
        kept = held.store.session_items(session.session_id)
    except StoreError as problem:
        st.warning(markdown(str(problem)))
        return
    first = 0
    if len(kept) > _AT_ONCE:
        starts = range(0, len(kept), _AT_ONCE)
        named = {str(start): f"{start + 1}–{min(start + _AT_ONCE, len(kept))}" for start in starts}
        first = int(choice("Items", named, f"pages-{session.session_id}"))
    for place in range(first, min(first + _AT_ONCE, len(kept))):
        with st.container(border=True, key=f"item-{place}"):
            _item(held, session, kept, place, editable)


def _item(held: Services, session: Session, kept: tuple[Item, ...], place: int, editable: bool) -> None:
    item = kept[place]
    view = item_view(held, item)
    key = f"item-{session.session_id[:8]}-{place}"
    if item.view == SQL:
        _query(item, key)
    else:
        _panel(item, view, key)
    caption = f"caption-{session.session_id}-{place}-{abs(hash(item.caption))}"
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="bottom"):
        if editable:
            st.text_area("Caption", item.caption, key=caption, height=68, max_chars=MAX_CAPTION, label_visibility="collapsed",
                         placeholder="A caption", on_change=_caption, args=(held, session, kept, place, caption))  # fmt: skip
        elif item.caption:
            st.markdown(markdown(item.caption))
        if view is not None and item.view != SQL:
            st.button("Open there", on_click=_go, args=(item, view), key=f"open-{key}", type="tertiary",
                      help="Open its page at this selection")  # fmt: skip
        if editable:
            _order(held, session, kept, place, key)


def _panel(item: Item, view: View | None, key: str) -> None:
    if view is None:
        st.warning(f"The run {markdown(str(item.run_id)[:8])} of this item is not in this store.")
        return
    try:
        found = registry.panel(item.view)
        params = options(item)
        drawn = found.draw(view, params)
    except (BadRequest, StoreError) as problem:
        st.warning(markdown(str(problem)))
        return
    except Exception as problem:  # one item of many, perhaps out of a file of unknown origin: the others still stand
        log.exception("the item %r could not be drawn", item.view)
        st.warning(f"This could not be drawn from what is stored ({markdown(type(problem).__name__)}).")
        return
    st.caption(_said(view, item))
    frame(Shown(key, drawn, found.how_to_read, view, found, params, fixed=True))


def _said(view: View, item: Item) -> str:
    info, chosen = view.info, view.selection
    token = (
        f", token {chosen.position} {markdown(view.token(chosen.position))}"
        if chosen.position < len(view.tokens)
        else ""
    )
    run = f"{info.n_tokens:,} tokens · mask {info.mask} · run {info.run_id[:8]}"
    return f"{markdown(info.model)} · {markdown(info.weights)} · {run} · point {chosen.point}{token}"


def _query(item: Item, key: str) -> None:
    """A query, its rows as they were when it was kept, and its chart if it had one."""
    table = query_table(item)
    of = item.params.get("of")
    cut = f" of {of:,}" if isinstance(of, int) and of != len(table) else ""
    st.markdown(f"**Query** :small[:gray[{len(table):,} rows{cut}, as they were when it was kept]]")
    st.code(str(item.params.get("query", "")), language="sql", wrap_lines=True)
    shown = table.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)
    st.dataframe(shown, hide_index=True, key=f"table-{key}", height=min(36 * (len(table) + 1) + 4, 320))
    frame(Shown(key, Drawn(query_chart(item, table), csv=table), fixed=True))


def _order(held: Services, session: Session, kept: tuple[Item, ...], place: int, key: str) -> None:
    swaps = (("↑", place - 1, "Move up"), ("↓", place + 1, "Move down"))
    for sign, other, told in swaps:
        st.button(sign, key=f"{told}-{key}", help=told, type="tertiary", disabled=not 0 <= other < len(kept),
                  on_click=_save, args=(held, session, kept, lambda other=other: _swapped(kept, place, other)))  # fmt: skip
    st.button("Remove", key=f"remove-{key}", type="tertiary", on_click=_save,
              args=(held, session, kept, lambda: (*kept[:place], *kept[place + 1 :])))  # fmt: skip


def _swapped(kept: tuple[Item, ...], a: int, b: int) -> tuple[Item, ...]:
    moved = list(kept)
    moved[a], moved[b] = moved[b], moved[a]
    return tuple(moved)


def _caption(held: Services, session: Session, kept: tuple[Item, ...], place: int, key: str) -> None:
    old = kept[place]
    changed = Item(old.view, old.params, old.selection, st.session_state[key], old.run_id)
    _save(held, session, kept, lambda: (*kept[:place], changed, *kept[place + 1 :]))


def _save(held: Services, session: Session, kept: tuple[Item, ...], make: Callable[[], tuple[Item, ...]]) -> None:
    try:
        if held.store.session_items(session.session_id) != kept:
            say("Somebody else changed this session meanwhile: it is shown as it is now; nothing was overwritten.")
            return
        held.store.save_session(session.session_id, items=make())
    except (StoreError, ValueError) as problem:
        say(markdown(str(problem)))


def _go(item: Item, view: View) -> None:
    try:
        st.session_state["_go"] = link_to(item, view)
    except BadRequest as problem:
        say(markdown(str(problem)))


def leave() -> None:
    """Go where a button of an item asked to, before anything is drawn."""
    asked = st.session_state.pop("_go", None)
    if asked is not None:
        st.switch_page(page_of(asked[0]), query_params=asked[1])
