"""Opening a store file: make it whole, look before writing, migrate in one transaction."""

from pathlib import Path

import duckdb

from cache.connection import Database, connect
from cache.errors import StoreDamaged, from_duckdb
from cache.files import HEADER_BYTES, create_whole, look_at, make_folder
from cache.migrations import check_versions, migrate

__all__ = ["open_database"]


def open_database(file: Path) -> Database:
    """The database of a store file, made if there is none, migrated if it is old.

    An existing file is opened for reading first, and only written to once it has proved sound, ours and not newer.
    Raises StoreLocked, StoreDamaged, StoreForeign, StoreNewer, StoreUnavailable or StoreFull.
    """
    make_folder(file)
    if not look_at(file):
        create_whole(file, _build)
    probe = connect(file, read_only=True)
    try:
        [blocks] = probe.execute("SELECT block_size, total_blocks, free_blocks FROM pragma_database_size()").fetchall()
        _check_length(file, *blocks)
        outdated = check_versions(probe, file)
    except duckdb.Error as error:
        raise from_duckdb(error, file) from error
    finally:
        probe.close()
    database = Database(file)
    if outdated:
        try:
            database.write(lambda transaction: migrate(transaction.connection, file))
        except BaseException:
            database.close()
            raise
    return database


def _build(draft: Path) -> None:
    database = Database(draft)
    try:
        database.write(lambda transaction: migrate(transaction.connection, draft))
    finally:
        database.close()


def _check_length(file: Path, block_size: int, total: int, free: int) -> None:
    """A file cut at its end opens well as long as nobody reads what is gone. Free blocks need not be in the file: DuckDB
    counts those at its end that a killed process never wrote."""
    if file.stat().st_size < HEADER_BYTES + block_size * (total - free):
        raise StoreDamaged(file, "it is cut short")
