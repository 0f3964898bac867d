"""Sessions: what was kept, in order, with words about it; shared as a link or a file, printed as a report."""

from collections.abc import Callable

import streamlit as st

from app.components.actions import after
from app.components.backend import services
from app.components.keeping import edit_key, local, own, take
from app.components.saying import say
from app.components.session_items import items, leave
from app.components.session_share import bring, hand_on
from app.services import Services
from app.text import markdown, visible
from cache import StoreError
from cache.bundle_format import ImportedSession
from cache.session_rules import MAX_NOTES, MAX_TITLE, Session

__all__ = ["page"]

_OPEN = "_opened-session"  # session key: (session id, may it be changed) of the session on this page
_GONE = "_deleted-session"  # session key: (session id, title) of the one just deleted
_LISTED = 200


def page() -> None:
    """Draw the page."""
    leave()
    held = services()
    st.markdown("**Sessions** :gray[What did I find, and how do I hand it on?]")
    arrived = _arrive(held)
    if arrived is not None:
        st.session_state[_OPEN] = arrived
    left, right = st.columns([1, 3.4], gap="medium")
    with left:
        _list(held)
    with right:
        _opened(held)
    after()


def _arrive(held: Services) -> tuple[str, bool] | None:
    """The session an address asks for, and whether it may be changed; says so where there is none."""
    edit, share = st.query_params.get("edit"), st.query_params.get("session")
    if edit is None and share is None:
        return None
    found = held.store.session_edited(edit) if edit is not None else held.store.session_shared(share or "")
    if found is None:
        st.session_state.pop(_OPEN, None)
        gone = share is not None and held.store.session_deleted(share)
        reason = "was deleted by its owner" if gone else "is not known to this store"
        st.warning(f"The session of this link {reason}: ask who gave you the link, or for a bundle file to import.")
        return None
    if edit is not None:
        take(held, found.session_id, edit)
    return found.session_id, edit is not None


def _list(held: Services) -> None:
    search = st.text_input(
        "Search",
        key="sessions-search",
        placeholder="Search titles, notes, captions",
        label_visibility="collapsed",
        max_chars=200,
    )
    current = own(held)
    there = [one for one in held.store.sessions(search) if local() or edit_key(held, one.session_id) is not None]
    shown = [one for one in there if one.n_items or one.notes or (current and one.session_id == current.session_id)]
    with st.container(key="session-list", gap="xxsmall"):
        for one in shown[:_LISTED]:
            marked = " · kept in now" if current is not None and one.session_id == current.session_id else ""
            st.button(
                f"{markdown(one.title)}  \n:small[:gray[{_count(one)} · {one.updated:%d %b %H:%M} UTC{marked}]]",
                key=f"session-{one.session_id}", on_click=_open, args=(one.session_id,), type="tertiary", width="stretch",
            )  # fmt: skip
    if not shown:
        st.caption("No session holds that." if search else "Nothing is kept yet: *Keep* stands beside every plot.")
    if len(shown) > _LISTED:
        st.caption(f"The {_LISTED} last changed of {len(shown):,} are listed: search for the others.")
    _undo(held)
    bring(held, _came)


def _opened(held: Services) -> None:
    known: tuple[str, bool] | None = st.session_state.get(_OPEN)
    if known is None:
        current = own(held)
        known = None if current is None else (current.session_id, True)
    session = None if known is None else held.store.session(known[0])
    if known is None or session is None:
        st.caption("Choose a session, or import a bundle.")
        return
    if known[1]:
        _changeable(held, session)
    else:
        _readable(held, session)
    hand_on(held, session, editable=known[1])
    items(held, session, editable=known[1])


def _changeable(held: Services, session: Session) -> None:
    title, notes = f"title-{session.session_id}", f"notes-{session.session_id}"

    def save_title() -> None:
        chosen = st.session_state[title].strip() or "Untitled"
        _tell(lambda: held.store.save_session(session.session_id, title=chosen))

    def save_notes() -> None:
        _tell(lambda: held.store.save_session(session.session_id, notes=st.session_state[notes]))

    for key, stored in ((title, session.title), (notes, session.notes)):
        shown = f"_stored-{key}"
        if key not in st.session_state or st.session_state.get(shown) != stored:  # also when another browser changed it
            st.session_state[key] = st.session_state[shown] = stored
    st.text_input("Title", key=title, on_change=save_title, max_chars=MAX_TITLE)
    edit, seen = st.columns([1, 1], gap="small")
    edit.text_area(
        "Notes, in Markdown (saved by themselves)", key=notes, on_change=save_notes, height=120, max_chars=MAX_NOTES
    )
    with seen.container(key="session-notes", height=150, border=True):
        st.markdown(session_notes(session.notes) or ":gray[Nothing noted yet.]")
    current = own(held)
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        if current is None or current.session_id != session.session_id:
            st.button(
                "Keep further things here", on_click=take, args=(held, session.session_id, None), key="session-take"
            )
        st.button("Duplicate", on_click=_duplicate, args=(held, session.session_id), key="session-duplicate")
        st.button("Delete", on_click=_delete, args=(held, session), key="session-delete")


def _readable(held: Services, session: Session) -> None:
    st.markdown(f"#### {markdown(session.title)}")
    if session.notes:
        with st.container(key="session-notes"):
            st.markdown(session_notes(session.notes))
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        when = f"{session.updated:%d %b %Y %H:%M} UTC"
        st.caption(f"Shared for reading: {_count(session)}, last changed {when}. Nothing you do here changes it.")
        st.button("Duplicate to edit", on_click=_duplicate, args=(held, session.session_id), key="session-duplicate")


def session_notes(text: str) -> str:
    """Notes of a person as Markdown: HTML is shown, not run, and no picture is fetched from anywhere."""
    return text.replace("![", "!\\[")


def _count(session: Session) -> str:
    return "no items" if session.n_items == 0 else f"{session.n_items} item{'s' * (session.n_items > 1)}"


def _open(session_id: str) -> None:
    """Open one of the list, which holds those that may be changed from here."""
    st.session_state[_OPEN] = (session_id, True)
    st.query_params.clear()


def _came(made: ImportedSession) -> None:
    """Open a session that was imported; the deleted one it brings back need not be told any more."""
    gone: tuple[str, str] | None = st.session_state.get(_GONE)
    if gone is not None and gone[0] in (made.session.session_id, *made.aliased):
        st.session_state.pop(_GONE)
    _open(made.session.session_id)


def _duplicate(held: Services, session_id: str) -> None:
    def make() -> None:
        copy, key = held.store.duplicate_session(session_id)
        take(held, copy.session_id, key)
        _open(copy.session_id)

    _tell(make)


def _delete(held: Services, session: Session) -> None:
    def make() -> None:
        held.store.delete_session(session.session_id)
        st.session_state[_GONE] = (session.session_id, session.title)
        st.session_state.pop(_OPEN, None)
        st.query_params.clear()

    _tell(make)


def _undo(held: Services) -> None:
    gone: tuple[str, str] | None = st.session_state.get(_GONE)
    if gone is None:
        return
    if held.store.session(gone[0]) is not None:  # restored elsewhere
        st.session_state.pop(_GONE, None)
        return

    def restore() -> None:
        def make() -> None:
            held.store.restore_session(gone[0])
            st.session_state.pop(_GONE, None)
            _open(gone[0])

        _tell(make)

    with st.container(horizontal=True, gap="small", vertical_alignment="center", key="session-undo"):
        st.caption(f"“{markdown(visible(gone[1]))}” was deleted.")
        st.button("Undo", on_click=restore, type="tertiary", key="session-restore")


def _tell(make: Callable[[], None]) -> None:
    """Do it; what the store refuses is told in a word."""
    try:
        make()
    except (StoreError, ValueError) as problem:
        say(markdown(str(problem)))
