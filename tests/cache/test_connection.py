import gc
import threading
import weakref
from pathlib import Path

import duckdb
import pytest

from cache import StoreClosed, StoreError, StoreUnavailable
from cache.connection import Database, Transaction, connect
from cache.files import wal_of


def make(path: Path | None) -> Database:
    database = Database(path)
    database.write(lambda transaction: transaction.connection.execute("CREATE TABLE t (i INTEGER)").fetchall())
    return database


def add(database: Database, value: int) -> None:
    database.write(lambda transaction: transaction.connection.execute("INSERT INTO t VALUES (?)", [value]).fetchall())


def values(database: Database) -> list[int]:
    with database.reading() as cursor:
        return [row[0] for row in cursor.execute("SELECT i FROM t ORDER BY i").fetchall()]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'other.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 4",
        "RESET lock_configuration",
    ],
)
def test_the_connection_is_locked_down(statement: str) -> None:
    with connect(None) as connection, pytest.raises(duckdb.Error):
        connection.execute(statement).fetchall()


def test_a_variable_of_the_program_is_not_a_table() -> None:
    secret = duckdb.connect().execute("SELECT 1 AS a").to_arrow_table  # noqa: F841
    with connect(None) as connection, pytest.raises(duckdb.CatalogException):
        connection.execute("SELECT * FROM secret").fetchall()


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_a_job_returns_and_raises_reaches_its_caller(tmp_path: Path, on_disk: bool) -> None:
    database = make(tmp_path / "x.duckdb" if on_disk else None)

    def fail(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO t VALUES (1)").fetchall()
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        database.write(fail)
    assert values(database) == []
    assert database.write(lambda _: 7) == 7
    add(database, 2)
    assert values(database) == [2]
    database.close()


def test_parts_that_were_committed_stay(tmp_path: Path) -> None:
    database = make(tmp_path / "x.duckdb")

    def job(transaction: Transaction) -> None:
        transaction.connection.execute("INSERT INTO t VALUES (1)").fetchall()
        transaction.commit_part()
        transaction.connection.execute("INSERT INTO t VALUES (2)").fetchall()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.write(job)
    assert values(database) == [1]
    database.close()


def test_readers_cannot_write(tmp_path: Path) -> None:
    database = make(tmp_path / "x.duckdb")
    with pytest.raises(StoreError), database.reading() as cursor:
        cursor.execute("INSERT INTO t VALUES (1)").fetchall()
    assert values(database) == []
    database.close()


def test_a_reader_sees_one_snapshot_and_blocks_nobody(tmp_path: Path) -> None:
    database = make(tmp_path / "x.duckdb")
    add(database, 1)
    with database.reading() as cursor:
        before = cursor.execute("SELECT count(*) FROM t").fetchall()
        add(database, 2)
        assert cursor.execute("SELECT count(*) FROM t").fetchall() == before
        assert values(database) == [1, 2]
    database.close()


def test_every_commit_is_in_the_file_itself_even_beside_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    database = make(path)
    with database.reading() as cursor:
        cursor.execute("SELECT * FROM t").fetchall()
        add(database, 1)
        assert not wal_of(path).exists() or wal_of(path).stat().st_size == 0
    database.close()


def test_cursors_are_used_again(tmp_path: Path) -> None:
    database = make(tmp_path / "x.duckdb")
    seen = set()
    for _ in range(5):
        with database.reading() as cursor:
            seen.add(id(cursor))
    assert len(seen) == 1
    database.close()


def test_closing_lets_submitted_writes_finish(tmp_path: Path) -> None:
    database = make(tmp_path / "x.duckdb")
    started, go = threading.Event(), threading.Event()

    def slow(transaction: Transaction) -> None:
        started.set()
        go.wait(10)
        transaction.connection.execute("INSERT INTO t VALUES (1)").fetchall()

    writers = [threading.Thread(target=database.write, args=(slow,))]
    writers += [threading.Thread(target=add, args=(database, value)) for value in (2, 3)]
    for writer in writers:
        writer.start()
    started.wait(10)
    closing = threading.Thread(target=database.close)
    closing.start()
    go.set()
    for thread in (*writers, closing):
        thread.join(20)
    with connect(tmp_path / "x.duckdb", read_only=True) as check:
        assert (1,) in check.execute("SELECT i FROM t").fetchall()


def test_a_closed_database_says_so_and_can_be_closed_again() -> None:
    database = make(None)
    database.close()
    database.close()
    with pytest.raises(StoreClosed):
        values(database)
    with pytest.raises(StoreClosed):
        add(database, 1)


def test_a_database_nobody_holds_is_let_go(tmp_path: Path) -> None:
    database = make(tmp_path / "x.duckdb")
    add(database, 1)
    writer = database._writer
    gone = weakref.ref(database)
    del database
    gc.collect()
    assert gone() is None
    writer.join(10)
    assert not writer.is_alive()


def test_a_write_to_a_file_that_went_away_is_not_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    database = make(path)
    path.rename(tmp_path / "y.duckdb")
    with pytest.raises(StoreUnavailable, match="moved or deleted"):
        add(database, 1)
    database.close()
    assert not path.exists()
