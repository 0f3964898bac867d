"""What is known of SAEs: an index of what their latents fire on, labels, and quality, by the content of their weights."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from duckdb import ColumnExpression, ConstantExpression, DuckDBPyConnection

from cache.keys import canonical_json, digest
from cache.results import ARROW, as_frame, owned, prepare, rows_of

__all__ = [
    "INDEX_TABLES",
    "MAX_LABEL",
    "SAE_TABLES",
    "drop_index",
    "find_index",
    "index_key",
    "indexes",
    "insert_index",
    "insert_label",
    "insert_quality",
    "labels",
    "prepare_index",
    "prepare_quality",
    "quality",
    "read_index",
    "sae_schemas",
]

INDEX_TABLES: Mapping[str, tuple[str, ...]] = {
    "sae_sequences": ("seq",),
    "sae_latents": ("latent",),
    "sae_hits": ("latent", "kind", "rank", "seq", "pos"),
    "sae_latent_tokens": ("latent", "rank"),
    "sae_neighbours": ("latent", "kind", "rank"),
}
"""The tables of an index, with the columns their rows are sorted by."""

SAE_TABLES: tuple[str, ...] = ("sae_indexes", *INDEX_TABLES, "sae_labels", "sae_quality")
MAX_LABEL = 200

_KEY = ("content", "fingerprint", "corpus", "params")
_INDEX, _QUALITY = "sae_indexes", "sae_quality"
_DROP = (
    "DELETE FROM sae_indexes WHERE index_id = ?",
    "DELETE FROM sae_sequences WHERE index_id = ?",
    "DELETE FROM sae_latents WHERE index_id = ?",
    "DELETE FROM sae_hits WHERE index_id = ?",
    "DELETE FROM sae_latent_tokens WHERE index_id = ?",
    "DELETE FROM sae_neighbours WHERE index_id = ?",
)


def sae_schemas(connection: DuckDBPyConnection) -> dict[str, Any]:
    """The Arrow schema of each table of SAEs."""
    found = connection.execute(
        "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() "
        "WHERE NOT internal AND starts_with(table_name, 'sae_') ORDER BY table_name, column_index"
    ).fetchall()
    return {
        table: pa.schema([pa.field(column, ARROW[kind], gap) for owner, column, kind, gap in found if owner == table])
        for table in SAE_TABLES
    }


def index_key(row: Mapping[str, Any]) -> str:
    """The id of an index: what was indexed, with which model, on which text, and how.

    Raises ValueError if one of ``content``, ``fingerprint``, ``corpus`` and ``params`` is missing.
    """
    missing = [column for column in _KEY if column not in row]
    if missing:
        raise ValueError(f"the row of {_INDEX} lacks {missing[0]!r}")
    return digest({**{column: row[column] for column in _KEY}, "params": _value(row["params"])})


def prepare_index(
    row: Mapping[str, Any], tables: Mapping[str, pd.DataFrame], schemas: Mapping[str, Any], when: datetime
) -> tuple[str, dict[str, Any]]:
    """An index's id, and its row and tables as Arrow. Raises ValueError for what does not fit the schema."""
    if set(tables) != set(INDEX_TABLES):
        raise ValueError(
            f"an index has the tables {', '.join(INDEX_TABLES)}, not {', '.join(sorted(tables)) or 'none'}"
        )
    key = index_key(row)
    own = {"created": when, **row, "params": canonical_json(_value(row["params"]))}
    own.pop("index_id", None)
    frames = {_INDEX: pd.DataFrame([own]), **tables}
    return key, {name: owned(prepare(name, frame, schemas[name]), schemas[name], key) for name, frame in frames.items()}


def insert_index(connection: DuckDBPyConnection, key: str, prepared: Mapping[str, Any]) -> None:
    """Write a prepared index in place of one of the same id."""
    drop_index(connection, key)
    for name, table in prepared.items():
        connection.from_arrow(table).insert_into(name)


def drop_index(connection: DuckDBPyConnection, key: str) -> bool:
    """Delete an index; whether there was one."""
    known = bool(connection.execute("SELECT 1 FROM sae_indexes WHERE index_id = ?", [key]).fetchall())
    if known:
        for statement in _DROP:
            connection.execute(statement, [key])
    return known


def indexes(connection: DuckDBPyConnection) -> pd.DataFrame:
    """Every index, the newest first; ``params`` as JSON text."""
    order = (ColumnExpression("created").desc(), ColumnExpression("index_id"))
    frame: pd.DataFrame = connection.table(_INDEX).sort(*order).to_arrow_table().to_pandas()
    return frame


def find_index(connection: DuckDBPyConnection, content: str, fingerprint: str | None) -> "pd.Series[Any] | None":
    """The newest index of an SAE's weights, of this model's if a fingerprint is given."""
    rows = rows_of(connection, _INDEX, "content", content)
    if fingerprint is not None:
        rows = rows.filter(ColumnExpression("fingerprint") == ConstantExpression(fingerprint))
    found: pd.DataFrame = rows.sort(ColumnExpression("created").desc()).limit(1).to_arrow_table().to_pandas()
    return None if found.empty else found.iloc[0]


def read_index(connection: DuckDBPyConnection, key: str, name: str, latent: int | None) -> pd.DataFrame:
    """A table of an index, of one latent if asked, sorted, without the column that says whose it is."""
    if name not in INDEX_TABLES:
        raise ValueError(f"there is no table {name[:64]!r}; there are {', '.join(INDEX_TABLES)}")
    rows = rows_of(connection, name, "index_id", key)
    if latent is not None:
        if name == "sae_sequences":
            raise ValueError("sae_sequences are of an index, not of a latent")
        rows = rows.filter(ColumnExpression("latent") == ConstantExpression(latent))
    return as_frame(rows.sort(*(ColumnExpression(column) for column in INDEX_TABLES[name])).to_arrow_table())


def labels(connection: DuckDBPyConnection, content: str) -> pd.DataFrame:
    """The label each latent has: ``latent, label, method, score, created``; one that was removed has none."""
    rows = connection.execute(
        "WITH newest AS (SELECT latent, label, method, score, created FROM sae_labels WHERE content = ? "
        "QUALIFY row_number() OVER (PARTITION BY latent ORDER BY created DESC, rowid DESC) = 1) "
        "SELECT * FROM newest WHERE label <> '' ORDER BY latent",
        [content],
    ).fetchall()
    frame = pd.DataFrame(rows, columns=["latent", "label", "method", "score", "created"])
    return frame.astype({"latent": "int64", "score": "float64", "created": "datetime64[us]"})


def insert_label(
    connection: DuckDBPyConnection,
    content: str,
    latent: int,
    label: str,
    method: str,
    score: float | None,
    when: datetime,
) -> None:
    """Note a label beside the earlier ones; an empty one takes the label away."""
    connection.execute(
        "INSERT INTO sae_labels VALUES (?, ?, ?, ?, ?, ?)", [content, latent, label, method, score, when]
    )


def prepare_quality(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, schema: Any, when: datetime) -> Any:
    """Rows of quality as Arrow, ``pos`` and ``created`` filled in where they are left out. Raises ValueError."""
    frame = rows.copy() if isinstance(rows, pd.DataFrame) else pd.DataFrame([dict(row) for row in rows])
    for column, value in (("pos", None), ("created", when)):
        if column not in frame.columns:
            frame[column] = value
    if "content" not in frame.columns:
        raise ValueError(f"the table {_QUALITY} lacks the column 'content'; it has {', '.join(schema.names)}")
    rest = prepare(_QUALITY, frame.drop(columns="content"), schema)
    return rest.add_column(0, "content", pa.array(frame["content"], pa.string()))


def insert_quality(connection: DuckDBPyConnection, prepared: Any) -> None:
    """Write prepared rows in place of those of the same SAE, model, corpus and metric."""
    kinds = ("content", "fingerprint", "corpus", "metric")
    for kind in {tuple(row[name] for name in kinds) for row in prepared.select(list(kinds)).to_pylist()}:
        connection.execute(
            "DELETE FROM sae_quality WHERE content = ? AND fingerprint = ? AND corpus = ? AND metric = ?", list(kind)
        )
    connection.from_arrow(prepared).insert_into(_QUALITY)


def quality(connection: DuckDBPyConnection, content: str) -> pd.DataFrame:
    """The measured quality of an SAE, by model, corpus, metric and position (NaN for the whole, which comes first)."""
    order = [ColumnExpression(name) for name in ("model", "fingerprint", "corpus", "metric")]
    rows = rows_of(connection, _QUALITY, "content", content).sort(*order, ColumnExpression("pos").nulls_first())
    return as_frame(rows.to_arrow_table())


def _value(params: Any) -> Any:
    return json.loads(params) if isinstance(params, str) else params
