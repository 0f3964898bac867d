"""Runs and their tables: checked against the schema, written through Arrow, read back as DataFrames."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from duckdb import ColumnExpression, ConstantExpression, DuckDBPyConnection, DuckDBPyRelation

from cache.errors import RunAbsent
from cache.keys import canonical_json

__all__ = [
    "ARROW",
    "TABLES",
    "all_runs",
    "as_frame",
    "check_name",
    "count",
    "facts_of",
    "find_run",
    "insert_capture",
    "insert_run",
    "known_runs",
    "knows_matrix",
    "losses",
    "owned",
    "prepare",
    "prepare_record",
    "read",
    "read_all",
    "rows_of",
    "schemas",
    "without_known_matrices",
]

TABLES: tuple[str, ...] = (
    "tokens",
    "layer_metrics",
    "token_metrics",
    "head_metrics",
    "position_head_metrics",
    "spectra",
    "mp_outliers",
    "weight_spectra",
    "lens_topk",
    "components",
    "massive",
    "massive_events",
    "massive_neurons",
    "latents",
    "events",
)
"""Every table a probe may write. The first column says whose rows they are: run_id, capture_id or fingerprint."""

ARROW = {
    "VARCHAR": pa.string(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us"),
    "INTEGER[]": pa.list_(pa.int32()),
    "FLOAT[]": pa.list_(pa.float32()),
}
_JSON = frozenset({"versions", "request", "notes", "tensors", "edits", "facts"})


def schemas(connection: DuckDBPyConnection) -> dict[str, Any]:
    """The Arrow schema of each result table, ``runs``, ``captures`` and ``vocabulary``, with which columns may be NULL."""
    fields: dict[str, list[Any]] = {name: [] for name in (*TABLES, "runs", "captures", "vocabulary")}
    columns = connection.execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() WHERE NOT internal "
        "ORDER BY table_name, column_index"
    ).fetchall()
    for table, column, kind, nullable in columns:
        if table in fields:
            fields[table].append(pa.field(column, ARROW[kind], nullable))
    return {table: pa.schema(found) for table, found in fields.items()}


def check_name(name: str) -> None:
    """Raises ValueError if there is no such result table."""
    if name not in TABLES:
        raise ValueError(f"there is no table {name[:64]!r}; there are {', '.join(TABLES)}")


def prepare(name: str, frame: pd.DataFrame, schema: Any) -> Any:
    """A result table as Arrow, in the schema's order, without its first column; NaN becomes NULL.

    Raises ValueError, naming table and column, for a missing or unknown column, a value that does not fit its type,
    and NULL where the schema has none.
    """
    wanted = schema.remove(0)
    for column in wanted.names:
        if column not in frame.columns:
            raise ValueError(f"the table {name} lacks the column {column!r}; it has {', '.join(wanted.names)}")
    for column in frame.columns:
        if column not in wanted.names:
            raise ValueError(f"the table {name} has no column {column!r}; it has {', '.join(wanted.names)}")
    arrays = []
    for field in wanted:
        try:
            array = pa.array(frame[field.name], field.type, from_pandas=True)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise ValueError(f"the column {field.name!r} of {name} must be {field.type}: {error}") from error
        if array.null_count and not field.nullable:
            raise ValueError(
                f"the column {field.name!r} of {name} has {array.null_count} missing values and may have none"
            )
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=wanted)


def prepare_record(name: str, record: Mapping[str, Any], schema: Any, when: datetime) -> Any:
    """The one row of ``runs`` or ``captures`` as Arrow. JSON columns take JSON text, or a value to be written as such.

    ``created`` is ``when`` if it is not given. Raises ValueError as :func:`prepare` does.
    """
    row = {"created": when, **record}
    for column in _JSON & row.keys():
        value = row[column]
        row[column] = canonical_json(json.loads(value) if isinstance(value, str) else value)
    key = schema.names[0]
    if key not in row:
        raise ValueError(f"the row of {name} lacks {key!r}")
    rest = prepare(name, pd.DataFrame([row]).drop(columns=key), schema)
    return owned(rest, schema, str(row[key]))


def insert_run(
    connection: DuckDBPyConnection, run: Any, tables: Mapping[str, Any], all_schemas: Mapping[str, Any]
) -> bool:
    """Write a prepared run and its prepared tables. False, and nothing written, if the run is there already."""
    row = run.to_pylist()[0]
    if connection.execute("SELECT 1 FROM runs WHERE run_id = ?", [row["run_id"]]).fetchall():
        return False
    if not _has_capture(connection, row["capture_id"]):
        raise ValueError(f"the run {row['run_id']!r} is of a capture that is not stored; write it with the run")
    for name, table in tables.items():
        key = all_schemas[name].names[0]
        if key == "capture_id":
            continue  # written with the capture
        if key == "fingerprint":
            table = without_known_matrices(connection, row["fingerprint"], table)
        connection.from_arrow(owned(table, all_schemas[name], row[key])).insert_into(name)
    connection.from_arrow(run).insert_into("runs")
    return True


def insert_capture(
    connection: DuckDBPyConnection, capture: Any, tables: Mapping[str, Any], all_schemas: Mapping[str, Any]
) -> None:
    """Write a prepared capture and its tokens, unless it is there already."""
    capture_id = capture["capture_id"][0].as_py()
    if _has_capture(connection, capture_id):
        return
    if "tokens" in tables:
        connection.from_arrow(owned(tables["tokens"], all_schemas["tokens"], capture_id)).insert_into("tokens")
    connection.from_arrow(capture).insert_into("captures")


def find_run(connection: DuckDBPyConnection, run_id: str) -> dict[str, Any] | None:
    """A run with its capture under ``capture``; JSON columns are parsed. None if it is not stored."""
    runs = rows_of(connection, "runs", "run_id", run_id).to_arrow_table().to_pylist()
    if not runs:
        return None
    captures = rows_of(connection, "captures", "capture_id", runs[0]["capture_id"]).to_arrow_table().to_pylist()
    return {**_parsed(runs[0]), "capture": _parsed(captures[0])}


def known_runs(connection: DuckDBPyConnection, run_ids: Collection[str]) -> frozenset[str]:
    """Those of the run ids that are stored."""
    found = connection.execute("SELECT run_id FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [list(run_ids)])
    return frozenset(row[0] for row in found.fetchall())


def losses(connection: DuckDBPyConnection, run_ids: Collection[str]) -> pd.DataFrame:
    """Mean ``nll`` of runs over the tokens that have one: ``run_id, nll, n_used``."""
    found = connection.execute(
        "SELECT run_id, avg(value), count(value) FROM token_metrics "
        "WHERE metric = 'nll' AND value IS NOT NULL AND run_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY run_id",
        [list(run_ids)],
    )
    return pd.DataFrame(found.fetchall(), columns=["run_id", "nll", "n_used"])


def facts_of(connection: DuckDBPyConnection, model: str, dtype: str) -> dict[str, Any] | None:
    """The facts of a model as its newest run has them."""
    found = connection.execute(
        "SELECT facts FROM captures JOIN runs USING (capture_id) WHERE model = ? AND runs.dtype = ? "
        "ORDER BY runs.created DESC LIMIT 1",
        [model, dtype],
    ).fetchall()
    return json.loads(found[0][0]) if found else None


def all_runs(connection: DuckDBPyConnection) -> pd.DataFrame:
    """All runs, the newest first; JSON columns as text."""
    return connection.table("runs").sort(ColumnExpression("created").desc()).to_arrow_table().to_pandas()


def runs_of_probes(
    connection: DuckDBPyConnection, probes: Collection[str], limit: int, also: Collection[str] = ()
) -> pd.DataFrame:
    """The newest runs that asked exactly these probes, and perhaps some of ``also``: ``run_id, model, n_tokens, mask``."""
    found = connection.execute(
        "SELECT run_id, model, n_tokens, mask FROM runs "
        "WHERE list_sort(list_filter(json_extract_string(request, '$.probes[*].name'), "
        "lambda name: NOT list_contains(?::VARCHAR[], name))) = list_sort(?::VARCHAR[]) ORDER BY created DESC LIMIT ?",
        [list(also), list(probes), limit],
    ).fetchall()
    return pd.DataFrame(found, columns=["run_id", "model", "n_tokens", "mask"])


def read(connection: DuckDBPyConnection, name: str, run_id: str) -> pd.DataFrame:
    """The rows of a table that belong to a run, as they were written, without the column that says so.

    Integers are int64, or float64 with NaN where some are NULL; NULL numbers are NaN. Raises RunAbsent and ValueError.
    """
    check_name(name)
    owners = connection.execute("SELECT capture_id, fingerprint FROM runs WHERE run_id = ?", [run_id]).fetchall()
    if not owners:
        raise RunAbsent(run_id)
    keys = dict(zip(("capture_id", "fingerprint"), owners[0], strict=True)) | {"run_id": run_id}
    key = connection.table(name).columns[0]
    return as_frame(rows_of(connection, name, key, keys[key]).to_arrow_table())


def knows_matrix(connection: DuckDBPyConnection, fingerprint: str, block: int | None, matrix: str) -> bool:
    """Whether the spectrum of a weight matrix is stored."""
    found = connection.execute(
        "SELECT 1 FROM weight_spectra WHERE fingerprint = ? AND block IS NOT DISTINCT FROM ? AND matrix = ? LIMIT 1",
        [fingerprint, block, matrix],
    ).fetchall()
    return bool(found)


def count(connection: DuckDBPyConnection) -> dict[str, int | str]:
    """What the store holds, and the versions in ``meta``."""
    [row] = connection.execute(
        "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM captures), "
        "count(*), coalesce(sum(nbytes), 0)::BIGINT FROM tensors"
    ).fetchall()
    versions = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    return dict(zip(("runs", "captures", "tensors", "tensor_bytes"), row, strict=True)) | versions


def read_all(connection: DuckDBPyConnection, others: Collection[str] = ()) -> None:
    """Read every value of every table but the tensors', and of the tables ``others``, to find out whether it can be."""
    for name in (*TABLES, "runs", "captures", "sessions", "session_items", "vocabulary", "aliases", *others):
        connection.table(name).aggregate("sum(hash(COLUMNS(*)))").fetchall()


def as_frame(table: Any) -> pd.DataFrame:
    """Without the first column, with the integers pandas makes itself."""
    rest = table.remove_column(0)
    wide = pa.schema(field.with_type(pa.int64()) if pa.types.is_int32(field.type) else field for field in rest.schema)
    frame: pd.DataFrame = rest.cast(wide).to_pandas()
    return frame


def rows_of(connection: DuckDBPyConnection, table: str, key: str, value: str) -> DuckDBPyRelation:
    """Names are bound as identifiers and the value as a constant: neither is ever SQL text."""
    return connection.table(table).filter(ColumnExpression(key) == ConstantExpression(value))


def _has_capture(connection: DuckDBPyConnection, capture_id: str) -> bool:
    return bool(connection.execute("SELECT 1 FROM captures WHERE capture_id = ?", [capture_id]).fetchall())


def owned(table: Any, schema: Any, owner: str) -> Any:
    """The table with its first column, the same value in every row."""
    owners = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), pa.array([owner], pa.string()))
    return table.add_column(0, schema.names[0], owners)


def without_known_matrices(connection: DuckDBPyConnection, fingerprint: str, table: Any) -> Any:
    """The rows of weight spectra whose matrix is not stored yet."""
    known = set(
        connection.execute(
            "SELECT DISTINCT block, matrix FROM weight_spectra WHERE fingerprint = ?", [fingerprint]
        ).fetchall()
    )
    pairs = zip(table["block"].to_pylist(), table["matrix"].to_pylist(), strict=True)
    return table.filter(pa.array([pair not in known for pair in pairs], pa.bool_()))


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    return {column: json.loads(value) if column in _JSON else value for column, value in row.items()}
