"""The store: runs with their tables, and the tensors they were computed from, in one DuckDB file."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt
import pandas as pd
from torch import Tensor

from cache import metric_values, results, tensors
from cache.answers import ANSWER_TABLES, AnswerStore
from cache.connection import Database, Transaction
from cache.errors import StoreError, StoreFull, TensorAbsent
from cache.files import Claim
from cache.migrations import migrate
from cache.opening import open_database
from cache.prompt_store import PROMPT_TABLES, PromptStore
from cache.query import QueryResult, run_query, schema_of
from cache.sae_store import SAEStore
from cache.saes import SAE_TABLES
from cache.session_store import SessionStore

__all__ = ["FILE_BUDGET", "MEMORY_BUDGET", "Store"]

FILE_BUDGET = 8 << 30
MEMORY_BUDGET = 2 << 30
_MEMORY_ASIDE = 1 << 30

Key = tuple[str, str]


class Store(SessionStore, SAEStore, PromptStore, AnswerStore):
    """Runs, their tables and tensors, sessions, prompt sets, what is known of SAEs, and answers that are no table.

    Open one a process with :meth:`open`; share it between threads.

    Reads see one snapshot each and never wait for a write. Writes happen one after another on a thread of their own and
    return when they are durable. Tensors are dropped by least recent use beyond ``byte_budget``; runs and tables never.
    Every method raises a StoreError (cache/errors.py) when the file cannot serve.
    """

    def __init__(self, database: Database, claim: Claim | None, byte_budget: int) -> None:
        self._database = database
        self._claim = claim
        self._budget = byte_budget
        self._used: dict[str, datetime] = {}
        self._checked: set[int] = set()
        self._lock = threading.Lock()
        with database.reading() as cursor:
            self._schemas = results.schemas(cursor)

    @classmethod
    def open(cls, path: Path | str, *, byte_budget: int | None = None) -> "Store":
        """Open or make the store at ``path``, or a new one in memory for ``":memory:"``.

        ``byte_budget`` bounds the bytes of tensors: 8 GiB in a file, 2 GiB in memory unless given. Raises StoreLocked,
        StoreDamaged, StoreForeign, StoreNewer, StoreUnavailable or StoreFull; what is there is then as it was.
        """
        in_memory = str(path) == ":memory:"
        budget = (MEMORY_BUDGET if in_memory else FILE_BUDGET) if byte_budget is None else byte_budget
        if budget < 0:
            raise ValueError(f"byte_budget must be at least 0, not {budget}")
        if in_memory:
            database = Database(None, memory=budget + _MEMORY_ASIDE)
            database.write(lambda transaction: migrate(transaction.connection, None))
            return cls(database, None, budget)
        file = Path(path).expanduser().absolute()
        with ExitStack() as undo:
            claim = Claim(file)
            undo.callback(claim.release)
            database = open_database(file)
            undo.callback(database.close)
            store = cls(database, claim, budget)
            undo.pop_all()
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let pending writes finish and close the file. May be called again; other methods then raise StoreClosed."""
        with suppress(StoreError):  # all that can be lost here is when tensors were last used
            if used := self._take_used():
                self._database.write(lambda transaction: tensors.touch(transaction.connection, used))
        self._database.close()
        if self._claim is not None:
            self._claim.release()

    def put_tensors(self, values: Mapping[Key, Tensor | npt.NDArray[Any]]) -> None:
        """Store tensors by (owner id, name), in place of any of the same name; others are evicted for them if need be."""
        encoded = _encode(values)
        self._database.write(lambda transaction: self.insert_tensors(transaction, encoded))

    def has_tensors(self, owner_id: str, names: Iterable[str]) -> bool:
        """Whether all these are stored; nothing is read, so one of them may still turn out to be damaged."""
        with self._database.reading() as cursor:
            return set(names) <= tensors.find(cursor, owner_id).keys()

    def tensor(self, owner_id: str, name: str) -> Tensor:
        """A tensor in memory of its own; its checksum is compared the first time this process reads it.

        Raises TensorAbsent (a KeyError) with ``reason`` ``missing``, or ``damaged``: then it has been dropped.
        """
        value = self._read(owner_id, name)
        with self._lock:
            self._used[owner_id] = tensors.now()
        return value

    def write_run(
        self,
        run: Mapping[str, Any],
        tables: Mapping[str, pd.DataFrame],
        values: Mapping[Key, Tensor | npt.NDArray[Any]],
        capture: Mapping[str, Any] | None = None,
    ) -> bool:
        """Store a run, its tables, tensors and, if it is new, its capture: all or nothing, durable on return.

        ``run`` and ``capture`` are the columns of those tables; ``versions``, ``request``, ``notes``, ``edits`` and
        ``facts`` as values or as JSON text; ``created`` may be left out. Tables come without their first column. What is
        stored is never changed: a run or capture of a known id is skipped, as are weight spectra already there. Returns
        whether the run was new. Raises ValueError for what does not fit the schema, before anything is written.
        """
        when = tensors.now()
        for name in tables:
            results.check_name(name)
        rows = {name: results.prepare(name, frame, self._schemas[name]) for name, frame in tables.items()}
        run_row = results.prepare_record("runs", run, self._schemas["runs"], when)
        capture_row = capture and results.prepare_record("captures", capture, self._schemas["captures"], when)
        encoded = _encode(values)

        def job(transaction: Transaction) -> bool:
            self.insert_tensors(transaction, encoded)
            if capture_row:
                results.insert_capture(transaction.connection, capture_row, rows, self._schemas)
            return results.insert_run(transaction.connection, run_row, rows, self._schemas)

        return self._database.write(job)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """A run as its columns, with JSON parsed and its capture's columns under ``capture``; None if not stored."""
        with self._database.reading() as cursor:
            return results.find_run(cursor, run_id)

    def known_runs(self, run_ids: Collection[str]) -> frozenset[str]:
        """Those of the run ids that are stored."""
        with self._database.reading() as cursor:
            return results.known_runs(cursor, run_ids)

    def losses(self, run_ids: Collection[str]) -> pd.DataFrame:
        """Mean ``nll`` of those of the runs that scored tokens, and of how many: ``run_id, nll, n_used``."""
        with self._database.reading() as cursor:
            return results.losses(cursor, run_ids)

    def layer_values(self, run_ids: Collection[str], metric: str) -> pd.DataFrame:
        """One metric at each point of many runs: :func:`cache.metric_values.layer_values`."""
        with self._database.reading() as cursor:
            return metric_values.layer_values(cursor, run_ids, metric)

    def layer_metric_names(self, run_id: str) -> list[str]:
        """The metrics of a run that have layers, sorted."""
        with self._database.reading() as cursor:
            return metric_values.layer_metric_names(cursor, run_id)

    def facts_of(self, model: str, dtype: str) -> dict[str, Any] | None:
        """What the newest run of a model says of it (a capture's ``facts``); None if there is no run."""
        with self._database.reading() as cursor:
            return results.facts_of(cursor, model, dtype)

    def runs(self) -> pd.DataFrame:
        """All runs, the newest first; JSON columns as text."""
        with self._database.reading() as cursor:
            return results.all_runs(cursor)

    def runs_of(self, probes: Collection[str], limit: int, also: Collection[str] = ()) -> pd.DataFrame:
        """The newest runs that asked exactly these probes, and perhaps some of ``also``: ``run_id, model, n_tokens, mask``."""
        with self._database.reading() as cursor:
            return results.runs_of_probes(cursor, probes, limit, also)

    def table(self, run_id: str, name: str) -> pd.DataFrame:
        """A result table of a run, without the column that says whose it is; empty if no probe wrote it.

        ``tokens`` are those of the run's capture, ``weight_spectra`` those of its model. Integers are int64 (float64
        with NaN where some are NULL). Raises RunAbsent for an unknown run, ValueError for an unknown table.
        """
        with self._database.reading() as cursor:
            return results.read(cursor, name, run_id)

    def query(
        self, sql: str, *, rows: int, seconds: float, watch: Callable[[float], None] | None = None
    ) -> QueryResult:
        """Answer a person's SELECT over runs, captures and result tables: :func:`cache.query.run_query`."""
        return run_query(self._database, sql, rows=rows, seconds=seconds, watch=watch)

    def schema(self) -> pd.DataFrame:
        """What :meth:`query` may name: ``table, column, type``."""
        return schema_of(self._database)

    def has_weight_spectra(self, fingerprint: str, block: int | None, matrix: str) -> bool:
        """Whether the singular values of a weight matrix are stored, from whichever run."""
        with self._database.reading() as cursor:
            return results.knows_matrix(cursor, fingerprint, block, matrix)

    def info(self) -> dict[str, int | str]:
        """Counts, bytes and versions."""
        with self._database.reading() as cursor:
            counts = results.count(cursor)
        path = self._database.path
        return {
            "store": str(path or ":memory:"),
            "file_bytes": path.stat().st_size if path else 0,
            "byte_budget": self._budget,
            **counts,
        }

    def prune(self, max_bytes: int) -> int:
        """Drop tensors, least recently used owners first, until at most ``max_bytes`` remain; returns bytes dropped.

        The space is used again by what is written next; the file itself shrinks only when its end becomes free.
        """
        used = self._take_used()

        def job(transaction: Transaction) -> int:
            tensors.touch(transaction.connection, used)
            return tensors.evict(transaction.connection, max_bytes)

        try:
            return self._database.write(job)
        except StoreFull:  # on a full disk: what the failed attempt had taken is free again
            return self._database.write(job)

    def verify(self) -> tuple[Key, ...]:
        """Read everything. Returns the (owner id, name) of tensors that were damaged: they have been dropped.

        Raises StoreDamaged if a table cannot be read.
        """
        with self._database.reading() as cursor:
            results.read_all(cursor, (*SAE_TABLES, *PROMPT_TABLES, *ANSWER_TABLES))
            keys = tensors.keys(cursor)
        self._checked.clear()
        damaged = []
        for owner_id, name in keys:
            try:
                self._read(owner_id, name)
            except TensorAbsent as absent:
                if absent.reason == "damaged":
                    damaged.append((owner_id, name))
        return tuple(damaged)

    def _read(self, owner_id: str, name: str) -> Tensor:
        try:
            with self._database.reading() as cursor:
                stored = tensors.find(cursor, owner_id).get(name)
                if stored is None:
                    raise TensorAbsent(owner_id, name, "missing")
                value = tensors.load(cursor, stored, check=stored.tensor_id not in self._checked)
        except tensors.Mismatch as mismatch:
            number = mismatch.tensor_id
            self._database.write(lambda transaction: tensors.drop(transaction.connection, [number]))
            raise TensorAbsent(owner_id, name, "damaged", str(mismatch)) from mismatch
        self._checked.add(stored.tensor_id)
        return value

    def insert_tensors(self, transaction: Transaction, encoded: Sequence[tensors.Encoded]) -> None:
        """Write tensors first thing in a transaction: it is committed in parts if they are large."""
        if not encoded:
            return
        connection = transaction.connection
        when = tensors.now()
        owners = {tensor.owner_id for tensor in encoded}
        known = {owner: tensors.find(connection, owner) for owner in owners}
        fresh = [tensor for tensor in encoded if not tensor.is_stored(known[tensor.owner_id].get(tensor.name))]
        replaced = [known[tensor.owner_id].get(tensor.name) for tensor in fresh]
        tensors.sweep(connection)
        tensors.drop(connection, [stored.tensor_id for stored in replaced if stored is not None])
        tensors.touch(connection, {**self._take_used(), **dict.fromkeys(owners, when)})
        tensors.evict(connection, self._budget - sum(tensor.data.nbytes for tensor in fresh), keep=owners)
        if fresh:
            tensors.insert(transaction, fresh, when)

    def _take_used(self) -> dict[str, datetime]:
        with self._lock:
            used, self._used = self._used, {}
        return used


def _encode(values: Mapping[Key, Tensor | npt.NDArray[Any]]) -> list[tensors.Encoded]:
    return [tensors.encode(owner_id, name, value) for (owner_id, name), value in values.items()]
