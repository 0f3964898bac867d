"""The part of the store that keeps sessions: each method one snapshot or one transaction of cache/sessions.py."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from duckdb import DuckDBPyConnection

from cache import sessions, vocabulary
from cache.connection import Database, Transaction
from cache.session_rules import Item, Session, check_texts, storable
from cache.tensors import now

__all__ = ["SessionStore"]

T = TypeVar("T")


class SessionStore:
    """Sessions by their id, by the share id that reads them and by the edit key that changes them."""

    _database: Database

    def create_session(self, title: str) -> tuple[Session, str]:
        """A new session and its edit key, which is told once. Raises ValueError for a title that does not fit."""
        check_texts(title)
        return self.writing(lambda transaction: sessions.create(transaction.connection, title))

    def session(self, session_id: str) -> Session | None:
        """A session by its id; None if there is none or it was deleted."""
        with self.snapshot() as cursor:
            return sessions.find(cursor, session_id=session_id)

    def session_shared(self, share_id: str) -> Session | None:
        """A session by the id that may only read it."""
        with self.snapshot() as cursor:
            return sessions.find(cursor, share_id=share_id)

    def session_edited(self, edit_key: str) -> Session | None:
        """A session by the key that may change it."""
        with self.snapshot() as cursor:
            return sessions.find(cursor, edit_key=edit_key)

    def session_deleted(self, share_id: str) -> bool:
        """Whether the session of a share id was deleted, rather than never there."""
        with self.snapshot() as cursor:
            return sessions.was_deleted(cursor, share_id)

    def sessions(self, search: str = "") -> tuple[Session, ...]:
        """The sessions with a text in title, notes or captions, in either case; the last changed first."""
        with self.snapshot() as cursor:
            return sessions.listed(cursor, search)

    def session_items(self, session_id: str) -> tuple[Item, ...]:
        """The items of a session in order. Raises SessionAbsent."""
        with self.snapshot() as cursor:
            return sessions.items_of(cursor, session_id)

    def save_session(
        self,
        session_id: str,
        *,
        title: str | None = None,
        notes: str | None = None,
        items: Sequence[Item] | None = None,
    ) -> None:
        """Replace what is given, all or nothing. Raises SessionAbsent, and ValueError for what does not fit."""
        check_texts(title, notes)
        self.writing(lambda transaction: sessions.save(transaction.connection, session_id, title, notes, items))

    def add_item(self, session_id: str, item: Item) -> None:
        """Append an item. Raises SessionAbsent, and ValueError for one that does not fit or one too many."""
        self.writing(lambda transaction: sessions.append(transaction.connection, session_id, item))

    def duplicate_session(self, session_id: str) -> tuple[Session, str]:
        """A copy under new ids, and its edit key. Raises SessionAbsent."""
        return self.writing(lambda transaction: sessions.duplicate(transaction.connection, session_id))

    def delete_session(self, session_id: str) -> None:
        """Put a session out of sight; its items stay for ``restore_session``. Raises SessionAbsent."""
        self.writing(lambda transaction: sessions.mark(transaction.connection, session_id, now()))

    def restore_session(self, session_id: str) -> None:
        """Take a deletion back. Raises SessionAbsent if there never was such a session."""
        self.writing(lambda transaction: sessions.mark(transaction.connection, session_id, None))

    def vocabulary(self, tokenizer: str) -> dict[int, str]:
        """The texts of token ids that imported bundles brought, for a machine that does not have the tokenizer."""
        with self.snapshot() as cursor:
            return vocabulary.texts(cursor, tokenizer) if storable(tokenizer) else {}

    def snapshot(self) -> AbstractContextManager[DuckDBPyConnection]:
        """A cursor for several reads of one state, for the rest of this package."""
        return self._database.reading()

    def writing(self, job: Callable[[Transaction], T]) -> T:
        """Run a job in a transaction of its own on the writer thread, for the rest of this package."""
        return self._database.write(job)
