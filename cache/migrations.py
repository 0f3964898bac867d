"""The schema, as ordered migrations, and the versions a store says it was written with."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from cache.errors import StoreDamaged, StoreForeign, StoreNewer

__all__ = ["MIGRATIONS", "check_versions", "migrate", "schema_version"]

_V1 = """
CREATE TABLE meta (key VARCHAR NOT NULL, value VARCHAR NOT NULL);

CREATE TABLE captures (
    capture_id VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL, tokenizer VARCHAR NOT NULL, dtype VARCHAR NOT NULL,
    n_tokens INTEGER NOT NULL, edits VARCHAR NOT NULL, facts VARCHAR NOT NULL, created TIMESTAMP NOT NULL
);
CREATE TABLE runs (
    run_id VARCHAR NOT NULL, capture_id VARCHAR NOT NULL, model VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    weights VARCHAR NOT NULL, device VARCHAR NOT NULL, dtype VARCHAR NOT NULL, mask VARCHAR NOT NULL,
    n_tokens INTEGER NOT NULL, forward_passes INTEGER NOT NULL, seconds DOUBLE NOT NULL, peak_bytes BIGINT NOT NULL,
    versions VARCHAR NOT NULL, request VARCHAR NOT NULL, notes VARCHAR NOT NULL,
    tensors VARCHAR NOT NULL, created TIMESTAMP NOT NULL
);
CREATE TABLE tokens (
    capture_id VARCHAR NOT NULL, pos INTEGER NOT NULL, token_id INTEGER NOT NULL, text VARCHAR NOT NULL
);

CREATE TABLE layer_metrics (
    run_id VARCHAR NOT NULL, layer INTEGER, metric VARCHAR NOT NULL,
    value DOUBLE, n_used INTEGER NOT NULL, status VARCHAR NOT NULL
);
CREATE TABLE token_metrics (
    run_id VARCHAR NOT NULL, layer INTEGER, pos INTEGER NOT NULL, metric VARCHAR NOT NULL,
    value DOUBLE, n_used INTEGER NOT NULL, status VARCHAR NOT NULL
);
CREATE TABLE head_metrics (
    run_id VARCHAR NOT NULL, layer INTEGER NOT NULL, head INTEGER NOT NULL, metric VARCHAR NOT NULL,
    value DOUBLE, n_used INTEGER NOT NULL, status VARCHAR NOT NULL
);
CREATE TABLE position_head_metrics (
    run_id VARCHAR NOT NULL, layer INTEGER NOT NULL, head INTEGER NOT NULL, pos INTEGER NOT NULL,
    metric VARCHAR NOT NULL, value DOUBLE
);
CREATE TABLE spectra (
    run_id VARCHAR NOT NULL, layer INTEGER NOT NULL, prep VARCHAR NOT NULL, k INTEGER NOT NULL, singular_value DOUBLE
);
CREATE TABLE mp_outliers (
    run_id VARCHAR NOT NULL, layer INTEGER NOT NULL, prep VARCHAR NOT NULL, k INTEGER NOT NULL,
    eigenvalue DOUBLE, edge DOUBLE
);
CREATE TABLE weight_spectra (
    fingerprint VARCHAR NOT NULL, block INTEGER, matrix VARCHAR NOT NULL, k INTEGER NOT NULL, singular_value DOUBLE
);
CREATE TABLE lens_topk (
    run_id VARCHAR NOT NULL, layer INTEGER NOT NULL, pos INTEGER NOT NULL, variant VARCHAR NOT NULL,
    rank INTEGER NOT NULL, token_id INTEGER NOT NULL, prob DOUBLE
);
CREATE TABLE components (
    run_id VARCHAR NOT NULL, pos INTEGER NOT NULL, target VARCHAR NOT NULL, layer INTEGER, component VARCHAR NOT NULL,
    head INTEGER, source_pos INTEGER, value DOUBLE
);
CREATE TABLE massive (
    run_id VARCHAR NOT NULL, layer INTEGER NOT NULL, pos INTEGER NOT NULL, dim INTEGER NOT NULL, value DOUBLE,
    median DOUBLE, ratio DOUBLE, strict BOOLEAN, relative BOOLEAN, robust BOOLEAN
);
CREATE TABLE massive_events (
    run_id VARCHAR NOT NULL, pos INTEGER NOT NULL, dim INTEGER NOT NULL, birth INTEGER NOT NULL, death INTEGER,
    attn_delta DOUBLE, mlp_delta DOUBLE
);
CREATE TABLE massive_neurons (
    run_id VARCHAR NOT NULL, pos INTEGER NOT NULL, dim INTEGER NOT NULL, layer INTEGER NOT NULL,
    neuron INTEGER NOT NULL, contribution DOUBLE
);
CREATE TABLE latents (
    run_id VARCHAR NOT NULL, sae VARCHAR NOT NULL, layer INTEGER NOT NULL, pos INTEGER NOT NULL,
    latent INTEGER NOT NULL, activation DOUBLE
);
CREATE TABLE events (
    run_id VARCHAR NOT NULL, layer INTEGER, kind VARCHAR NOT NULL, text VARCHAR NOT NULL, evidence VARCHAR NOT NULL
);

CREATE SEQUENCE tensor_ids;
CREATE TABLE tensors (
    tensor_id BIGINT NOT NULL, owner_id VARCHAR NOT NULL, name VARCHAR NOT NULL, dtype VARCHAR NOT NULL,
    shape BIGINT[] NOT NULL, nbytes BIGINT NOT NULL, digest VARCHAR NOT NULL, last_used TIMESTAMP NOT NULL
);
CREATE TABLE chunks (
    tensor_id BIGINT NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL USING COMPRESSION uncompressed
);
"""

_V2 = """
CREATE TABLE sessions (
    session_id VARCHAR NOT NULL, title VARCHAR NOT NULL, notes VARCHAR NOT NULL, share_id VARCHAR NOT NULL,
    edit_key_hash VARCHAR NOT NULL, created TIMESTAMP NOT NULL, updated TIMESTAMP NOT NULL, deleted TIMESTAMP
);
CREATE TABLE session_items (
    session_id VARCHAR NOT NULL, ord INTEGER NOT NULL, view VARCHAR NOT NULL, params VARCHAR NOT NULL,
    selection VARCHAR NOT NULL, caption VARCHAR NOT NULL, run_id VARCHAR
);
CREATE TABLE vocabulary (tokenizer VARCHAR NOT NULL, token_id INTEGER NOT NULL, text VARCHAR NOT NULL);
CREATE TABLE aliases (local_id VARCHAR NOT NULL, original_id VARCHAR NOT NULL, kind VARCHAR NOT NULL);
"""

_V3 = """
CREATE TABLE sae_indexes (
    index_id VARCHAR NOT NULL, sae VARCHAR NOT NULL, content VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    model VARCHAR NOT NULL, layer INTEGER NOT NULL, corpus VARCHAR NOT NULL, n_sequences INTEGER NOT NULL,
    context INTEGER NOT NULL, n_tokens BIGINT NOT NULL, n_left_out BIGINT NOT NULL, seed BIGINT NOT NULL,
    params VARCHAR NOT NULL, created TIMESTAMP NOT NULL
);
CREATE TABLE sae_sequences (
    index_id VARCHAR NOT NULL, seq INTEGER NOT NULL, source VARCHAR NOT NULL, name VARCHAR NOT NULL,
    token_ids INTEGER[] NOT NULL
);
CREATE TABLE sae_latents (
    index_id VARCHAR NOT NULL, latent INTEGER NOT NULL, n_fired BIGINT NOT NULL, density DOUBLE NOT NULL, max DOUBLE,
    mean DOUBLE, histogram INTEGER[] NOT NULL, encoder_cosine DOUBLE, x DOUBLE, y DOUBLE, label VARCHAR,
    precision DOUBLE, recall DOUBLE
);
CREATE TABLE sae_hits (
    index_id VARCHAR NOT NULL, latent INTEGER NOT NULL, kind VARCHAR NOT NULL, rank INTEGER NOT NULL,
    seq INTEGER NOT NULL, pos INTEGER NOT NULL, activation DOUBLE NOT NULL, first INTEGER NOT NULL,
    activations REAL[] NOT NULL
);
CREATE TABLE sae_latent_tokens (
    index_id VARCHAR NOT NULL, latent INTEGER NOT NULL, rank INTEGER NOT NULL, token_id INTEGER NOT NULL,
    mean_activation DOUBLE NOT NULL, n_fired BIGINT NOT NULL, n_seen BIGINT NOT NULL
);
CREATE TABLE sae_neighbours (
    index_id VARCHAR NOT NULL, latent INTEGER NOT NULL, kind VARCHAR NOT NULL, rank INTEGER NOT NULL,
    other INTEGER NOT NULL, value DOUBLE NOT NULL
);
CREATE TABLE sae_labels (
    content VARCHAR NOT NULL, latent INTEGER NOT NULL, label VARCHAR NOT NULL, method VARCHAR NOT NULL, score DOUBLE,
    created TIMESTAMP NOT NULL
);
CREATE TABLE sae_quality (
    content VARCHAR NOT NULL, sae VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL, model VARCHAR NOT NULL,
    corpus VARCHAR NOT NULL, metric VARCHAR NOT NULL, pos INTEGER, value DOUBLE, n_used BIGINT NOT NULL,
    status VARCHAR NOT NULL, created TIMESTAMP NOT NULL
);
"""

_V4 = """
CREATE TABLE sae_answers (
    kind VARCHAR NOT NULL, content VARCHAR NOT NULL, about VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    document VARCHAR NOT NULL, created TIMESTAMP NOT NULL
);
CREATE TABLE prompt_sets (
    set_id VARCHAR NOT NULL, name VARCHAR NOT NULL, source VARCHAR NOT NULL, created TIMESTAMP NOT NULL
);
CREATE TABLE prompts (
    set_id VARCHAR NOT NULL, ord INTEGER NOT NULL, prompt_id VARCHAR NOT NULL, grp VARCHAR, text VARCHAR,
    messages VARCHAR, answer VARCHAR, response VARCHAR
);
"""

_V5 = "ALTER TABLE sae_answers RENAME TO answers;"

MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4, _V5)
"""Script n brings schema n to n + 1. A published script is never changed: a new schema is a new script."""


def schema_version(connection: DuckDBPyConnection, path: Path | None) -> int:
    """The schema a database has; 0 for an empty one. Raises StoreForeign if it holds tables that are not a store's."""
    meta = _meta(connection)
    if meta is None:
        others = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()
        if others != [(0,)] and path is not None:
            raise StoreForeign(path)
        return 0
    if not meta.get("schema", "").isdecimal() or "duckdb" not in meta:
        raise StoreDamaged(path or ":memory:", "it does not say which schema it has")
    return int(meta["schema"])


def check_versions(connection: DuckDBPyConnection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> bool:
    """Whether a store has to be migrated. Raises StoreNewer if a later schema or a later DuckDB wrote it."""
    version = schema_version(connection, path)
    if version > len(migrations):
        raise StoreNewer(path, f"schema {version}", f"schema {len(migrations)}")
    written_by = (_meta(connection) or {}).get("duckdb", "0")
    if _order(written_by) > _order(duckdb.__version__):
        raise StoreNewer(path, f"DuckDB {written_by}", f"DuckDB {duckdb.__version__}")
    return version < len(migrations) or written_by != duckdb.__version__


def migrate(connection: DuckDBPyConnection, path: Path | None, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring a database to the latest schema. Runs in the caller's one transaction: interrupted, it is what it was."""
    for script in migrations[schema_version(connection, path) :]:
        connection.execute(script)
    connection.execute("DELETE FROM meta WHERE key IN ('schema', 'duckdb')")
    connection.execute(
        "INSERT INTO meta VALUES ('schema', ?), ('duckdb', ?)", [str(len(migrations)), duckdb.__version__]
    )


def _meta(connection: DuckDBPyConnection) -> dict[str, str] | None:
    """The rows of ``meta``; None if there is no such table."""
    known = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE NOT internal AND table_name = 'meta'"
    ).fetchall()
    return dict(connection.execute("SELECT key, value FROM meta").fetchall()) if known == [(1,)] else None


def _order(version: str) -> tuple[int, ...]:
    """A release number as numbers; anything behind the numbers (dev builds) does not count."""
    parts = []
    for part in version.removeprefix("v").split("."):
        if not part.isdecimal():
            break
        parts.append(int(part))
    return tuple(parts)
