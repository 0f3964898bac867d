"""Fault 7: newer and older schemas, newer DuckDB files, and a migration that is interrupted."""

import os
import signal
import struct
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from cache import Store, StoreError, StoreForeign, StoreNewer
from cache import opening as opening_module
from cache.connection import Database, Transaction
from cache.migrations import MIGRATIONS, check_versions, migrate
from tests.cache.rows import filled, tables

LATEST, LATER = str(len(MIGRATIONS)), str(len(MIGRATIONS) + 1)
NEXT = "CREATE TABLE added (a INTEGER); ALTER TABLE runs ADD COLUMN colour VARCHAR DEFAULT 'red'"
BROKEN = "CREATE TABLE half (a INTEGER); INSERT INTO half VALUES (1); SELECT error('stopped here')"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    filled(tmp_path / "store.duckdb")
    return tmp_path / "store.duckdb"


def edit(path: Path, sql: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql).fetchall()


@pytest.mark.parametrize(("key", "value"), [("schema", LATER), ("schema", "4000"), ("duckdb", "9.0.0")])
def test_a_newer_store_is_refused_and_left_alone(path: Path, key: str, value: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = ?", [value, key]).fetchall()
    before = path.read_bytes()
    with pytest.raises(StoreNewer) as caught:
        Store.open(path)
    assert value in str(caught.value)
    assert "update the program" in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_of_a_later_duckdb_is_refused_and_left_alone(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[12:20] = struct.pack("<Q", 5000)
    content[0:8] = struct.pack("<Q", checksum(content[8:4096]))
    path.write_bytes(content)
    with pytest.raises(StoreNewer, match="newer DuckDB"):
        Store.open(path)
    assert path.read_bytes() == bytes(content)


def checksum(block: Iterable[int]) -> int:
    """DuckDB's own, over words of eight bytes."""
    result = 5381
    for (word,) in struct.iter_unpack("<Q", bytes(block)):
        result ^= word * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    return result


def test_an_older_store_is_migrated_with_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = (*MIGRATIONS, NEXT)
    monkeypatch.setattr(opening_module, "migrate", lambda connection, file: migrate(connection, file, later))
    monkeypatch.setattr(
        opening_module, "check_versions", lambda connection, file: check_versions(connection, file, later)
    )
    with Store.open(path) as store:
        assert store.info()["schema"] == LATER
        stored = store.run("r1")
        assert stored is not None
        assert stored["colour"] == "red"
        assert len(store.table("r1", "spectra")) == len(tables()["spectra"])
    monkeypatch.undo()
    with pytest.raises(StoreNewer, match=f"schema {LATER}"):
        Store.open(path)


def test_a_store_of_schema_1_gains_sessions_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.duckdb"
    first = MIGRATIONS[:1]
    monkeypatch.setattr(opening_module, "migrate", lambda connection, file: migrate(connection, file, first))
    monkeypatch.setattr(
        opening_module, "check_versions", lambda connection, file: check_versions(connection, file, first)
    )
    filled(path)
    monkeypatch.undo()
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall() == [("1",)]
    with Store.open(path) as store:
        assert store.info()["schema"] == LATEST
        session, _ = store.create_session("after")
        for index in (0, 1):
            pd.testing.assert_frame_equal(store.table(f"r{index}", "spectra"), tables(index)["spectra"])
    with Store.open(path) as store:
        assert store.sessions() == (session,)
        assert store.verify() == ()


def test_a_migration_that_fails_leaves_the_store_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*MIGRATIONS, NEXT, BROKEN)
    monkeypatch.setattr(opening_module, "migrate", lambda connection, file: migrate(connection, file, broken))
    monkeypatch.setattr(
        opening_module, "check_versions", lambda connection, file: check_versions(connection, file, broken)
    )
    with pytest.raises(StoreError, match="stopped here"):
        Store.open(path)
    monkeypatch.undo()
    assert_is_as_it_was(path)


def assert_is_as_it_was(path: Path) -> None:
    with duckdb.connect(str(path), read_only=True) as connection:
        names = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        assert not {"added", "half"} & names
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchall() == [(LATEST,)]
    with Store.open(path) as store:
        assert sorted(store.runs()["run_id"]) == ["r0", "r1"]


def test_a_migration_that_is_killed_leaves_the_store_as_it_was(path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        database = Database(path)

        def job(transaction: Transaction) -> None:
            migrate(transaction.connection, path, (*MIGRATIONS, NEXT))
            os.kill(os.getpid(), signal.SIGKILL)

        database.write(job)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert_is_as_it_was(path)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sales.duckdb"
    edit(path, "CREATE TABLE sales AS SELECT 1 AS amount")
    before = path.read_bytes()
    with pytest.raises(StoreForeign, match=r"sales\.duckdb"):
        Store.open(path)
    assert path.read_bytes() == before
