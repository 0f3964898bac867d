from pathlib import Path

import duckdb
import pytest

from cache import PROMPT_TABLES, SAE_TABLES, TABLES, StoreDamaged, StoreForeign, StoreNewer
from cache.migrations import MIGRATIONS, check_versions, migrate, schema_version

FILE = Path("store.duckdb")
DESIGN = {
    "tokens": "capture_id pos token_id text",
    "layer_metrics": "run_id layer metric value n_used status",
    "token_metrics": "run_id layer pos metric value n_used status",
    "head_metrics": "run_id layer head metric value n_used status",
    "position_head_metrics": "run_id layer head pos metric value",
    "spectra": "run_id layer prep k singular_value",
    "mp_outliers": "run_id layer prep k eigenvalue edge",
    "weight_spectra": "fingerprint block matrix k singular_value",
    "lens_topk": "run_id layer pos variant rank token_id prob",
    "components": "run_id pos target layer component head source_pos value",
    "massive": "run_id layer pos dim value median ratio strict relative robust",
    "massive_events": "run_id pos dim birth death attn_delta mlp_delta",
    "massive_neurons": "run_id pos dim layer neuron contribution",
    "latents": "run_id sae layer pos latent activation",
    "events": "run_id layer kind text evidence",
}
OTHERS = {
    "sessions": "session_id title notes share_id edit_key_hash created updated deleted",
    "session_items": "session_id ord view params selection caption run_id",
    "vocabulary": "tokenizer token_id text",
    "aliases": "local_id original_id kind",
}
SAES = {
    "sae_indexes": "index_id sae content fingerprint model layer corpus n_sequences context n_tokens n_left_out seed "
    "params created",
    "sae_sequences": "index_id seq source name token_ids",
    "sae_latents": "index_id latent n_fired density max mean histogram encoder_cosine x y label precision recall",
    "sae_hits": "index_id latent kind rank seq pos activation first activations",
    "sae_latent_tokens": "index_id latent rank token_id mean_activation n_fired n_seen",
    "sae_neighbours": "index_id latent kind rank other value",
    "sae_labels": "content latent label method score created",
    "sae_quality": "content sae fingerprint model corpus metric pos value n_used status created",
}

PROMPTS = {
    "prompt_sets": "set_id name source created",
    "prompts": "set_id ord prompt_id grp text messages answer response",
}


@pytest.fixture
def migrated() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    migrate(connection, None)
    return connection


def test_the_tables_are_those_of_the_design(migrated: duckdb.DuckDBPyConnection) -> None:
    found = {name: " ".join(migrated.table(name).columns) for name in TABLES}
    assert found == DESIGN
    assert {name: " ".join(migrated.table(name).columns) for name in OTHERS} == OTHERS
    assert {name: " ".join(migrated.table(name).columns) for name in SAE_TABLES} == SAES
    assert {name: " ".join(migrated.table(name).columns) for name in PROMPT_TABLES} == PROMPTS


def test_chunks_are_declared_uncompressed(migrated: duckdb.DuckDBPyConnection) -> None:
    [(sql,)] = migrated.execute("SELECT sql FROM duckdb_tables() WHERE table_name = 'chunks'").fetchall()
    assert "BLOB USING COMPRESSION Uncompressed" in sql


def test_a_new_store_knows_its_versions(migrated: duckdb.DuckDBPyConnection) -> None:
    assert schema_version(migrated, FILE) == len(MIGRATIONS)
    assert check_versions(migrated, FILE) is False


def test_an_empty_database_has_schema_0() -> None:
    assert schema_version(duckdb.connect(), FILE) == 0


def test_migrations_run_from_where_the_store_stands() -> None:
    connection = duckdb.connect()
    first = (
        "CREATE TABLE meta (key VARCHAR, value VARCHAR); CREATE TABLE notes (a INTEGER); INSERT INTO notes VALUES (7)"
    )
    second = "ALTER TABLE notes ADD COLUMN b INTEGER DEFAULT 8"
    migrate(connection, FILE, (first,))
    assert check_versions(connection, FILE, (first, second)) is True
    migrate(connection, FILE, (first, second))
    assert connection.execute("SELECT * FROM notes").fetchall() == [(7, 8)]
    assert schema_version(connection, FILE) == 2
    assert check_versions(connection, FILE, (first, second)) is False


def test_schema_1_gains_sessions_and_keeps_its_rows() -> None:
    connection = duckdb.connect()
    migrate(connection, FILE, MIGRATIONS[:1])
    connection.execute("INSERT INTO tokens VALUES ('c0', 0, 7, 'x')")
    assert check_versions(connection, FILE) is True
    with pytest.raises(duckdb.CatalogException):
        connection.table("sessions")
    migrate(connection, FILE)
    assert connection.execute("SELECT * FROM tokens").fetchall() == [("c0", 0, 7, "x")]
    assert {name: " ".join(connection.table(name).columns) for name in OTHERS} == OTHERS
    assert schema_version(connection, FILE) == len(MIGRATIONS)
    assert check_versions(connection, FILE) is False


def test_schema_2_gains_sae_tables_and_keeps_its_sessions() -> None:
    connection = duckdb.connect()
    migrate(connection, FILE, MIGRATIONS[:2])
    connection.execute("INSERT INTO aliases VALUES ('a', 'b', 'run')")
    with pytest.raises(duckdb.CatalogException):
        connection.table("sae_latents")
    migrate(connection, FILE)
    assert connection.execute("SELECT * FROM aliases").fetchall() == [("a", "b", "run")]
    assert {name: " ".join(connection.table(name).columns) for name in SAE_TABLES} == SAES


def test_schema_3_gains_prompt_sets_and_keeps_its_labels() -> None:
    connection = duckdb.connect()
    migrate(connection, FILE, MIGRATIONS[:3])
    connection.execute("INSERT INTO sae_labels VALUES ('c', 7, 'rivers', 'user', NULL, '2026-01-02 03:04:05')")
    with pytest.raises(duckdb.CatalogException):
        connection.table("prompts")
    migrate(connection, FILE)
    assert connection.execute("SELECT content, latent, label FROM sae_labels").fetchall() == [("c", 7, "rivers")]
    assert {name: " ".join(connection.table(name).columns) for name in PROMPT_TABLES} == PROMPTS


def test_schema_4_keeps_its_answers() -> None:
    connection = duckdb.connect()
    migrate(connection, FILE, MIGRATIONS[:4])
    connection.execute("INSERT INTO sae_answers VALUES ('compare', 'c', '', 'f', '{}', '2026-01-02 03:04:05')")
    migrate(connection, FILE)
    assert connection.execute("SELECT kind, document FROM answers").fetchall() == [("compare", "{}")]
    columns = "kind content about fingerprint document created"
    assert " ".join(connection.table("answers").columns) == columns
    with pytest.raises(duckdb.CatalogException):
        connection.table("sae_answers")


def test_a_later_schema_is_refused(migrated: duckdb.DuckDBPyConnection) -> None:
    migrated.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(StoreNewer, match="schema 99"):
        check_versions(migrated, FILE)


@pytest.mark.parametrize("version", ["2.0.1", "2.1.0", "v10.0.0"])
def test_a_later_duckdb_is_refused(migrated: duckdb.DuckDBPyConnection, version: str) -> None:
    migrated.execute("UPDATE meta SET value = ? WHERE key = 'duckdb'", [version])
    with pytest.raises(StoreNewer, match=version):
        check_versions(migrated, FILE)


def test_an_earlier_duckdb_is_noted_anew(migrated: duckdb.DuckDBPyConnection) -> None:
    migrated.execute("UPDATE meta SET value = '1.9.3' WHERE key = 'duckdb'")
    assert check_versions(migrated, FILE) is True
    migrate(migrated, FILE)
    assert check_versions(migrated, FILE) is False


def test_somebody_elses_database_is_refused() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE sales (amount INTEGER)")
    with pytest.raises(StoreForeign):
        schema_version(connection, FILE)


def test_a_store_that_forgot_its_schema_is_damaged(migrated: duckdb.DuckDBPyConnection) -> None:
    migrated.execute("DELETE FROM meta")
    with pytest.raises(StoreDamaged, match="schema"):
        schema_version(migrated, FILE)
