"""Sessions: a title, notes and an ordered list of views with captions, read by a share id and changed by an edit key."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
from duckdb import DuckDBPyConnection

from cache.errors import SessionAbsent
from cache.session_rules import MAX_ITEMS, MAX_TITLE, Item, Session, check_item, storable
from cache.tensors import now

__all__ = [
    "Item",
    "Session",
    "append",
    "create",
    "duplicate",
    "exists",
    "find",
    "insert",
    "items_of",
    "listed",
    "mark",
    "new_id",
    "save",
    "was_deleted",
]

_KEY_BYTES = 16
_COLUMNS = ("view", "params", "selection", "caption", "run_id")
_COPY = " (copy)"

_FIND = """
SELECT session_id, title, notes, share_id, created, updated,
    (SELECT count(*) FROM session_items WHERE session_items.session_id = sessions.session_id)
FROM sessions
WHERE deleted IS NULL
    AND ($session_id IS NULL OR session_id = $session_id)
    AND ($share_id IS NULL OR share_id = $share_id)
    AND (contains(lower(title), lower($search)) OR contains(lower(notes), lower($search)) OR session_id IN
        (SELECT session_id FROM session_items WHERE contains(lower(caption), lower($search))))
ORDER BY updated DESC, created DESC, session_id
"""


def new_id() -> str:
    """An id or key of 128 random bits."""
    return secrets.token_hex(_KEY_BYTES)


def create(connection: DuckDBPyConnection, title: str, notes: str = "") -> tuple[Session, str]:
    """A new session without items, and its edit key: only the key's hash is kept."""
    when = now()
    session = Session(new_id(), title, notes, new_id(), when, when, 0)
    return session, insert(connection, session, ())


def insert(connection: DuckDBPyConnection, session: Session, items: Sequence[Item]) -> str:
    """Write a session as it is, with its items; returns its new edit key."""
    key = new_id()
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
        [session.session_id, session.title, session.notes, session.share_id, _hash(key), session.created, session.updated],
    )  # fmt: skip
    _insert_items(connection, session.session_id, items)
    return key


def find(
    connection: DuckDBPyConnection, *, session_id: str | None = None, share_id: str | None = None, edit_key: str | None = None
) -> Session | None:  # fmt: skip
    """The session of an id, of a share id or of an edit key; None if there is none or it was deleted."""
    if edit_key is not None:
        session_id = _of_key(connection, edit_key)
        if session_id is None:
            return None
    found = _select(connection, session_id, share_id, "") if storable(f"{session_id}{share_id}") else ()
    return found[0] if found else None


def exists(connection: DuckDBPyConnection, session_id: str) -> bool:
    """Whether an id is taken, also by a session that was deleted."""
    return bool(connection.execute("SELECT 1 FROM sessions WHERE session_id = ?", [session_id]).fetchall())


def listed(connection: DuckDBPyConnection, search: str) -> tuple[Session, ...]:
    """All sessions whose title, notes or captions hold a text, in either case; the last changed first."""
    return _select(connection, None, None, search) if storable(search) else ()


def was_deleted(connection: DuckDBPyConnection, share_id: str) -> bool:
    """Whether there was a session of this share id, which can be restored."""
    if not storable(share_id):
        return False
    return bool(
        connection.execute("SELECT 1 FROM sessions WHERE share_id = ? AND deleted IS NOT NULL", [share_id]).fetchall()
    )


def items_of(connection: DuckDBPyConnection, session_id: str) -> tuple[Item, ...]:
    """The items of a session in order. Raises SessionAbsent."""
    if find(connection, session_id=session_id) is None:
        raise SessionAbsent(session_id)
    rows = connection.execute(
        "SELECT view, params, selection, caption, run_id FROM session_items WHERE session_id = ? ORDER BY ord",
        [session_id],
    ).fetchall()
    return tuple(Item(view, json.loads(params), json.loads(chosen), *rest) for view, params, chosen, *rest in rows)


def save(
    connection: DuckDBPyConnection, session_id: str, title: str | None, notes: str | None, items: Sequence[Item] | None
) -> None:
    """Replace what is given, and note when. Raises SessionAbsent, ValueError for items that do not fit."""
    if find(connection, session_id=session_id) is None:
        raise SessionAbsent(session_id)
    connection.execute(
        "UPDATE sessions SET title = coalesce(?, title), notes = coalesce(?, notes), updated = ? WHERE session_id = ?",
        [title, notes, now(), session_id],
    )
    if items is not None:
        connection.execute("DELETE FROM session_items WHERE session_id = ?", [session_id])
        _insert_items(connection, session_id, items)


def append(connection: DuckDBPyConnection, session_id: str, item: Item) -> None:
    """Add an item. All are written anew: rows of one transaction share a block of the file, one row alone takes one."""
    save(connection, session_id, None, None, (*items_of(connection, session_id), item))


def duplicate(connection: DuckDBPyConnection, session_id: str) -> tuple[Session, str]:
    """A second session with the same notes and items. Raises SessionAbsent."""
    items = items_of(connection, session_id)
    source = find(connection, session_id=session_id)
    if source is None:
        raise SessionAbsent(session_id)
    copy, key = create(connection, source.title[: MAX_TITLE - len(_COPY)] + _COPY, source.notes)
    _insert_items(connection, copy.session_id, items)
    return find(connection, session_id=copy.session_id) or copy, key


def mark(connection: DuckDBPyConnection, session_id: str, deleted: datetime | None) -> None:
    """Delete a session that can be restored, or restore it with None. Raises SessionAbsent if there is none to."""
    changed = [(0,)]
    if storable(session_id):
        changed = connection.execute(
            "UPDATE sessions SET deleted = $deleted WHERE session_id = $session_id AND ($deleted IS NULL OR deleted IS NULL)",
            {"deleted": deleted, "session_id": session_id},
        ).fetchall()
    if changed == [(0,)]:
        raise SessionAbsent(session_id)


def _select(
    connection: DuckDBPyConnection, session_id: str | None, share_id: str | None, search: str
) -> tuple[Session, ...]:
    wanted = {"session_id": session_id, "share_id": share_id, "search": search}
    return tuple(Session(*row) for row in connection.execute(_FIND, wanted).fetchall())


def _of_key(connection: DuckDBPyConnection, edit_key: str) -> str | None:
    """The session an edit key opens; every stored hash is compared, so that the time taken tells nothing."""
    wanted, found = _hash(edit_key), None
    for session_id, kept in connection.execute("SELECT session_id, edit_key_hash FROM sessions").fetchall():
        if hmac.compare_digest(kept, wanted):
            found = session_id
    return found


def _insert_items(connection: DuckDBPyConnection, session_id: str, items: Sequence[Item]) -> None:
    if len(items) > MAX_ITEMS:
        raise ValueError(f"A session has at most {MAX_ITEMS} items, not {len(items)}.")
    rows = [dict(zip(_COLUMNS, check_item(item, place), strict=True)) for place, item in enumerate(items)]
    if rows:
        columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in _COLUMNS}
        owner = pa.array([session_id] * len(rows))
        order = pa.array(range(len(rows)), pa.int32())
        connection.from_arrow(pa.table({"session_id": owner, "ord": order, **columns})).insert_into("session_items")


def _hash(edit_key: str) -> str:
    return hashlib.blake2b(edit_key.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
