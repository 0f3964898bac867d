"""One DuckDB database: a root connection, cursors for readers, and one writer thread fed by a queue."""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from duckdb import DuckDBPyConnection

from cache.errors import StoreClosed, StoreError, StoreUnavailable, from_duckdb
from cache.files import identity

__all__ = ["Database", "Transaction", "connect"]

T = TypeVar("T")
_FILE_MEMORY = 256 << 20
_BLOCK_BYTES = 32768
_PATIENCE = 30.0

_Task = tuple[Callable[[], Any], "Future[Any]"]


def connect(path: Path | None, *, read_only: bool = False, memory: int = _FILE_MEMORY) -> DuckDBPyConnection:
    """A locked-down connection to a file, or to a new in-memory database. Raises the store's errors.

    No vacuum and a checkpoint at every commit: each transaction's rows become row groups of their own that go as a
    whole when they are deleted, and are written once. DuckDB's defaults rewrite all tensors every 16 MB instead
    (docs/store.md). Small blocks keep a run with a dozen short tables small.
    """
    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": f"{memory}B",
        "default_block_size": str(_BLOCK_BYTES),
        "max_vacuum_tasks": 0,
        "checkpoint_threshold": "0B",
        "auto_checkpoint_skip_wal_threshold": 0,
        "enable_external_access": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "lock_configuration": True,
    }
    if path is None:
        config["temp_directory"] = ""
    try:
        return duckdb.connect(":memory:" if path is None else str(path), read_only=read_only, config=config)
    except duckdb.Error as error:
        raise from_duckdb(error, path) from error


class Transaction:
    """What a job of the writer works with: committed as a whole when the job returns, unless it commits parts."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self.connection = connection

    def commit_part(self) -> None:
        """Make what was written so far durable and go on: for work too large to hold in memory at once.

        What is committed early must not mean anything before the last part is in.
        """
        self.connection.commit()
        self.connection.begin()


class Database:
    """Reads run beside each other and beside the writer, each on one snapshot; writes run one after another.

    A write is acknowledged when it is durable. After an error that DuckDB calls fatal (a full disk) the file is opened
    anew, so that reading and smaller writes go on.
    """

    def __init__(self, path: Path | None, *, memory: int = _FILE_MEMORY) -> None:
        self.path = path
        self._memory = memory
        self._root = connect(path, memory=memory)
        if path is not None:
            self._fold_log()
        self._identity = None if path is None else identity(path)
        self._idle: list[DuckDBPyConnection] = []
        self._readers = 0
        self._turn = threading.Condition()
        self._paused = False
        self._closed = False
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        # The thread knows the queue, not the database: one that nobody closed can still be collected.
        self._writer = threading.Thread(target=_serve, args=(self._tasks,), name="store-writer", daemon=True)
        self._writer.start()
        weakref.finalize(self, self._tasks.put, None)

    @contextmanager
    def reading(self) -> Iterator[DuckDBPyConnection]:
        """A cursor of one's own in a read-only transaction. Raises the store's errors for DuckDB's."""
        cursor = self._lend()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            yield cursor
            cursor.commit()
        except BaseException as error:
            _discard(cursor)
            if isinstance(error, duckdb.FatalException):
                self._submit(lambda: self._in_transaction(lambda _: None))  # the writer finds out and opens it anew
            with self._telling():
                raise
        else:
            with self._turn:
                self._idle.append(cursor)
        finally:
            with self._turn:
                self._readers -= 1
                self._turn.notify_all()

    def write(self, job: Callable[[Transaction], T]) -> T:
        """Run a job on the writer thread in a transaction of its own and wait until it is durable.

        What the job raises is raised here and nothing of it stays, but for the parts it committed itself.
        """
        future: Future[T] = self._submit(lambda: self._in_transaction(job))
        return future.result()

    def close(self) -> None:
        """Let what was submitted finish and close the file; further use raises StoreClosed. May be called again."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._tasks.put(None)
        self._writer.join()
        self._pause()
        self._root.close()

    def _submit(self, work: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        with self._turn:
            if self._closed:
                raise StoreClosed(self.path or ":memory:")
            self._tasks.put((work, future))
        return future

    def _in_transaction(self, job: Callable[[Transaction], T]) -> T:
        try:
            self._root.begin()
            result = job(Transaction(self._root))
            self._root.commit()
        except BaseException:
            self._undo()
            with self._telling():
                raise
        if self.path is not None and identity(self.path) != self._identity:
            raise StoreUnavailable(self.path, "the file was moved or deleted while it was open, and this is not saved")
        return result

    def _fold_log(self) -> None:
        """Take in the log a crash may have left, so that nothing is appended to it."""
        try:
            with self._telling():
                self._root.execute("CHECKPOINT").fetchall()
        except StoreError:
            self._root.close()
            raise

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """The store's errors for DuckDB's."""
        try:
            yield
        except duckdb.Error as error:
            raise from_duckdb(error, self.path) from error

    def _undo(self) -> None:
        try:
            self._root.rollback()
        except duckdb.TransactionException:
            pass  # it was the commit that failed: the transaction is over
        except (duckdb.FatalException, duckdb.ConnectionException):
            if self.path is not None:
                with suppress(StoreError):  # what failed first is what is told; the next write tries again
                    self._reopen(self.path)

    def _reopen(self, path: Path) -> None:
        self._pause()
        self._root.close()
        try:
            if identity(path) == self._identity:  # DuckDB would make an empty file in place of one that has gone
                self._root = connect(path, memory=self._memory)
        finally:
            with self._turn:
                self._paused = False
                self._turn.notify_all()

    def _pause(self) -> None:
        """Keep new readers out, wait for the others, close their cursors."""
        with self._turn:
            self._paused = True
            self._turn.wait_for(lambda: self._readers == 0, timeout=_PATIENCE)
            for cursor in self._idle:
                cursor.close()
            self._idle.clear()

    def _lend(self) -> DuckDBPyConnection:
        with self._turn:
            self._turn.wait_for(lambda: self._closed or not self._paused)
            if self._closed:
                raise StoreClosed(self.path or ":memory:")
            with self._telling():
                cursor = self._idle.pop() if self._idle else self._root.cursor()
            self._readers += 1
            return cursor


def _serve(tasks: "queue.SimpleQueue[_Task | None]") -> None:
    while (task := tasks.get()) is not None:
        work, future = task
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        del task, work, future  # hold nothing while waiting


def _discard(cursor: DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # it may have ended already, or the database has gone
        cursor.rollback()
    cursor.close()
