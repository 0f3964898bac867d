"""A person's SELECT: what it gives, what it is cut at, and that the store goes on as before."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cache import Store
from cache.query import QueryRefused, QueryResult
from cache.query_rules import READABLE
from tests.cache.rows import capture, filled, run, tables


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path = tmp_path_factory.mktemp("query") / "store.duckdb"
    filled(path, 3)
    with Store.open(path) as opened:
        yield opened


def ask(store: Store, sql: str, rows: int = 10_000, seconds: float = 10.0) -> QueryResult:
    return store.query(sql, rows=rows, seconds=seconds)


def test_a_query_with_everything(store: Store) -> None:
    found = ask(
        store,
        """
        WITH alpha AS (SELECT run_id, layer, value FROM layer_metrics WHERE metric = 'alpha_sigma'),
             best AS (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY value DESC NULLS LAST) AS place FROM alpha a)
        SELECT r.model || ' ' || b.run_id AS name, b.layer, b.value, s.largest,
               (SELECT count(*) FROM tokens t WHERE t.capture_id = r.capture_id) AS tokens
        FROM best b JOIN runs r USING (run_id)
        JOIN (SELECT run_id, max(singular_value) AS largest FROM spectra GROUP BY ALL) s USING (run_id)
        WHERE place = 1 ORDER BY name -- and a remark;
        """,
    )
    expected = [tables(index)["layer_metrics"]["value"][0] for index in range(3)]
    assert found.frame["name"].tolist() == ["tiny r0", "tiny r1", "tiny r2"]
    np.testing.assert_array_equal(found.frame["value"], expected)
    assert found.frame["tokens"].tolist() == [3, 3, 3]
    assert not found.truncated
    assert 0 <= found.seconds < 10


@pytest.mark.parametrize(
    "sql",
    [
        "FROM runs",
        "TABLE captures;",
        'SELECT * FROM "RUNS" AS sessions',
        "SELECT sessions.run_id FROM runs sessions",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n",
        "WITH sessions AS (SELECT 1 AS x) SELECT * FROM sessions",
        "SELECT layer, avg(value) FILTER (WHERE status = 'ok') FROM layer_metrics GROUP BY ALL HAVING count(*) > 0 ORDER BY ALL",
        "PIVOT layer_metrics ON metric IN ('nll', 'alpha_sigma') USING first(value) GROUP BY run_id",
        "SELECT request->>'$.b', json_extract(request, '$.a[0]')::DOUBLE FROM runs",
        "SELECT string_agg(text, '' ORDER BY pos) FROM tokens GROUP BY capture_id",
        "SELECT r.run_id, i FROM runs r, LATERAL (SELECT unnest([1, 2]) AS i) WHERE r.run_id IN (FROM runs SELECT run_id)",
        "SELECT created::DATE, created - INTERVAL 1 DAY, date_trunc('month', created) FROM runs",
        "SELECT * EXCLUDE (request) FROM runs ORDER BY random() LIMIT 2",
        "SELECT value, lag(value) OVER w, CASE WHEN value IS NULL THEN 'gap' ELSE 'ok' END "
        "FROM layer_metrics WINDOW w AS (PARTITION BY run_id ORDER BY layer)",
    ],
)
def test_what_people_write_works(store: Store, sql: str) -> None:
    assert len(ask(store, sql).frame) > 0


def test_rows_beyond_the_limit_are_cut_and_said(store: Store) -> None:
    whole = ask(store, "SELECT range AS i FROM range(100) ORDER BY i DESC", rows=100)
    assert (len(whole.frame), whole.truncated) == (100, False)
    cut = ask(store, "SELECT range AS i FROM range(1000000000)", rows=100)
    assert (cut.frame["i"].tolist(), cut.truncated) == (list(range(100)), True)


def test_a_result_of_long_cells_is_cut_by_its_size(store: Store) -> None:
    long = "x" * 8000
    cut = store.query(f"SELECT i, '{long}' || i AS text FROM range(20000) t(i)", rows=20_000, seconds=10.0)
    assert cut.truncated
    assert 7000 < len(cut.frame) < 9000


def test_columns_are_what_pandas_and_people_expect(store: Store) -> None:
    frame = ask(
        store,
        "SELECT sum(n_used) AS total, nullif(layer, 0) AS gap, avg(n_used) AS mean, 1.5 AS part, run_id, run_id, "
        "INTERVAL 1 DAY AS lapse, NULL AS nothing, bool_or(layer > 0) AS flag, list(layer) AS many, 1e30::HUGEINT AS huge "
        "FROM layer_metrics GROUP BY run_id, layer ORDER BY run_id, layer LIMIT 1",
    ).frame
    assert frame["total"].tolist() == [3]
    assert str(frame["total"].dtype) == "int64"
    assert str(frame["gap"].dtype) == "Int32"
    assert frame["gap"].isna().all()
    assert (frame["part"][0], frame["huge"][0]) == (1.5, 1e30)
    assert {"run_id", "run_id_1"} <= set(frame.columns)
    assert isinstance(frame["lapse"][0], str)


def test_no_rows_have_their_columns(store: Store) -> None:
    frame = ask(store, "SELECT run_id, n_tokens FROM runs WHERE false").frame
    assert frame.columns.tolist() == ["run_id", "n_tokens"]
    assert frame.empty


@pytest.mark.parametrize(("rows", "seconds"), [(0, 1.0), (100_001, 1.0), (10, 0.05), (10, 61.0), (10, float("nan"))])
def test_limits_have_a_range(store: Store, rows: int, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"limit must be .* to .*, not"):
        store.query("SELECT 1", rows=rows, seconds=seconds)


def test_the_schema_names_every_readable_table_and_no_other(store: Store) -> None:
    found = store.schema()
    assert tuple(found["table"].unique()) == READABLE
    rows = found[found["table"] == "layer_metrics"]
    assert dict(zip(rows["column"], rows["type"], strict=True))["value"] == "DOUBLE"


def test_one_snapshot_while_another_writes(tmp_path: Path) -> None:
    results: list[pd.DataFrame] = []
    slow = "SELECT (SELECT count(*) FROM runs) AS n, count(*) FROM range(40000000) a WHERE hash(range) % 7 = 0"
    filled(tmp_path / "store.duckdb", 1)
    with Store.open(tmp_path / "store.duckdb") as store:
        reader = threading.Thread(target=lambda: results.append(ask(store, slow, seconds=60.0).frame))
        reader.start()
        written = 0
        while reader.is_alive():
            written += store.write_run(run(f"w{written}"), tables(), {}, capture())
        reader.join()
        assert written > 0
        assert 1 <= results[0]["n"][0] <= store.info()["runs"]


def test_a_watcher_stops_a_query_with_its_own_word(store: Store) -> None:
    seen: list[float] = []

    def watch(spent: float) -> None:
        seen.append(spent)
        if spent > 0.3:
            raise InterruptedError("no longer wanted")

    with pytest.raises(InterruptedError, match="no longer wanted"):
        store.query("SELECT count(*) FROM range(1000000000000) a", rows=10, seconds=60.0, watch=watch)
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert store.query("SELECT 1 AS one", rows=10, seconds=10.0, watch=lambda _: None).frame["one"].tolist() == [1]


def test_an_empty_store_answers(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new.duckdb") as empty:
        assert ask(empty, "SELECT count(*) AS n FROM runs").frame["n"].tolist() == [0]
        with pytest.raises(QueryRefused, match="sessions"):
            ask(empty, "SELECT * FROM sessions")
