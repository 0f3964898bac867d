"""A bundle into the store: only what is new is written, and what exists with other content gets an id of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from cache import sessions, tensors, vocabulary
from cache.aliases import record, rewritten, settle
from cache.bundle_format import OF_CAPTURES, OF_RUNS, Bundle, ImportedSession, content, renamed, rows_of
from cache.connection import Transaction
from cache.keys import digest
from cache.results import without_known_matrices
from cache.session_rules import Item, Session, check_item
from cache.store import Store

__all__ = ["import_bundle"]

Tables = Mapping[str, Any]


def import_bundle(store: Store, bundle: Bundle) -> ImportedSession:
    """Store a bundle that was read, all or nothing, and give its session a new share id and edit key.

    What is stored is never changed: a run, capture or session that is there with equal rows is left, one that is there
    with others is imported under a local id, which ``aliases`` and :class:`ImportedSession` tell, and found again under
    it. A session that is there as it is in the bundle is returned without an edit key. Raises a StoreError.
    """
    captures = {
        one: _part(bundle.tables, OF_CAPTURES, one) for one in bundle.tables["captures"]["capture_id"].to_pylist()
    }
    runs = {one: _part(bundle.tables, OF_RUNS, one) for one in bundle.tables["runs"]["run_id"].to_pylist()}
    encoded = [tensors.encode(owner, name, value) for (owner, name), value in bundle.tensors.items()]
    contents = {one: content(rows) for one, rows in (captures | runs).items()}

    def job(transaction: Transaction) -> ImportedSession:
        connection = transaction.connection
        names: dict[str, str] = {}
        known: set[str] = set()

        def find(kind: Literal["capture", "run"], one: str, told: str) -> None:
            holds = _holds(connection, kind, one, contents[one], names)
            local, is_there = settle(connection, kind, one, told, holds)
            names[one] = local
            if is_there:
                known.add(one)

        for one in captures:
            find("capture", one, contents[one])
        for one, rows in runs.items():
            [of] = rows["runs"]["capture_id"].to_pylist()
            find("run", one, digest([contents[one], contents[of]]))
        _insert_tensors(store, transaction, [replace(one, owner_id=names[one.owner_id]) for one in encoded])
        for one, tables in (captures | runs).items():
            for name, rows in tables.items():
                if rows.num_rows and one not in known:
                    connection.from_arrow(renamed(rows, names)).insert_into(name)
        _insert_spectra(connection, bundle.tables["weight_spectra"])
        vocabulary.insert_new(connection, bundle.tables["vocabulary"])
        session, edit_key = _insert_session(connection, bundle, names)
        record(connection, "capture", {one: names[one] for one in captures})
        record(connection, "run", {one: names[one] for one in runs})
        record(connection, "session", {bundle.session_id: session.session_id})
        return ImportedSession(
            session=session,
            edit_key=edit_key,
            runs_new=tuple(names[one] for one in runs if one not in known),
            runs_known=tuple(names[one] for one in runs if one in known),
            aliased={
                one: local for one, local in {**names, bundle.session_id: session.session_id}.items() if one != local
            },
        )

    return store.writing(job)


def _part(tables: Tables, kinds: Sequence[str], owner: str) -> dict[str, Any]:
    """The rows of one run or capture."""
    return {name: tables[name].filter(pc.equal(tables[name].column(0), owner)) for name in kinds}


def _holds(
    connection: DuckDBPyConnection, kind: str, original: str, wanted: str, names: Mapping[str, str]
) -> Callable[[str], bool | None]:
    """What the store has under an id, compared with the bundle's rows as if it had their ids.

    ``names`` are those of the captures: a run of a capture of other content is no equal run.
    """
    back = {local: one for one, local in names.items()}

    def holds(candidate: str) -> bool | None:
        kinds = OF_CAPTURES if kind == "capture" else OF_RUNS
        found = {name: rows_of(connection, name, [candidate]) for name in kinds}
        if not found[kinds[0]].num_rows:
            return None
        if kind == "run":
            [capture] = found["runs"]["capture_id"].to_pylist()
            if capture not in back:
                return False
        return content({name: renamed(rows, {**back, candidate: original}) for name, rows in found.items()}) == wanted

    return holds


def _insert_tensors(store: Store, transaction: Transaction, encoded: Sequence[tensors.Encoded]) -> None:
    """Those the store does not have under any content: what was evicted comes back, nothing is replaced."""
    known = {owner: tensors.find(transaction.connection, owner) for owner in {one.owner_id for one in encoded}}
    store.insert_tensors(transaction, [one for one in encoded if one.name not in known[one.owner_id]])


def _insert_spectra(connection: DuckDBPyConnection, table: Any) -> None:
    for fingerprint in table["fingerprint"].unique().to_pylist():
        rows = table.filter(pc.equal(table["fingerprint"], fingerprint))
        connection.from_arrow(without_known_matrices(connection, fingerprint, rows)).insert_into("weight_spectra")


def _insert_session(
    connection: DuckDBPyConnection, bundle: Bundle, names: Mapping[str, str]
) -> tuple[Session, str | None]:
    """The session in this store, and its edit key if it had to be written."""

    def items(session_id: str) -> tuple[Item, ...]:
        own = {**names, bundle.session_id: session_id}
        return tuple(rewritten(item, own) for item in bundle.items)

    def holds(candidate: str) -> bool | None:
        found = sessions.find(connection, session_id=candidate)
        if found is None:  # a deleted one keeps its id, and is not brought back behind its owner's back
            return False if sessions.exists(connection, candidate) else None
        told = (found.title, found.notes, found.created, found.updated)
        if told != (bundle.title, bundle.notes, bundle.created, bundle.updated):
            return False
        return _same_items(sessions.items_of(connection, candidate), items(candidate))

    written = [str(bundle.created), str(bundle.updated), *map(vars, bundle.items)]
    local, known = settle(
        connection, "session", bundle.session_id, digest([bundle.title, bundle.notes, written]), holds
    )
    found = sessions.find(connection, session_id=local) if known else None
    if found is not None:
        return found, None
    share_id = sessions.new_id()
    session = Session(local, bundle.title, bundle.notes, share_id, bundle.created, bundle.updated, len(bundle.items))
    return session, sessions.insert(connection, session, items(local))


def _same_items(one: tuple[Item, ...], other: tuple[Item, ...]) -> bool:
    return [check_item(item, 0) for item in one] == [check_item(item, 0) for item in other]
