"""Fault: SQL of a stranger. Nothing but results is read, nothing is written, and whatever it takes, the store goes on."""

import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from cache import Store
from cache.query import QueryRefused
from cache.query_rules import _FUNCTIONS, _TABLE_FUNCTIONS, check_query
from tests.cache.rows import capture, filled, run, tables
from tests.faults.hostile_sql import CALLS, HOGS, REACHES, STATEMENTS

SECRET = "5ec4e7" * 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("query")
    filled(folder / "store.duckdb", 2)
    with Store.open(folder / "store.duckdb") as opened:
        opened._database.write(
            lambda transaction: transaction.connection.execute(
                "INSERT INTO sessions BY NAME SELECT ? AS session_id, 'title' AS title, '' AS notes, ? AS share_id, "
                "? AS edit_key_hash, now()::TIMESTAMP AS created, now()::TIMESTAMP AS updated",
                [SECRET, SECRET, SECRET],
            ).fetchall()
        )
        yield opened
        goes_on(opened)


def goes_on(store: Store) -> None:
    """It reads, queries and writes, and no transaction is open."""
    before = store.info()["runs"]
    store.write_run(run(f"r{before}"), tables(), {}, capture())
    assert store.query("SELECT count(*) AS n FROM runs", rows=10, seconds=10.0).frame["n"].tolist() == [int(before) + 1]
    assert store.table("r0", "tokens")["pos"].tolist() == [0, 1, 2]
    assert store.verify() == ()


@pytest.mark.parametrize("sql", [*STATEMENTS, *REACHES, *CALLS, *HOGS])
def test_it_is_refused_in_a_sentence_before_anything_is_read(sql: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        check_query(sql)
    told = str(refused.value)
    assert "\n" not in told
    assert len(told) < 600
    assert told.startswith(("Only one SELECT can be run: ", "The table ", "Parser Error: "))


def test_nothing_of_it_moves_the_store_or_tells_a_secret(store: Store) -> None:
    before = {name: value for name, value in store.info().items() if name != "file_bytes"}
    for sql in (*STATEMENTS, *REACHES, *CALLS, *HOGS):
        with pytest.raises(QueryRefused) as refused:
            store.query(sql, rows=10, seconds=1.0)
        assert SECRET not in str(refused.value)
    assert {name: value for name, value in store.info().items() if name != "file_bytes"} == before


def test_the_binder_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.query_rules._walk", lambda part, known: None)
    for sql in ("SELECT * FROM sessions", "SELECT * FROM query_table('sessions')", "FROM query('FROM Sessions')"):
        with pytest.raises(QueryRefused, match=r"[Tt]he table .[Ss]essions. is not one of runs, captures, tokens"):
            check_query(sql)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC 1", r'^Parser Error: syntax error at or near "SELEC"$'),
        ("SELECT nosuch FROM runs", r'^Binder Error: Referenced column "nosuch" not found in FROM clause!$'),
        ("SELECT 'x'::INTEGER", r"^Conversion Error: Could not convert string 'x' to INT32$"),
        ("SELECT (CASE WHEN i = 9000 THEN 'x' ELSE '1' END)::INT FROM range(10000) t(i)", "^Conversion Error: .*'x'"),
        ("SELECT sum(run_id) FROM runs", "^Binder Error: No function matches"),
        ("SELECT 9223372036854775807 + i FROM range(2) t(i)", "^Out of Range Error: Overflow"),
        ("SELECT " + "(" * 4000 + "1" + ")" * 4000, "^Parser Error: Max expression depth limit"),
        ("SELECT " + "1+" * 900 + "1", r"nested too deeply\.$"),
        ("SELECT '" + "x" * 10_000 + "'", "at most 10,000 characters"),
    ],
)
def test_a_mistake_is_told_in_its_first_line(store: Store, sql: str, says: str) -> None:
    with pytest.raises(QueryRefused, match=says) as refused:
        store.query(sql, rows=100_000, seconds=10.0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1e12::BIGINT) a, range(1e12::BIGINT) b",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT i, row_number() OVER (ORDER BY hash(i)) FROM range(1000000000) t(i)",
        "SELECT * FROM range(1000000000000) t(i) WHERE i < 0",
    ],
)
def test_an_endless_query_is_stopped(store: Store, sql: str) -> None:
    with pytest.raises(QueryRefused, match=r"The query was stopped after 0\.5 s"):
        store.query(sql, rows=10, seconds=0.5)
    assert not [name for name in threading.enumerate() if name.name == "query-watch"]
    goes_on(store)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT list(i) FROM range(1000000000) t(i)",
        "SELECT string_agg(i::VARCHAR, ',') FROM range(1000000000) t(i)",
    ],
)
def test_a_memory_hog_is_told_and_writing_goes_on(store: Store, sql: str) -> None:
    with pytest.raises(QueryRefused, match="needs more memory than the store may use"):
        store.query(sql, rows=10, seconds=60.0)
    goes_on(store)


def test_what_a_sort_spills_is_gone_afterwards(store: Store) -> None:
    with pytest.raises(QueryRefused, match="stopped after 2 s"):
        store.query("SELECT i, row_number() OVER (ORDER BY hash(i)) FROM range(100000000) t(i)", rows=10, seconds=2.0)
    assert sum(file.stat().st_size for file in Path(str(store.info()["store"])).parent.glob("*.tmp/*")) == 0


def test_every_listed_function_is_one_of_this_duckdb() -> None:
    known = duckdb.connect().execute("SELECT DISTINCT function_name FROM duckdb_functions()").fetchall()
    syntax = {"unnest", "^", "!", "~~~"}
    assert not (_FUNCTIONS | _TABLE_FUNCTIONS) - {name for (name,) in known} - syntax
