"""Read-only SQL over the result tables: one SELECT on one snapshot, within limits of rows, bytes and time."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
from duckdb import DuckDBPyConnection

from cache.connection import Database
from cache.query_rules import READABLE, QueryRefused, check_query, first_line

__all__ = ["ROWS", "SECONDS", "QueryRefused", "QueryResult", "run_query", "schema_of"]

ROWS = (1, 10_000, 100_000)
"""The lowest, usual and highest row limit."""
SECONDS = (0.1, 10.0, 60.0)
"""The lowest, usual and highest time limit."""

_BYTES = 64 << 20  # rows are bounded by their number, cells by nothing else
_BATCH = 2048
_TICK = 0.05
_MISTAKES = (
    "Binder", "Catalog", "Parser", "Syntax", "Conversion", "Invalid", "Out of Range", "Mismatch", "Not implemented",
    "Permission", "Constraint", "Sequence", "Expression depth",
)  # fmt: skip
_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    **{pa.type_for_alias(name.lower()): kind for name, kind in (
        ("Int8", pd.Int8Dtype()), ("Int16", pd.Int16Dtype()), ("Int32", pd.Int32Dtype()), ("Int64", pd.Int64Dtype()),
        ("UInt8", pd.UInt8Dtype()), ("UInt16", pd.UInt16Dtype()), ("UInt32", pd.UInt32Dtype()), ("UInt64", pd.UInt64Dtype()),
    )},
}  # fmt: skip


@dataclass(frozen=True)
class QueryResult:
    """What a query gave: its rows, whether there were more, and how long it took."""

    frame: pd.DataFrame
    truncated: bool
    seconds: float


def run_query(
    database: Database,
    sql: str,
    *,
    rows: int = ROWS[1],
    seconds: float = SECONDS[1],
    watch: Callable[[float], None] | None = None,
) -> QueryResult:
    """Answer one SELECT over runs, captures and the result tables: its first ``rows`` rows, and of these 64 MB.

    ``watch`` is told twenty times a second, on another thread, how many seconds have passed; what it raises stops the
    query and is raised here. Raises QueryRefused for a statement that may not be run or is wrong, and beyond the limits
    of time and memory; ValueError for limits out of range; the store's errors where the file cannot serve.
    """
    if not ROWS[0] <= rows <= ROWS[2]:
        raise ValueError(f"the row limit must be {ROWS[0]} to {ROWS[2]:,}, not {rows:,}")
    if not SECONDS[0] <= seconds <= SECONDS[2]:
        raise ValueError(f"the time limit must be {SECONDS[0]:g} to {SECONDS[2]:g} seconds, not {seconds:g}")
    statement = check_query(sql)
    start = time.monotonic()
    with database.reading() as cursor, _stopping(cursor, seconds, watch):
        table, cut = _collect(cursor.sql(statement).limit(rows + 1).to_arrow_reader(_BATCH))
        frame = _frame(table.slice(0, rows))
    return QueryResult(frame, cut or table.num_rows > rows, time.monotonic() - start)


def schema_of(database: Database) -> pd.DataFrame:
    """The columns a query may name: ``table, column, type``."""
    with database.reading() as cursor:
        found = cursor.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
            "ORDER BY table_name, column_index"
        ).fetchall()
    kept = [row for row in found if row[0] in READABLE]
    kept.sort(key=lambda row: READABLE.index(row[0]))
    return pd.DataFrame(kept, columns=["table", "column", "type"])


@contextmanager
def _stopping(cursor: DuckDBPyConnection, seconds: float, watch: Callable[[float], None] | None) -> Iterator[None]:
    """Interrupt what runs here when its time is over or ``watch`` raises, and say of every error what it means."""
    over = threading.Event()
    stopped: list[BaseException] = []
    failed: BaseException | None = None
    start = time.monotonic()

    def look() -> None:
        while not over.wait(_TICK):
            spent = time.monotonic() - start
            if not stopped and spent >= seconds:
                stopped.append(
                    QueryRefused(f"The query was stopped after {seconds:g} s: filter earlier, or allow more time.")
                )
            elif not stopped and watch is not None:
                try:
                    watch(spent)
                except BaseException as problem:
                    stopped.append(problem)
            if stopped:
                cursor.interrupt()  # again and again: one that comes between two steps is forgotten

    watcher = threading.Thread(target=look, name="query-watch", daemon=True)
    watcher.start()
    try:
        yield
    except (duckdb.Error, OSError, pa.ArrowException, MemoryError) as error:
        failed = error
    finally:
        over.set()
        watcher.join()  # from here on nothing interrupts whoever has the cursor next
    if stopped:
        raise stopped[0] from failed
    if failed is not None:
        raise _meant(failed) from failed


def _meant(error: BaseException) -> BaseException:
    """A refusal for a mistake of the person, DuckDB's error for a failure of the store. Arrow passes on only the text."""
    says = first_line(error)
    if isinstance(error, MemoryError) or "Out of Memory" in says:
        return QueryRefused(
            "The query needs more memory than the store may use: filter or aggregate before sorting or joining."
        )
    if says.startswith(_MISTAKES):
        return QueryRefused(says)
    return error if isinstance(error, duckdb.Error) else duckdb.OperationalError(str(error))


def _collect(reader: Any) -> tuple[Any, bool]:
    """The batches of a result as a table, and whether it was cut because of its size."""
    batches, room, cut = [], _BYTES, False
    for batch in reader:
        cut = batch.nbytes > room
        batches.append(batch.slice(0, int(len(batch) * room / batch.nbytes)) if cut else batch)
        if cut:
            break
        room -= batch.nbytes
    table = pa.Table.from_batches(batches, reader.schema)
    if cut and table.num_rows == 0:
        raise QueryRefused(f"A row of the result is larger than {_BYTES >> 20} MB: select fewer or shorter columns.")
    return table, cut


def _frame(table: Any) -> pd.DataFrame:
    """As pandas: integers stay integers where some are NULL, decimals and huge integers become numbers, intervals text."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_decimal(column.type):
            column = _plain(column)
        if pa.types.is_interval(column.type):
            values = [None if value is None else str(value) for value in column.to_pylist()]
            columns[name] = pd.Series(values, dtype=object)
        else:
            columns[name] = column.to_pandas(types_mapper=_NULLABLE.get if column.null_count else None)
    return pd.DataFrame(columns)


def _plain(column: Any) -> Any:
    if column.type.scale == 0:
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            pass  # it does not fit
    return column.cast(pa.float64())
